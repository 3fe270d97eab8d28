"""Train the gate of the memory without training, and write its weights into the package.

git show 6c846b6:src/lmanet/zoo/weights/erfnet-camvid.safetensors > weak.safetensors
python tools/train_gate.py --camvid shared/camvid --networks weak.safetensors unet-camvid

Its data: labelled frames of CamVid train, sequences 0001TP and 0006R0, set in motion; the same sequences as they are,
at one frame a second; the synthetic drive. Its networks: `unet-camvid`, which knows these frames by heart, and the
first release's `erfnet-camvid`, which is as wrong on them as networks are on frames that they never saw. With such as
know them alone the gate learns to trust the past too much, and small classes are lost. What it is judged by is in
`docs/research/data.md`; nothing of that is used here.

A sample is a clip through which the memory runs as it will run in use, so the gate sees what it itself made of the
frames before. The loss of a frame is the sum of

    the cross entropy of p' and the labels' shares of the patches, classes weighted by their rarity
    WORSE · the same of max(0, log p - log p'): where the network was right, being less sure costs extra
    STEADY · ½ |p' - p'_before|₁, where the label of a place stays what it was; not at one frame a second
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from lmanet.classes import VOID
from lmanet.data.animated import Animation, animated
from lmanet.data.protocols import Sequence, VideoData
from lmanet.data.spec import open_data
from lmanet.data.subset import subset
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods.gate import SHAPES, Gate, untrained, written
from lmanet.methods.training_free import Motion, SeenFrame, TrainingFreeMemory
from lmanet.ops.patches import PATCH, patch_means
from lmanet.zoo.names import load

CHOOSING = ("0001TP", "0006R0")
"""Sequences of CamVid train, by the beginning of their names."""

WEIGHTS = Path(__file__).parents[1] / "src/lmanet/methods/gate_weights.py"

STEADY = 0.35
WORSE = 1.0
BALANCE = 1.05
"""Of the classes' weights 1 / ln(BALANCE + share)."""

FRAMES = 9
"""Of a clip."""

STEEPEST = 3e-3
"""Learning rate, at its highest (one cycle, Smith and Topin 2019)."""


@dataclass(frozen=True)
class Source:
    """Clips of one data set, labelled by one network.

    Attributes:
        data: whose sequences are cut into clips of at most `FRAMES`.
        network: bundled name, or a weights file.
        weight: how often it is drawn, relative to the others.
        every: take every frame of this count.
        steady: factor on the loss of unsteadiness.
    """

    data: VideoData
    network: str
    weight: float
    every: int = 1
    steady: float = 1.0


@dataclass
class Moment:
    """A frame of a clip, in half precision: a clip is run through many times.

    Attributes:
        now: see `SeenFrame`.
        key: likewise.
        motion: to the frame before; None of the first.
        shares: (1, K, h', w'), the labels' shares of the patches.
        middles: (h', w') uint8, the label in the middle of each patch.
    """

    now: Tensor
    key: Tensor
    motion: Motion | None
    shares: Tensor
    middles: Tensor


