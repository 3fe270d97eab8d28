"""What the paper lacks: controls, and where the memory gains."""

from __future__ import annotations

from dataclasses import replace

from lmanet.data.cityscapes import MOST_PAST
from lmanet.data.street.degrade import Degradation
from lmanet.data.subset import CAMVID_FOLDS
from lmanet.errors import InputError
from lmanet.research.reproduce.budget import trained_on
from lmanet.research.reproduce.common import CONTROL_NOTE, budget_note, control_row, paper_module
from lmanet.research.reproduce.data import Street
from lmanet.research.reproduce.plan import OURS, SINGLE, Place, Plan, Point, Row, Setup, mean_of

STRENGTHS = (0.0, 0.5, 1.0)


SPOILED = ("noise", "motion_blur", "exposure_flicker", "occlusion")


FRAME_RATES = (30.0, 15.0, 7.5, 3.75)


SPACINGS = (1, 2, 4, 15)
"""15 frames are a second in CamVid val and on the synthetic drive."""


WINDOWS = (9, 5)


_TRAINED_ON_NOTE = (
    f"“{SINGLE}, trained on” is the network trained on for as many steps as the memory was, encoder included, on whole "
    f"frames under the same augmentation. “{OURS}, no past” is {OURS} run without its memory."
)


def controls(setup: Setup) -> Plan:
    """Single-frame, single-frame trained on, control and LMANet; with --folds on CamVid's folds too."""
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
    """Memory of every k-th frame."""
    lmanet = setup.budget.variants["lmanet"]
    rows = [
        setup.row(f"every {k}. frame" if k > 1 else "every frame", lmanet, spacing=k)
        for k in SPACINGS
        if setup.kind != "cityscapes" or k * lmanet.memory_size <= MOST_PAST
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
    """Both borders of the attention."""
    paper = setup.budget.paper
    rows = [setup.row("mask", paper), setup.row("zero", paper, border="zero")]
    note = (
        "Trained with mask, which leaves what lies outside the map out of the softmax, and run with both: zero keeps "
        "it there with score 0 and value 0. A training with zero is not compared."
    )
    return Plan("Border of the attention", (setup.single_row(), *rows), notes=(budget_note(setup), note))


def presets(setup: Setup) -> Plan:
    """The paper's module, the cheaper convolutions, and the default."""
    rows: list[Row] = []
    for name, recipe in setup.budget.variants.items():
        rows += [setup.row(name, recipe), replace(control_row(setup, recipe), name=f"{name}, control")]
    note = "Variants that are the same module are the same cells."
    return Plan("Presets", (setup.single_row(), *rows), notes=(budget_note(setup), CONTROL_NOTE, note))


def window(setup: Setup) -> Plan:
    """Small windows: the paper's module trained with one cell, and LMANet run with fewer than it was trained with."""
    same_place, lmanet = paper_module(setup, window=1), setup.budget.variants["lmanet"]
    rows = [
        setup.single_row(),
        replace(control_row(setup, same_place), name="paper's module, R=1, control"),
        setup.row("paper's module, R=1", same_place),
        control_row(setup, lmanet),
        setup.row(f"{OURS}, R={lmanet.window}", lmanet),
        *(setup.row(f"{OURS}, R={side}", lmanet, window=side) for side in WINDOWS),
    ]
    note = (
        f"The paper's module: S={same_place.memory_size}, trained and run with a window of one cell. {OURS}: trained "
        f"with R={lmanet.window}, run with the window that is given."
    )
    return Plan("Small windows", tuple(rows), notes=(budget_note(setup), CONTROL_NOTE, note))


def training_free(setup: Setup) -> Plan:
    """The memory that needs no training, against the trained one."""
    free = replace(setup.single_row(training_free=True), name="training-free memory")
    lmanet = setup.row("trained memory", setup.budget.variants["lmanet"])
    return Plan(
        "Training-free against trained memory",
        (setup.single_row(), free, lmanet),
        notes=(budget_note(setup),),
    )


def robustness(setup: Setup) -> Plan:
    """Gains as frames get worse, fewer, or further apart; synthetic data only."""
    lmanet = setup.budget.variants["lmanet"]
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
        own = [setup.single_row(place), control_row(setup, lmanet, place), setup.row(OURS, lmanet, place)]
        rows |= {(row.place, row.name): row for row in own}
        single, control, ours = ((row.place, row.name) for row in own)
        points.append(Point(axis.replace("_", " "), value, ours, single, control))
    for k in SPACINGS:
        place = replace(
            setup.place, name=f"every {k}. frame", scored=replace(setup.place.scored, street=base)
        )
        own = [
            setup.single_row(place),
            control_row(setup, lmanet, place),
            setup.row(OURS, lmanet, place, spacing=k),
        ]
        rows |= {(row.place, row.name): row for row in own}
        single, control, ours = ((row.place, row.name) for row in own)
        points.append(Point("dropped frames: memory of every k-th", k, ours, single, control))
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


def _controls_at(setup: Setup, place: Place) -> list[Row]:
    lmanet = setup.budget.variants["lmanet"]
    single = setup.single_row(place)
    trainings = setup.longer(trained_on(setup.network_name, lmanet), place)
    longer = tuple((replace(single.cells[0][0], model=training),) for training in trainings)
    # The paper's module stands beside its control in `presets`.
    return [
        single,
        Row(f"{SINGLE}, trained on", longer, place.name),
        control_row(setup, lmanet, place),
        setup.row(OURS, lmanet, place),
        setup.row(f"{OURS}, no past", lmanet, place, forget=True),
    ]
