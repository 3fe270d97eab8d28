from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.fusion import FusionContract
from lmanet.errors import InputError
from lmanet.methods.fusion import BottleneckFusion, ConcatFusion, FastGatedFusion, GatedFusion


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """BatchNorm with its running statistics, eps 1e-3."""
    mean, var, weight, bias = (
        state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


class TestGated(FusionContract):
    def make(self) -> GatedFusion:
        return GatedFusion(self.value_channels, self.channels)

    def expected(self, state, query, read):
        """Equation 6 of the paper."""

        def conv(x: Tensor, name: str) -> Tensor:
            return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

        def gate(name: str) -> Tensor:
            return 1 / (1 + torch.exp(-conv(both, name)))

        query = norm(query, state, "query_in.0").clamp(min=0)
        read = norm(read, state, "memory_in.0").clamp(min=0)
        both = torch.cat([query, read], dim=1)
        total = gate("query_gate") * conv(query, "query_encode")
        total = total + gate("memory_gate") * conv(read, "memory_encode")
        return norm(total, state, "norm").clamp(min=0)


class TestFastGated(FusionContract):
    def make(self) -> FastGatedFusion:
        return FastGatedFusion(self.value_channels, self.channels)

    def expected(self, state, query, read):
        def conv(x: Tensor, name: str) -> Tensor:
            weight = state[f"{name}.weight"][:, :, 0, 0]
            return torch.einsum("oc,bcyx->boyx", weight, x) + state[f"{name}.bias"][:, None, None]

        parts = [norm(query, state, "query_in.0"), norm(read, state, "memory_in.0")]
        both = torch.cat(parts, dim=1).clamp(min=0)
        gated = both / (1 + torch.exp(-conv(both, "gate")))
        return norm(conv(gated, "encode"), state, "norm").clamp(min=0)


class TestConcat(FusionContract):
    def make(self) -> ConcatFusion:
        return ConcatFusion(self.value_channels, self.channels)

    def expected(self, state, query, read):
        parts = [norm(query, state, "query_in.0"), norm(read, state, "memory_in.0")]
        return torch.cat(parts, dim=1).clamp(min=0)


class TestBottleneck(FusionContract):
    value_channels = 12
    norms_kept = ("norm",)
    drops = False

    def make(self) -> BottleneckFusion:
        return BottleneckFusion(self.value_channels, self.channels, width=5)

    def expected(self, state, query, read):
        def conv(x: Tensor, name: str) -> Tensor:
            weight = state[f"{name}.weight"][:, :, 0, 0]
            return torch.einsum("oc,bcyx->boyx", weight, x) + state[f"{name}.bias"][:, None, None]

        narrow = norm(conv(query, "down") + conv(read, "down"), state, "down_norm").clamp(min=0)
        total = query / (1 + torch.exp(-conv(narrow, "query_gate")))
        total = total + read / (1 + torch.exp(-conv(narrow, "memory_gate")))
        return norm(total, state, "norm").clamp(min=0)


def test_bottleneck_is_of_256_channels():
    fusion = BottleneckFusion(2048, 2048)
    shapes = {name: tuple(p.shape) for name, p in fusion.named_parameters() if p.ndim == 4}
    gate = (2048, 256, 1, 1)
    assert shapes == {"down.weight": (256, 2048, 1, 1), "query_gate.weight": gate, "memory_gate.weight": gate}


def test_bottleneck_needs_the_map_itself():
    with pytest.raises(InputError, match=r"64 channels into a map of 2048.*leave value_channels out"):
        BottleneckFusion(64, 2048)


def test_concat_needs_values_of_half_the_channels():
    with pytest.raises(InputError, match=r"gives 12, but the decoder takes 128: give value_channels=64"):
        ConcatFusion(6, 128)


@pytest.mark.parametrize("kind", [GatedFusion, FastGatedFusion, ConcatFusion])
def test_dropout_is_the_papers(kind):
    fusion = kind(64, 128)
    assert [m.p for m in fusion.modules() if isinstance(m, torch.nn.Dropout2d)] == [0.3, 0.3]
