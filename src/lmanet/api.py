"""What the command line does, as functions: find a model, label a video, score models on labelled video."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import nn

from lmanet.backbones import Backbone, NetworkOptions, as_backbone
from lmanet.classes import check_class_count, check_same_classes
from lmanet.devices import find_device
from lmanet.errors import InputError, WeightsError
from lmanet.labelling.result import LabelledVideo
from lmanet.methods.base import VideoModel, as_video_model
from lmanet.methods.registry import METHODS, is_built_in
from lmanet.methods.wrap import check_no_model, put_on
from lmanet.nn.place import place_of
from lmanet.session import Precision, Session
from lmanet.third_party import method_of, register_third_party, third_party_backbone
from lmanet.zoo.architectures import build_backbone
from lmanet.zoo.files import load_model, read_config
from lmanet.zoo.names import load, locate, single_frame_of

if TYPE_CHECKING:
    from lmanet.data.protocols import VideoData
    from lmanet.evaluation.results import EvaluationReport
    from lmanet.evaluation.temporal import Mode
    from lmanet.labelling.live import Labelling
    from lmanet.video.view import View

DEFAULT_WEIGHTS = "label-memory-erfnet-camvid"
SINGLE_FRAME = "single-frame"
CONTROL = "control"
"""The column of a report whose model begins a new stream at every frame."""


def find_model(
    weights: str | None = None,
    *,
    model: str | nn.Module | None = None,
    method: str | None = None,
    **network: Unpack[NetworkOptions],
) -> VideoModel:
    """A network and the method by which it labels video.

    ```python
    lmanet.find_model()                                               # a memory of labels, bundled
    lmanet.find_model("unet-camvid", method="training-free")
    lmanet.find_model(model="my_module:build", method="flow-average", normalise="none")
    ```

    Args:
        weights: a bundled name (`lmanet info` lists them), a `.safetensors` file, or a Hub id;
            `label-memory-erfnet-camvid` if there is no `model`.
        model: a network of your own, or `MODULE:FUNCTION` that builds it; with the weights of a method that was trained
            on it, or without.
        method: a name of `lmanet.methods.METHODS`, or `MODULE:CLASS`; that of the weights if not given. A method that
            is trained wants weights of its training; all others are put on the single-frame network.
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
            untrained = [name for name, known in METHODS.items() if not known.trainable]
            raise InputError(
                f"{own.name} has no method yet: choose one of {', '.join(untrained)}, or give the weights of a "
                f"method that was trained on it (lmanet train label-memory)"
            )
        return _without_training(own.for_method(kind), kind)
    name = weights or DEFAULT_WEIGHTS
    path = locate(name)
    config = read_config(path)
    if own is not None:
        own.take_as(name, config)
    if kind is None or kind.method == config["method"]["name"]:
        return load_model(path)
    if own is not None:
        return _without_training(own.for_method(kind), kind)
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
            `single-frame` and that of the weights.
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
    asked = [method_of(name) for name in methods if name != "all"]
    kinds = [*asked, *(kind for kind in METHODS.values() if "all" in methods and not kind.trainable)]
    own = _own_network(model, network)
    loaded = None
    if weights is not None:
        path = locate(weights)
        if own is not None:
            own.take_as(weights, read_config(path))
        loaded = load_model(path)
    wanted = {SINGLE_FRAME: METHODS[SINGLE_FRAME]} if not methods else {kind.method: kind for kind in kinds}
    if loaded is not None and (not methods or "all" in methods):
        wanted[loaded.method] = type(loaded)
    put = [kind for name, kind in wanted.items() if loaded is None or name != loaded.method]
    failure: Exception | None = None
    backbone = None
    try:
        backbone = _shared_backbone(weights, loaded, own, put) if put else None
    except WeightsError as error:
        if methods:
            raise
        warn(f"no column for the single-frame network: {error}")
        put = []
    except InputError as error:
        if own is None or any(kind.needs_cut for kind in asked):
            raise
        # Without the methods that nobody asked for by name.
        failure, put = error, [kind for kind in put if not kind.needs_cut]
        backbone = own.backbone(cut=False) if put else None
    found: dict[str, VideoModel] = {}
    for name in [name for name in METHODS if name in wanted]:
        if loaded is not None and name == loaded.method:
            found[name] = loaded
        elif wanted[name] in put and backbone is not None:
            found[name] = _without_training(backbone, wanted[name])
        elif failure is not None:
            warn(f"no column for {name}: {failure}")
    return found


