"""What every backend of local attention keeps, against the reference in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmanet.errors import InputError
from lmanet.ops import attention_weights, dispatch, global_attention, local_attention

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
BORDERS = ["mask", "zero"]
# (map, window, frames, batch): maps of one cell, below and above a tile and no multiple of one; windows of
# one cell up to larger than the map.
CASES = [
    ((1, 1), 1, 1, 1),
    ((1, 1), 5, 3, 2),
    ((5, 7), 3, 2, 1),
    ((5, 7), 9, 5, 2),
    ((5, 7), 41, 1, 1),
    ((17, 13), 1, 2, 1),
    ((17, 13), 3, 4, 1),
    ((17, 13), 9, 2, 2),
    ((3, 40), 5, 1, 2),
    ((33, 9), 21, 1, 1),
]


def make_inputs(
    shape: tuple[int, int] = (9, 11),
    *,
    size: int = 2,
    batch: int = 1,
    key_channels: int = 4,
    value_channels: int = 6,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, keys and values of standard normal entries."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, *shape, generator=generator, dtype=torch.float64).to(device, dtype)

    return draw(batch, key_channels), draw(batch, size, key_channels), draw(batch, size, value_channels)


def exact(inputs: tuple[Tensor, ...], **options) -> Tensor:
    """The reference in float64."""
    return local_attention(*(x.double() for x in inputs), backend="reference", **options)


def gradients(inputs: tuple[Tensor, ...], backend: str, **options) -> tuple[Tensor, ...]:
    """Gradients of a fixed random projection of the output."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    output = local_attention(*leaves, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    projection = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    return torch.autograd.grad(output, leaves, projection)


