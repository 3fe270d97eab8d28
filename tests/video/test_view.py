"""Views: colours where they belong, sizes that fit, text that is there."""

import numpy as np
import pytest

from lmanet.classes import Classes
from lmanet.errors import InputError
from lmanet.video import view

CLASSES = Classes(("sky", "road", "car"), ((70, 130, 180), (128, 64, 128), (0, 0, 142)))
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (90, 121, 3), dtype=np.uint8)
LABEL = RNG.integers(0, 256, (90, 121), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


@pytest.mark.parametrize("label", [LABEL, LABEL[:, ::2], LABEL.T], ids=["whole", "strided", "transposed"])
def test_labels_are_looked_up(label):
    assert np.array_equal(view.labels(label, PALETTE), PALETTE[label])


@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_overlay_blends(opacity):
    expected = (1 - opacity) * IMAGE + opacity * PALETTE[LABEL]
    assert np.abs(view.overlay(IMAGE, LABEL, PALETTE, opacity) - expected).max() <= 0.51


def test_overlay_leaves_its_inputs_alone():
    image, label = IMAGE.copy(), LABEL.copy()
    view.overlay(image, label, PALETTE)
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(label, LABEL)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_panels_stand_side_by_side_between_titles_and_legend(count):
    panels = [np.full((90, 121, 3), 60 + 40 * index, np.uint8) for index in range(count)]
    canvas = view.side_by_side(panels, ["Title"] * count, CLASSES)
    assert canvas.dtype == np.uint8
    assert canvas.shape[0] % 2 == canvas.shape[1] % 2 == 0
    columns = []
    for panel in panels:
        rows, cols = np.nonzero((canvas == panel[0, 0]).all(-1))
        top, left = rows.min(), cols.min()
        assert np.array_equal(canvas[top : top + 90, left : left + 121], panel)
        columns.append(left)
        title = canvas[:top, left : left + 121]
        assert title.max() > 180  # bright text on the dark ground
        assert (title[:, :2] == view.BACKGROUND).all()
    assert columns == sorted(columns)
    legend = canvas[top + 90 :]
    for colour in CLASSES.palette:
        assert (legend == colour).all(-1).sum() > 20


def test_the_next_frame_is_drawn_on_a_clean_canvas():
    first = view.side_by_side([IMAGE], ["a"], CLASSES)
    view.side_by_side([255 - IMAGE], ["a"], CLASSES)
    assert np.array_equal(view.side_by_side([IMAGE], ["a"], CLASSES), first)


def test_many_classes_wrap_and_long_titles_shrink():
    many = Classes(tuple(f"class number {i}" for i in range(40)), ((200, 10, 10),) * 40)
    assert (
        view.side_by_side([IMAGE], ["a"], many).shape[0]
        > view.side_by_side([IMAGE], ["a"], CLASSES).shape[0] + 100
    )
    wide = view.side_by_side([IMAGE, IMAGE], ["a title that is far too long", "b"], CLASSES)
    gap = wide.shape[1] // 2 - 121
    middle = wide[:20, gap + 121 : gap + 121 + 3]
    assert (middle == view.BACKGROUND).all()


def test_no_classes_give_no_legend():
    none = view.side_by_side([IMAGE], ["a"], Classes((), ()))
    assert none.shape[0] < view.side_by_side([IMAGE], ["a"], CLASSES).shape[0]


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="resize the labels"):
        view.overlay(IMAGE, LABEL[:50], PALETTE)
    with pytest.raises(InputError, match=r"opacity 1\.5"):
        view.overlay(IMAGE, LABEL, PALETTE, 1.5)
    with pytest.raises(InputError, match="int64"):
        view.labels(LABEL.astype(np.int64), PALETTE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="palette"):
        view.labels(LABEL, PALETTE[:11])
    with pytest.raises(InputError, match="all of one shape"):
        view.side_by_side([IMAGE, IMAGE[:50]], ["a", "b"], CLASSES)
    with pytest.raises(InputError, match="all of one shape"):
        view.side_by_side([], [], CLASSES)
    with pytest.raises(InputError, match="one title per panel"):
        view.side_by_side([IMAGE], [], CLASSES)


def test_drawer_draws_the_view_that_is_asked_for():
    label = LABEL % len(CLASSES)
    palette = CLASSES.colours()
    over = view.overlay(IMAGE, label, palette, 0.3)
    both = view.side_by_side([IMAGE, over], ["Frame", "Labels"], CLASSES)
    for name, expected in (
        ("overlay", over),
        ("labels", view.labels(label, palette)),
        ("side-by-side", both),
    ):
        assert np.array_equal(view.drawer(name, CLASSES, 0.3)(IMAGE, label), expected), name


@pytest.mark.parametrize("name", ["overlay", "labels", "side-by-side"])
def test_drawer_refuses_an_opacity_before_the_first_frame(name):
    with pytest.raises(InputError, match=r"opacity 1\.5: expected 0"):
        view.drawer(name, CLASSES, 1.5)
