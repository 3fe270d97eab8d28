"""What every backbone keeps, by itself and inside a LMANet."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import DEVICES, lively, seeded
from lmanet.backbones import Backbone
from lmanet.methods.lmanet import LMANet
from lmanet.methods.memory import MemoryState

MEMORY_SIZE = 3


class BackboneContract:
    """Inherit it and make the network. Comparisons run in float64, so that they can be strict on any device."""

    cells = (3, 4)
    """Height and width of the fused map in the tests."""

    def make(self) -> Backbone:
        """A small instance with random weights."""
        raise NotImplementedError

    @pytest.fixture(scope="class", params=DEVICES)
    @classmethod
    def device(cls, request) -> str:
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def prototype(cls, device) -> Backbone:
        """Of which each test has a copy: to build one can take a second."""
        with seeded():
            return lively(cls().make()).to(device).double().eval()

    @pytest.fixture
    def backbone(self, prototype) -> Iterator[Backbone]:
        with seeded(1):
            yield copy.deepcopy(prototype)

    @pytest.fixture
    def segmenter(self, backbone, device) -> LMANet:
        model = LMANet(backbone, key_channels=4, value_channels=6, memory_size=MEMORY_SIZE, window=3)
        lively(model.fusion)
        return model.to(device).double().eval()

    def images(self, backbone: Backbone, *leading: int, ragged: bool = False) -> Tensor:
        """(*leading, 3, H, W) float64; ragged: H and W that the network does not take without padding."""
        height, width = (backbone.padded_length((n - 1) * backbone.stride + 1) for n in self.cells)
        if ragged:
            height, width = height - 1, width + min(3, backbone.stride - 1)
        device = next(backbone.parameters()).device
        return torch.rand(*leading, 3, height, width, dtype=torch.float64, device=device)

    def test_attributes_are_true(self, backbone):
        images = self.images(backbone, 2)
        features = backbone.encode(images)
        assert features.fused.shape == (2, backbone.channels, *self.cells)
        size = (images.shape[-2], images.shape[-1])
        assert backbone.decode(features, size).shape == (2, backbone.num_classes, *size)

    def test_padded_lengths_fit_and_grow(self, backbone):
        lengths = range(1, 3 * backbone.stride + 2)
        padded = [backbone.padded_length(n) for n in lengths]
        assert all(n <= more for n, more in zip(lengths, padded, strict=True)) and padded == sorted(padded)
        assert [backbone.padded_length(n) for n in padded] == padded

    def test_forward_is_decode_of_encode(self, backbone):
        images = self.images(backbone, 2)
        expected = backbone.decode(backbone.encode(images), (images.shape[-2], images.shape[-1]))
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=0)

    def test_images_of_a_batch_do_not_mix(self, backbone):
        images = self.images(backbone, 3)
        alone = torch.cat([backbone(image[None]) for image in images])
        torch.testing.assert_close(backbone(images), alone)

    def test_strides_of_the_images_do_not_matter(self, backbone):
        images = self.images(backbone, 2)
        flipped = images.movedim(1, -1).contiguous().movedim(-1, 1)
        torch.testing.assert_close(backbone(flipped), backbone(images))

    def test_parts_are_the_whole_and_do_not_overlap(self, backbone):
        encoder, decoder = tensors_of(backbone.encoder_parts()), tensors_of(backbone.decoder_parts())
        assert not encoder & decoder
        assert encoder | decoder == tensors_of((backbone,))

    def test_encoder_parts_are_what_encode_trains(self, backbone):
        features = backbone.encode(self.images(backbone, 2))
        sum(projected(x) for x in (features.fused, *features.rest)).backward()
        assert trained(backbone) == names_of(backbone, backbone.encoder_parts())

    def test_decoder_parts_are_what_decode_trains(self, backbone):
        images = self.images(backbone, 2)
        with torch.no_grad():
            features = backbone.encode(images)
        projected(backbone.decode(features, (images.shape[-2], images.shape[-1]))).backward()
        assert trained(backbone) == names_of(backbone, backbone.decoder_parts())

    def test_weights_can_be_saved_and_loaded(self, backbone, device):
        buffer = io.BytesIO()
        torch.save(backbone.state_dict(), buffer)
        buffer.seek(0)
        other = self.make().to(device).double().eval()
        images = self.images(backbone, 1)
        expected = backbone(images)
        assert not torch.equal(other(images), expected)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(other(images), expected)

    def test_bfloat16_is_close(self, backbone, device):
        backbone.float()
        images = self.images(backbone, 1).float()
        with torch.no_grad():
            expected = backbone(images)
            with torch.autocast(device, torch.bfloat16):
                low = backbone(images)
        # On a GPU autocast interpolates in float32.
        assert low.dtype == torch.bfloat16 or (device == "cuda" and not torch.equal(low, expected))
        assert (low - expected).norm() < 0.03 * expected.norm()

    @torch.no_grad()
    def test_an_optimised_copy_gives_the_same_logits(self, backbone):
        images = self.images(backbone, 2)
        expected = backbone(images)
        before = {name: x.clone() for name, x in backbone.state_dict().items()}
        fast = backbone.train().optimize()
        torch.testing.assert_close(fast(images), expected)
        assert type(fast) is type(backbone) and fast.optimized and not backbone.optimized
        assert backbone.training and not any(module.training for module in fast.modules())
        assert not any(p.requires_grad for p in fast.parameters())
        after = backbone.state_dict()
        assert after.keys() == before.keys() and all(
            torch.equal(after[name], x) for name, x in before.items()
        )
        assert not storages(fast) & storages(backbone)
        assert fast.optimize() is fast and fast.optimize(torch.float64) is fast

    @torch.no_grad()
    def test_an_optimised_copy_in_bfloat16_is_close(self, backbone):
        images = self.images(backbone, 1)
        expected = backbone(images)
        fast = backbone.optimize()
        low = fast.optimize(torch.bfloat16)
        assert {x.dtype for x in low.parameters()} == {torch.bfloat16}
        assert {x.dtype for x in fast.parameters()} == {torch.float64}
        logits = low(images.bfloat16())
        assert logits.dtype == torch.bfloat16
        assert (logits - expected).norm() < 0.03 * expected.norm()

    @torch.no_grad()
    def test_a_stream_goes_on_with_an_optimised_copy(self, segmenter):
        clip = self.images(segmenter.backbone, 2, MEMORY_SIZE + 2, ragged=True)
        fast = segmenter.optimize()
        expected, state = stream(segmenter, clip)
        logits, fast_state = stream(fast, clip)
        torch.testing.assert_close((logits, *fast_state), (expected, *state))
        torch.testing.assert_close(fast(clip), expected)
        mixed, _ = fast.step(clip[:, -1], stream(segmenter, clip[:, :-1])[1])
        torch.testing.assert_close(mixed, expected)

    @pytest.mark.parametrize("ragged", [False, True], ids=["multiples", "ragged"])
    @pytest.mark.parametrize("length", [1, MEMORY_SIZE, MEMORY_SIZE + 1, MEMORY_SIZE + 3])
    @torch.no_grad()
    def test_forward_over_a_clip_equals_step_after_step(self, segmenter, length, ragged):
        clip = self.images(segmenter.backbone, 2, length, ragged=ragged)
        logits, state = stream(segmenter, clip)
        torch.testing.assert_close(segmenter(clip), logits)
        assert logits.shape == (2, segmenter.backbone.num_classes, *clip.shape[-2:])
        assert state.size == MEMORY_SIZE

    @torch.no_grad()
    def test_streams_of_a_batch_do_not_mix(self, segmenter):
        clips = self.images(segmenter.backbone, 3, 4)
        together, _ = stream(segmenter, clips)
        alone = torch.cat([stream(segmenter, clip[None])[0] for clip in clips])
        torch.testing.assert_close(together, alone)

    @torch.no_grad()
    def test_each_frame_is_encoded_once(self, segmenter):
        encoded = []
        segmenter.backbone.encoder_parts()[0].register_forward_pre_hook(
            lambda _, inputs: encoded.append(len(inputs[0]))
        )
        clip = self.images(segmenter.backbone, 2, 6)
        stream(segmenter, clip)
        assert encoded == [2] * 6
        encoded.clear()
        segmenter(clip)
        assert sum(encoded) == 2 * (MEMORY_SIZE + 1)
        encoded.clear()
        segmenter(clip[:, :2])
        assert sum(encoded) == 2 * 2

    @torch.no_grad()
    def test_state_passed_in_is_not_modified(self, segmenter):
        clip = self.images(segmenter.backbone, 1, 3)
        _, state = stream(segmenter, clip[:, :2])
        before = MemoryState(*(x.clone() for x in state))
        first, _ = segmenter.step(clip[:, 2], state)
        assert all(map(torch.equal, state, before))
        assert torch.equal(segmenter.step(clip[:, 2], state)[0], first)

    def test_gradients_reach_every_parameter(self, segmenter):
        projected(segmenter(self.images(segmenter.backbone, 1, 3))).backward()
        assert trained(segmenter) == {name for name, _ in segmenter.named_parameters()}

    @torch.no_grad()
    def test_step_is_exported_with_one_attention_node(self, segmenter):
        class Step(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.segmenter = segmenter

            def forward(self, images: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                logits, state = self.segmenter.step(images, MemoryState(keys, values))
                return logits, *state

        clip = self.images(segmenter.backbone, 1, 2)
        _, state = segmenter.step(clip[:, 0])
        exported = torch.export.export(Step(), (clip[:, 1], *state))
        nodes = [str(node.target) for node in exported.graph.nodes if "lmanet" in str(node.target)]
        assert nodes == ["lmanet.local_attention.default"]
        logits, keys, values = exported.module()(clip[:, 1], *state)
        expected, after = segmenter.step(clip[:, 1], state)
        torch.testing.assert_close((logits, keys, values), (expected, *after))


def stream(segmenter: LMANet, clip: Tensor) -> tuple[Tensor, MemoryState]:
    """Step through a clip (B, T, 3, H, W): the last frame's logits, and the state after it."""
    logits, state = segmenter.step(clip[:, 0])
    for images in clip[:, 1:].unbind(1):
        logits, state = segmenter.step(images, state)
    return logits, state


def storages(network: nn.Module) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in network.state_dict().values() if x.numel()}


def projected(x: Tensor) -> Tensor:
    """A fixed random weighting of all entries: no gradient cancels out by symmetry."""
    generator = torch.Generator().manual_seed(3)
    return (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()


def trained(network: nn.Module) -> set[str]:
    """Names of the parameters that a gradient other than zero has reached."""
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def names_of(network: nn.Module, parts: tuple[nn.Module, ...]) -> set[str]:
    ids = {id(p) for part in parts for p in part.parameters()}
    return {name for name, p in network.named_parameters() if id(p) in ids}


def tensors_of(parts: tuple[nn.Module, ...]) -> set[int]:
    return {id(x) for part in parts for x in (*part.parameters(), *part.buffers())}
