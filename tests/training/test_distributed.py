"""Two processes on the CPU against one with the joint batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from contracts.tiny import tiny_backbone, tiny_data
from lmanet.segmenter import VideoSegmenter
from lmanet.training.augment import Augmentation
from lmanet.training.clips import ClipSamples, FromImages, PseudoMemory, make_views
from lmanet.training.config import Stage
from lmanet.training.distributed import JointBatchNorm2d, synchronise_batch_norm
from lmanet.training.loop import fit
from lmanet.training.train import set_mode, set_trainable

SIZE = (24, 32)


def one_step(folder, out):
    """One optimiser step of step 2 on the joint batch; leaves gradients, statistics and the logged loss in `out`."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    segmenter = VideoSegmenter(tiny_backbone(), key_channels=4, value_channels=6, memory_size=2, window=3)
    for part in segmenter.modules():
        if isinstance(part, nn.Dropout2d):
            part.p = 0.0
    # Voids of 1 to 4 columns: the processes' shares of the loss's weight differ.
    data = tiny_data(sequences=4, frames=1, size=SIZE)
    for n, sequence in enumerate(data.sequences):
        sequence.labels[0][:, : 6 * n] = 255
    views = make_views(Augmentation(flip=False), SIZE, draws=1, pseudo=0, ranges=PseudoMemory())
    set_trainable(segmenter, 2)
    module = FromImages(segmenter, SIZE)
    synchronise_batch_norm(module, accelerator)
    gradients = {}
    fit(
        module,
        ClipSamples(data, views, memory_size=2, memories="real", cache=None),
        Stage(epochs=1, batch_size=4, lr=1e-4, weight_decay=0.0),
        class_weights=torch.tensor([1.0, 2.0, 5.0]),
        validate=lambda m: 0.5,
        folder=folder,
        accelerator=accelerator,
        workers=0,
        set_mode=lambda m: set_mode(segmenter, 2),
        on_step=lambda p: gradients.update(
            {name: q.grad.clone() for name, q in segmenter.named_parameters() if q.grad is not None},
            loss=torch.tensor(p.loss),
        ),
    )
    if accelerator.is_main_process:
        torch.save({"gradients": gradients, "state": segmenter.state_dict()}, out)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


CHILD = (
    "import sys; from pathlib import Path; import test_distributed as t; t.one_step(*map(Path, sys.argv[1:]))"
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


def test_two_processes_give_the_gradients_of_one_with_the_joint_batch(tmp_path):
    one_step(tmp_path / "one", tmp_path / "one.pt")
    run_processes(2, tmp_path / "two", tmp_path / "two.pt")
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    assert set(one["gradients"]) == set(two["gradients"])
    assert {name.split(".")[0] for name in one["gradients"]} == {"loss", "key_value", "fusion", "backbone"}
    for name, expected in one["gradients"].items():
        # Some biases stand before a BatchNorm: their gradients are rounding errors, hence the absolute part.
        difference = (two["gradients"][name] - expected).abs().max()
        assert difference <= 1e-5 + 1e-4 * expected.abs().max(), name
    for name, expected in one["state"].items():
        if "running" in name:
            torch.testing.assert_close(two["state"][name], expected, rtol=1e-5, atol=1e-6)


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
