"""Decoding, the network and encoding at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from lmanet.errors import InputError
from lmanet.video.frame import Frame

Item = TypeVar("Item")
Result = TypeVar("Result")

Write = Callable[[Frame, Result], None]
"""What takes a frame and its result to an output; called in frame order, in the writer's thread."""


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
    `writes`. Queues of `depth` items between them bound the memory, however long the stream is. An
    exception in any of the three, KeyboardInterrupt included, stops all of them and is raised here, after
    both threads have ended.

    Args:
        source: the frames; not closed.
        process: called in frame order, in the caller's thread.
        writes: called in turn for each frame and its result.
        depth: items that each of the two queues holds at most.
        progress: called in the caller's thread after each processed frame.

    Returns:
        The number of frames, all of them written.

    Raises:
        InputError: if `depth` is below 1.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}: the queues must hold at least 1 item")
    frames: _Channel[Frame] = _Channel(depth)
    results: _Channel[tuple[Frame, Result]] = _Channel(depth)
    errors: list[BaseException] = []

    def stop() -> None:
        frames.stop()
        results.stop()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except _StoppedError:
            pass
        except BaseException as error:
            errors.append(error)
            stop()

    def read() -> None:
        for frame in source:
            frames.put(frame)
        frames.end()

    def compute() -> int:
        count = 0
        for count, frame in enumerate(frames, start=1):  # noqa: B007 (returned)
            results.put((frame, process(frame)))
            if progress is not None:
                progress(frame)
        results.end()
        return count

    def write() -> None:
        for frame, result in results:
            for output in writes:
                output(frame, result)

    threads = [
        threading.Thread(target=guarded, args=(work,), name=f"lmanet-{work.__name__}", daemon=True)
        for work in (read, write)
    ]
    for thread in threads:
        thread.start()
    count = 0
    try:
        count = compute()
        # Joined here as well, so that an interrupt while the last frames are written stops the writer too.
        for thread in threads:
            thread.join()
    except _StoppedError:
        pass  # A thread has failed: its error is raised below.
    except BaseException:
        stop()
        raise
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return count


class _StoppedError(Exception):
    """Raised in a stage because another one has failed."""


class _Channel(Generic[Item]):
    """A bounded queue that can be ended by its producer and stopped by anybody, without polling."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False

    def put(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._stopped)
            if self._stopped:
                raise _StoppedError
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """No more items will come: iteration ends after those that are left."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake everybody with `_StoppedError`; items that are left are dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
                if self._stopped:
                    raise _StoppedError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
