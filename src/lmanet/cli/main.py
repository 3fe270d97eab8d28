"""The `lmanet` command."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import tyro

from lmanet.atomic import output_errors
from lmanet.cli.bench import bench
from lmanet.cli.convert import convert
from lmanet.cli.data import data
from lmanet.cli.demo import demo
from lmanet.cli.evaluate import evaluate
from lmanet.cli.info import info
from lmanet.cli.inspect import inspect
from lmanet.cli.renamed import with_new_names
from lmanet.cli.reproduce import reproduce
from lmanet.cli.said import errors_said_if_possible
from lmanet.cli.segment import segment
from lmanet.cli.signals import Signals, leave
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
    """Run one verb.

    Args:
        arguments: those of the process if not given, which is then taken to end afterwards.

    Returns:
        The exit status: 2, after one line on stderr, on an error of the user's; 128 + n if signal n ended the work
        (Ctrl-C 130, SIGTERM 143, SIGHUP 129); 1 if nobody reads stdout any more.
    """
    warnings.showwarning = _show_warning
    with errors_said_if_possible(), Signals(last=arguments is None) as signals:
        status = _run(sys.argv[1:] if arguments is None else arguments, signals)
    # The pipeline's reader may hang in a camera or a pipe; and in an orderly end Python no longer handles signals.
    hangs = any(thread.name == "lmanet-read" for thread in threading.enumerate())
    if hangs or (arguments is None and signals.first and not signals.nothing_to_keep):
        leave(status)
    return status


def _run(arguments: Sequence[str], signals: Signals) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="lmanet",
            args=with_new_names(arguments),
            description="Video semantic segmentation: a single-frame network, steadied by what it saw before.",
            config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes),
        )
        if sys.stdout is not None:
            with output_errors(Path("stdout")):
                sys.stdout.flush()
    except BrokenPipeError:
        # What is left to be written must not fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return _stopped(signals)
    except Exception as error:
        if signals.nothing_to_keep:  # A library made an error of its own of the interrupt.
            return _stopped(signals)
        if not isinstance(error, LmanetError):
            raise
        said = [str(error), *getattr(error, "__notes__", ())]
        print(f"lmanet: {'. '.join(' '.join(text.split()).rstrip('.') for text in said)}", file=sys.stderr)
        return 2
    return signals.status


def _stopped(signals: Signals) -> int:
    print(f"lmanet: stopped by {signals.name or 'Ctrl-C'}", file=sys.stderr)
    return signals.status or 130


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """One line on stderr, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
