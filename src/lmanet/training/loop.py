"""One stage of training: an optimiser over some parameters, killed and resumed at will.

Everything random is drawn from (seed, epoch, sample), never from a generator that runs on: a training that was
killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lmanet.atomic import check_folder
from lmanet.errors import InputError
from lmanet.training.checkpoint import Best, TrainingState, copy_weights, fingerprint
from lmanet.training.config import Stage
from lmanet.training.log import log_epoch
from lmanet.training.losses import cross_entropy_sums, distillation, lovasz_softmax, pixels
from lmanet.training.optimiser import make_average, make_optimizer, make_scheduler, update_average
from lmanet.training.options import RunOptions
from lmanet.training.progress import Phase, Progress
from lmanet.training.sampler import EpochDataset, EpochSampler, make_loader

TRAINING = Phase("training", "training")


@dataclass(frozen=True)
class Trainee:
    """What is trained in a stage, and by what measure the best epoch is chosen.

    Attributes:
        module: takes the inputs of a sample, batched, and gives logits (B, K, H, W); its parameters that require
            gradients are trained.
        validate: mIoU (0 to 1) of a module like it; called by every process with the averaged weights in `eval` mode.
            With None nothing is validated, and the (averaged) weights of the last epoch are kept.
        set_mode: puts `module` into its training mode, in which some parts may run in `eval`.
        teacher: takes the same inputs and gives the logits that `module` is to come near to, if the stage has
            `distillation`.
    """

    module: nn.Module
    validate: Callable[[nn.Module], float] | None = None
    set_mode: Callable[[nn.Module], Any] = nn.Module.train
    teacher: nn.Module | None = None


@dataclass(frozen=True)
class Fitted:
    """What a stage came to.

    Attributes:
        best: the best validation mIoU and its epoch; without validation NaN and the last epoch.
        seconds: of training, validation left out, the epochs before a resumption included.
    """

    best: Best
    seconds: float


def fit(
    trainee: Trainee,
    data: EpochDataset,
    stage: Stage,
    *,
    class_weights: Tensor,
    folder: Path,
    options: RunOptions,
    phase: Phase = TRAINING,
    made_with: dict[str, Any] | None = None,
) -> Fitted:
    """Train a module for a stage; leaves the best weights in it.

    After each epoch the whole state goes to `folder/last.pt`, written under another name and renamed; a call
    with such a file goes on from there. `folder/log.csv` has a row per epoch, for people.

    Args:
        trainee: the module, and how it is validated.
        data: the samples.
        stage: epochs, optimiser and schedule.
        class_weights: (K,) of the loss.
        folder: for checkpoint and log.
        options: accelerator, seed, workers, and who is told: after every step; after an epoch's last one when the
            epoch has been validated.
        phase: what the progress is told of.
        made_with: whatever else a checkpoint must have been made with to be gone on from, as plain values.

    Raises:
        InputError: the stage has no epoch, or distillation without a teacher or the other way round; `folder` holds the
            checkpoint of another configuration or of other starting weights; or the loss is no number any more.
        OutputError: `folder` cannot be written to.
    """
    module, validate, accelerator, seed = trainee.module, trainee.validate, options.accelerator, options.seed
    if not stage.epochs:
        raise InputError("epochs 0: expected at least 1, there is nothing to train otherwise")
    teacher = _teacher(trainee, stage, accelerator)
    check_folder(folder)
    rank, world = accelerator.process_index, accelerator.num_processes
    sampler = EpochSampler(
        len(data), stage.batch_size, seed=seed, samples=stage.samples, rank=rank, world=world
    )
    loader = make_loader(data, sampler, options.workers)
    optimizer = make_optimizer(module, stage)
    scheduler = make_scheduler(optimizer, stage, len(sampler))
    average = make_average(module, stage)
    configuration = {
        **(made_with or {}),
        "stage": stage.to_dict(),
        "seed": seed,
        "starting point": fingerprint(module),
        "validation": validate is not None,
    }
    if teacher is not None:
        configuration["teacher"] = fingerprint(teacher)
    state = TrainingState(module, average, optimizer, scheduler, configuration)
    state.load(folder / "last.pt")
    device_weights = class_weights.to(accelerator.device)
    if average is not None:
        average.to(accelerator.device)

    def tell(epoch: int, losses: Sequence[float]) -> None:
        mean = float(np.mean(losses))
        options.report(phase, Progress(epoch, stage.epochs, len(losses), len(sampler), mean, state.miou))

    with _prepared(accelerator, module, optimizer) as (wrapped, stepper):
        while state.epoch < stage.epochs:
            sampler.epoch = state.epoch
            # The loader's first iterator draws a number of its own: before the seed, or a resumed epoch would differ.
            batches = iter(loader)
            torch.manual_seed(hash((seed, state.epoch, rank)) % 2**31)
            trainee.set_mode(module)
            started, losses = time.perf_counter(), []
            for inputs, labels in batches:
                loss = _joint_loss(wrapped, inputs, labels, device_weights, stage, accelerator, teacher)
                stepper.zero_grad()
                accelerator.backward(loss)
                if stage.grad_clip:
                    accelerator.clip_grad_norm_(module.parameters(), stage.grad_clip)
                stepper.step()
                if stage.schedule == "one-cycle":
                    scheduler.step()
                if average is not None:
                    update_average(average, module, stage, state.steps)
                state.steps += 1
                losses.append(float(accelerator.reduce(loss.detach(), "mean")))  # pyright: ignore[reportArgumentType]
                if not np.isfinite(losses[-1]):
                    raise _diverged(losses, state.epoch, stage, folder)
                if len(losses) < len(sampler):
                    tell(state.epoch, losses)
            state.epoch += 1
            mean = float(np.mean(losses))
            if stage.schedule == "plateau":
                scheduler.step(mean)
            seconds = time.perf_counter() - started
            state.seconds += seconds
            last = state.epoch == stage.epochs
            validated = validate is not None and (last or state.epoch % stage.validate_every == 0)
            kept = average.module if average is not None else module
            if validate is not None and validated:
                kept.eval()
                state.miou = validate(kept)
                state.keep_if_best(kept)
            elif last:
                state.best, state.best_weights = Best(float("nan"), state.epoch), copy_weights(kept)
            tell(state.epoch - 1, losses)
            if accelerator.is_main_process:
                log_epoch(
                    folder / "log.csv",
                    epoch=state.epoch,
                    loss=mean,
                    miou=state.miou if validated else None,
                    lr=optimizer.param_groups[0]["lr"],
                    seconds=seconds,
                )
                state.save(folder / "last.pt")
            accelerator.wait_for_everyone()
    module.load_state_dict(state.best_weights)
    module.eval()
    return Fitted(state.best, state.seconds)


@contextmanager
def _prepared(accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """Module and optimiser as accelerate wraps them; after the block it holds neither.

    Else every stage's optimiser would stay in memory, and on several processes the wrapper of the stage before would
    still wait for the gradients of this one.
    """
    try:
        yield accelerator.prepare(module, optimizer)
    finally:
        accelerator.free_memory()


def _joint_loss(
    module: nn.Module,
    inputs: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor,
    stage: Stage,
    accelerator: Accelerator,
    teacher: nn.Module | None,
) -> Tensor:
    """This process's part of the loss of the joint batch, times the number of processes.

    Gradients are averaged over the processes: so scaled, they are those of one process with the joint batch.
    """

    def over_processes(sums: Tensor) -> Tensor:
        return accelerator.reduce(sums, "sum")  # pyright: ignore[reportReturnType]

    device = accelerator.device
    inputs, labels = [x.to(device) for x in inputs], labels.to(device)
    log_probabilities, ids = pixels(module(*inputs), labels)
    total, weight = cross_entropy_sums(log_probabilities, ids, weights)
    loss = total / over_processes(weight.detach()).clamp_min(1e-6)
    if stage.lovasz:
        loss = loss + stage.lovasz * lovasz_softmax(log_probabilities, ids, joint=over_processes)
    loss = loss * accelerator.num_processes
    if teacher is not None:
        with torch.no_grad(), accelerator.autocast():
            taught, _ = pixels(teacher(*inputs), labels)
        # A mean over this process's pixels: the batches of all processes are equally large.
        loss = loss + stage.distillation * distillation(log_probabilities, taught)
    return loss


def _teacher(trainee: Trainee, stage: Stage, accelerator: Accelerator) -> nn.Module | None:
    """The teacher on the accelerator's device, as it gives its labels."""
    if (trainee.teacher is None) != (not stage.distillation):
        raise InputError(
            f"distillation {stage.distillation} {'without' if trainee.teacher is None else 'with'} a teacher: give "
            f"both a weight above 0 and the network that teaches, or neither"
        )
    return None if trainee.teacher is None else trainee.teacher.to(accelerator.device).eval()


def _diverged(losses: list[float], epoch: int, stage: Stage, folder: Path) -> InputError:
    return InputError(
        f"the training loss became {losses[-1]} in epoch {epoch + 1}, step {len(losses)}, and would again: delete "
        f"{folder} and repeat the command with a lower lr for this step (now {stage.lr}) or a grad_clip (now "
        f"{stage.grad_clip or 'none'}); the steps before this one are kept"
    )
