"""Small data sets on disk, in the layouts that people have."""

from __future__ import annotations

import json

import numpy as np

from contracts.imagefiles import SIZE, picture, write_image


def segnet(root, names, split="train", label=None):
    for i, name in enumerate(names):
        ids = np.full(SIZE, i % 12, np.uint8) if label is None else label
        write_image(root / split / f"{name}.png", picture(i))
        write_image(root / f"{split}annot" / f"{name}.png", ids)
    return root


def cambridge(root, names, colour=(128, 128, 128)):
    label = np.empty((*SIZE, 3), np.uint8)
    label[:] = colour
    for i, name in enumerate(names):
        write_image(root / "701_StillsRaw_full" / f"{name}.png", picture(i))
        write_image(root / "LabeledApproved_full" / f"{name}_L.png", label)
    return root


def stem(city, number, frame):
    return f"{city}_{number:06d}_{frame:06d}"


def snippet(
    root,
    city="aachen",
    number=0,
    frame=19,
    *,
    split="train",
    before=2,
    still=True,
    kind="labelIds",
    label=None,
):
    """A labelled frame, and some before it; `still`: the labelled one lies in leftImg8bit, as the others never do."""
    for age in range(before + 1):
        folder = "leftImg8bit" if still and age == 0 else "leftImg8bit_sequence"
        path = root / folder / split / city / f"{stem(city, number, frame - age)}_leftImg8bit.png"
        write_image(path, picture(100 * number + age))
    if kind:
        values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 34 if label is None else label
        write_image(root / "gtFine" / split / city / f"{stem(city, number, frame)}_gtFine_{kind}.png", values)
        write_image(
            root / "gtFine" / split / city / f"{stem(city, number, frame)}_gtFine_color.png", picture()
        )
    return root


def video(root, name, numbers, *, split="train", masks=True, label=None):
    folder = root / "data" / name
    for n in numbers:
        write_image(folder / f"origin/{n:08d}.jpg", picture(n), quality=95)
        if masks:
            write_image(
                folder / f"mask/{n:08d}.png", np.full(SIZE, n % 125, np.uint8) if label is None else label
            )
    with (root / f"{split}.txt").open("a") as file:
        file.write(f"{name}\n")
    return root


FOLDER_CLASSES = {"names": ["road", "car", "tree"], "fps": 25}


def write_classes(root, **changes):
    root.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in (FOLDER_CLASSES | changes).items() if value is not None}
    (root / "classes.json").write_text(json.dumps(content))
    return root


def sequence(root, name, frames, labelled=(), *, suffix=".png", label=None):
    for i, frame in enumerate(frames):
        write_image(root / f"images/{name}/{frame}{suffix}", picture(i))
        if frame in labelled:
            ids = np.full(SIZE, i % 3, np.uint8) if label is None else label
            write_image(root / f"labels/{name}/{frame}.png", ids)
    return root
