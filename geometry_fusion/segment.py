"""From prompts to masks on disk: over a clip forwards and backwards, or over a stream once.

`track` yields masks frame by frame in tracking order and keeps in memory only what tracking can
still read.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.files import replacing_file
from geometry_fusion.frame_folder import FrameFolder, frame_stem
from geometry_fusion.mask_files import overlay, read_ids, write_mask, write_palette_mask
from geometry_fusion.session import Session, id_image
from geometry_fusion.sharing import SharedEncoder, SharedFrames
from geometry_fusion.source_record import Record, as_text
from geometry_fusion.sources import Source, open_source
from geometry_fusion.types import Prompt
from geometry_fusion.unfinished import MASK_SUFFIXES, UnfinishedRun
from geometry_fusion.video import VideoWriter

__all__ = [
    "MASK_SUFFIXES",
    "StreamSummary",
    "segment_stream",
    "track",
    "track_together",
    "write_masks_and_videos",
]


def track(
    predictor,
    frames,  # sequence of RGB [H, W, 3] uint8 with .size (width, height)
    prompts: Sequence[Prompt],
    precision: str = "auto",
    progress: bool = True,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (frame index, ids [H, W] uint8) once for every frame: from the first prompted frame on,
    then backwards.

    Where masks overlap the most confident object wins. Raises InputError when a prompt does not fit
    the frames.
    """
    session = Session(predictor, "full", precision, keep="reachable", progress=progress)
    for prompt in prompts:
        session.add(prompt)
    yield from session.track(frames)


def track_together(
    predictors: Sequence,
    frames,  # sequence of RGB [H, W, 3] uint8 with .size
    prompts: Sequence[Prompt],
    precision: str = "auto",
) -> Iterator[tuple[int, list[np.ndarray], list[float]]]:
    """As `track`, with several predictors of one image encoder in step: (frame index, ids of each,
    seconds of each).

    A frame is decoded and encoded once. What that took is counted for every predictor: each is told
    what it would have taken alone.
    """
    shared = SharedFrames(
        frames, at_most=1 + max(predictor.frames_at_once for predictor in predictors)
    )
    encoder = SharedEncoder(predictors[0].image_encoder, at_most=0)
    own = [predictor.image_encoder for predictor in predictors]
    runs = [
        track(predictor, shared, prompts, precision, progress=False) for predictor in predictors
    ]
    try:
        for predictor in predictors:
            predictor.image_encoder = encoder
        while True:
            before, found, seconds = shared.seconds + encoder.seconds, [], []
            for run in runs:
                began, already = time.perf_counter(), shared.seconds + encoder.seconds
                found.append(next(run, None))
                saved = already - before  # what those before it have done for it
                seconds.append(time.perf_counter() - began + saved)
            if found[0] is None:
                return
            yield found[0][0], [ids for _, ids in found], seconds
    finally:
        for predictor, encoder in zip(predictors, own):
            predictor.image_encoder = encoder


def write_masks_and_videos(
    predictors: Sequence,
    frames,  # sequence of RGB [H, W, 3] uint8 with .size, .stems and .frame_rate
    prompts: Sequence[Prompt],
    masks: Sequence[Path],  # per predictor an existing, empty folder
    videos: Sequence[Path],
    precision: str = "auto",
    record: Record | None = None,  # of the source, to be kept in what is written
) -> list[float]:
    """Track `prompts` with each predictor, write a mask PNG per frame and the overlay video;
    returns the seconds per frame that each would have taken alone.

    One object gives 0/255 masks, several give palette PNGs whose index is the object id.
    """
    several = len({prompt.object_id for prompt in prompts}) > 1
    write, comment = _mask_writer(several, record), as_text(record)
    seconds = np.zeros(len(predictors))
    steps = track_together(predictors, frames, prompts, precision)
    for index, found, spent in tqdm(steps, total=len(frames), unit="frame", desc="tracking"):
        for folder, ids in zip(masks, found):
            write(folder / f"{frames.stems[index]}.png", ids)
        seconds += spent
    # A single object keeps the colour of its id, though its mask says only yes or no.
    object_id = None if several else prompts[0].object_id
    with ExitStack() as stack:
        options = {"comment": comment}
        writers = [
            stack.enter_context(VideoWriter(v, frames.frame_rate, frames.size, **options))
            for v in videos
        ]
        for index, stem in enumerate(frames.stems):
            image = frames[index]
            for writer, folder in zip(writers, masks):
                ids = read_ids(folder / f"{stem}.png")
                writer.write(overlay(image, ids if several else (ids > 0) * object_id))
    return (seconds / len(frames)).tolist()


