import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmanet.errors import InputError
from lmanet.evaluation.flow import Correspondence, FrameMatcher, correspondence
from lmanet.evaluation.temporal import Flicker, TemporalConsistency, VideoConsistency

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
VOID = 255


def ids(*rows):
    return np.array(rows, np.uint8)


def feed(metric, labels, predictions):
    for label, prediction in zip(labels, predictions, strict=True):
        metric.update(label, prediction)
    return metric


@st.composite
def videos(draw):
    """A few sequences of small random label and prediction maps; few ids, so that windows stay the same."""
    sequences = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, 7)), 2, 3)
        labels = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, VOID])))
        predictions = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1])))
        sequences.append((labels, predictions))
    return sequences


class TestFlicker:
    def test_hand_computed_example(self):
        labels = [ids([0, 0, 1], [1, VOID, 1]), ids([0, 1, 1], [1, VOID, VOID]), ids([0, 1, 1], [0, 0, 1])]
        predictions = [ids([0, 0, 0], [0, 0, 0]), ids([0, 1, 1], [0, 1, 1]), ids([1, 1, 0], [1, 0, 0])]
        # Frames 0 to 1: the labels of (0,0), (0,2), (1,0) stay, of these the prediction of (0,2) changes.
        # Frames 1 to 2: (0,0), (0,1), (0,2) stay, and the predictions of (0,0) and (0,2) change.
        assert feed(Flicker(), labels, predictions).compute() == pytest.approx((1 + 2) / (3 + 3))

    def test_a_perfect_prediction_never_flickers(self):
        labels = np.random.default_rng(0).integers(0, 3, (6, 4, 5), np.uint8)
        assert feed(Flicker(), labels, labels).compute() == 0.0

    def test_nothing_steady_is_nan(self):
        assert math.isnan(Flicker().compute())
        assert math.isnan(feed(Flicker(), [ids([0]), ids([1])], [ids([0]), ids([0])]).compute())

    def test_void_that_stays_void_is_not_steady(self):
        assert math.isnan(feed(Flicker(), [ids([VOID])] * 2, [ids([0]), ids([1])]).compute())

    @settings(deadline=None)
    @given(sequences=videos())
    def test_streaming_equals_the_definition(self, sequences):
        flicker, steady, flickered = Flicker(), 0, 0
        for labels, predictions in sequences:
            flicker.start_sequence()
            feed(flicker, labels, predictions)
            same = (labels[1:] == labels[:-1]) & (labels[1:] != VOID)
            steady += same.sum()
            flickered += (same & (predictions[1:] != predictions[:-1])).sum()

        expected = flickered / steady if steady else math.nan
        assert flicker.compute() == pytest.approx(expected, nan_ok=True)


