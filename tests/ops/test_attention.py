"""The public functions: checks, the choice of a backend, global attention, one cell's weights."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.attention import BORDERS, make_inputs
from lmanet.errors import InputError
from lmanet.ops import attention_weights, dispatch, explain, global_attention, local_attention, native


@pytest.mark.parametrize("window", [0, -1, 2, 3.0, True])
def test_window_must_be_odd(window):
    with pytest.raises(InputError, match="expected an odd number of cells"):
        local_attention(*make_inputs(), window=window)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="border is 'wrap', expected 'mask'"):
        local_attention(*make_inputs(), window=3, border="wrap")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="backend is 'magic', expected one of auto, native, tiled"):
        local_attention(*make_inputs(), window=3, backend="magic")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[0], k, v), r"query has shape \(4, 9, 11\)"),
        (lambda q, k, v: (q, k[:, 0], v[:, 0]), r"keys\.unsqueeze\(1\)"),
        (lambda q, k, v: (q, k[..., :-1], v), r"keys have shape \(1, 2, 4, 9, 10\)"),
        (lambda q, k, v: (q, k[:, :, :3], v), r"keys have shape \(1, 2, 3, 9, 11\)"),
        (lambda q, k, v: (q, k, v[:, :1]), r"values have shape \(1, 1, 6, 9, 11\)"),
        (lambda q, k, v: (q, k, v[:, 0]), r"values have shape \(1, 6, 9, 11\)"),
        (lambda q, k, v: (q, k[:, :0], v[:, :0]), "at least 1 in every dimension"),
        (lambda q, k, v: (q.long(), k.long(), v.long()), r"query is torch\.int64"),
        (lambda q, k, v: (q, k, v.double()), r"values are torch\.float64, expected torch\.float32"),
    ],
)
def test_tensors_that_do_not_belong_together(change, message):
    inputs = change(*make_inputs())
    with pytest.raises(InputError, match=message):
        local_attention(*inputs, window=3)
    with pytest.raises(InputError, match=message):
        global_attention(*inputs)


def test_explain_names_every_backend_and_the_one_taken():
    query, keys, _ = make_inputs()
    reasons = explain(query, keys, window=5)
    assert list(reasons) == ["native", "tiled", "reference", "flex"]
    taken = "native" if native.variants() else "tiled"
    assert [name for name, reason in reasons.items() if reason.startswith("taken")] == [taken]


def test_auto_is_the_backend_that_explain_names():
    inputs = make_inputs((17, 13))
    reasons = explain(*inputs[:2], window=5)
    (taken,) = (name for name, reason in reasons.items() if reason.startswith("taken"))
    assert torch.equal(local_attention(*inputs, window=5), local_attention(*inputs, window=5, backend=taken))


def test_without_the_kernel_the_next_backend_is_taken(monkeypatch):
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "why_not_built", "the kernel was not built")
    query, keys, values = make_inputs()
    reasons = explain(query, keys, window=5)
    assert reasons["native"] == "not taken: the kernel was not built"
    assert reasons["tiled"].startswith("taken")
    local_attention(query, keys, values, window=5)
    with pytest.raises(InputError, match="backend 'native' cannot run: the kernel was not built"):
        local_attention(query, keys, values, window=5, backend="native")


def test_explain_says_why_a_kernel_is_passed_over(monkeypatch):
    class Unfit:
        forward = backward = None

        @staticmethod
        def refusal(query):
            return f"made for other dtypes than {query.dtype}"

    monkeypatch.setattr(dispatch, "KERNELS", {"unfit": Unfit, **dispatch.KERNELS})
    query, keys, _ = make_inputs()
    reasons = explain(query, keys, window=5)
    assert reasons["unfit"] == "not taken: made for other dtypes than torch.float32"
    assert sum(reason.startswith("taken") for reason in reasons.values()) == 1


@pytest.mark.parametrize("channels", [(4, 6), (6, 4), (5, 5)])
def test_global_attention_is_one_softmax_over_all_cells(channels):
    query, keys, values = make_inputs((5, 7), batch=2, key_channels=channels[0], value_channels=channels[1])
    scores = torch.einsum("bchw,bscyx->bhwsyx", query, keys) / math.sqrt(channels[0])
    weights = scores.flatten(3).softmax(dim=-1).view_as(scores)
    expected = torch.einsum("bhwsyx,bscyx->bchw", weights, values)
    torch.testing.assert_close(global_attention(query, keys, values), expected)


def test_global_attention_has_gradients():
    inputs = [x.requires_grad_() for x in make_inputs((3, 4), dtype=torch.float64)]
    assert torch.autograd.gradcheck(global_attention, inputs)


@pytest.mark.parametrize("border", BORDERS)
def test_weights_sum_to_one(border):
    query, keys, _ = make_inputs((5, 7), size=3, batch=2)
    weights = attention_weights(query, keys, cell=(0, 6), window=9, border=border)
    assert weights.shape == (2, 3, 9, 9)
    torch.testing.assert_close(weights.sum(dim=(1, 2, 3)), torch.ones(2))
    outside = torch.ones(9, 9, dtype=torch.bool)
    outside[4:, :5] = False  # the map reaches 4 cells down and 4 to the left of its upper right corner
    assert (weights[..., ~outside] > 0).all()
    assert (weights[..., outside] == 0).all() == (border == "mask")
    assert (weights[..., outside].amax(-1) == weights[..., outside].amin(-1)).all()


@pytest.mark.parametrize("cell", [(-1, 0), (0, 11), (9, 0)])
def test_weights_of_a_cell_off_the_map(cell):
    query, keys, _ = make_inputs()
    with pytest.raises(InputError, match="expected row 0 to 8 and column 0 to 10"):
        attention_weights(query, keys, cell=cell, window=3)


def test_weights_of_a_cell_under_autocast_keep_their_precision():
    query, keys, _ = make_inputs()
    expected = attention_weights(query.bfloat16(), keys.bfloat16(), cell=(4, 4), window=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention_weights(query, keys.bfloat16(), cell=(4, 4), window=3)
    assert weights.dtype == torch.float32 and torch.equal(weights, expected)
