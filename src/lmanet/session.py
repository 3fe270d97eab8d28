"""One live stream: a model, its memory, and frames coming in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lmanet.classes import check_class_count
from lmanet.errors import InputError, LmanetError, NetworkError, in_a_line
from lmanet.methods.base import VideoModel, as_video_model
from lmanet.nn.place import place_of

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Segmentation:
    """What a model says of one frame.

    Attributes:
        labels: (H, W) uint8 class ids, at the frame's own size.
        logits: (K, H, W) float, at the frame's own size.
    """

    labels: NDArray[np.uint8]
    logits: Tensor

    def probabilities(self) -> Tensor:
        """(K, H, W) float32 in [0, 1], summing to 1 over the classes."""
        return self.logits.float().softmax(0)


class Session:
    """Labels one stream frame by frame, in constant memory however long it is.

    It labels with an optimised copy of the model as it is now (`VideoModel.optimize`): the model stays as it
    is, and what becomes of it later has no effect here. Sessions that are given an optimised model share it.

    ```python
    session = lmanet.Session(lmanet.load("unet-camvid"))
    labels = session.step(frame).labels
    ```

    Args:
        model: any method on a network, as `lmanet.load`, `lmanet.wrap` and `lmanet.find_model` give it.
        precision: `bf16` turns the copy's weights into bfloat16: faster on CPUs and GPUs that have it, slower on those
            that do not.
        resize: (H, W) that the network sees; labels come back at the frame's own size. None: the frame's size.
        memory_size: S, frames remembered, if not the model's own.
        window: R, side of the search window in cells, odd, if not the model's own.

    Attributes:
        model: the copy that labels.
        precision: of its weights.

    Raises:
        InputError: no `VideoModel`, an unknown precision, a size below 1, a network of fewer than 2 or more than 255
            classes, or a memory size or window that the method has not.
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        precision: Precision = "fp32",
        resize: tuple[int, int] | None = None,
        memory_size: int | None = None,
        window: int | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise InputError(f"precision {precision!r}: expected 'fp32' or 'bf16'")
        if resize is not None and min(resize) < 1:
            raise InputError(f"resize {resize}: expected (H, W) of at least 1 pixel each")
        model = as_video_model(model)
        check_class_count(model.backbone.num_classes)
        changes = {"memory_size": memory_size, "window": window}
        model = model.adjusted(**{name: value for name, value in changes.items() if value is not None})
        self.model = model.optimize(torch.bfloat16 if precision == "bf16" else None)
        # A model that is in bfloat16 already stays so.
        self.precision: Precision = "bf16" if place_of(self.model).dtype is torch.bfloat16 else "fp32"
        self.resize = resize
        self._state: tuple[Tensor, ...] | None = None
        self._size: tuple[int, int] | None = None  # (H, W) of the frames that are remembered

    def reset(self) -> None:
        """Forget all past frames: the next one begins a new stream."""
        self._state = self._size = None

    @torch.inference_mode()
    def step(self, frame: NDArray[np.uint8] | Tensor) -> Segmentation:
        """Label the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB array, or (3, H, W) tensor, uint8 or float in [0, 1].

        Raises:
            InputError: not such a frame, NaN in it, or, where there is a memory, another size than the stream's
                frames before it.
            NetworkError: the network or the method fails on it.
        """
        images = _as_images(frame).to(place_of(self.model).device)
        size = (images.shape[-2], images.shape[-1])
        if self._size not in (None, size):
            # Checked here, as sizes that pad or resize to the same features would fit the memory.
            raise InputError(
                f"frame size (H, W) changed within a stream: got {size}, expected {self._size} as before; "
                "call Session.reset() to begin a new stream, or resize the frame"
            )
        if self.resize is not None and self.resize != size:
            images = F.interpolate(_as_float(images), self.resize, mode="bilinear", antialias=True)
        logits, self._state = self._checked(self._stepped(images))
        if self._state:  # what remembers nothing takes frames of any size
            self._size = size
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return Segmentation(_labels(logits), logits[0])

    def _stepped(self, images: Tensor) -> Any:
        try:
            return self.model.step(images, self._state)
        except LmanetError:
            raise
        except Exception as error:  # of the network's own code, or of a method of the user's
            height, width = images.shape[-2:]
            raise NetworkError(
                f"the network or the method {self.model.method} failed on a frame of {height}×{width}: "
                f"{in_a_line(error)}"
            ) from error

    def _checked(self, made: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What a step returned; a method of the user's own may return something else."""
        kind = self.model.State
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], kind):
            raise InputError(
                f"{type(self.model).__name__}.step returned something else than logits and a {kind.__name__}: expected "
                f"(logits, {kind.__name__}(...))"
            )
        return made

    def state_dict(self) -> dict[str, Tensor]:
        """What the stream remembers, as tensors; `load_state_dict` takes them back.

        Returns:
            The fields of the model's `State`, such as keys and values, and `size` (2,) int64, the frames' (H, W);
            nothing before the first frame, and of a method that remembers nothing.
        """
        if not self._state:
            return {}
        fields: dict[str, Tensor] = self._state._asdict()  # pyright: ignore[reportAttributeAccessIssue]
        memory = {name: x.clone(memory_format=torch.contiguous_format) for name, x in fields.items()}
        return {**memory, "size": torch.tensor(self._size)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where another session of the same model was; this one's stream is forgotten.

        What is expected is found out by one frame of the network.

        Raises:
            InputError: the entries are not those of `state_dict`, or do not fit the model; the stream stays as it is.
        """
        if not state:
            self.reset()
            return
        expected = [*self.model.State._fields, "size"]  # pyright: ignore[reportAttributeAccessIssue]
        if set(state) != set(expected) or len(expected) == 1:
            wanted = "nothing, as it remembers nothing" if len(expected) == 1 else f"{expected}, or nothing"
            raise InputError(
                f"session state with {sorted(state)} for the method {self.model.method}: expected {wanted}"
            )
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise InputError(f"session state whose {name} is a {type(value).__name__}: expected a tensor")
        size = state["size"]
        if size.shape != (2,) or size.is_floating_point() or int(size.min()) < 1:
            raise InputError(
                f"session state of size {size.tolist()}: expected (2,), the frames' height and width"
            )
        height, width = (int(n) for n in size)
        own = self._first_state((height, width))
        for name, tensor in own.items():
            if state[name].is_floating_point() != tensor.is_floating_point():
                raise InputError(
                    f"session state whose {name} are {state[name].dtype}: expected {tensor.dtype}"
                )
            if state[name].shape != tensor.shape:
                raise InputError(
                    f"session state whose {name} are {tuple(state[name].shape)}: expected {tuple(tensor.shape)}, from "
                    f"a session of the same model on frames of {height}×{width}"
                )
        self._state = self.model.State(*(state[name].to(x) for name, x in own.items()))
        self._size = (height, width)

    @torch.inference_mode()
    def _first_state(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """What is remembered of a black frame of a size (H, W): the shapes and dtypes of every state."""
        place = place_of(self.model)
        images = torch.zeros((1, 3, *(self.resize or size)), dtype=torch.uint8, device=place.device)
        return self.model.step(images)[1]._asdict()


def _as_images(frame: NDArray[np.uint8] | Tensor) -> Tensor:
    """A frame, as `Session.step` takes it, to (1, 3, H, W)."""
    if isinstance(frame, Tensor):
        if frame.ndim != 3 or frame.shape[0] != 3 or 0 in frame.shape:
            raise InputError(f"frame tensor {tuple(frame.shape)}: expected (3, H, W), RGB")
        if frame.dtype != torch.uint8 and not frame.is_floating_point():
            raise InputError(f"frame tensor of {frame.dtype}: expected uint8, or float in [0, 1]")
        return frame[None]
    if 0 in frame.shape or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(f"frame array {frame.shape} of {frame.dtype}: expected (H, W, 3) uint8, RGB")
    if not frame.flags.writeable or any(stride < 0 for stride in frame.strides):
        frame = frame.copy()
    # The batch first: with its stride, the images are channels_last to all of torch.
    return torch.from_numpy(frame)[None].permute(0, 3, 1, 2)


def _as_float(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _labels(logits: Tensor) -> NDArray[np.uint8]:
    """(1, K, H, W) logits to (H, W) uint8 ids."""
    # `max` finds the places faster than `argmax`.
    return logits[0].max(0).indices.to(torch.uint8).cpu().numpy()
