"""`lmanet.wrap`: a network of the user's own with a memory, in one call."""

from __future__ import annotations

import inspect
import sys
import typing
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmanet
from backbones.third_party import logits_in
from contracts.networks import TinyBackbone, seeded
from lmanet.backbones import NetworkOptions, Uncut, Wrapped, as_backbone
from lmanet.errors import InputError
from lmanet.methods import METHODS, find_method
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(64, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.head(self.body(self.stem(images))), images.shape[-2:], mode="bilinear")


def torchvision() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)


def smp() -> nn.Module:
    library = pytest.importorskip("segmentation_models_pytorch")
    return library.FPN("tu-tf_efficientnet_lite0", encoder_weights=None, classes=4)


def transformers() -> nn.Module:
    library = pytest.importorskip("transformers")
    config = library.SegformerConfig(
        num_labels=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32
    )
    return library.SegformerForSemanticSegmentation(config)


@pytest.fixture(params=[Network, torchvision, smp, transformers])
def network(request) -> nn.Module:
    with seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries', as they are imported
        return request.param().eval()


@torch.no_grad()
def test_a_network_of_any_library_labels_a_video(network):
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    model = lmanet.wrap(network, "training-free")
    session = lmanet.Session(model)
    results = [session.step(frame) for frame in frames]
    assert all(result.labels.shape == (60, 80) for result in results)
    # The first frame has nothing to be steadied by.
    images = torch.from_numpy(frames[:1]).movedim(-1, 1) / 255
    height, width = (model.backbone.padded_length(n) for n in (60, 80))
    images = F.pad(images, (0, width - 80, 0, height - 60), mode="replicate")
    wrapped = model.backbone
    assert isinstance(wrapped, Uncut) and wrapped.model is network
    logits = logits_in(network((images - wrapped.normalise.mean) / wrapped.normalise.std))
    logits = F.interpolate(logits, (height, width), mode="bilinear")[..., :60, :80]
    first, second = logits.topk(2, 1).values.unbind(1)
    sure = (first - second > 1e-3 * logits.std())[0].numpy()
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(results[0].labels[sure], logits.argmax(1)[0].numpy()[sure])


@torch.no_grad()
def test_what_is_not_found_again_is_labelled_by_the_network(network):
    model = lmanet.wrap(network, "training-free").eval()
    clip = torch.stack([torch.zeros(1, 3, 64, 96), torch.rand(1, 3, 64, 96)], 1)
    torch.testing.assert_close(model(clip).softmax(1), model.backbone(clip[:, -1]).softmax(1))


def test_options_go_where_they_belong():
    options = {"memory_size": 3, "window": 5, "key_channels": 8, "convolutions": "fast"}
    trained = lmanet.wrap(Network(), "lmanet", at="stem", **options)
    assert isinstance(trained, lmanet.LMANet) and trained.convolutions == "fast"
    assert (trained.memory_size, trained.window, trained.key_channels) == (3, 5, 8)
    assert (trained.backbone.channels, trained.backbone.stride) == (32, 4)
    labels = lmanet.wrap(Network(), "label-memory", at="stem", hidden=8)
    assert isinstance(labels, lmanet.LabelMemory) and labels.trust_in.out_channels == 8
    steadied = lmanet.wrap(Network(), "training-free", at="stem", window=5, attention="reference")
    assert isinstance(steadied, lmanet.TrainingFreeMemory)
    assert (steadied.window, steadied.attention) == (5, "reference")
    alone = lmanet.wrap(Network(), "single-frame", at="stem")
    assert isinstance(alone, lmanet.SingleFrame) and alone.backbone.channels == 32
    with pytest.raises(InputError, match=r"no method named 'images': there are single-frame, .*lmanet"):
        lmanet.wrap(Network(), "images")
    with pytest.raises(InputError, match="lmanet has no argument 'temperature': it has key_channels, value_"):
        lmanet.wrap(Network(), "lmanet", temperature=0.1)
    with pytest.raises(InputError, match="single-frame has no argument 'window': it has none"):
        lmanet.wrap(Network(), "single-frame", window=3)


