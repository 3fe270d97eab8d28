"""`lmanet data check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmanet.cli.said import say
from lmanet.errors import DataError, InputError
from lmanet.words import counted, listed

if TYPE_CHECKING:
    from rich.console import Console

    from lmanet.cli.data import Check
    from lmanet.data.check import DataCheck


def check(what: Check) -> None:
    """Show each split, and what is wrong with it."""
    if what.threads is not None and what.threads < 1:
        raise InputError(f"threads {what.threads}: expected at least 1")
    from rich.console import Console

    console = Console()
    results = [_check_split(what, split, console) for split in what.split]
    wrong = {result.name: len(result.found.problems) for result in results if result.found.problems}
    counts = [f"{name}: {counted(n, 'problem')}" for name, n in wrong.items()]
    if _tell_absent(what, results, console):
        counts.append("classes that never occur")
    if counts:
        raise DataError(f"{'; '.join(counts)}, listed above")


def _check_split(what: Check, split: str, console: Console) -> DataCheck:
    """Show what is there and what is wrong."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from lmanet.data.check import check_data
    from lmanet.data.spec import scan_data

    frames, problems = scan_data(what.spec, split)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"reading {escape(frames.name)}", total=None)
        result = check_data(
            frames,
            problems,
            threads=what.threads,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    _print_check(result, console, whole=what.all)
    return result


def _tell_absent(what: Check, results: list[DataCheck], console: Console) -> bool:
    """Name the classes that never occur; whether that is a problem: in a folder, if it is so in all splits.

    Other data sets have classes that nobody chose, and a split for validation alone may lack some.
    """
    from lmanet.data.check import only_masks

    # Of labels of 0 and 255 alone that is told among the problems, unless classes.json says that 255 is void.
    told = [bool(only_masks(r.found.pixels) and r.found.problems) for r in results]
    results = [
        r
        for r, already in zip(results, told, strict=True)
        if r.found.labels and not r.found.strays and not already
    ]
    if not results:
        return False
    nowhere = frozenset.intersection(*(result.absent for result in results))
    a_problem = what.spec.startswith("folder:") and not {"train", "all"}.isdisjoint(what.split)
    for result in results:
        if here := result.absent - nowhere:
            say(console, f"note: no label of {result.name} holds {_classes(result, here)}")
    if not nowhere:
        return False
    where = ", ".join(result.name for result in results)
    advice = 'see whether classes.json gives each class its value ("values"), or remove the name'
    if 0 in nowhere:
        advice = f'if the label files count from 1, write "first_id": 1 into classes.json; otherwise {advice}'
    say(
        console,
        f"{'problem' if a_problem else 'note'}: no label of {where} holds {_classes(results[0], nowhere)}"
        f"{f': {advice}' if a_problem else ''}",
    )
    return a_problem


def _classes(result: DataCheck, numbers: frozenset[int]) -> str:
    """Some classes by name."""
    names = [result.classes.names[i] for i in sorted(numbers)]
    if len(names) == 1:
        return f"the class {names[0]!r}"
    return f"{len(names)} of {len(result.classes)} classes: {listed(names)}"


def _print_check(result: DataCheck, console: Console, *, whole: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from lmanet.data.summary import sum_up

    found, lengths = result.found, result.lengths
    if lengths:
        each = str(lengths[0]) if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
        spacings = " or ".join(f"{spacing:.3g}" for spacing in result.spacings_s)
        say(
            console,
            f"{result.name}: {counted(sum(lengths), 'frame')} in {counted(len(lengths), 'sequence')} of {each}, "
            f"{spacings} s apart",
            f"heights and widths: {listed([f'{h}×{w} ({n})' for (h, w), n in found.sizes.most_common()], 8)}",
            f"read {found.images} images and {found.labels} labels in {result.seconds:.1f} s: "
            f"{found.images / result.seconds:.0f} images a second (threads: {result.threads})",
        )
    if found.labels:
        void = found.pixels[255] / found.pixels.sum()
        table = Table("id", "class", "share of pixels", box=None)
        for i, (name, share) in enumerate(zip(result.classes.names, result.shares, strict=True)):
            table.add_row(str(i), Text(name), f"{100 * share:6.2f} %" if share > 0 else "none")
        console.print(table)
        say(console, f"void: {100 * void:.2f} % of all pixels")
    elif not found.problems:
        say(console, "no frame is labelled: nothing to train on, nothing to score")
    labels = found.labels + len(found.strays)
    lines = found.problems if whole else sum_up(found.problems, found.strays, labels)
    say(console, *(f"problem: {line}" for line in lines))
    if len(lines) < len(found.problems):
        say(console, f"{len(found.problems)} problems in all: --all lists each")
