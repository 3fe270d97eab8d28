from __future__ import annotations

from pathlib import Path

import pytest

from lmanet.cli.main import main

NETWORK = """
from torch import nn

def block(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())

def build():
    return nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 64, 2), nn.Conv2d(64, 7, 1))

def deep():
    return nn.Sequential(block(3, 64, 8), *(block(64, 64) for _ in range(8)), nn.Conv2d(64, 7, 1))

def uncuttable():
    return nn.Sequential(nn.Conv2d(3, 5, 1))

def wide():
    class Wide(nn.Sequential):
        def forward(self, x):
            assert x.shape[-1] > 600, "too narrow"
            return super().forward(x)
    return Wide(*build())

def alone():
    class Alone(nn.Sequential):
        def forward(self, x):
            assert len(x) == 1, "one image"
            return super().forward(x)
    return Alone(*build())

def other():
    return 3

def function():
    return lambda images: images

def scripted():
    import torch, warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(build())

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()

    def forward(self, x):
        return self.inner(2 * x - 1)

def backbone():
    import lmanet
    return lmanet.ERFNet(3)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder, of another name for each test."""
    name = f"inspected_{abs(hash(tmp_path.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")  # narrower than the table: no name may be cut short
    return name


def rows(shown: str) -> list[list[str]]:
    """The cells of the table's rows."""
    return [[x.strip() for x in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]


def test_candidates_are_listed_with_their_costs(module, capsys):
    assert main(["inspect", f"{module}:build"]) == 0
    shown = capsys.readouterr().out
    table = {row[1]: row[2:] for row in rows(shown)}
    assert [row[1] for row in rows(shown) if row[0] == "*"] == ["2"]
    # Multiplications per pixel of the image, times 10⁶ pixels, in 10⁹.
    stem, body, neck = 9 * 3 * 16 / 4 / 1e3, 9 * 16 * 32 / 16 / 1e3, 9 * 32 * 64 / 64 / 1e3
    head = 64 * 7 / 64 / 1e3
    before = stem + body + neck
    assert table["2"][:5] == ["64", "8", f"{before:.2f}", f"{head:.2f}", "0"]
    assert table["1"][:4] == ["32", "4", f"{stem + body:.2f}", f"{neck + head:.2f}"]
    assert list(table) == ["0.0", "0.1", "0", "1.0", "1.1", "1", "2.0", "2.1", "2"]
    assert "per megapixel" in shown and "--all" not in shown


def test_long_tables_are_shortened(module, capsys):
    assert main(["inspect", f"{module}:deep"]) == 0
    shown = capsys.readouterr().out
    assert len(rows(shown)) == 15 and "12 places of less merit are left out: --all lists them" in shown
    assert [row[1] for row in rows(shown) if row[0] == "*"] == ["8"]
    assert main(["inspect", f"{module}:deep", "--all"]) == 0
    assert len(rows(capsys.readouterr().out)) == 27


def test_images_of_a_given_size(module, capsys):
    assert main(["inspect", f"{module}:wide"]) == 2
    assert (
        "give probe=(H, W) (--resize H W or --probe H W on the command line) of images that it takes"
        in capsys.readouterr().err
    )
    assert main(["inspect", f"{module}:wide", "--probe", "64", "640"]) == 0
    assert [row[1] for row in rows(capsys.readouterr().out) if row[0] == "*"] == ["2"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "has no function 'nothing'"),
        ("other", "other() returned a int: expected a torch.nn.Module"),
        ("function", "returned the function <lambda>, a function (put its code in the forward of a module)"),
    ],
)
def test_what_cannot_be_inspected_is_told_in_one_line(module, function, message, capsys):
    assert main(["inspect", f"{module}:{function}"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize(
    ("function", "normalisation", "message"),
    [
        (
            "uncuttable",
            "ImageNet's (assumed: ",
            "Sequential has no submodule that is called once and returns a map",
        ),
        (
            "alone",
            "ImageNet's (assumed: ",
            "Alone takes one image at a time, and to be cut in two it must take",
        ),
        (
            "scripted",
            "ImageNet's (assumed: ",
            "a TorchScript module cannot be cut in two: give the Python module",
        ),
    ],
)
def test_what_cannot_be_cut_is_told_beside_its_normalisation(
    module, function, normalisation, message, capsys
):
    assert main(["inspect", f"{module}:{function}"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1
    assert shown.out.startswith(f"normalisation: {normalisation}")


def test_the_normalisation_is_told_and_why(module, capsys):
    assert main(["inspect", f"{module}:Own"]) == 0
    assert capsys.readouterr().out.startswith(
        "normalisation: none (its own forward normalises: mean 0.5 0.5 0.5, std 0.5 0.5 0.5)\n"
    )
    assert main(["inspect", f"{module}:backbone"]) == 0
    shown = capsys.readouterr().out
    assert "is a ERFNet, a Backbone, which says itself where it is cut" in shown
    assert "normalisation: the network's own" in shown
