import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from contracts.networks import seeded
from contracts.tiny import tiny_backbone, tiny_data
from lmanet.backbones import ERFNet, Wrapped
from lmanet.backbones.base import Features
from lmanet.errors import InputError, OutputError
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.training.augment import Augmentation, Draw
from lmanet.training.clips import PseudoMemory, make_views
from lmanet.training.features import Views, build_feature_cache, observe, views_of
from lmanet.training.frames import store_frames

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE = (48, 64)
VIEWS = make_views(Augmentation(scale=(1, 1.3)), SIZE, draws=3, pseudo=2, ranges=PseudoMemory())


@pytest.fixture
def stored(tmp_path):
    return store_frames(tiny_data(), tmp_path / "frames")


class Counter:
    def __init__(self, stop_at=None):
        self.frames, self.stop_at = 0, stop_at

    def __call__(self, done, total):
        self.frames += 1
        if done == self.stop_at:
            raise KeyboardInterrupt


def folders(path):
    return sorted(p.name for p in path.iterdir() if p.name != "frames")


@pytest.mark.parametrize("device", DEVICES)
def test_cache_equals_encoding_directly(tmp_path, stored, device):
    backbone = tiny_backbone()
    cache = build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path, device=device)
    for n, sequence in enumerate(stored.sequences):
        for frame in range(3):
            images = views_of(sequence, frame, VIEWS.all()).to(device)
            features = observe(LMANet(backbone).eval(), images)
            for view in range(len(VIEWS.all())):
                assert torch.equal(cache.fused(n, frame, view), features.fused[view].cpu())
            for view in range(len(VIEWS.all())):
                (skip,) = cache.rest(n, frame, view)
                assert torch.equal(skip, features.rest[0][view].cpu())


def test_a_frame_encoded_by_itself_gives_the_same_within_bfloat16(tmp_path, stored):
    backbone = ERFNet(3).eval()
    cache = build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path)
    for view, drawn in enumerate(VIEWS.all()):
        image = torch.from_numpy(np.array(drawn.image(stored.sequences[1].image(2)))).permute(2, 0, 1)[None]
        fused = observe(LMANet(backbone).eval(), image).fused[0]
        torch.testing.assert_close(cache.fused(1, 2, view), fused, rtol=0.05, atol=0.05)
    assert cache.rest(1, 2, 0) == ()


def test_features_are_bfloat16_and_channels_last(tmp_path, stored):
    fused = build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path).fused(0, 0, 0)
    assert fused.shape == (12, 12, 16)
    assert fused.dtype == torch.bfloat16
    assert fused[None].is_contiguous(memory_format=torch.channels_last)


def test_views_of_frames_that_do_not_fit_the_stride_are_padded(tmp_path):
    stored = store_frames(tiny_data(size=(45, 62)), tmp_path / "frames")
    views = make_views(Augmentation(), (45, 62), draws=2, pseudo=0, ranges=PseudoMemory())
    assert build_feature_cache(LMANet(tiny_backbone()).eval(), stored, views, tmp_path).fused(
        0, 0, 0
    ).shape == (12, 12, 16)


def test_opened_twice_encodes_once(tmp_path, stored):
    first, second = Counter(), Counter()
    one = build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path, on_frame=first)
    other = build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path, on_frame=second)
    assert (first.frames, second.frames) == (6, 0)
    assert torch.equal(one.fused(1, 1, 4), other.fused(1, 1, 4))


def changed_weight(backbone):
    backbone.body[0].weight.data[0, 0, 0, 0] += 1e-3


def changed_statistics(backbone):
    backbone.stem[1].running_mean[0] += 1e-3


@pytest.mark.parametrize("change", [changed_weight, changed_statistics])
def test_another_encoder_gets_features_of_its_own(tmp_path, stored, change):
    backbone = tiny_backbone()
    build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path)
    change(backbone)
    count = Counter()
    cache = build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path, on_frame=count)
    assert count.frames == 6
    assert len(folders(tmp_path)) == 2
    fresh = observe(LMANet(backbone).eval(), views_of(stored.sequences[0], 0, VIEWS.all())).fused
    assert torch.equal(cache.fused(0, 0, 3), fresh[3])


def test_another_decoder_shares_the_features(tmp_path, stored):
    backbone, count = tiny_backbone(), Counter()
    build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path)
    backbone.head.weight.data += 1
    build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path, on_frame=count)
    assert count.frames == 0


def test_other_pixels_get_features_of_their_own(tmp_path, stored):
    backbone, count = tiny_backbone(), Counter()
    build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path)
    data = tiny_data()
    images = data.sequences[1].images.copy()
    images[2, 20, 20] ^= 128
    data = replace(data, sequences=(data.sequences[0], replace(data.sequences[1], images=images)))
    other = store_frames(data, tmp_path / "other" / "frames")
    cache = build_feature_cache(LMANet(backbone).eval(), other, VIEWS, tmp_path, on_frame=count)
    assert count.frames == 6
    fresh = observe(LMANet(backbone).eval(), views_of(other.sequences[1], 2, VIEWS.all())).fused
    assert torch.equal(cache.fused(1, 2, 0), fresh[0])


