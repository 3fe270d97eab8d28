"""The steadiness metrics as torchmetrics: they add up over processes and work in a `MetricCollection`.

Definitions and modes are those of `lmanet.evaluation.temporal`, whose classes do the counting; nothing else of lmanet
is needed. Besides the counts, which are the states, a metric keeps a frame or two, never a video: successive calls of
`update`, or of `forward`, continue one sequence until `start_sequence`. A process must see whole sequences, and of a
batch of several videos each wants its own calls. torchmetrics' own `MulticlassJaccardIndex(K, ignore_index=255)` is
the mIoU of `lmanet.evaluation.metrics`, as long as any pixel is counted, so there is none here.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from lmanet.errors import InputError
from lmanet.evaluation import temporal
from lmanet.evaluation.flow import FrameMatcher
from lmanet.evaluation.metrics import mean_iou
from lmanet.evaluation.temporal import Mode


class _Counter(Protocol):
    """What counts frames of a sequence: a class of `temporal`."""

    def reset(self) -> None: ...

    def start_sequence(self) -> None: ...

    def take_counts(self) -> NDArray[Any]: ...


C = TypeVar("C", bound=_Counter)


class _Streaming(Metric, Generic[C]):
    """What the metrics share: one state of counts, and a counter that holds the sequence.

    The state is named after the configuration. For a `MetricCollection` lets metrics share one update if their states
    have equal names and values after the first, and after a first frame all counts are 0.
    """

    is_differentiable: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, counter: C, state: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._counter = counter
        self._before_forward: C | None = None
        self._state = state
        self.add_state(state, torch.from_numpy(counter.take_counts()), dist_reduce_fx="sum")

    def start_sequence(self) -> None:
        """The next frame does not follow the last: a new sequence, or frames left out in between."""
        self._counter.start_sequence()

    def reset(self) -> None:
        """Forget every frame seen."""
        super().reset()
        if self._before_forward is None:
            self._counter.reset()
        else:
            self._counter = self._before_forward

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """`update`, and the value of what this call alone added: the pairs or windows that its frames complete.

        They may begin in frames of earlier calls; so of single frames a sequence's first gives NaN.
        """
        # torchmetrics calls reset() in here, before the one update that counts for the value returned. What was there
        # comes back when that is done, or here if it raises.
        before = vars(self).copy()
        self._before_forward = deepcopy(self._counter)
        try:
            return super().forward(*args, **kwargs)
        except BaseException:
            vars(self).update(before)
            raise
        finally:
            self._before_forward = None

    @property
    def _counts(self) -> Tensor:
        return getattr(self, self._state)

    def _add_counts(self) -> None:
        counts = torch.from_numpy(self._counter.take_counts())
        setattr(self, self._state, self._counts + counts.to(self._counts.device))


class Flicker(_Streaming[temporal.Flicker]):
    """Share of the pixels that should keep their label from a frame to the next and do not.

    `compute()` gives a scalar, 0 to 1, lower is better; NaN if no pixel kept its true label yet.
    """

    higher_is_better: bool = False

    def __init__(self, **kwargs: Any) -> None:
        """Start with no frame seen.

        Args:
            kwargs: those of `torchmetrics.Metric`.
        """
        super().__init__(temporal.Flicker(), "flicker", **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take the next frame or frames of the sequence.

        Args:
            preds: (H, W), or (T, H, W) for T consecutive frames, uint8 or int64 predicted class ids, 0 to 255.
            target: the true ones, of the same shape; void 255.

        Raises:
            InputError: on a wrong type, dtype, shape or id, or a size other than the last frame's; nothing is
                counted then.
        """
        _update_labelled(self._counter, preds, target)
        self._add_counts()

    def compute(self) -> Tensor:
        """The share so far, a scalar."""
        return self._counts[0] / self._counts[1]


