"""What every method keeps, on a network of lmanet's and on one of another library."""

from __future__ import annotations

import copy
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmanet
from contracts.networks import DEVICES, lively, seeded
from lmanet import Backbone, ERFNet, Session, StepGraph, TrainableVideoModel, VideoModel
from lmanet.backbones import Wrapped, as_backbone
from lmanet.backbones.wrapped.forwards import TRACEABLE
from lmanet.classes import Classes
from lmanet.errors import InputError
from lmanet.methods.registry import METHODS, find_method, register
from lmanet.zoo.architectures import BACKBONES, register_backbone

NUM_CLASSES = 5
CLASSES = Classes(tuple("abcde"), tuple((n, 10 * n, 20 * n) for n in range(NUM_CLASSES)))
SIZES = [(48, 64), (45, 61)]
"""Height and width of the frames: what the networks take, and what they take only if it is padded."""


def lraspp(num_classes: int) -> Backbone:
    """A network of torchvision, cut before its classifier."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)
    return as_backbone(network.eval(), at="classifier.cbr")


NETWORKS: dict[str, Callable[[int], Backbone]] = {"erfnet": ERFNet, "lraspp": lraspp}


@cache
def network(name: str) -> Backbone:
    """One of `NETWORKS` with random weights, made once; to be copied, not changed."""
    with seeded(), torch.no_grad():
        made = lively(NETWORKS[name](NUM_CLASSES))
        # For the most part the statistics of what it sees, as after a training: else the maps of a deep network are all
        # but constant. Wholly so, all that is small becomes large, and neither rounding nor noise is small any more.
        norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.98
        made.train()(drive(1, batch=4)[:, 0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    made.classes, made.architecture = CLASSES, name
    return made.eval()


def drive(frames: int, size: tuple[int, int] = SIZES[0], *, batch: int = 1, seed: int = 3) -> Tensor:
    """(B, T, 3, H, W) float32: textured scenes that move by a few pixels from frame to frame, with noise."""
    with seeded(seed):
        scene = F.interpolate(torch.rand(batch, 3, 12, 16), (size[0], size[1] + 2 * frames), mode="bicubic")
        clip = torch.stack([scene[..., 2 * t : 2 * t + size[1]] for t in range(frames)], 1)
        return (clip + 0.02 * torch.randn_like(clip)).clamp(0, 1)


def stream(model: VideoModel, clip: Tensor, state: Any = None) -> tuple[list[Tensor], Any]:
    """Step through a clip (B, T, 3, H, W): the logits of each frame, and the state after the last."""
    logits = []
    for images in clip.unbind(1):
        one, state = model.step(images, state)
        logits.append(one)
    return logits, state


def as_frames(clip: Tensor) -> list[np.ndarray]:
    """The frames of a clip (1, T, 3, H, W) as a `Session` takes them."""
    return [frame.numpy() for frame in (clip[0] * 255).byte().permute(0, 2, 3, 1).contiguous()]


class MethodContract:
    """Inherit it and name the method:

    ```python
    class TestMine(MethodContract):
        kind = Mine
        arguments = {"window": 5}
        adjustments = {"window": 3}
    ```

    A method that is not registered is, for the time of its tests. A model is made once for all tests: one that changes
    it copies it first.
    """

    kind: ClassVar[type[VideoModel]]
    arguments: ClassVar[dict[str, Any]] = {}
    """What it is built with, beside the network."""
    adjustments: ClassVar[dict[str, Any]] = {}
    """Another value of every argument that is adjustable."""
    low_precision_error: ClassVar[float] = 0.03
    """By norm, of the logits of a stream in bfloat16; where labels count, those of random networks turn easily."""

    @classmethod
    def prepare(cls, model: VideoModel) -> None:
        """Make new weights so that the memory counts; a method whose new ones do not overrides it."""

    @pytest.fixture(params=DEVICES)
    def device(self, request) -> str:
        return request.param

    @pytest.fixture(params=list(NETWORKS))
    def model(self, request, device) -> Iterator[VideoModel]:
        known, backbones = self.kind.method in METHODS, set(BACKBONES)
        if not known:
            register(self.kind)
        if request.param not in backbones:
            register_backbone(request.param, NETWORKS[request.param])
        yield made(type(self), request.param, device)
        if not known:
            del METHODS[self.kind.method]
        if request.param not in backbones:
            del BACKBONES[request.param]

    @pytest.fixture
    def exact(self, model) -> VideoModel:
        """A copy in float64, so that comparisons can be strict."""
        return copy.deepcopy(model).double()

    @pytest.fixture(autouse=True)
    def without_gradients(self) -> Iterator[None]:
        with torch.no_grad():
            yield

    @pytest.fixture
    def clip(self, device) -> Tensor:
        return drive(4).to(device)

    @property
    def remembers(self) -> bool:
        return len(self.kind.State._fields) > 0  # pyright: ignore[reportAttributeAccessIssue]

    # What it is

    def test_it_says_what_it_is(self, model):
        assert find_method(self.kind.method) is self.kind is type(model)
        assert self.kind.__doc__ and self.kind.State.__doc__
        assert self.kind.trainable == issubclass(self.kind, TrainableVideoModel)
        assert self.kind.not_exportable is None or self.kind.not_exportable
        assert model.classes == CLASSES and not model.optimized

    def test_arguments_build_it_again(self, model, clip):
        arguments = json.loads(json.dumps(model.arguments))
        assert arguments == model.arguments and self.arguments.items() <= arguments.items()
        again = self.kind(model.backbone, **arguments).to(clip.device).eval()
        assert again.arguments == arguments
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(clip), model(clip))

    def test_lmanet_wrap_makes_it(self, model):
        made = lmanet.wrap(model.backbone, self.kind.method, **self.arguments)
        assert type(made) is self.kind and made.arguments == model.arguments
        assert made.backbone is model.backbone

    # Streams

    @pytest.mark.parametrize("size", SIZES, ids=["multiples", "ragged"])
    def test_forward_over_a_clip_is_step_after_step(self, exact, device, size):
        clip = drive(5, size, batch=2).to(device, torch.float64)
        logits, state = stream(exact, clip)
        assert {x.shape for x in logits} == {(2, NUM_CLASSES, *size)}
        assert type(state) is self.kind.State and all(isinstance(x, Tensor) for x in state)
        for length in (1, 2, 5):
            torch.testing.assert_close(exact(clip[:, :length]), logits[length - 1])
        if self.remembers:
            assert not torch.allclose(exact.step(clip[:, -1])[0], logits[-1]), "the past counts"
        for no_clip in (clip[:, 0], clip[:, :0]):
            with pytest.raises(InputError, match=r"expected \(B, T, 3, H, W\) with at least one frame"):
                exact(no_clip)

    @pytest.mark.parametrize("size", [(17, 90), (33, 34)])
    def test_any_size(self, model, device, size):
        logits, _ = stream(model, drive(3, size).to(device))
        assert all(x.shape == (1, NUM_CLASSES, *size) and x.isfinite().all() for x in logits)

    def test_streams_of_a_batch_do_not_mix(self, exact, device):
        clips = torch.cat([drive(4), 1 - drive(4, seed=5)]).to(device, torch.float64)
        alone = torch.cat([exact(one[None]) for one in clips])
        torch.testing.assert_close(exact(clips), alone)

    @pytest.mark.parametrize(
        ("dtype", "images"),
        [
            (torch.float32, torch.uint8),
            (torch.float32, torch.float64),
            (torch.float64, torch.float32),
            (torch.bfloat16, torch.uint8),
        ],
    )
    def test_any_precision(self, model, clip, dtype, images):
        clip = (clip * 255).byte() if images == torch.uint8 else clip.to(images)
        typed = copy.deepcopy(model).to(dtype)
        logits, state = stream(typed, clip)
        expected, _ = stream(model, clip)
        assert all(torch.promote_types(x.dtype, dtype) == x.dtype for x in logits), (
            "no narrower than the network"
        )
        # An exported step wants them the same from frame to frame.
        assert [x.dtype for x in state] == [x.dtype for x in typed.step(clip[:, 0])[1]]
        tolerance = self.low_precision_error if dtype is torch.bfloat16 else 0.01
        for one, other in zip(logits, expected, strict=True):
            assert (one.float() - other).norm() < tolerance * other.norm()

    def test_the_state_never_grows(self, model, device):
        state, seen = None, set()
        clip = drive(20, (32, 40)).to(device)
        for number, images in enumerate(clip.unbind(1)):
            _, state = model.step(images, state)
            assert type(state) is self.kind.State
            held = tuple(x.untyped_storage().nbytes() for x in state) if number else None
            seen.add((tuple((x.shape, x.dtype) for x in state), held))
        assert len(seen) == 2, (
            "that of the first frame, whose storages are not looked at, and that of all others"
        )
        assert len({shapes for shapes, _ in seen}) == 1

    def test_a_state_passed_in_stays_and_gives_the_same_again(self, model, clip):
        _, state = stream(model, clip[:, :2])
        images = clip[:, 2].clone()
        before = [x.clone() for x in state]
        first, after = model.step(images, state)
        model.step(1 - images)  # another stream
        again, other = model.step(images, state)
        assert torch.equal(first, again) and all(map(torch.equal, after, other))
        assert all(map(torch.equal, state, before)) and torch.equal(images, clip[:, 2])

    def test_two_streams_in_turn_are_as_by_themselves(self, model, clip):
        other = 1 - drive(4, (40, 72), seed=5).to(clip.device)
        expected = [stream(model, one) for one in (clip, other)]
        states: list[Any] = [None, None]
        for time in range(4):
            for n, one in enumerate((clip, other)):
                logits, states[n] = model.step(one[:, time], states[n])
                assert torch.equal(logits, expected[n][0][time])
        for state, (_, alone) in zip(states, expected, strict=True):
            assert all(map(torch.equal, state, alone))

    def test_a_frame_of_another_size_is_refused_if_there_is_a_memory(self, model, clip):
        _, state = model.step(clip[:, 0])
        for images in (clip[:, 1, :, :-16], clip[:, 1].expand(2, -1, -1, -1)):
            if self.remembers:
                with pytest.raises(InputError):
                    model.step(images, state)
            else:
                assert model.step(images, state)[0].shape[-2:] == images.shape[-2:]

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.zeros(3, 32, 32), r"\(3, 32, 32\): expected \(B, 3, H, W\)"),
            (torch.zeros(1, 32, 32, 3), r"\(1, 32, 32, 3\): expected"),
            (torch.zeros(1, 3, 32, 32, dtype=torch.int64), r"torch.int64: expected uint8, or float"),
            (torch.full((1, 3, 32, 32), torch.nan), r"NaN or infinity"),
        ],
        ids=["one", "channels last", "whole numbers", "NaN"],
    )
    def test_images_that_are_none(self, model, device, images, message):
        with pytest.raises(InputError, match=message):
            model.step(images.to(device))

    # Sessions

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_a_session_goes_on_where_another_was(self, model, precision):
        frames = as_frames(drive(5, SIZES[1]))
        one = Session(model, precision=precision)
        expected = [one.step(frame).logits for frame in frames]
        stopped, resumed = (Session(model, precision=precision) for _ in range(2))
        for frame in frames[:3]:
            stopped.step(frame)
        file = io.BytesIO()
        torch.save(stopped.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        for frame, logits in zip(frames[3:], expected[3:], strict=True):
            assert torch.equal(resumed.step(frame).logits, logits)
        fields = {*self.kind.State._fields, "size"}  # pyright: ignore[reportAttributeAccessIssue]
        assert stopped.state_dict().keys() == (fields if self.remembers else set())
        with pytest.raises(InputError, match=f"for the method {self.kind.method}: expected"):
            resumed.load_state_dict({"of another method": torch.zeros(1)})

    def test_sessions_in_two_threads_are_as_one_after_the_other(self, model):
        fast = model.optimize()
        films = [as_frames(drive(6)), as_frames(1 - drive(6, SIZES[1], seed=5))]

        def label(film: list[np.ndarray]) -> list[Tensor]:
            session = Session(fast)
            assert session.model is fast
            return [session.step(frame).logits for frame in film]

        expected = [label(film) for film in films]
        with ThreadPoolExecutor(2) as pool:
            got = list(pool.map(label, films))
        for one, other in zip(itertools.chain(*got), itertools.chain(*expected), strict=True):
            assert torch.equal(one, other)

    # Copies

    def test_an_adjusted_model_shares_the_weights_and_leaves_the_other_as_it_is(self, model, clip):
        assert self.adjustments.keys() == set(self.kind.adjustable), "every adjustable argument is tried"
        expected, arguments = model(clip), model.arguments
        for name, value in self.adjustments.items():
            assert getattr(model, name) != value
            other = model.adjusted(**{name: value})
            assert type(other) is self.kind and getattr(other, name) == value
            assert other.arguments == arguments | ({name: value} if name in arguments else {})
            assert all(map(lambda a, b: a is b, other.parameters(), model.parameters()))
            fresh = self.kind(model.backbone, **{**self.arguments, name: value}).to(clip.device).eval()
            fresh.load_state_dict(model.state_dict())
            assert torch.equal(other(clip), fresh(clip)), name
        assert model.arguments == arguments and torch.equal(model(clip), expected)
        assert model.adjusted() is model
        with pytest.raises(InputError, match=f"{self.kind.method} has no no such thing"):
            model.adjusted(no_such_thing=1)

    def test_an_optimised_copy_says_the_same_and_takes_over_a_stream(self, exact, device):
        clip = drive(4, SIZES[1]).to(device, torch.float64)
        before = {name: x.clone() for name, x in exact.state_dict().items()}
        fast = exact.train().optimize()
        assert exact.training and not exact.optimized and fast.optimized and type(fast) is self.kind
        assert not any(module.training for module in fast.modules())
        assert not any(p.requires_grad for p in fast.parameters())
        assert fast.optimize() is fast and fast.arguments == exact.arguments
        exact.eval()
        expected, state = stream(exact, clip)
        logits, fast_state = stream(fast, clip)
        torch.testing.assert_close((logits, tuple(fast_state)), (expected, tuple(state)))
        _, past = stream(exact, clip[:, :3])
        torch.testing.assert_close(fast.step(clip[:, 3], past)[0], expected[3])
        after = exact.state_dict()
        assert after.keys() == before.keys() and all(torch.equal(after[n], x) for n, x in before.items())
        low = fast.optimize(torch.bfloat16)
        assert {x.dtype for x in low.parameters()} == {torch.bfloat16} and low.optimized
        assert {x.dtype for x in fast.parameters()} == {torch.float64}

    @pytest.mark.parametrize("half", [False, True])
    def test_it_is_saved_and_loaded_as_what_it_is(self, model, clip, half, tmp_path: Path):
        path = tmp_path / "model.safetensors"
        lmanet.save_model(model, path, card={"n": 1}, half=half)
        loaded = lmanet.load(str(path))
        assert type(loaded) is self.kind and loaded.arguments == model.arguments
        assert loaded.classes == loaded.backbone.classes == CLASSES and loaded.card == {"n": 1}
        assert not any(module.training for module in loaded.modules())
        own, got = model.state_dict(), loaded.state_dict()
        assert got.keys() == own.keys()
        if half:
            for name, value in own.items():
                torch.testing.assert_close(got[name], value.cpu(), rtol=1e-3, atol=1e-3)
        else:
            assert torch.equal(loaded.to(clip.device)(clip), model(clip))

    # Graphs

    def test_it_is_exported_with_its_state_as_inputs_and_outputs(self, model, clip):
        if self.kind.not_exportable is not None:
            with pytest.raises(InputError, match=re.escape(self.kind.not_exportable)):
                StepGraph(model)
            return
        fast = model.optimize()
        _, state = fast.step(clip[:, 0])
        program = torch.export.export(StepGraph(fast), (clip[:, 1], state), strict=False)
        fields = len(self.kind.State._fields)  # pyright: ignore[reportAttributeAccessIssue]
        assert len(program.graph_signature.user_inputs) == 1 + fields
        assert len(program.graph_signature.user_outputs) == 1 + fields
        assert not program.graph_signature.buffers_to_mutate, "no state is hidden in the module"
        self.same_from_the_second_frame_on(program.module(), fast, clip)

    def compiled(self, model: VideoModel, clip: Tensor, backend: str) -> None:
        if self.kind.not_exportable is not None:
            pytest.skip(self.kind.not_exportable)
        if isinstance(model.backbone, Wrapped) and not TRACEABLE:
            pytest.skip("a network of another library is one graph from PyTorch 2.14 on")
        torch.compiler.reset()
        fast = model.optimize()
        graph = torch.compile(StepGraph(fast), fullgraph=True, backend=backend)
        self.same_from_the_second_frame_on(graph, fast, clip, rounded=True)

    def test_it_is_compiled_whole(self, model, clip):
        self.compiled(model, clip, "aot_eager")

    @pytest.mark.slow
    def test_it_is_compiled_whole_by_inductor(self, model, clip):
        self.compiled(model, clip, "inductor")

    def same_from_the_second_frame_on(
        self,
        graph: Callable[..., tuple[Tensor, Any]],
        model: VideoModel,
        clip: Tensor,
        *,
        rounded: bool = False,
    ) -> None:
        """The graph goes on with its own state from frame to frame.

        Compiled operations round otherwise, and the logarithm of a small probability shows it: judged by norm.
        """
        expected, _ = stream(model, clip)
        _, state = model.step(clip[:, 0])
        for number in range(1, clip.shape[1]):
            logits, state = graph(clip[:, number], state)
            if rounded:
                assert (logits - expected[number]).norm() < 1e-4 * expected[number].norm()
            else:
                torch.testing.assert_close(logits, expected[number], rtol=1e-5, atol=1e-5)
            assert type(state) is self.kind.State

    # Training

    def test_what_is_trained_is_what_streams(self, exact, device):
        if not isinstance(exact, TrainableVideoModel):
            pytest.skip("a method without training")
        if "memory_size" in self.kind.adjustable:
            exact = exact.adjusted(memory_size=1)
        clip = drive(2, SIZES[1]).to(device, torch.float64)
        before, now = (exact.observe(images) for images in clip.unbind(1))
        assert all(isinstance(part, nn.Module) for part in exact.observed_parts())
        with torch.enable_grad():
            trained = exact.from_observed(now, before.fused[:, None], SIZES[1])
            exact.zero_grad()
            trained.square().mean().backward()
        torch.testing.assert_close(trained.detach(), exact(clip))
        observed = {id(p) for part in exact.observed_parts() for p in part.parameters()}
        own = [p for p in exact.parameters() if id(p) not in {id(q) for q in exact.backbone.parameters()}]
        assert own and all(p.grad is not None for p in own if id(p) not in observed)
        assert exact.from_observed(now, None, SIZES[1]).shape == trained.shape


@lru_cache(maxsize=2 * len(DEVICES))
def made(of: type[MethodContract], name: str, device: str) -> VideoModel:
    """The method that a contract's tests are of, on one of `NETWORKS`."""
    with seeded():
        model = of.kind(copy.deepcopy(network(name)), **of.arguments)
        for child in model.children():
            if child is not model.backbone:
                lively(child)
        of.prepare(model)
    return model.to(device).eval()
