"""Videos that are cut off: told by their structure where their headers do not; whole ones are not."""

import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from lmanet.video import open_source

KINDS = {
    "v.gif": ("gif", "rgb8", {}),
    "v.flv": ("flv1", "yuv420p", {}),
    "v.wmv": ("wmv2", "yuv420p", {}),
    "v.ogv": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "v.ts": ("mpeg2video", "yuv420p", {}),
    "fragments.mp4": ("libx264", "yuv420p", {"preset": "ultrafast"}),
}
COUNT = 40


def write(path: Path, sound_s: float = 0.0) -> Path:
    """A video with noise, so that all frames have bytes, and a sound of a length beside it."""
    codec, pix_fmt, options = KINDS[path.name]
    fragments = {"movflags": "frag_keyframe+empty_moov"} if path.suffix == ".mp4" else {}
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=fragments) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 96, 128, pix_fmt
        stream.codec_context.gop_size = 10
        sound = container.add_stream("wmav2", 44100, layout="mono", bit_rate=64000) if sound_s else None
        for _ in range(COUNT):
            image = rng.integers(0, 255, (96, 128, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        if sound is not None:
            noise = rng.normal(0, 0.1, (1, 2048)).astype(np.float32)
            for block in range(int(sound_s * 44100 / 2048)):
                frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, block * 2048
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def read(path: Path) -> tuple[int, list[str]]:
    with open_source(path) as source:
        return sum(1 for _ in source), source.warnings


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_has_no_warning(tmp_path, name):
    assert read(write(tmp_path / name)) == (COUNT, [])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_cut_off_is_told_of(tmp_path, name):
    path = write(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: 188 * (len(data) * 6 // 10 // 188) + 50])
    count, warnings = read(path)
    assert 0 < count < COUNT
    assert len(warnings) == 1
    assert "cut off" in warnings[0]


def test_fragments_that_are_overwritten_are_told_of(tmp_path):
    path = write(tmp_path / "fragments.mp4")
    data = bytearray(path.read_bytes())
    place = data.find(b"moof", len(data) // 2)
    data[place - 4 : place + 2000] = bytes(2004)
    path.write_bytes(data)
    count, warnings = read(path)
    assert count < COUNT
    assert "cut off or damaged" in warnings[0]


def test_sound_that_is_longer_than_the_video_is_no_damage(tmp_path):
    """Windows Media gives every stream the duration of the longest."""
    assert read(write(tmp_path / "v.wmv", sound_s=3)) == (COUNT, [])


def test_a_piece_that_is_missing_in_a_transport_stream_is_counted(tmp_path):
    path = write(tmp_path / "v.ts")
    packets = path.read_bytes()
    middle = len(packets) // 2 // 188 * 188
    path.write_bytes(packets[:middle] + packets[middle + 188 * 60 :])
    count, warnings = read(path)
    assert count < COUNT
    assert len(warnings) == 1
    assert f"{COUNT - count} of {COUNT} frames are missing" in warnings[0]


def test_several_video_streams_are_told_of(tmp_path):
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (64, 96), strict=True):
            stream.height, stream.width, stream.pix_fmt = 48, width, "yuv420p"
        for stream in streams:
            image = np.zeros((48, stream.width, 3), np.uint8)
            for packet in [
                *stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")),
                *stream.encode(None),
            ]:
                container.mux(packet)
    count, warnings = read(tmp_path / "v.mkv")
    assert count == 1
    assert "2 video streams" in warnings[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_read_once(tmp_path):
    data = write(tmp_path / "v.ts").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    feeding = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True)
    feeding.start()
    assert read(tmp_path / "pipe") == (COUNT, [])
