"""Counts and lists in messages."""

from lmanet.words import counted, listed


def test_one_is_not_several():
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_of_many_things_a_few_are_named():
    assert listed([]) == ""
    assert listed(["a", 2], 2) == "a, 2"
    assert listed(["a", "b", "c", "d"], 2) == "a, b, and 2 more"
