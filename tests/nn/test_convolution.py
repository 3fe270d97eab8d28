from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from contracts.networks import lively, seeded
from lmanet.nn.convolution import convolve_as_one, fold_norm, fold_scale, split_norm


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with seeded(), torch.no_grad():
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"stride": 2}, {"padding": (2, 0), "dilation": 2, "groups": 2}]
)
def test_as_one_is_each_by_itself(options):
    convolutions = [nn.Conv2d(4, outputs, 3, **options) for outputs in (2, 6, 4)][
        :: 1 if "groups" not in options else 3
    ]
    x = torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(
        convolve_as_one(convolutions, x), torch.cat([conv(x) for conv in convolutions], 1)
    )


def test_as_one_trains_each():
    convolutions, x = [nn.Conv2d(4, outputs, 3) for outputs in (2, 6)], torch.randn(2, 4, 9, 11)
    gradients = []
    with torch.enable_grad():
        for joint in (convolve_as_one(convolutions, x), torch.cat([conv(x) for conv in convolutions], 1)):
            loss = (joint**2).sum()
            gradients.append(
                torch.autograd.grad(loss, [p for conv in convolutions for p in conv.parameters()])
            )
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("convolution", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_norm_is_convolution_and_norm(convolution, bias):
    network = lively(
        nn.Sequential(convolution(4, 6, 3, stride=2, bias=bias), nn.BatchNorm2d(6, eps=1e-2))
    ).eval()
    network.to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 9, 11)
    expected = network(x)
    network[1] = fold_norm(network[0], network[1])
    assert isinstance(network[1], nn.Identity)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x), expected)


def test_split_norm_is_the_norm():
    norm = lively(nn.BatchNorm2d(7, eps=1e-2)).eval()
    x = torch.randn(2, 7, 5, 6)
    first, second = split_norm(norm, 3)
    torch.testing.assert_close(torch.cat([first(x[:, :3]), second(x[:, 3:])], 1), norm(x))


def test_folded_scale_and_shift_are_the_norm_of_a_weighted_sum():
    left, right, norm = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3), lively(nn.BatchNorm2d(6, eps=1e-2)).eval()
    x, weights = torch.randn(2, 4, 9, 11), torch.rand(2, 6, 7, 9)
    expected = norm(weights * left(x) + (1 - weights) * right(x))
    shift = fold_scale((left, right), norm)
    torch.testing.assert_close(shift(weights * left(x) + (1 - weights) * right(x)), expected)