def _mask_writer(several: bool, record: Record | None) -> Callable[[Path, np.ndarray], None]:
    """(file, ids [H, W]) -> nothing; the file gets ids of several objects, or 0 and 255."""
    source = as_text(record)
    if several:
        return lambda file, ids: write_palette_mask(file, ids, source)
    return lambda file, ids: write_mask(file, ids > 0, source)


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


def segment_stream(
    session: Session,
    spec,  # what `open_source` opens
    prompts: Sequence[Prompt],
    out: Path,
    identity: dict,
    *,
    carry_masks: bool = False,
    save_every_s: float = 20.0,
    watch: Callable[[Session, np.ndarray, bool], bool] | None = None,
    several: bool | None = None,
    record: Record | None = None,
    **source_options,
) -> StreamSummary:
    """Track a source of any length into `out`/masks/ and `out`/segmented.mp4, in constant memory.

    Masks are written as they come (see geometry_fusion/unfinished.py); of files and folders an
    interrupted run is resumed at its last snapshot, of anything else the video is written as it
    comes too, and Ctrl-C is its normal end. carry_masks: a frame of a folder that cannot be read
    gets the mask of the one before. watch: gets the session, every frame's ids before they are
    written, and whether the source waits; it may prompt the session, and ends the run by returning
    True. several: whether masks hold ids; default: where objects other than one are prompted.
    record: of the source, to be kept in masks and video.

    Raises InputError where `watch` ended the run of a source that waits before any object was
    prompted.
    """
    repeatable = isinstance(spec, str | Path) and Path(spec).exists()
    run = UnfinishedRun(out, identity, save_every_s)
    growing = out / "segmented.unfinished.mp4"
    for left in (
        growing,
        *(() if repeatable else (run.masks,)),
    ):  # nobody can make a live run's masks again
        if left.exists():
            raise InputError(
                f"{left}: left by a run that did not end well; move it and {run.masks.name} or "
                "choose another --out"
            )
    several = len({p.object_id for p in prompts}) != 1 if several is None else several
    write = _mask_writer(several, record)
    start = 0
    if run.snapshot is not None:
        session.restore(run.snapshot)
        start = session.frame_index + 1
    count, began, prompted = 0, time.perf_counter(), start > 0
    first_image, closed_at = None, None
    with ExitStack() as stack:
        source = stack.enter_context(open_source(spec, start=start, **source_options))
        for prompt in prompts:
            prompt.check(source.size, source.num_frames or prompt.frame + 1)
            if prompt.frame >= start:
                session.add(prompt)
        run.begin(_tracked_stems(spec, source, start, run.lost) if repeatable else ())
        video = None
        if not repeatable:
            writer = VideoWriter(
                growing, source.frame_rate, source.size, growing=True, comment=as_text(record)
            )
            video = stack.enter_context(writer)
        bar = tqdm(
            session.track(source),
            initial=start,
            total=source.num_frames,
            unit="frame",
            desc=source.name,
        )
        try:
            for index, ids in bar:
                first_image = session.image if first_image is None else first_image
                if watch and watch(session, ids, not source.live):
                    closed_at = index
                    if not (session.object_ids or source.live):
                        run.discard()
                        raise InputError(
                            "the window was closed before a click on an object; nothing was tracked"
                        )
                if watch and session.logits is not None:
                    ids = id_image(
                        session.object_ids, session.logits
                    )  # with the clicks on this frame
                write(run.masks / f"{session.stem}.png", ids)
                if video:
                    video.write(
                        overlay(
                            session.image, ids if several else (ids > 0) * prompts[0].object_id
                        ),
                        index,
                    )
                count += 1
                if closed_at is not None:
                    break
                prompted |= bool(session.object_ids)
                if repeatable and run.is_due and session.settled:
                    run.save(session.snapshot(), _lost(run, source, spec))
        except KeyboardInterrupt:
            if repeatable or not count:
                raise
        seconds = (time.perf_counter() - began) / max(count, 1)
        lost, dropped = _lost(run, source, spec), source.dropped
        if repeatable and not (prompted or session.object_ids):
            run.discard()
            raise InputError(
                f"{source.name}: nothing was prompted, so there are no masks; older results stay"
            )
        if repeatable and session.settled:
            run.save(session.snapshot(), lost)  # so that the video below may be interrupted as well
    final = out / "segmented.mp4"
    if repeatable:
        _check_complete(run, _tracked_stems(spec, source, session.frame_index + 1, lost))
        if carry_masks:
            _carry(spec, run.masks)
        with replacing_file(final) as fresh:
            only = None if several else prompts[0].object_id
            first_image = _write_overlays(fresh, spec, run.masks, only, as_text(record))
            run.finish()
    else:
        run.finish()
        growing.replace(final)
    return StreamSummary(count, start, seconds, lost, dropped, closed_at, first_image)


