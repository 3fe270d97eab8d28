"""The networks that a weights file can name: lmanet's own, and those that the user's program registers."""

from __future__ import annotations

import json
from typing import Any

from lmanet.backbones import Backbone, ERFNet, PSPNet
from lmanet.errors import InputError, WeightsError

BACKBONES: dict[str, type[Backbone]] = {"erfnet": ERFNet, "pspnet": PSPNet}
_BUILT_IN = frozenset(BACKBONES)


def register_backbone(name: str, kind: type[Backbone]) -> None:
    """Let networks of a class be saved, trained and loaded again, under a name for the architecture.

    A weights file holds the name, the number of classes, and the network's attribute `config` if it has one: a
    dict of JSON values. Loading calls `kind(num_classes, **config)`, which must build the same architecture again,
    with any weights. The class itself is not saved: register it in every program that loads its files. The
    command line knows lmanet's own networks only.

    ```python
    class Mine(Backbone):
        def __init__(self, num_classes: int, *, depth: int = 18) -> None:
            super().__init__()
            self.num_classes, self.config = num_classes, {"depth": depth}
            ...

    lmanet.zoo.register_backbone("mine", Mine)
    ```

    Args:
        name: of the architecture, in weights files.
        kind: the class; registered again under the same name (as a notebook's cell does), it takes its place.

    Raises:
        InputError: not a `Backbone` class, or the name or the class is taken.
    """
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise InputError(f"register_backbone({name!r}, {kind!r}): expected a class made from lmanet.Backbone")
    known = BACKBONES.get(name)
    if known is not None and (name in _BUILT_IN or _path(known) != _path(kind)):
        raise InputError(
            f"the name {name!r} is taken by {_path(known)}: register {_path(kind)} under another"
        )
    other = next((n for n, k in BACKBONES.items() if k is kind and n != name), None)
    if other is not None:
        raise InputError(f"{_path(kind)} is registered as {other!r} already: one name is enough")
    BACKBONES[name] = kind


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """What `build_backbone` needs to build the same architecture again, as JSON values.

    Raises:
        WeightsError: its class is not registered, or its `config` is no dict of JSON values.
    """
    kind = type(backbone)
    name = next((name for name, known in BACKBONES.items() if known is kind), None)
    if name is None:
        raise WeightsError(
            f"a {kind.__name__} cannot be saved, as nothing would know how to build it again (known: "
            f"{', '.join(BACKBONES)}): call lmanet.zoo.register_backbone(NAME, {kind.__name__}) first"
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


def build_backbone(description: dict[str, Any], wanted_by: str) -> Backbone:
    """The network of a description, with weights of its own making.

    Args:
        description: what `describe_backbone` gave.
        wanted_by: who asks, for the error message.

    Raises:
        WeightsError: its name is not registered, or the class registered does not take its arguments.
    """
    name, num_classes, config = (
        description["name"],
        description["num_classes"],
        description.get("config", {}),
    )
    if name not in BACKBONES:
        raise WeightsError(
            f"{wanted_by} has backbone {name!r}, this program knows {', '.join(BACKBONES)}: if it is a network of your "
            f"own, call lmanet.zoo.register_backbone({name!r}, CLASS) first; if it is lmanet's, upgrade lmanet"
        )
    try:
        return BACKBONES[name](num_classes, **config)
    except TypeError as error:
        raise WeightsError(
            f"{wanted_by} wants {name!r} built as {_path(BACKBONES[name])}({num_classes}, **{config}), which fails "
            f"({error}): register the class that it was saved from"
        ) from error


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
