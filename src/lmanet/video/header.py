"""What the header of a video file says of its stream: rate, start and end."""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

FALLBACK_FPS = Fraction(25)  # what FFmpeg assumes of streams that say nothing
FASTEST_FPS = 1000  # beyond it, an average is the clock's rate, as FFmpeg gives it of DV
SAME_RATE = 1e-3  # relative
# Their durations count from time 0; all others from the first frame.
FROM_ZERO_FORMATS = ("flv", "matroska,webm")


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames per second; of a stream without time stamps, those that it says itself."""
    stamped = stream.start_time is not None
    average, guessed = stream.average_rate, stream.guessed_rate
    # Stamps in milliseconds give an average that is near to the rate, not it.
    same = average and guessed and abs(average / guessed - 1) < SAME_RATE
    rates = [average, guessed] if stamped and not same else [guessed, average]
    return next((rate for rate in rates if rate and rate <= FASTEST_FPS), FALLBACK_FPS)


def start_s(stream: VideoStream) -> float:
    """When the stream starts, in seconds."""
    return float((stream.start_time or 0) * (stream.time_base or 0))


def promised_end_s(container: InputContainer, stream: VideoStream) -> float | None:
    """When the stream ends by the file's header, in seconds; None if the header does not say."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # FFmpeg corrects an AVI's duration by the file's size, but leaves the header's count as it is.
        return start_s(stream) + float(stream.frames / stream.average_rate)
    if container.format.name == "asf" and len(container.streams) > 1:
        return None  # It gives all streams the duration of the longest.
    if stream.duration and stream.time_base:
        return start_s(stream) + float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:  # Matroska and WebM: hours:minutes:seconds
        try:
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        except ValueError:
            return None
    if container.duration and len(container.streams) == 1:
        start = 0 if container.format.name in FROM_ZERO_FORMATS else container.start_time or 0
        return (start + container.duration) / av.time_base
    return None
