from dataclasses import replace

import numpy as np
import pytest

from lmanet.classes import VOID
from lmanet.errors import InputError
from lmanet.training.augment import PAPER_AUGMENTATION, Augmentation, Draw, draw

SIZE = (40, 56)
FLIPPED = Draw(SIZE, (-1, 0, SIZE[1] - 1, 0, 1, 0))


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(seed=0, size=SIZE):
    return rng(seed).integers(0, 256, (*size, 3), np.uint8)


def blocks(size=(96, 128), side=16):
    """A label of square blocks, and an image whose every channel says which label lies there."""
    rows, columns = (np.arange(n) // side for n in size)
    label = ((rows[:, None] * 3 + columns) % 11).astype(np.uint8)
    return np.repeat(label[..., None] * 20, 3, 2), label


@pytest.mark.parametrize("one", [Draw(SIZE), draw(Augmentation(flip=False), SIZE, rng())])
def test_identity_is_exact(one):
    image, label = picture(), picture()[..., 0]
    np.testing.assert_array_equal(one.image(image), image)
    np.testing.assert_array_equal(one.label(label), label)


def test_flip_alone_mirrors_exactly():
    image, label = picture(), picture()[..., 0]
    np.testing.assert_array_equal(FLIPPED.image(image), image[:, ::-1])
    np.testing.assert_array_equal(FLIPPED.label(label), label[:, ::-1])


def test_flip_happens_in_half_of_the_draws():
    generator = rng()
    draws = [draw(Augmentation(), SIZE, generator) for _ in range(400)]
    flipped = [d for d in draws if d.matrix == FLIPPED.matrix]
    assert {d.matrix for d in draws} == {FLIPPED.matrix, Draw(SIZE).matrix}
    assert 150 < len(flipped) < 250


def test_shift_moves_by_whole_pixels_and_leaves_void():
    image, label = picture(), np.minimum(picture()[..., 0], 10)
    shifted = Draw(SIZE, (1, 0, 2, 0, 1, -1))
    np.testing.assert_array_equal(shifted.image(image)[1:, :-2], image[:-1, 2:])
    expected = np.full(SIZE, VOID)
    expected[1:, :-2] = label[:-1, 2:]
    np.testing.assert_array_equal(shifted.label(label), expected)


def test_paper_shifts_by_up_to_two_pixels():
    generator = rng()
    matrices = [draw(replace(PAPER_AUGMENTATION, flip=False), SIZE, generator).matrix for _ in range(400)]
    assert {m[2] for m in matrices} == {m[5] for m in matrices} == {-2, -1, 0, 1, 2}
    assert {(m[0], m[1], m[3], m[4]) for m in matrices} == {(1, 0, 0, 1)}


@pytest.mark.parametrize("crop", [(24, 32), (40, 56), (64, 80)])
@pytest.mark.parametrize("scale", [(0.5, 0.5), (1, 1), (1.7, 1.7)])
def test_output_has_the_size_of_the_crop(crop, scale):
    one = draw(Augmentation(crop=crop, scale=scale), SIZE, rng())
    assert one.image(picture()).shape == (*crop, 3)
    assert one.label(picture()[..., 0]).shape == crop


def test_crop_lies_inside_where_it_fits():
    generator = rng()
    for _ in range(50):
        label = draw(Augmentation(crop=(24, 32), scale=(0.9, 1.5)), SIZE, generator).label(
            np.zeros(SIZE, np.uint8)
        )
        assert np.all(label == 0)


def test_what_lies_outside_is_void_and_the_whole_frame_inside():
    one = draw(Augmentation(crop=(80, 112), flip=False), SIZE, rng())
    label = one.label(np.zeros(SIZE, np.uint8))
    assert np.sum(label == 0) == pytest.approx(SIZE[0] * SIZE[1], rel=0.06)
    assert set(np.unique(label)) == {0, VOID}


@pytest.mark.parametrize("seed", range(8))
def test_image_and_label_stay_aligned(seed):
    image, label = blocks()
    one = draw(Augmentation(crop=(72, 88), scale=(0.8, 1.7), flip=True), label.shape, rng(seed))
    pixels, ids = one.image(image)[..., 0].astype(int), one.label(label)
    # Where all neighbours agree no interpolation blurs the border, so the image says the label exactly.
    inside = np.ones((70, 86), bool)
    for dy in range(3):
        for dx in range(3):
            inside &= ids[dy : dy + 70, dx : dx + 86] == ids[1:71, 1:87]
    inside &= ids[1:71, 1:87] != VOID
    assert inside.mean() > 0.4
    np.testing.assert_array_equal(pixels[1:71, 1:87][inside], ids[1:71, 1:87][inside] * 20)


def test_borders_of_image_and_label_fall_together():
    image, label = blocks()
    one = draw(Augmentation(scale=(1.5, 1.5), flip=False), label.shape, rng(3))
    pixels, ids = one.image(image)[..., 0].astype(int), one.label(label).astype(int)
    # Rounding to the nearest label differs from linear weights by half a pixel at most, to both sides alike.
    assert np.mean(np.abs(pixels - ids * 20) > 0) < 0.15
    assert abs(np.mean(pixels - ids * 20)) < 0.5


def test_a_draw_gives_the_same_pixels_whenever_it_is_applied():
    ranges = Augmentation(crop=(24, 32), scale=(0.7, 1.6), gain=0.2, gamma=0.2, noise=9.0, blur_px=2.0)
    one, other = draw(ranges, SIZE, rng(1)), draw(ranges, SIZE, rng(2))
    first = one.image(picture())
    assert not np.array_equal(other.image(picture()), first)
    np.testing.assert_array_equal(one.image(picture()), first)
    assert draw(ranges, SIZE, rng(1)) == one


def test_values_stay_in_their_ranges():
    ranges = Augmentation(scale=(0.5, 2.0), gain=0.2, gamma=0.3, noise=6.0, blur_px=1.5)
    generator = rng()
    draws = [draw(ranges, SIZE, generator) for _ in range(300)]
    gains = np.array([d.gain for d in draws])
    assert 0.8 * 0.9 <= gains.min() < 0.85
    assert 1.15 < gains.max() <= 1.2 * 1.1
    gammas = np.array([d.gamma for d in draws])
    assert 0.7 <= gammas.min() < 0.75
    assert 1.25 < gammas.max() <= 1.3
    zooms = np.array([1 / abs(d.matrix[0]) for d in draws])
    assert 0.5 <= zooms.min() < 0.55
    assert 1.8 < zooms.max() <= 2.0
    assert 0 <= min(d.noise for d in draws) < max(d.noise for d in draws) <= 6
    assert min(d.blur_px for d in draws) == 0 < max(d.blur_px for d in draws) <= 1.5


def test_gain_and_gamma_change_the_values_as_they_say():
    grey = np.full((4, 4, 3), 100, np.uint8)
    np.testing.assert_allclose(Draw((4, 4), gain=(1.5, 1.0, 3.0)).image(grey)[0, 0], (150, 100, 255), atol=1)
    expected = 255 * (100 / 255) ** 1.4
    np.testing.assert_allclose(Draw((4, 4), gamma=1.4).image(grey)[0, 0], expected, atol=1)


def test_noise_has_its_standard_deviation():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = Draw((200, 200), noise=8.0, seed=5).image(grey).astype(float)
    for channel in range(3):
        assert noisy[..., channel].std() == pytest.approx(8, rel=0.03)
        assert noisy[..., channel].mean() == pytest.approx(128, abs=0.2)
    assert abs(np.corrcoef(noisy.reshape(-1, 3).T)[0, 1]) < 0.02


@pytest.mark.parametrize("scale", [(0, 1), (2, 1), (-1, 1)])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(InputError, match="expected 0 < lowest <= highest"):
        Augmentation(scale=scale)


def test_shrinking_takes_fine_detail_and_leaves_flat_colour():
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    shrunk = Draw((48, 64), shrink=4.0).image(stripes)
    assert shrunk.shape == stripes.shape and np.ptp(shrunk) < 20
    flat = np.full((48, 64, 3), 90, np.uint8)
    np.testing.assert_array_equal(Draw((48, 64), shrink=4.0).image(flat), flat)


def test_a_patch_is_grey_and_the_label_stays():
    image = picture()
    hidden = Draw(image.shape[:2], patch=(2, 3, 5, 7)).image(image)
    assert (hidden[2:7, 3:10] == 127).all()
    hidden[2:7, 3:10] = image[2:7, 3:10]
    np.testing.assert_array_equal(hidden, image)
    np.testing.assert_array_equal(
        Draw(image.shape[:2], patch=(2, 3, 5, 7)).label(image[..., 0]), image[..., 0]
    )


def test_draws_shrink_and_hide_within_their_ranges():
    generator = rng()
    draws = [draw(Augmentation(shrink=3.0, occlusion=0.4), (60, 80), generator) for _ in range(300)]
    assert 1 <= min(d.shrink for d in draws) < 1.2 and 2.8 < max(d.shrink for d in draws) <= 3
    patches = [d.patch for d in draws if d.patch[2]]
    assert 100 < len(patches) < 200
    for top, left, height, width in patches:
        assert 1 <= height <= 24 and 1 <= width <= 32 and top + height <= 60 and left + width <= 80


def test_without_shrink_and_patch_draws_are_what_they_were():
    one, other = (draw(Augmentation(noise=9.0, shrink=s), SIZE, rng()) for s in (1.0, 3.0))
    assert replace(other, shrink=1.0) == one


@pytest.mark.parametrize("wrong", [{"shrink": 0.5}, {"occlusion": 1.0}, {"occlusion": -0.1}])
def test_impossible_shrink_and_occlusion_are_refused(wrong):
    with pytest.raises(InputError, match="expected at least 1, and 0 to below 1"):
        Augmentation(**wrong)
