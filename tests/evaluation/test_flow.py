import cv2
import numpy as np
import pytest
import torch

from lmanet.errors import InputError
from lmanet.evaluation.flow import FrameMatcher, correspondence, warp_nearest, warp_vspw


def constant_flow(right, down, height=2, width=3):
    return np.full((height, width, 2), (right, down), np.float32)


def texture(height=64, width=96, seed=0):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def test_correspondence_of_one_pixel_to_the_right():
    motion = correspondence(constant_flow(1, 0), constant_flow(-1, 0))

    # Pixel (row 0, column 0) is found at column 1, and so on; the last column leaves the image.
    assert motion.index.tolist() == [[1, 2, 2], [4, 5, 5]]
    assert motion.inside.tolist() == [[True, True, False]] * 2
    assert motion.visible.tolist() == [[True, True, False]] * 2


def test_nearest_pixel_rounds_halves_up_everywhere():
    motion = correspondence(constant_flow(0.5, -0.4), constant_flow(-0.5, 0.4))

    assert motion.index.tolist() == [[1, 2, 2], [4, 5, 5]]
    assert motion.inside.tolist() == [[True, True, False]] * 2


def test_pixels_whose_way_back_does_not_return_are_occluded():
    forward, backward = constant_flow(1, 0), constant_flow(-1, 0)
    backward[0, 1] = (3, 0)  # Where (0, 0) goes to: back from there it would land 4 px away.
    motion = correspondence(forward, backward)

    assert motion.inside.tolist() == [[True, True, False]] * 2
    assert motion.visible.tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(("error_px", "visible"), [(0.70, True), (0.73, False)])
def test_the_occlusion_threshold_without_motion_is_half_a_squared_pixel(error_px, visible):
    # Forward 0, back e: e² <= 0.01 e² + 0.5, so e up to 0.7107.
    motion = correspondence(constant_flow(0, 0), constant_flow(error_px, 0))

    assert bool(motion.visible.all()) is visible
    assert bool(motion.visible.any()) is visible


@pytest.mark.parametrize(("error_px", "visible"), [(1.4, True), (1.5, False)])
def test_the_occlusion_threshold_grows_with_the_motion(error_px, visible):
    # Forward 10 px, back 10 - e. e = 1.4: 1.96 <= 0.01 (100 + 73.96) + 0.5 = 2.24; e = 1.5: 2.25 > 2.22.
    motion = correspondence(constant_flow(10, 0, 1, 12), constant_flow(error_px - 10, 0, 1, 12))

    assert motion.inside.tolist() == [[True] * 2 + [False] * 10]
    assert motion.visible.tolist() == [[visible] * 2 + [False] * 10]


def test_nearest_warp_takes_the_target():
    next_ids = np.array([[2, 6, 6], [2, 6, 6]], np.uint8)
    motion = correspondence(constant_flow(0.6, 0), constant_flow(-0.6, 0))

    assert warp_nearest(next_ids, motion).tolist() == [[6, 6, 6]] * 2


def test_vspw_warp_reads_beside_the_target_and_calls_the_outside_class_0():
    next_ids = np.array([[1, 2, 3, 4]], np.uint8)

    # Along 4 pixels it reads place x at 4x/3 - 1/2. Without motion: -0.5, 0.83, 2.17, 3.5; halves go to the even
    # neighbour: 0, 1, 2 and 4, which is outside.
    still = correspondence(constant_flow(0, 0, 1, 4), constant_flow(0, 0, 1, 4))
    assert warp_vspw(next_ids, still).tolist() == [[1, 2, 3, 0]]
    # Half a pixel to the left: -1.17, 0.17, 1.5, 2.83, so outside, 0, 2, 3.
    motion = correspondence(constant_flow(-0.5, 0, 1, 4), constant_flow(0.5, 0, 1, 4))
    assert warp_vspw(next_ids, motion).tolist() == [[0, 1, 3, 4]]


def test_vspw_warp_is_what_torch_samples_off_the_corners():
    rng = np.random.default_rng(0)
    height, width = 13, 18
    next_ids = rng.integers(0, 9, (height, width), np.uint8)
    flow = rng.normal(0, 3, (height, width, 2)).astype(np.float32)
    places = flow + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    grid = torch.from_numpy(places / (width - 1, height - 1) * 2 - 1).float()
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(next_ids)[None, None].float(), grid[None], mode="nearest", align_corners=False
    )

    warped = warp_vspw(next_ids, correspondence(flow, -flow))
    np.testing.assert_array_equal(warped, sampled[0, 0].numpy())


def test_frame_matcher_gives_the_motion_from_the_previous_frame_within_a_sequence():
    image = texture()
    shifted = np.roll(image, 4, axis=1)
    matcher = FrameMatcher()
    frame = image.copy()

    assert matcher.update(frame) is None
    frame[:] = shifted  # A reader may reuse its buffer.
    motion = matcher.update(frame)
    assert motion is not None
    assert np.median(motion.flow[..., 0]) == pytest.approx(4, abs=0.1)
    # All but the border that leaves the image on the right and the few pixels beside it.
    assert motion.visible[:, 8:-12].mean() > 0.98
    assert not motion.inside[:, -3:].any()

    matcher.start_sequence()
    assert matcher.update(image) is None


def test_a_refused_image_leaves_the_sequence_as_it_was():
    matcher = FrameMatcher()
    matcher.update(texture())
    with pytest.raises(InputError, match="shapes differ"):
        matcher.update(texture(40, 40))

    assert matcher.update(texture()) is not None


def test_what_is_covered_by_a_moving_object_is_found_occluded():
    background, thing = texture(96, 128, seed=1), texture(96, 128, seed=2)
    frames = []
    for left in (40, 52):
        frame = background.copy()
        frame[30:66, left : left + 36] = thing[30:66, 40:76]
        frames.append(frame)
    matcher = FrameMatcher()
    matcher.update(frames[0])
    motion = matcher.update(frames[1])

    assert motion is not None
    covered = motion.visible[34:62, 77:87].mean()
    still = motion.visible[34:62, 100:120].mean()
    assert covered < 0.3 and still > 0.95


def test_flows_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="expected \\(H, W, 2\\) for both"):
        correspondence(constant_flow(0, 0), constant_flow(0, 0, width=4))


def test_places_of_large_images_are_whole():
    # More pixels than float32 can count.
    still = np.zeros((4097, 4097, 2), np.float32)
    motion = correspondence(still, still)
    ids = np.zeros((4097, 4097), np.uint8)
    ids[-1, ::2] = 1
    np.testing.assert_array_equal(warp_nearest(ids, motion)[-1], ids[-1])
