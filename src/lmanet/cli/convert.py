"""`lmanet convert`."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from lmanet.classes import Classes
    from lmanet.zoo.official import Official


def convert(
    file: tyro.conf.Positional[Path],
    /,
    *,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
) -> None:
    """Make a weights file of a checkpoint that a network's authors published.

    Recognised by their keys: ERFNet (erfnet_pretrained.pth), semseg's PSPNet-50 and -101, ESPNetv2
    (espnetv2_s_2.0_city_1024x512.pth, espnetv2_s_2.0_pascal_384x384.pth), and the original LMANet on ERFNet
    (lmanet_erf_best.pth) and on PSPNet-101 (lmanet_psp101_best.pth). Nothing in the file is executed.

    Args:
        file: the checkpoint (.pth).
        output: the weights file (.safetensors), for --weights and lmanet.load.
    """
    from lmanet.cli.outputs import check_file
    from lmanet.zoo import load_official, save_model

    check_file(output, (".safetensors",))
    official = load_official(file)
    model = official.model
    classes = _classes(official)
    save_model(
        model,
        output,
        classes=classes,
        card={
            "kind": official.kind,
            "file": file.name,
            "command": f"lmanet convert {file.name}",
            **official.card,
        },
    )
    names = {"memory_size": "S", "window": "R"}
    memory = "".join(f", {names[key]}={value}" for key, value in model.arguments.items() if key in names)
    print(f"{output}: {official.kind}; {len(classes)} classes ({', '.join(classes.names[:3])}, …){memory}")
    if official.left_out:
        print(f"left out, as no output depends on them: {', '.join(official.left_out)}")


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
