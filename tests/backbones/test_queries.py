"""Networks of transformers that return queries with masks and classes, against transformers' own semantic maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.networks import lively, seeded
from lmanet.backbones import Wrapped
from lmanet.backbones.wrapped.inspection import cut_where_best
from lmanet.backbones.wrapped.probing import find_probe
from lmanet.errors import InputError
from lmanet.methods.wrap import wrap
from lmanet.session import Session

transformers = pytest.importorskip("transformers")

SIZE = (96, 128)
SWIN: dict[str, Any] = {
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 4],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 7,
}
OF_MASKS = {
    "mask_feature_size": 32,
    "feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 32,
    "num_queries": 7,
}
ONE_FORMER = {
    "hidden_dim": 32,
    "mask_dim": 32,
    "conv_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 32,
    "num_queries": 7,
    "text_encoder_width": 32,
    "text_encoder_num_layers": 1,
    "text_encoder_vocab_size": 100,
    "text_encoder_context_length": 10,
    "task_seq_len": 10,
}
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}


def maskformer() -> nn.Module:
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        decoder_config=transformers.DetrConfig(**DETR),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=5,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def mask2former() -> nn.Module:
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN), num_labels=5, **OF_MASKS
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def oneformer() -> nn.Module:
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN), num_labels=5, **ONE_FORMER
    )
    return transformers.OneFormerForUniversalSegmentation(config)


class OfATask(nn.Module):
    """OneFormer, called with images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = oneformer()
        self.register_buffer("task", torch.tensor([[49, 51, 10, 53, 7, 50, 0, 0, 0, 0]]))

    def forward(self, images: Tensor) -> Any:
        return self.network(images, self.task.expand(len(images), -1))


def eomt() -> nn.Module:
    config = transformers.EomtConfig(num_blocks=2, num_queries=7, num_labels=5, **VIT)
    return transformers.EomtForUniversalSegmentation(config)


NETWORKS = {
    "MaskFormer": (maskformer, "MaskFormerImageProcessor", SIZE),
    "Mask2Former": (mask2former, "Mask2FormerImageProcessor", (384, 384)),
    "OneFormer": (OfATask, "OneFormerImageProcessor", SIZE),
    "EoMT": (eomt, "EomtImageProcessor", (64, 64)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request) -> tuple[nn.Module, Any, tuple[int, int]]:
    pytest.importorskip("scipy", reason="transformers builds these networks with scipy alone")
    build, processor, size = NETWORKS[request.param]
    options = {"size": {"shortest_edge": 64, "longest_edge": 64}} if request.param == "EoMT" else {}
    with seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lively(build()).eval()
        return model, getattr(transformers, processor)(**options), size


@torch.no_grad()
def test_labels_are_those_of_transformers_own_semantic_map(case):
    model, processor, size = case
    probe = find_probe(model, size)
    assert probe.outputs.reading == "queries" and len(probe.outputs.notes) == 1
    assert probe.fixed_size == (size if size == (64, 64) else None)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    returned = model(images)
    # Of random weights one class is everywhere.
    classes, masks = returned["class_queries_logits"], returned["masks_queries_logits"]
    returned["class_queries_logits"] = 3 * torch.randn(
        classes.shape, generator=torch.Generator().manual_seed(3)
    )
    returned["masks_queries_logits"] = 3 * (masks - masks.mean((-2, -1), keepdim=True)) / masks.std()
    logits = probe.outputs(returned, size)
    assert logits.shape == (2, 5, *size) and logits.isfinite().all()
    expected = torch.stack(processor.post_process_semantic_segmentation(returned, target_sizes=[size] * 2))
    assert torch.equal(logits.argmax(1), expected) and len(expected.unique()) > 1
    # At its own size the map is that of the paper's equation.
    classes, masks = returned["class_queries_logits"], returned["masks_queries_logits"]
    by_hand = sum(
        classes[:, q].softmax(-1)[:, :-1, None, None] * masks[:, q, None].sigmoid() for q in range(7)
    )
    torch.testing.assert_close(probe.outputs(returned).exp(), by_hand)


@torch.no_grad()
def test_they_are_cut_and_label_a_video(case):
    model, _, size = case
    wrapped = cut_where_best(model, probe=size).eval()
    assert wrapped.setting["reading"] == "queries" and wrapped.num_classes == 5
    images = torch.rand(1, 3, *size)
    expected = wrapped.outputs(model(wrapped.normalise(images)), size)
    assert torch.equal(wrapped(images), expected)
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    session = Session(wrap(wrapped, "training-free"), resize=size)
    assert all(session.step(frame).labels.max() < 5 for frame in frames)


def test_oneformer_by_itself_says_what_it_wants():
    pytest.importorskip("scipy")
    with pytest.raises(
        InputError, match=r"OneFormer\w+\.forward wants task_inputs beside pixel_values.*\['task_inputs'"
    ):
        find_probe(oneformer().eval(), None)


def test_a_dict_of_queries_of_ones_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 7, 3, 2, 1)
            self.classes = nn.Linear(8, 7 * 6)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            x = F.relu(self.stem(images))
            classes = self.classes(x.mean((-2, -1))).unflatten(1, (7, 6))
            return {"class_queries_logits": classes, "masks_queries_logits": self.body(x)}

    wrapped = Wrapped(Own().eval(), at="stem")
    assert wrapped.num_classes == 5 and wrapped(torch.rand(1, 3, 32, 40)).shape == (1, 5, 32, 40)
