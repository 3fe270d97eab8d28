from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from contracts.networks import DEVICES, TinyBackbone, lively, seeded
from lmanet import LMANet, Session, SingleFrame
from lmanet.errors import InputError

SIZE = (18, 27)


def make(**options) -> LMANet:
    options = {"key_channels": 4, "value_channels": 6, "memory_size": 3, "window": 3} | options
    return lively(LMANet(TinyBackbone(), **options))


@pytest.fixture(params=DEVICES)
def model(request) -> Iterator[LMANet]:
    with seeded():
        yield make().to(request.param).eval()


def film(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """(count, H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def logits_of(session: Session, frames: np.ndarray) -> torch.Tensor:
    return torch.stack([session.step(frame).logits for frame in frames])


def test_is_the_segmenter_step_after_step(model):
    session, state = Session(model), None
    for frame in film(5):
        images = torch.from_numpy(frame).movedim(-1, 0)[None].to(next(model.parameters()).device)
        with torch.no_grad():
            expected, state = model.step(images, state)
        result = session.step(frame)
        torch.testing.assert_close(result.logits, expected[0])
        assert result.labels.dtype == np.uint8 and result.labels.shape == SIZE
        np.testing.assert_array_equal(result.labels, result.logits.argmax(0).cpu().numpy())
        assert not result.logits.requires_grad


def test_runs_in_eval_mode_and_leaves_the_model_as_it_is(model):
    frames = film(3)
    expected = logits_of(Session(model), frames)
    session = Session(model.train())
    assert model.training
    assert torch.equal(logits_of(session, frames), expected)


def test_labels_with_the_model_as_it_was(model):
    frames = film(3)
    expected = logits_of(Session(model), frames)
    session = Session(model)
    with torch.no_grad():
        model.fusion.norm.bias += 1
    assert torch.equal(logits_of(session, frames), expected)
    assert not torch.equal(logits_of(Session(model), frames), expected)


def test_sessions_share_an_optimised_model(model):
    fast = model.optimize()
    assert Session(fast).model is fast and Session(fast).model is fast
    assert Session(model).model is not fast


def test_probabilities(model):
    result = Session(model, precision="bf16").step(film(1)[0])
    probabilities = result.probabilities()
    assert probabilities.shape == (5, *SIZE) and probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(0), torch.ones_like(probabilities[0]))
    torch.testing.assert_close(probabilities.log().diff(dim=0), result.logits.float().diff(dim=0))


@pytest.mark.parametrize("resize", [None, (12, 20)])
def test_arrays_and_tensors_of_all_kinds_are_one_frame(model, resize):
    frame = film(1)[0]
    expected = Session(model, resize=resize).step(frame).logits
    read_only = frame.copy()
    read_only.setflags(write=False)
    tensor = torch.from_numpy(frame).movedim(-1, 0)
    others = {
        "read-only": read_only,
        "mirrored twice": frame[::-1, ::-1].copy()[::-1, ::-1],
        "BGR turned": frame[..., ::-1].copy()[..., ::-1],
        "Fortran order": np.asfortranarray(frame),
        "every second": np.repeat(np.repeat(frame, 2, 0), 2, 1)[::2, ::2],
        "tensor": tensor,
        "float tensor": tensor.float() / 255,
        "double tensor": tensor.double() / 255,
        "contiguous tensor": tensor.contiguous(),
    }
    for name, other in others.items():
        got = Session(model, resize=resize).step(other).logits
        torch.testing.assert_close(got, expected, msg=lambda text, name=name: f"{name}: {text}")
    assert read_only.flags.writeable is False and np.array_equal(read_only, frame)


@pytest.mark.parametrize("resize", [(9, 13), (40, 50)])
def test_labels_come_back_at_the_frame_s_size(model, resize):
    frame = film(1)[0]
    result = Session(model, resize=resize).step(frame)
    assert result.labels.shape == SIZE
    images = (torch.from_numpy(frame).movedim(-1, 0)[None] / 255).to(result.logits.device)
    small = F.interpolate(images, resize, mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = F.interpolate(model.step(small)[0], SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result.logits, expected[0])


def test_reset_begins_a_new_stream(model):
    session, frames = Session(model), film(3)
    first = logits_of(session, frames)
    assert not torch.allclose(session.step(frames[0]).logits, first[0])
    session.reset()
    assert torch.equal(logits_of(session, frames), first)
    session.reset()
    assert session.step(film(1, (30, 41))[0]).labels.shape == (30, 41)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_saved_stream_goes_on_as_if_never_stopped(model, precision, tmp_path):
    frames = film(7)
    expected = logits_of(Session(model, precision=precision), frames)
    stopped = Session(model, precision=precision)
    logits_of(stopped, frames[:4])
    assert all(x.is_contiguous() for x in stopped.state_dict().values())
    torch.save(stopped.state_dict(), tmp_path / "stream.pt")
    logits_of(stopped, film(2, seed=1))
    resumed = Session(model, precision=precision)
    resumed.load_state_dict(torch.load(tmp_path / "stream.pt", weights_only=True))
    assert torch.equal(logits_of(resumed, frames[4:]), expected[4:])


def test_saved_state_is_a_copy(model):
    session, frames = Session(model), film(3)
    session.step(frames[0])
    saved = session.state_dict()
    expected = session.step(frames[1]).logits
    session.load_state_dict(saved)
    for tensor in session.state_dict().values():
        tensor.zero_()
    assert torch.equal(session.step(frames[1]).logits, expected)


def test_state_before_the_first_frame_is_empty(model):
    session, frames = Session(model), film(2)
    assert session.state_dict() == {}
    expected = session.step(frames[0]).logits
    session.load_state_dict({})
    assert torch.equal(session.step(frames[0]).logits, expected)


@pytest.mark.parametrize(("saved_in", "loaded_in"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_stream_goes_on_in_another_precision(model, saved_in, loaded_in):
    frames = film(4)
    one, other = Session(model, precision=saved_in), Session(model, precision=loaded_in)
    logits_of(one, frames[:3])
    own = {name: x.dtype for name, x in session_after(model, loaded_in, frames).state_dict().items()}
    other.load_state_dict(one.state_dict())
    got = other.step(frames[3]).logits
    assert {name: x.dtype for name, x in other.state_dict().items()} == own
    expected = logits_of(Session(model), frames)[3]
    assert (got - expected).norm() < 0.03 * expected.norm()


def session_after(model: LMANet, precision: str, frames: np.ndarray) -> Session:
    session = Session(model, precision=precision)
    logits_of(session, frames)
    return session


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"keys": torch.zeros(1, 3, 5, 5, 7)},
            r"keys are \(1, 3, 5, 5, 7\): expected \(1, 3, 4, 5, 7\), from a session of the same model",
        ),
        (
            {"values": torch.zeros(1, 3, 8, 5, 7)},
            r"values are \(1, 3, 8, 5, 7\).*same model on frames of 18×27",
        ),
        ({"values": torch.zeros(1, 2, 6, 5, 7)}, r"same model"),
        ({"values": torch.zeros(1, 3, 6, 5, 6)}, r"same model"),
        ({"keys": torch.zeros(2, 3, 4, 5, 7), "values": torch.zeros(2, 3, 6, 5, 7)}, r"same model"),
        ({"keys": torch.zeros(3, 4, 5, 7)}, r"same model"),
        ({"size": torch.tensor(18)}, r"size 18: expected \(2,\), the frames' height and width"),
        (
            {"more": torch.zeros(1)},
            r"\['keys', 'more', 'size', 'values'\] for the method lmanet: "
            r"expected \['keys', 'values', 'size'\], or nothing",
        ),
    ],
)
def test_state_of_another_model_is_refused(model, change, message):
    session = Session(model)
    session.step(film(1)[0])
    with pytest.raises(InputError, match=message):
        session.load_state_dict(session.state_dict() | change)


def test_what_remembers_nothing_has_no_memory_to_restore(model):
    filled = Session(model)
    filled.step(film(1)[0])
    session = Session(SingleFrame(model.backbone))
    with pytest.raises(InputError, match=r"for the method single-frame: expected nothing, as it remembers"):
        session.load_state_dict(filled.state_dict())
    with pytest.raises(InputError, match=r"for the method single-frame: expected nothing"):
        session.load_state_dict({"size": torch.tensor([18, 27])})


def test_single_frames_are_labelled_each_by_itself(model):
    session, frames = Session(SingleFrame(model.backbone)), film(3)
    assert session.step(film(1, (40, 40))[0]).labels.shape == (40, 40)
    once = logits_of(session, frames)
    assert torch.equal(logits_of(session, frames[::-1]).flip(0), once)
    assert session.state_dict() == {}
    images = torch.from_numpy(np.pad(frames[0], ((0, 2), (0, 1), (0, 0)), "edge")).movedim(-1, 0)
    with torch.no_grad():
        expected = model.backbone(images[None].to(once.device) / 255)[0, :, :18, :27]
    torch.testing.assert_close(once[0], expected)


def test_sessions_share_a_model_and_nothing_else(model):
    left, right = film(4), film(4, (22, 30), seed=1)
    expected = logits_of(Session(model), left), logits_of(Session(model), right)
    sessions = Session(model), Session(model)
    got = [(sessions[0].step(a).logits, sessions[1].step(b).logits) for a, b in zip(left, right, strict=True)]
    for one, other in zip(expected, zip(*got, strict=True), strict=True):
        assert torch.equal(one, torch.stack(other))


def test_memory_is_constant_however_long_the_stream(model):
    session = Session(model)
    sizes = set()
    for frame in film(30):
        session.step(frame)
        held = session._state
        sizes.add(tuple(x.shape for x in held))
        assert all(x.untyped_storage().nbytes() <= x.nbytes for x in held)
    assert sizes == {((1, 3, 4, 5, 7), (1, 3, 6, 5, 7))}


def test_bf16_is_close(model):
    frames = film(5)
    low, expected = logits_of(Session(model, precision="bf16"), frames), logits_of(Session(model), frames)
    assert low.dtype == torch.bfloat16 and expected.dtype == torch.float32
    assert (low - expected).norm() < 0.03 * expected.norm()


def test_a_refused_frame_does_not_disturb_the_stream(model):
    frames = film(3)
    expected = logits_of(Session(model), frames)
    session = Session(model)
    session.step(frames[0])
    with pytest.raises(InputError, match="NaN"):
        session.step(torch.full((3, *SIZE), torch.nan))
    # The second pads to the same features as the stream's frames.
    for size in ((40, 40), (19, 28)):
        with pytest.raises(
            InputError,
            match=rf"changed within a stream: got \({size[0]}, {size[1]}\), expected \(18, 27\).*Session.reset",
        ):
            session.step(film(1, size)[0])
    assert torch.equal(logits_of(session, frames[1:]), expected[1:])


def test_a_resizing_stream_has_one_size_too(model):
    session = Session(model, resize=(12, 20))
    session.step(film(1)[0])
    with pytest.raises(InputError, match=r"got \(30, 41\), expected \(18, 27\)"):
        session.step(film(1, (30, 41))[0])


def test_a_restored_stream_keeps_its_size(model):
    first, second = Session(model), Session(model)
    first.step(film(1)[0])
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match=r"got \(19, 28\), expected \(18, 27\)"):
        second.step(film(1, (19, 28))[0])
    second.load_state_dict({})
    assert second.step(film(1, (19, 28))[0]).labels.shape == (19, 28)


@pytest.mark.parametrize("resize", [None, (12, 20)])
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((18, 27), np.uint8), r"\(18, 27\) of uint8: expected \(H, W, 3\) uint8"),
        (np.zeros((18, 27, 4), np.uint8), r"\(18, 27, 4\) of uint8"),
        (np.zeros((18, 27, 3), np.float32), r"of float32: expected \(H, W, 3\) uint8"),
        (np.zeros((0, 27, 3), np.uint8), r"\(0, 27, 3\)"),
        (torch.zeros(18, 27, 3), r"\(18, 27, 3\): expected \(3, H, W\)"),
        (torch.zeros(1, 3, 18, 27), r"\(1, 3, 18, 27\): expected \(3, H, W\)"),
        (torch.zeros(3, 18, 0), r"\(3, 18, 0\): expected \(3, H, W\)"),
        (torch.zeros(3, 18, 27, dtype=torch.int32), r"torch.int32: expected uint8, or float"),
        (torch.full((3, 18, 27), torch.inf), r"NaN or infinity"),
    ],
)
def test_frames_that_are_none(model, frame, message, resize):
    with pytest.raises(InputError, match=message):
        Session(model, resize=resize).step(frame)


def test_options_out_of_range(model):
    with pytest.raises(InputError, match="precision 'fp16': expected 'fp32' or 'bf16'"):
        Session(model, precision="fp16")
    with pytest.raises(InputError, match=r"resize \(0, 20\)"):
        Session(model, resize=(0, 20))


@pytest.mark.parametrize(
    ("classes", "message"),
    [(1, "expected at least 2"), (256, "ids 0 to 254 .* at most 255 classes"), (300, "at most 255 classes")],
)
def test_networks_whose_labels_do_not_fit_are_refused(classes, message):
    with pytest.raises(InputError, match=f"a network of {classes} class.*: .*{message}"):
        Session(SingleFrame(TinyBackbone(classes)))


def test_a_model_in_bfloat16_says_so(model):
    assert Session(model.optimize(torch.bfloat16)).precision == "bf16"
    assert Session(model).precision == "fp32"


def test_memory_size_and_window_are_of_the_session_alone(model):
    frames = film(5)
    expected = logits_of(Session(model.adjusted(memory_size=2, window=5)), frames)
    session = Session(model, memory_size=2, window=5)
    assert torch.equal(logits_of(session, frames), expected)
    assert session.state_dict()["keys"].shape[1] == 2
    assert (model.memory_size, model.window) == (3, 3)
    fast = model.optimize()
    assert torch.equal(logits_of(Session(fast, memory_size=2, window=5), frames), expected)
    assert (fast.memory_size, fast.window) == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"memory_size": 0}, "memory size 0"), ({"window": 4}, "window 4: expected an odd number")],
)
def test_memory_size_and_window_are_checked(model, options, message):
    with pytest.raises(InputError, match=message):
        Session(model, **options)
    name = next(iter(options)).replace("_", " ")
    with pytest.raises(InputError, match=f"single-frame has no {name} to be changed: it has nothing"):
        Session(SingleFrame(model.backbone), **options)


def test_only_a_video_model_is_taken(model):
    with pytest.raises(
        InputError, match=r"got a TinyBackbone: expected an lmanet\.VideoModel; lmanet\.wrap\(model, 'single-"
    ):
        Session(model.backbone)


def test_a_state_that_is_refused_leaves_the_stream_as_it_is(model):
    frames = film(3)
    expected = logits_of(Session(model), frames)
    session = Session(model)
    session.step(frames[0])
    for change in ({"values": torch.zeros(1, 3, 6, 5, 6)}, {"size": torch.tensor([0, 27])}):
        with pytest.raises(InputError, match="session state"):
            session.load_state_dict(session.state_dict() | change)
    assert torch.equal(logits_of(session, frames[1:]), expected[1:])
