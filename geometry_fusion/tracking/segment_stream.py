"""Segmenting a stream of any length into a folder: masks as they come, resumed after a kill."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.mask_writer import overlay, read_ids
from geometry_fusion.io.source_record import Record, as_text
from geometry_fusion.io.stream import Source, open_source
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.tracking.resume import UnfinishedRun
from geometry_fusion.tracking.session import id_image
from geometry_fusion.tracking.stream_masks import carry_masks_forward, check_complete, tracked_stems
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.tracking.write_masks import mask_writer
from geometry_fusion.types import Prompt, TrackedFrame


@dataclass(frozen=True)
class StreamSummary:
    """What became of a stream."""

    num_frames: int  # tracked by this process
    first_frame: int  # where it began: above 0 if it resumed an interrupted run
    seconds_per_frame: float
    lost: list[str]  # a line for each frame, or stretch of a video, that could not be decoded
    dropped: int  # live frames that were skipped because newer ones came
    closed_at: int | None = None  # the frame at which the user ended the run in the window
    first_image: np.ndarray | None = None  # [H, W, 3] RGB uint8 of the source


Watch = Callable[[StreamSession, TrackedFrame, bool], bool]


def segment_stream(
    session: StreamSession,
    spec,  # what `open_source` opens
    prompts: Sequence[Prompt],
    out: Path,
    identity: dict,
    *,
    carry_masks: bool = False,
    save_every_s: float = 20.0,
    watch: Watch | None = None,
    several: bool | None = None,
    record: Record | None = None,
    **source_options,
) -> StreamSummary:
    """Track a source of any length into `out`/masks/ and `out`/segmented.mp4, in constant memory.

    Masks are written as they come (resume.py). For files and folders, an interrupted run is resumed
    at its last snapshot. For anything else the video is written as it comes too, and Ctrl-C is its
    normal end. carry_masks: a frame of a folder that cannot be read gets the mask of the one
    before. watch: gets the session, every tracked frame before it is written, and whether the
    source waits; it may prompt the session, and ends the run by returning True. several: whether
    masks hold ids; default: where objects other than one are prompted. record: of the source, kept
    in masks and video.

    Raises InputError where nothing was prompted, and where a mask is missing at the end.
    """
    several = len({p.object_id for p in prompts}) != 1 if several is None else several
    only = None if several else prompts[0].object_id
    unfinished = UnfinishedRun(out, identity, save_every_s)
    kind = _StoredRun if isinstance(spec, str | Path) and Path(spec).exists() else _LiveRun
    run = kind(session, spec, unfinished, only, record)
    run.restore()
    with ExitStack() as stack:
        source = stack.enter_context(open_source(spec, start=run.start, **source_options))
        for prompt in prompts:
            prompt.check(source.size, source.num_frames or prompt.frame + 1)
            if prompt.frame >= run.start:
                session.add(prompt)
        run.begin(source, stack)
        run.track(source, watch)
    first_image = run.publish(carry_masks)
    return StreamSummary(
        run.count,
        run.start,
        run.seconds / max(run.count, 1),
        run.lost,
        source.dropped,
        run.closed_at,
        first_image,
    )


class _Run:
    """One run of `segment_stream`, from its first frame to its results.

    only: the id of the only object, whose masks are 0 and 255; None where masks hold ids.
    """

    def __init__(
        self,
        session: StreamSession,
        spec,
        unfinished: UnfinishedRun,
        only: int | None,
        record: Record | None,
    ):
        self.session, self.spec, self.unfinished = session, spec, unfinished
        self.only, self.comment = only, as_text(record)
        self.growing = unfinished.out / "segmented.unfinished.mp4"
        self.final = unfinished.out / "segmented.mp4"
        self.write = mask_writer(only is None, record)
        self.start, self.count, self.seconds = 0, 0, 0.0
        self.lost: list[str] = []
        self.first_image: np.ndarray | None = None
        self.closed_at: int | None = None
        for left in self._leftovers():
            if left.exists():
                raise InputError(
                    f"{left}: left by a run that did not end well; move it and "
                    f"{unfinished.masks.name} or choose another output folder"
                )

    def _leftovers(self) -> tuple[Path, ...]:
        return (self.growing,)

    def restore(self) -> None:
        """Resume at the snapshot of an interrupted run, where there is one."""
        if self.unfinished.snapshot is not None:
            self.session.restore(self.unfinished.snapshot)
            self.start = self.session.frame_index + 1

    def track(self, source: Source, watch: Watch | None) -> None:
        """All frames of the source, or those until the user ends the run."""
        began = time.perf_counter()
        bar = tqdm(
            self.session.track(source),
            initial=self.start,
            total=source.num_frames,
            unit="frame",
            desc=source.name,
        )
        try:
            for frame in bar:
                if self.first_image is None:
                    self.first_image = frame.image
                if watch and watch(self.session, frame, not source.live):
                    self.closed_at = frame.index
                    self._check_closed(source)
                self._write(frame, self._with_clicks(frame) if watch else frame.ids)
                if self.closed_at is not None:
                    break
                self._after_frame(source)
        except KeyboardInterrupt:
            if not self._may_be_interrupted():
                raise
        self.seconds = time.perf_counter() - began
        self._after_all(source)

    def _with_clicks(self, frame: TrackedFrame) -> np.ndarray:
        """Ids [H, W] of a frame with the clicks that were made on it meanwhile."""
        if self.session.logits is None:
            return frame.ids
        return id_image(self.session.object_ids, self.session.logits)

    def _check_closed(self, source: Source) -> None:
        if not (self.session.object_ids or source.live):
            self.unfinished.discard()
            raise InputError(
                "the window was closed before a click on an object; nothing was tracked"
            )

    def _write(self, frame: TrackedFrame, ids: np.ndarray) -> None:
        self.write(self.unfinished.masks / f"{frame.stem}.png", ids)
        self.count += 1

    def _shown(self, image: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The overlay; a single object keeps the colour of its id."""
        return overlay(image, ids if self.only is None else (ids > 0) * self.only)


