"""The contract of every method: how a single-frame network labels a video, frame by frame."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lmanet.backbones.base import Backbone, Features
from lmanet.classes import Classes, numbered_classes
from lmanet.errors import InputError
from lmanet.nn.place import place_of

RECURRENT_PAST = 64
"""Frames after which 0 to 1 % of the pixels still differ (docs/guide/label-video.md)."""


class VideoModel(nn.Module, ABC):
    """A single-frame network and the way it labels a video: what a `Session` runs.

    A method is a class made from this one. Its constructor takes the network and keyword arguments that are JSON
    values, and `arguments` gives them back: so it is saved, loaded and built by its name. All that a stream
    remembers is in the state that `step` takes and returns; nothing of it is kept in the module, so one model serves
    any number of streams.

    Args:
        backbone: the single-frame network.

    Attributes:
        method: name in `lmanet.methods.METHODS`, in weights files and for `--method`.
        State: what a stream remembers: a NamedTuple of tensors whose shapes depend on the frames' size alone. Its
            fields name the inputs and outputs of an exported step.
        adjustable: arguments that may be changed without training (`adjusted`).
        trainable: whether `lmanet train` can train it; its class is made from `TrainableVideoModel` then.
        needs_cut: whether it uses the fused map, inside of the network, for which a network of one's own is cut in two;
            not where it needs the network's output alone.
        not_exportable: why `step` cannot be a graph of torch.export or torch.compile; None if it can.
        backbone: the single-frame network.
        card: where the weights came from; None if that is not known.
        optimized: whether this is a copy that `optimize` made.
    """

    method: ClassVar[str]
    State: ClassVar[type[tuple[Tensor, ...]]]
    adjustable: ClassVar[tuple[str, ...]] = ()
    trainable: ClassVar[bool] = False
    needs_cut: ClassVar[bool] = True
    not_exportable: ClassVar[str | None] = None

    backbone: Backbone
    card: dict[str, Any] | None = None
    optimized: bool = False

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise InputError(
                f"a {type(self).__name__} around a {type(backbone).__name__}: expected an lmanet.Backbone; "
                f"lmanet.wrap(model, {self.method!r}) takes any network"
            )
        if self.needs_cut and backbone.not_cut is not None:
            raise InputError(
                f"{self.method} needs a network that is cut in two, and {backbone.not_cut}: give the network itself, "
                f"lmanet.wrap(network, {self.method!r}), or a backbone that another method with a memory has"
            )
        self.backbone = backbone

    @abstractmethod
    def step(self, images: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Label the next frame of a stream.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; any size, padded inside to one that the network takes.
            state: what the last step returned, a `State`; None begins a new stream.

        Returns:
            Logits (B, K, H, W), and the `State` for the next frame.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """

    @property
    def arguments(self) -> dict[str, Any]:
        """What builds this model on its backbone again, as JSON values: `type(model)(backbone, **model.arguments)`."""
        return {}

    @property
    def past_frames(self) -> int:
        """How many frames a stream that begins late must see, until its labels are those of one that began early.

        Here a number for methods whose memory holds what they said before: they forget slowly, and a few pixels stay
        other for longer. Methods that need fewer say so, those that need none 0.
        """
        return RECURRENT_PAST

    @property
    def classes(self) -> Classes:
        """Names and colours of the classes; of a network that does not know them numbers and generated colours."""
        return self.backbone.classes or numbered_classes(self.backbone.num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the last frame of a clip (B, T, 3, H, W), by `step` after `step`.

        Raises:
            InputError: not a clip, or see `step`.
        """
        check_clip(clip)
        logits, state = self.step(clip[:, 0])
        for images in clip.unbind(1)[1:]:
            logits, state = self.step(images, state)
        return logits

    def adjusted(self, **arguments: float | str) -> Self:
        """The same model run otherwise: it shares its weights, and the mode of its parts, with this one.

        Args:
            arguments: new values of some of the arguments that are `adjustable`, such as `memory_size=4`.

        Raises:
            InputError: the method has no such argument, or the value is out of range.
        """
        if not arguments:
            return self
        unknown = [name for name in arguments if name not in self.adjustable]
        if unknown:
            raise InputError(
                f"{self.method} has no {unknown[0].replace('_', ' ')} to be changed: it has "
                f"{', '.join(self.adjustable) or 'nothing that can be'}"
            )
        other = copy.copy(self)
        # The tensors and modules are shared, what holds them is not: another module put in one is not in the other.
        for kept in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
            object.__setattr__(other, kept, vars(self)[kept].copy())
        for name, value in arguments.items():
            setattr(other, name, value)
        other.check_arguments()
        return other

    def check_arguments(self) -> None:
        """Check the arguments that `adjusted` may change; the constructor calls it too.

        Raises:
            InputError: one is out of range.
        """

    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference, as fast as it gets: BatchNorm folded into the convolutions around it.

        The logits are this model's up to rounding, and labels differ only where two classes are that close: in
        float32 logits within 1e-4 of their range (the bundled models: 1e-6), with bfloat16 weights within 3 % by norm
        (the bundled models: 0.6 %, as under autocast). What a stream remembers is the same too, so a stream may go
        on from one to the other. `Session` calls this by itself.

        Args:
            dtype: of the copy's weights, such as `torch.bfloat16`; this model's if not given.

        Returns:
            The copy, in `eval` mode, on the same device, without gradients. It can neither be trained nor saved.
            This model itself if it is such a copy already.
        """
        if self.optimized and dtype in (None, place_of(self).dtype):
            return self
        # All but the backbone is copied, which makes its own copy.
        fast = copy.deepcopy(self, {id(self.backbone): self.backbone.optimize(dtype)})
        if not fast.optimized:
            fast.fold_norms()
            fast.optimized = True
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)

    def fold_norms(self) -> None:
        """Fold BatchNorm of all but the backbone into the convolutions around it, in place; `optimize` calls it."""


