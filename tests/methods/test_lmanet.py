"""The paper's method by itself; what it does as every method is in `contracts.method`, for every backbone in
`contracts.backbone`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.method import MethodContract
from contracts.networks import DEVICES, TinyBackbone, lively, seeded
from lmanet import ERFNet, LMANet, VideoModel
from lmanet.errors import InputError
from lmanet.methods.memory import MemoryState


class TestLMANet(MethodContract):
    kind = LMANet
    arguments: ClassVar = {"key_channels": 8, "value_channels": 12, "memory_size": 3, "window": 5}
    adjustments: ClassVar = {"memory_size": 2, "window": 3, "border": "zero", "attention": "reference"}

    @classmethod
    def prepare(cls, model: VideoModel) -> None:
        """As after a training: some places match better than others."""
        assert isinstance(model, LMANet)
        for project in (model.key_value.query_key, model.key_value.memory_key):
            project.weight.data *= 10


def make(**options) -> LMANet:
    options = {"key_channels": 4, "value_channels": 6, "memory_size": 3, "window": 3} | options
    return lively(LMANet(TinyBackbone(), **options)).eval()


@pytest.fixture(params=DEVICES)
def segmenter(request) -> Iterator[LMANet]:
    with seeded(), torch.no_grad():
        yield make().to(request.param).double()


def frames(segmenter: LMANet, count: int, size: tuple[int, int] = (18, 27)) -> Tensor:
    device = next(segmenter.parameters()).device
    return torch.rand(count, 1, 3, *size, dtype=torch.float64).to(device)


def test_first_frame_is_its_own_memory(segmenter):
    (image,) = frames(segmenter, 1)
    logits, state = segmenter.step(image)
    fused = segmenter.backbone.encode(F.pad(image, (0, 1, 0, 2), mode="replicate")).fused
    key, value = segmenter.key_value.memory(fused)
    for number in range(3):
        torch.testing.assert_close(state.keys[:, number], key)
        torch.testing.assert_close(state.values[:, number], value)
    again, _ = segmenter.step(image, MemoryState(key[:, None], value[:, None]))
    torch.testing.assert_close(again, logits)


def test_step_is_encode_recall_fuse_decode(segmenter):
    """The data's way, in small steps that a reader can follow: the memory of one frame, a window of one cell."""
    segmenter = segmenter.adjusted(window=1)
    first, second = frames(segmenter, 2, (16, 24))
    _, value = segmenter.key_value.memory(segmenter.backbone.encode(first).fused)
    _, state = segmenter.step(first)
    features = segmenter.backbone.encode(second)
    _, query_value = segmenter.key_value.query(features.fused)
    expected = segmenter.backbone.decode(features.with_fused(segmenter.fusion(query_value, value)), (16, 24))
    torch.testing.assert_close(segmenter.step(second, state)[0], expected)


def test_the_past_counts_for_as_long_as_the_memory_lasts(segmenter):
    clip = frames(segmenter, 5)
    expected = segmenter(clip.transpose(0, 1))
    for age in range(1, 5):
        changed = clip.clone()
        changed[-1 - age] = 1 - changed[-1 - age]
        assert torch.equal(segmenter(changed.transpose(0, 1)), expected) == (age > 3)


def test_skip_maps_are_the_current_frame_s(segmenter):
    segmenter.fusion.register_forward_hook(lambda *_: torch.zeros(1, 12, 5, 7).to(clip))
    clip = frames(segmenter, 3)
    fresh, _ = segmenter.step(clip[2])
    torch.testing.assert_close(segmenter(clip.transpose(0, 1)), fresh)


@pytest.mark.parametrize(("memory_size", "window"), [(1, 1), (1, 7), (5, 3), (6, 99)])
def test_memory_size_and_window_may_change_after_training(segmenter, memory_size, window):
    clip = frames(segmenter, 7)
    before = segmenter(clip.transpose(0, 1))
    segmenter = segmenter.adjusted(memory_size=memory_size, window=window)
    state = None
    for image in clip:
        logits, state = segmenter.step(image, state)
    assert state.keys.shape == (1, memory_size, 4, 5, 7)
    torch.testing.assert_close(segmenter(clip.transpose(0, 1)), logits)
    assert not torch.allclose(logits, before)


