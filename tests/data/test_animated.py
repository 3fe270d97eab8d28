"""Single labelled frames set in motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from contracts.tiny import CLASSES
from lmanet.classes import VOID
from lmanet.data.animated import Animation, animated
from lmanet.errors import InputError

STILL = Animation(frames=5, speed=(0.0, 0.0), zoom=1.0, exposure=0.0, noise=0.0)
"""Nothing moves, and nothing is added."""

THINGS = replace(
    STILL, speed=(1.0, 1.0), approach=0.0, pan_px=0.0, tremor_px=0.0, thing_scale=0.0, thing_px=2.0
)
"""Things move, the camera does not."""


@dataclass(frozen=True)
class Frames:
    """Frames that do not belong together, every second labelled."""

    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray | None, ...]
    name: str = "frames"
    spacing_s: float = 1.0
    classes = CLASSES

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(f"{n}" for n in range(len(self.images)))

    @property
    def labelled(self) -> tuple[bool, ...]:
        return tuple(label is not None for label in self.labels)

    @property
    def sequences(self) -> tuple[Frames, ...]:
        return (self,)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def label(self, index: int) -> np.ndarray | None:
        return self.labels[index]


def scene(*boxes: tuple[int, int, int, int]) -> Frames:
    """Sky over road, and cars, bright boxes of rows and columns."""
    label = np.zeros((64, 96), np.uint8)
    label[30:] = 1
    for top, below, left, right in boxes:
        label[top:below, left:right] = 2
    rng = np.random.default_rng(0)
    image = np.array([[60, 60, 120], [90, 90, 90], [250, 250, 250]], np.uint8)[label]
    image = (image + rng.integers(0, 5, image.shape)).astype(np.uint8)
    return Frames((image, image, image), (label, None, label))


def test_each_labelled_frame_is_a_clip_of_its_own():
    data = animated(scene((20, 40, 30, 50)), Animation(frames=4))
    assert [s.name for s in data.sequences] == ["frames-0-0", "frames-2-1"]
    assert data.classes == CLASSES and data.name == "frames, set in motion"
    for clip in data.sequences:
        assert clip.labelled == (True,) * 4 == (True,) * len(clip.frame_names)
        for n in range(4):
            assert clip.image(n).shape == (64, 96, 3) and clip.image(n).dtype == np.uint8
            assert clip.label(n).shape == (64, 96) and clip.label(n).dtype == np.uint8
    assert len(animated(scene(), every=2).sequences) == 1
    first, second = (s.image(2) for s in data.sequences)
    assert not np.array_equal(first, second), "each moves by itself"


def test_where_nothing_moves_the_frame_stays_what_it_is():
    source = scene((20, 40, 30, 50))
    clip = animated(source, STILL).sequences[0]
    for n in (0, 4):
        inside = np.ones((64, 96), bool)
        inside[17:43, 27:53] = False  # edges of things are soft
        inside[22:38, 32:48] = True
        assert np.array_equal(clip.image(n)[inside], source.image(0)[inside])
        assert np.array_equal(clip.label(n), source.label(0))


def test_things_move_and_uncover_what_is_behind_them():
    source = scene((20, 40, 30, 50))
    clip = animated(source, THINGS, seed=3).sequences[0]
    before, after = clip.label(0) == 2, clip.label(4) == 2
    assert all(390 < x.sum() <= 400 for x in (before, after)), "it keeps its size, but for its corners"
    (top, left), (low, right) = (np.argwhere(x).min(0) for x in (before, after))
    assert (top, left) != (low, right), "it has moved"
    for n, shown in ((0, before), (4, after)):
        bright = clip.image(n).mean(-1) > 200
        assert (bright != shown).mean() < 0.02, "image and label go together"
    uncovered = before & ~after
    assert set(clip.label(4)[uncovered]) <= {0, 1}
    assert (clip.image(4)[uncovered].mean(-1) < 150).mean() > 0.8


def test_the_nearer_thing_is_in_front():
    source = scene((20, 36, 10, 30), (28, 50, 25, 45))
    labels = source.labels[0].copy()
    labels[20:36, 10:25] = 1  # a piece of road above the other, further away
    labels[20:28, 10:30] = 1
    clip = animated(replace(source, labels=(labels, None, labels)), THINGS, seed=1).sequences[0]
    for n in range(5):
        car = clip.label(n) == 2
        assert 430 < car.sum() <= 22 * 20, "nothing covers what stands lowest"


def test_the_camera_s_motion_is_void_where_nothing_was_seen():
    pan = replace(STILL, speed=(1.0, 1.0), approach=0.0, pan_px=30.0, tremor_px=0.0)
    clip = animated(scene(), pan).sequences[0]
    assert not (clip.label(0) == VOID).any() and (clip.label(4) == VOID).mean() > 0.1


def test_void_stays_void_and_a_frame_of_things_alone_has_no_background():
    source = scene()
    label = np.full((64, 96), VOID, np.uint8)
    void = animated(replace(source, labels=(label, None, label)), THINGS).sequences[0]
    assert (void.label(3) == VOID).all()
    label = np.kron([[0, 1, 0, 1], [2, 3, 2, 3]] * 2, np.ones((16, 24))).astype(np.uint8)
    tiles = animated(replace(source, labels=(label, None, label)), THINGS).sequences[0]
    assert (tiles.label(0) == label).mean() > 0.9 and (tiles.label(4) == VOID).any()


def test_the_same_seed_gives_the_same_frames_in_any_order():
    one, other = (animated(scene((20, 40, 30, 50)), seed=5).sequences[0] for _ in range(2))
    frames = [one.image(n) for n in (0, 7, 3)]
    assert all(
        np.array_equal(other.image(n), frame) for n, frame in zip((3, 7), (frames[2], frames[1]), strict=True)
    )
    third = animated(scene((20, 40, 30, 50)), seed=6).sequences[0]
    assert not np.array_equal(third.image(7), frames[1])


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"zoom": 0.9}, {"speed": (2.0, 1.0)}])
def test_ranges_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="expected at least 1"):
        Animation(**wrong)
