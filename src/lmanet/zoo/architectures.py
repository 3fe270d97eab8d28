"""The networks that a weights file can name: lmanet's own, and those that the user's program registers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from lmanet.backbones import Backbone, ERFNet, ESPNetv2, Merged, PSPNet
from lmanet.backbones.efficient_unet import efficient_unet, start_from_imagenet
from lmanet.errors import InputError, WeightsError

Builder = Callable[..., Backbone]
"""Takes the number of classes, and further JSON values by name; a class is one."""

BACKBONES: dict[str, Builder] = {
    "erfnet": ERFNet,
    "espnetv2": ESPNetv2,
    "pspnet": PSPNet,
    "efficient-unet": efficient_unet,
}
IMAGENET: dict[str, Callable[[Any], None]] = {"efficient-unet": start_from_imagenet}
"""How a network gets an encoder trained on ImageNet."""
MERGED = "merged"
"""The name of a network whose classes are merged: its `config` describes the network."""
_BUILT_IN = frozenset((*BACKBONES, MERGED))


def register_backbone(name: str, build: Builder) -> None:
    """Let networks be saved, trained and loaded again, under a name for the architecture.

    A weights file holds the name, the number of classes, and the network's attribute `config` if it has one: a
    dict of JSON values. Loading calls `build(num_classes, **config)`, which must build the same architecture again,
    with any weights. The code itself is not saved: register it in every program that loads its files. On the command
    line `--model MODULE:FUNCTION` does so.

    ```python
    class Mine(Backbone):
        def __init__(self, num_classes: int, *, depth: int = 18) -> None:
            super().__init__()
            self.num_classes, self.config = num_classes, {"depth": depth}
            ...

    lmanet.zoo.register_backbone("mine", Mine)
    ```

    A network that a function builds (`lambda num_classes: Wrapped(Net(num_classes), at="encoder")`) can be saved if it
    came from `build_backbone`, which notes the name.

    Args:
        name: of the architecture, in weights files.
        build: a class made from `Backbone`, or a function that gives one; registered again under the same name (as a
            notebook's cell does), it takes its place.

    Raises:
        InputError: it cannot be called, is a class of something else, or the name or the class is taken.
    """
    if not callable(build) or (isinstance(build, type) and not issubclass(build, Backbone)):
        raise InputError(
            f"register_backbone({name!r}, {build!r}): expected a class made from lmanet.Backbone, or a function that "
            f"builds one"
        )
    known = BACKBONES.get(name)
    if name in _BUILT_IN or (known is not None and _path(known) != _path(build)):
        raise InputError(
            f"the name {name!r} is taken by {_path(known or Merged)}: register {_path(build)} under another"
        )
    other = next((n for n, b in BACKBONES.items() if b is build and n != name), None)
    if other is not None:
        raise InputError(f"{_path(build)} is registered as {other!r} already: one name is enough")
    BACKBONES[name] = build


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """What `build_backbone` needs to build the same architecture again, as JSON values.

    Raises:
        WeightsError: its class is not registered, or its `config` is no dict of JSON values.
    """
    if isinstance(backbone, Merged):
        config = {"network": describe_backbone(backbone.network), "groups": backbone.groups}
        return {"name": MERGED, "num_classes": backbone.num_classes, "config": config}
    kind = type(backbone)
    name = backbone.architecture
    if name not in BACKBONES:
        name = next((name for name, known in BACKBONES.items() if known is kind), None)
    if name is None:
        raise WeightsError(
            f"a {kind.__name__} cannot be saved, as nothing would know how to build it again (known: "
            f"{', '.join(BACKBONES)}): call lmanet.zoo.register_backbone(NAME, {kind.__name__}) first, or "
            f"register a function, and get the network from lmanet.zoo.build_backbone"
        )
    config = getattr(backbone, "config", {})
    try:
        same = isinstance(config, dict) and json.loads(json.dumps(config)) == config
    except TypeError:
        same = False
    if not same:
        raise WeightsError(
            f"{kind.__name__}.config is {config!r}: expected a dict of JSON values, the arguments that "
            f"{kind.__name__}(num_classes, **config) builds the same network from"
        )
    return {"name": name, "num_classes": backbone.num_classes, **({"config": config} if config else {})}


def build_backbone(description: dict[str, Any], wanted_by: str = "this program") -> Backbone:
    """The network of a description, with weights of its own making.

    Args:
        description: `name`, `num_classes` and, if it has any, `config`, as `describe_backbone` gives them.
        wanted_by: who asks, for the error message.

    Raises:
        WeightsError: its name is not registered, or what is registered does not take its arguments, or gives another
            number of classes.
    """
    name, num_classes, config = (
        description["name"],
        description["num_classes"],
        description.get("config", {}),
    )
    builders = {**BACKBONES, MERGED: partial(_merged, wanted_by)}
    if name not in builders and ":" in name:
        raise WeightsError(
            f"{wanted_by} was trained on the network {name}: give --model {name}, or call "
            f"lmanet.zoo.register_backbone({name!r}, FUNCTION) first"
        )
    if name not in builders:
        raise WeightsError(
            f"{wanted_by} has backbone {name!r}, this program knows {', '.join(BACKBONES)}: if it is a network of your "
            f"own, call lmanet.zoo.register_backbone({name!r}, CLASS) first; if it is lmanet's, upgrade lmanet"
        )
    try:
        backbone = builders[name](num_classes, **config)
    except TypeError as error:
        raise WeightsError(
            f"{wanted_by} wants {name!r} built as {_path(builders[name])}({num_classes}, **{config}), which fails "
            f"({error}): register the class that it was saved from"
        ) from error
    if backbone.num_classes != num_classes:
        raise WeightsError(
            f"{wanted_by} wants {name!r} with {num_classes} classes, {_path(builders[name])} built it with "
            f"{backbone.num_classes}: register what it was saved from"
        )
    backbone.architecture = name
    if config:
        backbone.config = config
    return backbone


def _merged(wanted_by: str, num_classes: int, *, network: dict[str, Any], groups: list[list[int]]) -> Merged:
    """Takes the number of classes as all builders do; that the groups are as many is checked behind it."""
    return Merged(build_backbone(network, wanted_by), groups)


def _path(build: Builder) -> str:
    build = getattr(build, "func", build)
    return f"{build.__module__}.{getattr(build, '__qualname__', type(build).__qualname__)}"
