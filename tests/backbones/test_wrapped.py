"""The cut itself, on small networks that each do one thing that networks do."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.cuttable import CUTS, Auxiliary, CodeBetween, Network, OfParts, made, original, pictures
from contracts.backbone import BackboneContract
from lmanet.backbones import Features, Wrapped
from lmanet.backbones.wrapped.inspection import cut_where_best, inspect
from lmanet.backbones.wrapped.layout import Layout, RecentLayouts
from lmanet.errors import InputError
from lmanet.methods.lmanet import LMANet


@pytest.fixture(params=CUTS.values(), ids=CUTS.keys())
def wrapped(request) -> Wrapped:
    build, at, entry = request.param
    return Wrapped(made(build()), at=at, entry=entry).eval()


@pytest.mark.parametrize("size", [(1, 64, 96), (3, 64, 96), (2, 32, 40)])
@torch.no_grad()
def test_without_a_memory_it_is_the_network(wrapped, size):
    images = pictures(size[0], 3, *size[1:])
    assert torch.equal(wrapped(images), original(wrapped, images))
    assert torch.equal(wrapped(images), wrapped(images))


@torch.no_grad()
def test_decode_goes_on_from_the_map_it_is_given(wrapped):
    images = pictures(2, 3, 32, 40)
    features = wrapped.encode(images)
    other = features.with_fused(features.fused.flip(0) + 1)
    made = []
    at = wrapped.model.get_submodule(wrapped.at)

    def replaced(module, inputs, out):
        made.append(out)
        if isinstance(out, dict):
            return type(out)({**out, wrapped.entry: other.fused.clone()})
        if isinstance(out, tuple | list):
            return [*out[:-1], other.fused.clone()]
        return other.fused.clone()

    hook = at.register_forward_hook(replaced)
    expected = original(wrapped, images)
    hook.remove()
    assert len(made) == 1
    assert torch.equal(wrapped.decode(other, (32, 40)), expected)


@torch.no_grad()
def test_features_are_not_written_into(wrapped):
    features = wrapped.encode(pictures(2, 3, 32, 40))
    before = copy.deepcopy(features)
    first = wrapped.decode(features, (32, 40))
    assert all(map(torch.equal, (features.fused, *features.rest), (before.fused, *before.rest)))
    assert torch.equal(wrapped.decode(features, (32, 40)), first)


@torch.no_grad()
def test_features_of_another_process_are_decoded(wrapped):
    images = pictures(3, 3, 48, 40)
    expected, features = wrapped(images), wrapped.encode(images)
    fresh = copy.deepcopy(wrapped)
    fresh._layouts = RecentLayouts()
    assert torch.equal(fresh.decode(features, (48, 40)), expected)


@torch.no_grad()
def test_layouts_of_few_sizes_are_kept():
    wrapped = Wrapped(made(OfParts("dict")), at="parts", entry="low").eval()
    sizes = [(32, 32 + 8 * n) for n in range(2 * RecentLayouts.LIMIT)]
    images = [pictures(1, 3, *size) for size in sizes]
    expected = [wrapped(x) for x in images]
    features = [wrapped.encode(x) for x in images]
    assert len(wrapped._layouts) == RecentLayouts.LIMIT
    for n, size in enumerate(sizes):
        assert torch.equal(wrapped.decode(features[n], size), expected[n])
    assert len(wrapped._layouts) == RecentLayouts.LIMIT


def test_the_layout_that_was_not_used_for_longest_goes():
    layouts, limit = RecentLayouts(), RecentLayouts.LIMIT
    known = [Layout(None, (n,)) for n in range(limit + 1)]
    for n in range(limit):
        layouts.put((n, n), known[n])
    assert layouts.get((0, 0)) is known[0]
    layouts.put((2, 2), known[2])
    layouts.put((limit, limit), known[limit])
    assert layouts.get((1, 1)) is None
    assert all(layouts.get((n, n)) is known[n] for n in range(limit + 1) if n != 1)


def test_finding_a_layout_again_leaves_no_trace_in_statistics():
    wrapped = Wrapped(made(Network()), at="neck").train()
    with torch.no_grad():
        features = wrapped.encode(pictures(2, 3, 32, 40))
    before = {name: x.clone() for name, x in wrapped.model.body.named_buffers()}
    modes = [module.training for module in wrapped.modules()]
    wrapped._layouts = RecentLayouts()
    wrapped.decode(features, (32, 40))
    assert all(torch.equal(x, before[name]) for name, x in wrapped.model.body.named_buffers())
    assert [module.training for module in wrapped.modules()] == modes


@torch.no_grad()
def test_one_image_of_a_batch_is_decoded_by_itself(wrapped):
    images = pictures(3, 3, 32, 40)
    features = wrapped.encode(images)
    one = Features(features.fused[1:2], tuple(x[1:2] for x in features.rest))
    torch.testing.assert_close(wrapped.decode(one, (32, 40)), wrapped(images)[1:2])


@torch.no_grad()
def test_it_can_be_copied_and_saved(wrapped):
    images = pictures(2, 3, 32, 40)
    expected = wrapped(images)
    assert torch.equal(copy.deepcopy(wrapped)(images), expected)
    buffer = io.BytesIO()
    torch.save(wrapped, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(images), expected)
    assert wrapped.state_dict().keys() == {f"model.{name}" for name in wrapped.model.state_dict()}


@torch.no_grad()
def test_an_optimised_copy_has_no_norms_and_the_same_features(wrapped):
    wrapped.double()
    images = pictures(2, 3, 32, 40).double()
    fast = wrapped.optimize()
    torch.testing.assert_close(fast(images), wrapped(images))
    torch.testing.assert_close(fast.encode(images).fused, wrapped.encode(images).fused)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    # A cut between convolution and norm keeps them apart.
    unused = sum(isinstance(module, nn.BatchNorm2d) for module in unused_modules(wrapped))
    assert norms - unused == (wrapped.at == "neck.0")


def unused_modules(wrapped: Wrapped) -> list[nn.Module]:
    called = set()
    hooks = [
        m.register_forward_pre_hook(lambda module, _: called.add(module)) for m in wrapped.model.modules()
    ]
    original(wrapped, pictures(1, 3, 32, 40).to(next(wrapped.parameters())))
    for hook in hooks:
        hook.remove()
    return [module for module in wrapped.model.modules() if module not in called]


def test_gradients_are_the_network_s(wrapped):
    images = pictures(2, 3, 32, 40)
    weights = torch.linspace(-1, 1, 2 * 5 * 32 * 40).view(2, 5, 32, 40)
    for module in wrapped.modules():
        module.train()
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # twice the same statistics
    (original(wrapped, images) * weights).sum().backward()
    expected = {name: p.grad for name, p in wrapped.named_parameters()}
    wrapped.zero_grad()
    (wrapped(images) * weights).sum().backward()
    for name, p in wrapped.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


def test_modes_and_forwards_stay_as_they_were(wrapped):
    network = wrapped.model
    for n, module in enumerate(network.modules()):
        module.training = n % 2 == 0
    modes = [module.training for module in network.modules()]
    Wrapped(network, at=wrapped.at, entry=wrapped.entry)(pictures(1, 3, 32, 40))
    inspect(network)
    assert [module.training for module in network.modules()] == modes
    for module in network.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_forward_of_an_instance_s_own_stays():
    network = made(Network())
    forward = network.neck.forward
    network.neck.forward = lambda x: forward(x) + 1  # as quantisation and offloading libraries do
    own = network.neck.forward
    wrapped = Wrapped(network, at="neck").eval()
    images = pictures(2, 3, 32, 40)
    assert torch.equal(wrapped(images), original(wrapped, images))
    assert network.neck.forward is own


def test_hooks_of_the_user_s_stay_and_count():
    network = made(Network())
    network.body.register_forward_hook(lambda *args: args[2] * 3)
    network.neck.register_forward_hook(lambda *args: args[2] + 2)
    network.join.register_forward_hook(lambda *args: args[2] * 0.5)
    wrapped = Wrapped(network, at="neck").eval()
    images = pictures(2, 3, 32, 40)
    assert torch.equal(wrapped(images), original(wrapped, images))
    assert [len(module._forward_hooks) for module in (network.body, network.neck, network.join)] == [1, 1, 1]


@pytest.mark.parametrize("part", ["stem", "neck", "join"])
def test_an_error_leaves_the_network_as_it_was(part):
    network = made(Network())
    wrapped = Wrapped(network, at="neck").eval()
    images = pictures(2, 3, 32, 40)
    expected = wrapped(images)

    def fail(*_):
        raise RuntimeError("the network's own")

    hook = network.get_submodule(part).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="the network's own"):
        wrapped(images)
    hook.remove()
    assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(wrapped(images), expected)
    assert torch.equal(original(wrapped, images), expected)


def test_each_part_is_run_once_a_frame():
    network = made(Network())
    segmenter = LMANet(Wrapped(network, at="neck"), key_channels=4, value_channels=4, window=3).eval()
    calls = []
    for name in ("stem", "body", "neck", "join", "head"):
        network.get_submodule("head" if name == "head" else f"{name}.0").register_forward_pre_hook(
            lambda *_, name=name: calls.append(name)
        )
    _, state = segmenter.step(pictures(1, 3, 32, 40))
    segmenter.step(pictures(1, 3, 32, 40), state)
    assert calls == ["stem", "body", "neck", "join", "head"] * 2


def test_parts_are_told_apart():
    wrapped = Wrapped(made(CodeBetween()), at="neck")
    network = wrapped.model
    encoder = {id(x) for part in wrapped.encoder_parts() for x in (*part.parameters(), *part.buffers())}
    decoder = {id(x) for part in wrapped.decoder_parts() for x in (*part.parameters(), *part.buffers())}
    assert {id(network.gain), id(network.shift), id(network.neck[0].weight)} <= encoder
    assert {
        id(x) for part in (network.join, network.head) for x in part.state_dict(keep_vars=True).values()
    } == (decoder)
    assert len(list(wrapped.parameters())) == len(list(network.parameters()))


def test_any_size_and_multiples():
    class Strict(Network):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[-2] % 32 or images.shape[-1] % 32:
                raise ValueError("multiples of 32, please")
            return super().forward(images)

    assert Wrapped(made(Network()), at="neck").padded_length(33) == 33
    wrapped = Wrapped(made(Strict()), at="neck").eval()
    assert [wrapped.padded_length(n) for n in (1, 32, 33)] == [32, 32, 64]
    images = pictures(1, 3, 33, 50)
    whole = F.pad(images, (0, 14, 0, 31), mode="replicate")
    assert torch.equal(wrapped.segment(images), original(wrapped, whole)[..., :33, :50])


def test_a_network_of_few_sizes_is_probed_at_one_that_is_given():
    class Picky(Network):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[-1] > 600, "too narrow"
            return super().forward(images)

    with pytest.raises(InputError, match=r"(?s)Picky runs on no image .*too narrow.* give probe=\(H, W\)"):
        Wrapped(made(Picky()), at="neck")
    assert Wrapped(made(Picky()), at="neck", probe=(32, 640)).channels == 12
    assert cut_where_best(made(Picky()), probe=(32, 640)).stride == 2


def test_images_are_normalised():
    images = pictures(1, 3, 32, 40)
    wrapped = Wrapped(made(Network()), at="neck", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0)).eval()
    by_hand = torch.stack(
        [(images[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 1)])], 1
    )
    assert torch.equal(wrapped(images), wrapped.model(by_hand))


class Twice(Network):
    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        low = self.body(skip)
        return self.head(self.neck(low) + self.neck(low + 1))


class Fixed(Network):
    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-2:] == (224, 224), "224×224 only"
        return super().forward(images)


class Unused(Network):
    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.up(self.body(self.stem(images))[:, :12], self.stem(images)))


class Remembers(Network):
    """A submodule puts a map where the network finds it later."""

    class Hiding(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            self.hidden = x
            return super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.body = self.Hiding(*self.body)

    def forward(self, images: Tensor) -> Tensor:
        x = self.neck(self.body(self.stem(images)))
        return self.head(
            self.up(x, self.body.hidden.mean((0, 1, 2, 3), keepdim=True).expand(len(x), 8, 64, 96))
        )


class RemembersMap(Remembers):
    def forward(self, images: Tensor) -> Tensor:
        x = self.neck(self.body(self.stem(images)))
        return self.head(self.up(x, self.body.hidden))


class UsesImages(Network):
    """What comes after the cut needs the images themselves."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.mean((1, 2, 3), keepdim=True)


