"""Steadiness over time: flicker, video consistency VC_n, temporal consistency TC.

Every metric streams: it keeps a frame or two and some counts, never a video. `start_sequence` begins a new
run of consecutive frames; nothing is ever compared across it.

VC_n and TC have published scripts, VSPW's, whose conventions are questionable
(https://github.com/sssdddwww2/CVPR2021_VSPW_Implement, `VC_perclip.py` and `TC_cal.py`). `mode="default"` is what
the definition says; `mode="reference"` does as these scripts do. Each class says what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.errors import InputError
from lmanet.evaluation.flow import Correspondence, warp_nearest, warp_vspw
from lmanet.evaluation.metrics import ConfusionMatrix, as_id_pair, as_ids, mean_iou

if TYPE_CHECKING:
    from lmanet.evaluation.metrics import IdMap

Mode = Literal["default", "reference"]
"""`default`: the definition; `reference`: VSPW's published script, quirks included."""


class Flicker:
    """Share of the pixels that should keep their label from a frame to the next and do not.

    Over all pairs of neighbouring frames: the pixels whose true label stays the same and is not void, and
    of those the ones whose predicted label changes; the sum of the latter over the sum of the former.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every frame seen."""
        self._steady = 0
        self._flickered = 0
        self.start_sequence()

    def start_sequence(self) -> None:
        """The next frame does not follow the last: a new sequence, or frames without label in between."""
        self._previous: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None

    def update(self, label: IdMap, prediction: IdMap) -> None:
        """Take the next frame.

        Args:
            label: (H, W) uint8 true class ids, void 255.
            prediction: (H, W) uint8 predicted class ids.

        Raises:
            InputError: on a wrong dtype or shape, or a size other than the last frame's.
        """
        labels, predictions = as_id_pair(label, prediction)
        if self._previous is not None:
            last_labels, last_predictions = self._previous
            _check_same_size(last_labels, labels)
            steady = (labels == last_labels) & (labels != VOID)
            self._steady += np.count_nonzero(steady)
            self._flickered += np.count_nonzero(steady & (predictions != last_predictions))
        # Copies, here and below: the caller may write its next frame into the same buffer.
        self._previous = labels.copy(), predictions.copy()

    def compute(self) -> float:
        """The share so far, 0 to 1, lower is better; NaN if no pixel kept its label yet."""
        return self._flickered / self._steady if self._steady else float("nan")

    def take_counts(self) -> NDArray[np.int64]:
        """Hand over what was counted since the last taking, to be added up elsewhere; the sequence goes on.

        Returns:
            (2,) int64: the pixels that flickered, and those that should have kept their label.
        """
        taken = np.array([self._flickered, self._steady], np.int64)
        self._flickered = self._steady = 0
        return taken


class VideoConsistency:
    """VC_n (Miao et al., VSPW, CVPR 2021): do labels that should stay the same over n frames do so?

    Over every window of n consecutive labelled frames, G = pixels whose true label is the same in all n
    frames, P = pixels whose predicted label is; VC_n = |G ∩ P| / |G|, and the mean of it over all windows
    of all sequences, each window counting the same. A window whose G is empty is skipped. The prediction
    need not be right.

    `mode="reference"` differs as the published script does: void is one more label, so a pixel that stays
    void belongs to G; and the last window of each sequence is dropped.

    Kept per pixel: the last ids, and for how many frames they have stayed the same. Cost and memory per
    frame do not depend on n.
    """

    def __init__(self, lengths: Sequence[int] = (8, 16), *, mode: Mode = "default") -> None:
        """Start with no frame seen.

        Args:
            lengths: the window lengths n, in frames, each 2 to 65535; several share the work.
            mode: see above.

        Raises:
            InputError: on a length out of range, or an unknown mode.
        """
        if not lengths or min(lengths) < 2 or max(lengths) > np.iinfo(np.uint16).max:
            raise InputError(
                f"the window lengths are {tuple(lengths)}, expected at least one, each 2 to 65535 frames"
            )
        self.lengths = tuple(sorted(set(lengths)))
        self.mode: Mode = _checked_mode(mode)
        self.reset()

    def reset(self) -> None:
        """Forget every frame seen."""
        self._sums = dict.fromkeys(self.lengths, 0.0)
        self._windows = dict.fromkeys(self.lengths, 0)
        self.start_sequence()

    def start_sequence(self) -> None:
        """The next frame does not follow the last: a new sequence, or frames without label in between."""
        self._frames = 0
        self._labels: _RunLength | None = None
        self._predictions: _RunLength | None = None
        self._last_windows: dict[int, float] = {}

    def update(self, label: IdMap, prediction: IdMap) -> None:
        """Take the next frame; arguments and errors as `Flicker.update`."""
        labels, predictions = as_id_pair(label, prediction)
        if self._labels is None or self._predictions is None:
            self._labels = _RunLength(labels, longest=self.lengths[-1])
            self._predictions = _RunLength(predictions, longest=self.lengths[-1])
        else:
            _check_same_size(self._labels.ids, labels)
            self._labels.update(labels)
            self._predictions.update(predictions)
        self._frames += 1

        ending = self._windows_ending_here(self._labels, self._predictions)
        if self.mode == "reference":
            # A window counts only once another frame follows it: so the last one of a sequence never does.
            ending, self._last_windows = self._last_windows, ending
        for length, share in ending.items():
            self._sums[length] += share
            self._windows[length] += 1

    def compute(self) -> dict[int, float]:
        """VC_n by n, each 0 to 1, higher is better; NaN if there was no window of that length yet."""
        return {
            n: self._sums[n] / self._windows[n] if self._windows[n] else float("nan") for n in self.lengths
        }

    def take_counts(self) -> NDArray[np.float64]:
        """Hand over what was counted since the last taking, to be added up elsewhere; the sequence goes on.

        Returns:
            (len(lengths), 2) float64, by ascending n: the sum of the windows' shares, and their number.
        """
        taken = np.array([(self._sums[n], self._windows[n]) for n in self.lengths], np.float64)
        self._sums = dict.fromkeys(self.lengths, 0.0)
        self._windows = dict.fromkeys(self.lengths, 0)
        return taken

    def _windows_ending_here(self, labels: _RunLength, predictions: _RunLength) -> dict[int, float]:
        """|G ∩ P| / |G| by n, of the windows that end at the current frame and whose G is not empty."""
        shares = {}
        for n in self.lengths:
            if self._frames < n:
                break
            steady = labels.frames >= n
            if self.mode == "default":
                steady &= labels.ids != VOID
            if total := np.count_nonzero(steady):
                shares[n] = np.count_nonzero(steady & (predictions.frames >= n)) / total
        return shares


