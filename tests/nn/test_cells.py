"""Between pixels and cells."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.networks import DEVICES, seeded
from lmanet.nn import cells as module
from lmanet.nn.cells import label_shares, rewritten, upsampled


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(24, 32), (12, 16), (9, 12), (7, 10), (6, 64)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampling_is_bilinear(size, device, layout):
    with seeded():
        cells = torch.randn(2, 5, 3, 4).to(device, memory_format=layout)
    expected = F.interpolate(cells, size, mode="bilinear", align_corners=False)
    for given in (cells, cells.clone().requires_grad_()):
        torch.testing.assert_close(upsampled(given, size), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("size", "rows"), [((72, 16), 18), ((44, 16), 11), ((45, 17), 15), ((66, 12), 11)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_band_by_band_is_all_at_once(size, rows, device, layout):
    with seeded():
        logits = torch.randn(2, 5, *size).to(device, memory_format=layout)
        cells = torch.randn(2, 3, rows, 4).to(device, memory_format=layout)

    def mixed(logits: Tensor, pixels: Tensor) -> Tensor:
        return logits * pixels.sum(1, keepdim=True)

    expected = mixed(logits, upsampled(cells, size))
    learning = logits.clone().requires_grad_()
    for rewrite in (mixed, lambda logits, pixels: logits.mul_(pixels.sum(1, keepdim=True))):
        torch.testing.assert_close(rewritten(logits.clone(), cells, rewrite), expected)
        torch.testing.assert_close(rewritten(learning, cells, rewrite).detach(), expected)
        assert learning.equal(logits), "what is trained is not written over"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(12, 16), (13, 18), (3, 4), (5, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shares_are_those_of_the_pixels_in_a_cell(size, device, layout):
    rows, columns, classes = 3, 4, 5
    with seeded():
        logits = torch.randn(2, classes, *size).to(device, memory_format=layout)
    got = label_shares(logits, (rows, columns))
    labels = logits.argmax(1).cpu()
    cell_of = [[i * m // n for i in range(n)] for n, m in zip(size, (rows, columns), strict=True)]
    for n, y, x in itertools.product(range(2), range(rows), range(columns)):
        inside = [
            int(labels[n, i, j])
            for i, j in itertools.product(range(size[0]), range(size[1]))
            if (cell_of[0][i], cell_of[1][j]) == (y, x)
        ]
        expected = torch.tensor([inside.count(k) / len(inside) for k in range(classes)])
        assert torch.equal(got[n, :, y, x].cpu(), expected)
    assert got.dtype == torch.float32 and got.is_contiguous(memory_format=torch.channels_last)


class Shares(torch.nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return label_shares(logits, (3, 4))


def test_what_is_traced_leaves_nothing_behind():
    """The table of bins is kept from frame to frame; one that a trace makes is no tensor outside of it."""
    module._known_bins_of.cache_clear()
    with seeded():
        logits = torch.randn(1, 5, 13, 18)
    program = torch.export.export(Shares(), (logits,), strict=False).module()
    assert module._known_bins_of.cache_info().currsize == 0
    expected = label_shares(logits, (3, 4))
    assert type(expected) is Tensor and torch.equal(program(logits), expected)
    compiled = torch.compile(Shares(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(1 - logits), label_shares(1 - logits, (3, 4)))


def test_bins_made_in_inference_mode_serve_training():
    module._known_bins_of.cache_clear()
    logits = torch.randn(1, 5, 13, 18)
    with torch.inference_mode():
        expected = label_shares(logits, (3, 4))
    weight = torch.ones(5, requires_grad=True)
    (label_shares(logits, (3, 4)).sum((0, 2, 3)) * weight).sum().backward()
    torch.testing.assert_close(weight.grad, expected.sum((0, 2, 3)))
