"""`lmanet inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from lmanet.backbones import Wrapped
    from lmanet.backbones.wrapped.inspection import Candidate

SHOWN = 15


def inspect(
    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODULE:FUNCTION")]],
    model_output: str | None = None,
    probe: tuple[int, int] | None = None,
    all: bool = False,
) -> None:
    """Say how a network of your own is taken: its normalisation, its output, and where it can be cut (`--at`).

    Args:
        model: the function that builds the network, in a module of the current folder or an installed one.
        model_output: key or index of the logits among what it returns, if that does not tell by itself.
        probe: height and width of images that the network takes, if it does not take the usual ones.
        all: every place, not only the 15 of most merit.
    """
    from rich.console import Console

    from lmanet.backbones import Backbone
    from lmanet.backbones.wrapped.inspection import best_cut
    from lmanet.backbones.wrapped.inspection import inspect as candidates_of
    from lmanet.backbones.wrapped.normalisation import find_normalisation
    from lmanet.backbones.wrapped.probing import try_out
    from lmanet.cli.network import output_of
    from lmanet.cli.said import say
    from lmanet.third_party import load_third_party

    console = Console()
    network = load_third_party(model)
    if isinstance(network, Backbone):
        what = f"{model} is a {type(network).__name__}, a Backbone, which says itself where it is cut"
        return say(console, what, f"normalisation: {network.normalisation}", *network.notes)
    # Once for all that follows.
    tried = try_out(network, probe, output=output_of(model_output))
    say(console, f"normalisation: {find_normalisation(network, probe=tried.size)}", *tried.outputs.notes)
    candidates = candidates_of(network, probe=tried)
    default, around = best_cut(network, candidates, probe=tried)
    best = sorted(candidates, key=lambda c: -c.merit)[: None if all else SHOWN]
    table = _table(candidates, best, default, around)
    # Names are what is wanted here: rather a table wider than the terminal than a name cut short.
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
    left_out = len(candidates) - table.row_count
    say(
        console,
        "*: where it is cut if nothing is said. before, after: 10⁹ multiplications and additions per megapixel on "
        "either side of the cut. around: maps besides this one that the rest of the network needs, where that was "
        "tried. merit: late in the network, near stride 8, 64 to 512 channels, without negative values.",
        *([f"{left_out} places of less merit are left out: --all lists them."] if left_out else []),
    )


def _table(
    candidates: list[Candidate], best: list[Candidate], default: Wrapped, around: dict[Candidate, int]
) -> Table:
    """The best candidates and the default, in call order."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "at", "channels", "stride", "before", "after", "around", "merit")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for c in candidates:
        chosen = (c.at, c.entry) == (default.at, default.entry)
        if c in best or chosen:
            table.add_row(
                "*" if chosen else "",
                escape(c.at if c.entry is None else f"{c.at} entry={c.entry!r}"),
                str(c.channels),
                str(c.stride),
                f"{c.gmacs_before:.2f}",
                f"{c.gmacs_after:.2f}",
                str(around[c]) if c in around else "",
                f"{c.merit:.2f}",
                style="bold" if chosen else "",
            )
    return table
