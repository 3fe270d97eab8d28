"""Two processes on the CPU against one with the joint batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from contracts.tiny import tiny_backbone, tiny_data
from lmanet.errors import InputError
from lmanet.methods.lmanet import LMANet
from lmanet.training.augment import Augmentation
from lmanet.training.clips import ClipSamples, FromImages, PseudoMemory, make_views
from lmanet.training.config import Stage
from lmanet.training.distributed import JointBatchNorm2d, synchronise_batch_norm
from lmanet.training.loop import Trainee, fit
from lmanet.training.options import RunOptions
from lmanet.training.steps import set_mode, set_trainable

SIZE = (24, 32)


def train(folder, out):
    """Two epochs of two steps of step 2, averaged; leaves each step's gradients and loss, and the end, in `out`."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    segmenter = LMANet(tiny_backbone(), key_channels=4, value_channels=6, memory_size=2, window=3)
    for part in segmenter.modules():
        if isinstance(part, nn.Dropout2d):
            part.p = 0.0
    # Voids of some columns: the processes' shares of the loss's weight differ.
    data = tiny_data(sequences=8, frames=1, size=SIZE)
    for n, sequence in enumerate(data.sequences):
        sequence.labels[0][:, : 3 * n] = 255
    views = make_views(Augmentation(flip=False), SIZE, draws=1, pseudo=0, ranges=PseudoMemory())
    set_trainable(segmenter, 2)
    module = FromImages(segmenter, SIZE)
    synchronise_batch_norm(module, accelerator)
    steps = []

    def record(phase, progress):
        gradients = {name: q.grad.clone() for name, q in segmenter.named_parameters() if q.grad is not None}
        steps.append({**gradients, "loss": torch.tensor(progress.loss)})

    start = {name: value.clone() for name, value in segmenter.state_dict().items()}
    fit(
        Trainee(module, lambda m: 0.5, lambda m: set_mode(segmenter, 2)),
        ClipSamples(data, views, memory_size=2, memories="real", cache=None),
        Stage(epochs=2, batch_size=4, lr=1e-3, weight_decay=0.0, ema=0.9, validate_every=2, lovasz=0.5),
        class_weights=torch.tensor([1.0, 2.0, 5.0]),
        folder=folder,
        options=RunOptions(accelerator, workers=0, report=record),
    )
    if accelerator.is_main_process:
        last = torch.load(folder / "last.pt", weights_only=True)
        end = {name.removeprefix("inner.model."): value for name, value in last["module"].items()}
        torch.save({"steps": steps, "start": start, "end": end, "average": segmenter.state_dict()}, out)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


CHILD = (
    "import sys; from pathlib import Path; import test_distributed as t; t.train(*map(Path, sys.argv[1:]))"
)


def run_processes(count, folder, out):
    """The same program in `count` processes, as a launcher starts them."""
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests / "training")]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(out)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        errors = [child.communicate(timeout=240)[1] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [child.returncode for child in children] == [0] * count, errors


def test_two_processes_train_as_one_with_the_joint_batch(tmp_path):
    train(tmp_path / "one", tmp_path / "one.pt")
    run_processes(2, tmp_path / "two", tmp_path / "two.pt")
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    assert len(one["steps"]) == len(two["steps"]) == 4
    rounding = set()
    for number, (expected, got) in enumerate(zip(one["steps"], two["steps"], strict=True)):
        assert set(expected) == set(got)
        assert {name.split(".")[0] for name in expected} == {"loss", "key_value", "fusion", "backbone"}
        for name, value in expected.items():
            # Some biases stand before a BatchNorm: their gradients are rounding errors, hence the absolute part, and
            # Adam makes whole steps of them. What they add BatchNorm takes away.
            if value.abs().max() < 1e-6:
                rounding.add(name)
            # Rounding differs, and each step builds on the one before.
            tolerance = 1e-5 + (1e-4 if number == 0 else 2e-3) * value.abs().max()
            assert (got[name] - value).abs().max() <= tolerance, (number, name)
    trained = set(one["steps"][0]) - {"loss"} - rounding
    assert len(trained) > 20
    for kind in ("end", "average"):
        for name in trained:
            moved = (one[kind][name] - one["start"][name]).abs().max()
            assert moved > 0, (kind, name)
            assert (two[kind][name] - one[kind][name]).abs().max() <= 0.02 * moved, (kind, name)
    # The average lags behind: it was kept, not the plain weights.
    assert all(not torch.equal(one["end"][name], one["average"][name]) for name in trained)


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def norms(channels=5):
    generator = torch.Generator().manual_seed(0)
    plain, joint = nn.BatchNorm2d(channels, eps=1e-3), JointBatchNorm2d(channels, eps=1e-3)
    for norm in (plain, joint):
        generator.manual_seed(0)
        norm.weight.data = torch.rand(channels, generator=generator) + 0.5
        norm.bias.data = torch.randn(channels, generator=generator)
    return plain, joint


def test_joint_batch_norm_is_batch_norm_with_one_process(group):
    plain, joint = norms()
    for step in range(3):
        x = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(step)) * 3 + 1.5
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(99))
        out, expected = joint(mine), plain(theirs)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        (out * direction).sum().backward()
        (expected * direction).sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(joint.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)
    assert list(joint.state_dict()) == list(plain.state_dict())
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(joint.state_dict()[name], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(joint.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_joint_batch_norm_keeps_its_digits_where_the_mean_is_large(group, offset):
    _, joint = norms()
    x = torch.randn(4, 5, 16, 16, generator=torch.Generator().manual_seed(1)).double() + offset
    x = x.float().double()  # as float32 holds it
    exact = nn.BatchNorm2d(5, eps=1e-3).double()
    exact.load_state_dict(joint.state_dict())
    mine, theirs = x.float().requires_grad_(), x.clone().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    out, expected = joint(mine), exact(theirs)
    # The mean itself is only known to a float32: at 10⁴ to about 10⁻³.
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=offset * 4e-7)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=offset * 4e-7)
    torch.testing.assert_close(joint.running_var.double(), exact.running_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("option", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_joint_batch_norm_names_the_options_it_lacks(group, option):
    norm = JointBatchNorm2d(5, **option)
    with pytest.raises(InputError, match=r"JointBatchNorm2d\(5.*train on one process"):
        norm(torch.randn(2, 5, 3, 3))


def test_joint_batch_norm_keeps_half_precision(group):
    plain, joint = norms()
    x = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = joint(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), plain(x.float()), rtol=0.01, atol=0.01)


def test_one_process_keeps_the_ordinary_batch_norm():
    backbone = tiny_backbone()
    synchronise_batch_norm(backbone, Accelerator(cpu=True))
    assert {type(m) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {nn.BatchNorm2d}


def test_timm_s_batch_norm_is_joined_with_its_activation(group):
    layers = pytest.importorskip("timm.layers")
    plain, joint = (layers.BatchNormAct2d(5, act_layer=nn.ReLU) for _ in range(2))
    _synchronised(joint)
    assert isinstance(joint, JointBatchNorm2d)
    x = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(joint(x), plain(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint.running_var, plain.running_var)
    torch.testing.assert_close(joint.eval()(x), plain.eval()(x))


def test_a_batch_norm_that_cannot_be_joined_is_told(group):
    with pytest.raises(InputError, match=r"BatchNorm1d\(5.*train on one"):
        _synchronised(nn.BatchNorm1d(5))


def _synchronised(module):
    synchronise_batch_norm(module, SimpleNamespace(num_processes=2))
