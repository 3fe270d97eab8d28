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
from lmanet.classes import Classes
from lmanet.errors import InputError, WeightsError
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import METHODS, find_method
from lmanet.zoo.architectures import build_backbone, describe_backbone

FORMAT = 2
"""Version of the files that are written. Format 1, of before methods had names, is read too: see `_upgraded`."""


def save_model(
    model: VideoModel,
    path: str | Path,
    *,
    classes: Classes | None = None,
    card: dict[str, Any] | None = None,
    single_frame: str | None = None,
    half: bool = False,
) -> None:
    """Write a model of any method and all that is needed to build it again.

    Args:
        model: the model; of a network by itself `SingleFrame(backbone)`.
        path: `NAME.safetensors`; written under another name and renamed.
        classes: names and colours of the model's classes, if not those that its network has, if any.
        card: data, recipe, command, figures, limits: whatever a user should know, as JSON values; the model's own if
            not given.
        single_frame: the single-frame model that it was made from, where its network was trained on: a bundled name,
            or the name of a file in the same folder.
        half: keep convolution weights in float16; biases and BatchNorm stay float32.

    Raises:
        WeightsError: the network's or the method's class is not registered (`register_backbone`,
            `lmanet.methods.register`), or it is an optimised copy.
        OutputError: the file cannot be written.
    """
    if model.optimized or model.backbone.optimized:
        raise WeightsError(
            f"this {type(model).__name__} is a copy for inference, without its BatchNorm: save the model that "
            "optimize() was called on"
        )
    if METHODS.get(model.method) is not type(model):
        raise WeightsError(
            f"a {type(model).__name__} cannot be saved, as nothing would know how to build it again: call "
            f"lmanet.methods.register({type(model).__name__}) first"
        )
    config: dict[str, Any] = {
        "format": FORMAT,
        "backbone": describe_backbone(model.backbone),
        "method": {"name": model.method, "arguments": model.arguments},
        "classes": asdict(known) if (known := classes or model.backbone.classes) else None,
        "card": card or model.card or {},
        "single_frame": single_frame,
    }
    try:
        same = json.loads(json.dumps(model.arguments)) == model.arguments
    except TypeError:
        same = False
    if not same:
        raise WeightsError(
            f"{type(model).__name__}.arguments are {model.arguments!r}: expected a dict of JSON values, which "
            f"{type(model).__name__}(backbone, **arguments) builds the same model from"
        )
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        halved = half and value.ndim > 1 and value.is_floating_point()
        # Cloned, as the file's format takes no two that share their memory (tied weights).
        tensors[name] = (
            value.detach().cpu().to(torch.float16 if halved else value.dtype, copy=True).contiguous()
        )
    write_whole(Path(path), save(tensors, metadata={"lmanet": json.dumps(config)}), durable=True)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a weights file's header, as format 2 has it.

    Returns:
        `backbone` (name, num_classes, config), `method` (name, arguments), `classes` (names, palette; or None), `card`,
        `single_frame` (a name or None).

    Raises:
        WeightsError: the file is missing, damaged, not lmanet's, or of a newer format.
    """
    return _upgraded(_read_header(path))


def _read_header(path: Path) -> dict[str, Any]:
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
    try:
        config = json.loads(header)
    except json.JSONDecodeError:
        config = None
    if not isinstance(config, dict) or not {"format", "backbone", "classes", "card"} <= set(config):
        raise WeightsError(f"{path} has a damaged configuration in its header: copy or download it again")
    if config["format"] not in (1, FORMAT):
        raise WeightsError(
            f"{path} has format {config['format']}, this lmanet reads formats 1 and {FORMAT}: upgrade lmanet"
        )
    return config


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of format 1 as format 2 has it: methods were told by what the memory holds, or by its lack."""
    if config["format"] == FORMAT:
        return config
    arguments = dict(config.get("video", {}))
    holds = arguments.pop("values", "features")
    if "video" not in config:
        name = "single-frame"
    elif holds == "labels":
        name, arguments = "label-memory", {"persistence": 1.0, **arguments}
    else:
        name, arguments = "lmanet", {"convolutions": "paper", **arguments}
    method = {"name": name, "arguments": arguments}
    return {"single_frame": None, **config, "format": FORMAT, "method": method}


def load_model(path: Path) -> VideoModel:
    """Build the model of a weights file, in `eval` mode; of a single-frame network a `SingleFrame`.

    The model has the attributes `classes` (`Classes`) and `card` (dict), and its backbone too.

    Raises:
        WeightsError: see `read_config`; or the network's or the method's class is not registered
            (`register_backbone`, `lmanet.methods.register`), or the weights do not fit the configuration.
    """
    header = _read_header(path)
    config = _upgraded(header)
    backbone = build_backbone(config["backbone"], str(path))
    if config["classes"] is not None:
        names, palette = config["classes"]["names"], config["classes"]["palette"]
        backbone.classes = Classes(tuple(names), tuple(map(tuple, palette)))  # pyright: ignore[reportArgumentType]
    name, arguments = config["method"]["name"], config["method"]["arguments"]
    if name not in METHODS:
        raise WeightsError(
            f"{path} is of the method {name!r}, this program knows {', '.join(METHODS)}: if it is one of your own, "
            f"call lmanet.methods.register(CLASS) first, or give --method MODULE:CLASS; if it is lmanet's, upgrade "
            f"lmanet"
        )
    method = find_method(name)
    try:
        model = method(backbone, **arguments)
    except (TypeError, InputError) as error:
        raise WeightsError(
            f"{path} wants {name!r} built as {method.__qualname__}(backbone, **{arguments}), which fails ({error}): "
            f"register the class that it was saved from"
        ) from error
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    # Files of format 1 hold a single-frame network's weights under its own names.
    alone = header["format"] == 1 and "video" not in header
    load_strictly(backbone if alone else model, tensors, path)
    model.card = backbone.card = config["card"]
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
