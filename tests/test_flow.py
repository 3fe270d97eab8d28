"""Optical flow by OpenCV; what the metrics make of it is in `evaluation/test_flow.py`."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from lmanet.errors import InputError
from lmanet.flow import dis_flows


def texture(height=64, width=96, seed=0):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


@pytest.mark.parametrize("preset", ["medium", "fast"])
def test_dis_flows_finds_a_shift_in_x_and_y(preset):
    image = texture()
    flow, back = dis_flows(image, np.roll(image, (2, 5), axis=(0, 1)), preset=preset)

    assert flow.dtype == np.float32 and flow.shape == (64, 96, 2)
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), [5, 2], atol=0.1)
    np.testing.assert_allclose(np.median(back, axis=(0, 1)), [-5, -2], atol=0.2)


@pytest.mark.parametrize("preset", ["medium", "fast"])
def test_low_and_narrow_images_have_a_flow_too(preset):
    """OpenCV's own choice of scales reads beyond images that are wide and lower than 32 pixels."""
    for height, width in itertools.product((16, 17, 24, 31, 32, 33), (16, 31, 33, 90, 400)):
        for size in ((height, width), (width, height)):
            image = texture(*size)
            flow, _ = dis_flows(image, np.roll(image, 1, axis=1), preset=preset)
            assert flow.shape == (*size, 2) and np.isfinite(flow).all()
            assert abs(np.median(flow[..., 0]) - 1) < 0.6, size


@pytest.mark.parametrize(
    ("image", "other", "message"),
    [
        (texture(12, 40), texture(12, 40), r"40×12 pixels, optical flow needs at least 16×16"),
        (texture(32, 40), texture(40, 32), "shapes differ"),
        (texture(32, 40)[..., 0], texture(32, 40), r"image is uint8 of shape \(32, 40\)"),
        (texture(32, 40), texture(32, 40).astype(np.float32), "other is float32"),
    ],
)
def test_wrong_images_are_refused(image, other, message):
    with pytest.raises(InputError, match=message):
        dis_flows(image, other)


def test_any_thread_and_any_size_before_it_gives_the_same():
    images = [(texture(*size), texture(*size, seed=1)) for size in ((64, 96), (48, 200), (64, 96), (20, 90))]
    # Of a thread of its own each: nothing is kept from before.
    expected = [ThreadPoolExecutor(1).submit(dis_flows, *pair, preset="fast").result() for pair in images]
    with ThreadPoolExecutor(4) as threads:
        several = [threads.submit(dis_flows, *pair, preset="fast") for pair in images * 4]
        for got, wanted in zip(several, expected * 4, strict=True):
            assert all(map(np.array_equal, got.result(), wanted))
