"""What a training is made of, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from lmanet.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One run of an optimiser over some of the parameters.

    Attributes:
        epochs: passes over the training samples; 0 leaves step 1 or step 2 out.
        batch_size: samples per optimiser step, all processes together.
        lr: learning rate; the peak for `one-cycle`, the start for `plateau`.
        optimizer: `adamw`, or `adam` as in the paper.
        schedule: `one-cycle` over the whole stage, or `plateau`: ×0.8 when the training loss has not improved
            for `patience` epochs, down to 1e-8, as in the paper.
        weight_decay: of AdamW, on weights of convolutions only.
        ema: decay per step of the averaged weights that are validated and kept; 0 keeps the plain ones.
        patience: epochs without a better loss before `plateau` lowers the rate.
        validate_every: epochs between validations; the last epoch is always validated.
        grad_clip: largest gradient norm; 0 for none.
        samples: samples per epoch, drawn anew for each; 0 takes all.
        lovasz: weight of the Lovász-Softmax loss beside the paper's cross-entropy, which has weight 1; 0 for none.
        distillation: weight of the cross-entropy to a teacher's probabilities (Hinton et al., 2015, temperature 1), of
            all pixels, void ones too; 0 for none.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["one-cycle", "plateau"] = "one-cycle"
    weight_decay: float = 1e-3
    ema: float = 0.0
    patience: int = 3
    validate_every: int = 5
    grad_clip: float = 0.0
    samples: int = 0
    lovasz: float = 0.0
    distillation: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.lr <= 0 or not 0 <= self.ema < 1:
            raise InputError(
                f"epochs {self.epochs}, batch_size {self.batch_size}, lr {self.lr}, ema {self.ema}: expected at "
                f"least 0, at least 1, above 0, and 0 <= ema < 1"
            )
        if (
            self.validate_every < 1
            or min(
                self.patience, self.samples, self.grad_clip, self.weight_decay, self.lovasz, self.distillation
            )
            < 0
        ):
            raise InputError(
                f"validate_every {self.validate_every}, patience {self.patience}, samples {self.samples}, "
                f"grad_clip {self.grad_clip}, weight_decay {self.weight_decay}, lovasz {self.lovasz}, distillation "
                f"{self.distillation}: expected at least 1, and 0 or more of the others"
            )

    def to_dict(self) -> dict:
        """The stage as plain values, for checkpoints."""
        return asdict(self)
