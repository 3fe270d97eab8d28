import json
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

from lmanet.errors import InputError
from lmanet.evaluation import temporal
from lmanet.evaluation.flow import FrameMatcher
from lmanet.evaluation.metrics import ConfusionMatrix, mean_iou
from lmanet.evaluation.torchmetrics import Flicker, TemporalConsistency, VideoConsistency

CLASSES = 3
VOID = 255


class Video:
    """A texture that shifts, labels that shift with it, and predictions with errors; void at the left."""

    def __init__(self, frames, size, seed, *, shift_px=2):
        rng = np.random.default_rng(seed)
        texture = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 1.5)
        stripes = (np.indices(size).sum(axis=0) // 6 % CLASSES).astype(np.uint8)
        self.images = torch.from_numpy(
            np.stack([np.roll(texture, shift_px * t, axis=1) for t in range(frames)])
        ).movedim(-1, -3)
        labels = np.stack([np.roll(stripes, shift_px * t, axis=1) for t in range(frames)])
        wrong = rng.random(labels.shape) < 0.1
        self.preds = torch.from_numpy(np.where(wrong, (labels + 1) % CLASSES, labels)).long()
        labels[:, :, :3] = VOID
        self.target = torch.from_numpy(labels).long()

    def inputs(self, part=slice(None)):
        return {"preds": self.preds[part], "target": self.target[part], "images": self.images[part]}


VIDEOS = (Video(6, (20, 32), seed=0), Video(5, (18, 40), seed=1))

MAKE = {
    "flicker": Flicker,
    "vc2": lambda **options: VideoConsistency(2, **options),
    "vc3": lambda **options: VideoConsistency(3, **options),
    "vc3-reference": lambda **options: VideoConsistency(3, mode="reference", **options),
    "tc": lambda **options: TemporalConsistency(CLASSES, **options),
    "tc-reference": lambda **options: TemporalConsistency(CLASSES, mode="reference", **options),
}
every_metric = pytest.mark.parametrize("name", MAKE)


def update(metric, inputs):
    metric.update(**metric._filter_kwargs(**inputs))


def forward(metric, inputs):
    return metric(**metric._filter_kwargs(**inputs))


def expected(videos):
    """What the streaming classes give for these videos, frame by frame."""
    flicker = temporal.Flicker()
    vc = {mode: temporal.VideoConsistency((2, 3), mode=mode) for mode in ("default", "reference")}
    tc = {mode: temporal.TemporalConsistency(CLASSES, mode=mode) for mode in ("default", "reference")}
    matcher = FrameMatcher()
    for video in videos:
        for metric in (flicker, *vc.values(), *tc.values(), matcher):
            metric.start_sequence()
        frames = zip(video.preds.byte().numpy(), video.target.byte().numpy(), video.images, strict=True)
        for prediction, label, image in frames:
            flicker.update(label, prediction)
            motion = matcher.update(image.movedim(0, -1).numpy())
            for mode in ("default", "reference"):
                vc[mode].update(label, prediction)
                tc[mode].update(prediction, motion)
    return {
        "flicker": flicker.compute(),
        "vc2": vc["default"].compute()[2],
        "vc3": vc["default"].compute()[3],
        "vc3-reference": vc["reference"].compute()[3],
        "tc": tc["default"].compute(),
        "tc-reference": tc["reference"].compute(),
    }


EXPECTED = expected(VIDEOS)


def test_the_expected_values_differ_and_are_no_extremes():
    assert len({round(value, 4) for value in EXPECTED.values()}) == len(EXPECTED)
    assert all(0.02 < value < 0.98 for value in EXPECTED.values())


def test_hand_computed_example_tells_predictions_from_targets():
    target = torch.tensor([[[0, 0, 1, VOID]], [[0, 1, 1, VOID]]])
    preds = torch.tensor([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    # The targets of pixels 0 and 2 stay, and of these the prediction of 2 changes.
    flicker = Flicker()
    flicker.update(preds, target)
    assert flicker.compute().item() == pytest.approx(1 / 2)
    vc = VideoConsistency(2)
    vc.update(preds, target)
    assert vc.compute().item() == pytest.approx(1 / 2)


@every_metric
@pytest.mark.parametrize(
    "parts", [[0, 1, 2, 3, 4, slice(5, 6)], [slice(0, 2), 2, slice(3, 6)], [slice(0, 6)]]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_frames_and_clips_give_what_the_streaming_classes_give(name, parts, dtype):
    metric = MAKE[name]()
    for video in VIDEOS:
        metric.start_sequence()
        for part in parts:
            inputs = video.inputs(part)
            update(
                metric, inputs | {"preds": inputs["preds"].to(dtype), "target": inputs["target"].to(dtype)}
            )
    value = metric.compute()
    assert value.shape == () and value.dtype == torch.float32
    assert value.item() == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_metric
def test_metrics_work_on_a_gpu(name):
    metric = MAKE[name]().cuda()
    for video in VIDEOS:
        metric.start_sequence()
        update(metric, {key: value.cuda() for key, value in video.inputs().items()})
    assert metric.compute().device.type == "cuda"
    assert metric.compute().item() == pytest.approx(EXPECTED[name], rel=1e-6)


@every_metric
@pytest.mark.parametrize("twice", [False, True], ids=["one-update", "two-updates"])
def test_forward_continues_the_sequence_and_gives_what_each_call_adds(name, twice):
    # With dist_sync_on_step torchmetrics updates twice per forward, also without other processes.
    metric, alone = MAKE[name](dist_sync_on_step=twice), MAKE[name]()
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    for video in VIDEOS:
        metric.start_sequence()
        alone.start_sequence()
        for part in parts:
            update(alone, video.inputs(part))
            reported = forward(metric, video.inputs(part))
            torch.testing.assert_close(reported, alone.compute(), equal_nan=True)
            alone._counts.zero_()
            assert bool(reported.isnan()) is (part == parts[0])
    assert metric.compute().item() == pytest.approx(EXPECTED[name], rel=1e-6)


@every_metric
def test_update_and_forward_may_alternate(name):
    metric = MAKE[name]()
    for video in VIDEOS:
        metric.start_sequence()
        for frame in range(len(video.preds)):
            (forward if frame % 2 else update)(metric, video.inputs(frame))
    assert metric.compute().item() == pytest.approx(EXPECTED[name], rel=1e-6)


@every_metric
def test_reset_forgets_counts_and_sequence(name):
    metric = MAKE[name]()
    update(metric, VIDEOS[1].inputs())
    metric.reset()
    for video in VIDEOS:  # The first has another size than what was seen before the reset.
        update(metric, video.inputs())
        metric.start_sequence()
    assert metric.compute().item() == pytest.approx(EXPECTED[name], rel=1e-6)


@every_metric
@pytest.mark.parametrize("copy", [lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_where_the_original_stood(name, copy):
    metric = MAKE[name]()
    update(metric, VIDEOS[0].inputs(slice(0, 3)))
    twin = copy(metric)
    for other in (metric, twin):
        update(other, VIDEOS[0].inputs(slice(3, 6)))
        other.start_sequence()
        update(other, VIDEOS[1].inputs())
        assert other.compute().item() == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.parametrize("feed", ["update", "forward"])
def test_a_collection_keeps_metrics_of_all_lengths_and_modes_apart(feed):
    metrics = MetricCollection({name: make() for name, make in MAKE.items()})
    for video in VIDEOS:
        for metric in metrics.values():
            metric.start_sequence()
        for frame in range(len(video.preds)):
            getattr(metrics, feed)(**video.inputs(frame))
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(
        EXPECTED, rel=1e-6
    )


def test_torchmetrics_own_miou_ignores_void_and_absent_classes_as_ours_does():
    confusion, theirs = ConfusionMatrix(4), MulticlassJaccardIndex(4, ignore_index=VOID)
    # Class 3 is absent: where it is predicted is void. Class 2 is only predicted.
    target = torch.tensor([[0, 0, 1, 1, 1, VOID]])
    preds = torch.tensor([[0, 1, 1, 2, 1, 3]])
    confusion.update(target.byte(), preds.byte())
    theirs.update(preds, target)
    assert mean_iou(confusion.compute()) == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert theirs.compute().item() == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)


IDS = torch.zeros(16, 20, dtype=torch.int64)
IMAGE = torch.zeros(3, 16, 20, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("metric", "first", "second", "message"),
    [
        (Flicker(), IDS.numpy(), IDS, "preds is a ndarray, expected a torch tensor"),
        (Flicker(), torch.zeros(3, 16, 20), IDS, r"preds is torch.float32 of shape \(3, 16, 20\).*argmax"),
        (Flicker(), IDS, IDS[None, None], r"target is torch.int64 of shape \(1, 1, 16, 20\).*one video"),
        (Flicker(), IDS, IDS[:8], r"preds is \(16, 20\) but the target's is \(8, 20\)"),
        (VideoConsistency(2), IDS, IDS - 1, "target holds id -1, expected 0 to 255.*void to 255"),
        (VideoConsistency(2), IDS + 256, IDS, "preds holds id 256, expected 0 to 255"),
        (TemporalConsistency(3), IDS + 3, IMAGE, "preds holds id 3, expected 0 to 2"),
        (TemporalConsistency(3), IDS, IMAGE.float(), r"images is torch.float32 .*expected a uint8 RGB"),
        (TemporalConsistency(3), IDS, IMAGE[:, :8], r"expected a uint8 RGB tensor of shape \(3, 16, 20\)"),
        (TemporalConsistency(3), IDS[None], IMAGE, r"of shape \(1, 3, 16, 20\) for preds"),
        (TemporalConsistency(3), IDS, None, "images is <class 'NoneType'>"),
    ],
)
def test_wrong_inputs_are_refused_and_not_counted(metric, first, second, message):
    right = IMAGE if isinstance(metric, TemporalConsistency) else IDS
    metric.update(IDS, right)
    perfect = 0 if isinstance(metric, Flicker) else 1
    counts = 0
    for call in (metric.update, metric, metric.update):
        with pytest.raises(InputError, match=message):
            call(first, second)
        assert metric._counts.sum() == counts
        metric.update(IDS, right)  # The sequence goes on.
        assert metric.compute().item() == perfect and metric._to_sync
        counts = metric._counts.sum()


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="each 2 to 65535"):
        VideoConsistency(1)
    with pytest.raises(InputError, match="expected one of default, reference"):
        TemporalConsistency(3, mode="vspw")
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `length`"):
        Flicker(length=8)


def test_nothing_of_lmanet_but_the_metrics_is_loaded():
    # The parent package is stood in for, as its public names are models.
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.find_spec('lmanet')\n"
        "spec.loader = None\n"
        "sys.modules['lmanet'] = importlib.util.module_from_spec(spec)\n"
        "import lmanet.evaluation.torchmetrics\n"
        "print(*sorted(m for m in sys.modules if m.startswith('lmanet.')))\n"
        "print(*sorted({'accelerate', 'av', 'tyro'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lmanet, heavy = done.stdout.split("\n")[:2]
    evaluation = ("flow", "metrics", "temporal", "torchmetrics")
    assert lmanet.split() == [
        "lmanet.classes",
        "lmanet.errors",
        "lmanet.evaluation",
        *(f"lmanet.evaluation.{name}" for name in evaluation),
        "lmanet.flow",
    ]
    assert heavy == ""


def test_the_examples_of_the_documentation_run():
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    still = Video(9, (20, 32), seed=2, shift_px=0)
    scope = {"num_classes": CLASSES, "clips": [*VIDEOS, still]}
    exec(first, scope)
    values = {name: value.item() for name, value in scope["metrics"].compute().items()}
    reference = expected([*VIDEOS, still])
    assert values["flicker"] == pytest.approx(reference["flicker"], rel=1e-6)
    assert values["tc"] == pytest.approx(reference["tc"], rel=1e-6)

    images, target, preds = still.images.movedim(1, -1).numpy(), still.target.byte(), still.preds.byte()
    scope = {"num_classes": CLASSES, "video": zip(images, target, preds, strict=True)}
    exec(second, scope)
    # Of the three videos only the last one is as long as 8 frames; none is as long as 16.
    assert scope["vc"].compute() == {8: pytest.approx(values["vc8"]), 16: pytest.approx(np.nan, nan_ok=True)}
    assert 0 < values["vc8"] < 1
    assert scope["tc"].compute() == pytest.approx(expected([still])["tc"])


def measure(out):
    """One of two processes: each sees a video of its own, and computes over both, before and after another."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    metrics = {name: make() for name, make in MAKE.items()}
    results = []
    for video in (VIDEOS[rank], VIDEOS[1 - rank]):
        for metric in metrics.values():
            metric.start_sequence()
            update(metric, video.inputs())
        results.append({name: metric.compute().item() for name, metric in metrics.items()})
    Path(f"{out}-{rank}").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_compute_what_one_does_over_both_videos(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    code = "import sys, test_torchmetrics as t; t.measure(sys.argv[1])"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "result")],
            env={**environment, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [child.communicate(timeout=600)[1] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [child.returncode for child in children] == [0, 0], errors
    # Counts of the second video are added to those of each process alone, not to the sum over both.
    both_twice = expected([*VIDEOS, *VIDEOS])
    for rank in range(2):
        once, twice = json.loads((tmp_path / f"result-{rank}").read_text())
        assert once == pytest.approx(EXPECTED, rel=1e-6)
        assert twice == pytest.approx(both_twice, rel=1e-6)
