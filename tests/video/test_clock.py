"""Times of frames and damage that is told, on files of every container: made here, and those of the field."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lmanet.errors import VideoError
from lmanet.video import VideoSink, open_source

FIELD = Path(__file__).parents[3] / "shared/field"
COUNT = 50
X264 = {"preset": "veryfast", "bf": "3", "b-adapt": "0"}
X265 = {"preset": "ultrafast", "x265-params": "bframes=3:b-adapt=0:log-level=none"}
FAST_VP = {"deadline": "realtime", "cpu-used": "8"}


def write(
    path: Path,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (192, 256),
    rate: int | Fraction = 25,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    count: int = COUNT,
) -> Path:
    """A video whose frames get brighter, with noise so that all have bytes."""
    noise = np.random.default_rng(0).integers(0, 255, (size[0] // 3, size[1], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = 12
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        for index in range(count):
            image = np.full((*size, 3), 30 + 200 * index // count, np.uint8)
            image[: len(noise)] = np.roll(noise, 3 * index, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def remux(
    source: Path, target: Path, stamps: Callable[[int | None, int | None], tuple[int | None, int | None]]
) -> Path:
    """The same packets with other stamps: a function of those for showing and for coding."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = stamps(packet.pts, packet.dts)
                packet.stream = stream
                new.mux(packet)
    return target


def read(path: Path, **options: bool):
    with open_source(path, **options) as source:
        frames = list(source)
    return source, frames, np.array([frame.time_s for frame in frames])


def shifted(ticks: int):
    return lambda pts, dts: (None if pts is None else pts + ticks, None if dts is None else dts + ticks)


