"""What every fusion keeps."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import DEVICES, lively, seeded

Inputs = tuple[Tensor, Tensor]


class FusionContract:
    """Inherit it, make the fusion, and say in other words what it computes. In float64."""

    value_channels = 6
    channels = 12
    norms_kept: tuple[str, ...] = ("memory_in.0",)
    """Those that no convolution can take in: the reading's is no convolution's output."""
    drops = True
    """Whether it has dropout."""

    def make(self) -> nn.Module:
        """A fusion of `value_channels` to `channels`."""
        raise NotImplementedError

    def expected(self, state: dict[str, Tensor], query: Tensor, read: Tensor) -> Tensor:
        """The output in `eval` mode, computed from the weights."""
        raise NotImplementedError

    @pytest.fixture(params=DEVICES)
    def fusion(self, request) -> Iterator[nn.Module]:
        with seeded():
            yield lively(self.make()).to(request.param).double().eval()

    @pytest.fixture
    def inputs(self, fusion) -> Inputs:
        device = next(fusion.parameters()).device
        shape = (2, self.value_channels, 5, 7)
        return tuple(torch.randn(shape, dtype=torch.float64).to(device) for _ in range(2))

    def test_output_is_the_formula_s(self, fusion, inputs):
        output = fusion(*inputs)
        assert output.shape == (2, self.channels, 5, 7)
        torch.testing.assert_close(output, self.expected(fusion.state_dict(), *inputs))

    def test_gradients_reach_both_inputs_and_every_parameter(self, fusion, inputs):
        inputs = [x.requires_grad_() for x in inputs]
        output = fusion(*inputs)
        (output * torch.randn_like(output)).sum().backward()
        for name, x in [("query", inputs[0]), ("read", inputs[1]), *fusion.named_parameters()]:
            assert x.grad is not None and x.grad.any(), name

    def test_gradcheck(self, fusion, inputs):
        # Steps this small do not cross the ReLUs' kinks, where there is no gradient to compare with.
        small = [x[:1, :, :2, :3].clone().requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(fusion, small, eps=1e-8, atol=1e-4)

    def test_eval_repeats_itself_and_training_drops_channels(self, fusion, inputs):
        assert torch.equal(fusion(*inputs), fusion(*inputs))
        fusion.train()
        assert torch.equal(fusion(*inputs), fusion(*inputs)) != self.drops

    def test_samples_do_not_mix(self, fusion, inputs):
        alone = torch.cat([fusion(*(x[i : i + 1] for x in inputs)) for i in range(2)])
        torch.testing.assert_close(fusion(*inputs), alone)

    def test_strides_of_the_inputs_do_not_matter(self, fusion, inputs):
        query, read = inputs
        channels_last = query.contiguous(memory_format=torch.channels_last)
        transposed = read.transpose(-1, -2).contiguous().transpose(-1, -2)
        torch.testing.assert_close(fusion(channels_last, transposed), fusion(query, read))

    @torch.no_grad()
    def test_folding_the_norms_changes_nothing_but_the_query_s_convolution(self, fusion, inputs):
        query_value = nn.Conv2d(4, self.value_channels, 1).to(inputs[0])
        source = torch.randn(2, 4, 5, 7, dtype=torch.float64).to(inputs[0])
        expected = fusion(query_value(source), inputs[1])
        fusion.fold_norms(query_value)
        query, read = query_value(source), inputs[1]
        before = query.clone(), read.clone()
        torch.testing.assert_close(fusion(query, read), expected)
        assert torch.equal(query, before[0]) and torch.equal(read, before[1])
        norms = [name for name, module in fusion.named_modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms == list(self.norms_kept)

    def test_weights_can_be_saved_and_loaded(self, fusion, inputs):
        buffer = io.BytesIO()
        torch.save(fusion.state_dict(), buffer)
        buffer.seek(0)
        other = self.make().to(inputs[0]).eval()
        assert not torch.equal(other(*inputs), fusion(*inputs))
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(other(*inputs), fusion(*inputs))
