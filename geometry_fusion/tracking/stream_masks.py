"""Masks of a stream on disk: which frames should have one, and filling the gaps."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import FrameFolder, frame_stem
from geometry_fusion.io.stream import Source
from geometry_fusion.tracking.resume import UnfinishedRun


def tracked_stems(spec: Path, source: Source, end: int, lost: Sequence[str]) -> list[str]:
    """Stems of the frames before number `end` that could be read.

    lost: messages about the frames that could not, in the order of the frames.
    """
    if not Path(spec).is_dir():
        return [frame_stem(index, source.num_frames) for index in range(end)]
    files = FrameFolder(spec, damaged_allowed=True).files[:end]
    messages = list(lost)
    stems = []
    for file in files:
        if messages and messages[0].startswith(f"{file.name}: "):
            messages.pop(0)
        else:
            stems.append(file.stem)
    return stems


def check_complete(run: UnfinishedRun, stems: Sequence[str]) -> None:
    """Raise InputError unless each of `stems` has a mask, before masks replace older results.

    The user may have edited the state or emptied the folder.
    """
    if missing := run.missing(stems):
        raise InputError(
            f"{run.masks}: {len(missing)} of {len(stems)} masks are missing (first: "
            f"{missing[0]}.png), older results stay; delete {run.masks.name} and unfinished.pt and "
            "begin again"
        )


def carry_masks_forward(folder: Path, masks: Path) -> None:
    """Give each frame of a folder that could not be read the mask of the frame before it."""
    if not Path(folder).is_dir():
        return  # streams and videos have no files by which a gap could be named
    latest = None
    for stem in FrameFolder(folder, damaged_allowed=True).stems:
        file = masks / f"{stem}.png"
        if file.exists():
            latest = file
        elif latest:
            shutil.copyfile(latest, file)
            latest = file
