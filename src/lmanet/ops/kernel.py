"""What a kernel of local attention is: the arguments that all kernels take, and what they give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """What local attention is computed of, checked before by `lmanet.ops.local_attention`.

    Attributes:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64, any strides.
        keys: (B, S, Ck, h, w), the query's dtype and device, any strides.
        values: (B, S, Cv, h, w), the query's dtype and device, any strides.
        window: side R of the square window in cells, odd.
        scale: factor on the scores.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    window: int
    scale: float


class Kernel(Protocol):
    """A way to compute local attention and its gradients, for `dispatch.KERNELS`: a module or an object."""

    def forward(self, inputs: Inputs, border: str) -> tuple[Tensor, Tensor]:
        """Local attention and the log-sum-exp of its scores, which the backward pass needs.

        Args:
            inputs: query, keys, values, window and scale.
            border: `mask` leaves positions outside the map out of the softmax; `zero` keeps them with score 0
                and value 0.

        Returns:
            The output (B, Cv, h, w) in the query's dtype, in memory (B, h, w, Cv), and the log-sum-exp
            (B, h, w), natural, contiguous, float32 (float64 for float64 inputs).
        """
        ...

    def backward(
        self, inputs: Inputs, output: Tensor, log_sum: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `forward`'s output with respect to query, keys and values.

        The border is no argument: positions outside the map have no gradient, and their share of the softmax
        is in the log-sum-exp.

        Args:
            inputs: as `forward` took them.
            output: (B, Cv, h, w), as `forward` returned it.
            log_sum: (B, h, w), as `forward` returned it.
            gradient: (B, Cv, h, w), of the output, in its dtype.

        Returns:
            Gradients of the shapes and dtype of query, keys and values, in memory with their channels last.
        """
        ...

    def refusal(self, query: Tensor) -> str | None:
        """Say why this kernel cannot run on tensors of this query's dtype and device; None if it can."""
        ...
