"""Wrapped networks as graphs: `torch.export`, `torch.compile`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.cuttable import CUTS, Network, made, pictures
from backbones.third_party import cut, listed
from lmanet.backbones import Wrapped
from lmanet.backbones.wrapped.forwards import TRACEABLE

NETWORKS = ("SegFormer", "smp Unet", "torchvision LRASPP", "torchvision FCN", "torchvision DeepLabV3")

one_graph = pytest.mark.skipif(not TRACEABLE, reason="one graph from PyTorch 2.14 on")
may_warn = pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
"""Of `torch.export` by Dynamo: that forwards are replaced and put back."""


class EncodeDecode(nn.Module):
    def __init__(self, backbone: Wrapped) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.decode(self.backbone.encode(images), (images.shape[-2], images.shape[-1]))


class Decode(nn.Module):
    """By itself, as in a process that has encoded nothing."""

    def __init__(self, backbone: Wrapped) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, features: Any) -> Tensor:
        return self.backbone.decode(features, (32, 40))


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()


def compiled(function: Any, backend: str = "aot_eager", **options: Any) -> Any:
    return torch.compile(function, fullgraph=True, backend=backend, **options)


def small(name: str) -> Wrapped:
    build, at, entry = CUTS[name]
    return Wrapped(made(build()), at=at, entry=entry).eval()


def assert_same(logits: Tensor, expected: Tensor) -> None:
    assert logits.dtype == expected.dtype
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def convolutions(exported: torch.export.ExportedProgram) -> int:
    return sum("conv2d" in str(node.target) for node in exported.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("name", CUTS)
@torch.no_grad()
def test_every_cut_is_exported(name):
    backbone = small(name)
    images = pictures(2, 3, 32, 40)
    exported = torch.export.export(EncodeDecode(backbone), (images,), strict=False)
    assert_same(exported.module()(images), backbone(images))
    # Nothing is run twice, or only to be thrown away.
    whole = torch.export.export(backbone.model, (images,), strict=False)
    assert convolutions(exported) == convolutions(whole)


@one_graph
@may_warn
@pytest.mark.parametrize("name", listed(CUTS, {"tuple", "written into"}))
@torch.no_grad()
def test_every_cut_is_one_graph(name):
    backbone = small(name)
    images = pictures(2, 3, 32, 40)
    both = EncodeDecode(backbone)
    assert_same(torch.export.export(both, (images,), strict=True).module()(images), backbone(images))
    graph = compiled(both)
    for x in (images, images.flip(0) + 1, pictures(3, 3, 48, 40)):
        assert_same(graph(x), backbone(x))
    assert not any("forward" in vars(module) for module in backbone.modules())


@torch.no_grad()
def test_of_another_number_of_images():
    backbone = small("tuple")
    batch = {"images": {0: torch.export.Dim("batch", min=2, max=8)}}
    exported = torch.export.export(
        EncodeDecode(backbone), (pictures(2, 3, 32, 40),), dynamic_shapes=batch, strict=False
    )
    images = pictures(5, 3, 32, 40)
    assert_same(exported.module()(images), backbone(images))


@one_graph
@torch.no_grad()
def test_encode_and_decode_are_compiled_apart():
    backbone = small("tuple")
    images = pictures(2, 3, 32, 40)
    features = compiled(backbone.encode)(images)
    assert_same(features.fused, backbone.encode(images).fused)
    assert len(backbone._layouts) == 1  # of `encode` before, not of what is compiled
    other = copy.deepcopy(features)
    assert_same(compiled(Decode(small("tuple")))(other), backbone(images))


@one_graph
def test_it_trains_as_one_graph():
    torch.manual_seed(0)
    eager = Wrapped(made(Network()), at="neck").train()
    traced = copy.deepcopy(eager)
    images, weights = pictures(2, 3, 32, 40), torch.randn(2, 5, 32, 40)
    graph = compiled(EncodeDecode(traced))
    for _ in range(2):
        (eager(images) * weights).mean().backward()
        (graph(images) * weights).mean().backward()
    for (name, p), q in zip(eager.named_parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=name)
    for (name, x), y in zip(eager.named_buffers(), traced.buffers(), strict=True):
        torch.testing.assert_close(y, x, msg=name)
    assert [m.training for m in traced.modules()] == [m.training for m in eager.modules()]


@pytest.mark.parametrize("name", listed(NETWORKS, {"SegFormer", "torchvision LRASPP"}))
@torch.no_grad()
def test_networks_of_libraries_are_exported(name):
    backbone = cut(name)
    images = pictures(1, 3, *map(backbone.padded_length, (64, 96)))
    exported = torch.export.export(EncodeDecode(backbone), (images,), strict=False)
    assert_same(exported.module()(images), backbone(images))


@one_graph
@pytest.mark.parametrize("name", listed(NETWORKS, {"SegFormer"}))
@torch.no_grad()
def test_networks_of_libraries_are_one_graph(name):
    backbone = cut(name)
    images = pictures(1, 3, *map(backbone.padded_length, (64, 96)))
    assert_same(compiled(EncodeDecode(backbone))(images), backbone(images))


@one_graph
@may_warn
@pytest.mark.slow
@torch.no_grad()
def test_networks_of_libraries_are_exported_by_dynamo():
    for name in NETWORKS:
        backbone = cut(name)
        images = pictures(1, 3, *map(backbone.padded_length, (64, 96)))
        exported = torch.export.export(EncodeDecode(backbone), (images,), strict=True)
        assert_same(exported.module()(images), backbone(images))


@one_graph
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@torch.no_grad()
def test_inductor_compiles_it():
    backbone = cut("smp Unet")
    images = pictures(1, 3, 64, 96)
    assert_same(compiled(EncodeDecode(backbone), "inductor")(images), backbone(images))