class TestVideoConsistency:
    LABELS = (ids([0, 0, 0], [1, VOID, 0]), ids([0, 0, 0], [1, VOID, 1]), ids([0, 1, 0], [1, VOID, 1]))
    PREDICTIONS = (ids([0, 0, 2], [2, 0, 0]), ids([0, 1, 2], [2, 0, 1]), ids([1, 1, 2], [2, 0, 1]))

    def test_hand_computed_example(self):
        vc = feed(VideoConsistency((2, 3)), self.LABELS, self.PREDICTIONS).compute()

        # Window 0-1: G = (0,0) (0,1) (0,2) (1,0); of these the predictions of all but (0,1) stay: 3/4.
        # Window 1-2: G = (0,0) (0,2) (1,0) (1,2); of these the predictions of all but (0,0) stay: 3/4.
        # Window 0-2: G = (0,0) (0,2) (1,0); of these the predictions of all but (0,0) stay: 2/3.
        # Class 2 is never right: consistency does not ask for that.
        assert vc == {2: pytest.approx((3 / 4 + 3 / 4) / 2), 3: pytest.approx(2 / 3)}

    def test_reference_mode_counts_void_and_drops_the_last_window(self):
        vc = feed(VideoConsistency((2, 3), mode="reference"), self.LABELS, self.PREDICTIONS).compute()

        # Window 0-1: the void pixel (1,1) stays void and its prediction stays: 4/5. Window 1-2 is the last of
        # its length, and so is 0-2: dropped.
        assert vc == {2: pytest.approx(4 / 5), 3: pytest.approx(math.nan, nan_ok=True)}

    def test_pixels_that_stay_void_belong_to_g_in_reference_mode_only(self):
        labels = [ids([0, VOID, VOID])] * 3
        predictions = [ids([0, 0, 0]), ids([0, 0, 1]), ids([0, 0, 1])]
        # Window 0-1: the pixel of class 0 stays; of the void ones, one does. Window 1-2: all stay.
        assert feed(VideoConsistency((2,)), labels, predictions).compute() == {2: 1.0}
        # Window 0-1 alone: the last is dropped.
        reference = feed(VideoConsistency((2,), mode="reference"), labels, predictions)
        assert reference.compute() == {2: pytest.approx(2 / 3)}

    def test_reference_mode_drops_the_last_window_of_every_sequence(self):
        labels = [ids([0, 0])] * 3
        first = [ids([0, 0]), ids([0, 1]), ids([1, 0])]  # Windows: 1/2, 0/2.
        second = [ids([0, 0]), ids([0, 0]), ids([0, 1])]  # 2/2, 1/2.
        default, reference = VideoConsistency((2,)), VideoConsistency((2,), mode="reference")
        for metric in (default, reference):
            feed(metric, labels, first)
            metric.start_sequence()
            feed(metric, labels, second)
        assert default.compute() == {2: pytest.approx((1 / 2 + 0 + 1 + 1 / 2) / 4)}
        assert reference.compute() == {2: pytest.approx((1 / 2 + 1) / 2)}

    def test_a_sequence_of_one_window_gives_nothing_in_reference_mode(self):
        frames = [ids([0, 0])] * 3
        assert feed(VideoConsistency((3,)), frames, frames).compute() == {3: 1.0}
        assert math.isnan(feed(VideoConsistency((3,), mode="reference"), frames, frames).compute()[3])

    @pytest.mark.parametrize("mode", ["default", "reference"])
    def test_the_prediction_need_not_be_right(self, mode):
        labels = [ids([0, 1]), ids([0, 1]), ids([0, 1])]
        predictions = [ids([2, 0]), ids([2, 0]), ids([2, 0])]
        assert feed(VideoConsistency((2,), mode=mode), labels, predictions).compute() == {2: 1.0}

    def test_windows_count_the_same_whatever_the_size_of_g(self):
        labels = [ids([0, 0, 0, 0]), ids([0, 0, 0, 0]), ids([1, 1, 1, 0])]
        predictions = [ids([0, 0, 0, 0]), ids([1, 0, 0, 0]), ids([1, 0, 0, 1])]
        # Window 0-1: 3/4. Window 1-2: 0/1.
        assert feed(VideoConsistency((2,)), labels, predictions).compute() == {2: pytest.approx(3 / 8)}

    def test_a_window_with_nothing_steady_is_skipped(self):
        labels = [ids([0, 1]), ids([1, 0]), ids([1, 1])]
        predictions = [ids([0, 0])] * 3
        assert feed(VideoConsistency((2,)), labels, predictions).compute() == {2: 1.0}

    def test_reference_mode_skips_a_window_with_nothing_steady_too(self):
        labels = [ids([0, 1]), ids([1, 0]), ids([1, 1]), ids([1, 1])]
        predictions = [ids([0, 0]), ids([1, 1]), ids([1, 1]), ids([1, 1])]
        # Window 0-1: G is empty. Window 1-2: the label of pixel 0 stays, its prediction too. Window 2-3: dropped.
        vc = feed(VideoConsistency((2,), mode="reference"), labels, predictions)
        assert vc.compute() == {2: 1.0}

    def test_a_perfect_prediction_scores_one(self):
        labels = np.repeat(np.random.default_rng(0).integers(0, 3, (2, 4, 5), np.uint8), 5, axis=0)
        assert feed(VideoConsistency((2, 5)), labels, labels).compute() == {2: 1.0, 5: 1.0}

    @settings(deadline=None)
    @given(sequences=videos(), mode=st.sampled_from(["default", "reference"]))
    def test_streaming_equals_the_definition(self, sequences, mode):
        lengths = (2, 3, 5)
        metric = VideoConsistency(lengths, mode=mode)
        shares = {n: [] for n in lengths}
        for labels, predictions in sequences:
            metric.start_sequence()
            feed(metric, labels, predictions)
            for n in lengths:
                starts = range(len(labels) - n + (1 if mode == "default" else 0))
                for window in (slice(start, start + n) for start in starts):
                    g = (labels[window] == labels[window][0]).all(axis=0)
                    if mode == "default":
                        g &= (labels[window] != VOID).all(axis=0)
                    p = (predictions[window] == predictions[window][0]).all(axis=0)
                    if g.any():
                        shares[n].append((g & p).sum() / g.sum())

        expected = {n: float(np.mean(values)) if values else math.nan for n, values in shares.items()}
        assert metric.compute() == pytest.approx(expected, nan_ok=True)

    def test_shorter_sequences_than_the_window_give_nan(self):
        metric = VideoConsistency((3,))
        for _ in range(2):
            metric.start_sequence()
            feed(metric, [ids([0])] * 2, [ids([0])] * 2)
        assert math.isnan(metric.compute()[3])

    @pytest.mark.parametrize("lengths", [(), (1,), (8, 65536)])
    def test_lengths_out_of_range_are_refused(self, lengths):
        with pytest.raises(InputError, match="each 2 to 65535"):
            VideoConsistency(lengths)


