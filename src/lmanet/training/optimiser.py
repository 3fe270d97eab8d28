"""What a stage trains with: optimiser, schedule, and the moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lmanet.training.config import Stage


def make_optimizer(module: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Over the parameters that require gradients: decay on convolution weights only."""
    trained = [p for p in module.parameters() if p.requires_grad]
    weight_decay = stage.weight_decay if stage.optimizer == "adamw" else 0.0
    groups = []
    for is_weight, decay in ((True, weight_decay), (False, 0.0)):
        params = [p for p in trained if (p.ndim > 1) == is_weight]
        if params:
            groups.append({"params": params, "lr": stage.lr, "weight_decay": decay})
    return torch.optim.Adam(groups) if stage.optimizer == "adam" else torch.optim.AdamW(groups)


def make_scheduler(optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> Any:
    """The stage's schedule: `plateau` steps once an epoch by the loss, `one-cycle` after each of `steps` batches."""
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


def make_average(module: nn.Module, stage: Stage) -> AveragedModel | None:
    """A copy of the module that `update_average` lets follow it; None if the stage wants none."""
    if not stage.ema:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(stage.ema), use_buffers=True)


def update_average(average: AveragedModel, module: nn.Module, stage: Stage, steps: int) -> None:
    """Move the average towards the module, after `steps` steps before this one."""
    # A short memory at first, or the average would drag the random start along.
    decay = min(stage.ema, (steps + 1) / (steps + 10))
    average.multi_avg_fn = get_ema_multi_avg_fn(decay)
    average.update_parameters(module)
