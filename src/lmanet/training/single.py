"""Step 0: the single-frame network itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lmanet.data.base import VideoData, labelled_frames
from lmanet.training.augment import Augmentation, draw


class LabelledFrames:
    """Every labelled frame of a data set, under a fresh augmentation in every epoch."""

    def __init__(self, data: VideoData, augmentation: Augmentation, *, seed: int = 0) -> None:
        self.augmentation, self.seed = augmentation, seed
        self.frames = [(data.sequences[n], i) for n, i in labelled_frames(data)]

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The frame (3, H, W) uint8 and its label (H, W) uint8."""
        sequence, i = self.frames[index]
        image, label = sequence.image(i), sequence.label(i)
        assert label is not None
        rng = np.random.default_rng([self.seed, epoch, index])
        drawn = draw(self.augmentation, label.shape, rng)
        pixels, ids = np.array(drawn.image(image)), np.array(drawn.label(label))
        return (torch.from_numpy(pixels).permute(2, 0, 1),), torch.from_numpy(ids)
