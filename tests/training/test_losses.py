from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmanet.classes import VOID, numbered_classes
from lmanet.errors import DataError
from lmanet.training.frames import StoredData
from lmanet.training.losses import class_weights, cross_entropy_sums, distillation, lovasz_softmax, pixels

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def counts(labels):
    sequence = SimpleNamespace(labelled=(True,) * len(labels), label=labels.__getitem__)
    return StoredData("data", numbered_classes(2), (sequence,), "").label_pixels


def test_weights_follow_the_formula():
    labels = [np.array([[0, 0, 0], [1, VOID, VOID]], np.uint8)]
    weights = class_weights(counts(labels), 3)
    # 1 / ln(1.10 + p) for p = 3/4, 1/4, 0
    np.testing.assert_allclose(weights, [1.625526, 3.332172, 10.492059], rtol=1e-5)
    assert weights.dtype == torch.float32


def test_weights_count_all_labels_together():
    one = np.array([[0, 1]], np.uint8)
    other = np.array([[0, 0]], np.uint8)
    both = class_weights(counts([np.concatenate([one, other])]), 2)
    assert torch.equal(class_weights(counts([one, other]), 2), both)


def test_label_out_of_range_is_named():
    with pytest.raises(DataError, match="label 7 found, expected 0 to 2 or 255"):
        class_weights(counts([np.array([[0, 7]], np.uint8)]), 3)


@pytest.mark.parametrize("labels", [[], [np.full((2, 2), VOID, np.uint8)]])
def test_nothing_but_void_is_refused(labels):
    with pytest.raises(DataError, match="nothing but void"):
        class_weights(counts(labels), 3)


