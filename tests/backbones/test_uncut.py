"""Networks that are not cut: those that need not be, and those that cannot be."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import lmanet
from backbones.cuttable import CUTS, Network, made, pictures
from lmanet.backbones import Uncut, Wrapped, as_backbone
from lmanet.errors import InputError, NetworkError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*torch.ao.quantization")

SIZE = (64, 96)


class Plain(nn.Module):
    """What TorchScript and quantisation take too: stride 4 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(64, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)))


class NoGradients(Plain):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class NoGradientsWithin(Plain):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(images)


class Inference(Plain):
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class Detached(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class Holder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.inner(images)}


def exported(network: nn.Module, *shape: int, free: bool = False) -> Any:
    auto = torch.export.Dim.AUTO
    dims = ({0: auto, 2: auto, 3: auto},) if free else None
    return torch.export.export(network, (torch.rand(shape),), dynamic_shapes=dims)


def quantised(network: nn.Module) -> nn.Module:
    quantisation = torch.ao.quantization
    whole = nn.Sequential(quantisation.QuantStub(), network, quantisation.DeQuantStub()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, of itself
        whole.qconfig = quantisation.get_default_qconfig("x86")
        quantisation.prepare(whole, inplace=True)
        whole(pictures(2, 3, *SIZE))
        return quantisation.convert(whole)


SCRIPT = "a TorchScript module cannot be cut in two: give the Python module that it was made of, or choose single-frame"
EXPORT = "an exported program cannot be cut in two: give the Python module that it was made of, or choose single-frame"
GRADIENTS = "runs without gradients (torch.no_grad, torch.inference_mode or detach in its forward)"
QUANTISED = "the quantised network Sequential cannot be cut in two, as it has no gradients"
UNCUTTABLE: dict[str, tuple[Callable[[nn.Module], Any], dict[str, Any], str]] = {
    "script": (torch.jit.script, {}, SCRIPT),
    "trace": (lambda n: torch.jit.trace(n, pictures(1, 3, *SIZE)), {}, SCRIPT),
    "frozen": (lambda n: torch.jit.freeze(torch.jit.script(n)), {}, SCRIPT),
    "optimised": (lambda n: torch.jit.optimize_for_inference(torch.jit.script(n)), {}, SCRIPT),
    "script within": (lambda n: Holder(torch.jit.script(n)), {}, f"within Holder, {SCRIPT}"),
    "program": (lambda n: exported(n, 2, 3, *SIZE, free=True), {}, EXPORT),
    "program's module": (lambda n: exported(n, 2, 3, *SIZE, free=True).module(), {}, EXPORT),
    "program within": (
        lambda n: Holder(exported(n, 2, 3, *SIZE, free=True).module()),
        {},
        f"within Holder, {EXPORT}",
    ),
    "program of one image": (lambda n: exported(n, 1, 3, *SIZE), {"probe": SIZE}, EXPORT),
    "no_grad": (lambda n: like(NoGradients(), n), {}, GRADIENTS),
    "no_grad within": (lambda n: like(NoGradientsWithin(), n), {}, GRADIENTS),
    "inference_mode": (lambda n: like(Inference(), n), {}, GRADIENTS),
    "detach": (lambda n: like(Detached(), n), {}, GRADIENTS),
    "quantised": (quantised, {}, QUANTISED),
}


def like(network: nn.Module, other: nn.Module) -> nn.Module:
    network.load_state_dict(other.state_dict())
    return network.eval()


@pytest.mark.parametrize("name", UNCUTTABLE)
def test_what_cannot_be_cut_labels_uncut_and_is_told_otherwise(name):
    build, options, message = UNCUTTABLE[name]
    network = build(copy.deepcopy(made(Plain())))
    run = network.module() if hasattr(network, "graph_signature") else network
    images = pictures(2, 3, *SIZE)
    with torch.no_grad():
        out = [run(images[n : n + 1]) for n in range(2)]
        out = torch.cat([x["out"] if isinstance(x, dict) else x for x in out])
        expected = F.interpolate(out, SIZE, mode="bilinear", align_corners=False)
    model = lmanet.wrap(network, "single-frame", normalise="none", **options)
    assert (isinstance(model.backbone, Uncut) and not model.training) or name.startswith("no_grad within")
    # TorchScript changes its arithmetic from run to run, as it optimises what it has seen.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    with torch.no_grad():
        torch.testing.assert_close(model.step(images)[0], expected, **tolerance)
    frames = (images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    for method in ("single-frame", "flow-average", "training-free"):
        session = lmanet.Session(lmanet.wrap(network, method, normalise="none", **options))
        labels = [session.step(frame).labels for frame in frames]
        if method == "single-frame":
            sure = (lambda top: top[:, 0] - top[:, 1] > 0.02)(expected.topk(2, 1).values).numpy()
            assert sure.mean() > 0.5
            np.testing.assert_array_equal(np.array(labels)[sure], expected.argmax(1).numpy()[sure])
    for method in ("label-memory", "lmanet"):
        with pytest.raises(InputError) as error:
            lmanet.wrap(network, method, **options)
        assert message in str(error.value)
    with pytest.raises(InputError) as error:
        lmanet.inspect(network, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("network", CUTS.values(), ids=CUTS.keys())
@torch.no_grad()
def test_cut_or_not_labels_are_the_same(network):
    build, at, entry = network
    one = made(build())
    whole = as_backbone(copy.deepcopy(one), cut=False, normalise="none").eval()
    cut = as_backbone(one, at=at, entry=entry, normalise="none").eval()
    assert isinstance(whole, Uncut) and isinstance(cut, Wrapped)
    images = pictures(2, 3, 48, 56)
    assert torch.equal(whole(images), cut(images))
    single = [lmanet.wrap(x, "single-frame") for x in (whole, cut)]
    frame = (images[0] * 255).byte()
    labels = [lmanet.Session(x).step(frame).labels for x in single]
    np.testing.assert_array_equal(*labels)


@torch.no_grad()
def test_it_is_the_network_to_the_bit():
    network = made(Network())
    model = lmanet.wrap(network, "single-frame", normalise="none").eval()
    images = pictures(2, 3, *SIZE)
    assert model.backbone.model is network
    assert torch.equal(model.step(images)[0], network(images))
    features = model.backbone.encode(images)
    assert torch.equal(model.backbone.decode(features, SIZE), network(images))
    assert features.fused.shape[1] == model.backbone.channels == model.backbone.num_classes == 5


def test_a_memory_wants_the_network_itself():
    backbone = lmanet.wrap(made(Network()), "single-frame").backbone
    with pytest.raises(
        InputError,
        match=r"lmanet needs a network that is cut in two, and this one is whole, .*: give the network itself, "
        r"lmanet\.wrap\(network, 'lmanet'\)",
    ):
        lmanet.wrap(backbone, "lmanet")
    # Methods that need no cut share it, whole or not.
    assert lmanet.wrap(backbone, "training-free").backbone is backbone
    cut = lmanet.wrap(made(Network()), "lmanet").backbone
    assert lmanet.wrap(cut, "flow-average").backbone is cut
    assert isinstance(lmanet.wrap(made(Network()), "single-frame", at="neck").backbone, Wrapped)


def doubled_up(network: nn.Module) -> nn.Module:
    network.compile()
    return network


def partly(network: nn.Module) -> nn.Module:
    network.body = torch.compile(network.body)
    network.head.compile()
    return network


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "compiled in place": doubled_up,
    "compiled in parts": partly,
    "DataParallel": nn.DataParallel,
    "compiled DataParallel": lambda n: torch.compile(nn.DataParallel(n)),
    "DataParallel compiled": lambda n: nn.DataParallel(torch.compile(n)),
}


@pytest.mark.parametrize("method", ["single-frame", "training-free"])
@pytest.mark.parametrize("name", WRAPPERS)
@torch.no_grad()
def test_what_networks_are_wrapped_up_in_is_taken_off(name, method):
    network = made(Network())
    plain = copy.deepcopy(network)
    wrapped = WRAPPERS[name](network)
    model = lmanet.wrap(wrapped, method, normalise="none").eval()
    assert [key for key in model.backbone.model.state_dict()] == list(plain.state_dict())
    images = pictures(2, 3, *SIZE)
    same = lmanet.wrap(plain, method, normalise="none").eval()
    assert torch.equal(model.backbone(images), same.backbone(images))
    assert torch.equal(model.backbone(images), plain(images))
    # The weights are the user's, to be trained.
    assert model.backbone.model.head.weight is network.head.weight
    session = lmanet.Session(model)
    session.step((images[0] * 255).byte())
    assert name != "compiled in place" or network._compiled_call_impl is not None, "the user's stays compiled"


def test_networks_of_several_processes_are_taken_too(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = made(Network())
        parallel = nn.parallel.DistributedDataParallel(network)
        for method in ("single-frame", "training-free"):
            assert lmanet.wrap(parallel, method).backbone.model is network
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size", [(50, 70), (64, 96), (33, 47)])
def test_a_program_of_free_sizes_takes_frames_of_any(size):
    program = exported(made(Plain()), 2, 3, *SIZE, free=True)
    session = lmanet.Session(lmanet.wrap(program, "flow-average"))
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    assert all(session.step(frame).labels.shape == size for frame in frames)


def test_a_network_of_one_size_says_what_to_do():
    program = exported(made(Plain()), 1, 3, *SIZE)
    with pytest.raises(
        InputError,
        match=r"takes images of 64×96, but not of .*; give probe=\(64, 96\) \(--probe 64 96",
    ):
        lmanet.wrap(program, "single-frame")
    model = lmanet.wrap(program, "single-frame", probe=SIZE)
    frame = np.zeros((50, 70, 3), np.uint8)
    with pytest.raises(InputError, match=r"images of 50×70 .* 64×96 alone: give --resize 64 96"):
        lmanet.Session(model).step(frame)
    assert lmanet.Session(model, resize=SIZE).step(frame).labels.shape == (50, 70)
    assert model.step(pictures(3, 3, *SIZE))[0].shape == (3, 4, *SIZE), "one image at a time"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_precisions(dtype):
    network = made(Plain()).to(dtype)
    for method in ("single-frame", "flow-average"):
        model = lmanet.wrap(network, method)
        assert {x.dtype for x in model.parameters()} == {dtype}
        assert lmanet.Session(model).step(np.zeros((*SIZE, 3), np.uint8)).labels.shape == SIZE


@torch.no_grad()
def test_parts_of_other_precisions_stay_as_they_are():
    class Mixed(Plain):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(self.stem(images)).bfloat16()).float()

    network = made(Mixed())
    network.head.bfloat16()
    model = lmanet.wrap(network, "single-frame", normalise="none")
    assert network.head.weight.dtype == torch.bfloat16
    images = pictures(1, 3, *SIZE)
    expected = F.interpolate(network(images), SIZE, mode="bilinear", align_corners=False)
    assert torch.equal(model.step(images)[0], expected)


def test_a_network_without_parameters_runs():
    class Colours(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0] - 0.5, 0.5 - images[:, 0]], 1)

    frame = np.zeros((8, 12, 3), np.uint8)
    frame[:, :6, 0] = 255
    session = lmanet.Session(lmanet.wrap(Colours(), "single-frame", normalise="none"))
    np.testing.assert_array_equal(session.step(frame).labels, np.repeat([[0] * 6 + [1] * 6], 8, 0))
    assert session.precision == "fp32"