def _shared_backbone(
    weights: str | None, loaded: VideoModel | None, own: _OwnNetwork | None, put: Sequence[type[VideoModel]]
) -> Backbone:
    """The single-frame network that methods are put on."""
    cut = any(kind.needs_cut for kind in put)
    if own is None:
        assert weights is not None
        return load(single_frame_of(weights)).backbone
    # What a training of the network itself made of it.
    if loaded is not None and loaded.method == SINGLE_FRAME and not (cut and loaded.backbone.not_cut):
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

    def for_method(self, kind: type[VideoModel]) -> Backbone:
        return self.backbone(cut=kind.needs_cut)

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
            raise InputError(
                f"{', '.join(given)}: said of a network of your own: give --model MODULE:FUNCTION (in Python model=)"
            )
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


def label_video(
    source: str | Path,
    outputs: str | Path | Sequence[str | Path] | None = None,
    model: VideoModel | str | None = None,
    *,
    view: View = "overlay",
    opacity: float = 0.5,
    resize: tuple[int, int] | None = None,
    images_fps: float | None = None,
    strict: bool = False,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    resume: bool = False,
    on_open: Callable[[Labelling], None] = lambda run: None,
    progress: Callable[[int], None] = lambda done: None,
) -> LabelledVideo:
    """Label a video, a folder of images or an image; decoding, the network and encoding overlap.

    However it ends, what was labelled is kept: the outputs are finished with the frames that they have, under their
    names, before an error or a KeyboardInterrupt is raised, whose notes then say what was kept. Before the first frame
    nothing is written, and what was there stays.

    ```python
    lmanet.label_video("street.mp4", "labelled.mp4")
    lmanet.label_video("street.mp4", ["view.mp4", "labels/"], lmanet.find_model("unet-camvid", method="flow-average"))
    ```

    Args:
        source: a video file, a folder of images, an image, or `camera:0`.
        outputs: a video (H.264) or an image of the view, or a folder for label maps (PNG of class ids); one or several;
            `NAME-labelled.mp4` in the current folder, if none is given.
        model: what labels; or a name of weights; `label-memory-erfnet-camvid` if not given.
        view: what a video shows: the frame under its labels, the labels alone, or both side by side.
        opacity: of the labels in the overlay, 0 to 1.
        resize: height and width in pixels that the network sees; the output keeps the input's size.
        images_fps: frames per second of a folder of images, 30 if not given; videos and cameras have their own.
        strict: an image that cannot be read, or a video that is damaged or cut off, is an error; otherwise it is left
            out, and `LabelledVideo.warnings` tells of it.
        memory_size: S, frames remembered, if not the model's own.
        window: R, side of the search window in cells, odd, if not the model's own.
        precision: of the network; `bf16` is faster on CPUs and GPUs that have it.
        device: `cpu`, `cuda`, `cuda:1` and so on; a GPU where PyTorch has one, if not given.
        resume: label maps of the same run that are in the folder, whole, are not made again; the memory is warmed up by
            the frames before those that are missing.
        on_open: told of the run when all is open: `run.info.frame_count`, and `run.stop()`, which any thread may call,
            to end it with what is labelled.
        progress: told after each frame how many are done.

    Raises:
        InputError: the model or a setting is not what it must be; or the folder holds maps that were made otherwise.
        NetworkError: the network fails at a frame.
        VideoError: the source cannot be read, or an output of this kind cannot be made.
        OutputError: an output cannot be written.
        WeightsError: see `lmanet.load`.
    """
    from lmanet.labelling.live import label
    from lmanet.video import open_source
    from lmanet.video.view import drawer

    chosen = find_device(device)
    labeller = as_video_model(find_model(model) if model is None or isinstance(model, str) else model)
    session = Session(
        _on(labeller, chosen),
        precision=precision,
        resize=resize,
        memory_size=memory_size,
        window=window,
    )
    given = [outputs] if isinstance(outputs, str | Path) else list(outputs or ())
    return label(
        lambda: open_source(str(source), images_fps=images_fps, strict=strict),
        [Path(output) for output in given],
        labeller,
        session,
        draw=drawer(view, labeller.classes, opacity),
        device=str(chosen),
        resume=resume,
        on_open=on_open,
        progress=progress,
    )


