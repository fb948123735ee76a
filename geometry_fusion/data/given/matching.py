"""Which frame of the video each frame of the geometry is.

By stem where stems match; else by the number in the names; else by order, which needs equal counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geometry_fusion.data.given.layout import Layout
from geometry_fusion.data.readers.source import frame_number
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import FRAMES_JSON
from geometry_fusion.io.parsing import is_whole, load_json


@dataclass(frozen=True)
class Matches:
    """Frame of the video -> frame of the geometry, and how they were paired."""

    index_of: dict[int, int]
    by: str  # "stem", "number" or "order", with what else was assumed


def match_frames(layout: Layout, stems: Sequence[str], count: int, step: int = 1) -> Matches:
    """Pair the frames of `layout` with those of a video.

    stems: names of the video's `count` frames; empty where they have none. step: the frames are
    every so many of a video. Raises InputError where nothing matches, or two frames have one name.
    """
    if layout.names is None:
        return _by_order(layout, count, "its frames have no names")
    if len(set(layout.names)) < len(layout.names):
        twice = Counter(layout.names).most_common(1)[0][0]
        raise InputError(
            f"{layout.path}: two of its frames are named {twice!r}; give the geometry of one camera"
        )
    places = {name: place for place, name in enumerate(layout.names)}
    same = {index: places[stem] for index, stem in enumerate(stems) if stem in places}
    if same:
        return Matches(same, "stem")
    try:
        ours = {frame_number(f"{stem}.x"): index for index, stem in enumerate(stems)}
        theirs = {frame_number(f"{name}.x"): place for place, name in enumerate(layout.names)}
    except ValueError:
        return _by_order(layout, count, "stems differ and have no numbers")
    if len(ours) < len(stems) or len(theirs) < len(layout.names) or not stems:
        return _by_order(layout, count, "stems differ and numbers repeat")
    return _by_number(layout, ours, theirs, step)


def _by_number(layout: Layout, ours: dict[int, int], theirs: dict[int, int], step: int) -> Matches:
    shift = min(theirs) - min(ours)
    if shift and {number + shift for number in ours} == theirs.keys():
        # One of them counts from 1: the n-th is the n-th, which equal numbers would get wrong.
        pairs = {index: theirs[number + shift] for number, index in ours.items()}
        return Matches(pairs, f"number, shifted by {shift}")
    if step > 1 and max(theirs) >= len(ours):
        pairs = {i: theirs[n * step] for n, i in ours.items() if n * step in theirs}
        by = f"number in the video, of which the frames are every {step}"
    else:
        pairs = {index: theirs[number] for number, index in ours.items() if number in theirs}
        by = "number"
    if pairs:
        return Matches(pairs, by)
    return _by_order(layout, len(ours), "neither stems nor numbers are equal")


def _by_order(layout: Layout, count: int, why: str) -> Matches:
    if layout.count != count:
        shown = "" if layout.names is None else f" (its first is {layout.names[0]!r})"
        raise InputError(
            f"{layout.path}: has {layout.count} frames{shown}, the video {count}, and {why}: they "
            "cannot be paired; name its frames like the video's, or give exactly one for each"
        )
    return Matches({index: index for index in range(count)}, f"order ({why})")


def extraction_step(frames) -> int:
    """N where frames are every N-th of a video, as frames.json states it; else 1."""
    folder = getattr(frames, "path", None)
    if folder is None or not (Path(folder) / FRAMES_JSON).is_file():
        return 1
    try:
        every = load_json(Path(folder) / FRAMES_JSON)["every"]
    except (InputError, KeyError, TypeError):
        return 1
    return every if is_whole(every) and every > 0 else 1
