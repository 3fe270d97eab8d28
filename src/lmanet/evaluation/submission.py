"""Label maps of the last frame of every sequence, as a test server takes them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet.atomic import check_folder, write_whole
from lmanet.data.protocols import VideoData
from lmanet.session import Session


def write_submission(
    data: VideoData,
    session: Session,
    folder: Path,
    *,
    ids: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Stream every sequence and write the labels of its last frame, at the frame's own size.

    The files are named `FRAME_labelIds.png`: Cityscapes' server looks anywhere in what is uploaded for
    `CITY_SEQUENCE_FRAME*.png` (cityscapesScripts, `evaluation/evalPixelLevelSemanticLabeling.py`).

    Args:
        data: the sequences, each of a labelled frame and the frames before it.
        session: of the model; with `resize` if the network is to see frames of another size.
        folder: made if need be; files of the same names are replaced.
        ids: class ids to the ids that the server takes, uint8 of the same shape.
        progress: called with (sequences done, sequences in all) after each.

    Returns:
        The files, grey 8-bit PNGs.

    Raises:
        DataError: a frame cannot be read.
        OutputError: a file cannot be written.
    """
    check_folder(folder)
    paths = []
    for sequence in data.sequences:
        session.reset()
        last = len(sequence.frame_names) - 1
        for index in range(last):
            session.step(sequence.image(index))
        labels = session.step(sequence.image(last)).labels
        encoded = io.BytesIO()
        Image.fromarray(ids(labels)).save(encoded, format="png", compress_level=3)
        paths.append(folder / f"{sequence.frame_names[last]}_labelIds.png")
        write_whole(paths[-1], encoded.getbuffer())
        progress(len(paths), len(data.sequences))
    return paths