def _lost(run: UnfinishedRun, source: Source, spec) -> list[str]:
    """What could not be read so far, each line once: a resumed run reads some of it again, of a
    video file all.
    """
    before = run.lost if Path(str(spec)).is_dir() else []
    return list(dict.fromkeys([*before, *source.lost]))


def _tracked_stems(spec: Path, source: Source, end: int, lost: Sequence[str]) -> list[str]:
    """Stems of the frames before number `end` that could be read."""
    if not Path(spec).is_dir():
        return [frame_stem(index, source.num_frames) for index in range(end)]
    files = FrameFolder(spec, damaged_allowed=True).files[:end]
    lines = list(lost)
    stems = []
    for file in files:
        if lines and lines[0].startswith(f"{file.name}: "):  # they come in the order of the frames
            lines.pop(0)
        else:
            stems.append(file.stem)
    return stems


def _check_complete(run: UnfinishedRun, stems: Sequence[str]) -> None:
    """Masks are published when every frame that was read has one: a state may have been edited, a
    folder emptied.
    """
    if missing := run.missing(stems):
        raise InputError(
            f"{run.masks}: {len(missing)} of {len(stems)} masks are missing (first: "
            f"{missing[0]}.png), older results "
            f"stay; delete {run.masks.name} and unfinished.pt and begin again"
        )


def _carry(folder: Path, masks: Path) -> None:
    """Give frames that have no mask, because they could not be read, the mask of the frame
    before.
    """
    before = None
    for stem in FrameFolder(folder, damaged_allowed=True).stems if Path(folder).is_dir() else ():
        file = masks / f"{stem}.png"
        if not file.exists() and before:
            shutil.copyfile(before, file)
        before = file if file.exists() else before


def _write_overlays(
    file: Path, spec: Path, masks: Path, object_id: int | None, comment: str | None
) -> np.ndarray | None:
    """A second reading of the source, its masks on it; returns the first image. object_id: of the
    only object, whose masks are 0 and 255."""
    first_image = None
    with (
        open_source(spec) as source,
        VideoWriter(file, source.frame_rate, source.size, comment=comment) as writer,
    ):
        for frame in tqdm(source, total=source.num_frames, unit="frame", desc="overlays"):
            first_image = frame.image if first_image is None else first_image
            if (masks / f"{frame.stem}.png").exists():
                ids = read_ids(masks / f"{frame.stem}.png", source.size)
                writer.write(
                    overlay(frame.image, ids if object_id is None else (ids > 0) * object_id)
                )
    return first_image