class TemporalConsistency:
    """TC (Liu et al., ETC, ECCV 2020): does a prediction, followed along the motion, stay the same?

    The prediction of frame t+1 is warped back to frame t along the optical flow and compared with the
    prediction of frame t: mIoU of the two, over one confusion matrix for all pairs of frames. It needs
    images, not labels. The figure depends on the flow: name it (`lmanet.flow.FLOW_NAME`) with the figure.

    By default ids are warped by the nearest pixel, and pixels that leave the image or are occluded by the
    forward-backward test of `flow.correspondence` are left out. `mode="reference"` differs as VSPW's script
    does: it reads up to half a pixel beside the target (`flow.warp_vspw`), and no pixel is left out; those that
    leave the image are compared with class 0. Its flow is RAFT's, not this one, so that even the reference
    mode's figures stand beside VSPW's only roughly. (ETC's own script differs from both: it interpolates ids
    bilinearly, cuts off the fraction and repeats the border.)
    """

    def __init__(self, num_classes: int, *, mode: Mode = "default") -> None:
        """Start with no frame seen.

        Args:
            num_classes: K, 1 to 255.
            mode: see above.

        Raises:
            InputError: if `num_classes` is out of range, or the mode unknown.
        """
        self.mode: Mode = _checked_mode(mode)
        self._confusion = ConfusionMatrix(num_classes)
        self.start_sequence()

    def reset(self) -> None:
        """Forget every frame seen."""
        self._confusion.reset()
        self.start_sequence()

    def start_sequence(self) -> None:
        """The next frame does not follow the last one."""
        self._previous: NDArray[np.uint8] | None = None

    def update(self, prediction: IdMap, motion: Correspondence | None) -> None:
        """Take the next frame.

        Args:
            prediction: (H, W) uint8 predicted class ids, 0 to K-1.
            motion: from the previous frame to this one, (H, W); None for the first frame of a sequence.

        Raises:
            InputError: on a wrong dtype, shape or id; on motion for a first frame, or none for a later one.
        """
        predictions = as_ids(prediction, "prediction")
        classes = self._confusion.num_classes
        if predictions.size and predictions.max() >= classes:
            raise InputError(
                f"prediction holds id {predictions.max()}, expected 0 to {classes - 1}: "
                "check the number of classes"
            )
        if (motion is None) != (self._previous is None):
            got, place = ("no motion", "later") if motion is None else ("motion", "first")
            raise InputError(
                f"got {got} for a {place} frame of a sequence: give None for the first frame, and the motion "
                "from the previous frame for every later one; start_sequence() begins a new sequence"
            )
        if motion is not None and self._previous is not None:
            _check_same_size(self._previous, predictions)
            if motion.index.shape != predictions.shape:
                raise InputError(
                    f"the motion is for {motion.index.shape} but the prediction is {predictions.shape}: "
                    "compute the motion at the prediction's size"
                )
            if self.mode == "default":
                compared = np.where(motion.visible, self._previous, np.uint8(VOID))
                self._confusion.update(compared, warp_nearest(predictions, motion))
            else:
                self._confusion.update(self._previous, warp_vspw(predictions, motion))
        self._previous = predictions.copy()

    def compute(self) -> float:
        """The mIoU so far, 0 to 1, higher is better; NaN if no pixel was compared yet."""
        return mean_iou(self._confusion.compute())

    def take_counts(self) -> NDArray[np.int64]:
        """Hand over what was counted since the last taking, to be added up elsewhere; the sequence goes on.

        Returns:
            (K, K) int64, pixels: row the class in frame t, column that of frame t+1 warped back.
        """
        taken = self._confusion.compute()
        self._confusion.reset()
        return taken


class _RunLength:
    """Per pixel, the last id and for how many frames it has stayed the same, counted up to `longest`."""

    def __init__(self, ids: NDArray[np.uint8], *, longest: int) -> None:
        self.ids = ids.copy()
        self.frames = np.ones(ids.shape, np.uint16)
        self._longest = longest

    def update(self, ids: NDArray[np.uint8]) -> None:
        np.minimum(self.frames, self._longest - 1, out=self.frames)
        self.frames *= ids == self.ids
        self.frames += 1
        self.ids = ids.copy()


def _check_same_size(last: NDArray[np.uint8], current: NDArray[np.uint8]) -> None:
    if last.shape != current.shape:
        raise InputError(
            f"the frame's shape is {current.shape} but the last one's was {last.shape}: "
            "call start_sequence() where a new sequence begins"
        )


def _checked_mode(mode: Mode) -> Mode:
    if mode not in get_args(Mode):
        raise InputError(f"mode is {mode!r}, expected one of {', '.join(get_args(Mode))}")
    return mode
