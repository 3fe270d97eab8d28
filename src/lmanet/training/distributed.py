"""What several processes need so that their joint batch gives the same gradients as one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn


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
    exchange of sums.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (as the base class)
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            count = values.new_tensor([values.numel() / values.shape[1]])
            sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
            sums = _SumOverProcesses.apply(sums)
            first, second = sums[:-1].chunk(2)
            total = sums[-1].detach()
            mean = first / total
            variance = second / total - mean.square()
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * total / (total - 1), self.momentum)
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
            factor = self.weight * (variance + self.eps).rsqrt()
            shift = self.bias - mean * factor
            out = values * factor[:, None, None] + shift[:, None, None]
        return out.to(x.dtype)


def synchronise_batch_norm(module: nn.Module, accelerator: Accelerator) -> None:
    """Give every BatchNorm of `module` the statistics of the joint batch; nothing to do with one process."""
    if accelerator.num_processes == 1 or not dist.is_initialized():
        return
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            # Only forward differs, so the parameters, statistics and their names stay.
            child.__class__ = JointBatchNorm2d
