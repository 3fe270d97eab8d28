from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from contracts.backbone import BackboneContract
from contracts.formulas import pspnet_decoder_by_formula, pspnet_encoder_by_formula
from contracts.networks import lively, seeded
from lmanet.backbones import PSPNet
from lmanet.errors import InputError
from lmanet.methods.lmanet import LMANet


class TestPSPNet50(BackboneContract):
    cells = (2, 3)

    def make(self) -> PSPNet:
        return PSPNet(4, layers=50)


@pytest.fixture(scope="module", params=[50, pytest.param(101, marks=pytest.mark.slow)])
def network(request) -> Iterator[PSPNet]:
    with seeded():
        yield lively(PSPNet(5, layers=request.param)).double().eval()


@pytest.mark.parametrize(("layers", "parameters"), [(50, 46_715_347), (101, 65_707_475)])
def test_number_of_parameters(layers, parameters):
    # torchvision's ResNets (25 557 032 and 44 549 160) without their classifier and 7×7 stem; then the deep stem, and
    # the 64 channels more that the first block takes from it.
    resnet = {50: 25_557_032, 101: 44_549_160}[layers] - 2_049_000 - 9_536
    resnet += 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128) + 64 * (64 + 256)
    pooling_and_head = 4 * (2048 * 512 + 2 * 512) + 4096 * 512 * 9 + 2 * 512 + 512 * 19 + 19
    assert resnet + pooling_and_head == parameters
    assert sum(p.numel() for p in PSPNet(19, layers=layers).parameters()) == parameters


@torch.no_grad()
def test_is_the_published_architecture(network):
    images = torch.rand(2, 3, 65, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fused = pspnet_encoder_by_formula(network.state_dict(), images)
    assert fused.shape == (2, 2048, 9, 13)
    torch.testing.assert_close(network.encode(images).fused, fused)
    torch.testing.assert_close(
        network(images), pspnet_decoder_by_formula(network.state_dict(), fused, (65, 97))
    )


@pytest.mark.parametrize(
    ("size", "padded"), [((1025, 2049), (1025, 2049)), ((1, 8), (1, 9)), ((64, 66), (65, 73))]
)
def test_sizes_are_multiples_of_the_stride_and_one(network, size, padded):
    assert tuple(map(network.padded_length, size)) == padded


@pytest.mark.parametrize("size", [(1, 1), (8, 9), (40, 51)])
@torch.no_grad()
def test_any_size_is_padded_by_its_edge_and_cut_back(network, size):
    images = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    below, right = (network.padded_length(n) - n for n in size)
    whole = network(F.pad(images, (0, right, 0, below), mode="replicate"))
    torch.testing.assert_close(network.segment(images), whole[..., : size[0], : size[1]])


@torch.no_grad()
def test_the_paper_s_memory_module_goes_with_it(network):
    with seeded():
        segmenter = lively(LMANet(network, fusion="bottleneck", memory_size=2, window=3)).double().eval()
    assert (segmenter.key_channels, segmenter.value_channels) == (128, 2048)
    clip = torch.rand(1, 3, 3, 33, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    logits = segmenter(clip)
    _, state = segmenter.step(clip[:, 0])
    _, state = segmenter.step(clip[:, 1], state)
    torch.testing.assert_close(state.values[:, 1], network.encode(clip[:, 1]).fused)
    torch.testing.assert_close(segmenter.step(clip[:, 2], state)[0], logits)
    torch.testing.assert_close(segmenter.optimize()(clip), logits)


def test_convolutions_are_channels_last():
    weights = [p for p in PSPNet(3, layers=50).parameters() if p.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_other_numbers_of_layers_are_refused():
    with pytest.raises(InputError, match="PSPNet of 18 layers: expected one of 50, 101"):
        PSPNet(3, layers=18)  # pyright: ignore[reportArgumentType]
