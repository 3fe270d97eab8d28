"""What the paper lacks: controls, and where the memory gains."""

from __future__ import annotations

from dataclasses import replace

from lmanet.data.cityscapes import MOST_PAST
from lmanet.data.street.degrade import Degradation
from lmanet.data.subset import CAMVID_FOLDS
from lmanet.errors import InputError
from lmanet.research.reproduce.budget import LABEL_MEMORY, LMANET, trained_on
from lmanet.research.reproduce.common import CONTROL_NOTE, budget_note, control_row, paper_module
from lmanet.research.reproduce.data import Street
from lmanet.research.reproduce.plan import FLOW, SINGLE, Place, Plan, Point, Row, Setup, mean_of

STRENGTHS = (0.0, 0.5, 1.0)


SPOILED = ("noise", "motion_blur", "exposure_flicker", "occlusion")


FRAME_RATES = (30.0, 15.0, 7.5, 3.75)


SPACINGS = (1, 2, 4, 15)
"""15 frames are a second in CamVid val and on the synthetic drive."""


WINDOWS = (9, 5)

FLOW_WEIGHTS = (0.5, 0.75, 0.9)
"""Of the flow average."""


_TRAINED_ON_NOTE = (
    f"“{SINGLE}, trained on” is the network trained on for as many steps as the memory was, encoder included, on whole "
    f"frames under the same augmentation. “{FLOW}” moves what was said of the frame before along the optical flow and "
    f"averages; it trains nothing. “{LABEL_MEMORY}, no past” is the {LABEL_MEMORY} run without its memory."
)


def controls(setup: Setup) -> Plan:
    """Single-frame, flow average, single-frame trained on, control and label memory; with --folds on the folds too."""
    if setup.folds and setup.kind != "camvid":
        raise InputError(f"--folds with {setup.kind} data: the folds are CamVid's, leave --folds out")
    own = _controls_at(setup, setup.place)
    notes = [budget_note(setup), CONTROL_NOTE, _TRAINED_ON_NOTE]
    if not setup.folds:
        return Plan("Controls", tuple(own), notes=tuple(notes))
    folds = [_controls_at(setup, setup.fold(name)) for name in CAMVID_FOLDS]
    means = [mean_of(rows[0].name, "mean of the folds", list(rows)) for rows in zip(*folds, strict=True)]
    notes.append(
        "In each fold the part that it is named after is scored and all other train frames are trained on, by the "
        "single-frame network too; that is one network for all seeds. Frames of the folds are 1 s apart, those of val "
        "1/15 s. The mean over the folds is taken for each seed first; the spread is over the seeds."
    )
    return Plan("Controls", (*means, *own, *(row for rows in folds for row in rows)), notes=tuple(notes))


def spacing(setup: Setup) -> Plan:
    """The label memory of every k-th frame."""
    labels = setup.budget.labels
    rows = [
        setup.row(f"every {k}. frame" if k > 1 else "every frame", labels, spacing=k)
        for k in SPACINGS
        if setup.kind != "cityscapes" or k * labels.memory_size <= MOST_PAST
    ]
    note = (
        "Trained as ever; when run, frame t reads frames t-k, t-2k and so on. The first k frames see no past."
    )
    return Plan(
        "Spacing of the memory frames",
        (setup.single_row(), *rows),
        notes=(budget_note(setup), note),
    )


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
    """LMANet, LMANet with cheaper convolutions, and the label memory, each beside its control."""
    rows: list[Row] = []
    for name, recipe in setup.budget.variants.items():
        rows += [setup.row(name, recipe), replace(control_row(setup, recipe), name=f"{name}, control")]
    note = "Variants that are the same module are the same cells."
    return Plan("Presets", (setup.single_row(), *rows), notes=(budget_note(setup), CONTROL_NOTE, note))


def window(setup: Setup) -> Plan:
    """Small windows: LMANet trained with one cell, and the label memory run with fewer than it was trained with."""
    same_place, labels = paper_module(setup, window=1), setup.budget.labels
    rows = [
        setup.single_row(),
        replace(control_row(setup, same_place), name=f"{LMANET}, R=1, control"),
        setup.row(f"{LMANET}, R=1", same_place),
        replace(control_row(setup, labels), name=f"{LABEL_MEMORY}, control"),
        setup.row(f"{LABEL_MEMORY}, R={labels.window}", labels),
        *(setup.row(f"{LABEL_MEMORY}, R={side}", labels, window=side) for side in WINDOWS),
    ]
    note = (
        f"{LMANET}: S={same_place.memory_size}, trained and run with a window of one cell. The {LABEL_MEMORY}: trained "
        f"with R={labels.window}, run with the window that is given."
    )
    return Plan("Small windows", tuple(rows), notes=(budget_note(setup), CONTROL_NOTE, note))


