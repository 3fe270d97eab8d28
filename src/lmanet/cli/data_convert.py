"""`lmanet data convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmanet.cli.said import say
from lmanet.errors import DataError, InputError
from lmanet.words import counted, listed

if TYPE_CHECKING:
    from lmanet.cli.data import Convert
    from lmanet.data.convert.output import Conversion

ELSEWHERE = {
    "cvat": "export the task as COCO 1.0, or as a segmentation mask",
    "via": "export the annotations in COCO's format",
    "voc": "SegmentationClass holds label images already: lay them out as folder: has it",
    "yolo": "export the data set in COCO's format",
    "labelbox": "export label images, or COCO's format",
    "cityscapes": "use cityscapes:PATH, which reads its label images",
}
"""What to do with the formats of other tools."""


def convert(what: Convert) -> None:
    """Read, write, and say what was made."""
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.data.convert.output import ConversionError, write_folder
    from lmanet.data.summary import sum_up

    errors = Console(stderr=True)

    if what.split is not None and (not what.split or {"/", "\\"} & set(what.split)):
        raise InputError(f"split {what.split!r}: expected a name, such as train")
    conversion = _read(what)
    try:
        with Progress(console=errors, transient=True) as bars:
            task = bars.add_task(f"writing {what.out}", total=None)
            write_folder(
                conversion,
                what.out,
                fps=what.fps,
                split=what.split,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
    except ConversionError as error:
        if len(error.problems) == 1:
            raise
        say(errors, *(f"problem: {line}" for line in sum_up(error.problems, {}, 0)))
        raise DataError(
            f"{what.source}: {len(error.problems)} problems, listed above: nothing is written"
        ) from error
    frames, sequences = conversion.images, {frame.sequence for frame in conversion.images}
    labelled = sum(frame.draw is not None for frame in frames)
    say(
        errors,
        f"{what.out}: {counted(len(frames), 'frame')}, {labelled} of them labelled, in "
        f"{counted(len(sequences), 'sequence')}, one for each folder of images; {what.fps:g} frames a second",
        f"{len(conversion.names)} classes: {listed(conversion.names)}",
        *(f"note: {note}" for note in conversion.notes),
        f"look at it by: lmanet data check folder:{what.out} --split {what.split or 'all'}",
    )


def _read(what: Convert) -> Conversion:
    from lmanet.data.convert.coco import read_coco
    from lmanet.data.convert.labelme import read_labelme

    if what.format == "coco":
        if what.images is None:
            raise InputError("coco needs --images, the folder that the file_names of its images start from")
        if what.names:
            raise InputError("--names is for labelme: COCO's categories have an order of their own")
        return read_coco(what.source, what.images, unlabelled=what.unlabelled)
    if what.format == "labelme":
        if what.images is not None:
            raise InputError("--images is for coco: labelme's files say where their images are")
        return read_labelme(what.source, names=what.names, unlabelled=what.unlabelled)
    advice = next((text for name, text in ELSEWHERE.items() if name in what.format.lower()), "")
    raise InputError(f"format {what.format!r}: expected coco or labelme{f'; {advice}' if advice else ''}")