def still(height, width):
    """The correspondence of two equal frames."""
    zero = np.zeros((height, width, 2), np.float32)
    return correspondence(zero, zero)


class TestTemporalConsistency:
    def test_hand_computed_example(self):
        metric = TemporalConsistency(3)
        metric.update(ids([0, 0, 1], [1, 1, 1]), None)
        metric.update(ids([0, 1, 1], [1, 1, 0]), still(2, 3))

        # Per class, both frames agree on / either has: class 0 1/3, class 1 3/5; class 2 is in neither.
        assert metric.compute() == pytest.approx((1 / 3 + 3 / 5) / 2)

    def test_all_pairs_share_one_confusion_matrix(self):
        metric = TemporalConsistency(2)
        metric.update(ids([0, 0, 1]), None)
        metric.update(ids([0, 1, 1]), still(1, 3))
        metric.update(ids([0, 1, 1]), still(1, 3))

        # First pair: class 0 1 of 2, class 1 1 of 2. Second: 1 of 1 and 2 of 2. Pooled: 2/3 and 3/4.
        assert metric.compute() == pytest.approx((2 / 3 + 3 / 4) / 2)

    def test_labels_that_move_with_the_image_are_consistent_and_others_are_not(self):
        forward = np.full((2, 4, 2), (1, 0), np.float32)
        motion = correspondence(forward, -forward)
        first = ids([0, 1, 0, 1], [1, 0, 1, 0])

        moved = TemporalConsistency(2)
        moved.update(first, None)
        moved.update(np.roll(first, 1, axis=1), motion)
        assert moved.compute() == 1.0

        unmoved = TemporalConsistency(2)
        unmoved.update(first, None)
        unmoved.update(first, motion)
        assert unmoved.compute() == 0.0

    def test_labels_followed_along_real_flow(self):
        image = cv2.GaussianBlur(
            np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), (0, 0), 1.5
        )
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
        labels = (np.indices((64, 96)).sum(axis=0) // 8 % 3).astype(np.uint8)  # Diagonal stripes, 8 px wide.
        matcher = FrameMatcher()
        matcher.update(image)
        motion = matcher.update(np.roll(image, 6, axis=1))

        scores = []
        for second in (np.roll(labels, 6, axis=1), labels):
            metric = TemporalConsistency(3)
            metric.update(labels, None)
            metric.update(second, motion)
            scores.append(metric.compute())
        assert scores[0] > 0.95
        assert scores[1] < 0.3

    def test_occluded_pixels_and_those_outside_count_in_reference_mode_only(self):
        motion = Correspondence(
            flow=np.zeros((1, 5, 2), np.float32),
            index=np.array([[0, 1, 2, 3, 4]]),
            inside=np.array([[True, True, True, True, False]]),
            visible=np.array([[True, True, False, True, False]]),
        )
        motion.flow[0, 4, 0] = 1
        default, reference = TemporalConsistency(3), TemporalConsistency(3, mode="reference")
        for metric in (default, reference):
            metric.update(ids([0, 1, 2, 2, 2]), None)
            metric.update(ids([0, 1, 1, 2, 2]), motion)
        assert default.compute() == 1.0
        # Warped back: 0 1 1 2, and class 0 for the pixel that leaves. Class 0 1 of 2, class 1 1 of 2, class 2 1 of 3.
        assert reference.compute() == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)

    def test_reference_mode_misses_the_last_column_of_an_even_width(self):
        default, reference = TemporalConsistency(2), TemporalConsistency(2, mode="reference")
        for metric in (default, reference):
            metric.update(ids([1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]), None)
            metric.update(ids([1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]), still(3, 4))
        assert default.compute() == 1.0
        # The script reads column 3 at 3.5, which rounds to 4: class 0. Class 0 none of 3, class 1 9 of 12.
        assert reference.compute() == pytest.approx((0 + 9 / 12) / 2)

    @staticmethod
    def in_both_modes(first, second, motion, classes=3):
        scores = []
        for mode in ("default", "reference"):
            metric = TemporalConsistency(classes, mode=mode)
            metric.update(first, None)
            metric.update(second, motion)
            scores.append(metric.compute())
        return scores

    def test_ids_are_taken_from_the_nearest_pixel_and_never_mixed(self):
        forward = np.full((1, 3, 2), (0.6, 0), np.float32)
        metric = TemporalConsistency(3)
        metric.update(ids([0, 2, 1]), None)
        metric.update(ids([1, 0, 2]), correspondence(forward, -forward))
        # Places 0.6 and 1.6 read pixels 1 and 2, which is 0 and 2; 2.6 is outside. In between lie 0.4 and 1.2.
        assert metric.compute() == 1.0

    def test_reference_mode_reads_half_a_pixel_beside_the_target(self):
        forward = np.full((1, 4, 2), (0.4, 0), np.float32)
        row = ids([0, 1, 1, 2])
        default, reference = self.in_both_modes(row, row, correspondence(forward, -forward))
        # The nearest pixels of 0.4, 1.4, 2.4, 3.4 are 0, 1, 2, 3.
        assert default == 1.0
        # Place x is read at 4x/3 - 1/2, which is 0.03, 1.37, 2.7, 4.03: 0, 1, 3 and outside. Warped back: 0 1 2 0.
        # Class 0 1 of 2, class 1 1 of 2, class 2 none of 2.
        assert reference == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)

    def test_reference_mode_masks_no_occlusion(self):
        forward, backward = np.zeros((1, 5, 2), np.float32), np.zeros((1, 5, 2), np.float32)
        backward[0, 2] = (1, 0)  # Back from pixel 2 one lands on pixel 3: (1 px)² > 0.01 + 0.5, occluded.
        default, reference = self.in_both_modes(
            ids([0, 0, 1, 1, 1]), ids([0, 0, 0, 1, 1]), correspondence(forward, backward)
        )
        assert default == 1.0
        # Pixel 2 counts: class 0 2 of 3, class 1 2 of 3. (5 columns without motion are read where they are.)
        assert reference == pytest.approx(2 / 3)

    def test_reference_mode_compares_what_leaves_the_image_with_class_0(self):
        forward = np.zeros((1, 5, 2), np.float32)
        forward[0, 4] = (1, 0)
        ones = ids([1, 1, 1, 1, 1])
        default, reference = self.in_both_modes(ones, ones, correspondence(forward, -forward))
        assert default == 1.0
        # Class 0 none of 1, class 1 4 of 5.
        assert reference == pytest.approx((0 + 4 / 5) / 2)

    @pytest.mark.parametrize("wrong", [3, VOID])
    @pytest.mark.parametrize("mode", ["default", "reference"])
    def test_ids_out_of_range_are_refused_in_the_first_frame_too(self, mode, wrong):
        metric = TemporalConsistency(3, mode=mode)
        with pytest.raises(InputError, match=f"prediction holds id {wrong}, expected 0 to 2"):
            metric.update(ids([0, wrong]), None)
        metric.update(ids([0, 1]), None)

    def test_nothing_compared_is_nan(self):
        metric = TemporalConsistency(2)
        metric.update(ids([0]), None)
        assert math.isnan(metric.compute())

    def test_motion_comes_with_every_frame_but_the_first(self):
        metric = TemporalConsistency(2)
        with pytest.raises(InputError, match="got motion for a first frame"):
            metric.update(ids([0]), still(1, 1))
        metric.update(ids([0]), None)
        with pytest.raises(InputError, match="got no motion for a later frame"):
            metric.update(ids([0]), None)
        with pytest.raises(InputError, match=r"motion is for \(2, 3\)"):
            metric.update(ids([0]), still(2, 3))


