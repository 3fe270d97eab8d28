"""One stage of training: an optimiser over some parameters, killed and resumed at will.

Everything random is drawn from (seed, epoch, sample), never from a generator that runs on: a training that was
killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from lmanet.backbones import Backbone
from lmanet.errors import InputError
from lmanet.training.config import Stage
from lmanet.training.losses import cross_entropy_sums


class EpochDataset(Protocol):
    """Samples that depend on the epoch and the index alone."""

    def __len__(self) -> int:
        """Samples per epoch."""
        ...

    def sample(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The network's inputs and the label (H, W) of one sample in one epoch."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a stage is, for progress bars and logs.

    Attributes:
        epoch: epochs done.
        epochs: epochs in all.
        step: steps done in this epoch.
        steps: steps per epoch.
        loss: mean training loss of this epoch so far.
        miou: of the last validation, 0 to 1; NaN before the first.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    miou: float


class _ByEpoch(Dataset):
    """Hands (epoch, index) from the sampler to the data set, so that workers need no state."""

    def __init__(self, data: EpochDataset) -> None:
        self.data = data

    def __getitem__(self, key: tuple[int, int]) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.data.sample(*key)


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


def fit(
    module: nn.Module,
    data: EpochDataset,
    stage: Stage,
    *,
    class_weights: Tensor,
    validate: Callable[[nn.Module], float],
    folder: Path,
    accelerator: Accelerator,
    seed: int = 0,
    workers: int = 1,
    set_mode: Callable[[nn.Module], Any] = lambda module: module.train(),
    on_step: Callable[[Progress], None] | None = None,
    config: dict[str, Any] | None = None,
) -> float:
    """Train the parameters of `module` that require gradients; leaves the best weights in it.

    After each epoch the whole state goes to `folder/last.pt`, written under another name and renamed; a call
    with such a file goes on from there. `folder/log.csv` has a row per epoch.

    Args:
        module: takes the inputs of a sample, batched, and gives logits (B, K, H, W).
        data: the samples.
        stage: epochs, optimiser and schedule.
        class_weights: (K,) of the loss.
        validate: mIoU (0 to 1) of a module; called by every process with the averaged weights in `eval` mode.
        folder: for checkpoint and log.
        accelerator: device, precision and processes.
        seed: of order, augmentation and dropout.
        workers: processes that prepare samples.
        set_mode: puts the module into its training mode (which parts run in `eval`).
        on_step: called after every step.
        config: whatever else a checkpoint must have been made with to be gone on from, as plain values.

    Returns:
        The best validation mIoU.

    Raises:
        InputError: `folder` holds the checkpoint of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sampler = EpochSampler(
        len(data),
        stage.batch_size,
        seed=seed,
        samples=stage.samples,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    loader = DataLoader(
        _ByEpoch(data), batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    optimizer = _optimizer(module, stage)
    scheduler = _scheduler(optimizer, stage, len(sampler))
    average = (
        AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(stage.ema), use_buffers=True)
        if stage.ema
        else None
    )
    state = _State(
        module, average, optimizer, scheduler, {**(config or {}), "stage": stage.to_dict(), "seed": seed}
    )
    state.load(folder / "last.pt")
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    device_weights = class_weights.to(accelerator.device)
    if average is not None:
        average.to(accelerator.device)

    while state.epoch < stage.epochs:
        sampler.epoch = state.epoch
        # The loader's first iterator draws a number of its own: before the seed, or a resumed epoch would differ.
        batches = iter(loader)
        torch.manual_seed(hash((seed, state.epoch, accelerator.process_index)) % 2**31)
        set_mode(module)
        started, losses = time.perf_counter(), []
        for step, (inputs, labels) in enumerate(batches):
            inputs = [x.to(accelerator.device) for x in inputs]
            total, weight = cross_entropy_sums(
                wrapped(*inputs), labels.to(accelerator.device), device_weights
            )
            joint = accelerator.reduce(weight.detach(), "sum").clamp_min(1e-6)  # pyright: ignore[reportAttributeAccessIssue]
            # Gradients are averaged over processes, so each scales its part to the joint batch's mean.
            loss = total * accelerator.num_processes / joint
            optimizer.zero_grad()
            accelerator.backward(loss)
            if stage.grad_clip:
                accelerator.clip_grad_norm_(module.parameters(), stage.grad_clip)
            optimizer.step()
            if stage.schedule == "one-cycle":
                scheduler.step()
            if average is not None:
                # A short memory at first, or the average would drag the random start along.
                decay = min(stage.ema, (state.steps + 1) / (state.steps + 10))
                average.multi_avg_fn = get_ema_multi_avg_fn(decay)
                average.update_parameters(module)
            state.steps += 1
            losses.append(float(accelerator.reduce(loss.detach(), "mean")))  # pyright: ignore[reportArgumentType]
            if not np.isfinite(losses[-1]):
                raise InputError(
                    f"the training loss became {losses[-1]} in epoch {state.epoch}, step {step}: lower lr "
                    f"(now {stage.lr}) or set grad_clip; epochs before are kept in {folder}"
                )
            if on_step:
                on_step(
                    Progress(
                        state.epoch, stage.epochs, step + 1, len(sampler), float(np.mean(losses)), state.miou
                    )
                )
        state.epoch += 1
        loss = float(np.mean(losses))
        if stage.schedule == "plateau":
            scheduler.step(loss)
        seconds = time.perf_counter() - started
        validated = state.epoch % stage.validate_every == 0 or state.epoch == stage.epochs
        if validated:
            kept = average.module if average is not None else module
            kept.eval()
            state.miou = validate(kept)
            state.keep_if_best(kept)
        if accelerator.is_main_process:
            _log(folder / "log.csv", state, loss, seconds, optimizer.param_groups[0]["lr"], validated)
            state.save(folder / "last.pt")
        accelerator.wait_for_everyone()
    module.load_state_dict(state.best_weights)
    module.eval()
    return state.best


class _State:
    """What a checkpoint holds."""

    def __init__(self, module, average, optimizer, scheduler, config: dict) -> None:
        self.module, self.average, self.optimizer, self.scheduler = module, average, optimizer, scheduler
        self.config = config
        self.epoch = self.steps = 0
        self.miou, self.best = float("nan"), -1.0
        self.best_weights: dict[str, Tensor] = {}

    def keep_if_best(self, module: nn.Module) -> None:
        if self.miou > self.best or not self.best_weights:
            self.best = self.miou
            self.best_weights = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}

    def save(self, path: Path) -> None:
        values = {
            "config": self.config,
            "module": self.module.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "numbers": [self.epoch, self.steps, self.miou, self.best],
            "best_weights": self.best_weights,
        }
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def load(self, path: Path) -> None:
        if not path.is_file():
            return
        values = torch.load(path, map_location="cpu", weights_only=True)
        for key, then in values["config"].items():
            now = self.config.get(key)
            if then != now:
                raise InputError(
                    f"{path} comes from another {key}: {then}, now {now}: train into another "
                    f"folder, or delete it to start again"
                )
        self.module.load_state_dict(values["module"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.scheduler.load_state_dict(values["scheduler"])
        self.epoch, self.steps, self.miou, self.best = values["numbers"]
        self.best_weights = values["best_weights"]


def _optimizer(module: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    head = {
        p
        for m in module.modules()
        if isinstance(m, Backbone)
        for part in m.head_parts()
        for p in part.parameters()
    }
    weight_decay = stage.weight_decay if stage.optimizer == "adamw" else 0.0
    groups = []
    for is_head, lr in ((False, stage.lr), (True, stage.lr * stage.head_lr)):
        trained = [p for p in module.parameters() if p.requires_grad and (p in head) == is_head]
        for is_weight, decay in ((True, weight_decay), (False, 0.0)):
            params = [p for p in trained if (p.ndim > 1) == is_weight]
            if params:
                groups.append({"params": params, "lr": lr, "weight_decay": decay})
    return torch.optim.Adam(groups) if stage.optimizer == "adam" else torch.optim.AdamW(groups)


def _scheduler(optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> Any:
    if stage.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.8, patience=stage.patience, min_lr=1e-8
        )
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=stage.epochs * steps + 1,
        pct_start=0.15,
        cycle_momentum=False,
    )


def _log(path: Path, state: _State, loss: float, seconds: float, lr: float, validated: bool) -> None:
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file)][1:]
    # Rows of epochs that a killed run had logged and this one repeated are replaced.
    rows = [row for row in rows if int(row[0]) < state.epoch]
    rows.append(
        [
            str(state.epoch),
            f"{loss:.5f}",
            f"{100 * state.miou:.2f}" if validated else "",
            f"{lr:.3g}",
            f"{seconds:.1f}",
        ]
    )
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "loss", "val_miou_percent", "lr", "seconds"])
        writer.writerows(rows)
    part.replace(path)
