"""What a reviewer found who tried to break the contract, so that it does not come back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmanet
from contracts.networks import TinyBackbone, seeded
from contracts.tiny import CLASSES, tiny_backbone, tiny_data
from lmanet.errors import InputError, WeightsError
from lmanet.methods import METHODS, find_method, put_on, register


class Last(NamedTuple):
    logits: Tensor


class Plain(lmanet.VideoModel):
    method = "plain"
    State = Last

    def step(self, images: Tensor, state: Last | None = None) -> tuple[Tensor, Last]:
        logits = self.backbone.segment(images)
        return logits, Last(logits)


@pytest.mark.parametrize(
    "method", ["single-frame", "flow-average", "training-free", "label-memory", "lmanet"]
)
def test_a_caller_may_read_the_next_frame_into_the_same_memory(method: str) -> None:
    images = tiny_data(sequences=1, frames=4).sequences[0].images
    model = put_on(tiny_backbone(), method)
    kept, reused, buffer = lmanet.Session(model), lmanet.Session(model), np.empty_like(images[0])
    for image in images:
        buffer[:] = image
        assert torch.equal(reused.step(buffer).logits, kept.step(image.copy()).logits)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"method": "all"}, "a name of small letters"),
        ({"method": "../x"}, "a name of small letters"),
        ({"State": NamedTuple("Sized", [("size", Tensor)])}, "without a field `size`"),
        ({"trainable": True}, "TrainableVideoModel"),
    ],
)
def test_a_method_that_would_do_harm_is_not_registered(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        register(type("Mine", (Plain,), {"method": "mine", **changes}))
    assert "mine" not in METHODS


def test_a_method_must_give_its_arguments_back_and_have_defaults() -> None:
    class Forgetful(Plain):
        method = "forgetful"

        def __init__(self, backbone: lmanet.Backbone, *, gain: float = 1.0) -> None:
            super().__init__(backbone)

    class Needy(Plain):
        method = "needy"

        def __init__(self, backbone: lmanet.Backbone, gain: float) -> None:
            super().__init__(backbone)

    with pytest.raises(InputError, match="takes gain: expected a property `arguments`"):
        register(Forgetful)
    with pytest.raises(InputError, match="needs gain beside the network"):
        register(Needy)


def test_a_network_without_class_names_is_saved_without(tmp_path: Path) -> None:
    with seeded():
        network = lmanet.ERFNet(len(CLASSES)).eval()
    path = tmp_path / "net.safetensors"
    lmanet.save_model(lmanet.SingleFrame(network), path)
    again = lmanet.load(str(path))
    assert again.backbone.classes is None
    assert lmanet.evaluate(tiny_data(), again).scores["single-frame"].frames == 6


def test_what_cannot_come_back_is_not_saved(tmp_path: Path) -> None:
    network = lmanet.ERFNet(3).eval()
    with pytest.raises(WeightsError, match="copy for inference"):
        lmanet.save_model(lmanet.SingleFrame(network.optimize()), tmp_path / "a.safetensors")
    model = lmanet.LabelMemory(network, persistence=np.float32(0.5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(WeightsError, match="JSON values"):
        lmanet.save_model(model, tmp_path / "b.safetensors")


def test_a_copy_run_otherwise_does_not_change_the_model() -> None:
    model = lmanet.LabelMemory(tiny_backbone(), memory_size=2)
    other = model.adjusted(memory_size=3)
    kept = model.trust_in
    other.trust_in = nn.Conv2d(1, 1, 1)
    assert model.trust_in is kept and model.memory_size == 2
    assert other.trust_out is model.trust_out


@pytest.mark.parametrize("wrong", ["4", 2.5, True, float("nan")])
def test_sizes_are_whole_numbers(wrong: object) -> None:
    model = lmanet.LabelMemory(tiny_backbone())
    for name in ("memory_size", "window"):
        with pytest.raises(InputError, match=name.replace("_", " ")):
            lmanet.Session(model, **{name: wrong})  # pyright: ignore[reportArgumentType]


def test_a_method_keeps_its_network_s_mode() -> None:
    network = tiny_backbone().eval()
    assert not any(module.training for name in METHODS for module in put_on(network, name).modules())


def test_what_is_no_model_is_told_how_to_become_one() -> None:
    network = tiny_backbone()
    for wrong in (network, {"a": network}):
        with pytest.raises(InputError, match=r"expected an lmanet\.VideoModel"):
            lmanet.evaluate(tiny_data(), wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"give its \.backbone"):
        lmanet.wrap(lmanet.SingleFrame(network), "training-free")


def test_weights_of_another_network_than_the_given_one_are_refused() -> None:
    for method in (None, "training-free"):
        with pytest.raises(InputError, match="are weights of the network erfnet, not of a TinyBackbone"):
            lmanet.find_model("erfnet-synthetic", model=tiny_backbone(), method=method)


def test_each_model_is_given_what_it_has() -> None:
    @register
    class Sized(Plain):
        method = "sized"
        adjustable = ("memory_size",)

        def __init__(self, backbone: lmanet.Backbone, *, memory_size: int = 2) -> None:
            super().__init__(backbone)
            self.memory_size = memory_size

        @property
        def arguments(self) -> dict[str, int]:
            return {"memory_size": self.memory_size}

        def step(self, images: Tensor, state: Last | None = None) -> tuple[Tensor, Last]:
            seen.append(self.memory_size)
            return super().step(images, state)

    seen: list[int] = []
    try:
        models = {name: put_on(tiny_backbone(), name) for name in ("sized", "label-memory")}
        report = lmanet.evaluate(tiny_data(), models, memory_size=7, window=5)
    finally:
        del METHODS["sized"]
    assert set(seen) == {7} and report.settings["memory_size"] == 7 and report.settings["window"] == 5


def test_a_step_that_breaks_the_contract_is_told() -> None:
    class Wrong(Plain):
        method = "wrong"

        def step(self, images: Tensor, state: Last | None = None) -> Tensor:  # pyright: ignore
            return self.backbone.segment(images)

    with pytest.raises(InputError, match="something else than logits and a Last"):
        lmanet.Session(Wrong(TinyBackbone().eval())).step(np.zeros((32, 32, 3), np.uint8))


def test_a_damaged_header_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for header in ("nojson", "[]", "{}", '{"format": 2}'):
        path = tmp_path / "x.safetensors"
        save_file({"a": torch.zeros(1)}, path, metadata={"lmanet": header})
        with pytest.raises(WeightsError, match="damaged configuration"):
            lmanet.load(str(path))


def test_the_found_class_is_the_registered_one() -> None:
    assert find_method("lmanet") is lmanet.LMANet
