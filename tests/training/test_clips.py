import numpy as np
import pytest
import torch

from contracts.tiny import TinyData, TinySequence, tiny_backbone, tiny_data
from lmanet.classes import VOID
from lmanet.errors import InputError
from lmanet.methods.lmanet import LMANet
from lmanet.training.augment import Augmentation, Draw
from lmanet.training.clips import (
    ClipSamples,
    FromFeatures,
    FromImages,
    PseudoMemory,
    make_views,
    pseudo_memory,
)
from lmanet.training.features import build_feature_cache
from lmanet.training.frames import store_frames

SIZE = (48, 64)
VIEWS = make_views(Augmentation(scale=(1, 1.3), gain=0.1), SIZE, draws=3, pseudo=4, ranges=PseudoMemory())
EPOCHS = 6


def samples(memories, *, size=3, data=None, views=VIEWS, cache=None, seed=0):
    return ClipSamples(
        data or tiny_data(frames=5), views, memory_size=size, memories=memories, cache=cache, seed=seed
    )


def numbered():
    """Sequences whose frame i of sequence n is one flat grey of its own."""
    sequences = []
    for n in range(2):
        images = np.stack([np.full((8, 8, 3), 10 * (n + 1) + i, np.uint8) for i in range(5)])
        sequences.append(TinySequence(f"s{n}", images, (np.zeros((8, 8), np.uint8),) * 5))
    return TinyData(tuple(sequences))


def plain_views(pseudo=0):
    return make_views(Augmentation(), (8, 8), draws=2, pseudo=pseudo, ranges=PseudoMemory())


def segmenter(**arguments):
    backbone = tiny_backbone()
    torch.manual_seed(1)
    return LMANet(backbone, key_channels=4, value_channels=6, window=5, **arguments).eval()


