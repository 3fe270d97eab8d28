import os
import resource
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from contracts.dataset import VideoDataContract
from contracts.disk import files_no_larger_than
from contracts.tiny import TinyData, TinySequence, tiny_data
from lmanet.classes import Classes
from lmanet.errors import DataError, OutputError
from lmanet.training.frames import store_frames


class TestStoredTinyData(VideoDataContract):
    @pytest.fixture
    def data(self, tmp_path):
        return store_frames(tiny_data(), tmp_path / "frames")


@dataclass(frozen=True)
class StampedSequence(TinySequence):
    stamp: str = "1"


class Counter:
    def __init__(self):
        self.calls = []

    def __call__(self, done, total):
        self.calls.append((done, total))


def with_label(data, sequence, frame, label):
    old = data.sequences[sequence]
    labels = (*old.labels[:frame], label, *old.labels[frame + 1 :])
    sequences = list(data.sequences)
    sequences[sequence] = replace(old, labels=labels)
    return replace(data, sequences=tuple(sequences))


def with_other_pixel(data, frame):
    images = data.sequences[1].images.copy()
    images[frame, 3, 4] ^= 128
    return replace(data, sequences=(data.sequences[0], replace(data.sequences[1], images=images)))


def assert_same(stored, data):
    assert [s.name for s in stored.sequences] == [s.name for s in data.sequences]
    for kept, source in zip(stored.sequences, data.sequences, strict=True):
        assert kept.frame_names == source.frame_names
        assert kept.spacing_s == source.spacing_s
        for i in range(len(source.frame_names)):
            np.testing.assert_array_equal(kept.image(i), source.image(i))
            if source.label(i) is None:
                assert kept.label(i) is None
            else:
                np.testing.assert_array_equal(kept.label(i), source.label(i))


def test_stored_frames_equal_the_source_and_are_reused(tmp_path):
    data = with_label(tiny_data(), 1, 2, None)
    first, second = Counter(), Counter()
    stored = store_frames(data, tmp_path / "frames", on_frame=first)
    assert_same(stored, data)
    assert first.calls == [(i, 6) for i in range(1, 7)]
    again = store_frames(data, tmp_path / "frames", on_frame=second)
    assert_same(again, data)
    assert second.calls == []
    assert again.fingerprint == stored.fingerprint
    assert isinstance(again.sequences[0].image(0), np.memmap)


@pytest.mark.parametrize("without", [(0,), (1, 2), (0, 1, 2)])
def test_frames_without_label_take_no_room_for_one(tmp_path, without):
    data = tiny_data()
    for frame in without:
        data = with_label(data, 1, frame, None)
    assert_same(store_frames(data, tmp_path / "frames"), data)
    assert_same(store_frames(data, tmp_path / "frames"), data)
    assert (tmp_path / "frames/labels.bin").stat().st_size == (6 - len(without)) * 48 * 64


def test_data_without_any_label_are_stored(tmp_path):
    data = tiny_data(sequences=1)
    data = replace(data, sequences=(replace(data.sequences[0], labels=(None,) * 3),))
    assert_same(store_frames(data, tmp_path / "frames"), data)


def test_more_sequences_than_a_process_may_have_open_files(tmp_path):
    data = tiny_data(sequences=40, frames=2, size=(8, 8))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, hard))
    try:
        assert_same(store_frames(data, tmp_path / "frames"), data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="free some space"), files_no_larger_than(20_000):
        store_frames(tiny_data(), tmp_path / "frames")
    assert list(tmp_path.iterdir()) == []


def test_sequences_may_differ_in_size(tmp_path):
    small, large = tiny_data(size=(16, 24)), tiny_data(size=(24, 32))
    data = TinyData((small.sequences[0], large.sequences[1]))
    assert_same(store_frames(data, tmp_path / "frames"), data)


@pytest.mark.parametrize("change", ["image", "label", "label gone"])
def test_fingerprint_tells_any_change_of_pixels(tmp_path, change):
    data = tiny_data()
    if change == "image":
        other = with_other_pixel(data, 2)
    else:
        label = None if change == "label gone" else 1 - np.minimum(data.sequences[1].labels[2], 1)
        other = with_label(data, 1, 2, label)
    assert store_frames(data, tmp_path / "a").fingerprint != store_frames(other, tmp_path / "b").fingerprint


