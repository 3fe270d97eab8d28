"""Which normalisation a network wants: said, done by itself, published, or assumed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmanet
from backbones.third_party import CLASSES, made
from contracts.networks import seeded
from lmanet.backbones import as_backbone
from lmanet.backbones.wrapped.normalisation import find_normalisation
from lmanet.errors import InputError
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD

MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)
NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
BYTES = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))

Prepare = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """Does something to images, then labels them."""

    def __init__(self, prepare: Prepare = lambda images: images, first: nn.Module | None = None) -> None:
        super().__init__()
        self.prepare = prepare
        self.first = first or nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        made = self.head(F.relu(self.first(self.prepare(images))))
        return F.interpolate(made, images.shape[-2:], mode="bilinear")


class Own(nn.Module):
    """Normalises by buffers of its own; can be scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", MEAN.clone())
        self.register_buffer("std", STD.clone())
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.body((images - self.mean) / self.std)))


def in_place(images: Tensor) -> Tensor:
    images = images.clone()
    for n in range(3):
        images[:, n] = (images[:, n] - MEAN[n]) / STD[n]
    return images


def into_another(images: Tensor) -> Tensor:
    made = torch.zeros_like(images)
    for n in range(3):
        made[:, 2 - n] = (images[:, n] - MEAN[n]) / STD[n]
    return made


def as_convolution() -> nn.Module:
    shift = nn.Conv2d(3, 3, 1)
    shift.weight.data = torch.diag(1 / STD.flatten()).view(3, 3, 1, 1)
    shift.bias.data = (-MEAN / STD).flatten()
    return shift


def blurred(images: Tensor) -> Tensor:
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3) / 16
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


OWN = "its own forward normalises: mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
NOTHING = "assumed: it does not normalise by itself, and nothing else is known of it"
PREPARED: dict[str, tuple[Prepare, tuple, str]] = {
    "nothing": (lambda x: x, IMAGENET, NOTHING),
    "mean and std": (lambda x: (x - MEAN) / STD, NONE, OWN),
    "in place": (in_place, NONE, OWN),
    "into another": (into_another, NONE, f"{OWN}, channels as BGR"),
    "as a convolution": (as_convolution(), NONE, OWN),
    "in float64": (lambda x: ((x.double() - MEAN) / STD).float(), NONE, OWN),
    "-1 to 1": (lambda x: 2 * x - 1, NONE, "its own forward normalises: mean 0.5 0.5 0.5, std 0.5 0.5 0.5"),
    "times 255": (lambda x: x * 255, NONE, "its own forward normalises: mean 0 0 0, std 0.00392"),
    "Caffe's": (lambda x: x.flip(1) * 255 - 100, NONE, "mean 0.392 0.392 0.392, std .*, channels as BGR"),
    "BGR": (lambda x: x[:, [2, 1, 0]], NONE, "its own forward turns RGB into BGR"),
    "of bytes": (
        lambda x: x / 255,
        BYTES,
        "its own forward normalises values of 0 to 255: mean 0 0 0, std 255",
    ),
    "mean of bytes": (
        lambda x: (x - 255 * MEAN) / (255 * STD),
        BYTES,
        "of 0 to 255: mean 124 116 104, std 58.4",
    ),
    "resized": (lambda x: F.interpolate((x - MEAN) / STD, (96, 96), mode="bilinear"), NONE, OWN),
    "resized only": (lambda x: F.interpolate(x, (96, 96), mode="bicubic"), IMAGENET, NOTHING),
    "padded": (lambda x: F.pad((x - MEAN) / STD, (8, 8, 8, 8)), NONE, OWN),
    "padded only": (lambda x: F.pad(x, (3, 3, 3, 3)), IMAGENET, NOTHING),
    "by image": (
        lambda x: (x - x.mean()) / x.std(),
        NONE,
        "its own forward standardises each image by itself",
    ),
    "by image and channel": (lambda x: F.instance_norm(x), NONE, "standardises each image by itself"),
    "least to largest": (lambda x: (x - x.amin()) / (x.amax() - x.amin()), NONE, "standardises each image"),
    "by the range": (lambda x: x / 255 if x.max() > 1 else x, NONE, "takes values beyond .* otherwise"),
    "clamped": (lambda x: x.clamp(0, 1), NONE, "takes values beyond .* otherwise"),
    "rounded to bfloat16": (lambda x: x.bfloat16().float(), IMAGENET, NOTHING),
    "grey": (
        lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1),
        NONE,
        "assumed: .* could not be told; say --",
    ),
    "blurred": (lambda x: (blurred(x) - MEAN) / STD, NONE, OWN),
    "blurred only": (lambda x: blurred(x), IMAGENET, NOTHING),
    "through NumPy": (lambda x: torch.from_numpy(((x - MEAN) / STD).numpy().copy()), NONE, OWN),
    "through NumPy only": (lambda x: torch.from_numpy(x.numpy().copy()), IMAGENET, NOTHING),
    "sums of four": (lambda x: 2 * F.avg_pool2d(x, 2), IMAGENET, NOTHING),  # as of a wavelet
    "a negative": (lambda x: 1 - x, IMAGENET, NOTHING),
    "moved a little": (lambda x: x + torch.tensor([0.05, -0.03, 0.02]).view(3, 1, 1), IMAGENET, NOTHING),
    "gamma": (lambda x: x**2.2, NONE, "assumed: its own forward changes colours .* could not be told"),
}


