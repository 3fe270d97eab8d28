"""`lmanet data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

LISTED_MEMORY_SIZE = 4


@dataclass(frozen=True)
class Check:
    """Read a data set once: what it holds, how fast it is read, and everything that is wrong.

    Attributes:
        spec: camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:; behind it, if need be, ,size=HxW to
            resize frames and labels, and for cityscapes ,past=N to ask for N frames before the labelled one.
        split: which to read, of train, val, test, or others that the data set has; those that a training reads, if
            not given.
        threads: that read; as many as there are processors, if not given.
        all: list what is wrong file by file; if not given, a few of each kind.
    """

    spec: tyro.conf.Positional[str]
    split: tuple[str, ...] = ("train", "val")
    threads: int | None = None
    all: bool = False


@dataclass(frozen=True)
class Convert:
    """Make label images of COCO's or labelme's polygons, as a folder of labelled videos (folder:OUT).

    Images of one folder are one video, in natural order of their names. They are hard links where the disk allows it.

    Attributes:
        format: coco or labelme.
        source: COCO's JSON file of annotations, or the folder of labelme's JSON files.
        out: the folder to be made.
        images: for coco: the folder that the file_names start from.
        names: for labelme: the classes in the order of their ids; those found, sorted, if not given.
        unlabelled: what pixels become that are in no shape: a class background, the first, or void.
        fps: frames per second of the videos.
        split: also write all videos into SPLIT.txt, such as train or val.
    """

    format: tyro.conf.Positional[str]
    source: tyro.conf.Positional[Path]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    images: Path | None = None
    names: tuple[str, ...] = ()
    unlabelled: Literal["background", "void"] = "background"
    fps: float = 30.0
    split: str | None = None


@dataclass(frozen=True)
class Cityscapes:
    """Cityscapes: which files of the 324 GB of sequences are needed, and what its test server takes.

    Attributes:
        root: the folder that holds leftImg8bit, leftImg8bit_sequence and gtFine.
        list_needed: print the needed files of leftImg8bit_sequence, one a line, as they lie below ROOT.
        submit: label the split and write this folder, to be zipped for the test server.
        split: train, val or test; if not given, all that are there for --list-needed, test for --submit.
        memory_size: frames remembered; if not given, 4 for --list-needed, the model's own for --submit.
        weights: for --submit: a bundled name, a .safetensors file, or a Hub id.
        resize: for --submit: height and width that the network sees; the labels keep the frames' size.
        precision: for --submit, of the network.
        device: for --submit: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
    """

    root: tyro.conf.Positional[Path]
    list_needed: bool = False
    submit: Path | None = None
    split: Literal["train", "val", "test"] | None = None
    memory_size: int | None = None
    weights: str | None = None
    resize: tuple[int, int] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str | None = None


def data(
    *,
    what: Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)]
    | Annotated[Cityscapes, tyro.conf.subcommand("cityscapes", prefix_name=False)],
) -> None:
    """Check labelled data before anything is trained on them, convert them; Cityscapes' downloads and submissions.

    Args:
        what: what to do.
    """
    if isinstance(what, Check):
        from lmanet.cli.data_check import check

        check(what)
    elif isinstance(what, Convert):
        from lmanet.cli.data_convert import convert

        convert(what)
    else:
        _cityscapes(what)


def _cityscapes(what: Cityscapes) -> None:
    from lmanet.errors import InputError

    if what.list_needed == (what.submit is not None):
        raise InputError("lmanet data cityscapes: give either --list-needed or --submit FOLDER")
    if what.list_needed:
        _list_needed(what)
    else:
        _submit(what)


def _list_needed(what: Cityscapes) -> None:
    import os
    import sys

    from lmanet.data.cityscapes import SPLITS, needed_files

    there = [s for s in SPLITS if any((what.root / k / s).is_dir() for k in ("leftImg8bit", "gtFine"))]
    size = LISTED_MEMORY_SIZE if what.memory_size is None else what.memory_size
    try:
        for split in [what.split] if what.split else there or SPLITS:
            for path in needed_files(what.root, split, size):
                print(path)
        sys.stdout.flush()
    except BrokenPipeError:  # `head` has read enough: what Python still holds goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _submit(what: Cityscapes) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.api import check_classes
    from lmanet.atomic import check_folder
    from lmanet.cli.said import say
    from lmanet.data.cityscapes import load_cityscapes, to_label_ids
    from lmanet.devices import find_device
    from lmanet.errors import InputError
    from lmanet.evaluation.submission import write_submission
    from lmanet.methods.single_frame import SingleFrame
    from lmanet.session import Session
    from lmanet.zoo.names import load

    assert what.submit is not None
    if what.weights is None:
        raise InputError("--submit needs --weights NAME or FILE of a model with Cityscapes' classes")
    check_folder(what.submit)
    changes = {} if what.memory_size is None else {"memory_size": what.memory_size}
    model = load(what.weights).adjusted(**changes).to(find_device(what.device))
    past = model.arguments.get("memory_size", 0 if model.method == SingleFrame.method else 1)
    frames = load_cityscapes(what.root, what.split or "test", past=past)
    check_classes(model, frames)
    session = Session(model, precision=what.precision, resize=what.resize)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task(f"labelling {frames.name}", total=None)
        paths = write_submission(
            frames,
            session,
            what.submit,
            ids=to_label_ids,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    say(errors, f"{len(paths)} label maps in {what.submit}: zip them for the test server")
