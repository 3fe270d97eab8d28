"""The synthetic street drive: what it promises as a data set, and what its degradations do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from contracts.dataset import VideoDataContract
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.data.protocols import Sequence, VideoData
from lmanet.data.street.canvas import depth_metres
from lmanet.data.street.degrade import Spoiler
from lmanet.data.street.render import Scene, render
from lmanet.data.street.world import World
from lmanet.data.synthetic import Degradation, Split, StreetConfig, StreetSequence, SyntheticDrive
from lmanet.errors import InputError

SMALL = StreetConfig(frames=12, size=(72, 96), seed=3)
KINDS = ("noise", "motion_blur", "exposure_flicker", "fog", "occlusion")


def only(kind: str, strength: float = 1.0) -> Degradation:
    return replace(Degradation.none(), **{kind: strength})


class TestContract(VideoDataContract):
    @pytest.fixture
    def data(self) -> SyntheticDrive:
        return SyntheticDrive(split="test", sequences=2, frames=5, size=(45, 61))


def test_keeps_the_protocols() -> None:
    data: VideoData = SyntheticDrive(split="val", sequences=2, frames=3, size=(48, 64))
    assert data.name == "synthetic/val"
    assert data.classes is CAMVID_CLASSES
    assert len({sequence.name for sequence in data.sequences}) == 2
    sequence: Sequence = data.sequences[0]
    assert sequence.frame_names == ("000000", "000001", "000002")
    assert sequence.spacing_s == pytest.approx(1 / 15)
    image, label = sequence.image(2), sequence.label(2)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    assert label is not None and label.shape == (48, 64) and label.dtype == np.uint8


def test_default_lengths() -> None:
    expected: dict[Split, tuple[int, int]] = {"train": (60, 24), "val": (10, 48), "test": (10, 48)}
    for split, (count, frames) in expected.items():
        sequences = SyntheticDrive(split=split).sequences
        assert len(sequences) == count
        assert {len(sequence.frame_names) for sequence in sequences} == {frames}


def test_splits_share_no_seed() -> None:
    seeds = [s.config.seed for split in get_args(Split) for s in SyntheticDrive(split=split).sequences]
    assert len(seeds) == len(set(seeds)) == 80


def test_same_seed_gives_the_same_frames_in_any_order() -> None:
    forward, backward = StreetSequence(SMALL), StreetSequence(SMALL)
    images = [forward.image(i) for i in range(12)]
    labels = [forward.label(i) for i in range(12)]
    for i in (11, 4, 0, 7):
        assert np.array_equal(backward.label(i), labels[i])
        assert np.array_equal(backward.image(i), images[i])


def test_another_seed_gives_another_street() -> None:
    other = StreetSequence(replace(SMALL, seed=4))
    assert (other.label(0) != StreetSequence(SMALL).label(0)).mean() > 0.05


def test_what_is_returned_may_be_written_to() -> None:
    sequence = StreetSequence(replace(SMALL, degradation=Degradation.none()))
    image, label = sequence.image(0), sequence.label(0)
    kept_image, kept_label = image.copy(), label.copy()
    image[:] = 0
    label[:] = 0
    assert np.array_equal(sequence.image(0), kept_image)
    assert np.array_equal(sequence.label(0), kept_label)


@pytest.mark.parametrize("size", [(97, 131), (16, 16), (40, 200), (200, 40), (360, 480)])
def test_any_size(size: tuple[int, int]) -> None:
    sequence = StreetSequence(replace(SMALL, size=size))
    assert sequence.image(5).shape == (*size, 3)
    assert sequence.label(5).shape == size
    assert sequence.label(5).max() < len(CAMVID_CLASSES)


def test_every_class_is_there_and_shares_are_those_of_driving() -> None:
    counts = np.zeros(256)
    for sequence in SyntheticDrive(split="val", size=(90, 120)).sequences:
        for i in range(0, 48, 16):
            counts += np.bincount(sequence.label(i).ravel(), minlength=256)
    shares = dict(zip(CAMVID_CLASSES.names, counts / counts.sum(), strict=False))
    assert counts[len(CAMVID_CLASSES) :].sum() == 0
    assert min(shares.values()) > 0.002
    for name, low, high in (("road", 0.2, 0.38), ("building", 0.12, 0.35), ("tree", 0.06, 0.25)):
        assert low < shares[name] < high, name


def test_neighbouring_frames_differ_a_little() -> None:
    sequence = StreetSequence(replace(SMALL, frames=8, size=(120, 160)))
    labels = [sequence.label(i) for i in range(8)]
    changed = [(a != b).mean() for a, b in pairwise(labels)]
    assert min(changed) > 0.001 and max(changed) < 0.2
    assert (labels[0] != labels[7]).mean() > max(changed)


def test_frame_rate_changes_the_moments_not_the_street() -> None:
    slow = StreetSequence(replace(SMALL, fps=5.0))
    fast = StreetSequence(replace(SMALL, fps=15.0))
    assert np.array_equal(slow.label(2), fast.label(6))
    assert not np.array_equal(slow.label(2), fast.label(2))


def test_labels_do_not_know_the_degradation() -> None:
    clean = StreetSequence(replace(SMALL, degradation=Degradation.none()))
    worst = StreetSequence(replace(SMALL, degradation=Degradation(1, 1, 1, 1, 1)))
    for i in (0, 6):
        worst.image(i)
        assert np.array_equal(clean.label(i), worst.label(i))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render(World(3), 1.0, 120, 160)


def spoiled(scene: Scene, degradation: Degradation, frames: range) -> list[np.ndarray]:
    """One still scene under the degradations of many moments: cheaper than drawing a scene for each."""
    spoiler = Spoiler(degradation, 3, *scene.label.shape)
    return [spoiler.apply(scene.image, scene.depth, i, i / 15) for i in frames]


def changes(scene: Scene, frames: list[np.ndarray]) -> np.ndarray:
    """How much each pixel of each frame differs from the clean scene: (frames, H, W), 0 to 255."""
    return np.stack([np.abs(frame.astype(int) - scene.image).max(2) for frame in frames])


def test_strength_0_leaves_the_clean_frame(scene: Scene) -> None:
    (frame,) = spoiled(scene, Degradation.none(), range(1))
    assert np.array_equal(frame, scene.image)
    sequence = StreetSequence(replace(SMALL, degradation=Degradation.none()))
    clean = render(World(SMALL.seed), 4 / SMALL.fps, *SMALL.size)
    assert np.array_equal(sequence.image(4), clean.image)
    assert np.array_equal(sequence.label(4), clean.label)


@pytest.mark.parametrize("kind", KINDS)
def test_each_degradation_changes_frames_more_the_stronger_it_is(kind: str, scene: Scene) -> None:
    before = scene.image.copy()
    weak, strong = (
        changes(scene, spoiled(scene, only(kind, strength), range(150))).mean() for strength in (0.3, 1.0)
    )
    assert 0 < weak < strong
    assert np.array_equal(scene.image, before)


@pytest.mark.parametrize("kind", ["motion_blur", "exposure_flicker", "occlusion"])
def test_bad_frames_lie_among_good_ones(kind: str, scene: Scene) -> None:
    per_frame = changes(scene, spoiled(scene, only(kind, 0.5), range(150))).mean((1, 2))
    assert np.median(per_frame) < 0.5 * per_frame.max()


def test_occlusions_hide_a_part_for_some_frames_and_move(scene: Scene) -> None:
    hidden = changes(scene, spoiled(scene, only("occlusion", 0.5), range(300))) > 40
    shares = hidden.mean((1, 2))
    assert 0.2 < (shares == 0).mean() < 0.8
    assert 0.02 < np.median(shares[shares > 0]) < 0.25
    assert shares.max() < 0.5
    both = (shares[1:] > 0) & (shares[:-1] > 0)
    moved = (hidden[1:] != hidden[:-1]).mean((1, 2))
    assert both.any() and (moved[both] > 0).mean() > 0.9


def test_fog_takes_contrast_from_the_far_first(scene: Scene) -> None:
    change = changes(scene, spoiled(scene, only("fog"), range(0, 150, 10))).mean(0)
    metres = depth_metres()[scene.depth]
    road = scene.label == CAMVID_CLASSES.names.index("road")
    assert change[road & (metres > 20)].mean() > 2 * change[road & (metres < 6)].mean()


def test_noise_differs_between_frames(scene: Scene) -> None:
    a, b = spoiled(scene, only("noise"), range(2))
    assert (a != b).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"size": (8, 64)}, "size is"),
        ({"size": (64, 64, 3)}, "size is"),
        ({"fps": 0.0}, "fps is"),
        ({"fps": float("nan")}, "fps is"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_refuses_bad_configuration(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreetConfig(**change)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_refuses_bad_strengths(kind: str, value: float) -> None:
    with pytest.raises(InputError, match=kind):
        only(kind, value)


def test_refuses_unknown_splits_counts_and_frames() -> None:
    with pytest.raises(InputError, match="train, val, test"):
        SyntheticDrive(split="dev")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 sequences"):
        SyntheticDrive(sequences=0)
    sequence = StreetSequence(SMALL)
    for index in (-1, 12):
        with pytest.raises(InputError, match="give 0 to 11"):
            sequence.image(index)
