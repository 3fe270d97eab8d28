"""Time stamps of a video's frames: as the file has them, or in the order of coding where it has no better ones."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame

# Containers whose stamps are those of coding, whatever the order in which frames are shown.
CODING_ORDER_FORMATS = ("avi", "h264", "hevc", "vvc", "mpegvideo", "m4v", "vc1", "cavsvideo")
JOIN_S = 1  # time stamps that go back by more are those of another recording, joined to the first
MOST_INTERVALS = 1000  # different ones, that are counted


class Clock:
    """Gives each frame, in the order in which frames are shown, its time in ticks: rising, and from 0 on at least.

    Where a file stamps its packets by coding order alone, the n-th frame shown gets the n-th stamp. Missing stamps
    follow the one before by a step. Times below 0, at which players show nothing, are moved up to begin at 0.

    Attributes:
        restamped: frames whose stamp was missing or went back.
        offset: ticks that are added to the file's stamps by now.

    Args:
        step: ticks between frames where nothing else is known.
        time_base: seconds per tick.
        coding_order: stamps are those of coding.
        offset: ticks that are added to all stamps.
    """

    def __init__(self, step: int, time_base: Fraction, *, coding_order: bool, offset: int = 0) -> None:
        self._step, self._time_base, self._coding_order = step, time_base, coding_order
        self._last: int | None = None
        self._intervals: Counter[int] = Counter()
        self.restamped, self.offset = 0, offset

    def tick(self, frame: VideoFrame, waiting: list[int]) -> int:
        """The frame's time.

        Args:
            frame: the next one in the order in which they are shown.
            waiting: a heap of the stamps of packets whose frames have not come; the frame's is taken off.
        """
        if self._coding_order:
            stamp = heapq.heappop(waiting) if waiting else None
        else:
            stamp = frame.pts
            waiting.clear()
        tick = self._rising(stamp)
        if self._last is not None:
            interval = tick - self._last
            if interval in self._intervals or len(self._intervals) < MOST_INTERVALS:
                self._intervals[interval] += 1
        self._last = tick
        return tick

    def _rising(self, stamp: int | None) -> int:
        if self._last is None:
            if stamp is not None and stamp + self.offset < 0:
                self.offset = -stamp
            return 0 if stamp is None else stamp + self.offset
        if stamp is None:
            # A stream without any, such as raw H.264, has no fault that is to be told.
            self.restamped += not self._coding_order
            return self._last + self._step
        tick = stamp + self.offset
        if tick > self._last:
            return tick
        self.restamped += 1
        if (self._last - tick) * self._time_base < JOIN_S:
            return self._last + 1  # Out of order after damage: the frames that follow are on time again.
        self.offset += self._last + self._step - tick
        return self._last + self._step

    @property
    def usual(self) -> float:
        """Ticks between most neighbours, as an average: of 60 a second, milliseconds make 16 and 17."""
        if not self._intervals:
            return self._step
        most = self._intervals.most_common(1)[0][0]
        alike = {
            interval: count for interval, count in self._intervals.items() if abs(interval - most) < most / 2
        }
        return sum(interval * count for interval, count in alike.items()) / sum(alike.values())

    @property
    def lacking(self) -> int:
        """Frames for which the intervals leave room, if frames come as regularly as most do."""
        usual = self.usual
        wide = {interval: count for interval, count in self._intervals.items() if interval > 1.5 * usual}
        return sum((round(interval / usual) - 1) * count for interval, count in wide.items())


def stamp_of(packet: Packet, container_format: str) -> int | None:
    """What takes the place of a frame's own stamp: of the stamps of all packets, the frames get one after another."""
    # Matroska holds one stamp a packet: coding's are then guesses of FFmpeg.
    first, second = packet.dts, packet.pts
    if container_format.startswith("matroska"):
        first, second = second, first
    return second if first is None else first


def goes_back(frames: Sequence[VideoFrame], time_base: Fraction) -> bool:
    """Whether the first frames, all whole, are stamped in another order than they are shown, or not at all."""
    stamps = [frame.pts for frame in frames]
    if stamps and stamps[0] is None:
        return True
    if any(frame.is_corrupt for frame in frames):
        return False
    known = [stamp for stamp in stamps if stamp is not None]
    return any(
        later <= earlier and (earlier - later) * time_base < JOIN_S
        for earlier, later in itertools.pairwise(known)
    )
