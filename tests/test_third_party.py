"""Methods of the user's own by MODULE:CLASS; networks by MODULE:FUNCTION are in `cli/test_third_party.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmanet import LMANet, VideoModel, find_model
from lmanet.errors import InputError
from lmanet.methods import METHODS
from lmanet.third_party import method_of

METHOD = """
from typing import NamedTuple
import lmanet

class State(NamedTuple):
    pass

class Mine(lmanet.VideoModel):
    method = "test-mine"
    State = State

    def step(self, images, state=None):
        return self.backbone.segment(images), State()

class Half(lmanet.VideoModel):
    method = "test-half"
    State = State

class Taken(Mine):
    method = "lmanet"

value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder; each test has its own."""
    monkeypatch.chdir(tmp_path)
    name = f"methods_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(METHOD)
    before, path = dict(METHODS), list(sys.path)
    yield name
    assert sys.path == path
    METHODS.clear()
    METHODS.update(before)


def test_a_class_of_the_current_folder_is_registered(module: str) -> None:
    mine = method_of(f"{module}:Mine")
    assert issubclass(mine, VideoModel) and METHODS["test-mine"] is mine
    assert method_of(f"{module}:Mine") is mine and method_of("test-mine") is mine


def test_names_are_of_the_table(module: str) -> None:
    assert method_of("lmanet") is LMANet
    assert method_of("lmanet.methods.lmanet:LMANet") is LMANet
    with pytest.raises(InputError, match="no method named 'test-mine': there are single-frame"):
        method_of("test-mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:", r"method '.*:': expected MODULE:CLASS, such as my_module:MyMethod"),
        (":Mine", "expected MODULE:CLASS"),
        ("{}.py:Mine", "expected a module, not its file: methods_.*:Mine, run where it lies"),
        ("no_such_module:Mine", r"method 'no_such_module:Mine': no module 'no_such_module' in"),
        ("{}:Yours", r"has no class 'Yours'"),
        ("{}:value", r"has no class 'value'"),
        ("{}:State", r"expected a class made from lmanet\.VideoModel"),
        ("{}:Half", r"register\(Half\): it lacks step"),
        ("{}:Taken", r"the name 'lmanet' is taken by lmanet\.methods\.lmanet\.LMANet"),
    ],
)
def test_what_is_no_method_is_told(module: str, name: str, message: str) -> None:
    before = dict(METHODS)
    with pytest.raises(InputError, match=message):
        method_of(name.format(module))
    assert before == METHODS


def test_a_module_with_a_mistake_is_told(module: str, tmp_path: Path) -> None:
    (tmp_path / f"wrong_{module}.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=f"wrong_{module} cannot be imported: ZeroDivisionError"):
        method_of(f"wrong_{module}:Mine")


def test_a_module_that_is_not_there_is_told_before_a_method_is_asked_for():
    with pytest.raises(InputError, match="no module 'nowhere_at_all'"):
        find_model(model="nowhere_at_all:build")
