"""Where the figures were measured, and what the card does at best: a copy and products of large matrices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import torch

from gpu_check.common import Part, run_part, time_calls

PACKAGES = (
    *("torch", "torchvision", "triton", "numpy", "opencv-python-headless", "av", "tyro", "accelerate"),
    *("torchmetrics", "segmentation-models-pytorch", "timm", "transformers", "pytest", "pytest-xdist"),
)


def main(part: Part) -> None:
    """Versions, the card, the kernel of lmanet on the CPU, and the ceilings."""
    began_s = time.perf_counter()
    import lmanet
    from lmanet.methods import METHODS
    from lmanet.ops.native import describe

    part.content |= {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lmanet": lmanet.__version__,
        "commit": os.environ.get("GPU_CHECK_COMMIT") or None,
        "sources": str(lmanet.__path__[0]),
        "import_s": time.perf_counter() - began_s,
        "methods": list(METHODS),
        "kernel": describe(),
        "kernel_came_from": os.environ.get("GPU_CHECK_KERNEL") or None,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {
            "products": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
        "gpu": None,
        "ceilings": None,
    }
    part.save()
    if part.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        part.content["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": list(torch.cuda.get_device_capability()),
            "driver": _driver(),
        }
    part.content["ceilings"] = _ceilings(part)


def _ceilings(part: Part) -> dict[str, Any]:
    """Bytes per second of a copy, read and written, and operations per second of products, on random entries."""
    side, count = (64, 2**16) if part.dry else (8192, 2**30)
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device=part.device)
    target = torch.empty_like(source)
    copied = time_calls(lambda: target.copy_(source), part.device, runs=5)
    found: dict[str, Any] = {"copy_bytes_per_s": 2000 * count / copied["median_ms"]}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=part.device).to(dtype) for _ in range(2))
        product = time_calls(lambda a=a, b=b: a @ b, part.device, runs=5, warm_ups=1)
        found[f"{name}_product_flops_per_s"] = 2000 * side**3 / product["median_ms"]
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split(
            "\n"
        )[0]
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    sys.exit(run_part("environment", main))