@pytest.mark.parametrize("method", METHODS)
def test_the_typed_overloads_say_what_the_classes_take(method):
    """What an editor shows of `wrap` is what the constructors have."""
    common = ("model", "method", *NetworkOptions.__annotations__)
    for overload in typing.get_overloads(lmanet.wrap):
        named = inspect.signature(
            overload, eval_str=True, globals=vars(sys.modules["lmanet.methods.wrap"])
        ).parameters
        if typing.get_args(named["method"].annotation) == (method,):
            taken = inspect.signature(find_method(method)).parameters
            assert [name for name in named if name not in common] == list(taken)[1:]
            return
    raise AssertionError(f"no overload for {method}")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_can_be_wrapped_where_no_gradients_are_wanted(mode):
    network = Network()
    with mode():
        model = lmanet.wrap(network, "training-free").eval()
        assert model(torch.rand(1, 2, 3, 32, 40)).shape == (1, 4, 32, 40)


def test_where_it_is_cut_is_chosen_if_not_given():
    backbone = as_backbone(Network())
    assert isinstance(backbone, Wrapped) and backbone.at == "body"
    assert (backbone.channels, backbone.stride, backbone.num_classes) == (64, 8, 4)


def test_images_are_normalised_as_the_network_was_trained():
    def normalisation(model: nn.Module, **given) -> list[list[float]]:
        backbone = as_backbone(model, **given)
        assert isinstance(backbone, Wrapped)
        return [x.flatten().tolist() for x in (backbone.normalise.mean, backbone.normalise.std)]

    close = pytest.approx
    assert normalisation(Network()) == [close(IMAGENET_MEAN), close(IMAGENET_STD)]
    assert normalisation(smp().eval()) == [[0.5] * 3, [0.5] * 3]  # timm's of EfficientNet-Lite
    given = normalisation(smp().eval(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert given == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_network_stays_in_its_mode(training, method):
    network = Network().train(training)
    model = lmanet.wrap(network, method, at="body")
    assert model.backbone.training == training
    assert {module.training for module in network.modules()} == {training}


def test_a_backbone_stays_as_it_is():
    backbone = TinyBackbone()
    assert lmanet.wrap(backbone).backbone is backbone
    for options in ({"at": "body"}, {"mean": (0.0, 0.0, 0.0)}):
        with pytest.raises(
            InputError, match="a TinyBackbone is a Backbone, which says itself where it is cut"
        ):
            lmanet.wrap(backbone, **options)


def test_a_memory_is_trained_on_a_frozen_network():
    segmenter = lmanet.wrap(Network(), "lmanet", at="stem", window=3)
    segmenter(torch.rand(1, 3, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in segmenter.fusion.parameters())
    assert {f"backbone.model.{name}" for name in Network().state_dict()} <= segmenter.state_dict().keys()


def test_what_is_no_network_for_images_is_told():
    with pytest.raises(InputError, match="Linear runs on no image that was tried"):
        lmanet.wrap(nn.Linear(3, 4))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision_labels_a_video(dtype, method):
    with seeded():
        model = lmanet.wrap(Network().to(dtype).eval(), method, at="body").eval()
    assert {x.dtype for x in model.parameters()} == {dtype}
    session = lmanet.Session(model)
    for _ in range(2):
        labels = session.step(np.zeros((32, 48, 3), np.uint8)).labels
    assert labels.shape == (32, 48)


def test_a_stream_goes_on_in_bfloat16():
    with seeded():
        model = lmanet.wrap(Network().eval()).eval()
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, state = model.step(images)
        logits, _ = model.optimize(torch.bfloat16).step(images, state)
        expected, _ = model.step(images, state)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
