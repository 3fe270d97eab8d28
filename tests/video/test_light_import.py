"""The video package needs no torch; that `import lmanet` loads no video library is in `test_public.py`."""

import subprocess
import sys


def test_the_video_package_does_not_load_torch():
    # The parent package is stood in for, as its public names need torch.
    check(
        "import importlib.util, sys;"
        "spec = importlib.util.find_spec('lmanet');"
        "spec.loader = None;"
        "sys.modules['lmanet'] = importlib.util.module_from_spec(spec);"
        "import lmanet.video; assert 'av' in sys.modules; assert 'torch' not in sys.modules"
    )


def check(code: str) -> None:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
