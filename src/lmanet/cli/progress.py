"""Progress bars for trainings and evaluations."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lmanet.cli.said import say
from lmanet.errors import MissingDependencyError


class TrainingProgress:
    """One bar per part of a training; a plain line per epoch where there is no terminal."""

    def __init__(self, folder: Path, *, tensorboard: bool = False, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._writer: Any = _summary_writer(folder) if tensorboard and not quiet else None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, line: str) -> None:
        """A line of text that stays."""
        say(self.console, line)

    def report(self, name: str, progress: Any) -> None:
        """Show how far a part is: (done, total), or a training's `Progress`."""
        if isinstance(progress, tuple):
            done, total = progress
            note, ended = "", done == total
            line = f"{name}: {done}/{total}"
        else:
            done = progress.epoch * progress.steps + progress.step
            total = progress.epochs * progress.steps
            epoch = f"epoch {progress.epoch + 1}/{progress.epochs}"
            validated = progress.miou == progress.miou  # not NaN, as before the first validation
            note = f"{epoch} loss {progress.loss:.3f}" + f" mIoU {100 * progress.miou:.1f}" * validated
            ended = progress.step == progress.steps
            line = f"{name}: {note}"
            if name not in self._tasks and progress.epoch:
                self.say(f"{name}: goes on after epoch {progress.epoch}/{progress.epochs}")
            if self._writer is not None:
                self._writer.add_scalar(f"{name}/loss", progress.loss, done)
                if validated:
                    self._writer.add_scalar(f"{name}/val_miou", progress.miou, done)
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note=note)
        self._bars.update(self._tasks[name], completed=done, total=total, note=note)
        if ended and not self.console.is_terminal:
            self.say(line)


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "--tensorboard needs TensorBoard: pip install 'lmanet[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
