"""Checkpoints that the authors of networks published, read into the networks here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lmanet.backbones import Backbone, ERFNet, ESPNetv2, PSPNet
from lmanet.backbones.espnetv2 import WIDTHS
from lmanet.errors import WeightsError
from lmanet.methods.base import VideoModel
from lmanet.methods.fusion import FusionName
from lmanet.methods.lmanet import LMANet
from lmanet.methods.single_frame import SingleFrame
from lmanet.zoo.files import load_strictly

BATCH_COUNTER = "num_batches_tracked"
"""BatchNorm keeps it since PyTorch 0.4.1, later than some of the checkpoints."""

VOC = "PASCAL VOC 2012"
"""Of a card's `data`."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """A published checkpoint, read.

    Attributes:
        kind: whose and of which network.
        model: with its weights, in `eval` mode.
        left_out: the keys of weights that the network's forward pass does not use.
        other: what its authors call the output beside Cityscapes' classes, where it has one.
        card: where it comes from, as far as that is known, as JSON values.
    """

    kind: str
    model: VideoModel
    left_out: tuple[str, ...]
    other: str = "void"
    card: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """How to read one kind of checkpoint.

    Attributes:
        name: whose and of which network.
        marks: the keys that it is known by; the first kind whose marks are all there is taken.
        build: the network for the checkpoint's tensors, under the names here.
        names: what begins its keys, and what begins ours in its place.
        unused: what begins the keys of weights that the forward pass does not use.
        other: see `Official`.
        card: see `Official`.
        data: what it was trained on, by the number of its outputs, for the card.
    """

    name: str
    marks: tuple[str, ...]
    build: Callable[[Tensors], VideoModel]
    names: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    other: str = "void"
    card: dict[str, Any] = field(default_factory=dict)
    data: dict[int, str] = field(default_factory=dict)

    def rename(self, key: str) -> str:
        """A key of the checkpoint under the name here."""
        old, new = next((pair for pair in self.names if key.startswith(pair[0])), ("", ""))
        return new + key.removeprefix(old)


def _outputs(tensors: Tensors, key: str, axis: int) -> int:
    """How many classes a classifier has. Where it is missing, `load_strictly` is to say so: then any number."""
    weight = tensors.get(key)
    return weight.shape[axis] if weight is not None and weight.ndim == 4 else 1


def _erfnet(tensors: Tensors, inside: str) -> ERFNet:
    return ERFNet(_outputs(tensors, f"{inside}decoder.output_conv.weight", 1))


def _pspnet(tensors: Tensors, inside: str) -> PSPNet:
    layers: Literal[50, 101] = 101 if f"{inside}layer3.6.conv1.weight" in tensors else 50
    return PSPNet(_outputs(tensors, f"{inside}cls.4.weight", 0), layers=layers)


def _espnetv2(tensors: Tensors, inside: str) -> ESPNetv2:
    widths = tuple(
        _outputs(tensors, f"{inside}base_net.{of}.weight", 0)
        for of in ("level1.conv", "level2_0.inp_reinf.1.conv")
    )
    scale = next((scale for scale, known in WIDTHS.items() if known[:2] == widths), 2.0)
    last = f"{inside}bu_dec_l4.merge_layer.3.weight"
    # Without it any number of classes that the pyramids' width goes with, so that it is what is missed.
    width = _outputs(tensors, f"{inside}bu_dec_l1.stages.0.weight", 0)
    return ESPNetv2(_outputs(tensors, last, 0) if last in tensors else 2 * width, scale=scale)


def _single(tensors: Tensors, *, backbone: Callable[[Tensors, str], Backbone]) -> SingleFrame:
    return SingleFrame(backbone(tensors, ""))


def _video(
    tensors: Tensors, *, backbone: Callable[[Tensors, str], Backbone], fusion: FusionName, memory_size: int
) -> LMANet:
    """S and R are those of the published evaluation: they are not in the file."""
    inner = backbone(tensors, "backbone.")
    return LMANet(inner, memory_size=memory_size, window=21, fusion=fusion, border="zero")


_KEYS_AND_VALUES = (
    ("kv_Q_r4.Key.", "key_value.query_key."),
    ("kv_Q_r4.Value.", "key_value.query_value."),
    ("kv_M_r4.Key.", "key_value.memory_key."),
    ("kv_M_r4.Value.", "key_value.memory_value."),
    ("memory_fusion.conv_layer_3.", "fusion.query_gate."),
    ("memory_fusion.conv_layer_4.", "fusion.memory_gate."),
    ("memory_fusion.bn.", "fusion.norm."),
)

_ERFNET = _Kind(
    "ERFNet, of its authors",
    marks=("encoder.initial_block.conv.weight",),
    build=partial(_single, backbone=_erfnet),
    # With it the encoder is trained alone, first; the whole network does not run it.
    unused=("encoder.output_conv.",),
)

_KINDS = (
    _Kind(
        "LMANet on ERFNet, of the paper's authors",
        marks=("kv_M_r4.Key.weight", "encoder.initial_block.conv.weight"),
        build=partial(_video, backbone=_erfnet, fusion="gated", memory_size=4),
        names=(
            *_KEYS_AND_VALUES,
            ("memory_fusion.bn1.", "fusion.query_in.0."),
            ("memory_fusion.bn2.", "fusion.memory_in.0."),
            ("memory_fusion.conv_layer_1.", "fusion.query_encode."),
            ("memory_fusion.conv_layer_2.", "fusion.memory_encode."),
            ("encoder.", "backbone.encoder."),
            ("decoder.", "backbone.decoder."),
        ),
    ),
    _Kind(
        "LMANet on PSPNet, of the paper's authors",
        marks=("kv_M_r4.Key.weight", "encoder.layer0.0.weight"),
        build=partial(_video, backbone=_pspnet, fusion="bottleneck", memory_size=3),
        names=(
            *_KEYS_AND_VALUES,
            ("memory_fusion.bn0.", "fusion.down_norm."),
            ("memory_fusion.conv_layer_1.", "fusion.down."),
            ("encoder.", "backbone."),
            ("ppm.", "backbone.ppm."),
            ("decoder.", "backbone."),
        ),
        # Made for the memory's reading, which goes through the query's convolution instead.
        unused=("memory_fusion.conv_layer_2.",),
    ),
    _ERFNET,
    _Kind(
        "PSPNet, of the semseg repository",
        marks=("layer0.0.weight",),
        build=partial(_single, backbone=_pspnet),
        # The auxiliary head is there for the training's second loss.
        unused=("aux.",),
    ),
    _Kind(
        "ESPNetv2, of its authors",
        marks=("base_net.level1.conv.weight", "bu_dec_l1.stages.0.weight"),
        build=partial(_single, backbone=_espnetv2),
        # Activations where only the sum after them has one.
        unused=tuple(f"base_net.level{n}_0.eesp.module_act." for n in (2, 3, 4)),
        other="background",
        card={"origin": "https://github.com/sacmehta/EdgeNets", "licence": "MIT, that of the authors' code"},
        data={20: "Cityscapes", 21: VOC},
    ),
)

RECOGNISED = "; ".join(kind.name for kind in _KINDS)
"""What `load_official` reads, for messages."""


def load_official(path: Path) -> Official:
    """The network of a published checkpoint, recognised by its keys, in `eval` mode.

    The file holds a state dict, or a dict with one under `state_dict`; keys may begin with `module.`. Every weight
    that the forward pass uses must be there, and none besides those known to be unused. Nothing in the file is
    executed. Known are

    - ERFNet (`erfnet_pretrained.pth`: Cityscapes; 20 outputs, the 19 classes and void last),
    - semseg's PSPNet-50 and -101,
    - ESPNetv2 for segmentation (`espnetv2_s_2.0_city_1024x512.pth`: Cityscapes; 20 outputs, the 19 classes and
      background last; `espnetv2_s_2.0_pascal_384x384.pth`: PASCAL VOC, 21 outputs, background first),
    - the original LMANet on ERFNet (`lmanet_erf_best.pth`) and on PSPNet-101 (`lmanet_psp101_best.pth`), with
      `border="zero"`. The original starts a stream without a memory, and gives PSPNet's logits a void class that is
      always 0; from frame S + 1 on the logits here are the same but for that class, which is left out.

    Args:
        path: the `.pth` file.

    Raises:
        WeightsError: the file is missing, damaged, holds more than tensors, or is of another architecture.
    """
    tensors = _read_state_dict(path)
    for kind in _KINDS:
        if all(mark in tensors for mark in kind.marks):
            return _load(kind, tensors, path)
    first = next(iter(tensors), None)
    holds = "no weights" if first is None else f"{len(tensors)} weights, the first {first!r}"
    raise WeightsError(f"{path} is not recognised: it holds {holds}. Recognised are: {RECOGNISED}")


def load_official_erfnet(path: Path) -> ERFNet:
    """ERFNet of a published checkpoint (`erfnet_pretrained.pth`), in `eval` mode; nothing in the file is executed.

    Raises:
        WeightsError: the file is missing, damaged, holds more than tensors, or is of another architecture (naming
            the first key that differs).
    """
    network = _load(_ERFNET, _read_state_dict(path), path).model.backbone
    assert isinstance(network, ERFNet)
    return network


def _load(kind: _Kind, tensors: Tensors, path: Path) -> Official:
    left_out = tuple(key for key in tensors if key.startswith(kind.unused))
    renamed = {kind.rename(key): value for key, value in tensors.items() if key not in left_out}
    model = kind.build(renamed)
    # A network's own checkpoint has its keys without the method around it; so have the messages about them.
    holder = model.backbone if isinstance(model, SingleFrame) else model
    for key, value in holder.state_dict().items():
        if key.endswith(BATCH_COUNTER):
            renamed.setdefault(key, value)
    load_strictly(holder, renamed, path)
    data = kind.data.get(model.backbone.num_classes)
    card = {**kind.card, **({"data": data} if data else {})}
    return Official(kind.name, model.eval(), left_out, kind.other, card)


def _read_state_dict(path: Path) -> Tensors:
    """The tensors of a file, `module.` taken off their keys."""
    if not path.is_file():
        raise WeightsError(f"{path} is not a file: give the .pth file that the network's authors published")
    with path.open("rb") as file:
        start = file.read(2)
    # The zip file of torch.save, or its pickle of before.
    if start and not start.startswith((b"PK", b"\x80")):
        raise WeightsError(f"{path} is not a checkpoint of PyTorch. Recognised are: {RECOGNISED}")
    try:
        with warnings.catch_warnings():
            # Damaged files look to torch like a protocol to come, which it asks to report.
            warnings.simplefilter("ignore", UserWarning)
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On damaged bytes torch's unpickler raises whatever it stumbles over. Its message, which tells how to run
        # what is in the file, stays the cause.
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors, which could run code and was not loaded: download it "
            f"again, or save the network's state_dict() with torch.save. Recognised are: {RECOGNISED}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path} holds a {type(content).__name__} that is no state dict: expected tensors by name, or a dict "
            f"with them under 'state_dict'. Recognised are: {RECOGNISED}"
        )
    return {key.removeprefix("module."): value for key, value in content.items()}