class AttentionContract:
    """Inherit it, name the backend, and say where it has gradients."""

    backend: str
    devices_with_gradients: tuple[str, ...] = ("cpu", "cuda")
    low_precisions: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16)
    examples: int = 25
    """How many random shapes are tried."""

    @pytest.fixture(params=DEVICES)
    def device(self, request) -> str:
        return request.param

    @pytest.fixture
    def differentiable(self, device) -> str:
        if device not in self.devices_with_gradients:
            pytest.skip(f"{self.backend} has no gradients on {device}; that it says so is tested")
        return device

    def run(self, inputs: tuple[Tensor, ...], **options) -> Tensor:
        return local_attention(*inputs, backend=self.backend, **options)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize(("shape", "window", "size", "batch"), CASES)
    def test_output_is_the_reference_s(self, device, shape, window, size, batch, border):
        inputs = make_inputs(shape, size=size, batch=batch, device=device)
        output = self.run(inputs, window=window, border=border, scale=0.7)
        expected = exact(inputs, window=window, border=border, scale=0.7)
        assert output.dtype == torch.float32 and output.movedim(1, -1).is_contiguous()
        torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize(("shape", "window", "size", "batch"), CASES)
    def test_gradients_are_the_reference_s(self, differentiable, shape, window, size, batch, border):
        inputs = make_inputs(shape, size=size, batch=batch, device=differentiable)
        options = {"window": window, "border": border, "scale": 0.7}
        got = gradients(inputs, self.backend, **options)
        expected = gradients(tuple(x.double() for x in inputs), "reference", **options)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("border", BORDERS)
    def test_gradcheck(self, differentiable, border):
        inputs = make_inputs(
            (3, 4), key_channels=2, value_channels=2, dtype=torch.float64, device=differentiable
        )
        leaves = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(lambda *x: self.run(x, window=3, border=border, scale=0.5), leaves)

    def test_any_shape(self):
        @settings(max_examples=self.examples, deadline=None, derandomize=True)
        @given(
            height=st.integers(1, 20),
            width=st.integers(1, 20),
            radius=st.integers(0, 12),
            size=st.integers(1, 3),
            border=st.sampled_from(BORDERS),
            scale=st.floats(-2, 2),
            seed=st.integers(0, 2**16),
        )
        def check(height, width, radius, size, border, scale, seed):
            inputs = make_inputs((height, width), size=size, key_channels=3, value_channels=2, seed=seed)
            options = {"window": 2 * radius + 1, "border": border, "scale": scale}
            output = self.run(inputs, **options)
            torch.testing.assert_close(output.double(), exact(inputs, **options), rtol=1e-3, atol=1e-4)

        check()  # a given test cannot itself be inherited by several classes

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision(self, device, dtype):
        if dtype not in self.low_precisions:
            with pytest.raises(InputError, match=f"cannot run: .*{dtype}"):
                self.run(make_inputs(dtype=dtype, device=device), window=9)
            return
        inputs = make_inputs((17, 13), dtype=dtype, device=device)
        output = self.run(inputs, window=9)
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), exact(inputs, window=9), rtol=2e-2, atol=2e-2)

    def test_low_precision_gradients(self, differentiable):
        inputs = make_inputs((17, 13), dtype=torch.bfloat16, device=differentiable)
        got = gradients(inputs, self.backend, window=9)
        expected = gradients(tuple(x.double() for x in inputs), "reference", window=9)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == torch.bfloat16
            torch.testing.assert_close(one.double(), other, rtol=5e-2, atol=5e-2)

    @pytest.mark.parametrize("scale", [30.0, -30.0, 1e4])
    def test_peaked_scores_stay_finite_and_right(self, device, scale):
        inputs = make_inputs((9, 11), device=device, dtype=torch.float64)
        output = self.run(inputs, window=5, scale=scale)
        torch.testing.assert_close(output, exact(inputs, window=5, scale=scale), rtol=1e-6, atol=1e-6)

    def test_nan_is_not_hidden(self, device):
        query, keys, values = make_inputs(device=device)
        query[0, 0, 4, 4] = torch.nan
        output = self.run((query, keys, values), window=3)
        assert output[0, :, 4, 4].isnan().all()
        assert output[0, :, 0, 0].isfinite().all()

    def test_strides_do_not_matter(self, device):
        query, keys, values = make_inputs((9, 11), size=3, batch=2, device=device)
        expected = self.run((query, keys, values), window=5)
        channels_last = query.contiguous(memory_format=torch.channels_last)
        sliced = torch.stack([keys, keys], dim=-1)[..., 0]
        transposed = values.transpose(-1, -2).contiguous().transpose(-1, -2)
        torch.testing.assert_close(self.run((channels_last, sliced, transposed), window=5), expected)
        frames = keys.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, keys.shape[:2])
        torch.testing.assert_close(self.run((query, frames, values), window=5), expected)

    def test_expanded_memory_is_one_frame(self, differentiable):
        query, keys, values = make_inputs(size=1, device=differentiable)
        leaves = [x.requires_grad_() for x in (query, keys, values)]
        expanded = (query, keys.expand(-1, 4, -1, -1, -1), values.expand(-1, 4, -1, -1, -1))
        one, four = self.run((query, keys, values), window=5), self.run(expanded, window=5)
        torch.testing.assert_close(four, one)
        for a, b in zip(
            torch.autograd.grad(four.square().sum(), leaves),
            torch.autograd.grad(one.square().sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("border", BORDERS)
    def test_equal_copies_are_one_frame(self, device, border):
        query, keys, values = make_inputs(size=1, device=device)
        copies = (query, keys.repeat(1, 3, 1, 1, 1), values.repeat(1, 3, 1, 1, 1))
        one = self.run((query, keys, values), window=5, border=border)
        torch.testing.assert_close(self.run(copies, window=5, border=border), one)

    def test_order_of_frames_does_not_matter(self, device):
        query, keys, values = make_inputs(size=4, device=device)
        order = [2, 0, 3, 1]
        expected = self.run((query, keys, values), window=5)
        torch.testing.assert_close(self.run((query, keys[:, order], values[:, order]), window=5), expected)

    def test_samples_do_not_mix(self, device):
        inputs = make_inputs(batch=3, device=device)
        together = self.run(inputs, window=5)
        alone = torch.cat([self.run(tuple(x[i : i + 1] for x in inputs), window=5) for i in range(3)])
        torch.testing.assert_close(together, alone)

    def test_window_over_everything_is_global(self, device):
        inputs = make_inputs((5, 7), device=device)
        expected = global_attention(*inputs, scale=0.6)
        torch.testing.assert_close(self.run(inputs, window=13, scale=0.6), expected, rtol=1e-4, atol=1e-5)

    def test_window_of_one_cell_and_frame_returns_the_values(self, device):
        inputs = make_inputs((17, 13), size=1, device=device)
        assert torch.equal(self.run(inputs, window=1), inputs[2][:, 0])

    def test_positions_outside_the_window_are_not_read(self, device):
        query, keys, values = make_inputs((17, 13), device=device)
        expected = self.run((query, keys, values), window=5)
        keys[..., 8, 6] += 3
        values[..., 8, 6] += 3
        changed = (self.run((query, keys, values), window=5) != expected).any(dim=1)[0]
        rows, columns = torch.meshgrid(torch.arange(17), torch.arange(13), indexing="ij")
        within = ((rows - 8).abs() <= 2) & ((columns - 6).abs() <= 2)
        assert torch.equal(changed.cpu(), within)

    @pytest.mark.parametrize(("border", "cell"), list(product(BORDERS, [(0, 0), (8, 3), (4, 10)])))
    def test_weights_of_a_cell_reproduce_its_output(self, device, border, cell):
        query, keys, values = make_inputs((9, 11), device=device)
        options = {"window": 5, "border": border, "scale": 0.8}
        weights = attention_weights(query, keys, cell=cell, **options)
        padded = torch.nn.functional.pad(values, [2] * 4)
        seen = padded[..., cell[0] : cell[0] + 5, cell[1] : cell[1] + 5]
        expected = torch.einsum("bsyx,bscyx->bc", weights, seen)
        output = self.run((query, keys, values), **options)
        torch.testing.assert_close(output[..., cell[0], cell[1]], expected, rtol=1e-4, atol=1e-5)

    def test_autocast_casts_mixed_inputs(self, device):
        query, keys, values = make_inputs((9, 11), device=device)
        low = tuple(x.bfloat16() for x in (query, keys, values))
        with torch.autocast(device, dtype=torch.bfloat16):
            output = self.run((query, keys.bfloat16(), values), window=5)
        assert output.dtype == torch.bfloat16
        # The same as without autocast: the scores' products inside are not lowered further.
        assert torch.equal(output, self.run(low, window=5))

    def test_mixed_inputs_are_refused_without_autocast(self, device):
        query, keys, values = make_inputs(device=device)
        with pytest.raises(InputError, match=r"keys are torch.bfloat16, expected torch.float32"):
            self.run((query, keys.bfloat16(), values), window=5)

    def test_gradients_wanted_where_there_are_none_are_refused(self, device):
        if device in self.devices_with_gradients:
            pytest.skip(f"{self.backend} has gradients on {device}")
        inputs = tuple(x.requires_grad_() for x in make_inputs(device=device))
        with pytest.raises(InputError, match="no_grad"):
            self.run(inputs, window=3)
        with torch.no_grad():
            self.run(inputs, window=3)


class KernelContract(AttentionContract):
    """For backends inside the torch operator: what torch asks of one, and memory."""

    # opcheck itself looks at the gradients of tensors that are no leaves.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("border", BORDERS)
    def test_opcheck(self, differentiable, dtype, border):
        inputs = make_inputs((5, 9), dtype=dtype, device=differentiable)
        leaves = [x.requires_grad_() for x in inputs]
        torch.library.opcheck(dispatch.local_attention, (*leaves, 3, border, 0.5, self.backend))

    def test_compiled_whole(self, differentiable):
        compiled = torch.compile(self.run, backend="aot_eager", fullgraph=True)
        for shape in ((9, 11), (5, 7), (6, 20)):
            inputs = tuple(x.requires_grad_() for x in make_inputs(shape, device=differentiable))
            got, expected = compiled(inputs, window=5), self.run(inputs, window=5)
            torch.testing.assert_close(got, expected)
            for one, other in zip(
                torch.autograd.grad(got.square().sum(), inputs),
                torch.autograd.grad(expected.square().sum(), inputs),
                strict=True,
            ):
                torch.testing.assert_close(one, other)

    def test_exported_as_one_node(self, device):
        class Attend(torch.nn.Module):
            def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
                return local_attention(query, keys, values, window=5, backend=backend)

        backend = self.backend
        inputs = make_inputs((9, 11), device=device)
        rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
        shapes = ({2: rows, 3: columns}, {3: rows, 4: columns}, {3: rows, 4: columns})
        exported = torch.export.export(Attend(), inputs, dynamic_shapes=shapes)
        calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
        assert [call for call in calls if "lmanet" in call] == ["lmanet.local_attention.default"]
        other = make_inputs((6, 20), device=device)
        torch.testing.assert_close(exported.module()(*other), self.run(other, window=5))

    def test_keeps_no_weights_for_backward(self, differentiable):
        inputs = make_inputs((24, 24), size=3, device=differentiable)
        leaves = [x.requires_grad_() for x in inputs]
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = self.run(leaves, window=11)
        log_sums = 24 * 24 * 4
        assert 0 < sum(kept.values()) <= sum(x.nbytes for x in leaves) + output.nbytes + log_sums

    def test_backward_is_deterministic(self, differentiable):
        inputs = make_inputs((17, 13), device=differentiable)
        first, second = (gradients(inputs, self.backend, window=9) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