class _StoredRun(_Run):
    """Over a file or a folder: it can be resumed, and the video is written at the end."""

    def begin(self, source: Source, stack: ExitStack) -> None:
        self.prompted = self.start > 0
        stems = tracked_stems(self.spec, source, self.start, self.unfinished.lost)
        self.unfinished.begin(stems)

    def _after_frame(self, source: Source) -> None:
        self.prompted |= bool(self.session.object_ids)
        if self.unfinished.is_due and self.session.settled:
            self.unfinished.save(self.session.snapshot(), self._lost_so_far(source))

    def _may_be_interrupted(self) -> bool:
        return False

    def _after_all(self, source: Source) -> None:
        self.lost = self._lost_so_far(source)
        if not (self.prompted or self.session.object_ids):
            self.unfinished.discard()
            raise InputError(
                f"{source.name}: nothing was prompted, so there are no masks; older results stay"
            )
        if self.session.settled:  # so that the video below may be interrupted as well
            self.unfinished.save(self.session.snapshot(), self.lost)
        end = self.session.frame_index + 1
        self.stems = tracked_stems(self.spec, source, end, self.lost)

    def _lost_so_far(self, source: Source) -> list[str]:
        """What could not be read so far, each line once: a resumed run reads some of it again, of a
        video file everything.
        """
        before = self.unfinished.lost if Path(str(self.spec)).is_dir() else []
        return list(dict.fromkeys([*before, *source.lost]))

    def publish(self, carry_masks: bool) -> np.ndarray | None:
        """Masks and video take the place of older ones; returns the first image [H, W, 3]."""
        check_complete(self.unfinished, self.stems)
        if carry_masks:
            carry_masks_forward(self.spec, self.unfinished.masks)
        with replacing_file(self.final) as fresh:
            first_image = self._write_overlays(fresh)
            self.unfinished.finish()
        return first_image

    def _write_overlays(self, file: Path) -> np.ndarray | None:
        """A second reading of the source, its masks on it; returns the first image."""
        first_image = None
        with (
            open_source(self.spec) as source,
            VideoWriter(file, source.frame_rate, source.size, comment=self.comment) as writer,
        ):
            for frame in tqdm(source, total=source.num_frames, unit="frame", desc="overlays"):
                first_image = frame.image if first_image is None else first_image
                mask = self.unfinished.masks / f"{frame.stem}.png"
                if mask.exists():
                    writer.write(self._shown(frame.image, read_ids(mask, source.size)))
        return first_image


class _LiveRun(_Run):
    """Over what comes once: the video grows with the masks, and Ctrl-C is the normal end."""

    def _leftovers(self) -> tuple[Path, ...]:
        # Nobody can make a live run's masks again.
        return (self.growing, self.unfinished.masks)

    def begin(self, source: Source, stack: ExitStack) -> None:
        self.unfinished.begin(())
        writer = VideoWriter(
            self.growing, source.frame_rate, source.size, growing=True, comment=self.comment
        )
        self.video = stack.enter_context(writer)

    def _write(self, frame: TrackedFrame, ids: np.ndarray) -> None:
        self.write(self.unfinished.masks / f"{frame.stem}.png", ids)
        self.video.write(self._shown(frame.image, ids), frame.index)
        self.count += 1

    def _after_frame(self, source: Source) -> None:
        pass

    def _may_be_interrupted(self) -> bool:
        return self.count > 0

    def _after_all(self, source: Source) -> None:
        self.lost = list(dict.fromkeys(source.lost))

    def publish(self, carry_masks: bool) -> np.ndarray | None:
        """Masks and video take the place of older ones; returns the first image [H, W, 3]."""
        self.unfinished.finish()
        self.growing.replace(self.final)
        return self.first_image
