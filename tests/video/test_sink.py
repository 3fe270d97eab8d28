"""Outputs: what is in the files, and that no half file is left whatever goes wrong."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from contracts.disk import files_no_larger_than
from lmanet.errors import InputError, OutputError, VideoError
from lmanet.video import ImageSink, LabelSink, VideoSink, open_sinks, open_source
from lmanet.video.frame import Frame, SourceInfo
from lmanet.video.stills import whole_map

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
TICK = Fraction(1, 600)


def smooth(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4 % 256, columns * 3 % 256, 0 * rows + 20 * index], -1).astype(np.uint8)


def info(kind: str = "video", path: str = "in.mp4", width: int = 64, height: int = 48) -> SourceInfo:
    return SourceInfo(
        path=Path(path),
        kind=kind,  # type: ignore[arg-type]
        width=width,
        height=height,
        fps=Fraction(30),
        frame_count=3,
        time_base=Fraction(1, 30),
    )


def write(path: Path, times_s: list[float], **options) -> None:
    with VideoSink(path, width=64, height=48, fps=30, **options) as sink:
        for index, time_s in enumerate(times_s):
            sink.write(smooth(index), time_s)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "m4v", "MP4"])
def test_round_trip_keeps_count_times_and_colours(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    write(path, [index / 30 for index in range(9)])
    with open_source(path) as source:
        frames = list(source)
    assert source.warnings == []
    assert source.info.fps == 30
    assert [frame.time_s for frame in frames] == pytest.approx([i / 30 for i in range(9)], abs=6e-4)
    for index, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - smooth(index)).mean() < 3
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_file_plays_anywhere(tmp_path):
    write(tmp_path / "out.mp4", [0.0, 0.1], pixel_aspect=Fraction(4, 3))
    with av.open(str(tmp_path / "out.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.sample_aspect_ratio) == ("h264", "yuv420p", Fraction(4, 3))
        assert (codec.colorspace, codec.color_range) == (1, 1)  # BT.709, limited
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_variable_frame_rate_is_kept_to_the_tick(tmp_path):
    pts = [5, 12, 50, 51, 300, 301, 666]
    write(tmp_path / "out.mp4", [float(stamp * TICK) for stamp in pts], time_base=TICK)
    with open_source(tmp_path / "out.mp4") as source:
        again = [frame.time_s / float(TICK) for frame in source]
    assert again == pytest.approx(pts, abs=1e-9)


@pytest.mark.parametrize(("width", "height"), [(353, 241), (64, 47), (1, 1)])
def test_odd_sizes_repeat_the_last_row_and_column(tmp_path, width, height):
    image = smooth(3, height, width)
    with VideoSink(tmp_path / "out.mp4", width=width, height=height, fps=25) as sink:
        sink.write(image, 0.0)
    with open_source(tmp_path / "out.mp4") as source:
        (frame,) = source
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert frame.image.shape == padded.shape
    assert np.abs(frame.image.astype(int) - padded).mean() < 4


def test_wrong_frames_are_refused_and_leave_nothing(tmp_path):
    for image, time_s, message in [
        (smooth(0, 48, 60), 1.0, r"expected \(48, 64, 3\)"),
        (smooth(0).astype(np.float32), 1.0, "float32"),
        (smooth(0), 0.0, "time stamps"),
    ]:
        with (
            pytest.raises(InputError, match=message),
            VideoSink(tmp_path / "o.mp4", width=64, height=48, fps=30) as sink,
        ):
            sink.write(smooth(0), 0.0)
            sink.write(image, time_s)
        assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the earlier one")
    with pytest.raises(KeyboardInterrupt), VideoSink(path, width=64, height=48, fps=30) as sink:
        sink.write(smooth(0), 0.0)
        assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt
    assert path.read_bytes() == b"the earlier one"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(VideoError, match="closed"):
        sink.write(smooth(0), 1.0)


def test_unwritable_places_are_told_at_once(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc")):
        with pytest.raises(OutputError, match=r"cannot be written.*check|choose"):
            VideoSink(place / "out.mp4", width=64, height=48, fps=30)
        with pytest.raises(OutputError, match="cannot be written"):
            LabelSink(place / "labels", PALETTE)
    (tmp_path / "taken.mp4").mkdir()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        VideoSink(tmp_path / "taken.mp4", width=64, height=48, fps=30) as sink,
    ):
        sink.write(smooth(0), 0.0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "taken.mp4"]


@pytest.mark.parametrize("name", ["out.avi", "out.webm", "out"])
def test_containers_that_do_not_fit_are_listed(tmp_path, name):
    with pytest.raises(VideoError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
        VideoSink(tmp_path / name, width=64, height=48, fps=30)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("limit", [0, 2000, 15_000, 200_000])
def test_a_full_disk_leaves_no_video(tmp_path, limit, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (20, 120, 160, 3), dtype=np.uint8)
    with (
        pytest.raises(OutputError, match="free some space"),
        files_no_larger_than(limit),
        VideoSink(tmp_path / f"out.{suffix}", width=160, height=120, fps=30) as sink,
    ):
        for index, image in enumerate(noise):
            sink.write(image, index / 30)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    labels, image = LabelSink(tmp_path, PALETTE), ImageSink(tmp_path / "a.png")
    with pytest.raises(OutputError, match="free some space"), files_no_larger_than(1000):
        labels.write(noise[..., 0], "a")
    with pytest.raises(OutputError, match="free some space"), files_no_larger_than(1000):
        image.write(noise)
    assert list(tmp_path.iterdir()) == []


def test_label_maps_are_palette_images_of_class_ids(tmp_path):
    label = np.random.default_rng(1).integers(0, 256, (37, 53), dtype=np.uint8)
    LabelSink(tmp_path / "new" / "labels", PALETTE).write(label, "frame.0001")
    (path,) = (tmp_path / "new" / "labels").iterdir()
    assert path.name == "frame.0001.png"
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), label)
        assert np.array_equal(np.asarray(image.convert("RGB")), PALETTE[label])


def test_label_maps_of_few_classes_keep_their_ids(tmp_path):
    LabelSink(tmp_path, PALETTE).write(np.full((4, 6), 9, np.uint8), "a")
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[9] * 6] * 4


def test_labels_and_palettes_of_another_type_are_refused(tmp_path):
    with pytest.raises(InputError, match="palette"):
        LabelSink(tmp_path, PALETTE[:11])
    with pytest.raises(InputError, match="int64"):
        LabelSink(tmp_path, PALETTE).write(np.zeros((4, 4), np.int64), "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "jpg", "webp"])
def test_a_view_as_an_image(tmp_path, suffix):
    ImageSink(tmp_path / "new" / f"a.{suffix}").write(smooth(2))
    read = cv2.imread(str(tmp_path / "new" / f"a.{suffix}"))
    assert read is not None
    assert np.abs(read[..., ::-1].astype(int) - smooth(2)).mean() < (8 if suffix in ("jpg", "webp") else 0.01)


def test_an_image_too_large_for_its_type_is_an_error_and_not_written(tmp_path):
    # 65500 pixels is all that OpenCV writes into a JPEG.
    with pytest.raises(VideoError, match=r"70000×2 pixels do not fit into \.jpg; choose \.png"):
        ImageSink(tmp_path / "wide.jpg").write(np.zeros((2, 70000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_chosen_by_name(tmp_path):
    def draw(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.hstack([image, PALETTE[label]])

    label = np.zeros((48, 64), np.uint8)
    outputs = [tmp_path / "out.mp4", tmp_path / "labels"]
    with open_sinks(outputs, info(), draw=draw, palette=PALETTE) as opened:
        for index in range(3):
            opened.write(Frame(smooth(index), index, index / 30, f"{index:06d}"), label)
    with open_source(outputs[0]) as source:
        assert (source.info.width, source.info.height, len(list(source))) == (128, 48, 3)
    assert sorted(path.name for path in outputs[1].iterdir()) == ["000000.png", "000001.png", "000002.png"]

    with open_sinks([tmp_path / "a.png"], info("image", "b.png"), draw=draw, palette=PALETTE) as opened:
        opened.write(Frame(smooth(0), 0, 0.0, "b"), label)
    assert cv2.imread(str(tmp_path / "a.png")).shape == (48, 128, 3)

    (tmp_path / "run.v2").mkdir()
    with open_sinks([tmp_path / "run.v2"], info(), draw=draw, palette=PALETTE) as opened:
        opened.write(Frame(smooth(0), 0, 0.0, "b"), label)
    assert (tmp_path / "run.v2" / "b.png").is_file()


def test_an_exception_keeps_what_is_written_and_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"of an earlier run")
    outputs = [tmp_path / "a.mp4", tmp_path / "labels", tmp_path / "b.mkv"]
    with (
        pytest.raises(ZeroDivisionError) as caught,
        open_sinks(outputs, info(), draw=lambda image, label: image, palette=PALETTE) as opened,
    ):
        for index in range(2):
            opened.write(Frame(smooth(index), index, index / 30, f"{index}"), np.zeros((48, 64), np.uint8))
        raise ZeroDivisionError
    assert caught.value.__notes__ == [
        f"Kept: {outputs[0]} (2 frames), {outputs[1]} (2 frames), {outputs[2]} (2 frames)"
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "labels", "b.mkv"}
    assert {path.name for path in outputs[1].iterdir()} == {"0.png", "1.png"}
    for path in (outputs[0], outputs[2]):
        with open_source(path) as source:
            assert len(list(source)) == 2


@pytest.mark.parametrize("error", [ZeroDivisionError, None])
def test_without_a_frame_there_is_no_output_and_the_earlier_one_stays(tmp_path, error):
    (tmp_path / "a.mp4").write_bytes(b"of an earlier run")
    outputs = [tmp_path / "a.mp4", tmp_path / "labels", tmp_path / "b.mkv"]
    with (
        pytest.raises(error) if error else contextlib.nullcontext(),
        open_sinks(outputs, info(), draw=lambda image, label: image, palette=PALETTE),
    ):
        if error:
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"of an earlier run"


@pytest.mark.parametrize("limit", [2000, 15_000])
def test_a_full_disk_loses_the_video_and_keeps_the_label_maps(tmp_path, limit):
    noise = np.random.default_rng(0).integers(0, 256, (150, 48, 64, 3), dtype=np.uint8)
    outputs = [tmp_path / "a.mp4", tmp_path / "labels"]
    with (
        pytest.raises(OutputError, match=r"a\.mp4.*free some space") as caught,
        files_no_larger_than(limit),
        open_sinks(outputs, info(), draw=lambda image, label: image, palette=PALETTE) as opened,
    ):
        for index, image in enumerate(noise):
            opened.write(Frame(image, index, index / 30, f"{index}"), np.zeros((48, 64), np.uint8))
    maps = len(list(outputs[1].iterdir()))
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
    assert 0 < maps < 150 and caught.value.__notes__ == [f"Kept: {outputs[1]} ({maps} frames)"]


def test_closed_outputs_take_nothing(tmp_path):
    with open_sinks([tmp_path / "a.mp4"], info(), draw=lambda i, label: i, palette=PALETTE) as opened:
        opened.write(Frame(smooth(0), 0, 0.0, "0"), np.zeros((48, 64), np.uint8))
        opened.close()
        with pytest.raises(VideoError, match="closed"):
            opened.write(Frame(smooth(1), 1, 0.1, "1"), np.zeros((48, 64), np.uint8))
        assert opened.kept == {tmp_path / "a.mp4": 1}


def test_what_killed_processes_left_goes_and_what_another_writes_stays(tmp_path):
    left = [".a.part-1.mp4", ".a.part-12345.mp4", "labels/.000001.part-12345.png"]
    (tmp_path / "labels").mkdir()
    for name in (*left, ".b.part-1.mp4"):
        (tmp_path / name).touch()
    with VideoSink(tmp_path / "a.mp4", width=64, height=48, fps=30) as first:
        first.write(smooth(0), 0.0)
        with open_sinks(
            [tmp_path / "a.mp4", tmp_path / "labels"], info(), draw=lambda i, label: i, palette=PALETTE
        ) as opened:
            opened.write(Frame(smooth(0), 0, 0.0, "0"), np.zeros((48, 64), np.uint8))
        first.write(smooth(0), 1.0)
    with open_source(tmp_path / "a.mp4") as source:
        assert len(list(source)) == 2
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"a.mp4", "labels", "labels/0.png", ".b.part-1.mp4"}


def test_a_whole_map_is_one_of_the_run_and_undamaged(tmp_path):
    label = np.random.default_rng(1).integers(0, 11, (37, 53), dtype=np.uint8)
    path = tmp_path / "a.png"
    size = {"width": 53, "height": 37}
    assert not whole_map(path, **size, run="x")
    LabelSink(tmp_path, PALETTE, run="x").write(label, "a")
    assert whole_map(path, **size, run="x")
    assert not whole_map(path, **size, run="y")
    assert not whole_map(path, width=37, height=53, run="x")
    data = path.read_bytes()
    for damaged in (b"", data[:20], data[: len(data) // 2], data[:-12], data[:-60] + b"\0" * 60):
        path.write_bytes(damaged)
        assert not whole_map(path, **size, run="x")
    flipped = bytearray(data)
    flipped[len(data) - 40] ^= 1
    path.write_bytes(flipped)
    assert not whole_map(path, **size, run="x")
    LabelSink(tmp_path, PALETTE).write(label, "a")
    assert not whole_map(path, **size, run="x")
    path.unlink()
    path.mkdir()
    assert not whole_map(path, **size, run="x")


def test_outputs_that_make_no_sense_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    folder, image = info("images", str(tmp_path / "in")), info("image", str(tmp_path / "in" / "a.png"))
    for outputs, source, message in [
        ([], folder, "no output"),
        (["x.mp4", "./x.mp4"], folder, "same name"),
        ([tmp_path / "in"], folder, "overwrite the input"),
        ([tmp_path / "in" / ".." / "in"], image, "overwrite the input"),
        (["out.png"], folder, "needs a single image"),
        (["out.v2"], folder, "not a known output"),
    ]:
        with (
            pytest.raises(VideoError, match=message),
            open_sinks(outputs, source, draw=lambda i, label: i, palette=PALETTE),
        ):
            pass
