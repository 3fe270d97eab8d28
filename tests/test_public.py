from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import lmanet

HEAVY = (
    "accelerate",
    "av",
    "cv2",
    "matplotlib",
    "rich",
    "torchmetrics",
    "torchvision",
    "tyro",
    "PIL.ImageFont",
)
ROOMS = ("cli", "data", "demo", "evaluation", "research", "training", "video")
"""What is imported when it is used."""


def test_all_names_exist_once_and_are_documented():
    assert sorted(set(lmanet.__all__)) == sorted(lmanet.__all__)
    for name in lmanet.__all__:
        value = getattr(lmanet, name)
        assert name == "__version__" or value.__doc__, name


def test_version_is_the_package_s():
    assert lmanet.__version__ == version("lmanet")


def test_import_is_light():
    """So is that of the metrics, which others may use beside their own networks."""
    heavy = {*HEAVY, *(f"lmanet.{room}" for room in ROOMS)}
    code = (
        f"import sys, lmanet; print(*sorted({heavy} & set(sys.modules)));"
        f"import lmanet.evaluation.metrics; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "\n\n" and run.stderr == ""
