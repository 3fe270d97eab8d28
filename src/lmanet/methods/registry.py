"""The one table of methods: names, and the classes that are built, saved, trained and run under them."""

from __future__ import annotations

import inspect
import re
from typing import TypeVar

from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel, VideoModel
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory

_BUILT_IN: tuple[type[VideoModel], ...] = (
    SingleFrame,
    FlowAverage,
    TrainingFreeMemory,
    LabelMemory,
    LMANet,
)

DEFAULT = TrainingFreeMemory.method
"""The method of a network of which nothing is said."""

METHODS: dict[str, type[VideoModel]] = {method.method: method for method in _BUILT_IN}
"""By name: the built-in ones, then those that the user's program registered."""

RESERVED = ("all", "control")
"""What `lmanet evaluate` and its reports call by these names."""

Method = TypeVar("Method", bound=type[VideoModel])


def register(method: Method) -> Method:
    """Let a method of your own be built, saved, loaded, trained and run by its name; also a class decorator.

    Its code is not saved: register it in every program that loads its files. On the command line
    `--method MODULE:CLASS` does so.

    ```python
    @lmanet.methods.register
    class Mine(lmanet.VideoModel):
        method = "mine"
        ...
    ```

    Args:
        method: a class made from `VideoModel`, or from `TrainableVideoModel` to be trained; registered again under the
            same name (as a notebook's cell does), it takes its place.

    Returns:
        The class.

    Raises:
        InputError: it is no such class; its `method`, `State`, `trainable` or constructor is not what it must be; or
            the name is taken by another class.
    """
    if not isinstance(method, type) or not issubclass(method, VideoModel):
        raise InputError(f"register({method!r}): expected a class made from lmanet.VideoModel")
    name = getattr(method, "method", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name in RESERVED:
        raise InputError(
            f"register({method.__name__}): its class attribute `method` is {name!r}: expected a name of small letters, "
            f"digits and hyphens other than {' and '.join(RESERVED)}"
        )
    fields = getattr(getattr(method, "State", None), "_fields", None)
    if fields is None or "size" in fields:
        raise InputError(
            f"register({method.__name__}): expected a NamedTuple of tensors in its class attribute `State`, without a "
            f"field `size`, which is a session's own"
        )
    if method.__abstractmethods__:
        missing = ", ".join(sorted(method.__abstractmethods__))
        raise InputError(f"register({method.__name__}): it lacks {missing}")
    if method.trainable != issubclass(method, TrainableVideoModel):
        raise InputError(
            f"register({method.__name__}): `trainable` is {method.trainable}: expected a class made from "
            f"lmanet.TrainableVideoModel to be trained, and no other"
        )
    _check_constructor(method)
    known = METHODS.get(name)
    if known is not None and (is_built_in(known) or _path(known) != _path(method)):
        raise InputError(
            f"the name {name!r} is taken by {_path(known)}: give {_path(method)} another in its attribute `method`"
        )
    METHODS[name] = method
    return method


def _check_constructor(method: type[VideoModel]) -> None:
    """Raise InputError unless a method is built from its network, and from what its `arguments` give back."""
    taken = list(inspect.signature(method).parameters.values())[1:]
    given = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [one.name for one in taken if one.default is one.empty and one.kind not in given]
    if needed:
        raise InputError(
            f"register({method.__name__}): its constructor needs {', '.join(needed)} beside the network: give defaults"
        )
    if taken and method.arguments is VideoModel.arguments:
        raise InputError(
            f"register({method.__name__}): its constructor takes {', '.join(one.name for one in taken)}: expected a "
            f"property `arguments` that gives them back, or a saved model would come back with the defaults"
        )


def find_method(name: str) -> type[VideoModel]:
    """The class of a method.

    Raises:
        InputError: there is none of this name; the message lists those that there are.
    """
    if name not in METHODS:
        raise InputError(
            f"no method named {name!r}: there are {', '.join(METHODS)}; one of your own is registered by "
            f"lmanet.methods.register, or given as MODULE:CLASS on the command line"
        )
    return METHODS[name]


def is_built_in(method: type[VideoModel]) -> bool:
    """Whether a method is lmanet's own, not one that the user's program registered."""
    return method in _BUILT_IN


def _path(method: type[VideoModel]) -> str:
    return f"{method.__module__}.{method.__qualname__}"
