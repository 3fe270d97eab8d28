"""The paper's tables and figures."""

from __future__ import annotations

from dataclasses import replace

from lmanet.research.reproduce.attention import LOCAL_AGAINST_GLOBAL, OVER_MEMORY
from lmanet.research.reproduce.budget import LABEL_MEMORY
from lmanet.research.reproduce.cells import AttentionMaps, Changes, Timings
from lmanet.research.reproduce.common import budget_note, paper_module
from lmanet.research.reproduce.plan import Plan, Setup

WINDOWS: tuple[int | None, ...] = (None, 41, 21, 11, 1)
"""Table II's R in cells; None is G, the whole map."""


def table_1(setup: Setup) -> Plan:
    """Table I: LMANet with memories of 0 to 5 frames."""
    sizes = [setup.row(f"S={size}", paper_module(setup, memory_size=size)) for size in range(1, 6)]
    return Plan(
        "Table I: memory size S, R=21",
        (replace(setup.single_row(), name="S=0 (single-frame)"), *sizes),
        notes=(budget_note(setup), "The differences per class are the paper's Figure S1."),
        per_class=True,
    )


def table_2(setup: Setup) -> Plan:
    """Table II: LMANet with search windows of several sizes, at S=3 and 4."""
    rows = [setup.single_row()]
    for size in (3, 4):
        for asked in WINDOWS:
            name = "G" if asked is None else f"R={asked}"
            recipe = paper_module(setup, memory_size=size, window=setup.windowed(asked))
            rows.append(setup.row(f"{name}, S={size}", recipe))
    return Plan(
        "Table II: search window R",
        tuple(rows),
        notes=(
            budget_note(setup),
            _window_note(setup),
            "The differences per class are the paper's Figure S2.",
        ),
        per_class=True,
    )


def table_3(setup: Setup) -> Plan:
    """Table III: LMANet with concatenation against gated fusion, S=3."""
    rows = [
        setup.row(
            name, paper_module(setup, memory_size=3, fusion=fusion, value_channels=setup.concat_channels)
        )
        for name, fusion in (("concatenation", "concat"), ("gated fusion", "gated"))
    ]
    return Plan("Table III: fusion, S=3, R=21", (setup.single_row(), *rows), notes=(budget_note(setup),))


def table_4(setup: Setup) -> Plan:
    """Table IV: time and peak memory of a frame, of LMANet and of the label memory."""
    budget = setup.budget
    note = (
        "One frame of a stream through ERFNet with random weights on this machine, by lmanet bench model, "
        "whatever --weights is; the paper has S=3 on a GPU. G is attention over whole frames. Peak memory is that of "
        "a fresh process."
    )
    return Plan(
        "Table IV: time and memory",
        others=(Timings(budget.timed, setup.place.scored.size(), budget.repeats),),
        notes=(note,),
    )


def table_6(setup: Setup) -> Plan:
    """Table VI: IoU per class of the network and of the memories that leave it as it is."""
    rows = setup.single_row(), setup.free_row(), setup.row(LABEL_MEMORY, setup.budget.labels)
    return Plan(
        "Table VI: IoU per class",
        rows,
        notes=(
            budget_note(setup),
            "Figure S3 is this with another network: --weights of it.",
        ),
        per_class=True,
    )


def table_s4(setup: Setup) -> Plan:
    """Table S4: LMANet trained with S=4, run with up to 19 frames."""
    recipe = paper_module(setup, memory_size=4)
    rows = [setup.row(f"S={size}", recipe, memory_size=size if size > 4 else None) for size in range(4, 20)]
    return Plan(
        "Table S4: trained with S=4, run with another S",
        (setup.single_row(), *rows),
        notes=(budget_note(setup),),
    )


def figure_1(setup: Setup) -> Plan:
    """Figure 1: attention maps of LMANet over all frames of its memory."""
    return _attention(setup, "Figure 1: attention over the memory", OVER_MEMORY)


def figure_3(setup: Setup) -> Plan:
    """Figure 3: attention maps of LMANet over the last frame, local and global."""
    return _attention(setup, "Figure 3: global and local attention", LOCAL_AGAINST_GLOBAL)


def figure_5(setup: Setup) -> Plan:
    """Figure 5: frames where the label memory changes the label."""
    training = setup.trainings(setup.budget.labels)[0]
    return Plan(
        "Figure 5: where the memory changes the label",
        others=(Changes(setup.scored(), setup.place.network, training),),
        notes=(budget_note(setup), "The label memory, seed 0."),
    )


def _attention(setup: Setup, title: str, picture: str) -> Plan:
    training = setup.trainings(paper_module(setup, memory_size=4))[0]
    note = (
        "LMANet, seed 0, trained with a local window. Global: the same model with a window that covers "
        "the whole map."
    )
    return Plan(
        title,
        others=(AttentionMaps(setup.scored(), training),),
        pictures=(picture,),
        notes=(budget_note(setup), note),
    )


def _window_note(setup: Setup) -> str:
    height, width = setup.map_size
    trained = ", ".join(f"{'G' if asked is None else asked} as {setup.window(asked)}" for asked in WINDOWS)
    return (
        f"The paper's map has 64×128 cells of stride 8, this one {height}×{width}: as a cell covers as many pixels, R "
        f"is the paper's in cells, at most a window that covers the whole map (here {trained}). G is local attention "
        f"with such a window, border mask and no scale, where the paper's G divides scores by the root of the "
        f"number of key channels."
    )
