"""Sources: what is read from real files, and what is said about bad ones."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from lmanet.errors import InputError, VideoError
from lmanet.imagefile import read_image
from lmanet.video import open_source

TICK = Fraction(1, 600)


def grey(index: int) -> int:
    return 40 + 15 * index % 180


def picture(index: int, height: int, width: int) -> np.ndarray:
    """A red top left corner on a grey that tells the index."""
    image = np.full((height, width, 3), grey(index), np.uint8)
    image[: height // 4, : width // 4] = (250, 10, 10)
    return image


def write_video(
    path: Path,
    *,
    pts: list[int],
    size: tuple[int, int] = (96, 128),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: tuple[float, bool] | None = None,
    aspect: Fraction = Fraction(1),
    tick: Fraction = TICK,
) -> Path:
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = tick
        stream.codec_context.gop_size = 10
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        rng = np.random.default_rng(0)
        for index, stamp in enumerate(pts):
            image = picture(index, *size)
            image[-size[0] // 4 :] = rng.integers(0, 255, (1, size[1], 3))  # so that all frames have bytes
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def even(count: int) -> list[int]:
    return [20 * index for index in range(count)]


def is_red(image: np.ndarray, corner: str) -> bool:
    row = 4 if "top" in corner else -5
    column = 4 if "left" in corner else -5
    red, green, blue = (int(value) for value in image[row, column])
    return red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")]
)
def test_frames_of_every_container_come_in_order_with_their_times(tmp_path, suffix, codec):
    tick = Fraction(1, 30)
    path = write_video(tmp_path / f"v.{suffix}", pts=list(range(12)), codec=codec, tick=tick)
    with open_source(path) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.name for frame in frames][:2] == ["000000", "000001"]
    assert np.allclose([frame.time_s for frame in frames], np.arange(12) / 30, atol=6e-4)
    for frame in frames:
        assert frame.image.shape == (96, 128, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert abs(int(frame.image[40, 100, 0]) - grey(frame.index)) <= 7
        assert is_red(frame.image, "top left")
    assert source.warnings == []
    info = source.info
    assert (info.kind, info.width, info.height, info.frame_count) == ("video", 128, 96, 12)
    assert float(info.fps) == pytest.approx(30, rel=1e-3)


def test_variable_frame_rate_keeps_every_time_stamp(tmp_path):
    pts = [0, 7, 50, 51, 300, 301, 666]
    with open_source(write_video(tmp_path / "v.mp4", pts=pts)) as source:
        stamps = [frame.time_s for frame in source]
    assert stamps == [float(stamp * TICK) for stamp in pts]
    assert source.warnings == []


def test_a_late_start_is_kept(tmp_path):
    with open_source(write_video(tmp_path / "v.mkv", pts=[1200 + 20 * i for i in range(5)])) as source:
        first = next(iter(source))
    assert first.time_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("degrees", "mirrored", "corner"),
    [
        (90, False, "bottom left"),
        (180, False, "bottom right"),
        (-90, False, "top right"),
        (0, True, "top right"),
        (90, True, "bottom right"),
    ],
)
def test_rotation_metadata_is_applied(tmp_path, degrees, mirrored, corner):
    path = write_video(tmp_path / "v.mp4", pts=even(3), rotation=(degrees, mirrored), aspect=Fraction(4, 3))
    quarter = abs(degrees) == 90
    with open_source(path) as source:
        frames = list(source)
    assert (source.info.width, source.info.height) == ((96, 128) if quarter else (128, 96))
    assert source.info.pixel_aspect == (Fraction(3, 4) if quarter else Fraction(4, 3))
    assert len(frames) == 3
    for frame in frames:
        assert frame.image.shape == (source.info.height, source.info.width, 3)
        assert is_red(frame.image, corner)


@pytest.mark.parametrize(
    ("pix_fmt", "codec"), [("yuv420p", "ffv1"), ("yuv420p10le", "ffv1"), ("yuvj444p", "libx264")]
)
def test_odd_sizes_ten_bits_and_full_range(tmp_path, pix_fmt, codec):
    path = write_video(tmp_path / "v.mkv", pts=even(2), size=(241, 353), codec=codec, pix_fmt=pix_fmt)
    with open_source(path) as source:
        frames = list(source)
    assert (source.info.width, source.info.height) == (353, 241)
    assert frames[1].image.shape == (241, 353, 3)
    assert is_red(frames[1].image, "top left")
    assert abs(int(frames[1].image[100, 300, 0]) - grey(1)) <= 4


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")]
)
def test_a_truncated_file_yields_its_frames_and_says_so(tmp_path, suffix, codec):
    whole = write_video(
        tmp_path / f"whole.{suffix}", pts=list(range(40)), codec=codec, tick=Fraction(1, 30)
    ).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with open_source(path) as source:
        frames = list(source)
    assert 5 < len(frames) < 40
    assert source.info.frame_count == 40
    assert f"ends after {len(frames)} of 40 frames" in source.warnings[0]


def test_one_missing_frame_is_noticed(tmp_path):
    data = write_video(tmp_path / "v.mp4", pts=even(30)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:-4])
    with open_source(tmp_path / "cut.mp4") as source:
        assert len(list(source)) == 29
    assert "29 of 30 frames" in source.warnings[0] or "1 packets could not" in source.warnings[0]


def test_damaged_data_does_not_end_the_stream(tmp_path):
    data = bytearray(write_video(tmp_path / "v.mp4", pts=even(40)).read_bytes())
    start = len(data) // 2
    end = start + len(data) // 8
    data[start:end] = bytes(end - start)
    (tmp_path / "bad.mp4").write_bytes(data)
    with open_source(tmp_path / "bad.mp4") as source:
        frames = list(source)
    assert len(frames) >= 30
    assert frames[-1].time_s == pytest.approx(39 / 30, abs=1e-3)
    assert any("damaged" in warning for warning in source.warnings)


def test_joined_recordings_run_on_in_the_size_of_the_first(tmp_path):
    parts = [
        write_video(
            tmp_path / f"{size}.ts",
            pts=[3000 * index for index in range(40)],
            size=(size, size),
            tick=Fraction(1, 90000),
        )
        for size in (96, 64)
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(tmp_path / "both.ts") as source:
        frames = list(source)
    assert len(frames) == 80
    assert {frame.image.shape for frame in frames} == {(96, 96, 3)}
    times = [frame.time_s for frame in frames]
    assert np.diff(times) == pytest.approx([1 / 30] * 79, abs=1e-3)
    assert any("scaled" in warning for warning in source.warnings)
    assert any("time stamp" in warning for warning in source.warnings)


def test_bad_inputs_are_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 500)
    (tmp_path / "text.txt").write_text("hello " * 500)
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.HEIC").write_bytes(b"a photograph of a telephone")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG not really")
    moov_last = tmp_path / "moov.mp4"
    with av.open(str(moov_last), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0, 64, 64), format="rgb24")))
        container.mux(stream.encode(None))
    without_index = moov_last.read_bytes().partition(b"moov")[0]
    (tmp_path / "cut.mp4").write_bytes(without_index)
    for name, message in [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video"),
        ("text.txt", "text file"),
        ("folder", "no images"),
        ("bad.png", "not an image"),
        ("photo.HEIC", "save it as JPEG or PNG"),
        ("cut.mp4", "not a video"),
    ]:
        with pytest.raises(VideoError, match=message) as caught:
            open_source(tmp_path / name)
        assert name in str(caught.value)


def test_sound_alone_is_not_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        open_source(path)


def test_a_camera_that_is_not_there_is_an_error():
    with pytest.raises(VideoError, match="camera:97: cannot be opened"):
        open_source("camera:97")
    with pytest.raises(VideoError, match="expected a number"):
        open_source("camera:front")


def test_a_name_with_a_colon_and_a_percent_sign(tmp_path):
    plain = write_video(tmp_path / "plain.mp4", pts=even(3))
    with open_source(plain.rename(tmp_path / "tcp:%03d.mp4")) as source:
        assert len(list(source)) == 3


def test_a_source_is_read_once_and_stops_when_told(tmp_path):
    with open_source(write_video(tmp_path / "v.mp4", pts=even(10))) as source:
        seen = []
        for frame in source:
            seen.append(frame.index)
            if frame.index == 2:
                source.stop()
        assert seen == [0, 1, 2]
        assert source.warnings == []
        with pytest.raises(InputError, match="read once"):
            next(iter(source))


@pytest.mark.parametrize("fps", [0, -1, 1e-4, 1e9, float("nan"), float("inf")])
def test_the_rate_of_images_out_of_range(tmp_path, fps):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0, 8, 8))
    with pytest.raises(InputError, match=r"folder of images: expected 0\.001 to 1000"):
        open_source(tmp_path, images_fps=fps)


@pytest.mark.parametrize("fps", [None, 0.001, 1 / 60, 30000 / 1001, 1000])
def test_the_rate_of_images(tmp_path, fps):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0, 8, 8))
    with open_source(tmp_path, images_fps=fps) as source:
        assert float(source.info.fps) == pytest.approx(fps or 30, rel=1e-9)
        assert source.info.time_base == 1 / source.info.fps


def test_only_a_folder_of_images_takes_a_rate(tmp_path):
    write_video(tmp_path / "v.mp4", pts=even(2))
    cv2.imwrite(str(tmp_path / "a.png"), picture(0, 8, 8))
    for name in (tmp_path / "v.mp4", tmp_path / "a.png", "camera:0"):
        with pytest.raises(InputError, match=r"24 frames per second .*folders of images only"):
            open_source(name, images_fps=24)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_side_data_that_pyav_does_not_know(tmp_path, orientation):
    """FFmpeg hands the EXIF data of JPEGs on, as cameras' Motion JPEG has them: PyAV has no name for that."""
    image = np.full((48, 64, 3), 128, np.uint8)
    image[:16, :16] = 255, 0, 0
    still = Image.fromarray(image)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    still.save(tmp_path / "one.jpg", exif=exif, quality=95, subsampling=0)
    (tmp_path / "v.mjpeg").write_bytes(3 * (tmp_path / "one.jpg").read_bytes())
    with open_source(tmp_path / "v.mjpeg") as source:
        frames = [frame.image for frame in source]
    assert len(frames) == 3
    upright = read_image(tmp_path / "one.jpg")
    assert np.abs(frames[0].astype(int) - upright).mean() < 3