class _ConsistencyOnStills:
    """TC of frames without motion, with the signature of the other two, for the tests that all share."""

    def __init__(self):
        self.metric = TemporalConsistency(3)
        self.reset, self.compute = self.metric.reset, self.metric.compute
        self.start_sequence()

    def start_sequence(self):
        self.metric.start_sequence()
        self.first = True

    def update(self, label, prediction):
        self.metric.update(prediction, None if self.first else still(*label.shape))
        self.first = False


class TestTakeCounts:
    LABELS = (ids([0, 0, 1]), ids([0, 0, 1]), ids([0, 0, 1]), ids([0, 1, 1]))
    PREDICTIONS = (ids([0, 0, 0]), ids([0, 1, 0]), ids([0, 1, 1]), ids([0, 1, 1]))

    def taken_after_two_frames_and_at_the_end(self, metric):
        feed(metric, self.LABELS[:2], self.PREDICTIONS[:2])
        taken = [metric.take_counts()]
        feed(metric, self.LABELS[2:], self.PREDICTIONS[2:])
        return [counts.tolist() for counts in [*taken, metric.take_counts()]]

    def test_flicker(self):
        # Frames 0 to 1: 1 of 3 flickers. 1 to 2: 1 of 3; 2 to 3: 0 of 2.
        assert self.taken_after_two_frames_and_at_the_end(Flicker()) == [[1, 3], [1, 5]]

    def test_video_consistency(self):
        taken = self.taken_after_two_frames_and_at_the_end(VideoConsistency((3, 2)))
        # n = 2: 2/3, then 2/3 and 2/2. n = 3: none, then 1/3 and 1/2.
        assert taken[0] == [[pytest.approx(2 / 3), 1], [0, 0]]
        assert taken[1] == [[pytest.approx(5 / 3), 2], [pytest.approx(5 / 6), 2]]

    def test_temporal_consistency(self):
        metric = TemporalConsistency(2)
        metric.update(ids([0, 0, 1]), None)
        metric.update(ids([0, 1, 1]), still(1, 3))
        assert metric.take_counts().tolist() == [[1, 1], [0, 1]]
        metric.update(ids([1, 1, 1]), still(1, 3))
        assert metric.take_counts().tolist() == [[0, 1], [0, 2]]


