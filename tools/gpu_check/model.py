"""A frame through each method on each network against the bare network: the paper's Table IV on this device."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import lmanet
from gpu_check.common import Part, one_line, run_part, time_calls, wait
from lmanet.backbones import Backbone, ERFNet, PSPNet
from lmanet.methods import METHODS
from lmanet.methods.base import VideoModel
from lmanet.methods.memory import MemoryState
from lmanet.ops import global_attention

BARE = "single-frame"
STEPS = 3
"""Frames before anything is read off: the first fills the memory, the second is the first to replace it."""


class _Everywhere(lmanet.LMANet):
    """LMANet that searches whole frames, as the paper's global variant (G) does."""

    def recall(self, key: Tensor, state: MemoryState) -> Tensor:
        return global_attention(key, state.keys, state.values)


def main(part: Part) -> None:
    """Time and memory of all first, then the same steps as CUDA graphs, which an error could leave unusable."""
    size = (32, 64) if part.dry else (512, 1024)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    part.content |= {"size": list(size), "rows": rows, "left_out": left_out}
    again: list[tuple[VideoModel, dict[str, Any]]] = []
    for network, build in NETWORKS.items():
        try:
            # On the device at once: there, BatchNorm is folded within milliseconds.
            backbone = build().eval().to(part.device)
        except Exception as error:
            left_out[network] = one_line(error)
            continue
        # The bare network again at the end: what changed meanwhile is the card's doing.
        for method, made in [*_models(network, backbone), (f"{BARE}, again", METHODS[BARE](backbone))]:
            for precision in ("fp32",) if part.dry and network != "erfnet" else ("fp32", "bf16"):
                row: dict[str, Any] = {"network": network, "method": method, "precision": precision}
                rows.append(row)
                _try(row, partial(_measure, made, precision, size, part), part)
                again.append((made, row))
    for made, row in again if part.device.type == "cuda" else ():
        if made.not_exportable is None and "frame" in row:
            row["graph"] = graph = {}
            _try(graph, partial(_measure_graph, made, row["precision"], size, part), part)


def _try(row: dict[str, Any], measure: Callable[[], dict[str, Any]], part: Part) -> None:
    if part.left_s < 0:
        row["left_out"] = "no time was left"
    else:
        try:
            row |= measure()
        except Exception as error:  # one method that cannot run must not lose the others
            row["left_out"] = one_line(error)
    gc.collect()
    if part.device.type == "cuda":
        torch.cuda.empty_cache()
    part.save()


def _unet() -> Backbone:
    return lmanet.load("unet-camvid").backbone


NETWORKS: dict[str, Callable[[], Backbone]] = {
    "erfnet": lambda: ERFNet(20),
    "pspnet50": lambda: PSPNet(19, layers=50),
    "unet-camvid": _unet,
}
"""With random weights, but the last; its library may not be there."""


def _models(network: str, backbone: Backbone) -> Iterator[tuple[str, VideoModel]]:
    """Every method that is registered, LMANet with the paper's arguments for the network."""
    psp = network == "pspnet50"
    paper: dict[str, Any] = {"fusion": "bottleneck", "memory_size": 3} if psp else {"memory_size": 4}
    for name, method in METHODS.items():
        if method is lmanet.LMANet:
            yield f"{name}, R=21", lmanet.LMANet(backbone, window=21, **paper)
            yield f"{name}, G", _Everywhere(backbone, window=21, **paper)
        else:
            yield name, method(backbone)


def _fast(model: VideoModel, precision: str, part: Part) -> VideoModel:
    return model.to(part.device).eval().optimize(torch.bfloat16 if precision == "bf16" else None)


def _frames(size: tuple[int, int], part: Part) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (1 if part.dry else 4, 1, 3, *size), dtype=torch.uint8, generator=generator)
    return list(drawn.to(part.device))


def _stream(fast: VideoModel, frames: list[Tensor]) -> Callable[[], None]:
    """A stream of random frames that lie on the device, over and over; each call is the next frame."""
    state: Any = None
    count = 0

    @torch.inference_mode()
    def step() -> None:
        nonlocal state, count
        _, state = fast.step(frames[count % len(frames)], state)
        count += 1

    return step


def _measure(model: VideoModel, precision: str, size: tuple[int, int], part: Part) -> dict[str, Any]:
    """A frame while the GPU is kept busy, a frame by `Session.step` with copies to and fro, and peak GPU memory."""
    on_gpu = part.device.type == "cuda"
    frames = _frames(size, part)
    model.to(part.device)
    before = torch.cuda.memory_allocated() if on_gpu else 0
    fast = _fast(model, precision, part)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    run = _stream(fast, frames)
    for _ in range(1 if part.dry else STEPS):
        run()
    wait(part.device)
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else None
    how: dict[str, Any] = (
        {"runs": 1, "least_s": 0.0, "warm_ups": 0} if part.dry else {"runs": 7, "least_s": 0.05}
    )
    found = {"frame": time_calls(run, part.device, **how), "peak_bytes": peak}
    session = lmanet.Session(fast)
    images = [frame[0].permute(1, 2, 0).contiguous().cpu().numpy() for frame in frames]

    def label() -> None:
        for image in images:
            _ = session.step(image).labels

    timed = time_calls(label, part.device, **{**how, "warm_ups": 0})  # the first call warms up
    return {**found, "session_ms": timed["median_ms"] / len(images)}


def _measure_graph(model: VideoModel, precision: str, size: tuple[int, int], part: Part) -> dict[str, Any]:
    """One step as a CUDA graph: what the GPU itself takes, without waiting for Python to launch each kernel."""
    fast = _fast(model, precision, part)
    images = _frames(size, part)[0]
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            state = None
            for _ in range(STEPS):
                _, state = fast.step(images, state)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = fast.step(images, state)
    timing = time_calls(graph.replay, part.device, runs=7, least_s=0.05)
    del kept  # the graph writes into it until here
    return timing


if __name__ == "__main__":
    sys.exit(run_part("model", main))
