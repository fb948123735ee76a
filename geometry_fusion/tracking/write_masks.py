"""Masks and overlay videos of whole clips on disk."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.io.mask_writer import overlay, read_ids, write_mask, write_palette_mask
from geometry_fusion.io.source_record import Record, as_text
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.types import Frames, TrackedFrame


def write_masks_and_videos(
    steps: Iterable[tuple[list[TrackedFrame], list[float]]],  # of `track_together`
    frames: Frames,
    object_ids: Sequence[int],
    masks: Sequence[Path],  # an existing, empty folder per session
    videos: Sequence[Path],
    *,
    record: Record | None = None,
    watch: Callable[[list[TrackedFrame]], None] | None = None,
    before_videos: Callable[[], None] | None = None,
) -> list[float]:
    """Write what sessions answer, as it comes: a mask PNG per frame, then the overlay videos.
    Returns the seconds per frame that each session would have taken alone.

    One object gives 0/255 masks, several give palette PNGs whose index is the object id. record: of
    the source, kept in what is written. watch: called for every frame with what each session
    answered. before_videos: called when all masks are written; it may change them.
    """
    several = len(set(object_ids)) > 1
    write = mask_writer(several, record)
    seconds = np.zeros(len(masks))
    for tracked, spent in tqdm(steps, total=len(frames), unit="frame", desc="tracking"):
        for folder, frame in zip(masks, tracked):
            write(folder / f"{frames.stems[frame.index]}.png", frame.ids)
        if watch:
            watch(tracked)
        seconds += spent
    if before_videos:
        before_videos()
    # A single object keeps the colour of its id, though its mask says only yes or no.
    only = None if several else object_ids[0]
    _write_videos(frames, only, masks, videos, record)
    return (seconds / len(frames)).tolist()


def _write_videos(
    frames: Frames,
    only: int | None,  # the id of the only object, whose masks are 0 and 255
    masks: Sequence[Path],
    videos: Sequence[Path],
    record: Record | None,
) -> None:
    """One pass over the frames, the masks of each session on them."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                VideoWriter(file, frames.frame_rate, frames.size, comment=as_text(record))
            )
            for file in videos
        ]
        for index, stem in enumerate(frames.stems):
            image = frames[index]
            for writer, folder in zip(writers, masks):
                ids = read_ids(folder / f"{stem}.png")
                writer.write(overlay(image, ids if only is None else (ids > 0) * only))


def mask_writer(several: bool, record: Record | None) -> Callable[[Path, np.ndarray], None]:
    """(file, ids [H, W]) -> nothing; the file gets ids of several objects, or 0 and 255."""
    source = as_text(record)

    def write_ids(file: Path, ids: np.ndarray) -> None:
        write_palette_mask(file, ids, source)

    def write_yes_or_no(file: Path, ids: np.ndarray) -> None:
        write_mask(file, ids > 0, source)

    return write_ids if several else write_yes_or_no
