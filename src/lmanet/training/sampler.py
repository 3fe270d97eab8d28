"""Which samples make up which batch: an order drawn from (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lmanet.errors import InputError


class EpochDataset(Protocol):
    """Samples that depend on the epoch and the index alone."""

    def __len__(self) -> int:
        """Samples per epoch."""
        ...

    def sample(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The network's inputs and the label (H, W) of one sample in one epoch."""
        ...


class EpochSampler(Sampler):
    """Batches of (epoch, index) in an order drawn from (seed, epoch), each process taking its share of every batch.

    The last, incomplete batch of an epoch is filled up from the beginning of the epoch's order.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, samples: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise InputError(
                f"batch_size {batch_size} does not divide among {world} processes: give a multiple of {world}"
            )
        self.length, self.batch_size, self.seed, self.rank, self.world = length, batch_size, seed, rank, world
        self.samples = min(samples, length) or length
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)[: self.samples]
        order = np.resize(order, len(self) * self.batch_size)
        for batch in order.reshape(len(self), self.world, -1):
            yield [(self.epoch, int(index)) for index in batch[self.rank]]


class _ByEpoch(Dataset):
    """Hands (epoch, index) from the sampler to the data set, so that workers need no state."""

    def __init__(self, data: EpochDataset) -> None:
        self.data = data

    def __getitem__(self, key: tuple[int, int]) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.data.sample(*key)


def make_loader(data: EpochDataset, sampler: EpochSampler, workers: int) -> DataLoader:
    """Batches of the samples that the sampler names; `workers` processes prepare them and live on between epochs."""
    return DataLoader(
        _ByEpoch(data), batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
