"""`lmanet data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from lmanet.data.check import DataCheck

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
    | Annotated[Cityscapes, tyro.conf.subcommand("cityscapes", prefix_name=False)],
) -> None:
    """Check labelled data before anything is trained on them; Cityscapes' downloads and submissions.

    Args:
        what: what to do.
    """
    if isinstance(what, Check):
        _check(what)
    else:
        _cityscapes(what)


def _check(what: Check) -> None:
    from lmanet.errors import DataError, InputError

    if what.threads is not None and what.threads < 1:
        raise InputError(f"threads {what.threads}: expected at least 1")
    results = [_check_split(what, split) for split in what.split]
    wrong = {result.name: len(result.found.problems) for result in results if result.found.problems}
    counts = [f"{name}: {n} problem{'s' if n > 1 else ''}" for name, n in wrong.items()]
    if _tell_absent(what, results):
        counts.append("classes that never occur")
    if counts:
        raise DataError(f"{'; '.join(counts)}, listed above")


def _check_split(what: Check, split: str) -> DataCheck:
    """Show what is there and what is wrong."""
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.data.check import check_data
    from lmanet.data.spec import scan_data

    frames, problems = scan_data(what.spec, split)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"reading {frames.name}", total=None)
        result = check_data(
            frames,
            problems,
            threads=what.threads,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    _print_check(result, Console(), whole=what.all)
    return result


def _tell_absent(what: Check, results: list[DataCheck]) -> bool:
    """Name the classes that never occur; whether that is a problem: in a folder, if it is so in all splits.

    Other data sets have classes that nobody chose, and a split for validation alone may lack some.
    """
    from lmanet.data.check import only_masks

    results = [r for r in results if r.found.labels and not r.found.strays and not only_masks(r.found.pixels)]
    if not results:
        return False
    nowhere = frozenset.intersection(*(result.absent for result in results))
    a_problem = what.spec.startswith("folder:") and not {"train", "all"}.isdisjoint(what.split)
    for result in results:
        if here := result.absent - nowhere:
            _say(f"note: no label of {result.name} holds {_classes(result, here)}")
    if not nowhere:
        return False
    where = ", ".join(result.name for result in results)
    advice = 'see whether classes.json gives each class its value ("values"), or remove the name'
    if 0 in nowhere:
        advice = f'if the label files count from 1, write "first_id": 1 into classes.json; otherwise {advice}'
    _say(
        f"{'problem' if a_problem else 'note'}: no label of {where} holds {_classes(results[0], nowhere)}"
        f"{f': {advice}' if a_problem else ''}"
    )
    return a_problem


def _classes(result: DataCheck, numbers: frozenset[int]) -> str:
    """Some classes by name."""
    names = [result.classes.names[i] for i in sorted(numbers)]
    if len(names) == 1:
        return f"the class {names[0]!r}"
    return (
        f"{len(names)} of {len(result.classes)} classes: {', '.join(names[:12])}{', …' if names[12:] else ''}"
    )


def _say(line: str) -> None:
    from rich.console import Console

    Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _print_check(result: DataCheck, console: Console, *, whole: bool) -> None:
    from rich.table import Table

    from lmanet.data.summary import sum_up

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    found, lengths = result.found, result.lengths
    if lengths:
        each = str(lengths[0]) if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
        spacings = " or ".join(f"{spacing:.3g}" for spacing in result.spacings_s)
        sequences = f"{len(lengths)} sequences" if len(lengths) > 1 else "a sequence"
        say(f"{result.name}: {sum(lengths)} frames in {sequences} of {each}, {spacings} s apart")
        sizes = ", ".join(f"{h}×{w} ({n})" for (h, w), n in found.sizes.most_common(8))
        say(f"heights and widths: {sizes}{', …' if len(found.sizes) > 8 else ''}")
        say(
            f"read {found.images} images and {found.labels} labels in {result.seconds:.1f} s: "
            f"{found.images / result.seconds:.0f} images a second (threads: {result.threads})"
        )
    if found.labels:
        void = found.pixels[255] / found.pixels.sum()
        table = Table("id", "class", "share of pixels", box=None)
        for i, (name, share) in enumerate(zip(result.classes.names, result.shares, strict=True)):
            table.add_row(str(i), name, f"{100 * share:6.2f} %" if share > 0 else "none")
        console.print(table)
        say(f"void: {100 * void:.2f} % of all pixels")
    elif not found.problems:
        say("no frame is labelled: nothing to train on, nothing to score")
    labels = found.labels + len(found.strays)
    lines = found.problems if whole else sum_up(found.problems, found.strays, labels)
    for line in lines:
        say(f"problem: {line}")
    if len(lines) < len(found.problems):
        say(f"{len(found.problems)} problems in all: --all lists each")


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

    from lmanet.api import SINGLE_FRAME, check_classes
    from lmanet.atomic import check_folder
    from lmanet.data.cityscapes import load_cityscapes, to_label_ids
    from lmanet.devices import find_device
    from lmanet.errors import InputError
    from lmanet.evaluation.submission import write_submission
    from lmanet.session import Session
    from lmanet.zoo.names import load

    assert what.submit is not None
    if what.weights is None:
        raise InputError("--submit needs --weights NAME or FILE of a model with Cityscapes' classes")
    check_folder(what.submit)
    changes = {} if what.memory_size is None else {"memory_size": what.memory_size}
    model = load(what.weights).adjusted(**changes).to(find_device(what.device))
    past = model.arguments.get("memory_size", 0 if model.method == SINGLE_FRAME else 1)
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
    errors.print(
        f"{len(paths)} label maps in {what.submit}: zip them for the test server",
        markup=False,
        soft_wrap=True,
    )