def test_a_killed_call_leaves_nothing(tmp_path):
    def kill(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_frames(tiny_data(), tmp_path / "frames", on_frame=kill)
    assert list(tmp_path.iterdir()) == []
    assert_same(store_frames(tiny_data(), tmp_path / "frames"), tiny_data())


def test_what_a_killed_process_of_the_same_id_left_is_no_hindrance(tmp_path):
    left = tmp_path / f".frames.part-{os.getpid()}"
    left.mkdir()
    (left / "0000-images.npy").write_bytes(b"half")
    assert_same(store_frames(tiny_data(), tmp_path / "frames"), tiny_data())
    assert not left.exists()


def test_frames_of_different_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"s1, frame 002: image \(48, 64, 3\), label \(8, 8\).*one size"):
        store_frames(with_label(tiny_data(), 1, 2, np.zeros((8, 8), np.uint8)), tmp_path / "frames")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        tiny_data(seed=1),
        tiny_data(frames=2),
        tiny_data(sequences=1),
        with_other_pixel(tiny_data(), 0),
        with_label(tiny_data(), 1, 0, None),
        with_label(tiny_data(), 0, 0, np.zeros((48, 64), np.uint8)),
        replace(tiny_data(), name="tiny/val"),
    ],
    ids=["seed", "fewer frames", "fewer sequences", "one pixel", "label gone", "label", "name"],
)
def test_changed_data_is_stored_anew(tmp_path, other):
    before = store_frames(tiny_data(), tmp_path / "frames")
    first = before.sequences[0].image(0)
    kept = first.copy()
    assert_same(store_frames(other, tmp_path / "frames"), other)
    # A process that still has the old arrays open goes on reading them.
    np.testing.assert_array_equal(first, kept)


def test_a_stamp_tells_of_changes_beyond_the_first_frame(tmp_path):
    def stamped(data, stamp):
        return replace(
            data,
            sequences=tuple(
                StampedSequence(s.name, s.images, s.labels, s.spacing_s, stamp) for s in data.sequences
            ),
        )

    data, count = tiny_data(), Counter()
    store_frames(stamped(data, "1"), tmp_path / "frames")
    store_frames(stamped(data, "1"), tmp_path / "frames", on_frame=count)
    assert count.calls == []
    other = stamped(with_other_pixel(data, 2), "2")
    assert_same(store_frames(other, tmp_path / "frames"), other)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match=r"needs 0\.0 GB, 0\.0 GB are free: free some space"):
        store_frames(tiny_data(), tmp_path / "frames")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_uint8_is_refused(tmp_path):
    wide = with_label(tiny_data(), 1, 2, np.zeros((48, 64), np.int64))
    with pytest.raises(DataError, match="s1, frame 002: image of uint8, label of int64: expected uint8"):
        store_frames(wide, tmp_path / "frames")
    data = tiny_data()
    images = data.sequences[0].images.astype(np.float32)
    with pytest.raises(DataError, match="s0, frame 000: image of float32, label of uint8: expected uint8"):
        store_frames(
            replace(data, sequences=(replace(data.sequences[0], images=images),)), tmp_path / "frames"
        )
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Lying(TinySequence):
    said: bool = False

    @property
    def labelled(self):
        return (self.said,) * len(self.images)


@pytest.mark.parametrize(("said", "word"), [(False, "there"), (True, "missing")])
def test_labels_are_where_the_sequence_says(tmp_path, said, word):
    own = tiny_data().sequences[0]
    labels = (None,) * 3 if said else own.labels
    data = replace(tiny_data(), sequences=(Lying(own.name, own.images, labels, own.spacing_s, said),))
    with pytest.raises(DataError, match=f"a label is {word}, but `labelled` says {said}"):
        store_frames(data, tmp_path / "frames")


def test_the_fingerprint_tells_sequences_apart(tmp_path):
    (whole,) = tiny_data(sequences=1, frames=4).sequences
    halves = tuple(
        replace(whole, name=name, images=whole.images[part], labels=whole.labels[part])
        for name, part in (("a", slice(2)), ("b", slice(2, 4)))
    )
    one, two = (
        store_frames(replace(tiny_data(), sequences=sequences), tmp_path / name)
        for name, sequences in (("one", (whole,)), ("two", halves))
    )
    assert one.fingerprint != two.fingerprint


def test_labels_are_read_anew_for_other_classes(tmp_path):
    def stamped(data):
        own = data.sequences[0]
        return replace(
            data, sequences=(StampedSequence(own.name, own.images, own.labels, own.spacing_s, "1"),)
        )

    data, count = stamped(tiny_data()), Counter()
    store_frames(data, tmp_path / "frames")
    names = Classes(("sky", "road", "truck"), data.classes.palette)
    store_frames(replace(data, classes=names), tmp_path / "frames", on_frame=count)
    assert count.calls
