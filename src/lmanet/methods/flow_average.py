"""Flow average: what the network said of the frame before, carried along the optical flow, averaged with what it says.

    p(x) = w(x) · p_before(x + f(x)) + (1 - w(x)) · p_now(x)
    w(x) = a · exp(-|I(x) - I_before(x + f(x))| / 20)

p are class probabilities, p_before those that this formula gave; f is the flow from the present frame to the one
before; |…| is the mean absolute difference of the colours, 0 to 255. w is 0 where x + f(x) leaves the image, and
where the flow b back from there does not return: |f + b|² > 0.01 (|f|² + |b|²) + 0.5 px²
(Sundaram, Brox and Keutzer, ECCV 2010).

Ten lines that any user of OpenCV can write, and so the bar for every memory. The flow is DIS (Kroeger et al., ECCV
2016) at OpenCV's preset "fast", on the CPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmanet.backbones.base import Backbone
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel, check_fits
from lmanet.methods.following import bytes_of, flows, places, read_at

COLOUR_SCALE = 20.0
"""Difference of colours, in levels of 255, at which the frame before counts for 1/e."""

TINY = 1e-30


class FlowState(NamedTuple):
    """What a stream remembers.

    Attributes:
        images: (B, 3, H, W) uint8, the frame before.
        probabilities: (B, K, H, W) float32 (float64 of a float64 network), what was said of it.
    """

    images: Tensor
    probabilities: Tensor


class FlowAverage(VideoModel):
    """The network's probabilities, averaged along the optical flow.

    p(x) = w(x) · p_before(x + f(x)) + (1 - w(x)) · p_now(x), with the flow f by DIS. w falls with the difference of the
    colours, and is 0 where the flow back does not return; the module's text has it in full.

    Args:
        backbone: the single-frame network, trained.
        weight: a, the most that the frame before counts, 0 to below 1.

    Raises:
        InputError: the weight is out of range.
    """

    method = "flow-average"
    State = FlowState
    needs_cut = False
    adjustable = ("weight",)
    not_exportable = "its optical flow is computed by OpenCV, outside of PyTorch"

    def __init__(self, backbone: Backbone, *, weight: float = 0.75) -> None:
        super().__init__(backbone)
        self.weight = weight
        self.check_arguments()

    def check_arguments(self) -> None:
        """Raise InputError unless the weight is in its range."""
        if not 0 <= self.weight < 1:
            raise InputError(f"weight {self.weight}: expected 0 to below 1, such as 0.75")

    @property
    def arguments(self) -> dict[str, Any]:
        """The weight, as the constructor takes it."""
        return {"weight": self.weight}

    def step(self, images: Tensor, state: FlowState | None = None) -> tuple[Tensor, FlowState]:
        """Label the next frame of a stream. The first frame's labels are the network's own.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; at least 16×16.
            state: what the last step returned; None begins a new stream.

        Returns:
            Logarithms of probabilities (B, K, H, W), float32 (float64 of a float64 network), and the state for the
            next frame.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """
        logits = self.backbone.segment(images)
        present = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
        pixels = bytes_of(images)
        if state is not None:
            check_fits(present, state.probabilities, "probabilities")
            flow, returns = flows(pixels, state.images)
            grid, inside = places(flow)
            before = read_at(state.images.to(present.dtype), grid)
            colours = (pixels - before).abs().mean(1, keepdim=True)
            weight = self.weight * torch.exp(-colours / COLOUR_SCALE) * (inside & _agree(flow, returns, grid))
            carried = read_at(state.probabilities, grid)
            present = torch.lerp(present, carried, weight.to(present.dtype))
        return present.clamp_min(TINY).log(), FlowState(pixels, present)


def _agree(flow: Tensor, returns: Tensor, grid: Tensor) -> Tensor:
    """Whether the flow back from where a flow leads returns: (B, 1, H, W)."""
    back = read_at(returns, grid)
    residual = (flow + back).square().sum(1, keepdim=True)
    return residual <= 0.01 * (flow.square() + back.square()).sum(1, keepdim=True) + 0.5
