"""The images of a folder before any is decoded: which there are, of what size, and which numbers are missing."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmanet.data.protocols import natural_key
from lmanet.errors import VideoError
from lmanet.imagefile import IMAGE_SUFFIXES, ImageFileError, image_size

MOST_NAMED = 3  # of many files, as many are named in a message


def images_in(folder: Path) -> list[Path]:
    """What a folder, not its subfolders, has under names of images, in natural order: `f2.png` before `f10.png`.

    Hidden files are left out. What is no file, such as a link to nothing, is in the list: to be told of.

    Raises:
        VideoError: if there is none, if two differ only in their suffix (their outputs would collide), or if the
            folder cannot be read.
    """
    try:
        content = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: the folder cannot be read: {error.strerror}") from error
    images = [path for path in content if path.suffix.lower() in IMAGE_SUFFIXES]
    images.sort(key=lambda path: natural_key(path.name))
    if not images:
        allowed = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        inside = sorted(path.name for path in content if path.is_dir())
        hint = f"; it has subfolders ({named(inside)}): give one of them" if inside else ""
        raise VideoError(f"{folder}: the folder has no images (expected files of type {allowed}){hint}")
    by_stem: dict[str, Path] = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise VideoError(
                f"{folder}: {other.name} and {path.name} share the name {path.stem!r}, which the outputs are"
                " named by; rename or remove one"
            )
    return images


def named(items: Sequence[str]) -> str:
    """The first few of many: `a, b, c, and 10 more`."""
    shown = ", ".join(items[:MOST_NAMED])
    return shown if len(items) <= MOST_NAMED else f"{shown}, and {len(items) - MOST_NAMED} more"


def skipped(bad: Mapping[Path, str]) -> str:
    """One line for all images that were left out, with the first few and what is wrong with each."""
    each = [f"{path.name} ({reason})" for path, reason in bad.items()]
    return f"{len(bad)} image{'s' if len(bad) > 1 else ''} skipped: {named(each)}"


def reason(error: ImageFileError, path: Path) -> str:
    """What the error says, without the path that it begins with and without what is to be done."""
    text = str(error).removeprefix(str(path)).lstrip(": ").partition(";")[0]
    text = text.removesuffix(": replace or remove it").removeprefix("cannot be read as an image").lstrip(": ")
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def check_sizes(folder: Path, images: Sequence[Path]) -> tuple[tuple[int, int] | None, dict[Path, str]]:
    """(H, W) of the images by their headers, and those that cannot be read, with the reason of each.

    Returns:
        The size that all have, None if no header can be read; and what is wrong with each bad image.

    Raises:
        VideoError: if the sizes differ; it names those that are not as most are.
    """
    sizes: dict[Path, tuple[int, int]] = {}
    bad: dict[Path, str] = {}
    for path in images:
        try:
            sizes[path] = image_size(path)
        except ImageFileError as error:
            bad[path] = reason(error, path)
    if not sizes:
        return None, bad
    size, count = Counter(sizes.values()).most_common(1)[0]
    others = [f"{path.name} ({w}×{h})" for path, (h, w) in sizes.items() if (h, w) != size]
    if others:
        raise VideoError(
            f"{folder}: {len(others)} of {len(sizes)} images have another size: {named(others)}; the other {count}"
            f" are {size[1]}×{size[0]}: resize those that differ, or move them out of the folder"
        )
    return size, bad


def missing_numbers(images: Sequence[Path]) -> list[str]:
    """Names, without suffix, that a numbered sequence of images lacks between its first and its last.

    Numbers count in the step that most neighbours have, so that f0, f5, f10 lacks nothing. Where no step fits them
    all, as with times of day in the names, nothing is missing.
    """
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for path in images:
        if match := re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", path.stem):
            series[match[1], match[3]].append((int(match[2]), len(match[2])))
    missing: list[str] = []
    for (before, after), numbers in series.items():
        steps = [later - number for (number, _), (later, _) in itertools.pairwise(numbers)]
        if not steps or min(steps) < 1:
            continue
        step, share = min(steps), steps.count(min(steps)) / len(steps)
        if share < 0.5 or any(each % step for each in steps):
            continue
        for (number, digits), each in zip(numbers, steps, strict=False):
            missing += [f"{before}{number + k:0{digits}d}{after}" for k in range(step, each, step)]
    return missing
