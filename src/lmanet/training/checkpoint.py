"""Where a stage is, kept in one file, so that it can be killed and gone on from."""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lmanet.atomic import remove_parts, write_whole
from lmanet.errors import InputError


@dataclass(frozen=True)
class Best:
    """The validated weights that were kept.

    Attributes:
        miou: on the validation data, 0 to 1.
        epoch: epochs of its stage that it was trained for; None where the checkpoint is of a time that kept no note.
    """

    miou: float
    epoch: int | None


class TrainingState:
    """A stage's module, average, optimiser and schedule, its progress, and its best weights.

    Args:
        module: what is trained.
        average: the moving average of its weights, if there is one.
        optimizer: the plain optimiser, not one wrapped by accelerate.
        scheduler: its schedule.
        config: plain values; a checkpoint made with others is refused.
    """

    def __init__(
        self,
        module: nn.Module,
        average: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        config: dict[str, Any],
    ) -> None:
        self.module, self.average, self.optimizer, self.scheduler = module, average, optimizer, scheduler
        self.config = config
        self.epoch = self.steps = 0
        self.seconds = 0.0
        self.miou = float("nan")
        self.best = Best(-1.0, None)
        self.best_weights: dict[str, Tensor] = {}

    def keep_if_best(self, module: nn.Module) -> None:
        """Keep the weights of `module`, just validated to give `miou`, unless earlier ones were as good."""
        if self.miou > self.best.miou or not self.best_weights:
            self.best = Best(self.miou, self.epoch)
            self.best_weights = copy_weights(module)

    def save(self, path: Path) -> None:
        """Write everything into one file.

        Raises:
            OutputError: it cannot be written; the file of before stays.
        """
        values = {
            "config": self.config,
            "module": self.module.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "numbers": [self.epoch, self.steps, self.miou, self.best.miou],
            "best_epoch": self.best.epoch,
            "seconds": self.seconds,
            "best_weights": self.best_weights,
        }
        # Into memory first: of a full disk torch.save says nothing that a user could understand.
        buffer = io.BytesIO()
        torch.save(values, buffer)
        write_whole(path, buffer.getbuffer(), durable=True)

    def load(self, path: Path) -> None:
        """Take everything from a file; without one, all stays as it is.

        Raises:
            InputError: it was made with another configuration.
        """
        remove_parts(path)
        if not path.is_file():
            return
        values = torch.load(path, map_location="cpu", weights_only=True)
        for key, then in values["config"].items():
            now = self.config.get(key)
            if then != now:
                if isinstance(then, dict) and isinstance(now, dict):
                    then, now = _differing(then, now), _differing(now, then)
                raise InputError(
                    f"{path} was made with another {key}: {then}, now {now}: delete {path.parent} to train this step "
                    f"anew, or train into another folder to keep what is here (--weights starts from what was trained)"
                )
        self.module.load_state_dict(values["module"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.scheduler.load_state_dict(values["scheduler"])
        self.epoch, self.steps, self.miou, best = values["numbers"]
        # Checkpoints of before these were noted lack them.
        self.best, self.seconds = Best(best, values.get("best_epoch")), values.get("seconds", 0.0)
        self.best_weights = values["best_weights"]


def step_folder(folder: Path, step: int) -> Path:
    """Where a training in `folder` keeps checkpoint and log of its step 0, 1 or 2."""
    return folder / f"step{step}"


def remove_resumable(folder: Path) -> None:
    """Remove what only going on with a training needs: checkpoints, logs, frames and features; the weights stay.

    Args:
        folder: the training's. Of what it has a link to instead, the link alone goes.
    """
    for path in (
        *(step_folder(folder, step) for step in (0, 1, 2)),
        folder / "frames",
        *folder.glob("features-*"),
    ):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What one dict has otherwise than another."""
    return {key: value for key, value in one.items() if key not in other or other[key] != value}


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and statistics, on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}


def fingerprint(module: nn.Module) -> str:
    """Hash of a module's weights and statistics, their names and types."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
