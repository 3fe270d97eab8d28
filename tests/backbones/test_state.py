"""Networks that remember, or draw random numbers, in eval mode; networks that fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.cuttable import Network, made, pictures
from lmanet.backbones import Wrapped, as_backbone
from lmanet.backbones.wrapped.inspection import cut_where_best, inspect
from lmanet.backbones.wrapped.probing import find_probe
from lmanet.errors import InputError


class Recurrent(Network):
    """Adds what it made of the frame before."""

    hidden: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        low = self.body(skip)
        if self.hidden is not None and self.hidden.shape == low.shape:
            low = low + 0.5 * self.hidden
        self.hidden = low.detach()
        return self.head(self.up(self.neck(low), skip))


class RecurrentOfOneSize(Recurrent):
    def forward(self, images: Tensor) -> Tensor:
        if self.hidden is not None:
            assert self.hidden.shape[-1] * 4 == images.shape[-1], "the state is of another size"
        return super().forward(images)


class KeyFrames(Network):
    """Runs its first part for every eighth frame, or after a cut to another size."""

    count, kept = 0, torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        self.count += 1
        if self.count % 8 == 1 or self.kept.shape[-2:] != skip.shape[-2:]:
            self.kept, self.count = skip.detach(), 1
        return self.head(self.up(self.neck(self.body(self.kept)), skip))


class Counts(Network):
    count = 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        return super().forward(images) * (1 + 0.01 * self.count)


class Dropout(Network):
    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(super().forward(images), 0.1, training=True)


class Noise(Network):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.01 * torch.randn_like(images))


class Updates(Network):
    """Its norm goes on learning its statistics."""

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        mean = skip.mean((0, 2, 3))
        self.stem[1].running_mean.lerp_(mean.detach(), 0.1)
        return self.head(self.up(self.neck(self.body(skip)), skip))


class ReturnsItsBuffer(Recurrent):
    """The same tensor each time, with new values."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if not hasattr(self, "result") or self.result.shape != logits.shape:
            self.result = logits.detach().clone()
        return self.result.copy_(logits.detach())


class OnceOnly(Network):
    used = False

    def forward(self, images: Tensor) -> Tensor:
        if self.used:
            raise RuntimeError("call reset() first")
        self.used = True
        return super().forward(images)


STATE = [Recurrent, RecurrentOfOneSize, KeyFrames, Counts, Dropout, Noise, Updates, ReturnsItsBuffer]


@pytest.mark.parametrize("build", STATE)
def test_networks_that_answer_otherwise_the_second_time_are_refused(build):
    message = rf"{build.__name__} did not return the same .* keeps something .* or it draws random numbers"
    with pytest.raises(InputError, match=message):
        Wrapped(made(build()), at="neck")
    with pytest.raises(InputError, match=message):
        cut_where_best(made(build()))
    with pytest.raises(InputError, match=message):
        find_probe(made(build()), None, batch=1)
    if build is not KeyFrames:  # it gives itself away at another size
        with pytest.raises(InputError, match=message):
            find_probe(made(build()), (128, 128))


def test_state_is_told_also_where_one_image_at_a_time_fails_for_another_reason():
    with pytest.raises(InputError, match="KeyFrames did not return the same"):
        as_backbone(made(KeyFrames()), cut=False)


def test_layers_that_stay_in_training_mode_are_told():
    class Learning(Network):
        def train(self, mode: bool = True) -> Self:
            return super().train(True)

    for cut in (True, False):
        with pytest.raises(InputError, match=r"layers of Learning, such as 'stem.1', stay in training mode"):
            as_backbone(Learning(), cut=cut)


def test_a_network_that_takes_several_images_but_not_one_is_told():
    class Pair(Network):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) != 2:
                raise ValueError("expected 2 images")
            return super().forward(images)

    with pytest.raises(
        InputError, match=r"Pair takes 2 images at once, but not one \(ValueError: expected 2"
    ):
        as_backbone(made(Pair()), cut=False)


def test_a_network_that_fails_the_second_time_is_refused():
    with pytest.raises(InputError, match=r"OnceOnly failed when it was called again.*call reset\(\) first"):
        find_probe(made(OnceOnly()), None)


