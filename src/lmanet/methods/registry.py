"""The one table of methods: names, and the classes that are built, saved, trained and run under them."""

from __future__ import annotations

from typing import TypeVar

from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
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

METHODS: dict[str, type[VideoModel]] = {method.method: method for method in _BUILT_IN}
"""By name: the built-in ones, then those that the user's program registered."""

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
        InputError: it is no such class, lacks `method` or `State`, or the name is taken by another class.
    """
    if not isinstance(method, type) or not issubclass(method, VideoModel):
        raise InputError(f"register({method!r}): expected a class made from lmanet.VideoModel")
    name = getattr(method, "method", None)
    if not isinstance(name, str) or not name:
        raise InputError(f"register({method.__name__}): expected a name in its class attribute `method`")
    if not hasattr(getattr(method, "State", None), "_fields"):
        raise InputError(
            f"register({method.__name__}): expected a NamedTuple of tensors in its class attribute `State`"
        )
    if method.__abstractmethods__:
        missing = ", ".join(sorted(method.__abstractmethods__))
        raise InputError(f"register({method.__name__}): it lacks {missing}")
    known = METHODS.get(name)
    if known is not None and (known in _BUILT_IN or _path(known) != _path(method)):
        raise InputError(
            f"the name {name!r} is taken by {_path(known)}: give {_path(method)} another in its attribute `method`"
        )
    METHODS[name] = method
    return method


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


def _path(method: type[VideoModel]) -> str:
    return f"{method.__module__}.{method.__qualname__}"
