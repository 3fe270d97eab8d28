"""Decoding, the network and encoding at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from lmanet.errors import InputError
from lmanet.video.frame import Frame, Source

Item = TypeVar("Item")
Result = TypeVar("Result")

Write = Callable[[Frame, Result], None]
"""What takes a frame and its result to an output; called in frame order, in the writer's thread."""


READER_ENDS_S = 0.5
"""How long a reader is waited for that nobody needs any more: a camera or a pipe that hangs never ends."""


def run_pipeline(
    source: Iterable[Frame],
    process: Callable[[Frame], Result],
    writes: Sequence[Write[Result]],
    *,
    depth: int = 4,
    progress: Callable[[Frame], None] | None = None,
) -> int:
    """Take every frame of a source through `process` to the outputs, the three stages overlapping.

    A reader thread iterates over the source, the caller's thread runs `process`, a writer thread calls
    `writes`. Queues of `depth` items between them bound the memory, however long the stream is.

    However it ends, what was processed is written first, unless it is the writing that fails: when the source is
    stopped (`Source.stop`; frames that were read and not processed are dropped), when reading fails (what was read
    before is processed), and when `process` or `progress` raises, KeyboardInterrupt included. The exception is raised
    here, after both threads have ended; but a reader that hangs in the source is left to itself.

    Args:
        source: the frames; not closed.
        process: called in frame order, in the caller's thread.
        writes: called in turn for each frame and its result.
        depth: items that each of the two queues holds at most.
        progress: called in the caller's thread after each processed frame.

    Returns:
        The number of frames that were written.

    Raises:
        InputError: if `depth` is below 1.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}: the queues must hold at least 1 item")
    frames: _Channel[Frame] = _Channel(depth)
    results: _Channel[tuple[Frame, Result]] = _Channel(depth)
    errors: list[BaseException] = []
    count = 0
    if isinstance(source, Source):
        source.when_stopped(frames.cut)

    def read() -> None:
        try:
            for frame in source:
                frames.put(frame)
        finally:
            frames.end()

    def write() -> None:
        nonlocal count
        try:
            for frame, result in results:
                for output in writes:
                    output(frame, result)
                count += 1
        finally:
            frames.cut()
            results.cut()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except _CutError:
            pass
        except BaseException as error:
            errors.append(error)

    reader, writer = (
        threading.Thread(target=guarded, args=(work,), name=f"lmanet-{work.__name__}", daemon=True)
        for work in (read, write)
    )
    try:
        writer.start()
        reader.start()
        with suppress(_CutError):  # The writer has failed: its error is raised below.
            for frame in frames:
                results.put((frame, process(frame)))
                if progress is not None:
                    progress(frame)
        results.end()
        writer.join()
    except BaseException:
        frames.cut()
        results.end()
        try:
            writer.join()
        finally:  # Interrupted once more: what is not written yet is given up.
            results.cut()
        raise
    finally:
        frames.cut()
        reader.join(READER_ENDS_S)
    if errors:
        raise errors[0]
    return count


class _CutError(Exception):
    """Raised in a stage whose items nobody takes any more."""


class _Channel(Generic[Item]):
    """A bounded queue that can be ended by its producer and cut by anybody, without polling."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        # Reentrant: a signal's handler may cut it in the thread that is waiting.
        self._changed = threading.Condition(threading.RLock())
        self._ended = self._cut = False

    def put(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._cut)
            if self._cut:
                raise _CutError
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """No more items will come: iteration ends after those that are left."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cut(self) -> None:
        """Drop the items that are left: iteration ends, and putting raises `_CutError`."""
        with self._changed:
            self._cut = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._cut)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
