"""Running many cells, each after what it needs, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from lmanet.errors import InputError, LmanetError
from lmanet.research.reproduce.cells import Cell, MemoryTraining, Timings, needs, title
from lmanet.research.reproduce.data import DataConfig
from lmanet.research.reproduce.store import Store
from lmanet.research.reproduce.work import run_cell


class Watcher:
    """Is told of the progress, with several processes only of cells that begin and end; this one shows nothing."""

    def begin(self, cell: Cell, number: int, total: int) -> None:
        """Cell `number` of `total`, from 1, begins."""

    def report(self, name: str, progress: Any) -> None:
        """A part of the cell that runs in this process, and how far it is."""

    def end(self, cell: Cell) -> None:
        """A cell is finished."""


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and all that they need, each once, after what it needs; what measures time last."""
    ordered: dict[Cell, None] = {}

    def add(cell: Cell) -> None:
        if cell not in ordered:
            for needed in needs(cell):
                add(needed)
            ordered[cell] = None

    for cell in cells:
        add(cell)
    return sorted(ordered, key=lambda cell: isinstance(cell, Timings))


def to_run(cells: Iterable[Cell], store: Store) -> list[Cell]:
    """Those of `in_order` that must be run: not finished, and, of trainings, needed by one that is not."""
    wanted = list(cells)
    missing: dict[Cell, None] = {}

    def add(cell: Cell) -> None:
        if cell not in missing and not store.is_finished(cell):
            for needed in needs(cell):
                add(needed)
            missing[cell] = None

    for cell in wanted:
        add(cell)
    return [cell for cell in in_order(wanted) if cell in missing]


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    *,
    processes: int = 1,
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Run all cells that are not finished, and what they need.

    Args:
        cells: what is wanted.
        store: where cells are kept.
        processes: cells that run side by side, each in a process of its own with its share of the cores; 1 runs them
            in this one. What measures time runs in this process alone, when all others are done.
        workers: processes that prepare a training's samples; if not given 1, or none beside other cells.
        watcher: told of the progress.

    Raises:
        InputError: `processes` is less than 1.
        LmanetError: what a cell raised; cells that run by then are finished first.
    """
    if processes < 1:
        raise InputError(f"processes {processes}: expected at least 1")
    shown = watcher or Watcher()
    missing = to_run(cells, store)
    beside: list[Cell] = [cell for cell in missing if not isinstance(cell, Timings)]
    alone = [cell for cell in missing if isinstance(cell, Timings)]
    helpers = (1 if processes == 1 else 0) if workers is None else workers
    if processes > 1 and len(beside) > 1:
        _side_by_side(beside, store, processes, helpers, shown, len(missing))
    else:
        alone = [*beside, *alone]
    for number, cell in enumerate(alone, start=len(missing) - len(alone) + 1):
        shown.begin(cell, number, len(missing))
        run_cell(cell, store, workers=helpers, report=shown.report)
        shown.end(cell)
        _drop_unused(cell, missing, store)


def ready(waiting: Sequence[Cell], running: Sequence[Cell]) -> list[Cell]:
    """The cells that may begin beside those that run, the best to begin first."""
    unfinished = {*waiting, *running}
    cells = [cell for cell in waiting if not unfinished.intersection(needs(cell))]
    # Memories on the same frames would wait for the features that the first one encodes: others come before them.
    encoded = {cell.data for cell in running if isinstance(cell, MemoryTraining)}
    return sorted(cells, key=lambda cell: isinstance(cell, MemoryTraining) and cell.data in encoded)


def _side_by_side(
    cells: list[Cell], store: Store, processes: int, workers: int, watcher: Watcher, total: int
) -> None:
    threads = max(1, (os.cpu_count() or 1) // processes)
    waiting, running, begun = list(cells), dict[Future[None], Cell](), 0
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(threads, os.getpid()),
    )
    with pool:
        try:
            while waiting or running:
                while len(running) < processes and (cells := ready(waiting, list(running.values()))):
                    cell = cells[0]
                    waiting.remove(cell)
                    running[pool.submit(_run, cell, store.root, workers)] = cell
                    begun += 1
                    watcher.begin(cell, begun, total)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future)
                    _finished(future, cell)
                    watcher.end(cell)
                    _drop_unused(cell, [cell, *waiting, *running.values()], store)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_process(threads: int, parent: int) -> None:
    torch.set_num_threads(threads)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which may have been killed and could not tell it to."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(cell: Cell, root: Path, workers: int) -> None:
    run_cell(cell, Store(root), workers=workers)


def _finished(future: Future[None], cell: Cell) -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise LmanetError(
            f"a process ended at once, while {title(cell)} was running: out of memory? Take fewer --processes; "
            "what is finished is kept"
        ) from None


def _drop_unused(done: Cell, cells: Sequence[Cell], store: Store) -> None:
    """Free the room of decoded frames and features that no cell is left to use, those of plain splits excepted.

    A fold's and a special drive's serve one table; those of the plain splits serve every experiment.
    """
    data = _data_of(done)
    if data is None or (data.fold is None and data.street is None):
        return
    if all(_data_of(cell) != data or store.is_finished(cell) for cell in cells):
        store.drop_shared(data)


def _data_of(cell: Cell) -> DataConfig | None:
    return None if isinstance(cell, Timings) else cell.data