class Untrainable(Network):
    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        return self.head(self.up(self.neck(self.body(skip)), skip).add_(1))


class OfBatch(Network):
    """The other side needs a tensor that is no image's."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(12, 1)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        bias = self.bias(torch.arange(12))
        return self.head(self.up(self.neck(self.body(skip)) + bias[:, :, None], skip))


class OfObjects(Network):
    """Hands over tensors in an object of a kind of its own."""

    class Box(nn.Module):
        def forward(self, skip):
            class Maps:
                inside = skip

            return Maps()

    def __init__(self) -> None:
        super().__init__()
        self.box = self.Box()

    def forward(self, images: Tensor) -> Tensor:
        skip = self.stem(images)
        box = self.box(skip)
        return self.head(self.up(self.neck(self.body(skip)), box.inside))


class Listed(Network):
    def forward(self, images: Tensor):
        return [super().forward(images).flatten(2)]


class Flat(Network):
    def forward(self, images: Tensor):
        return super().forward(images).mean((-2, -1))


class Empty(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


REFUSED = [
    (Network, {"at": "nek"}, "at='nek': Network has no such submodule"),
    (Network, {"at": ""}, "at='': Network has no such submodule"),
    (Twice, {"at": "neck"}, "'neck' is called 2 times for an image"),
    (Unused, {"at": "stem"}, "'stem' is called 2 times"),
    (Unused, {"at": "neck"}, "'neck' is called 0 times"),
    (Auxiliary, {"at": "auxiliary"}, "'auxiliary' returns has no part in the logits"),
    (Network, {"at": "neck", "entry": 1}, r"no map .* at entry 1: it holds itself \(2, 12, 32, 48\)"),
    (lambda: OfParts("tuple"), {"at": "parts"}, r"entry None: it holds entry 0 \(2, 8, .*, entry 1 \(2, 16"),
    (lambda: OfParts("dict"), {"at": "parts", "entry": "high"}, "entry 'high': it holds entry 'skip'"),
    (lambda: OfParts("list"), {"at": "parts", "entry": -3}, "entry -3"),
    (Fixed, {"at": "neck"}, r"takes images of 224×224, but not of 288×352 \(AssertionError: 224×224 only"),
    (OfBatch, {"at": "neck"}, r"needs a tensor \(12, 1\) that does not belong to single images"),
    (OfObjects, {"at": "neck"}, "returns a Maps that depends on the images"),
    (
        Listed,
        {"at": "neck"},
        r"output '0' of the model is a tensor \(2, 5, 24576\): expected logits .* a sequence",
    ),
    (Flat, {"at": "neck"}, r"the model returned a tensor \(2, 5\): expected logits"),
    (Empty, {"at": "neck"}, "Empty has no such submodule"),
]


@pytest.mark.parametrize(("build", "options", "message"), REFUSED)
def test_what_cannot_be_cut_is_refused(build, options, message):
    with pytest.raises(InputError, match=message):
        Wrapped(build().eval(), **options)


@pytest.mark.parametrize("build", [Remembers, RemembersMap, UsesImages])
def test_what_goes_around_the_submodules_is_noticed(build):
    with pytest.raises(InputError, match="does not give the same logits when it is cut at 'neck'"):
        Wrapped(made(build()), at="neck")


class TestContract(BackboneContract):
    """Everything at once: nested, dict, skip map, own code, shared ReLU in place."""

    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = OfParts("dict")
            self.relu = nn.ReLU(inplace=True)
            del self.network.stem, self.network.body

        def forward(self, images: Tensor) -> Tensor:
            return self.relu(self.network(self.relu(images))["out"] + 3) - 3

    def make(self) -> Wrapped:
        return Wrapped(made(self.Everything()), at="network.neck")


def test_the_default_is_the_candidate_of_most_merit():
    network = made(Auxiliary())
    candidates = inspect(network)
    blocks = [f"{block}{part}" for block in ("stem", "body", "neck", "join") for part in (".0", ".1", "")]
    assert [c.at for c in candidates] == blocks
    wrapped = cut_where_best(network)
    chosen = max(candidates, key=lambda c: c.merit)  # no map goes around it
    assert wrapped.at == chosen.at == "join" and wrapped.bypasses == 0
    assert (chosen.channels, chosen.stride, chosen.rectified) == (wrapped.channels, wrapped.stride, True)


def test_costs_are_those_of_the_convolutions():
    candidates = {c.at: c for c in inspect(made(Network()))}
    # Multiplications per pixel of a stride 4 map are a sixteenth of that many per pixel; per megapixel in 10⁹.
    stem, body, neck = 9 * 3 * 8 / 4 / 1e3, 9 * 8 * 16 / 16 / 1e3, 9 * 16 * 12 / 16 / 1e3
    join, head = 9 * 20 * 12 / 4 / 1e3, 12 * 5 / 4 / 1e3
    assert candidates["neck"].gmacs_before == pytest.approx(stem + body + neck)
    assert candidates["neck"].gmacs_after == pytest.approx(join + head)
    assert candidates["neck"].share_before == pytest.approx(
        (stem + body + neck) / (stem + body + neck + join + head)
    )


def test_entries_are_found_where_a_submodule_returns_several_maps():
    class Inlined(OfParts):
        """Its parts are no submodules that return maps of their own."""

        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = (nn.Parameter(torch.rand(n, m, 3, 3)) for n, m in ((8, 3), (16, 8)))

            def forward(self, images: Tensor) -> list[Tensor]:
                skip = F.conv2d(images, self.first, stride=2, padding=1)
                return [skip, F.conv2d(skip, self.second, stride=2, padding=1)]

        def __init__(self) -> None:
            super().__init__("list")
            self.parts = self.Both()

    found = [(c.at, c.entry) for c in inspect(Inlined().eval()) if c.at == "parts"]
    assert found == [("parts", 0), ("parts", 1)]
    assert Wrapped(Inlined().eval(), at="parts", entry=1).bypasses == 1


def test_where_nothing_can_be_cut():
    with pytest.raises(InputError, match="Sequential has no submodule that is called once and returns a map"):
        inspect(nn.Sequential(nn.Conv2d(3, 4, 1)).eval())
    with pytest.raises(InputError, match="Empty has no submodule that is called once"):
        inspect(Empty())
    with pytest.raises(InputError, match=r"no place to cut UsesImages at was found; the last one tried: "):
        cut_where_best(made(UsesImages()))
    with pytest.raises(InputError, match="no gradients can be computed through the network"):
        inspect(made(Untrainable()))


class OtherwiseInTraining(Network):
    def forward(self, images: Tensor):
        skip = self.stem(images)
        low = F.dropout(self.body(skip), 0.5, self.training)
        out = self.head(self.up(self.neck(low), skip))
        return [out, low] if self.training else out


def test_what_is_on_both_sides_of_the_cut_stays_in_eval_mode():
    wrapped = Wrapped(made(OtherwiseInTraining()), at="neck")
    assert wrapped.train() is wrapped and wrapped.training
    assert not wrapped.model.training and wrapped.model.head.training and wrapped.model.body.training
    for part in wrapped.encoder_parts():
        part.eval()
    images = pictures(2, 3, 32, 40)
    assert torch.equal(wrapped.encode(images).fused, wrapped.encode(images).fused)
    assert wrapped(images).shape == (2, 5, 32, 40)
    assert not wrapped.eval().model.head.training


def test_an_optimised_copy_draws_no_random_numbers():
    wrapped = Wrapped(made(Network()), at="neck")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    wrapped.optimize()
    assert torch.equal(torch.rand(1), expected)