def seen(network: nn.Module, **given) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = find_normalisation(network, **given)
    return found.mean, found.std


@pytest.mark.parametrize("name", PREPARED)
def test_what_a_network_does_by_itself_is_not_done_twice(name):
    prepare, (mean, std), reason = PREPARED[name]
    found = find_normalisation(Network(prepare))
    assert (found.mean, found.std, found.bgr) == (pytest.approx(mean), pytest.approx(std), False)
    assert re.search(reason, found.reason), found.reason


@pytest.mark.parametrize("name", ["mean and std", "of bytes", "by the range", "BGR"])
@torch.no_grad()
def test_its_labels_are_those_that_it_gives_by_itself(name):
    with seeded():
        network = Network(PREPARED[name][0]).eval()
    images = torch.rand(1, 3, 48, 64)
    expected = network(images * 255 if name == "of bytes" else images)
    for method in ("single-frame", "training-free"):
        model = lmanet.wrap(network, method).eval()
        logits = model.step(images)[0]
        torch.testing.assert_close(logits, expected)


class Branches(nn.Module):
    """Two branches, of which the first is given the image as it is."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own, self.fine, self.deep = own, nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        return fine + self.deep((images - MEAN) / STD if self.own else images)


class Residual(nn.Module):
    """What enters its second layer is each channel times a number, which nobody calls a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.all = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.all(images + self.each(images))


class WithGrey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(torch.cat([images, images.mean(1, keepdim=True)], 1))


def test_a_branch_that_normalises_is_found_and_plain_stems_are_left_alone():
    assert seen(Branches(True)) == NONE
    mixing = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 3, 2, 1))
    for plain in (Branches(False), Residual(), WithGrey(), mixing):
        found = find_normalisation(plain)
        assert (found.mean, found.std) == IMAGENET and NOTHING in found.reason


