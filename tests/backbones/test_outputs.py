"""What networks return, and how logits are made of it."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.cuttable import Network, made, pictures
from contracts.networks import lively, seeded
from lmanet.backbones import Wrapped
from lmanet.backbones.wrapped.inspection import cut_where_best, inspect
from lmanet.backbones.wrapped.outputs import Outputs
from lmanet.backbones.wrapped.probing import find_probe
from lmanet.errors import InputError


class Pair(NamedTuple):
    mask: Tensor
    label: Tensor


@dataclass
class Result:
    mask: Tensor
    label: Tensor


class Thing:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class Returning(Network):
    """Returns what a function makes of its logits (B, K, H, W) and a label (B, K)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any], classes: int = 5) -> None:
        super().__init__()
        self.function = function
        self.head = nn.Conv2d(12, classes, 1)

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return self.function(logits, logits.mean((-2, -1)))


def network(function: Callable[[Tensor, Tensor], Any], classes: int = 5) -> nn.Module:
    return made(Returning(function, classes))


def alone(function: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    return lambda logits, label: function(logits)


def own(model: Any, images: Tensor) -> Tensor:
    """The logits that it makes what it returns of."""
    return Network.forward(model, images)


PLACES = {
    "tuple": (lambda x, y: (x, y), "0"),
    "list, the other way round": (lambda x, y: [y, x], "1"),
    "of one": (alone(lambda x: [x]), "0"),
    "dict": (lambda x, y: {"masks": x, "label": y}, "masks"),
    "ordered dict with other things": (lambda x, y: OrderedDict(n=1, seg=x, nothing=None, y=y, s="s"), "seg"),
    "named tuple": (Pair, "mask"),
    "dataclass": (Result, "mask"),
    "object": (lambda x, y: Thing(label=y, pred=x), "pred"),
    "namespace": (lambda x, y: SimpleNamespace(label=y, pred=x), "pred"),
    "nested": (lambda x, y: {"label": y, "seg": (x, y)}, "seg.0"),
    "the same twice": (lambda x, y: {"mask": x, "prediction": x, "label": y}, "mask"),
    "beside a map of another aspect": (lambda x, y: (x, x[..., :8]), "0"),
    "beside classes of pixels": (lambda x, y: {"labels": x.argmax(1), "map": x}, "map"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_only_map_is_found(name):
    function, place = PLACES[name]
    model = network(function)
    wrapped = Wrapped(model, at="neck").eval()
    images = pictures(2, 3, 32, 40)
    assert torch.equal(wrapped(images), own(model, wrapped.normalise(images)))
    assert wrapped.num_classes == 5 and wrapped.setting["output"] == place
    assert wrapped.notes == (
        f"of what it returns, {place!r} is taken as its logits: the only map of the image's aspect",
    )
    assert cut_where_best(model).num_classes == 5


@pytest.mark.parametrize("function", [alone(lambda x: x), lambda x, y: {"aux": x * 2, "logits": x, "out": x}])
def test_what_worked_before_has_the_setting_of_before(function):
    wrapped = Wrapped(network(function), at="neck")
    assert set(wrapped.setting) == {"at", "entry", "mean", "std"} and wrapped.notes == ()


def test_out_goes_before_logits_and_both_before_all_others():
    images = pictures(1, 3, 32, 40)
    for function in (
        lambda x, y: {"logits": x + 1, "aux": x, "out": x},
        lambda x, y: {"aux": x + 1, "logits": x},
        lambda x, y: Thing(aux=x + 1, logits=x),
        lambda x, y: {"out": y, "logits": x},
    ):
        model = network(function)
        wrapped = Wrapped(model, at="neck").eval()
        assert torch.equal(wrapped(images), own(model, wrapped.normalise(images)))


SEVERAL = {
    "list": (lambda x, y: [x[..., ::2, ::2], x, y], "0 (2, 5, 64, 96), 1 (2, 5, 128, 192)", "1", 1),
    "dict": (
        lambda x, y: {"low": x + 1, "high": x},
        "low (2, 5, 128, 192), high (2, 5, 128, 192)",
        "high",
        1,
    ),
    "nested": (
        lambda x, y: {"main": Pair(x, y), "aux": [x + 1, x + 2]},
        "main.mask (2, 5, 128, 192), aux.0 (2, 5, 128, 192), aux.1",
        "main.mask",
        "main",
    ),
    "dots in keys": (
        lambda x, y: {"a.b": x, "a": {"b": x + 1, "c": x}},
        "a.b (2, 5, 128, 192)",
        "a.c",
        "a.b",
    ),
    "from the end": (lambda x, y: (x + 1, x), "0 (2, 5, 128, 192), 1 (2, 5, 128, 192)", -1, "-1"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_maps_one_must_be_named(name):
    function, listed, *outputs = SEVERAL[name]
    model = network(function)
    with pytest.raises(InputError) as error:
        Wrapped(model, at="neck")
    assert listed in str(error.value) and "give output= (--model-output" in str(error.value)
    images = pictures(2, 3, 32, 40)
    for output in outputs:
        wrapped = Wrapped(model, at="neck", output=output).eval()
        assert torch.equal(wrapped(images), own(model, wrapped.normalise(images))), output
        assert wrapped.notes == ()
        assert (
            inspect(model, output=output) and cut_where_best(model, output=output).outputs == wrapped.outputs
        )


@pytest.mark.parametrize("output", ["height", 2, -3, "low.0", "0.1"])
def test_a_wrong_name_lists_what_there_is(output):
    model = network(lambda x, y: {"low": x + 1, "high": x})
    with pytest.raises(InputError, match=r"no such entry: it holds low \(2, 5, 128, 192\), high \(2, 5, 128"):
        find_probe(model, None, output=output)
    with pytest.raises(
        InputError, match=r"returned one tensor \(2, 5, 128, 192\), not several.* leave output= out"
    ):
        find_probe(made(Network()), None, output=output)


def test_what_was_named_by_hand_is_in_the_setting():
    for output in ("aux", "out", 0):
        wrapped = Wrapped(network(lambda x, y: {"out": x, "aux": x * 2}), at="neck", output=output)
        assert wrapped.setting["output"] == ("aux" if output == "aux" else "out")


BOTH = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
READINGS: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "softmax": (lambda x: x.softmax(1), 5, "probabilities"),
    "softmax of two": (lambda x: x.softmax(1), 2, "probabilities"),
    "softmax, enlarged": (
        lambda x: F.interpolate(x[..., ::2, ::2].softmax(1), scale_factor=2),
        5,
        "probabilities",
    ),
    "softmax, enlarged beyond [0, 1]": (
        lambda x: F.interpolate((50 * x[..., ::2, ::2]).softmax(1), scale_factor=2, mode="bicubic"),
        5,
        "probabilities",
    ),
    "softmax without gradient": (lambda x: x.detach().softmax(1), 5, "probabilities"),
    "log_softmax": (lambda x: x.log_softmax(1), 5, "logits"),
    "sigmoid": (lambda x: x.sigmoid(), 5, "sigmoids"),
    "sigmoid, enlarged": (lambda x: F.interpolate(x[..., ::2, ::2].sigmoid(), scale_factor=2), 5, "sigmoids"),
    "sigmoid by hand": (lambda x: 1 / (1 + (-x).exp()), 5, "sigmoids"),
    "sigmoid without gradient": (lambda x: x.detach().sigmoid(), 5, "sigmoids"),
    "mean of two sigmoids": (lambda x: (x.sigmoid() + (x / 2).sigmoid()) / 2, 5, "sigmoids"),
    "one logit": (lambda x: x, 1, "one logit"),
    "one sigmoid": (lambda x: x.sigmoid(), 1, "one probability"),
    "one sigmoid without gradient": (lambda x: x.detach().sigmoid(), 1, "one probability"),
    "logits": (lambda x: x, 5, "logits"),
    "logits of two": (lambda x: x, 2, "logits"),
    "tanh": (lambda x: x.tanh(), 5, "logits"),
    "small logits": (lambda x: x * 1e-3, 5, "logits"),
    "logits within [0, 1]": (lambda x: x * 1e-4 + 0.5, 5, "logits"),
    "the same without gradient": (lambda x: x.detach() * 1e-3 + 0.5, 5, "logits"),
    "one logit within [0, 1]": (lambda x: x * 1e-3 + 0.5, 1, "one logit"),
    "ReLU": (lambda x: F.relu(x * 1e-3), 5, "logits"),
    "ReLU without gradient": (lambda x: F.relu(x.detach() * 1e-2), 5, "logits"),
    "ReLU6": (lambda x: F.relu6(x * 1e-2), 5, "logits"),
    "zeros": (lambda x: x * 0, 5, "logits"),
}


@pytest.mark.parametrize("dim", [0, 2, 3])
def test_a_softmax_of_another_dimension_than_the_classes_is_refused(dim):
    softmax = network(alone(lambda x: x.softmax(dim)))
    with pytest.raises(InputError, match=rf"sums to 1 over the dimension {dim}, not over the classes"):
        find_probe(softmax, None)
    if dim == 0:
        with pytest.raises(InputError, match=r"5 classes, and the same value everywhere.*softmax\(1\)"):
            find_probe(softmax, None, batch=1)


def test_one_value_that_is_never_below_0_is_told():
    for function in (lambda x: 255 * x.sigmoid(), lambda x: F.softplus(x) + 0.1):
        probe = find_probe(network(alone(function), 1), None)
        assert (
            probe.outputs.reading == "one logit" and "never below 0 in the images" in probe.outputs.notes[0]
        )


@pytest.mark.parametrize("name", READINGS)
@torch.no_grad()
def test_what_is_returned_is_recognised(name):
    function, classes, reading = READINGS[name]
    model = network(alone(function), classes)
    probe = find_probe(model, None)
    assert probe.outputs.reading == reading
    assert (probe.outputs.notes == ()) == (reading == "logits")
    assert probe.outputs.setting == ({} if reading == "logits" else {"reading": reading})
    images = pictures(2, 3, 32, 40)
    returned = model(images)
    logits = probe.outputs(returned)
    if reading == "logits":
        assert logits is returned
        return
    assert logits.shape == (2, max(classes, 2), 32, 40) and logits.dtype == returned.dtype
    if reading == "probabilities":
        torch.testing.assert_close(
            logits.softmax(1), returned.clamp(0) / returned.clamp(0).sum(1, keepdim=True)
        )
    elif reading == "sigmoids":
        torch.testing.assert_close(logits.sigmoid(), returned)
        assert torch.equal(logits.argmax(1), returned.argmax(1))
    else:
        expected = returned.sigmoid() if reading == "one logit" else returned
        torch.testing.assert_close(logits.softmax(1)[:, 1:], expected)


@pytest.mark.parametrize("reading", ["probabilities", "sigmoids", "one probability", "one logit"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_certain_pixels_have_finite_logits(reading, dtype):
    sure = torch.tensor([0.0, 1.0], dtype=dtype)[None, :, None, None]
    logits = Outputs(reading=reading)(sure if not reading.startswith("one") else sure.transpose(1, 3))
    assert logits.dtype == dtype and logits.isfinite().all()
    if reading != "one logit":
        share = logits.double().softmax(1)
        assert share.max() > 0.999 and share.min() < 1e-6
    sure.requires_grad_()
    Outputs(reading=reading)(sure).sum().backward()
    assert sure.grad.isfinite().all()


def test_probabilities_are_enlarged_as_such():
    p = pictures(1, 3, 4, 6).softmax(1)
    enlarged = Outputs(reading="probabilities")(p, (8, 12))
    torch.testing.assert_close(
        enlarged.exp(), F.interpolate(p, (8, 12), mode="bilinear", align_corners=False)
    )


REFUSED = {
    "channels last": (
        lambda x: x.permute(0, 2, 3, 1),
        r"\(2, 128, 192, 5\).* channels are last.*\.permute\(0, 3, 1, 2\)",
    ),
    "many channels last": (
        lambda x: x.repeat(1, 30, 1, 1).permute(0, 2, 3, 1),
        r"\(2, 128, 192, 150\).*\.permute\(0, 3, 1, 2\)",
    ),
    "channels last, smaller": (
        lambda x: x[..., ::4, ::4].permute(0, 2, 3, 1),
        r"\(2, 32, 48, 5\).*\.permute",
    ),
    "channels last in a tuple": (
        lambda x: (x.permute(0, 2, 3, 1), x.mean((-2, -1))),
        r"0 \(2, 128, 192, 5\), 1 \(2, 5\).*'0', their channels are last",
    ),
    "rows as channels": (lambda x: x.transpose(1, 2), r"images of 128×192 went in, whose aspect"),
    "another count for another size": (
        lambda x: x.repeat(1, x.shape[-2] // 64, 1, 1),
        r"maps of 10 and 15 classes for images of different sizes",
    ),
    "class ids": (lambda x: x.argmax(1), r"\(2, 128, 192\) of torch.int64.*chosen already"),
    "class ids as bytes": (
        lambda x: x.argmax(1, keepdim=True).byte(),
        r"\(2, 1, 128, 192\) of torch.uint8.*chosen",
    ),
    "class ids as floats": (
        lambda x: x.argmax(1, keepdim=True).float(),
        r"whole numbers alone.*chosen already",
    ),
    "one class of ids as floats": (lambda x: (x.argmax(1, keepdim=True) * 0).float(), r"whole numbers alone"),
    "a mask of booleans": (lambda x: x[:, :1] > 0, r"of torch.bool.*chosen already"),
    "a threshold": (lambda x: (x[:, :1] > 0).float(), r"whole numbers alone.*chosen already"),
    "thresholds": (lambda x: (x > 0).float(), r"whole numbers alone.*chosen already"),
    "one hot": (lambda x: F.one_hot(x.argmax(1), 5).movedim(-1, 1).float(), r"whole numbers alone"),
    "a softmax of one": (lambda x: x[:, :1].softmax(1), "softmax of one class"),
    "a classifier": (lambda x: x.mean((-2, -1)), r"\(2, 5\).*one answer for each image"),
    "a pooled classifier": (
        lambda x: x.mean((-2, -1), keepdim=True),
        r"\(2, 5, 1, 1\).*one answer for each image",
    ),
    "one image of the batch": (lambda x: x[0], r"\(5, 128, 192\).*the batch is missing"),
    "no classes": (
        lambda x: x[:, 0],
        r"\(2, 128, 192\).*dimension of the classes is missing.*unsqueeze\(1\)",
    ),
    "a sequence": (
        lambda x: x.flatten(2).transpose(1, 2),
        r"\(2, 24576, 5\).*sequence.*transpose\(1, 2\)\.unflatten",
    ),
    "five dimensions": (lambda x: x[:, None], r"\(2, 1, 5, 128, 192\): expected logits \(B, K, h, w\)"),
    "another batch": (lambda x: x.repeat(2, 1, 1, 1), r"\(4, 5, 128, 192\).* 2 images went in"),
    "complex": (lambda x: torch.complex(x, x), r"expected logits"),
    "NaN": (lambda x: x * torch.nan, "returned NaN for random images"),
    "nothing": (lambda x: None, "returned a NoneType without a tensor: expected logits"),
    "a number": (lambda x: {"loss": 0.5}, "returned a dict without a tensor: expected logits"),
    "boxes": (
        lambda x: [{"boxes": x[0, 0, :4], "n": x[0, 0, 0]}] * 2,
        r"returned a list holding 0\.boxes \(4, 192\)",
    ),
    "DETR's queries": (
        lambda x: {"logits": x.flatten(2).transpose(1, 2)[:, :5], "pred_masks": x},
        r"masks of 5 queries \('pred_masks' \(2, 5, 128, 192\)\).*semantic map",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_map_of_logits_is_refused_by_name(name):
    function, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        Wrapped(network(alone(function)), at="neck")
    with pytest.raises(InputError, match=message):
        inspect(network(alone(function)))


def test_a_chosen_output_is_told_by_its_name():
    model = network(lambda x, y: {"map": x, "label": y, "last": x.movedim(1, -1)})
    with pytest.raises(
        InputError, match=r"output 'label' of the model is a tensor \(2, 5\): expected logits"
    ):
        find_probe(model, None, output="label")
    with pytest.raises(InputError, match=r"output 'last' of the model is .*\.permute\(0, 3, 1, 2\)"):
        find_probe(model, None, output="last")


def test_outputs_of_another_kind_at_another_size():
    model = network(alone(lambda x: {"map" if x.shape[-1] == 192 else "maps": x}))
    with pytest.raises(InputError, match="does not return the same kind of output for all images"):
        find_probe(model, None)


@pytest.mark.parametrize("size", [(32, 48), (64, 64), (7, 12)])
def test_a_map_of_any_stride_or_of_one_size_is_taken(size):
    model = network(alone(lambda x: F.interpolate(x, size)))
    assert find_probe(model, None).outputs.reading == "logits"
    valid = network(alone(lambda x: x[..., 20:-20, 20:-20]))
    assert find_probe(valid, None).outputs == Outputs()


def test_outputs_are_copied_and_pickled():
    outputs = find_probe(network(lambda x, y: {"mask": x.softmax(1), "label": y}), None).outputs
    assert len(outputs.notes) == 2
    assert pickle.loads(pickle.dumps(outputs)) == copy.deepcopy(outputs) == outputs
    wrapped = Wrapped(network(alone(lambda x: x.sigmoid()), 1), at="neck").eval()
    images = pictures(1, 3, 32, 40)
    assert torch.equal(copy.deepcopy(wrapped)(images), wrapped(images))
    torch.testing.assert_close(wrapped.optimize()(images), wrapped(images))


@torch.no_grad()
def test_bfloat16():
    wrapped = Wrapped(network(alone(lambda x: x.softmax(1))), at="neck").eval()
    images = pictures(1, 3, 32, 40)
    low = wrapped.optimize(torch.bfloat16)(images.bfloat16())
    assert low.dtype == torch.bfloat16 and low.isfinite().all()
    assert (low.float() - wrapped(images)).norm() < 0.03 * wrapped(images).norm()
    assert (
        find_probe(network(alone(lambda x: x.softmax(1))).bfloat16(), None).outputs.reading == "probabilities"
    )
    assert find_probe(network(alone(lambda x: x.sigmoid())).bfloat16(), None).outputs.reading == "sigmoids"


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "one logit", "one sigmoid"])
@torch.no_grad()
def test_every_reading_is_exported(name):
    function, classes, _ = READINGS[name]
    wrapped = Wrapped(network(alone(function), classes), at="neck").eval()
    images = pictures(2, 3, 32, 40)
    exported = torch.export.export(wrapped, (images,), strict=False)
    torch.testing.assert_close(exported.module()(images), wrapped(images))
    assert torch.equal(torch.compile(wrapped, backend="eager")(images), wrapped(images))


@pytest.mark.parametrize("name", ["named tuple", "dataclass", "object", "nested"])
@torch.no_grad()
def test_every_container_is_exported(name):
    wrapped = Wrapped(network(PLACES[name][0]), at="neck").eval()
    images = pictures(2, 3, 32, 40)
    exported = torch.export.export(wrapped, (images,), strict=False)
    torch.testing.assert_close(exported.module()(images), wrapped(images))
    assert torch.equal(torch.compile(wrapped, backend="eager")(images), wrapped(images))


SMP = {
    "one class": ({"classes": 1}, "one logit"),
    "one class, sigmoid": ({"classes": 1, "activation": "sigmoid"}, "one probability"),
    "softmax2d": ({"classes": 4, "activation": "softmax2d"}, "probabilities"),
    "softmax": ({"classes": 4, "activation": "softmax"}, "probabilities"),
    "sigmoid": ({"classes": 4, "activation": "sigmoid"}, "sigmoids"),
    "logsoftmax": ({"classes": 4, "activation": "logsoftmax"}, "logits"),
    "none": ({"classes": 4}, "logits"),
    "a label too": ({"classes": 4, "aux_params": {"classes": 3}}, "logits"),
    "a label too, sigmoid": (
        {"classes": 1, "activation": "sigmoid", "aux_params": {"classes": 3}},
        "one probability",
    ),
}


@pytest.mark.parametrize("name", SMP)
@pytest.mark.filterwarnings(
    "ignore:Implicit dimension choice for softmax", "ignore:Implicit dimension choice for log_softmax"
)
@torch.no_grad()
def test_networks_of_smp(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    options, reading = SMP[name]
    with seeded():
        model = lively(smp.Unet("resnet18", encoder_weights=None, **options)).eval()
    wrapped = Wrapped(model, at="decoder.blocks.3").eval()
    assert wrapped.outputs.reading == reading and wrapped.num_classes == max(2, options["classes"])
    images = pictures(1, 3, 64, 96)
    returned = model(wrapped.normalise(images))
    returned = returned[0] if isinstance(returned, tuple) else returned
    labels = wrapped(images).argmax(1)
    if options["classes"] > 1:
        assert torch.equal(labels, returned.argmax(1))
    else:
        assert torch.equal(labels == 1, returned[:, 0] > (0 if reading == "one logit" else 0.5))


@torch.no_grad()
def test_segformer_of_one_label():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=1, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32
    )
    with seeded():
        model = lively(transformers.SegformerForSemanticSegmentation(config)).eval()
    wrapped = cut_where_best(model).eval()
    images = pictures(1, 3, 64, 96)
    own = F.interpolate(model(wrapped.normalise(images)).logits, (64, 96), mode="bilinear")
    torch.testing.assert_close(wrapped(images).softmax(1)[:, 1:], own.sigmoid())
    assert torch.equal(wrapped(images).argmax(1, keepdim=True) == 1, own > 0)


def test_deep_supervision_is_a_list_of_maps():
    model = network(lambda x, y: [x, x + 1, x + 2, x + 3])
    with pytest.raises(InputError, match=r"0 \(2, 5, 128, 192\), .*3 \(2, 5, 128, 192\); give output= "):
        cut_where_best(model)
    assert cut_where_best(model, output="-1").setting["output"] == "3"