@torch.no_grad()
def moments(model: TrainingFreeMemory, sequence: Sequence, indices: range) -> list[Moment]:
    """Some frames of a labelled sequence, as the memory sees them."""
    found: list[Moment] = []
    before = None
    for index in indices:
        image, label = sequence.image(index), sequence.label(index)
        assert label is not None
        seen = model.seen(torch.from_numpy(image).permute(2, 0, 1)[None])
        motion = None
        if before is not None:
            motion = Motion.between(seen.pixels, before)._replace(pixels=torch.empty(0))
        before = seen.pixels
        classes = seen.now.shape[1]
        ids = torch.from_numpy(label)
        one_hot = (
            F.one_hot(ids.long().clamp_max(classes), classes + 1).permute(2, 0, 1)[None, :classes].float()
        )
        middle = ids[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
        height, width = seen.now.shape[-2:]
        middles = F.pad(middle, (0, width - middle.shape[1], 0, height - middle.shape[0]), value=VOID)
        found.append(Moment(seen.now.half(), seen.key.half(), motion, patch_means(one_hot).half(), middles))
    return found


def clips(source: Source) -> Iterator[list[Moment]]:
    """All clips of a source."""
    model = TrainingFreeMemory(load(source.network).backbone).eval().optimize()
    for sequence in source.data.sequences:
        indices = range(0, len(sequence.frame_names), source.every)
        for start in range(0, len(indices) - 1, FRAMES):
            yield moments(model, sequence, indices[start : start + FRAMES])


def clip_loss(model: TrainingFreeMemory, clip: list[Moment], weights: Tensor, steady: float) -> Tensor:
    """The mean loss of a clip's frames, from the second on."""
    losses = []
    state = clip[0].now.float()
    for before, moment in itertools.pairwise(clip):
        assert moment.motion is not None
        nothing = torch.empty(0)
        frame = SeenFrame(nothing, nothing, moment.now.float(), moment.key.float())
        fused, _ = model.fused(frame, state, before.key.float(), moment.motion)
        shares = moment.shares.float() * weights[:, None, None]
        said, alone = (x.clamp(1e-4, 1 - 1e-4).log() for x in (fused, frame.now))
        wrong = -said + WORSE * F.relu(alone - said)
        still = ((moment.middles == before.middles) & (moment.middles != VOID)).float()
        change = (fused - state).abs().sum(1)[0] / 2
        loss = (shares * wrong).sum() / shares.sum().clamp_min(1)
        losses.append(loss + steady * (change * still).sum() / still.sum().clamp_min(1))
        state = fused
    return torch.stack(losses).mean()


def sources(camvid: Path, networks: tuple[str, ...]) -> list[Source]:
    """What the gate learns from, of networks for CamVid."""
    train = open_data(f"camvid:{camvid}", "train")
    names = [s.name for s in train.sequences if s.name.startswith(CHOOSING)]
    streets = subset(train, names, name="CamVid 0001TP, 0006R0")
    moving = animated(streets, Animation(frames=FRAMES, speed=(0.5, 2.5), noise=6.0), every=4, seed=100)
    drive = SyntheticDrive(split="val", sequences=4, frames=32)
    seconds = SyntheticDrive(split="val", sequences=2, frames=20, fps=1.0)
    return [
        *(Source(moving, network, 4.0) for network in networks),
        *(Source(moving, network, 1.0, every=2) for network in networks),
        *(Source(streets, network, 1.5, steady=0.0) for network in networks),
        Source(drive, "erfnet-synthetic", 1.0),
        Source(seconds, "erfnet-synthetic", 0.5, steady=0.0),
    ]


def train_gate(
    *,
    camvid: Path,
    networks: tuple[str, ...],
    steps: int = 1500,
    out: Path = WEIGHTS,
    seed: int = 0,
) -> None:
    """Train the gate and write its weights.

    Args:
        camvid: the folder of CamVid.
        networks: for CamVid, bundled names or weights files.
        steps: of two clips each.
        out: the module to be written.
        seed: of the gate's first weights and of the order of the clips.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    all_sources = sources(camvid, networks)
    samples = [list(clips(source)) for source in all_sources]
    print(f"{sum(map(len, samples))} clips of {len(samples)} sources", flush=True)
    weights = [weights_of(of_source) for of_source in samples]
    chances = np.array([source.weight for source in all_sources])
    gate = Gate(untrained(seed))
    parameters = [getattr(gate, name).requires_grad_() for name in SHAPES]
    optimizer = torch.optim.Adam(parameters, lr=STEEPEST)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, STEEPEST, total_steps=steps)
    models: dict[str, TrainingFreeMemory] = {}
    start, mean = time.monotonic(), 0.0
    for step in range(steps):
        optimizer.zero_grad()
        for _ in range(2):
            k = int(rng.choice(len(samples), p=chances / chances.sum()))
            clip = samples[k][rng.integers(len(samples[k]))]
            network = all_sources[k].network
            if network not in models:
                models[network] = TrainingFreeMemory(load(network).backbone).eval()
                models[network].gate = gate
            loss = clip_loss(models[network], clip, weights[k], STEADY * all_sources[k].steady) / 2
            loss.backward()
            mean += (2 * loss.item() - mean) / min(50, step + 1) / 2
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49 or step == steps - 1:
            print(f"step {step + 1}/{steps} loss {mean:.4f} {time.monotonic() - start:.0f} s", flush=True)
            write(out, written(gate.flat()))


def weights_of(clips: list[list[Moment]]) -> Tensor:
    """Of the classes of clips, as ENet weighs them; on average 1."""
    counts = torch.stack([moment.shares.float().sum((0, 2, 3)) for clip in clips for moment in clip]).sum(0)
    weights = 1 / torch.log(BALANCE + counts / counts.sum())
    return weights / weights.mean()


def write(path: Path, text: str) -> None:
    """A module with the weights, in lines of 100 characters."""
    lines = "".join(f'    "{text[at : at + 100]}"\n' for at in range(0, len(text), 100))
    path.write_text(f'"""Written by `tools/train_gate.py`."""\n\nWEIGHTS = (\n{lines})\n')


if __name__ == "__main__":
    tyro.cli(train_gate)