def test_other_views_get_features_of_their_own(tmp_path, stored):
    backbone, count = tiny_backbone(), Counter()
    build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path)
    cache = build_feature_cache(
        LMANet(backbone).eval(), stored, Views(VIEWS.groups[:2]), tmp_path, on_frame=count
    )
    assert count.frames == 6
    with pytest.raises(IndexError):
        cache.fused(0, 0, 6)


def test_killed_half_way_leaves_nothing(tmp_path, stored):
    with pytest.raises(KeyboardInterrupt):
        build_feature_cache(
            LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path, on_frame=Counter(stop_at=4)
        )
    assert folders(tmp_path) == []
    count = Counter()
    build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path, on_frame=count)
    assert count.frames == 6


def test_two_trainings_may_build_the_same_cache_at_once(tmp_path, stored):
    backbone = tiny_backbone()

    class Racing(Counter):
        def __call__(self, done, total):
            super().__call__(done, total)
            if done == total:
                final = tmp_path / next(n for n in folders(tmp_path))[1:].split(".part")[0]
                final.mkdir()
                for path in (tmp_path / folders(tmp_path)[0]).glob("*.npy"):
                    (final / path.name).write_bytes(path.read_bytes())

    cache = build_feature_cache(LMANet(backbone).eval(), stored, VIEWS, tmp_path, on_frame=Racing())
    assert cache.fused(0, 0, 0).shape == (12, 12, 16)
    assert len(folders(tmp_path)) == 1


def test_what_a_killed_process_of_the_same_id_left_is_no_hindrance(tmp_path, stored):
    build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path)
    (name,) = folders(tmp_path)
    (tmp_path / name).rename(tmp_path / f".{name}.part-{os.getpid()}")
    build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path)
    assert folders(tmp_path) == [name]


def test_the_model_keeps_its_mode(tmp_path, stored):
    model = LMANet(tiny_backbone()).train()
    build_feature_cache(model, stored, VIEWS, tmp_path)
    assert model.training
    assert model.backbone.stem[1].num_batches_tracked == 0


def test_the_others_of_a_view_are_the_rest_of_its_group():
    draws = tuple(Draw(SIZE, seed=i) for i in range(6))
    views = Views((draws[:2], draws[2:3], draws[3:]))
    assert views.all() == draws
    assert [views.others(view) for view in range(6)] == [[1], [0], [], [4, 5], [3, 5], [3, 4]]
    with pytest.raises(IndexError):
        views.others(6)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, stored, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match="free some space"):
        build_feature_cache(LMANet(tiny_backbone()).eval(), stored, VIEWS, tmp_path)
    assert folders(tmp_path) == []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.more, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.head(self.more(self.body(x)))


def wrapped(at="more", **options):
    with seeded():
        return LabelMemory(Wrapped(Net(), at=at, **options)).eval()


def test_another_cut_and_another_normalisation_get_features_of_their_own(tmp_path, stored):
    for number, options in enumerate(
        [{}, {"at": "body"}, {"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)}]
    ):
        build_feature_cache(wrapped(**options), stored, VIEWS, tmp_path)
        assert len(folders(tmp_path)) == number + 1


def test_many_maps_come_back_in_their_order(tmp_path, stored):
    model = LMANet(tiny_backbone()).eval()
    own = model.observe
    fused = own(torch.zeros(1, 3, 48, 64, dtype=torch.uint8)).fused
    model.observe = lambda images: Features(
        own(images).fused, tuple(fused.new_full((len(images), 1, 2, 2), k) for k in range(12))
    )
    cache = build_feature_cache(model, stored, VIEWS, tmp_path)
    assert [float(x.flatten()[0]) for x in cache.rest(1, 2, 0)] == [*range(12)]


def test_what_is_no_map_is_refused(tmp_path, stored):
    model = LMANet(tiny_backbone()).eval()
    own = model.observe
    model.observe = lambda images: Features(own(images).fused, (torch.zeros(len(images), 5, 4),))
    with pytest.raises(InputError, match=r"hands on \(\d+, 5, 4\) of torch.float32 beside the fused map"):
        build_feature_cache(model, stored, VIEWS, tmp_path)
    model.observe = lambda images: Features(
        own(images).fused, (torch.zeros(len(images), 1, 4, 4, dtype=torch.int64),)
    )
    with pytest.raises(InputError, match=r"of torch.int64 beside the fused map.*cut it elsewhere"):
        build_feature_cache(model, stored, VIEWS, tmp_path)