METRICS = [
    Flicker,
    lambda: VideoConsistency((2,)),
    lambda: VideoConsistency((2,), mode="reference"),
    _ConsistencyOnStills,
]
NAMES = ["flicker", "vc", "vc-reference", "tc"]


def outcome(metric):
    value = metric.compute()
    return value[2] if isinstance(value, dict) else value


@pytest.mark.parametrize("make", METRICS, ids=NAMES)
class TestEveryTemporalMetric:
    def test_nothing_crosses_the_start_of_a_sequence(self, make):
        metric = make()
        for prediction in (ids([0, 0]), ids([1, 1]), ids([2, 2])):
            metric.start_sequence()
            metric.update(ids([0, 0]), prediction)
        assert math.isnan(outcome(metric))

    def test_sequences_may_differ_in_size_but_frames_of_one_may_not(self, make):
        metric = make()
        metric.update(ids([0, 0]), ids([0, 0]))
        metric.start_sequence()
        metric.update(ids([0, 0, 0]), ids([0, 0, 0]))
        with pytest.raises(InputError, match=r"shape is \(1, 2\) but the last one's was \(1, 3\)"):
            metric.update(ids([0, 0]), ids([0, 0]))

    def test_the_caller_may_reuse_its_buffers(self, make):
        label, prediction = ids([0, 0, 0]), ids([0, 0, 0])
        reused, fresh = make(), make()
        for values in ([0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1]):
            prediction[:] = values
            reused.update(label, prediction)
            fresh.update(label, prediction.copy())
            assert outcome(reused) == pytest.approx(outcome(fresh), nan_ok=True)
        assert outcome(reused) not in (0.0, 1.0)

    def test_reset_forgets_everything(self, make):
        metric = make()
        feed(metric, [ids([0, 0])] * 3, [ids([0, 0]), ids([0, 1]), ids([0, 1])])
        assert not math.isnan(outcome(metric))
        metric.reset()
        assert math.isnan(outcome(metric))

    @pytest.mark.parametrize("device", DEVICES)
    def test_tensors_give_what_arrays_give(self, make, device):
        rng = np.random.default_rng(0)
        labels, predictions = np.zeros((4, 3, 4), np.uint8), rng.integers(0, 2, (4, 3, 4), np.uint8)
        with_arrays = feed(make(), labels, predictions)
        with_tensors = feed(
            make(), torch.from_numpy(labels).to(device), torch.from_numpy(predictions).to(device)
        )
        assert 0 < outcome(with_arrays) == outcome(with_tensors) < 1


@pytest.mark.parametrize("make", [VideoConsistency, lambda mode: TemporalConsistency(2, mode=mode)])
def test_unknown_modes_are_refused(make):
    with pytest.raises(InputError, match="mode is 'vspw', expected one of default, reference"):
        make(mode="vspw")
