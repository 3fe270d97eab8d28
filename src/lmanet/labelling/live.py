"""A run of `lmanet.label_video`: it can be ended from any thread, and keeps what it has made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import InputError, LmanetError, NetworkError
from lmanet.evaluation.shares import ClassShares
from lmanet.labelling.record import as_file, check_same_run, make_record, warn_of_others
from lmanet.labelling.result import LabelledVideo
from lmanet.labelling.resume import Gaps
from lmanet.methods.base import VideoModel
from lmanet.session import Session
from lmanet.video import Frame, Source, SourceInfo, default_output, open_sinks, run_pipeline
from lmanet.video.outputs import Draw, Outputs, check_outputs, is_label_folder
from lmanet.video.stills import whole_map


@dataclass(eq=False)
class Labelling:
    """A run under way: what `on_open` of `lmanet.label_video` is told of.

    Attributes:
        info: what is known of the source, such as `frame_count`.
        given_up: whether `give_up` was called.
    """

    info: SourceInfo
    _source: Source
    _outputs: Outputs
    _shares: ClassShares
    _model: VideoModel
    _device: str
    _began_s: float
    _gaps: Gaps | None = None
    given_up: bool = field(default=False, init=False)

    def stop(self) -> None:
        """End the run after the frame in work, from any thread: what is labelled by then is kept."""
        self._source.stop()

    def give_up(self) -> LabelledVideo:
        """End the run without the frame in work, from any thread: the outputs are finished here, as they are.

        The call of `lmanet.label_video` ends when its network does.

        Raises:
            OutputError: an output cannot be finished.
        """
        self.given_up = True
        self._source.stop()
        self._outputs.close()
        return self.result()

    def result(self) -> LabelledVideo:
        """What came of it; called when the outputs are closed."""
        return LabelledVideo(
            outputs=tuple(self._outputs.kept),
            frames=self._outputs.frames,
            seconds=time.perf_counter() - self._began_s,
            shares=dict(zip(self._model.classes.names, self._shares.compute().tolist(), strict=True)),
            method=self._model.method,
            device=self._device,
            normalisation=self._model.backbone.normalisation,
            notes=self._model.backbone.notes,
            warnings=tuple(self._source.warnings),
            stopped=self._source.stopping,
            found=self._gaps.found if self._gaps else 0,
        )


def label(
    open_source: Callable[[], Source],
    outputs: Sequence[Path],
    model: VideoModel,
    session: Session,
    *,
    draw: Draw,
    device: str,
    resume: bool,
    on_open: Callable[[Labelling], None],
    progress: Callable[[int], None],
) -> LabelledVideo:
    """Label a source; see `lmanet.label_video`.

    Args:
        open_source: gives it.
        outputs: `default_output` if there is none.
        model: as it was given.
        session: of the model.
        draw: makes the view.
        device: to be told.
        resume: label maps that are there stay.
        on_open: told of the run before the first frame.
        progress: told how many frames are done after each.
    """
    began_s = time.perf_counter()
    shares = ClassShares(len(model.classes))
    with open_source() as source:
        written = list(outputs) or [default_output(source.info)]
        check_outputs(written, source.info)
        if resume:
            _check_resumable(written, source.info)
        record = _record(written, source, model, session)
        gaps = _gaps(written[0], source, session, record) if resume else None
        if not resume:
            _warn_of_others(written, record)
        with open_sinks(
            written,
            source.info,
            draw=draw,
            palette=model.classes.colours(),
            run=record["run"] if record else "",
            record=as_file(record) if record else None,
        ) as opened:
            run = Labelling(source.info, source, opened, shares, model, device, began_s, gaps)
            on_open(run)
            _run(run, source, opened, shares, session, gaps, progress)
    # Only now the outputs are closed, which is part of the work.
    return run.result()


def _run(
    run: Labelling,
    source: Source,
    outputs: Outputs,
    shares: ClassShares,
    session: Session,
    gaps: Gaps | None,
    progress: Callable[[int], None],
) -> None:
    done, last = 0, -1

    def step(frame: Frame) -> NDArray[np.uint8]:
        nonlocal last
        if gaps is not None and gaps.skipped(last, frame.index):
            session.reset()
        last = frame.index
        try:
            return session.step(frame.image).labels
        except NetworkError as error:
            raise NetworkError(f"frame {frame.name}: {error}") from error.__cause__

    def write(frame: Frame, labels: NDArray[np.uint8]) -> None:
        if gaps is None or gaps.missing(frame.index):
            outputs.write(frame, labels)
            shares.update(labels)

    def advance(frame: Frame) -> None:
        nonlocal done
        done += 1
        progress(done)

    try:
        run_pipeline(source, step, [write], progress=advance)
    except LmanetError:
        if not run.given_up:  # The outputs were closed under the writer.
            raise


def _check_resumable(outputs: Sequence[Path], info: SourceInfo) -> None:
    if info.kind in ("image", "camera"):
        raise InputError(f"{info.path}: --resume is for folders of images and for videos: leave it out")
    videos = [str(path) for path in outputs if not is_label_folder(path)]
    if videos or len(outputs) > 1:
        raise InputError(
            f"--resume goes on with one folder of label maps (-o labels), not with {', '.join(videos) or 'several'}: a "
            "video cannot be gone on with; leave it out, or leave --resume out"
        )


def _record(
    outputs: Sequence[Path], source: Source, model: VideoModel, session: Session
) -> dict[str, Any] | None:
    """The record of the run, where label maps of several frames are made that can be gone on with."""
    folders = [path for path in outputs if is_label_folder(path)]
    if not folders or source.info.kind in ("image", "camera"):
        return None
    return make_record(source, model, session)


def _warn_of_others(outputs: Sequence[Path], record: dict[str, Any] | None) -> None:
    for path in outputs:
        if record is not None and path.is_dir():
            warn_of_others(path, record)


def _gaps(folder: Path, source: Source, session: Session, record: dict[str, Any] | None) -> Gaps:
    assert record is not None
    if folder.is_dir():
        check_same_run(folder, record)
    size = {"width": source.info.width, "height": source.info.height}
    gaps = Gaps(
        source.name_of,
        lambda name: whole_map(folder / f"{name}.png", run=record["run"], **size),
        session.model.past_frames,
    )
    source.wanted = gaps.wanted
    return gaps