def test_real_memories_are_the_frames_before_of_the_same_sequence():
    clips = samples("real", data=numbered(), views=plain_views())
    assert len(clips) == 10
    for index in range(10):
        first, frame = 10 * (index // 5 + 1), index % 5
        (image, memory), _ = clips.sample(0, index)
        assert image.unique().tolist() == [first + frame]
        # In a stream's first steps its first frame stands in for those before it.
        assert memory[:, 0, 0, 0].tolist() == [first + max(0, frame - age) for age in (3, 2, 1)]


def test_real_memories_share_the_frames_draw():
    data = tiny_data(frames=5)
    clips = samples("real", data=data)
    seen = set()
    for epoch in range(EPOCHS):
        (image, memory), label = clips.sample(epoch, 9)
        source = data.sequences[1]
        views = [d for d in VIEWS.all() if np.array_equal(d.image(source.image(4)), image.permute(1, 2, 0))]
        assert len(views) == 1
        np.testing.assert_array_equal(label, views[0].label(source.label(4)))
        for age, past in zip((3, 2, 1), memory, strict=True):
            np.testing.assert_array_equal(past.permute(1, 2, 0), views[0].image(source.image(4 - age)))
        seen.add(VIEWS.all().index(views[0]))
    assert len(seen) > 1


def test_current_memory_is_the_frame_itself_once():
    for index in range(4):
        (image, memory), _ = samples("current").sample(0, index)
        assert memory.shape == (1, *image.shape)
        assert torch.equal(memory[0], image)


def views_seen(clips, epochs=EPOCHS):
    """(frame, view) of every sample's memories, with the sample's own."""
    for epoch in range(epochs):
        for index, (n, frame) in enumerate(clips.frames):
            rng = np.random.default_rng([clips.seed, epoch, index])
            view = int(rng.integers(len(clips.views.all())))
            yield frame, view, clips._memories(n, frame, view, rng)


def test_pseudo_memories_are_other_views_of_the_frame_itself_in_its_group():
    used = set()
    for frame, view, memories in views_seen(samples("pseudo")):
        group = set(range(view // 5 * 5, view // 5 * 5 + 5))
        assert [f for f, _ in memories] == [frame] * 3
        seen = {v for _, v in memories}
        assert seen <= group - {view}
        assert len(seen) == 3
        used |= seen
    assert used == set(range(15))


def test_more_memories_than_pseudo_memories_repeat_some():
    for _, _, memories in views_seen(samples("pseudo", size=6), epochs=1):
        assert len(memories) == 6


def test_pseudo_memory_images_come_from_their_draws():
    data = tiny_data(frames=2)
    (_, memory), _ = samples("pseudo", data=data).sample(2, 3)
    possible = [one.image(data.sequences[1].image(1)) for one in VIEWS.all()]
    for past in memory:
        assert any(np.array_equal(past.permute(1, 2, 0), image) for image in possible)


def test_mixed_memories_are_real_or_pseudo_about_half_and_half():
    kinds = [all(v == view for _, v in memories) for _, view, memories in views_seen(samples("mixed"), 12)]
    assert 0.3 < np.mean(kinds) < 0.7


@pytest.mark.parametrize("memories", ["real", "pseudo", "mixed", "current"])
def test_a_sample_depends_on_seed_epoch_and_index_alone(memories):
    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip((*a[0], a[1]), (*b[0], b[1]), strict=True))

    clips = samples(memories)
    first = clips.sample(1, 5)
    clips.sample(0, 3)
    assert same(clips.sample(1, 5), first)
    assert same(samples(memories).sample(1, 5), first)
    assert not all(same(clips.sample(epoch, 5), first) for epoch in range(2, 7))


@pytest.mark.parametrize("memories", ["pseudo", "mixed"])
def test_pseudo_memories_must_be_there(memories):
    with pytest.raises(InputError, match="make the views with pseudo >= 1"):
        samples(memories, data=numbered(), views=plain_views())


def test_frames_without_label_are_memories_only():
    data = numbered()
    labels = (None, None, None, data.sequences[0].labels[0], None)
    clips = samples(
        "real", data=TinyData((TinySequence("s0", data.sequences[0].images, labels),)), views=plain_views()
    )
    assert len(clips) == 1
    (_, memory), _ = clips.sample(0, 0)
    assert memory[:, 0, 0, 0].tolist() == [10, 11, 12]


def batch_of(clips, indices=(0, 4, 8), epoch=0):
    inputs, labels = zip(*(clips.sample(epoch, i) for i in indices), strict=True)
    return [torch.stack(x) for x in zip(*inputs, strict=True)], torch.stack(labels)


@pytest.mark.parametrize("memories", ["real", "pseudo", "current"])
def test_cached_features_and_images_give_the_same_logits(tmp_path, memories):
    model = segmenter()
    stored = store_frames(tiny_data(frames=5), tmp_path / "frames")
    cache = build_feature_cache(model, stored, VIEWS, tmp_path)
    features, labels = batch_of(samples(memories, data=stored, cache=cache))
    images, same_labels = batch_of(samples(memories, data=stored))
    assert torch.equal(labels, same_labels)
    with torch.no_grad():
        fast, slow = FromFeatures(model, SIZE)(*features), FromImages(model, SIZE)(*images)
    assert fast.shape == (3, 3, *SIZE)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, slow, rtol=0.02, atol=0.02 * float(slow.std()))


def test_logits_of_a_real_clip_are_those_of_the_stream():
    """Training sees what use sees: stepping through the frames gives the same logits, within bfloat16."""
    model = segmenter(memory_size=3)
    data = tiny_data(frames=5)
    views = make_views(Augmentation(flip=False), SIZE, draws=1, pseudo=0, ranges=PseudoMemory())
    clips = samples("real", data=data, views=views)
    state = None
    with torch.no_grad():
        for frame in range(5):
            (image, memory), _ = clips.sample(0, frame)
            trained = FromImages(model, SIZE)(image[None], memory[None])
            streamed, state = model.step(image[None], state)
            torch.testing.assert_close(trained, streamed, rtol=0.03, atol=0.03 * float(streamed.std()))


def test_one_copy_of_the_control_equals_several():
    model = segmenter()
    (image, memory), _ = batch_of(samples("current"))
    with torch.no_grad():
        one = FromImages(model, SIZE)(image, memory)
        four = FromImages(model, SIZE)(image, memory.expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-4)


def test_under_autocast_the_module_runs_in_bfloat16():
    model = segmenter()
    (image, memory), _ = batch_of(samples("real"))
    with torch.no_grad():
        full = FromImages(model, SIZE)(image, memory)
        with torch.autocast("cpu", torch.bfloat16):
            half = FromImages(model, SIZE)(image, memory)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1 * float(full.std()))