class Caches(Network):
    """Keeps what depends on the size alone, and changes nothing by it."""

    def __init__(self) -> None:
        super().__init__()
        self.grids: dict[tuple[int, int], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[-2], images.shape[-1]
        self.calls = getattr(self, "calls", 0) + 1
        grid = self.grids.setdefault(size, torch.linspace(0, 1, size[1]))
        return super().forward(images * (1 + grid))


class WritesIntoImages(Network):
    def forward(self, images: Tensor) -> Tensor:
        images -= 0.5
        images *= 2
        return super().forward(images)


@pytest.mark.parametrize("build", [Caches, WritesIntoImages])
@torch.no_grad()
def test_what_makes_no_difference_is_allowed(build):
    model = made(build())
    wrapped = Wrapped(model, at="neck").eval()
    images = pictures(1, 3, 32, 40)
    expected = model(wrapped.normalise(images))
    assert torch.equal(wrapped(images), expected) and torch.equal(wrapped(images), expected)
    assert inspect(model) and cut_where_best(model).num_classes == 5
    torch.testing.assert_close(wrapped.optimize()(images), expected)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)


class BrokenInside(Broken):
    def forward(self, images: Tensor) -> Tensor:
        try:
            return {}["stem"]
        except KeyError as error:
            raise RuntimeError(f"images of {tuple(images.shape)} not understood") from error


class Silent(Broken):
    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class WantsMore(Network):
    def forward(self, images: Tensor, depth: Tensor, *, scale: float) -> Tensor:
        return super().forward(images)


class WantsNothingMore(Network):
    def forward(
        self, images: Tensor, depth: Tensor | None = None, *rest, scale: float = 1.0, **more
    ) -> Tensor:
        return super().forward(images)


@pytest.mark.parametrize(
    ("build", "cause"),
    [
        (Broken, "RuntimeError: Given groups=1, weight of size [5, 4, 1, 1]"),
        (BrokenInside, "images of (2, 3, 128, 192) not understood, from KeyError: 'stem'"),
        (Silent, "NotImplementedError)"),
    ],
)
def test_the_cause_of_a_failure_is_told_once(build, cause):
    with pytest.raises(InputError) as error:
        find_probe(build().eval(), None)
    told = str(error.value)
    assert cause in told and told.count(cause.split(":")[0]) == 1
    assert told.startswith(
        f"{build.__name__} runs on no image that was tried (128×192, 224×224, 256×256, 384×384, 512×512: "
    )


def test_different_failures_are_told_each():
    class Picky(Network):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[-2] != images.shape[-1]:
                raise ValueError("squares alone")
            raise ValueError(f"{images.shape[-1]} is not 123")

    message = r"\(128×192: ValueError: squares alone; 224×224, 256×256, 384×384, 512×512: ValueError: 224 is not 123\)"
    with pytest.raises(InputError, match=message):
        find_probe(made(Picky()), None)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_tells_what_failed_first():
    script = torch.jit.script(Broken().eval())
    with pytest.raises(InputError, match=r"512×512: RuntimeError: RuntimeError: Given groups=1") as error:
        find_probe(script, None)
    assert "Traceback" not in str(error.value)


def test_a_network_that_wants_more_than_images_says_so():
    with pytest.raises(
        InputError, match=r"WantsMore.forward wants depth, scale beside images.*forward\(images\)"
    ):
        find_probe(made(WantsMore()), None)
    assert find_probe(made(WantsNothingMore()), None).multiple == 1


def test_a_network_of_one_size_names_the_one_that_it_was_set_up_for():
    class Squares(Network):
        config = SimpleNamespace(image_size=[320, 320])

        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[-2] == images.shape[-1] and images.shape[-1] % 32 == 0
            return super().forward(images)

    class One(Squares):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[-1] == 320
            return super().forward(images)

    with pytest.raises(
        InputError, match=r"takes images of 224×224, but .*give probe=\(320, 320\) .*--resize 320 320"
    ):
        find_probe(made(Squares()), None)
    with pytest.raises(InputError, match=r"takes images of 320×320, but .*give probe=\(320, 320\)"):
        find_probe(made(One()), None)
    assert find_probe(made(One()), (320, 320)).fixed_size == (320, 320)
