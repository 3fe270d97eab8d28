"""What every training does before it begins: check, store the frames, weigh the classes."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import Tensor

from lmanet.backbones import Backbone
from lmanet.classes import VOID, check_same_classes
from lmanet.data.protocols import VideoData
from lmanet.errors import DataError, InputError
from lmanet.training.frames import StoredData, store_frames
from lmanet.training.losses import class_weights
from lmanet.training.options import RunOptions
from lmanet.training.progress import reading
from lmanet.training.unlabelled import SelfLabelled
from lmanet.words import listed


def store_splits(
    train: VideoData, val: VideoData | None, folder: Path, options: RunOptions
) -> tuple[StoredData, StoredData | None]:
    """Both splits' frames, decoded once by the main process into `folder/frames`; without `val` None for it.

    Raises:
        DataError: frames do not fit, the training data's labels hold one class alone, or the validation data have
            nothing to choose the best epoch by.
        OutputError: the folder cannot be written to.
    """

    def store(name: str, data: VideoData) -> StoredData:
        with options.accelerator.main_process_first():
            return store_frames(
                data,
                folder / "frames" / name,
                on_frame=lambda done, total: options.report(reading(name), (done, total)),
            )

    stored = store("train", train)
    if not isinstance(train, SelfLabelled):
        _check_labels(stored, tell=options.accelerator.is_main_process)
    if val is None:
        return stored, None
    stored_val = store("val", val)
    if not any((label != VOID).any() for label in stored_val.labels()):
        raise DataError(
            f"{val.name} has no labelled pixel: validate on frames with labels, which choose the best epoch"
        )
    return stored, stored_val


def loss_weights(data: StoredData) -> Tensor:
    """The (K,) class weights of the loss, by the classes' shares of the labelled pixels."""
    return class_weights(data.label_pixels, len(data.classes))


def common_size(data: StoredData) -> tuple[int, int]:
    """(H, W) of all frames.

    Raises:
        DataError: they differ.
    """
    sizes = {(sequence.name, sequence.image(0).shape[:2]) for sequence in data.sequences}
    if len({size for _, size in sizes}) > 1:
        raise DataError(
            f"sequences of different sizes: {sorted(sizes)[:4]}…; steps 1 and 2 train on whole frames: bring them to "
            f"one size"
        )
    height, width = next(iter(sizes))[1]
    return height, width


def check_val(val: VideoData, train: VideoData) -> None:
    """Raise InputError, naming the first difference, unless validation data have the training data's classes."""
    check_same_classes(
        val.classes, val.name, train.classes, train.name, "validate on data of the same classes"
    )


def check_network(backbone: Backbone, data: VideoData) -> None:
    """Raise InputError unless a trained network has the data's classes: in number and, where it knows them, in name."""
    advice = (
        f"give a network that was trained on this data, with {len(data.classes)} outputs in its order, your own or one "
        f"of step 0 (lmanet train erfnet)"
    )
    if backbone.num_classes != len(data.classes):
        raise InputError(
            f"the network has {backbone.num_classes} classes, {data.name} {len(data.classes)}: {advice}"
        )
    if backbone.classes is not None:
        check_same_classes(backbone.classes, "the network", data.classes, data.name, advice)


def _check_labels(data: StoredData, *, tell: bool) -> None:
    """Warn of classes that never occur, if `tell`; raise DataError if one alone does, as in masks read as void."""
    pixels, names = data.label_pixels, data.classes.names
    occur = [name for name, count in zip(names, pixels, strict=False) if count]
    if len(occur) == 1 and len(names) > 1 and pixels[VOID]:
        raise DataError(
            f"the labels of {data.name} hold nothing but the class {occur[0]!r} and void ({VOID}): there is nothing to "
            f"tell apart. If {VOID} is a class in the label files, give it an id of its own"
        )
    absent = [name for name in names if name not in occur]
    if absent and occur and tell:
        warnings.warn(
            f"{len(absent)} of {len(names)} classes occur in no label of {data.name} and cannot be learned: "
            f"{listed(absent)}. lmanet data check says more",
            stacklevel=2,
        )
