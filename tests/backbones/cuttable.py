"""Small networks to cut, each of which does one thing that networks do."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.networks import lively, seeded
from lmanet.backbones import Wrapped


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Network(nn.Module):
    """Stride 4 and back, with one skip map; what it hands from part to part is up to its children."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 2)
        self.body = conv(8, 16, 2)
        self.neck = conv(16, 12)
        self.join = conv(12 + 8, 12)
        self.head = nn.Conv2d(12, 5, 1)

    def up(self, low: Tensor, skip: Tensor) -> Tensor:
        return self.join(torch.cat([F.interpolate(low, skip.shape[-2:]), skip], 1))

    def forward(self, images: Tensor):
        skip = self.stem(images)
        return F.interpolate(
            self.head(self.up(self.neck(self.body(skip)), skip)), images.shape[-2:], mode="bilinear"
        )


class Returns(nn.Module):
    """Two maps in a container of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = conv(3, 8, 2), conv(8, 16, 2)

    def forward(self, images: Tensor):
        skip = self.first(images)
        low = self.second(skip)
        return {
            "tuple": (skip, low),
            "list": [skip, low],
            "dict": {"skip": skip, "low": low},
            "ordered": OrderedDict(skip=skip, low=low, size=images.shape[-2:], nothing=None),
        }[self.kind]


class OfParts(Network):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.parts = Returns(kind)

    def forward(self, images: Tensor):
        made = self.parts(images)
        skip, low, *_ = made.values() if isinstance(made, dict) else made
        return {"out": self.head(self.up(self.neck(low), skip))}


class Nested(nn.Module):
    """The whole network two levels further down."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.Sequential(OrderedDict(inner=Network()))

    def forward(self, images: Tensor) -> Tensor:
        return self.outer(images)


class CodeBetween(Network):
    """What lies between its submodules is its own code, on its own parameter, with a ReLU that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(16, 1, 1))
        self.relu = nn.ReLU(inplace=True)
        del self.stem[2]

    def forward(self, images: Tensor) -> Tensor:
        skip = self.relu(self.stem(images * 2 - 1))
        x = self.body(skip) * self.gain + self.shift
        x = self.relu(self.neck(x) - 0.5).mul(1 + skip.mean((1, 2, 3), keepdim=True))
        return self.head(self.relu(self.up(x.roll(1, -1), skip) - 0.1))


class WritesIntoIt(Network):
    """Adds to the map in place, as residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        del self.neck[2]  # its gradients need what it returned
        self.side = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        side = self.side(skip)
        x = self.neck(self.body(skip))
        x += 1
        x.mul_(2)
        side.add_(0.5)
        return self.head(self.up(F.relu_(x), side))


class ManyPerImage(Network):
    """Works on the four quarters of each image as on images, and hands them to the other side so."""

    def __init__(self) -> None:
        super().__init__()
        self.quarters = conv(16, 12)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(self.stem(images))
        batch = len(x)
        quarters = x.unflatten(-2, (2, -1)).unflatten(-1, (2, -1)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        quarters = self.quarters(quarters)
        x = self.neck(x)
        whole = quarters.unflatten(0, (batch, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)
        return self.head(x + whole)


class Auxiliary(Network):
    """Its auxiliary head has no part in the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = conv(16, 7)

    def forward(self, images: Tensor):
        skip = self.stem(images)
        low = self.body(skip)
        auxiliary = self.auxiliary(low)
        return {"out": self.head(self.up(self.neck(low), skip)), "aux": auxiliary}


def made(network: nn.Module) -> nn.Module:
    with seeded():
        for module in lively(network).modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return network.eval()


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def original(wrapped: Wrapped, images: Tensor) -> Tensor:
    """What the network by itself makes of normalised images, at their size."""
    out = wrapped.model(wrapped.normalise(images))
    logits = out["out"] if isinstance(out, dict) else out
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


CUTS = {
    "plain": (Network, "neck", None),
    "first": (Network, "stem", None),
    "inside a block": (Network, "neck.0", None),
    "tuple": (lambda: OfParts("tuple"), "parts", 1),
    "list from its end": (lambda: OfParts("list"), "parts", -1),
    "dict": (lambda: OfParts("dict"), "parts", "low"),
    "dict with a size and None": (lambda: OfParts("ordered"), "parts", "low"),
    "nested": (Nested, "outer.inner.neck", None),
    "nested, inside a block": (Nested, "outer.inner.body.1", None),
    "code between": (CodeBetween, "neck", None),
    "before code between": (CodeBetween, "body", None),
    "written into": (WritesIntoIt, "neck", None),
    "many per image": (ManyPerImage, "neck", None),
    "auxiliary head": (Auxiliary, "neck", None),
}