class VideoConsistency(_Streaming[temporal.VideoConsistency]):
    """VC_n: the mean over all windows of n frames of |G ∩ P| / |G|; see `temporal.VideoConsistency`.

    One n per metric, so that `compute()` gives a scalar, 0 to 1, higher is better; NaN if there was no window yet.
    """

    higher_is_better: bool = True

    def __init__(self, length: int = 8, *, mode: Mode = "default", **kwargs: Any) -> None:
        """Start with no frame seen.

        Args:
            length: the window length n, in frames, 2 to 65535.
            mode: `default` or `reference`, VSPW's script.
            kwargs: those of `torchmetrics.Metric`.

        Raises:
            InputError: on a length out of range, or an unknown mode.
        """
        super().__init__(
            temporal.VideoConsistency((length,), mode=mode), f"video_consistency_{length}_{mode}", **kwargs
        )

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take the next frame or frames of the sequence; arguments and errors as `Flicker.update`."""
        _update_labelled(self._counter, preds, target)
        self._add_counts()

    def compute(self) -> Tensor:
        """VC_n so far, a scalar."""
        ((shares, windows),) = self._counts
        return (shares / windows).float()


class TemporalConsistency(_Streaming["_FollowedPredictions"]):
    """TC: mIoU of each prediction with the next one, warped back along DIS flow; see `temporal.TemporalConsistency`.

    `compute()` gives a scalar, 0 to 1, higher is better; NaN if no pixel was compared yet. State the flow,
    `lmanet.flow.FLOW_NAME`, with the figure. Two flows per frame are computed, on the CPU.
    """

    higher_is_better: bool = True

    def __init__(self, num_classes: int, *, mode: Mode = "default", **kwargs: Any) -> None:
        """Start with no frame seen.

        Args:
            num_classes: K, 1 to 255.
            mode: `default` or `reference`, VSPW's script.
            kwargs: those of `torchmetrics.Metric`.

        Raises:
            InputError: if `num_classes` is out of range, or the mode unknown.
        """
        super().__init__(_FollowedPredictions(num_classes, mode), f"temporal_consistency_{mode}", **kwargs)
        self.num_classes = num_classes

    def update(self, preds: Tensor, images: Tensor) -> None:
        """Take the next frame or frames of the sequence.

        Args:
            preds: (H, W), or (T, H, W) for T consecutive frames, uint8 or int64 predicted class ids, 0 to K-1.
            images: the frames they belong to, (3, H, W) or (T, 3, H, W) uint8 RGB, at least 16×16.

        Raises:
            InputError: on a wrong type, dtype, shape or id, or a size other than the last frame's; nothing is
                counted then.
        """
        predictions = _clip(preds, "preds", ids=self.num_classes)
        for prediction, image in zip(predictions, _image_clip(images, tuple(preds.shape)), strict=True):
            self._counter.update(prediction, image)
        self._add_counts()

    def compute(self) -> Tensor:
        """TC so far, a scalar."""
        return torch.tensor(mean_iou(self._counts.cpu().numpy()), device=self.device)


class _FollowedPredictions:
    """`temporal.TemporalConsistency` together with the flow that it needs."""

    def __init__(self, num_classes: int, mode: Mode) -> None:
        self._consistency = temporal.TemporalConsistency(num_classes, mode=mode)
        self._matcher = FrameMatcher()

    def reset(self) -> None:
        self._consistency.reset()
        self._matcher.start_sequence()

    def start_sequence(self) -> None:
        self._consistency.start_sequence()
        self._matcher.start_sequence()

    def update(self, prediction: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
        self._consistency.update(prediction, self._matcher.update(image))

    def take_counts(self) -> NDArray[np.int64]:
        return self._consistency.take_counts()


def _update_labelled(
    counter: temporal.Flicker | temporal.VideoConsistency, preds: Tensor, target: Tensor
) -> None:
    predictions, labels = _clip(preds, "preds"), _clip(target, "target")
    if preds.shape != target.shape:
        raise InputError(
            f"the shape of preds is {tuple(preds.shape)} but the target's is {tuple(target.shape)}: "
            "resize the logits to the target's size before taking the argmax"
        )
    for label, prediction in zip(labels, predictions, strict=True):
        counter.update(label, prediction)


def _clip(maps: Tensor, name: str, *, ids: int = 256) -> NDArray[np.uint8]:
    """Frames of class ids, (T, H, W) uint8, from one or several; below `ids` or refused."""
    if not isinstance(maps, Tensor):
        raise InputError(f"{name} is a {type(maps).__name__}, expected a torch tensor: use torch.as_tensor")
    if maps.dtype not in (torch.uint8, torch.int64) or maps.ndim not in (2, 3):
        raise InputError(
            f"{name} is {maps.dtype} of shape {tuple(maps.shape)}, expected uint8 or int64 class ids of shape (H, W), "
            "or (T, H, W) for consecutive frames: take the argmax over the classes, and one video at a time"
        )
    if maps.numel():
        low, high = (int(bound) for bound in torch.aminmax(maps))
        if low < 0 or high >= ids:
            raise InputError(
                f"{name} holds id {low if low < 0 else high}, expected 0 to {ids - 1}: "
                "check the number of classes, and map void to 255 in the target"
            )
    clip = maps.to(torch.uint8).cpu().numpy()
    return clip if clip.ndim == 3 else clip[None]


def _image_clip(images: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The images of predictions of `shape`, as (T, H, W, 3) uint8."""
    expected = (*shape[:-2], 3, *shape[-2:])
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or tuple(images.shape) != expected:
        got = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        raise InputError(
            f"images is {got}, expected a uint8 RGB tensor of shape {expected} for preds of shape {shape}: "
            "give the images as they were before scaling and normalising, at the size of preds"
        )
    clip = images.cpu().movedim(-3, -1).contiguous().numpy()
    return clip if clip.ndim == 4 else clip[None]
