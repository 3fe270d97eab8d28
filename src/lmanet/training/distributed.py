"""What several processes need so that their joint batch gives the same gradients as one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lmanet.errors import InputError


class _SumOverProcesses(torch.autograd.Function):
    """The sum of each process's tensor; each process's gradient is then the sum of all processes' ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class JointBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, on any device.

    `torch.nn.SyncBatchNorm` does this on GPUs only; this one is plain PyTorch and differentiates through the
    exchange of statistics. Each process gives its count, means and variances, joined by the formula of Chan, Golub
    and LeVeque (1979): the difference E[x²] - E[x]² would lose all digits where the mean is large.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (as the base class)
        if not self.training:
            return super().forward(x)
        if self.running_mean is None or self.running_var is None or self.momentum is None or not self.affine:
            raise InputError(
                f"{self}: on several processes a BatchNorm that is trained needs affine=True, "
                f"track_running_stats=True and a momentum; train on one process, or change it"
            )
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
            count = mean.new_tensor([values.numel() / values.shape[1]])
            counts, means, variances = _gather(count, mean, variance)
            total = counts.sum()
            shares = counts / total
            mean = (shares * means).sum(0)
            variance = (shares * (variances + (means - mean).square())).sum(0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * total / (total - 1), self.momentum)
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
            factor = self.weight * (variance + self.eps).rsqrt()
            columns = (mean, factor, self.bias)
            mean, factor, bias = (column[:, None, None] for column in columns)
            out = (values - mean) * factor + bias
        return out.to(x.dtype)


class JointBatchNormAct2d(JointBatchNorm2d):
    """timm's BatchNorm, which drops and activates too, with the statistics of all processes' joint batch."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (as the base class)
        return self.act(self.drop(super().forward(x)))  # pyright: ignore[reportCallIssue]


def _gather(count: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every process's count (P, 1), means (P, C) and variances (P, C); gradients go back to where each came from."""
    own = torch.cat([count, mean, variance])
    # Rows of zeros but for this process's own, summed: one exchange, and its gradient is known.
    rank, processes = dist.get_rank(), dist.get_world_size()
    rows = torch.cat(
        [own.new_zeros(rank, len(own)), own[None], own.new_zeros(processes - rank - 1, len(own))]
    )
    rows = _SumOverProcesses.apply(rows)
    channels = len(mean)
    counts, means, variances = rows.split([1, channels, channels], 1)
    return counts.detach(), means, variances


def synchronise_batch_norm(module: nn.Module, accelerator: Accelerator) -> None:
    """Give every BatchNorm of `module` the statistics of the joint batch; nothing to do with one process.

    Raises:
        InputError: there is a kind of BatchNorm in it that this is not known of.
    """
    if accelerator.num_processes == 1 or not dist.is_initialized():
        return
    for child in module.modules():
        # Only forward differs, so the parameters, statistics and their names stay.
        if type(child) is nn.BatchNorm2d:
            child.__class__ = JointBatchNorm2d
        elif isinstance(child, nn.BatchNorm2d) and hasattr(child, "drop") and hasattr(child, "act"):
            child.__class__ = JointBatchNormAct2d
        elif isinstance(child, _BatchNorm):
            raise InputError(f"{child}: on several processes only BatchNorm2d can be trained: train on one")