def test_memory_size_holds_for_streams_that_start_later(segmenter):
    clip = frames(segmenter, 2)
    _, state = segmenter.step(clip[0])
    longer = segmenter.adjusted(memory_size=5)
    assert longer.step(clip[1], state)[1].size == 3
    assert longer.step(clip[1])[1].size == 5


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 24)])
def test_any_size_is_padded_by_its_edge_and_cut_back(segmenter, size):
    (image,) = frames(segmenter, 1, size)
    below, right = -size[0] % 4, -size[1] % 4
    padded = F.pad(image, (0, right, 0, below), mode="replicate")
    cut = (..., slice(size[0]), slice(size[1]))
    torch.testing.assert_close(segmenter.step(image)[0], segmenter.step(padded)[0][cut])
    torch.testing.assert_close(segmenter.backbone.segment(image), segmenter.backbone(padded)[cut])


def test_bytes_are_floats_over_255(segmenter):
    images = (frames(segmenter, 1)[0] * 255).byte()
    logits, _ = segmenter.step(images)
    torch.testing.assert_close(segmenter.step(images.double() / 255)[0], logits, rtol=1e-5, atol=1e-6)
    clip = images[:, None].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(segmenter(clip), logits)


@pytest.mark.parametrize("network", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_images_of_any_float_dtype_suit_a_network_of_any(segmenter, network, images):
    segmenter.to(network)
    image = frames(segmenter, 1)[0]
    image = (image * 255).byte() if images == torch.uint8 else image.to(images)
    logits, state = segmenter.step(image)
    assert {logits.dtype, state.keys.dtype, state.values.dtype} == {network}


def test_bfloat16_is_close(segmenter):
    segmenter.float()
    clip = frames(segmenter, 4).transpose(0, 1).float()
    with torch.autocast(clip.device.type, torch.bfloat16):
        low = segmenter(clip)
    assert low.dtype == torch.bfloat16
    expected = segmenter(clip)
    assert (low - expected).norm() < 0.03 * expected.norm()


def test_backends_and_borders_are_passed_on(segmenter):
    clip = frames(segmenter, 3).transpose(0, 1)
    expected = segmenter(clip)
    reference = segmenter.adjusted(attention="reference")
    torch.testing.assert_close(reference(clip), expected)
    assert not torch.allclose(reference.adjusted(border="zero")(clip), expected)
    with pytest.raises(InputError, match="backend is 'magic', expected one of auto, native, tiled"):
        segmenter.adjusted(attention="magic")(clip)


@pytest.mark.parametrize(("fusion", "value_channels"), [("concat", 6), ("bottleneck", None)])
def test_other_fusions_equal_step_after_step(fusion, value_channels):
    with seeded(), torch.no_grad():
        segmenter = make(fusion=fusion, value_channels=value_channels).double()
        clip = frames(segmenter, 4)
        state = None
        for image in clip:
            logits, state = segmenter.step(image, state)
        torch.testing.assert_close(segmenter(clip.transpose(0, 1)), logits)


def test_step_compiles_as_one_graph(segmenter):
    torch.compiler.reset()
    first, second = frames(segmenter, 2)
    _, state = segmenter.step(first)
    compiled = torch.compile(segmenter.step, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(second, state), segmenter.step(second, state))


def test_weights_are_channels_last():
    weights = [p for p in make().parameters() if p.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 4}, r"window 4: expected an odd number of cells, such as 5"),
        ({"window": 0}, r"window 0: .* such as 1"),
        ({"window": -3}, r"window -3"),
        ({"memory_size": 0}, r"memory size 0: expected at least 1 .* use the method single-frame"),
        ({"fusion": "sum"}, r"fusion 'sum': expected one of gated, concat, bottleneck"),
        ({"convolutions": "slow"}, r"convolutions 'slow': expected one of paper, fast"),
        ({"fusion": "concat", "value_channels": 8}, r"gives 16, but the decoder takes 12"),
        ({"fusion": "bottleneck"}, r"values of 6 channels into a map of 12: .* leave value_channels out"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_what_is_adjusted_is_checked(segmenter):
    for name, value, message in (
        ("window", 6, "window 6"),
        ("memory_size", 0, "memory size 0"),
        ("border", "none", "border 'none': expected one of mask, zero"),
        (
            "fusion",
            "concat",
            "lmanet has no fusion to be changed: it has memory_size, window, border, attention",
        ),
    ):
        with pytest.raises(InputError, match=message):
            segmenter.adjusted(**{name: value})
    assert (segmenter.window, segmenter.memory_size) == (3, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\): expected \(B, 3, H, W\)"),
        (torch.zeros(1, 4, 8, 8), r"\(1, 4, 8, 8\): expected \(B, 3, H, W\)"),
        (torch.zeros(1, 8, 8, 3), r"\(1, 8, 8, 3\): expected"),
        (torch.zeros(1, 3, 0, 8), r"\(1, 3, 0, 8\): expected"),
        (torch.zeros(0, 3, 8, 8), r"\(0, 3, 8, 8\): expected"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), r"torch.int64: expected uint8, or float"),
        (torch.full((1, 3, 8, 8), torch.nan), r"NaN or infinity"),
        (torch.full((1, 3, 8, 8), 255.0), r"images of 255 to 255: expected .* divide by 255"),
        (torch.full((1, 3, 8, 8), -2.1), r"images of -2.1 to -2.1: expected uint8, or float in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), -torch.inf), r"NaN or infinity"),
    ],
)
def test_images_that_are_none(images, message):
    segmenter = make()
    with pytest.raises(InputError, match=message):
        segmenter.step(images)
    with pytest.raises(InputError, match=message):
        segmenter.backbone.segment(images)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 0, 3, 8, 8)])