class TrainableVideoModel(VideoModel):
    """A method that is trained on frames that were each observed once, by a frozen network.

    Attributes:
        trains_decoder: whether the network's decoder is trained with it, in step 2; if not, what it gives without a
            past is the network's own output, and the network is its control.
    """

    trainable = True
    trains_decoder: ClassVar[bool] = True

    @abstractmethod
    def observe(self, images: Tensor) -> Features:
        """What the training keeps of frames (B, 3, H, W): `fused` also as a memory, the rest as the current frame."""

    @abstractmethod
    def observed_parts(self) -> tuple[nn.Module, ...]:
        """The parts whose weights `observe` depends on."""

    @abstractmethod
    def from_observed(self, frame: Features, memory: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) of observed frames.

        Args:
            frame: the current frames, as `observe` gave them.
            memory: the fused maps (B, S, C, h, w) of the frames in their memories; None makes the control, whose memory
                holds the current frame.
            size: (H, W).
        """


class StepGraph(nn.Module):
    """A model's `step` as the forward of a module, for torch.export and torch.compile.

    ```python
    _, state = model.step(images)
    program = torch.export.export(StepGraph(model), (images, state), strict=False)
    ```

    Args:
        model: of a method that is exportable, for inference best an `optimize`d copy.

    Raises:
        InputError: the method cannot be a graph; the message says why.
    """

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        if model.not_exportable is not None:
            raise InputError(
                f"{model.method} cannot be exported or compiled: {model.not_exportable}; choose another method"
            )
        self.model = model

    def forward(self, images: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The next frame of a stream: images (B, 3, H, W) and a state to logits (B, K, H, W) and the next state."""
        return self.model.step(images, state)


def as_video_model(model: object) -> VideoModel:
    """A model that keeps the contract, as it is.

    Raises:
        InputError: it is something else; the message says how it becomes one.
    """
    if not isinstance(model, VideoModel):
        raise InputError(
            f"got a {type(model).__name__}: expected an lmanet.VideoModel; lmanet.wrap(model, 'single-frame') makes "
            f"one of any network, with other methods one that steadies it"
        )
    return model


def check_clip(clip: Tensor) -> None:
    """Raise InputError unless a clip is (B, T, 3, H, W) with at least one frame."""
    if clip.ndim != 5 or clip.shape[1] < 1:
        raise InputError(f"clip {tuple(clip.shape)}: expected (B, T, 3, H, W) with at least one frame")


def check_fits(frame: Tensor, remembered: Tensor, what: str) -> None:
    """Check that a frame goes on with what a stream remembers.

    Args:
        frame: a map (B, C, h, w) of the present frame.
        remembered: the map of a frame before.
        what: they are, for the message, such as `keys`.

    Raises:
        InputError: their shapes differ.
    """
    if frame.shape != remembered.shape:
        raise InputError(
            f"a frame with {what} {tuple(frame.shape)} (B, C, h, w) came to a memory of {tuple(remembered.shape)}: the "
            f"frame size, batch size or network changed within a stream; start a new one with state None "
            f"(Session.reset())"
        )
