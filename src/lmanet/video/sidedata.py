"""What a decoded frame carries beside its pixels, through PyAV, which does not know all kinds of FFmpeg's."""

from __future__ import annotations

from av.video.frame import VideoFrame


def side_data(frame: VideoFrame, name: str) -> bytes | None:
    """Side data of a frame by FFmpeg's name, such as `DISPLAYMATRIX`; None if it has none."""
    try:
        data = frame.side_data.get(name)
    except ValueError:
        # PyAV lists none where one is of a kind that it does not know: EXIF, the views of MV-HEVC.
        return None
    return None if data is None else bytes(data)
