"""The table of methods, and methods of the user's own in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from torch import Tensor

import lmanet
from contracts.networks import TinyBackbone
from lmanet import VideoModel
from lmanet.errors import InputError
from lmanet.methods import METHODS, find_method, register


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


class Nothing(NamedTuple):
    """An empty state."""


def method(**attributes: Any) -> type[VideoModel]:
    """A class of one's own, made anew; with these attributes in place of its own, or without those that are None."""

    def step(self: VideoModel, images: Tensor, state: Any = None) -> tuple[Tensor, Nothing]:
        return self.backbone.segment(images), Nothing()

    given = {"method": "test-mine", "State": Nothing, "step": step, "__module__": __name__} | attributes
    return type("Mine", (VideoModel,), {k: v for k, v in given.items() if v is not None})


def test_built_in_methods_are_there_under_their_names():
    assert {"single-frame", "training-free", "label-memory", "lmanet"} <= set(METHODS)
    for name, kind in METHODS.items():
        assert kind.method == name and find_method(name) is kind
    assert find_method("lmanet") is lmanet.LMANet and find_method("label-memory") is lmanet.LabelMemory


def test_one_of_ones_own_is_found_by_its_name_and_wraps_networks():
    mine = method()
    assert register(mine) is mine  # also a decorator
    assert find_method("test-mine") is mine and list(METHODS)[-1] == "test-mine"
    assert type(lmanet.wrap(TinyBackbone(), "test-mine")) is mine


def test_registered_again_it_takes_its_own_place():
    """As a notebook's cell does that is run twice."""
    register(method())
    again = method()
    register(again)
    assert find_method("test-mine") is again


def test_unknown_names_list_the_known():
    with pytest.raises(
        InputError,
        match=r"no method named 'lmanets': there are single-frame, .*lmanet; one of your own is registered by "
        r"lmanet\.methods\.register, or given as MODULE:CLASS",
    ):
        find_method("lmanets")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"method": None}, r"register\(Mine\): its class attribute `method` is None: expected a name"),
        ({"method": ""}, r"register\(Mine\): its class attribute `method` is ''"),
        ({"State": None}, r"expected a NamedTuple of tensors in its class attribute `State`"),
        ({"State": tuple}, r"expected a NamedTuple of tensors"),
        ({"step": None}, r"register\(Mine\): it lacks step"),
        (
            {"method": "lmanet"},
            r"the name 'lmanet' is taken by lmanet\.methods\.lmanet\.LMANet: give .*Mine another",
        ),
    ],
)
def test_what_is_no_method_is_refused(attributes: dict[str, Any], message: str):
    before = dict(METHODS)
    with pytest.raises(InputError, match=message):
        register(method(**attributes))
    assert before == METHODS


@pytest.mark.parametrize("other", [TinyBackbone, "lmanet", TinyBackbone()])
def test_what_is_no_class_of_a_method_is_refused(other: Any):
    with pytest.raises(InputError, match=r"expected a class made from lmanet\.VideoModel"):
        register(other)


def test_another_class_does_not_take_the_name_of_ones_own():
    register(method())
    with pytest.raises(
        InputError, match=r"the name 'test-mine' is taken by .*\.Mine: give other\.Mine another"
    ):
        register(method(__module__="other"))