@pytest.mark.parametrize("size", [(2, 2), (4, 4)])
def test_patches_and_shuffled_pixels_are_seen_through(size):
    class Patches(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.own, self.embed = own, nn.Linear(3 * size[0] * size[1], 4)

        def forward(self, images: Tensor) -> Tensor:
            x = (images - MEAN) / STD if self.own else images
            height, width = images.shape[-2] // size[0], images.shape[-1] // size[1]
            patches = F.unfold(x, size, stride=size).transpose(1, 2)
            return self.embed(patches).transpose(1, 2).unflatten(2, (height, width))

    assert seen(Patches(True)) == NONE and seen(Patches(False)) == IMAGENET
    shuffled = nn.Conv2d(3 * 16, 8, 1)
    assert seen(Network(lambda x: F.pixel_unshuffle((x - MEAN) / STD, 4), shuffled)) == NONE
    assert seen(Network(lambda x: F.pixel_unshuffle(x, 4), shuffled)) == IMAGENET


@pytest.mark.parametrize(
    ("mean", "variance", "expected", "reason"),
    [
        (0.0, 1.0, IMAGENET, NOTHING),  # it has seen nothing
        (0.45, 0.07, NONE, "its first layer, a BatchNorm, saw images of mean 0.45 0.45 0.45"),
        (115.0, 3000.0, BYTES, "saw images of mean 115"),
        (-0.1, 1.2, IMAGENET, "assumed: its first layer, a BatchNorm, saw images of mean -0.1"),
    ],
)
def test_a_batch_norm_on_the_image_tells_what_it_saw(mean, variance, expected, reason):
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(variance)
    network = Network(first=nn.Sequential(norm, nn.Conv2d(3, 8, 3, 2, 1)))
    found = find_normalisation(network)
    assert (found.mean, found.std) == expected and reason in found.reason
    assert torch.equal(norm.running_mean, torch.full((3,), mean)) and network.training


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("form", ["script", "trace", "frozen", "exported", "graph", "bfloat16", "float16"])
def test_it_is_found_out_of_graphs_and_of_other_precisions(form, own):
    network = (Own() if own else nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1))).eval()
    images = torch.rand(1, 3, 128, 192)
    shaped = {
        "script": lambda: torch.jit.script(network),
        "trace": lambda: torch.jit.trace(network, images),
        "frozen": lambda: torch.jit.freeze(torch.jit.script(network)),
        "exported": lambda: torch.export.export(network, (images,)).module(),
        "graph": lambda: torch.fx.symbolic_trace(network),
        "bfloat16": lambda: network.bfloat16(),
        "float16": lambda: network.half(),
    }[form]()
    assert seen(shaped) == (NONE if own else IMAGENET)


def test_what_cannot_be_looked_into_is_assumed():
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images - 0.5

    found = find_normalisation(Odd())
    assert (found.mean, found.std) == IMAGENET and "could not be found out" in found.reason


def test_libraries_say_what_their_networks_want():
    halves = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for name, expected, bgr, source in (
        ("BEiT", halves, False, "the defaults of transformers' BeitImageProcessor"),
        ("Data2Vec", halves, False, "transformers' BeitImageProcessor"),
        ("DPT", halves, False, "transformers' DPTImageProcessor"),
        ("MobileViT", NONE, True, "transformers' MobileViTImageProcessor"),
        ("MobileViTV2", NONE, True, "transformers' MobileViTImageProcessor"),
        ("MobileNetV2", halves, False, "transformers' MobileNetV2ImageProcessor"),
        ("SegFormer", IMAGENET, False, "transformers' SegformerImageProcessor"),
        ("UPerNet of ConvNeXt", IMAGENET, False, "transformers' SegformerImageProcessor"),
        ("torchvision LRASPP", IMAGENET, False, "as torchvision's weights want it"),
        ("smp Unet", IMAGENET, False, "as smp's weights of the encoder resnet18 want it, by its name"),
    ):
        found = find_normalisation(made(name))
        assert (found.mean, found.std) == (pytest.approx(expected[0]), pytest.approx(expected[1])), name
        assert found.bgr == bgr and source in found.reason, name
    smp = pytest.importorskip("segmentation_models_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for encoder in ("xception", "tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0"):
            network = smp.FPN(encoder, encoder_weights=None, classes=CLASSES)
            assert seen(network) == (pytest.approx(halves[0]), pytest.approx(halves[1]))


@pytest.mark.parametrize(
    ("kind", "mean", "source"),
    [
        ("Dinov2", IMAGENET_MEAN, "as transformers' published weights of dinov2 want it"),
        ("CLIPVision", (0.481, 0.458, 0.408), "the defaults of transformers' CLIPImageProcessor"),
        ("SiglipVision", (0.5, 0.5, 0.5), "the defaults of transformers' SiglipImageProcessor"),
    ],
)
def test_encoders_of_transformers_under_a_head_of_ones_own(kind, mean, source):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{kind}Config")(**sizes, image_size=224, patch_size=16)
    encoder = getattr(transformers, f"{kind}Model")(config)

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = encoder, nn.Conv2d(16, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.encoder(images).last_hidden_state[:, -196:]
            return self.head(tokens.transpose(1, 2).unflatten(2, (14, 14)))

    found = find_normalisation(Headed())
    assert found.mean == pytest.approx(mean, abs=1e-3) and source in found.reason


@torch.no_grad()
def test_a_network_of_bgr_is_given_bgr():
    network = made("MobileViT")
    images = torch.rand(1, 3, 64, 96)
    backbone = as_backbone(network, cut=False).eval()
    expected = network(images.flip(1)).logits
    torch.testing.assert_close(backbone.encode(images).fused, expected)
    assert backbone.setting["bgr"] is True and "BGR" in backbone.normalisation
    assert torch.equal(as_backbone(network).eval()(images), backbone(images))


@pytest.mark.parametrize(
    ("saved", "mean", "std", "bgr"),
    [
        (
            {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.5},
            (0.1, 0.2, 0.3),
            (0.5,) * 3,
            False,
        ),
        ({"do_normalize": False, "do_rescale": False}, *BYTES, False),
        ({"do_normalize": False, "do_flip_channel_order": True}, *NONE, True),
        (
            {"do_rescale": True, "rescale_factor": 2 / 255, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
            (0.5,) * 3,
            (0.5,) * 3,
            False,
        ),
    ],
)
def test_a_checkpoints_own_processor_comes_first(tmp_path: Path, saved, mean, std, bgr):
    network = made("SegFormer")
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "SegformerImageProcessor", **saved})
    )
    loaded = type(network).from_pretrained(tmp_path)
    found = find_normalisation(nn.Sequential(Pictures(loaded)))
    assert (found.mean, found.std, found.bgr) == (pytest.approx(mean), pytest.approx(std), bgr)
    assert str(tmp_path) in found.reason


