from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import lmanet

HEAVY = ("accelerate", "av", "cv2", "matplotlib", "rich", "torchmetrics", "torchvision", "tyro")


def test_all_names_exist_once_and_are_documented():
    assert sorted(set(lmanet.__all__)) == sorted(lmanet.__all__)
    for name in lmanet.__all__:
        value = getattr(lmanet, name)
        assert name == "__version__" or value.__doc__, name


def test_version_is_the_package_s():
    assert lmanet.__version__ == version("lmanet")


def test_import_is_light():
    code = f"import sys, lmanet; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
