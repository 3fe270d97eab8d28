"""Passes over the pixels of logits: every variant of the kernel against the expressions of torch functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmanet.errors import InputError
from lmanet.ops import patches
from lmanet.ops.native import NativePatches, variants
from lmanet.ops.patches import patch_means, patch_probabilities, steadied

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(params=[*variants(), "torch"], autouse=True, scope="module")
def kernel(request):
    """Every variant in turn, and what is computed without the extension."""
    before = patches.KERNEL
    patches.KERNEL = None if request.param == "torch" else NativePatches(request.param)
    yield request.param
    patches.KERNEL = before


def without_kernel(function, *inputs: Tensor):
    """What the torch expressions make of the first two inputs in float64 and the others; all stay as they are."""
    before, patches.KERNEL = patches.KERNEL, None
    try:
        return function(*(x.to(torch.float64, copy=True) for x in inputs[:2]), *inputs[2:])
    finally:
        patches.KERNEL = before


class Case:
    """Inputs of `steadied`, cut out of larger maps: batch 2, K classes, H by W pixels."""

    def __init__(
        self, classes: int, height: int, width: int, *, seed=0, spread=4.0, layout=LAYOUTS[0], cut=0
    ):
        draw = torch.Generator().manual_seed(seed)
        logits = spread * torch.randn(2, classes, height + cut, width + cut, generator=draw)
        self.logits = logits.contiguous(memory_format=layout)[..., :height, :width]
        rows, columns = -(-height // 4), -(-width // 4)
        self.change = 0.1 * torch.randn(2, classes + 1, rows, columns, generator=draw)
        self.before = torch.randint(0, classes, (2, height, width), generator=draw, dtype=torch.uint8)
        # As OpenCV gives it: right and down side by side. Some lead out of the image.
        self.flow = (0.5 * width * torch.randn(2, height, width, 2, generator=draw)).movedim(-1, 1)

    def steadied(self) -> tuple[Tensor, Tensor]:
        kept = torch.empty_strided(self.logits.shape, self.logits.stride()).copy_(self.logits)
        out, labels = steadied(kept, self.change, self.before, self.flow)
        assert out.data_ptr() == kept.data_ptr() and labels.dtype == torch.uint8
        return out, labels


def check(case: Case) -> None:
    expected = without_kernel(patch_probabilities, case.logits)
    torch.testing.assert_close(patch_probabilities(case.logits).double(), expected, rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(
        patch_means(case.logits).double(), without_kernel(patch_means, case.logits), rtol=1e-5, atol=1e-5
    )
    logits, labels = case.steadied()
    exact = without_kernel(steadied, case.logits, case.change, case.before, case.flow)[0]
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.double().exp(), exact.exp(), rtol=6e-6, atol=1e-6)
    assert torch.equal(labels, logits.argmax(1).byte())  # of the logits that were written, to the last bit


@settings(max_examples=40, deadline=None)
@given(
    classes=st.one_of(st.integers(1, 40), st.sampled_from([64, 150, 255])),
    height=st.integers(1, 14),
    width=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 70, 131])),
    layout=st.sampled_from(LAYOUTS),
    cut=st.integers(0, 5),
    spread=st.sampled_from([0.1, 4.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_any_size_and_layout_equals_torch(classes, height, width, layout, cut, spread, seed):
    check(Case(classes, height, width, layout=layout, cut=cut, spread=spread, seed=seed))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_around_a_cut_off_view_is_neither_read_nor_written(layout):
    case = Case(11, 7, 70)
    around = torch.full((2, 13, 12, 75), torch.nan).contiguous(memory_format=layout)
    view = around[:, 1:12, 2:9, 3:73]
    view.copy_(case.logits)
    got = steadied(view, case.change, case.before, case.flow)
    for one, other in zip(got, case.steadied(), strict=True):
        assert torch.equal(one, other)
    assert around.isnan().sum() == around.numel() - view.numel()


def test_maps_of_any_strides():
    case = Case(5, 9, 21)
    expected = case.steadied()
    case.logits = case.logits.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    case.change = case.change.contiguous(memory_format=torch.channels_last)
    case.before = case.before.movedim(-1, 0).contiguous().movedim(0, -1)
    case.flow = case.flow.contiguous()
    for one, other in zip(case.steadied(), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 300])
def test_means_of_bytes_and_numbers(kind, layout, channels):
    maps = torch.randint(0, 256, (2, channels, 10, 75), dtype=torch.uint8).to(kind)
    maps = maps.contiguous(memory_format=layout)
    got = patch_means(maps)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), without_kernel(patch_means, maps.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("classes", [1, 3, 19])
def test_the_first_of_equals(classes):
    case = Case(classes, 6, 37)
    case.logits = torch.full_like(case.logits, -3.0)
    case.change.zero_()
    assert not case.steadied()[1].any()
    case.change[:, -1] = 1e-3  # the label given before is preferred, where the flow leads
    case.flow.zero_()
    assert torch.equal(case.steadied()[1], case.before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extreme_logits(layout):
    case = Case(7, 5, 33, layout=layout)
    case.logits.copy_(case.logits.sign() * 1e4)
    case.logits[:, 2, 1] = 1e30  # one class beyond all others
    case.logits[:, 3, 2] = -torch.inf
    check(case)
    case.change.zero_()
    logits = case.steadied()[0]
    assert torch.equal(logits[:, 2, 1], torch.zeros_like(logits[:, 2, 1]))
    assert logits.min().item() == pytest.approx(torch.tensor(1e-30).log().item())


def test_small_losses_of_probability_are_told_apart():
    """Logarithms near 1 are small numbers, and must be as precise."""
    case = Case(2, 4, 64)
    case.change.zero_()
    case.logits[:, 0], case.logits[:, 1] = 0, -torch.linspace(2, 10, 64)
    exact = without_kernel(steadied, case.logits, case.change, case.before, case.flow)[0]
    torch.testing.assert_close(case.steadied()[0].double(), exact, rtol=2e-6, atol=1.2e-7)


@pytest.mark.parametrize("leads", [-1e9, 1e9, torch.inf, -torch.inf, torch.nan, 0.5, 1.5, -0.5])
def test_flow_out_of_the_image_and_between_pixels(leads, kernel):
    if kernel == "torch" and leads != leads:
        pytest.skip("NaN has no nearest pixel in torch")
    case = Case(4, 9, 40)
    case.flow.fill_(leads)
    case.change[:, :-1], case.change[:, -1] = 0, 10
    rows, columns = (
        (torch.arange(n) + leads).round().nan_to_num(n - 1, n - 1, 0).clamp(0, n - 1).long() for n in (9, 40)
    )
    assert torch.equal(case.steadied()[1], case.before[:, rows][:, :, columns])


def test_labels_from_k_on_are_no_class():
    case = Case(4, 9, 40)
    expected = case.steadied()
    case.before.fill_(255)
    got = case.steadied()
    case.change[:, -1] = 0
    assert not torch.equal(got[0], expected[0])
    assert torch.equal(got[0], case.steadied()[0])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads, kernel):
    if kernel == "torch":
        pytest.skip("torch divides its work otherwise for other numbers of threads")
    case = Case(11, 41, 75, layout=torch.channels_last)
    before = torch.get_num_threads()
    expected = (patch_probabilities(case.logits), *case.steadied())
    try:
        torch.set_num_threads(threads)
        got = (patch_probabilities(case.logits), *case.steadied())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_gradients_and_float64_leave_the_logits_as_they_are():
    case = Case(3, 6, 10)
    learning = case.logits.clone().requires_grad_()
    out, labels = steadied(learning, case.change, case.before, case.flow)
    assert torch.equal(learning, case.logits)
    assert torch.equal(labels, out.argmax(1).byte())
    out.sum().backward()
    assert learning.grad is not None
    assert learning.grad.isfinite().all()
    torch.testing.assert_close(out.exp(), case.steadied()[0].exp(), rtol=2e-6, atol=2e-7)
    assert patch_probabilities(case.logits.double()).dtype == torch.float64
    patch_probabilities(learning).sum().backward()


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 256, 4, 4), (1, 3, 0, 4)])
def test_logits_of_another_shape(shape):
    with pytest.raises(InputError, match="at most 255 classes"):
        patch_probabilities(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("change", torch.zeros(2, 3, 2, 3)),
        ("change", torch.zeros(2, 4, 2, 3).double()),
        ("before", torch.zeros(2, 6, 10)),
        ("before", torch.zeros(2, 6, 9, dtype=torch.uint8)),
        ("flow", torch.zeros(2, 1, 6, 10)),
    ],
)
def test_what_does_not_belong_together(name, wrong):
    case = Case(3, 6, 10)
    setattr(case, name, wrong)
    with pytest.raises(
        InputError, match=rf"{name}.*expected torch\.\w+ \(2, .* for logits of shape \(2, 3, 6, 10\)"
    ):
        case.steadied()


@pytest.mark.skipif(not variants(), reason="the kernel is not built")
def test_the_extension_checks_for_itself():
    logits, means = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 2, 3)
    with pytest.raises(ValueError, match="means must be"):
        NativePatches()._run("patch_probabilities", logits, means)
    with pytest.raises(ValueError, match="variant 'avx9' is not among those that run here"):
        NativePatches("avx9").patch_probabilities(logits)
    with pytest.raises(ValueError, match="logits must be float32"):
        NativePatches().patch_probabilities(logits.double())