def test_views_begin_with_the_plain_frame_and_its_mirror_image():
    views = make_views(Augmentation(), SIZE, draws=4, pseudo=2, ranges=PseudoMemory())
    assert [group[0] for group in views.groups[:2]] == [Draw(SIZE), Draw(SIZE, (-1, 0, 63, 0, 1, 0))]
    assert [len(group) for group in views.groups] == [3] * 4
    assert {d.size for d in views.all()} == {SIZE}
    unflipped = make_views(Augmentation(flip=False), SIZE, draws=1, pseudo=0, ranges=PseudoMemory())
    assert unflipped.groups == ((Draw(SIZE),),)


def test_pseudo_memory_stays_near_its_frame():
    ranges = PseudoMemory(zoom=(1, 1), rotation_rad=0, shift=(0.05, 0), gain=0, noise=0)
    views = make_views(Augmentation(flip=False), SIZE, draws=1, pseudo=40, ranges=ranges)
    shifts = np.array([one.matrix for one in views.groups[0][1:]])
    np.testing.assert_allclose(shifts[:, [0, 1, 3, 4, 5]], [[1, 0, 0, 1, 0]] * 40, atol=1e-9)
    assert 2 < np.abs(shifts[:, 2]).max() <= 0.05 * 64


def test_noise_and_blur_of_a_pseudo_memory_are_its_own():
    current = Draw(SIZE, gain=(1.1, 1.0, 0.9), gamma=1.2, noise=20.0, blur_px=3.0, seed=5)
    rng = np.random.default_rng(0)
    clean = pseudo_memory(current, PseudoMemory(gain=0, noise=0, blur_px=0), rng)
    assert (clean.noise, clean.blur_px) == (0, 0)
    assert (clean.gain, clean.gamma) == (current.gain, current.gamma)
    drawn = [pseudo_memory(current, PseudoMemory(noise=6, blur_px=1), rng) for _ in range(40)]
    assert 4 < max(one.noise for one in drawn) <= 6
    blurs = [one.blur_px for one in drawn]
    assert 0.5 < max(blurs) <= 1
    assert 8 < blurs.count(0) < 32
    assert len({one.seed for one in drawn}) == 40


def test_turned_and_zoomed_pseudo_memory_keeps_the_centre():
    ranges = PseudoMemory(zoom=(1.2, 1.2), rotation_rad=0.3, shift=(0, 0))
    for one in make_views(Augmentation(), SIZE, draws=2, pseudo=3, ranges=ranges).groups[1][1:]:
        matrix = np.array(one.matrix).reshape(2, 3)
        centre = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
        np.testing.assert_allclose(matrix[:, :2] @ centre + matrix[:, 2], centre, atol=1e-9)
        assert abs(np.linalg.det(matrix[:, :2])) == pytest.approx(1 / 1.44)


def test_void_of_the_labels_stays_void():
    views = make_views(Augmentation(), SIZE, draws=2, pseudo=0, ranges=PseudoMemory())
    _, label = samples("real", views=views).sample(0, 0)
    assert VOID in label
    assert set(label.unique().tolist()) <= {0, 1, 2, VOID}
