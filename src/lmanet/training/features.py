"""The feature cache: what a frozen network makes of every frame under every draw, computed once.

In steps 1 and 2 of the training the encoder never changes, so neither do its features; and the labels that a memory of
labels holds are those of the network as it came. They are kept as memory-mapped bfloat16 arrays. The folder's name
holds a hash of everything that they depend on (the network's weights, the frames' pixels, the draws), so features of
another network or of other data are never taken for these.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmanet.atomic import output_errors, whole_folder
from lmanet.backbones.base import Features
from lmanet.data.protocols import Sequence
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel
from lmanet.methods.registry import is_built_in
from lmanet.training.augment import Draw
from lmanet.training.frames import StoredData, check_space

VERSION = 5
"""Counts changes in what a draw or the encoding makes of the same pixels: features of before are not reused."""


@dataclass(frozen=True)
class Views:
    """The fixed set of views under which each frame is observed.

    Attributes:
        groups: the draws of a group show a frame much as a moment before or after, from a little elsewhere: any one
            of them can be the current frame, the others its pseudo-memories. Groups of one draw have none.
    """

    groups: tuple[tuple[Draw, ...], ...]

    def all(self) -> tuple[Draw, ...]:
        """Every draw, group by group: a view's number is its position here."""
        return tuple(draw for group in self.groups for draw in group)

    def others(self, view: int) -> list[int]:
        """The numbers of the views that are in the same group as view number `view`, itself left out."""
        begin = 0
        for group in self.groups:
            end = begin + len(group)
            if view < end:
                return [other for other in range(begin, end) if other != view]
            begin = end
        raise IndexError(f"view {view} of {begin}")


class FeatureCache:
    """What is observed of every frame under every view; `observe` gives the same without a cache.

    Args:
        paths: for each sequence and each map of the features, the fused one first, the file of a
            (frames, views, h, w, C) array of bfloat16 bits.
    """

    def __init__(self, paths: list[list[Path]]) -> None:
        self._paths = paths

    def fused(self, sequence: int, frame: int, view: int) -> Tensor:
        """The fused map (C, h, w), bfloat16, channels last in memory."""
        return _tensor(_mapped(self._paths[sequence][0])[frame, view])

    def rest(self, sequence: int, frame: int, view: int) -> tuple[Tensor, ...]:
        """The other maps of the features, each (C, h, w) bfloat16."""
        return tuple(_tensor(_mapped(path)[frame, view]) for path in self._paths[sequence][1:])


def build_feature_cache(
    model: TrainableVideoModel,
    data: StoredData,
    views: Views,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    on_frame: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Observe every frame under every view, or open what an earlier call left for the same network and data.

    Args:
        model: its `observe` is run in `eval` mode, under bfloat16 autocast.
        data: the frames.
        views: the draws.
        folder: parent of the cache's own folder; that is written under another name and moved when complete.
        device: where to observe.
        on_frame: called with (done, total) after each frame.

    Raises:
        OutputError: the disk has no room for them, or the folder cannot be written.
    """
    key = {
        "version": VERSION,
        "network": _fingerprint(model),
        "data": data.fingerprint,
        "views": [asdict(draw) for draw in views.all()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    final = folder / f"features-{name}"
    if not final.is_dir():
        with output_errors(final), whole_folder(final, replace=False) as part:
            _observe_all(model, data, views, part, torch.device(device), on_frame)
            (part / "key.json").write_text(json.dumps(key))
    return FeatureCache([sorted(final.glob(f"{n:04d}-*.npy")) for n in range(len(data.sequences))])


@torch.no_grad()
def observe(model: TrainableVideoModel, images: Tensor) -> Features:
    """What a model observes (bfloat16) of images (B, 3, H, W) uint8, as the cache keeps it.

    Raises:
        InputError: the network hands on more than maps (B, C, h, w) of floats where it is cut.
    """
    with torch.autocast(images.device.type, torch.bfloat16):
        features = model.observe(images)
    for x in features.rest:
        if x.ndim != 4 or not x.is_floating_point():
            raise InputError(
                f"where the network is cut it hands on {tuple(x.shape)} of {x.dtype} beside the fused map: a memory is "
                f"trained where there are only maps (B, C, h, w) of floats: cut it elsewhere, see lmanet inspect"
            )
    return Features(features.fused.bfloat16(), tuple(x.bfloat16() for x in features.rest))


def views_of(sequence: Sequence, frame: int, draws: tuple[Draw, ...]) -> Tensor:
    """A frame under several draws: (len(draws), 3, H, W) uint8."""
    image = sequence.image(frame)
    return torch.from_numpy(np.stack([draw.image(image) for draw in draws])).permute(0, 3, 1, 2)


def _observe_all(model, data: StoredData, views: Views, folder: Path, device, on_frame) -> None:
    training = model.training
    model.to(device).eval()
    done, total = 0, sum(len(s.frame_names) for s in data.sequences)
    for n, sequence in enumerate(data.sequences):
        arrays: list[np.memmap] = []
        for frame in range(len(sequence.frame_names)):
            features = observe(model, views_of(sequence, frame, views.all()).to(device))
            maps = [features.fused, *features.rest]
            bits = [x.permute(0, 2, 3, 1).contiguous().view(torch.int16).cpu().numpy() for x in maps]
            if not arrays:
                check_space(folder, (total - done) * sum(b.nbytes for b in bits))
                arrays = [
                    np.lib.format.open_memmap(
                        folder / f"{n:04d}-{m:04d}.npy",
                        mode="w+",
                        dtype=np.int16,
                        shape=(len(sequence.frame_names), *b.shape),
                    )
                    for m, b in enumerate(bits)
                ]
            for array, b in zip(arrays, bits, strict=True):
                array[frame] = b
            done += 1
            if on_frame:
                on_frame(done, total)
        for array in arrays:
            array.flush()
    model.train(training)


def _fingerprint(model: TrainableVideoModel) -> str:
    """Hash of what `observe` depends on: the network's kind and arguments, weights and statistics."""
    kind = type(model.backbone).__name__, getattr(model.backbone, "config", {}), model.backbone.setting
    digest = hashlib.sha256(f"{json.dumps(kind, sort_keys=True)} {model.method}".encode())
    if not is_built_in(type(model)):  # what it observes may depend on its arguments and its code
        digest.update(json.dumps(model.arguments, sort_keys=True).encode())
        digest.update(inspect.getsource(type(model)).encode())
    for part in model.observed_parts():
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _mapped(path: Path) -> np.ndarray:
    # Not all at once: there may be more sequences than a process may have files open. What a path holds never
    # changes, as its folder is named after it.
    return np.load(path, mmap_mode="r")


def _tensor(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(bits)).view(torch.bfloat16).permute(2, 0, 1)