@torch.no_grad()
def test_code_that_wants_rows_to_lie_one_after_the_other_gets_them():
    class Views(Plain):
        def forward(self, images: Tensor) -> Tensor:
            x = self.body(self.stem(images))
            flat = x.view(len(x), -1)  # not of what lies with its channels last
            return self.head(flat.view(x.shape))

    model = lmanet.wrap(made(Views()), "single-frame")
    assert lmanet.Session(model).step(np.zeros((*SIZE, 3), np.uint8)).labels.shape == SIZE


def test_what_fails_while_it_streams_is_told():
    class Picky(Plain):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[-1] == 50:
                raise ValueError("not 50")
            return super().forward(images)

    for method in ("single-frame", "flow-average", "training-free"):
        session = lmanet.Session(lmanet.wrap(made(Picky()), method))
        with pytest.raises(
            NetworkError, match=f"method {method} failed on a frame of 64×50: ValueError: not 50"
        ):
            session.step(np.zeros((64, 50, 3), np.uint8))


def test_what_cannot_be_copied_is_told():
    network = made(Plain())
    network.lock = threading.Lock()
    model = lmanet.wrap(network, "single-frame")
    with pytest.raises(InputError, match=r"cannot be copied by copy\.deepcopy \(TypeError: .*lock"):
        lmanet.Session(model)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda x: x, "got the function <lambda>, a function"),
        (torch.compile(lambda x: x), "got the function <lambda>, a function"),
        ("weights.pt", "got 'weights.pt', a file or a name"),
        (Plain, r"got the class Plain \(call it: Plain\(\)\)"),
        ({"a": torch.zeros(1)}, "got a dict"),
        ((1, 2), "got a tuple of 2"),
        (3, "got a int: expected a torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_told(thing, message):
    for method in ("single-frame", "training-free"):
        with pytest.raises(InputError, match=message):
            lmanet.wrap(thing, method)


def test_modes_go_through():
    network = made(Network()).train()
    model = lmanet.wrap(network, "single-frame")
    assert model.training and all(module.training for module in network.modules())
    model.eval()
    assert not any(module.training for module in network.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = lmanet.wrap(exported(made(Plain()), 2, 3, *SIZE, free=True), "single-frame")
        program.train()
        assert program.backbone.training and not program.eval().backbone.training


class Hooked(Plain):
    """Reads what a hook found, as many do that take features out of a network of others."""

    def __init__(self, kind: str, at: int) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}
        hooks = {
            "closure on itself": lambda m, given, out: self.found.__setitem__("map", out),
            "closure on a dict": self.on(self.found),
            "default": lambda m, given, out, found=self.found: found.__setitem__("map", out),
            "method": self.keep,
        }
        self.stem[at].register_forward_hook(hooks[kind])

    @staticmethod
    def on(found: dict[str, Tensor]) -> Callable:
        return lambda m, given, out: found.__setitem__("map", out)

    def keep(self, module: nn.Module, given: Any, out: Tensor) -> None:
        self.found["map"] = out

    def forward(self, images: Tensor) -> Tensor:
        self.stem(images)
        return self.head(self.body(self.found["map"].relu()))


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("kind", ["closure on itself", "closure on a dict", "default", "method"])
@torch.no_grad()
def test_copies_read_what_their_own_hooks_found(kind, at):
    network = made(Hooked(kind, at))
    for method in ("single-frame", "training-free"):
        fast = lmanet.wrap(network, method, normalise="none").eval().optimize()
        for n in range(3):  # each time another image
            images = pictures(1, 3, *SIZE) * (0.3 + 0.3 * n)
            expected = F.interpolate(network(images), SIZE, mode="bilinear")
            torch.testing.assert_close(fast.backbone(images), expected, rtol=1e-4, atol=1e-4)


def weight_normed(network: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(network.stem[0])
    return network


def weight_normed_of_old(network: nn.Module) -> nn.Module:
    nn.utils.weight_norm(network.stem[0])
    return network


def pruned(network: nn.Module) -> nn.Module:
    prune.l1_unstructured(network.stem[0], "weight", 0.5)
    return network


def of_inference_mode(network: nn.Module) -> nn.Module:
    with torch.inference_mode():
        return copy.deepcopy(network)


def compiled_forward(network: nn.Module) -> nn.Module:
    network.forward = torch.compile(network.forward, backend="eager")
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(
    "change", [weight_normed, weight_normed_of_old, pruned, of_inference_mode, compiled_forward]
)
@torch.no_grad()
def test_weights_that_are_made_in_each_call_or_in_inference_mode(change):
    network = change(made(Plain()))
    images = pictures(1, 3, *SIZE)
    expected = F.interpolate(network(images), SIZE, mode="bilinear")
    for method in ("single-frame", "training-free"):
        fast = lmanet.wrap(network, method, normalise="none").eval().optimize()
        torch.testing.assert_close(fast.backbone(images), expected, rtol=1e-4, atol=1e-4)


def test_weights_without_numbers_are_told():
    with pytest.raises(
        InputError, match=r"weights lie on the device meta, without numbers \(weight of Conv2d\)"
    ):
        lmanet.wrap(Plain().to("meta"), "single-frame")
