"""`lmanet convert`."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from lmanet.classes import Classes
    from lmanet.data.merging import Merge
    from lmanet.methods.base import VideoModel
    from lmanet.zoo.official import Official


def convert(
    file: tyro.conf.Positional[Path],
    /,
    *,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    classes: str | None = None,
) -> None:
    """Make a weights file of a checkpoint that a network's authors published.

    Recognised by their keys: ERFNet (erfnet_pretrained.pth), semseg's PSPNet-50 and -101, ESPNetv2
    (espnetv2_s_2.0_city_1024x512.pth, espnetv2_s_2.0_pascal_384x384.pth), and the original LMANet on ERFNet
    (lmanet_erf_best.pth) and on PSPNet-101 (lmanet_psp101_best.pth). Nothing in the file is executed.

    Args:
        file: the checkpoint (.pth), or with --classes also a weights file of a single-frame network (.safetensors).
        output: the weights file (.safetensors), for --weights and lmanet.load.
        classes: merge the network's classes into those of other data, to score it there: camvid, of a network with
            Cityscapes' classes; or a .json file, such as {"road": ["road", "sidewalk"], "vehicle": ["car", "bus"]}.
    """
    from lmanet.cli.outputs import check_file
    from lmanet.data.merging import find_merge
    from lmanet.zoo import load_model, save_model

    check_file(output, (".safetensors",))
    merge = None if classes is None else find_merge(classes)
    command = f"lmanet convert {file.name}"
    if merge is not None and file.suffix.lower() == ".safetensors":
        model, left_out = load_model(file), ()
    else:
        model, left_out = _published(file)
    if merge is not None:
        model = _merged(model, merge, file)
        command += f" --classes {classes}"
    save_model(model, output, card={**(model.card or {}), "command": command})
    names = {"memory_size": "S", "window": "R"}
    memory = "".join(f", {names[key]}={value}" for key, value in model.arguments.items() if key in names)
    said = model.classes.names
    kind = (model.card or {}).get("kind", model.method)
    print(f"{output}: {kind}; {len(said)} classes ({', '.join(said[:3])}, …){memory}")
    if left_out:
        print(f"left out, as no output depends on them: {', '.join(left_out)}")


def _published(file: Path) -> tuple[VideoModel, tuple[str, ...]]:
    """A published checkpoint, with its classes and where it comes from; and the weights that it has for nothing."""
    from lmanet.zoo import load_official

    official = load_official(file)
    model = official.model
    model.backbone.classes = _classes(official)
    model.card = model.backbone.card = {"kind": official.kind, "file": file.name, **official.card}
    return model, official.left_out


def _merged(model: VideoModel, merge: Merge, file: Path) -> VideoModel:
    """The single-frame network with merged classes."""
    from lmanet.backbones import merged
    from lmanet.errors import InputError
    from lmanet.methods.single_frame import SingleFrame

    if not isinstance(model, SingleFrame):
        raise InputError(
            f"{file} is of the method {model.method}, which was trained on the network's own classes: leave --classes "
            f"out, or give the single-frame network"
        )
    network = merged(model.backbone, merge.names, merge.palette)
    other = SingleFrame(network).eval()
    other.card = model.card
    return other


def _classes(official: Official) -> Classes:
    """VOC's, where it is known to be of them; Cityscapes', with one more where there is an output for it; numbers."""
    from lmanet.classes import Classes
    from lmanet.data.cityscapes import CITYSCAPES_CLASSES
    from lmanet.data.voc import VOC_CLASSES
    from lmanet.zoo.official import VOC

    if official.card.get("data") == VOC:
        return VOC_CLASSES
    count = official.model.backbone.num_classes
    names, palette = CITYSCAPES_CLASSES.names, CITYSCAPES_CLASSES.palette
    if count == len(names):
        return CITYSCAPES_CLASSES
    if count == len(names) + 1:
        return Classes((*names, official.other), (*palette, (0, 0, 0)))
    # Steps of the golden ratio keep the hues of neighbouring numbers apart.
    hues = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.7, 0.9) for i in range(count)]
    colours = ((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)
    return Classes(tuple(f"class {i}" for i in range(count)), tuple(colours))
