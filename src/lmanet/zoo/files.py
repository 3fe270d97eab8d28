"""A model in one file: safetensors, with the configuration in its header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lmanet.atomic import write_whole
from lmanet.backbones import Backbone
from lmanet.classes import Classes
from lmanet.errors import WeightsError
from lmanet.methods.base import TrainableVideoModel
from lmanet.methods.label_memory import LabelMemorySegmenter
from lmanet.methods.lmanet import VideoSegmenter
from lmanet.zoo.architectures import build_backbone, describe_backbone

FORMAT = 1


def save_model(
    model: TrainableVideoModel | Backbone,
    path: str | Path,
    *,
    classes: Classes,
    card: dict[str, Any] | None = None,
    single_frame: str | None = None,
    half: bool = False,
) -> None:
    """Write a model and all that is needed to build it again.

    Args:
        model: a video model, or a backbone by itself.
        path: `NAME.safetensors`; written under another name and renamed.
        classes: names and colours of the model's classes.
        card: data, recipe, command, figures, limits: whatever a user should know, as JSON values.
        single_frame: for a video model, the single-frame model that it was made from: a bundled name, or the name
            of a file in the same folder.
        half: keep convolution weights in float16; biases and BatchNorm stay float32.

    Raises:
        WeightsError: the network's class is not known (see `register_backbone`), or it is an optimised copy.
        OutputError: the file cannot be written.
    """
    if model.optimized:
        raise WeightsError(
            f"this {type(model).__name__} is a copy for inference, without its BatchNorm: save the model that "
            "optimize() was called on"
        )
    backbone = model.backbone if isinstance(model, TrainableVideoModel) else model
    config: dict[str, Any] = {
        "format": FORMAT,
        "backbone": describe_backbone(backbone),
        "classes": asdict(classes),
        "card": card or {},
    }
    if isinstance(model, TrainableVideoModel):
        config["video"] = {"values": model.values, **model.arguments}
        config["single_frame"] = single_frame
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        halved = half and value.ndim > 1 and value.is_floating_point()
        # Cloned, as the file's format takes no two that share their memory (tied weights).
        tensors[name] = (
            value.detach().cpu().to(torch.float16 if halved else value.dtype, copy=True).contiguous()
        )
    write_whole(Path(path), save(tensors, metadata={"lmanet": json.dumps(config)}), durable=True)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a weights file's header.

    Raises:
        WeightsError: the file is missing, damaged, not lmanet's, or of a newer format.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not a file: give the .safetensors file that lmanet train wrote")
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get("lmanet")
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again"
        ) from error
    if header is None:
        raise WeightsError(
            f"{path} has no lmanet configuration in its header, only weights: expected a file written by lmanet"
        )
    config = json.loads(header)
    if config["format"] != FORMAT:
        raise WeightsError(
            f"{path} has format {config['format']}, this lmanet reads format {FORMAT}: upgrade lmanet"
        )
    return config


def load_model(path: Path) -> TrainableVideoModel | Backbone:
    """Build the model of a weights file, in `eval` mode.

    The model gets the attributes `classes` (`Classes`) and `card` (dict).

    Raises:
        WeightsError: see `read_config`; or the network's class is not known (see `register_backbone`), or the
            weights do not fit the configuration.
    """
    config = read_config(path)
    model: TrainableVideoModel | Backbone = build_backbone(config["backbone"], str(path))
    if "video" in config:
        arguments = dict(config["video"])
        # Files of before there was a choice have what there was.
        if arguments.pop("values", "features") == "labels":
            model = LabelMemorySegmenter(model, **{"persistence": 1.0, **arguments})
        else:
            model = VideoSegmenter(model, **{"convolutions": "paper", **arguments})
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    load_strictly(model, tensors, path)
    names, palette = config["classes"]["names"], config["classes"]["palette"]
    model.classes = Classes(tuple(names), tuple(map(tuple, palette)))  # pyright: ignore[reportArgumentType]
    model.card = config["card"]
    return model.eval()


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy weights into a model whose keys and shapes must be the same.

    Raises:
        WeightsError: naming the first key that differs.
    """
    own = model.state_dict()
    for key in own:
        if key not in tensors:
            raise WeightsError(
                f"{path} belongs to another architecture: it lacks {key!r}, the first key of "
                f"{type(model).__name__} that is not in it"
            )
        if tensors[key].shape != own[key].shape:
            raise WeightsError(
                f"{path} belongs to another architecture: {key!r} is {tuple(tensors[key].shape)}, "
                f"{type(model).__name__} has {tuple(own[key].shape)}"
            )
    beyond = next((key for key in tensors if key not in own), None)
    if beyond is not None:
        raise WeightsError(
            f"{path} belongs to another architecture: it holds {beyond!r}, which {type(model).__name__} has not"
        )
    model.load_state_dict(tensors)