KINDS = [
    ("libx264", ["mp4", "mov", "mkv", "ts", "m2ts", "flv", "avi", "3gp", "m4v", "h264"], {"options": X264}),
    ("libx265", ["mp4", "mkv", "ts", "flv", "hevc"], {"options": X265}),
    ("mpeg4", ["mp4", "mkv", "avi", "ts"], {"b_frames": 2}),
    ("mpeg2video", ["mpg", "ts", "mkv", "avi", "mov", "mxf", "vob", "m2v"], {"b_frames": 2}),
    ("mjpeg", ["avi", "mov", "mkv", "mjpeg"], {"pix_fmt": "yuvj420p"}),
    ("libvpx", ["webm", "avi"], {"options": FAST_VP}),
    ("libvpx-vp9", ["webm", "mp4", "ivf"], {"options": FAST_VP}),
    ("ffv1", ["mkv", "avi"], {}),
    ("prores_ks", ["mov"], {"pix_fmt": "yuv422p10le", "count": 10}),
    ("wmv2", ["wmv"], {}),
    ("dvvideo", ["dv", "avi"], {"size": (576, 720), "count": 10}),
    (
        "dvvideo",
        ["ntsc.dv"],
        {"size": (480, 720), "pix_fmt": "yuv411p", "rate": Fraction(30000, 1001), "count": 10},
    ),
    ("gif", ["gif"], {"pix_fmt": "rgb8"}),
]
CONTAINERS = [(f"v.{suffix}", codec, options) for codec, suffixes, options in KINDS for suffix in suffixes]


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS, ids=[f"{c} {n}" for n, c, _ in CONTAINERS])
def test_a_good_file_of_every_kind_has_all_frames_evenly_and_no_warning(tmp_path, name, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    count = options.get("count", COUNT)
    source, frames, times = read(write(tmp_path / name, codec, **options))
    rate = options.get("rate", 25)
    assert len(frames) == count
    assert np.diff(times) == pytest.approx([1 / float(rate)] * (count - 1), abs=1.1e-3)
    assert 0 <= times[0] < 1 and source.info.fps == rate
    assert source.info.frame_count in (None, count)
    assert source.warnings == []
    if codec != "gif":  # its few colours are not in order
        assert np.diff([int(frame.image[-8, -8, 0]) for frame in frames]).min() >= -4


def test_avi_with_b_frames_of_the_field():
    if not (FIELD / "bframes.avi").exists():
        pytest.skip(f"{FIELD / 'bframes.avi'} is not here")
    source, _, times = read(FIELD / "bframes.avi")
    assert times == pytest.approx(0.04 * np.arange(50))
    assert source.warnings == []


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_stamps_in_coding_order_are_given_out_in_the_order_of_showing(tmp_path, suffix):
    """As programs write that copy AVI's packets into another container."""
    avi = write(tmp_path / "v.avi", options=X264)
    source, frames, times = read(remux(avi, tmp_path / f"v.{suffix}", lambda pts, dts: (dts, dts)))
    assert np.diff(times) == pytest.approx([0.04] * (COUNT - 1))
    assert np.diff([int(frame.image[-8, -8, 0]) for frame in frames]).min() >= 0
    assert source.warnings == []


def test_a_raw_stream_has_the_rate_that_it_says(tmp_path):
    source, _, times = read(write(tmp_path / "v.h264", rate=30, options=X264))
    assert source.info.fps == 30
    assert times == pytest.approx(np.arange(COUNT) / 30)


def test_frames_before_time_0_are_shown(tmp_path):
    mkv = write(tmp_path / "v.mkv", options=X264)
    paths = [remux(mkv, tmp_path / "negative.mkv", shifted(-1000))]
    paths += [path for path in [FIELD / "negative-times.ts"] if path.exists()]
    for path in paths:
        source, frames, times = read(path)
        assert times == pytest.approx(0.04 * np.arange(50), abs=1e-3)
        assert source.warnings == []
        info = source.info
        out = tmp_path / "out.mp4"
        with VideoSink(
            out, width=info.width, height=info.height, fps=info.fps, time_base=info.time_base
        ) as sink:
            for frame in frames:
                sink.write(frame.image, frame.time_s)
        with av.open(str(out)) as shown:
            assert sum(1 for _ in shown.decode(video=0)) == 50


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_clock_that_starts_after_hours_is_counted_from_its_start(tmp_path, suffix):
    mkv = write(tmp_path / "v.mkv", options=X264)
    hours = 20 * 3600 * 1000
    source, frames, times = read(remux(mkv, tmp_path / f"late.{suffix}", shifted(hours)))
    assert len(frames) == COUNT and times[0] < 0.2
    assert np.diff(times) == pytest.approx([0.04] * (COUNT - 1), abs=1.1e-3)
    (warning,) = source.warnings
    assert "clock starts at 72000" in warning


def test_a_clock_that_wraps_around(tmp_path):
    """MPEG-TS counts to 2^33, 26.5 hours: recordings of broadcasts run over it."""
    ts = write(tmp_path / "v.ts", options=X264)
    source, frames, times = read(remux(ts, tmp_path / "wrap.ts", shifted((1 << 33) - 90000)))
    assert len(frames) == COUNT
    assert np.diff(times) == pytest.approx([0.04] * (COUNT - 1), abs=1e-4)
    assert source.warnings == []


def test_an_edit_list_hides_frames_without_a_warning(tmp_path):
    mp4 = write(tmp_path / "v.mp4", options=X264)
    tick = av.open(str(mp4)).streams.video[0].time_base.denominator
    source, frames, times = read(remux(mp4, tmp_path / "cut.mp4", shifted(-tick)))
    assert len(frames) == 25 and times[0] == 0
    assert source.warnings == []


HOLES = [
    ("mkv", "libx264", X264),
    ("mp4", "libx264", X264),
    ("ts", "libx264", X264),
    ("avi", "libx264", X264),
]
HOLES += [
    ("mkv", "libx265", X265),
    ("webm", "libvpx-vp9", FAST_VP),
    ("mkv", "mjpeg", {}),
    ("avi", "mjpeg", {}),
]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"), HOLES, ids=[f"{codec} {suffix}" for suffix, codec, _ in HOLES]
)
@pytest.mark.parametrize(("start", "length"), [(0.3, 0.1), (0.5, 0.25)])
def test_frames_that_are_missing_are_counted(tmp_path, suffix, codec, options, start, length):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    data = bytearray(write(tmp_path / f"v.{suffix}", codec, pix_fmt=pix_fmt, options=options).read_bytes())
    begin, size = int(start * len(data)), int(length * len(data))
    data[begin : begin + size] = bytes(size)
    path = tmp_path / f"hole.{suffix}"
    path.write_bytes(data)
    source, frames, _ = read(path)
    missing = COUNT - len(frames)
    assert missing > 0
    text = " ".join(source.warnings)
    assert (
        f"{missing} of {COUNT} frames are missing" in text or f"after {len(frames)} of {COUNT} frames" in text
    )
    with pytest.raises(VideoError, match="damaged"):
        read(path, strict=True)


def test_the_hole_of_the_field():
    if not (FIELD / "zeros.mkv").exists():
        pytest.skip(f"{FIELD / 'zeros.mkv'} is not here")
    source, frames, _ = read(FIELD / "zeros.mkv")
    assert len(frames) == 36
    assert "14 of 50 frames are missing" in source.warnings[0]


def test_pauses_of_a_variable_rate_are_no_damage(tmp_path):
    mkv = write(tmp_path / "v.mkv", options=X264)
    for suffix in ("mkv", "mp4"):
        path = remux(
            mkv,
            tmp_path / f"pause.{suffix}",
            lambda pts, dts: (pts + 3000 * (pts > 1000), None if dts is None else dts + 3000 * (dts > 1000)),
        )
        source, frames, times = read(path, strict=True)
        assert len(frames) == COUNT and np.diff(times).max() > 2.9
        assert source.warnings == []


def test_strict_refuses_a_file_that_is_cut_off(tmp_path):
    data = write(tmp_path / "v.mkv", options=X264).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match=r"cut off or damaged.*without strict, this is a warning"):
        read(tmp_path / "cut.mkv", strict=True)