class Pictures(nn.Module):
    """As users put a network of transformers into a module of their own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(pixel_values=images).logits


def test_transformers_is_not_imported_for_networks_of_others():
    code = (
        "import sys, torch, lmanet; n = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 2, 1)); "
        "print(lmanet.wrap(n, 'single-frame').backbone.normalisation); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_said_comes_before_all():
    network = Network(PREPARED["mean and std"][0])
    numbers = "0.5,0.5,0.5,0.25,0.25,0.25"
    assert seen(network, normalise="imagenet") == IMAGENET
    assert seen(Network(), normalise="none") == NONE
    assert seen(network, normalise=numbers) == ((0.5,) * 3, (0.25,) * 3)
    assert seen(network, mean=(0.5, 0.5, 0.5), std=[0.25, 0.25, 0.25]) == ((0.5,) * 3, (0.25,) * 3)
    for text in ("imagenet", "none", f"{numbers},bgr", "none,bgr"):
        found = find_normalisation(network, normalise=text)
        assert (
            found.bgr == text.endswith("bgr") and find_normalisation(network, normalise=found.values) == found
        )
    model = lmanet.wrap(network, "single-frame", normalise="imagenet")
    assert model.backbone.normalisation == "ImageNet's (as given)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"normalise": "imagenet", "mean": (0.5,) * 3}, "normalise 'imagenet' beside mean or std: give one"),
        ({"mean": (0.5,) * 3}, "mean without std: give both"),
        ({"std": (0.5,) * 3}, "std without mean: give both"),
        ({"normalise": "caffe"}, "normalise 'caffe': expected imagenet, none, or six numbers"),
        ({"normalise": "0.5,0.5,0.5"}, "expected imagenet, none, or six numbers"),
        ({"normalise": "0,0,0,1,1,0"}, r"std 1 1 0: expected more than 0"),
        ({"mean": (0.5,) * 3, "std": (0.5, -0.5, 0.5)}, "expected more than 0"),
        ({"mean": (0.5,) * 3, "std": (0.5, float("nan"), 0.5)}, "std 0.5 nan 0.5: expected three numbers"),
        ({"mean": (0.5, 0.5), "std": (0.5,) * 3}, "mean 0.5 0.5: expected three numbers"),
        (
            {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            "of values of 0 to 255: .* divide both by 255: mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        ),
    ],
)
def test_what_is_no_normalisation_is_told(given, message):
    with pytest.raises(InputError, match=message):
        lmanet.wrap(Network(), "single-frame", **given)
