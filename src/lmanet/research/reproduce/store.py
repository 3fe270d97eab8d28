"""Where cells are kept: `OUT/cells/HASH/` with `config.json` and, when the cell is finished, `result.json`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lmanet.atomic import check_folder, write_whole
from lmanet.evaluation.results import Environment
from lmanet.research.reproduce.cells import (
    Cell,
    MemoryTraining,
    SingleTraining,
    Training,
)
from lmanet.research.reproduce.data import DataConfig
from lmanet.research.reproduce.spelling import cell_hash, configuration, spelled
from lmanet.training.frames import StoredData, store_frames

FRAMES_TO_SCORE = "scored"


@dataclass(frozen=True)
class Store:
    """A folder of cells, and what their trainings share: decoded frames and features, in `OUT/shared`.

    Attributes:
        root: the folder.
    """

    root: Path

    def folder(self, cell: Cell) -> Path:
        """The folder of one cell."""
        return self.root / "cells" / cell_hash(cell)

    def weights(self, training: Training) -> Path:
        """The weights file that a training leaves."""
        folder = self.folder(training)
        if isinstance(training, SingleTraining):
            return folder / "single-frame.safetensors"
        path, before = (folder / f"{name}.safetensors" for name in (training.recipe.method, "lmanet"))
        # Stores of before files were named for the method have every memory under one name.
        return before if before.is_file() and not path.is_file() else path

    def is_finished(self, cell: Cell) -> bool:
        """Whether the cell need not be run: its result is here, and of a training its weights too."""
        if not (self.folder(cell) / "result.json").is_file():
            return False
        return not isinstance(cell, SingleTraining | MemoryTraining) or self.weights(cell).is_file()

    def result(self, cell: Cell) -> dict[str, Any]:
        """The result of a finished cell, as JSON values."""
        return json.loads((self.folder(cell) / "result.json").read_text())

    def begin(self, cell: Cell) -> Path:
        """The cell's folder, with its configuration in it.

        Raises:
            OutputError: it cannot be written.
        """
        folder = self.folder(cell)
        check_folder(folder)
        _write_json(folder / "config.json", configuration(cell))
        return folder

    def finish(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keep the result, and where it was made; from now on the cell is finished."""
        device = torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu"
        environment = {**asdict(Environment.here()), "device": device}
        _write_json(self.folder(cell) / "result.json", {**result, "environment": environment})

    def shared(self, data: DataConfig) -> Path:
        """The folder of what cells on these frames share; it may be deleted whenever nothing runs."""
        text = json.dumps(spelled(data), sort_keys=True)
        return self.root / "shared" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def frames(self, data: DataConfig) -> StoredData:
        """The frames to score on, decoded once."""
        with locked(self.shared(data)):
            return store_frames(data.open(), self.shared(data) / "frames" / FRAMES_TO_SCORE)

    def share_frames(self, training: Training) -> None:
        """Let a training find its decoded frames, `frames/` in its folder, where others on the same data do."""
        own, shared = self.folder(training) / "frames", self.shared(training.data) / "frames"
        check_folder(shared)
        if not own.exists():
            # Where the system makes no links, each training decodes its own.
            with contextlib.suppress(OSError):
                own.symlink_to(Path("../..") / shared.relative_to(self.root), target_is_directory=True)

    def drop_shared(self, data: DataConfig) -> None:
        """Remove what cells on these frames share, unless a training of another run is using it."""
        with using(self.shared(data), alone=True) as free:
            if free:
                shutil.rmtree(self.shared(data), ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[contextlib.ExitStack]:
    """Hold a folder against other processes; closing what it yields lets go earlier than the block's end.

    Processes that would decode or encode the same frames wait for the first, and then find them.
    """
    check_folder(folder)
    with contextlib.ExitStack() as held:
        _lock(held, folder / ".lock", "LOCK_EX")
        yield held


@contextlib.contextmanager
def using(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Say that a folder is in use, by a lock beside it that many may hold.

    Args:
        folder: the folder.
        alone: not to use it, but to remove it, if nobody does.

    Yields:
        Whether the lock is held; `alone`, it is not if another has it.
    """
    check_folder(folder.parent)
    with contextlib.ExitStack() as held:
        kinds = ("LOCK_EX", "LOCK_NB") if alone else ("LOCK_SH",)
        yield _lock(held, folder.with_name(f".{folder.name}.lock"), *kinds)


def _lock(held: contextlib.ExitStack, path: Path, *kinds: str) -> bool:
    """Lock a file, by flags of `fcntl.flock`, until `held` is closed; False if another has it and LOCK_NB is given."""
    try:
        import fcntl
    except ImportError:  # Windows: work is done twice there, and what is open cannot be removed
        return True
    file = held.enter_context(path.open("w"))
    try:
        fcntl.flock(file, sum(getattr(fcntl, kind) for kind in kinds))
    except BlockingIOError:
        return False
    # Closing the file would not do: processes that were forked meanwhile have it open too.
    held.callback(fcntl.flock, file, fcntl.LOCK_UN)
    return True


def best_device() -> torch.device:
    """Where cells run: a GPU where PyTorch has one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
