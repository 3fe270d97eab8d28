"""What the paper lacks: controls, and where the memory gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lmanet.data.street.degrade import Degradation
from lmanet.errors import InputError
from lmanet.research.reproduce.budget import LABEL_MEMORY, LMANET
from lmanet.research.reproduce.common import CONTROL_NOTE, budget_note, control_row
from lmanet.research.reproduce.data import Street
from lmanet.research.reproduce.plan import FLOW, FREE, Place, Plan, Point, Row, Setup, mean_of

STRENGTHS = (0.0, 0.5, 1.0)


SPOILED = ("noise", "motion_blur", "exposure_flicker", "occlusion")


FRAME_RATES = (30.0, 15.0, 7.5, 3.75)


EVERY = (1, 2, 4, 15)
"""Of CamVid val, which has 15 frames a second, every k-th frame: 15, 7.5, 3.75 and 1."""


FOLDS = ("0016E5-a", "0016E5-b")
"""Of CamVid's folds those for reporting: by the others the memory without training was chosen."""


WINDOWS = (1, 5, 21)
"""R in cells, of `window`."""


FLOW_WEIGHTS = (0.5, 0.75, 0.9)
"""Of the flow average."""


def controls(setup: Setup) -> Plan:
    """What needs no training and the label memory; on CamVid at four frame rates, with --folds on the folds too."""
    labels = setup.budget.labels

    def rows_at(place: Place) -> list[Row]:
        return [*_untrained_at(setup, place), setup.row(LABEL_MEMORY, labels, place)]

    rows, notes = _compared(setup, rows_at)
    return Plan("Controls", rows, notes=(budget_note(setup), *notes))


def border(setup: Setup) -> Plan:
    """LMANet with both borders of the attention."""
    paper = setup.budget.paper
    rows = [setup.row("mask", paper), setup.row("zero", paper, border="zero")]
    note = (
        "Trained with mask, which leaves what lies outside the map out of the softmax, and run with both: zero keeps "
        "it there with score 0 and value 0. A training with zero is not compared."
    )
    return Plan("Border of the attention", (setup.single_row(), *rows), notes=(budget_note(setup), note))


def presets(setup: Setup) -> Plan:
    """LMANet, and LMANet with cheaper convolutions, each beside its control."""
    rows: list[Row] = []
    for name, recipe in setup.budget.variants.items():
        rows += [setup.row(name, recipe), replace(control_row(setup, recipe), name=f"{name}, control")]
    note = "Variants that are the same module are the same cells."
    return Plan("Presets", (setup.single_row(), *rows), notes=(budget_note(setup), CONTROL_NOTE, note))


def window(setup: Setup) -> Plan:
    """LMANet at three windows, trained longer where the budget has that, each beside its control."""
    longer = setup.budget.longer or setup.budget.paper
    rows = [setup.single_row()]
    for cells in WINDOWS:
        recipe = replace(longer, window=cells)
        name = f"{LMANET}, R={cells}"
        rows += [setup.row(name, recipe), replace(control_row(setup, recipe), name=f"{name}, control")]
    note = f"S={longer.memory_size}; R is the same in training and when run. With R=1 the same place alone is read."
    return Plan("Windows", tuple(rows), notes=(budget_note(setup, longer), CONTROL_NOTE, note))


def training_free(setup: Setup) -> Plan:
    """What needs no training, on CamVid at four frame rates; with --folds on the folds too, frames a second apart."""
    rows, notes = _compared(setup, lambda place: _untrained_at(setup, place))
    return Plan("Without training", rows, notes=notes)


def robustness(setup: Setup) -> Plan:
    """Gains as frames get worse, or further apart; synthetic data only."""
    base = setup.budget.hard_street or Street()
    level = base.degradation or Degradation()
    streets = [
        (axis, strength, replace(base, degradation=replace(level, **{axis: strength})))
        for axis in SPOILED
        for strength in STRENGTHS
    ]
    streets += [("frames per second", fps, replace(base, fps=fps)) for fps in FRAME_RATES]
    # Cells of the data set's own level and rate are the same on every axis: they are run once.
    rows: list[Row] = []
    points = []
    for axis, value, street in streets:
        if street.degradation == level:
            street = replace(street, degradation=base.degradation)
        scored = replace(setup.place.scored, street=street)
        place = replace(setup.place, name=f"{axis} {value:g}", scored=scored)
        rows += [
            setup.single_row(place),
            setup.single_row(place, name=FLOW, method="flow-average"),
            setup.free_row(place),
            setup.row(LABEL_MEMORY, setup.budget.labels, place),
        ]
        points.append(Point(axis.replace("_", " "), value, place.name, (FLOW, FREE, LABEL_MEMORY)))
    note = (
        "Trained on the plain train split. One strength grows at a time, from 0 to 1; the others, fog among them, stay "
        "at the data set's level, 0.5. At fewer frames per second things move further from frame to frame. Scored on "
        + (f"{base.sequences} sequences." if base.sequences else "all sequences.")
    )
    return Plan("Robustness", tuple(rows), notes=(budget_note(setup), note), points=tuple(points))


def _compared(setup: Setup, rows_at: Callable[[Place], list[Row]]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows at every place where what keeps the network is compared, and what is to be said of them."""
    if setup.folds and setup.kind != "camvid":
        raise InputError(f"--folds with {setup.kind} data: the folds are CamVid's, leave --folds out")
    places = [setup.place]
    if setup.kind == "camvid":
        scored = [replace(setup.place.scored, every=k) for k in EVERY]
        names = ["every frame", *(f"every {k}. frame" for k in EVERY[1:])]
        places = [replace(setup.place, name=n, scored=s) for n, s in zip(names, scored, strict=True)]
    rows = [row for place in places for row in rows_at(place)]
    notes = [
        f"“{FLOW}”: at the weight before it; with its best one a memory is to be compared. Frames left out make "
        "sequences of their own, so every row of a place is of all frames."
    ]
    if setup.folds:
        folds = [rows_at(setup.fold(name)) for name in FOLDS]
        rows += [mean_of(same[0].name, "mean of the folds", list(same)) for same in zip(*folds, strict=True)]
        rows += [row for fold in folds for row in fold]
        notes.append(
            "In each fold the part that it is named after is scored and all other train frames are trained on, by the "
            "single-frame network too; that is one network for all seeds. Frames of the folds are 1 s apart. The mean "
            "over the folds is taken for each seed first; the spread is over the seeds."
        )
    return tuple(rows), tuple(notes)


def _untrained_at(setup: Setup, place: Place) -> list[Row]:
    return [
        setup.single_row(place),
        *(
            setup.single_row(place, name=f"{FLOW}, {weight:g}", method="flow-average", weight=weight)
            for weight in FLOW_WEIGHTS
        ),
        setup.free_row(place),
    ]
