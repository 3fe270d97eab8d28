"""The pipeline: order, overlap, bounded memory, and an end without hanging whatever fails."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from lmanet.errors import InputError, VideoError
from lmanet.video import Frame, Source, VideoSink, open_source, run_pipeline


def frames(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(np.full((4, 4, 3), index % 256, np.uint8), index, index / 30, f"{index:06d}")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lmanet")] == []


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_every_frame_goes_through_in_order(depth):
    written: list[tuple[int, int]] = []
    seen: list[int] = []
    count = run_pipeline(
        frames(25),
        lambda frame: int(frame.image[0, 0, 0]) * 2,
        [lambda frame, result: written.append((frame.index, result))] * 2,
        depth=depth,
        progress=lambda frame: seen.append(frame.index),
    )
    assert count == 25
    assert written == [(index, index * 2) for index in range(25) for _ in range(2)]
    assert seen == list(range(25))


def test_an_empty_source_gives_no_frames():
    assert run_pipeline(frames(0), lambda frame: 0, []) == 0


def test_the_three_stages_overlap():
    # Each stage waits until the two others work on another frame: only stages that overlap get through.
    meeting = threading.Barrier(3, timeout=20)

    def source() -> Iterator[Frame]:
        for frame in frames(8):
            if frame.index >= 2:
                meeting.wait()
            yield frame

    def process(frame: Frame) -> int:
        if 1 <= frame.index < 7:
            meeting.wait()
        return frame.index

    def write(frame: Frame, _result: int) -> None:
        if frame.index < 6:
            meeting.wait()

    assert run_pipeline(source(), process, [write]) == 8
    assert not meeting.broken


def test_memory_is_bounded():
    taken = 0
    written = 0
    most = 0

    def source() -> Iterator[Frame]:
        nonlocal taken, most
        for frame in frames(200):
            taken += 1
            most = max(most, taken - written)
            yield frame

    def write(_frame: Frame, _result: int) -> None:
        nonlocal written
        written += 1

    run_pipeline(source(), lambda frame: 0, [write], depth=2)
    # Two queues of 2, and one frame in the hands of each stage; the writer's is counted after it is done.
    assert most <= 2 * 2 + 3


class Trouble(Exception):
    pass


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("at", [0, 1, 30])
@pytest.mark.parametrize("stage", ["source", "process", "write", "progress"])
def test_a_failure_of_any_stage_ends_all_and_is_raised(stage, at, depth):
    def fail(name: str, index: int) -> None:
        if stage == name and index == at:
            raise Trouble(name)

    def source() -> Iterator[Frame]:
        for frame in frames(1000):
            fail("source", frame.index)
            yield frame

    with pytest.raises(Trouble, match=stage):
        run_pipeline(
            source(),
            lambda frame: fail("process", frame.index),
            [lambda frame, _: fail("write", frame.index)],
            depth=depth,
            progress=lambda frame: fail("progress", frame.index),
        )


def test_the_last_frame_may_fail_in_the_writer():
    def write(frame: Frame, _result: int) -> None:
        if frame.index == 9:
            raise Trouble

    with pytest.raises(Trouble):
        run_pipeline(frames(10), lambda frame: 0, [write])


def test_an_interrupt_ends_an_endless_stream_and_discards_the_video(tmp_path):
    def process(frame: Frame) -> np.ndarray:
        if frame.index == 20:
            raise KeyboardInterrupt
        return frame.image

    with (
        pytest.raises(KeyboardInterrupt),
        VideoSink(tmp_path / "out.mp4", width=4, height=4, fps=30) as sink,
    ):
        run_pipeline(frames(10**9), process, [lambda frame, image: sink.write(image, frame.time_s)])
    assert list(tmp_path.iterdir()) == []


def test_from_file_to_file(tmp_path):
    with VideoSink(tmp_path / "in.mp4", width=64, height=48, fps=30) as sink:
        for index in range(30):
            sink.write(np.full((48, 64, 3), 8 * index, np.uint8), index / 30)
    with (
        open_source(tmp_path / "in.mp4") as source,
        VideoSink(
            tmp_path / "out.mp4", width=64, height=48, fps=source.info.fps, time_base=source.info.time_base
        ) as sink,
    ):
        run_pipeline(
            source, lambda frame: 255 - frame.image, [lambda frame, image: sink.write(image, frame.time_s)]
        )
    with open_source(tmp_path / "in.mp4") as first, open_source(tmp_path / "out.mp4") as second:
        pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 30
    for before, after in pairs:
        assert before.time_s == after.time_s
        assert np.abs(before.image.astype(int) + after.image - 255).max() <= 8


def test_a_source_that_fails_on_the_way_discards_the_video(tmp_path):
    def source() -> Iterator[Frame]:
        yield from frames(5)
        raise VideoError("b.png: the image is 3×3")

    with (
        pytest.raises(VideoError, match=r"b\.png"),
        VideoSink(tmp_path / "out.mp4", width=4, height=4, fps=30) as sink,
    ):
        run_pipeline(source(), lambda f: f.image, [lambda f, image: sink.write(image, f.time_s)])
    assert list(tmp_path.iterdir()) == []


def test_what_was_read_before_a_failure_is_written():
    written: list[int] = []

    def source() -> Iterator[Frame]:
        yield from frames(37)
        raise Trouble

    with pytest.raises(Trouble):
        run_pipeline(source(), lambda frame: 0, [lambda frame, _: written.append(frame.index)])
    assert written == list(range(37))


@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_what_was_processed_before_a_failure_is_written(error):
    written: list[int] = []

    def process(frame: Frame) -> int:
        if frame.index == 37:
            raise error
        return 0

    with pytest.raises(error):
        run_pipeline(frames(10**9), process, [lambda frame, _: written.append(frame.index)])
    assert written == list(range(37))


class Endless(Source):
    """Frames until it is stopped; from frame `hangs_at` on it hangs in reading, as cameras do."""

    def __init__(self, hangs_at: int = 10**9) -> None:
        super().__init__()
        self.hangs_at, self.goes_on = hangs_at, threading.Event()
        self.closed = False

    def _frames(self) -> Iterator[Frame]:
        for frame in frames(10**9):
            if frame.index >= self.hangs_at:
                self.goes_on.wait()
            yield frame

    def close(self) -> None:
        self.closed = True


def test_a_stopped_source_ends_the_run_with_what_is_processed():
    processed: list[int] = []
    written: list[int] = []
    with Endless() as source:

        def process(frame: Frame) -> int:
            processed.append(frame.index)
            if frame.index == 20:
                source.stop()
            return 0

        count = run_pipeline(source, process, [lambda frame, _: written.append(frame.index)])
    assert source.closed
    assert processed == written == list(range(21))
    assert count == 21


def test_a_source_stopped_before_gives_nothing():
    with Endless() as source:
        source.stop()
        assert run_pipeline(source, lambda frame: 0, []) == 0


def test_a_source_that_hangs_is_left_and_closed_when_it_goes_on():
    with Endless(hangs_at=5) as source:

        def progress(frame: Frame) -> None:
            if frame.index == 4:
                threading.Timer(0.1, source.stop).start()

        assert run_pipeline(source, lambda frame: 0, [], progress=progress) == 5
    assert not source.closed  # what it reads from must not be closed while it reads
    source.goes_on.set()
    for thread in threading.enumerate():
        if thread.name == "lmanet-read":
            thread.join(20)
    assert source.closed


def test_queues_need_room():
    with pytest.raises(InputError, match="depth is 0"):
        run_pipeline(frames(1), lambda frame: 0, [], depth=0)