def _on(model: VideoModel, device: torch.device) -> VideoModel:
    """A copy for inference on a device; the caller's model stays where it is."""
    if place_of(model).device == device:
        return model.optimize()
    return copy.deepcopy(model.optimize()).to(device)


def evaluate(
    data: str | VideoData,
    models: VideoModel | str | Mapping[str, VideoModel],
    *,
    split: str = "val",
    control: VideoModel | None = None,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    mode: Mode = "default",
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Score models side by side on labelled video; every sequence is streamed through once.

    ```python
    report = lmanet.evaluate("folder:my_video", lmanet.find_models("erfnet-camvid", methods=["all"]))
    print({name: scores.miou for name, scores in report.scores.items()})
    ```

    Args:
        data: a specification such as `camvid:PATH`, `folder:PATH` or `synthetic:` (`lmanet data check --help`), or data
            of your own that keep `lmanet.data.protocols.VideoData`.
        models: by the names that the report has; one alone, or the name of its weights, by its method's name.
        split: `train`, `val`, `test`, or another that the data set has; of no meaning for data of your own.
        control: a model trained with `--memories current`: a further column, which begins a stream at every frame.
        memory_size: S, of the models that have a memory, if not their own.
        window: R in cells, odd, likewise.
        precision: of the networks.
        device: `cpu`, `cuda`, `cuda:1` and so on; a GPU where PyTorch has one, if not given.
        mode: of the temporal metrics; `reference` computes VC and TC as VSPW's scripts do.
        progress: told after every frame how many are done, and of how many.

    Returns:
        mIoU, IoU per class, pixel accuracy, flicker, VC8, VC16, TC and time of each model.

    Raises:
        InputError: the classes of a model and of the data differ, or no model has a memory size or window to be set.
        DataError: the data cannot be read.
    """
    from lmanet.data.spec import open_data
    from lmanet.evaluation.models import ModelPredictor
    from lmanet.evaluation.run import evaluate as run

    chosen = find_device(device)
    frames = open_data(data, split) if isinstance(data, str) else data
    columns = dict(models) if isinstance(models, Mapping) else {"": models}
    columns = {
        title: as_video_model(load(model) if isinstance(model, str) else model)
        for title, model in columns.items()
    }
    columns = {title or model.method: model for title, model in columns.items()}
    if control is not None:
        if CONTROL in columns:
            raise InputError(f"a model is called {CONTROL!r}, as the control is: give it another name")
        columns[CONTROL] = as_video_model(control)
    given = {"memory_size": memory_size, "window": window}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        having = [title for title, model in columns.items() if name in model.adjustable]
        # Where none has it, the first says so.
        for title in having or list(columns)[:1]:
            columns[title] = columns[title].adjusted(**{name: value})
    predictors = {}
    for title, model in columns.items():
        check_classes(model, frames)
        predictors[title] = ModelPredictor(_on(model, chosen), precision=precision, forget=title == CONTROL)
    return run(
        frames,
        predictors,
        mode=mode,
        settings={"device": str(chosen), "precision": precision, **changes},
        progress=progress,
    )


def check_classes(model: VideoModel, data: VideoData) -> None:
    """Raise InputError unless a model has the data's classes: in number and, where it knows them, in name."""
    check_class_count(model.backbone.num_classes)
    advice = "evaluate it on data with its own classes"
    if model.backbone.classes is None and model.backbone.num_classes == len(data.classes):
        return
    check_same_classes(model.classes, "the model", data.classes, data.name, advice)


def set_threads(threads: int | None) -> None:
    """Set how many threads PyTorch uses on the CPU; None leaves them.

    Raises:
        InputError: less than 1.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads {threads}: expected at least 1")
        torch.set_num_threads(threads)
