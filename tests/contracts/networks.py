"""Small networks and what tests of networks share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lmanet.backbones import Backbone, Features

Network = TypeVar("Network", bound=nn.Module)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw from this seed inside, and leave the generators as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def small_trainings() -> Iterator[None]:
    """For trainings of a second: PyTorch uses one thread inside, and old objects are not looked at as garbage.

    Threads cost small networks more than they save, above all beside other processes. Accelerate collects garbage after
    every stage of a training, among all objects of a long test run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(before)


def lively(network: Network) -> Network:
    """The network with random BatchNorm statistics: fresh ones are the identity and would hide mistakes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


class TinyBackbone(Backbone):
    """A network of a few thousand weights whose decoder needs a skip map."""

    channels = 12
    stride = 4

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.Dropout2d(0.2), nn.ReLU()
        )
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.head = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def encode(self, images: Tensor) -> Features:
        skip = self.stem(images)
        return Features(self.body(skip), (skip,))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        logits = self.head(torch.cat([self.up(features.fused), *features.rest], 1))
        assert logits.shape[-2:] == size
        return logits

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        return (self.stem, self.body)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        return (self.up, self.head)
