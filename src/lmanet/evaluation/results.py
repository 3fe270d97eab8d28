"""What an evaluation gives: scores per predictor, the conventions and the machine behind them, as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lmanet.errors import DataError

SCHEMA_VERSION = 1
"""Version of the reports' JSON; raised whenever a field is renamed, removed or changes its meaning."""


@dataclass(frozen=True)
class Scores:
    """One predictor's scores. Shares are 0 to 1; NaN where nothing could be measured.

    Attributes:
        miou: mean over the classes of `per_class_iou`, absent classes left out.
        per_class_iou: one per class, in order; NaN for an absent class.
        pixel_accuracy: share of the labelled pixels whose class is right.
        flicker: share of the pixels that should keep their label and do not; lower is better.
        vc: video consistency VC_n by window length n, in frames.
        tc: temporal consistency along the optical flow; NaN if it was not asked for.
        median_ms: median time of a frame's prediction, in milliseconds.
        fps: 1000 / `median_ms`, so that a slow first frame does not count.
        frames: frames predicted.
        labelled_frames: those of them that have a label.
    """

    miou: float
    per_class_iou: tuple[float, ...]
    pixel_accuracy: float
    flicker: float
    vc: dict[int, float]
    tc: float
    median_ms: float
    fps: float
    frames: int
    labelled_frames: int


@dataclass(frozen=True)
class Conventions:
    """What must be known to compare the figures with others.

    Attributes:
        mode: of the temporal metrics, `default` or `reference`; see `lmanet.evaluation.temporal`.
        flow: the optical flow behind TC; None if TC was not measured.
    """

    mode: str
    flow: str | None


@dataclass(frozen=True)
class Environment:
    """Where the figures were measured.

    Attributes:
        lmanet: version of lmanet.
        torch: version of PyTorch.
        python: version of Python.
        machine: operating system and processor.
        threads: the threads that PyTorch uses on the CPU.
    """

    lmanet: str
    torch: str
    python: str
    machine: str
    threads: int

    @classmethod
    def here(cls) -> Environment:
        """This process's."""
        return cls(
            lmanet=version("lmanet"),
            torch=torch.__version__,
            python=platform.python_version(),
            machine=f"{platform.system()}, {_processor()}, {os.cpu_count()} logical cores",
            threads=torch.get_num_threads(),
        )


@dataclass(frozen=True)
class EvaluationReport:
    """The outcome of one evaluation: the same frames through one or more predictors.

    Attributes:
        data: the data set's name, such as `camvid/val`.
        class_names: one per class id, in order.
        scores: by predictor name, in the order they were given.
        conventions: of the metrics.
        settings: what the predictors ran with, such as device and precision.
        environment: versions and machine.
    """

    data: str
    class_names: tuple[str, ...]
    scores: dict[str, Scores]
    conventions: Conventions
    settings: dict[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment.here)

    def to_json(self) -> str:
        """The report as indented JSON: shares 0 to 1, NaN as null."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(nan_to_none(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EvaluationReport:
        """The report that `to_json` wrote.

        Raises:
            DataError: if the text is no JSON, of another schema version, or not the fields of a report.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"the report is not JSON ({error}): give a file that an evaluation wrote"
            ) from error
        got = content.pop("schema_version", None) if isinstance(content, dict) else None
        if got != SCHEMA_VERSION:
            raise DataError(
                f"the report's schema_version is {got}, expected {SCHEMA_VERSION}: "
                "evaluate again, or read it with the lmanet that wrote it"
            )
        try:
            return cls(
                data=content.pop("data"),
                class_names=tuple(content.pop("class_names")),
                scores={name: _scores_from(values) for name, values in content.pop("scores").items()},
                conventions=Conventions(**content.pop("conventions")),
                environment=Environment(**content.pop("environment")),
                **content,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the report does not have the fields of schema_version {SCHEMA_VERSION} ({error!r}): "
                "evaluate again"
            ) from error


def _scores_from(values: dict[str, Any]) -> Scores:
    fields: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
    fields["per_class_iou"] = tuple(math.nan if iou is None else iou for iou in values["per_class_iou"])
    fields["vc"] = {int(n): math.nan if vc is None else vc for n, vc in values["vc"].items()}
    return Scores(**fields)


def nan_to_none(value: Any) -> Any:
    """A nested value with every NaN replaced by None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _processor() -> str:
    """The processor's name; only its architecture where the system does not tell the name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
