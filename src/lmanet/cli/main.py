"""The `lmanet` command."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import tyro

from lmanet.cli.bench import bench
from lmanet.cli.convert import convert
from lmanet.cli.data import data
from lmanet.cli.demo import demo
from lmanet.cli.evaluate import evaluate
from lmanet.cli.info import info
from lmanet.cli.inspect import inspect
from lmanet.cli.renamed import with_new_names
from lmanet.cli.reproduce import reproduce
from lmanet.cli.segment import segment
from lmanet.cli.train import train
from lmanet.errors import LmanetError

VERBS = {
    "segment": segment,
    "train": train,
    "evaluate": evaluate,
    "data": data,
    "demo": demo,
    "bench": bench,
    "reproduce": reproduce,
    "convert": convert,
    "inspect": inspect,
    "info": info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; on an error of the user's, one line on stderr and exit status 2."""
    warnings.showwarning = _show_warning
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="lmanet",
            args=with_new_names(sys.argv[1:] if arguments is None else arguments),
            description="Video semantic segmentation: a single-frame network, steadied by what it saw before.",
            config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes),
        )
    except LmanetError as error:
        print(f"lmanet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lmanet: interrupted", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """One line on stderr, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
