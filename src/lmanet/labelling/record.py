"""How label maps were made: a record beside them, and what tells the maps of one run from those of another."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lmanet.errors import InputError, OutputError
from lmanet.methods.base import VideoModel
from lmanet.session import Session
from lmanet.video import Source

RECORD_NAME = "lmanet.json"
FORMAT = 1
COMPARED = ("source", "model", "settings")
"""Sections that the maps depend on, all but the source's path."""


def make_record(source: Source, model: VideoModel, session: Session) -> dict[str, Any]:
    """What label maps depend on, as JSON values.

    Args:
        source: open; its first frame is looked at.
        model: as it was given, before it was made fast.
        session: that labels.

    Returns:
        `format` 1; `lmanet`, the version; `run`, a hash of what is compared; `source`: path (not compared), name, kind,
        width, height, and a hash of its first frame; `model`: network, setting, method, arguments, weights (a hash of
        all tensors), classes; `settings`: resize (height, width, or null) and precision.
    """
    first = source.peek()
    info = source.info
    facts: dict[str, Any] = {
        "source": {
            "path": str(info.path.resolve()),
            "name": info.path.resolve().name,
            "kind": info.kind,
            "width": info.width,
            "height": info.height,
            "first_frame": None if first is None else hashlib.sha256(first.image.tobytes()).hexdigest(),
        },
        "model": {
            "network": model.backbone.architecture,
            "setting": model.backbone.setting,
            "method": model.method,
            "arguments": session.model.arguments,
            "weights": _hash(model),
            "classes": list(model.classes.names),
        },
        "settings": {"resize": session.resize, "precision": session.precision},
    }
    # As it reads when it is read again: tuples are lists then.
    facts = json.loads(json.dumps(facts, default=repr))
    compared = json.dumps([*_compared(facts)], sort_keys=True)
    run = hashlib.sha256(compared.encode()).hexdigest()[:16]
    return {"format": FORMAT, "lmanet": version("lmanet"), "run": run, **facts}


def as_file(record: Mapping[str, Any]) -> tuple[str, bytes]:
    """A record's file name, and its contents."""
    return RECORD_NAME, (json.dumps(record, indent=1) + "\n").encode()


def check_same_run(folder: Path, record: Mapping[str, Any]) -> None:
    """See that label maps that are in a folder already were made as a record says.

    Raises:
        InputError: they were made otherwise, or nobody knows how.
    """
    before = _read(folder)
    if before is not None and before.get("format") != FORMAT:
        raise InputError(
            f"{folder / RECORD_NAME} has format {before.get('format')}, this lmanet reads format {FORMAT}: go on with "
            f"the lmanet that wrote it, leave --resume out to replace its maps, or choose another folder"
        )
    if before is None:
        if _count(folder):
            raise InputError(
                f"{folder} holds label maps, but no {RECORD_NAME} that says how they were made: make them again "
                f"without --resume, or choose another folder"
            )
        return
    then, now = dict(_compared(before)), dict(_compared(record))
    differing = [
        f"{name} was {_short(then.get(name))}, is {_short(now.get(name))}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if differing:
        # Another method has other arguments and weights, which say nothing more.
        differing = [text for text in differing if text.startswith("model method ")] or differing
        raise InputError(
            f"{folder} holds label maps of another run ({'; '.join(differing)}): give the same command again to go on "
            f"with it, leave --resume out to replace its maps, or choose another folder"
        )
    if before.get("lmanet") != record["lmanet"]:
        warnings.warn(
            f"{folder} was begun by lmanet {before.get('lmanet')}, this is {record['lmanet']}: labels may differ",
            UserWarning,
            stacklevel=2,
        )


def warn_of_others(folder: Path, record: Mapping[str, Any]) -> None:
    """Warn that a folder holds label maps of another run, which will be mixed with or replaced by those of this one."""
    count = _count(folder)
    before = _read(folder)
    if not count or (before is not None and _tag(before) == _tag(record)):
        return
    made = ""
    if before is not None and before.get("format") == FORMAT:
        made = f" of {before['source'].get('path')} by {before['model'].get('method')}"
    warnings.warn(
        f"{folder} holds {count} PNG file{'s' * (count > 1)} of another run{made}: those of the same names are "
        f"replaced, the others stay among the new ones",
        UserWarning,
        stacklevel=2,
    )


def _read(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None if there is none that can be read."""
    path = folder / RECORD_NAME
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}): see that you may") from error
    except ValueError:
        return None
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in COMPARED):
        return None
    return record


def _tag(record: Mapping[str, Any]) -> tuple[Any, Any]:
    return record.get("format"), record.get("run")


def _count(folder: Path) -> int:
    return sum(path.suffix == ".png" and not path.name.startswith(".") for path in folder.iterdir())


def _compared(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in COMPARED:
        for name, value in record[part].items():
            if (part, name) != ("source", "path"):
                yield f"{part} {name.replace('_', ' ')}", value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]} …"


def _hash(model: VideoModel) -> str:
    """Of all weights and statistics, also of those that are not saved, such as the normalisation."""
    digest = hashlib.sha256()
    for name, value in sorted({**model.state_dict(), **dict(model.named_buffers())}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
