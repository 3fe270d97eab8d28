"""A model by what its user names: weights, a network of their own, a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from torch import nn

from lmanet.backbones import Backbone, NetworkOptions, as_backbone
from lmanet.errors import InputError, WeightsError
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import DEFAULT, METHODS, is_built_in
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.wrap import check_no_model, put_on
from lmanet.third_party import method_of, register_third_party, third_party_backbone
from lmanet.zoo.architectures import build_backbone
from lmanet.zoo.files import load_model, read_config
from lmanet.zoo.names import load, locate, single_frame_of

DEFAULT_WEIGHTS = "erfnet-camvid"


def find_model(
    weights: str | None = None,
    *,
    model: str | nn.Module | None = None,
    method: str | None = None,
    **network: Unpack[NetworkOptions],
) -> VideoModel:
    """A network and the method by which it labels video.

    ```python
    lmanet.find_model()                                               # bundled
    lmanet.find_model("erfnet-camvid", method="single-frame")
    lmanet.find_model(model="my_module:build", method="flow-average", normalise="none")
    ```

    Args:
        weights: a bundled name (`lmanet info` lists them), a `.safetensors` file, or a Hub id; `erfnet-camvid` if there
            is no `model`.
        model: a network of your own, or `MODULE:FUNCTION` that builds it; with the weights of a method that was trained
            on it, or without.
        method: a name of `lmanet.methods.METHODS`, or `MODULE:CLASS`; if not given, that of the weights, and for a
            single-frame network `training-free`. A method that is trained wants weights of its training; all others are
            put on the single-frame network.
        network: how `model` is taken, as `lmanet.wrap` has it: `at`, `entry`, `output`, `normalise`, `mean`, `std`,
            `probe`.

    Returns:
        The model in `eval` mode, on the CPU.

    Raises:
        InputError: the arguments contradict each other; there is no such method; or it must be trained first.
        WeightsError: see `lmanet.load`.
    """
    own = _own_network(model, network)
    kind = method_of(method) if method else None
    if own is not None and weights is None:
        if kind is None:
            own.backbone(cut=False)  # what is wrong with the network itself is told first
            kind = METHODS[DEFAULT]
        return _without_training(own.backbone(cut=kind.needs_cut), kind)
    name = weights or DEFAULT_WEIGHTS
    path = locate(name)
    config = read_config(path)
    if own is not None:
        own.take_as(name, config)
    given = config["method"]["name"]
    if kind is None:
        kind = METHODS[DEFAULT if given == SingleFrame.method else given]
    if kind.method == given:
        return load_model(path)
    if own is not None:
        return _without_training(own.backbone(cut=kind.needs_cut), kind)
    return _without_training(load(single_frame_of(name)).backbone, kind)


def find_models(
    weights: str | None = None,
    *,
    model: str | nn.Module | None = None,
    methods: str | Sequence[str] = (),
    warn: Callable[[str], None] = lambda text: None,
    **network: Unpack[NetworkOptions],
) -> dict[str, VideoModel]:
    """One network under several methods, to be compared.

    Args:
        weights: see `find_model`; there is no default.
        model: see `find_model`.
        methods: their names; `all` for every one that needs no training and that of the weights; if none is given,
            `single-frame`, and that of the weights or, for a single-frame network, `training-free`.
        warn: told why there is no column of a method that nobody asked for by its name.
        network: see `find_model`.

    Returns:
        By the methods' names, the single-frame network first. They share one network, cut in two if one of them needs
        that.

    Raises:
        InputError: neither weights nor a model is given, or see `find_model`.
        WeightsError: see `lmanet.load`.
    """
    if weights is None and model is None:
        raise InputError("nothing to evaluate: give --weights, or --model MODULE:FUNCTION")
    methods = [methods] if isinstance(methods, str) else methods
    # First of all the classes of methods of one's own: weights may be of one.
    kinds = [method_of(name) for name in methods if name != "all"]
    kinds += (kind for kind in METHODS.values() if "all" in methods and not kind.trainable)
    own = _own_network(model, network)
    loaded = None
    if weights is not None:
        path = locate(weights)
        if own is not None:
            own.take_as(weights, read_config(path))
        loaded = load_model(path)
    if not methods:
        trained = loaded is not None and loaded.method != SingleFrame.method
        kinds = [SingleFrame] if trained else [SingleFrame, METHODS[DEFAULT]]
    wanted = {kind.method: kind for kind in kinds}
    put = [kind for name, kind in wanted.items() if loaded is None or name != loaded.method]
    try:
        found = _put_on_one(put, weights, loaded, own)
    except WeightsError as error:
        if methods:
            raise
        warn(f"no column for the single-frame network: {error}")
        found = {}
    if loaded is not None and (not methods or "all" in methods or loaded.method in wanted):
        found[loaded.method] = loaded
    return {name: found[name] for name in METHODS if name in found}


def _put_on_one(
    kinds: Sequence[type[VideoModel]], weights: str | None, loaded: VideoModel | None, own: _OwnNetwork | None
) -> dict[str, VideoModel]:
    """Methods, by their names, on the single-frame network, which they share."""
    if not kinds:
        return {}
    backbone = _shared_backbone(weights, loaded, own, cut=any(kind.needs_cut for kind in kinds))
    return {kind.method: _without_training(backbone, kind) for kind in kinds}


def _shared_backbone(
    weights: str | None, loaded: VideoModel | None, own: _OwnNetwork | None, *, cut: bool
) -> Backbone:
    """The single-frame network that methods are put on."""
    if own is None:
        assert weights is not None
        return load(single_frame_of(weights)).backbone
    # What a training of the network itself made of it.
    if loaded is not None and loaded.method == SingleFrame.method and not (cut and loaded.backbone.not_cut):
        return loaded.backbone
    return own.backbone(cut=cut)


class _OwnNetwork:
    """A network of the user's own, which is built and tried out when it is known whether it must be cut in two."""

    def __init__(self, model: str | nn.Module, options: NetworkOptions) -> None:
        self._model, self._options = model, options
        self._description: dict[str, Any] | None = None
        if isinstance(model, str):
            register_third_party(model)

    @property
    def name(self) -> str:
        return self._model if isinstance(self._model, str) else f"a {type(self._model).__name__}"

    @property
    def architecture(self) -> str | None:
        """What weights files call it."""
        return self._model if isinstance(self._model, str) else getattr(self._model, "architecture", None)

    def take_as(self, weights: str, config: dict[str, Any]) -> None:
        """Take it as the weights of a method that was trained on it do.

        Raises:
            InputError: they are of another network, or something else was said.
        """
        architecture = config["backbone"]["name"]
        if self.architecture != architecture:
            raise InputError(
                f"{weights} are weights of the network {architecture}, not of {self.name}: give weights that were "
                f"trained on it, or leave one of them out"
            )
        said = [name for name, value in self._options.items() if value is not None and name != "probe"]
        if said:
            raise InputError(
                f"{weights} hold how the network {self.name} is taken: leave out {', '.join(said)}"
            )
        if isinstance(self._model, str):
            self._description = config["backbone"]

    def backbone(self, *, cut: bool) -> Backbone:
        """It as a backbone; where it is cut was said, it is cut."""
        if self._description is not None:
            return build_backbone(self._description, self.name).eval()
        cut = cut or self._options.get("at") is not None
        if isinstance(self._model, str):
            return third_party_backbone(self._model, cut=cut, **self._options)
        return as_backbone(self._model, cut=cut, **self._options)


def _own_network(model: str | nn.Module | None, options: NetworkOptions) -> _OwnNetwork | None:
    check_no_model(model)
    if model is None:
        if given := [name for name, value in options.items() if value is not None]:
            raise InputError(f"{', '.join(given)}: said of a network of your own: give it as model=")
        return None
    return _OwnNetwork(model, options)


def _without_training(backbone: Backbone, kind: type[VideoModel]) -> VideoModel:
    if kind.trainable:
        how = kind.method if is_built_in(kind) else "own --method MODULE:CLASS"
        raise InputError(
            f"the method {kind.method} is trained: give the weights of its training (lmanet train {how}), or choose a "
            f"method that needs none"
        )
    made = put_on(backbone, kind.method).eval()
    made.card = made.card or backbone.card
    return made