def test_clips_that_are_none(shape):
    with pytest.raises(InputError, match=r"expected \(B, T, 3, H, W\) with at least one frame"):
        make()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 18, 32), (1, 3, 16, 27), (2, 3, 18, 27)])
def test_size_must_not_change_within_a_stream(segmenter, shape):
    _, state = segmenter.step(frames(segmenter, 1)[0])
    with pytest.raises(InputError, match=r"changed within a stream"):
        segmenter.step(torch.zeros(shape).to(state.keys), state)


@pytest.mark.parametrize("border", ["mask", "zero"])
@pytest.mark.parametrize(("fusion", "value_channels"), [("gated", 6), ("concat", 6), ("bottleneck", None)])
@pytest.mark.parametrize("convolutions", ["paper", "fast"])
@torch.no_grad()
def test_optimised_copies_of_every_kind_give_the_same_logits(convolutions, fusion, value_channels, border):
    with seeded():
        segmenter = make(
            convolutions=convolutions, fusion=fusion, value_channels=value_channels, border=border
        )
        clip = torch.rand(2, 4, 3, 18, 27)
    expected = segmenter(clip)
    error = (segmenter.optimize()(clip) - expected).abs().max()
    assert error < 1e-4 * (expected.max() - expected.min())
    low = segmenter.optimize(torch.bfloat16)(clip)
    assert (low - expected).norm() < 0.03 * expected.norm()


def test_fast_convolutions_see_one_cell():
    segmenter = make(convolutions="fast")
    modules = [*segmenter.key_value.modules(), *segmenter.fusion.modules()]
    assert {m.kernel_size for m in modules if isinstance(m, torch.nn.Conv2d)} == {(1, 1)}


def test_value_channels_go_with_the_convolutions():
    paper, fast = (LMANet(ERFNet(3), convolutions=name) for name in ("paper", "fast"))
    assert (paper.value_channels, fast.value_channels) == (64, 32)
    assert LMANet(ERFNet(3), convolutions="fast", value_channels=48).value_channels == 48
    bottleneck = LMANet(ERFNet(3), fusion="bottleneck")
    assert (paper.key_channels, bottleneck.key_channels, bottleneck.value_channels) == (16, 128, 128)


def test_an_optimised_copy_leaves_the_model_as_it_is(segmenter):
    before = {name: x.clone() for name, x in segmenter.state_dict().items()}
    segmenter.train()
    fast = segmenter.optimize()
    assert segmenter.training and not any(module.training for module in fast.modules())
    assert all(p.requires_grad for p in segmenter.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    after = segmenter.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], x) for name, x in before.items())
    assert fast.optimize() is fast
    low = fast.optimize(torch.bfloat16)
    assert next(fast.parameters()).dtype == torch.float64 and next(low.parameters()).dtype == torch.bfloat16
    assert fast.adjusted(window=5).window == 5 and fast.window == segmenter.window == 3


@pytest.mark.parametrize(
    ("channels", "stride", "convolutions", "expected"),
    [
        (128, 8, "paper", (16, 64, 21)),
        (128, 8, "fast", (16, 32, 21)),
        (12, 4, "paper", (16, 32, 21)),
        (256, 16, "paper", (32, 128, 11)),
        (2048, 32, "paper", (64, 128, 5)),
    ],
)
def test_widths_and_window_fit_the_map(channels, stride, convolutions, expected):
    backbone = TinyBackbone()
    backbone.channels, backbone.stride = channels, stride
    model = LMANet(backbone, convolutions=convolutions)
    assert (model.key_channels, model.value_channels, model.window) == expected
    assert LMANet(backbone, fusion="bottleneck").value_channels == channels