def sample(device, void=0.3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 5, 7), generator=generator)
    labels[torch.rand(2, 5, 7, generator=generator) < void] = VOID
    return (
        logits.to(device),
        labels.to(device, torch.uint8),
        torch.tensor([1.0, 2.0, 5.0, 0.5], device=device),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_sums_divide_to_the_weighted_mean_and_its_gradient(device, memory_format):
    logits, labels, weights = sample(device)
    mine = logits.clone(memory_format=memory_format).requires_grad_()
    total, weight = cross_entropy_sums(*pixels(mine, labels), weights)
    (total / weight).backward()
    theirs = logits.clone().requires_grad_()
    expected = F.cross_entropy(theirs, labels.long(), weights, ignore_index=VOID)
    expected.backward()
    torch.testing.assert_close(total / weight, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_sums_by_hand():
    logits = torch.tensor([0.0, 0.0, np.log(3), 0.0]).view(1, 2, 1, 2)  # pixel 0: (0, ln 3), pixel 1: (0, 0)
    total, weight = cross_entropy_sums(*pixels(logits, torch.tensor([[[1, 0]]])), torch.tensor([2.0, 3.0]))
    assert float(total) == pytest.approx(3 * np.log(4 / 3) + 2 * np.log(2), rel=1e-6)
    assert float(weight) == 5


def test_void_pixels_change_nothing():
    logits, labels, weights = sample("cpu")
    changed = torch.where(labels[:, None] == VOID, logits + 100 * torch.randn(logits.shape), logits)
    assert not torch.equal(changed, logits)
    for before, after in zip(
        cross_entropy_sums(*pixels(logits, labels), weights),
        cross_entropy_sums(*pixels(changed, labels), weights),
        strict=True,
    ):
        assert torch.equal(before, after)


def test_all_void_gives_zero_and_no_gradient():
    logits, labels, weights = sample("cpu", void=2)
    logits.requires_grad_()
    total, weight = cross_entropy_sums(*pixels(logits, labels), weights)
    total.backward()
    assert float(total.detach()) == float(weight) == 0
    assert not logits.grad.any()


def test_label_beyond_the_classes_is_an_error():
    logits, labels, weights = sample("cpu")
    labels[0, 0, 0] = 4
    with pytest.raises(IndexError, match="Target 4 is out of bounds"):
        cross_entropy_sums(*pixels(logits, labels), weights)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_logits_are_summed_in_float32(device):
    logits, labels, weights = sample(device)
    total, _ = cross_entropy_sums(*pixels(logits.bfloat16(), labels), weights)
    expected, _ = cross_entropy_sums(*pixels(logits.bfloat16().float(), labels), weights)
    assert total.dtype == torch.float32
    assert torch.equal(total, expected)


def lovasz_by_sorting(logits, labels):
    """The paper's algorithm 1 for each class that occurs: sorted errors times the growth of the Jaccard loss."""
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    ids = labels.reshape(-1)
    rows, ids = rows[ids != VOID], ids[ids != VOID]
    losses = []
    for c in ids.unique().tolist():
        truth = (ids == c).double()
        errors, order = (truth - rows.softmax(1)[:, c]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        losses.append(errors @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean()


def frames(device="cpu", seed=0, classes=4):
    """Logits and labels of some thousand pixels, the last class in none of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes - 1, (2, 40, 50), generator=generator)
    logits = 2 * torch.randn(2, classes, 40, 50, generator=generator)
    logits += 2 * F.one_hot(labels, classes).permute(0, 3, 1, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = VOID
    return logits.to(device), labels.to(device, torch.uint8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lovasz_is_what_sorting_gives(device, memory_format):
    logits, labels = frames(device)
    mine = logits.clone(memory_format=memory_format).requires_grad_()
    exact = logits.double().requires_grad_()
    loss, expected = lovasz_softmax(*pixels(mine, labels)), lovasz_by_sorting(exact, labels)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    loss.backward()
    expected.backward()
    difference = (mine.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert difference < 0.01, difference


def test_lovasz_of_labels_set_hard_is_one_minus_iou():
    labels = torch.tensor([[[0, 0, 0, 1, 1, VOID]]])
    predicted = torch.tensor([[[0, 0, 1, 1, 0, 1]]])
    logits = 100.0 * F.one_hot(predicted, 3).permute(0, 3, 1, 2)
    # Class 0: 2 of 4; class 1: 1 of 3; class 2 occurs in no label.
    assert float(lovasz_softmax(*pixels(logits, labels))) == pytest.approx(1 - (2 / 4 + 1 / 3) / 2, abs=1e-6)


def test_lovasz_leaves_void_pixels_alone():
    logits, labels = frames()
    logits.requires_grad_()
    lovasz_softmax(*pixels(logits, labels)).backward()
    assert not logits.grad.permute(0, 2, 3, 1)[labels == VOID].any()
    assert logits.grad.permute(0, 2, 3, 1)[labels != VOID].abs().sum(1).gt(0).float().mean() > 0.99


def test_lovasz_of_nothing_but_void_is_zero():
    logits, labels = frames()
    logits.requires_grad_()
    loss = lovasz_softmax(*pixels(logits, torch.full_like(labels, VOID)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_lovasz_of_parts_with_joint_counts_adds_up_to_the_whole():
    logits, labels = frames()
    counts = []

    def note(part):
        counts.append(part)
        return part

    for part in range(2):
        lovasz_softmax(*pixels(logits[part : part + 1], labels[part : part + 1]), joint=note)
    parts = [
        lovasz_softmax(*pixels(logits[part : part + 1], labels[part : part + 1]), joint=lambda _: sum(counts))
        for part in range(2)
    ]
    torch.testing.assert_close(sum(parts), lovasz_softmax(*pixels(logits, labels)))


def test_distillation_is_least_where_the_probabilities_are_the_teacher_s():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(40, 5, generator=generator).log_softmax(1)
    entropy = float(-(teacher.exp() * teacher).sum(1).mean())
    assert float(distillation(teacher, teacher)) == pytest.approx(entropy, rel=1e-5)
    mine = torch.randn(40, 5, generator=generator).requires_grad_()
    loss = distillation(mine.log_softmax(1), teacher)
    assert float(loss.detach()) > entropy
    loss.backward()
    expected = (mine.detach().softmax(1) - teacher.exp()) / 40  # of a cross-entropy to soft targets
    torch.testing.assert_close(mine.grad, expected)