def training_free(setup: Setup) -> Plan:
    """What needs no training, on CamVid at four frame rates; with --folds on the folds too, frames a second apart."""
    rates = SPACINGS if setup.kind == "camvid" else (1,)
    places = [
        replace(
            setup.place,
            name=f"every {k}. frame" if k > 1 else "every frame",
            scored=replace(setup.place.scored, every=k),
        )
        for k in rates
    ]
    if setup.folds:
        places += [setup.fold(name) for name in CAMVID_FOLDS]
    rows = [row for place in places for row in _untrained_at(setup, place)]
    note = (
        f"“{FLOW}”: at the weight before it; with its best one the memory is to be compared. Frames left out "
        "make sequences of their own, so every row of a place is of all frames."
    )
    return Plan("Without training", tuple(rows), notes=(note,))


def robustness(setup: Setup) -> Plan:
    """Gains as frames get worse, fewer, or further apart; synthetic data only."""
    labels = setup.budget.labels
    base = setup.budget.hard_street or Street()
    level = base.degradation or Degradation()
    streets = [
        (axis, strength, replace(base, degradation=replace(level, **{axis: strength})))
        for axis in SPOILED
        for strength in STRENGTHS
    ]
    streets += [("frames per second", fps, replace(base, fps=fps)) for fps in FRAME_RATES]
    # Cells of the data set's own level and rate are the same on every axis: they are run once.
    rows: dict[tuple[str, str], Row] = {}
    points = []
    for axis, value, street in streets:
        if street.degradation == level:
            street = replace(street, degradation=base.degradation)
        scored = replace(setup.place.scored, street=street)
        place = replace(setup.place, name=f"{axis} {value:g}", scored=scored)
        own = [
            setup.single_row(place),
            control_row(setup, labels, place),
            setup.row(LABEL_MEMORY, labels, place),
        ]
        rows |= {(row.place, row.name): row for row in own}
        single, control, memory = ((row.place, row.name) for row in own)
        points.append(Point(axis.replace("_", " "), value, memory, single, control))
    for k in SPACINGS:
        place = replace(
            setup.place, name=f"every {k}. frame", scored=replace(setup.place.scored, street=base)
        )
        own = [
            setup.single_row(place),
            control_row(setup, labels, place),
            setup.row(LABEL_MEMORY, labels, place, spacing=k),
        ]
        rows |= {(row.place, row.name): row for row in own}
        single, control, memory = ((row.place, row.name) for row in own)
        points.append(Point("dropped frames: memory of every k-th", k, memory, single, control))
    note = (
        "Trained on the plain train split. One strength grows at a time, from 0 to 1; the others, fog among them, stay "
        "at the data set's level, 0.5. At fewer frames per second things move further from frame to frame. Scored on "
        + (f"{base.sequences} sequences." if base.sequences else "all sequences.")
    )
    return Plan(
        "Robustness",
        tuple(rows.values()),
        notes=(budget_note(setup), CONTROL_NOTE, note),
        points=tuple(points),
    )


def _untrained_at(setup: Setup, place: Place) -> list[Row]:
    return [
        setup.single_row(place),
        *(
            setup.single_row(place, name=f"{FLOW}, {weight:g}", method="flow-average", weight=weight)
            for weight in FLOW_WEIGHTS
        ),
        setup.single_row(place, name="memory without training", method="training-free"),
    ]


def _controls_at(setup: Setup, place: Place) -> list[Row]:
    labels = setup.budget.labels
    single = setup.single_row(place)
    trainings = setup.longer(trained_on(setup.network_name, labels), place)
    longer = tuple((replace(single.cells[0][0], model=training),) for training in trainings)
    # LMANet stands beside its control in `presets`.
    return [
        single,
        setup.single_row(place, name=FLOW, method="flow-average"),
        Row(f"{SINGLE}, trained on", longer, place.name),
        control_row(setup, labels, place),
        setup.row(LABEL_MEMORY, labels, place),
        setup.row(f"{LABEL_MEMORY}, no past", labels, place, forget=True),
    ]
