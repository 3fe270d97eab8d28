"""INT, TERM and HUP: what is labelled is kept, and no hidden file is left.

While a video is labelled, the first signal ends the run after the frame in work, or without it if that takes long, the
second without it, the third the process. At any other time the first raises `InterruptedBySignal`, as Ctrl-C raises
KeyboardInterrupt, and the second ends the process. Python runs a signal's handler between two steps of its own in the
main thread, which may be inside the network or a library that hangs: so a thread is woken by each signal and does what
must not wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from lmanet.atomic import discard_parts
from lmanet.errors import LmanetError

if TYPE_CHECKING:
    from lmanet.labelling.live import Labelling
    from lmanet.labelling.result import LabelledVideo

NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
NUMBERS = {int(getattr(signal, name)): said for name, said in NAMES.items() if hasattr(signal, name)}
"""Windows has no SIGHUP."""
UNWINDING_S = 2.0
"""How long the first signal's exception may take to end the process, where nothing was to be kept."""
FRAME_S = 5.0
"""How long the frame in work may take after the first signal: `docker stop` kills after 10 s."""
SHOW_CURSOR = "\x1b[?25h"
"""For terminals: progress bars hide it."""
SAYING_S = 0.2
"""How long a message may take: a terminal that is held or gone must not hold the end up."""


class InterruptedBySignal(KeyboardInterrupt):
    """Raised in the main thread by the first signal, where nothing is being labelled."""


class Signals:
    """Handles the signals within a `with` block, in the main thread; elsewhere it does nothing.

    A signal that is ignored stays so, as under nohup.

    Args:
        last: the process ends after the block, so the handlers stay.

    Attributes:
        first: the number of the first signal; 0 if none came.
    """

    def __init__(self, *, last: bool = False) -> None:
        self.first = 0
        self._last = last
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._run: Labelling | None = None
        self._report: Callable[[LabelledVideo], None] = lambda labelled: None
        self._ending = threading.Lock()  # held by the thread that ends the process
        self._raised = self._over = False

    @property
    def status(self) -> int:
        """The process's exit status: 128 and the first signal's number; 0 if none came."""
        return 128 + self.first if self.first else 0

    @property
    def name(self) -> str:
        """The first signal's name as users know it; nothing if none came."""
        return NUMBERS.get(self.first, "")

    @property
    def nothing_to_keep(self) -> bool:
        """Whether a signal came before anything was being labelled."""
        return bool(self.first) and self._run is None

    def __enter__(self) -> Self:
        global _current
        if threading.current_thread() is threading.main_thread():
            taken = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
            self._reads, self._writes = os.pipe()
            if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on, and does not need it.
                os.set_blocking(self._writes, False)
            self._wakeup_before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
            self._thread.start()
            for number in taken:
                self._before[number] = signal.signal(number, self._handle)
        _current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        self._over = True
        if self._last:
            return
        _current = None
        if not hasattr(self, "_thread"):
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._writes, b"\0")
        self._thread.join()
        os.close(self._reads)
        os.close(self._writes)

    def labelling(self, run: Labelling, report: Callable[[LabelledVideo], None]) -> None:
        """From now on signals end this run, whose outputs are open.

        Args:
            run: under way.
            report: says what came of it, where that must be said from another thread.
        """
        self._report = report
        self._run = run
        if self.first:  # It came just before: nothing was raised, or the block is being left.
            run.stop()

    def labelled(self) -> None:
        """The run has ended: signals change only the exit status. Where one is giving it up, this never returns."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        self._over = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it gets there."""
        if self._run is None and not self._raised and not self._over:
            self._raised = True
            self.first = self.first or number
            raise InterruptedBySignal

    def _watch(self) -> None:
        """In a thread of its own, at once."""
        count = 0
        while True:
            for number in os.read(self._reads, 1):
                if not number:
                    return
                if number in self._before:
                    count += 1
                    self.first = self.first or number
                    self._act(count)

    def _act(self, count: int) -> None:
        run = self._run
        if self._over:
            if count >= 3:
                self._end()
        elif run is None:
            if count > 1:
                self._end()
            self._later(UNWINDING_S, self._end_unless_labelling)
        elif count == 1:
            run.stop()
            self._later(FRAME_S, lambda: self._give_up(run))
            say(
                f"{self.name}: finishing with what is labelled (the frame in work has {FRAME_S:.0f} s); once more to "
                f"do without it"
            )
        elif count == 2:
            threading.Thread(target=self._give_up, args=(run,), daemon=True).start()
        else:
            self._end()

    @staticmethod
    def _later(seconds: float, work: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()

    def _end_unless_labelling(self) -> None:
        if self._run is None and not self._over:
            say(f"lmanet: stopped by {self.name}")
            self._end()

    def _give_up(self, run: Labelling) -> None:
        """End the process with what is labelled, while the main thread may be held by the network."""
        if self._over or not self._ending.acquire(blocking=False):
            return  # The main thread is about to end it by itself.
        try:
            labelled = run.give_up()
            _briefly(lambda: self._report(labelled))
        except LmanetError as error:
            say(f"lmanet: {error}")
        self._end()

    def _end(self) -> NoReturn:
        leave(self.status)


_current: Signals | None = None


def current() -> Signals:
    """Those that are handled now; without any, ones that never come."""
    return _current or Signals()


def say(text: str) -> None:
    """A line on stderr, if it takes it."""

    def write() -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(text, file=sys.stderr, flush=True)

    _briefly(write)


def leave(status: int) -> NoReturn:
    """End the process at once, without what it is writing; hanging threads would crash an orderly end."""

    def flush() -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stderr.isatty():
                sys.stderr.write(SHOW_CURSOR)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()

    _briefly(flush)
    discard_parts()  # last: until then the main thread may go on, and open another
    os._exit(status)


def _briefly(work: Callable[[], None]) -> None:
    """Do something that may hang, but do not wait for it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SAYING_S)


def _forget() -> None:
    """A forked process, such as one that prepares samples, is ended by its parent in its own way."""
    if _current is not None and _current._before:
        with contextlib.suppress(ValueError, OSError):
            signal.set_wakeup_fd(-1)
            for number in _current._before:
                signal.signal(
                    number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
