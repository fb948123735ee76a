"""Ground truth in a session: what the IoU curve is measured against."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import MaskFolder, list_masks
from geometry_fusion.measure.masks import iou
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session_files import mask_file
from geometry_fusion.ui.sources import check_picture

TRUTH = 5  # where a record's list has the IoU with ground truth


class Truth:
    """Ground truth masks by stem. only: the object that they show, where they have no ids."""

    def __init__(self, folder: Path, only: int):
        self._masks = MaskFolder(list_masks(folder, "ground truth"))
        self._only = only if self._masks.ids is None else None
        self.object_ids = set(self._masks.ids or [only])

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError unless all masks have this (width, height)."""
        self._masks.check_size(size)

    def of(self, stem: str) -> np.ndarray | None:
        """Ids [H, W]; None where a frame has no ground truth."""
        if stem not in self._masks.files:
            return None
        ids = self._masks.read(stem)
        return ids if self._only is None else (ids > 0) * self._only


def take_truth(studio, session, asked: Mapping) -> None:
    """Received PNG masks, named like the frames, as the session's ground truth; results get their
    IoU. Raises InputError, and then the old ground truth stays.
    """
    session.check_frame(0)
    known = set(session.source.stems)
    fresh = session.folder / "truth-new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    names = {}
    try:
        for file_id in asked.get("files") or []:
            name = session.uploads.get(file_id) if isinstance(file_id, str) else None
            if name is None:
                raise InputError("a file was not received; choose it again")
            file = session.folder / "uploads" / file_id
            check_picture(file, name, studio.limits)
            stem = Path(name).stem
            if stem in known:  # a name of our own frames, so it may be a path
                names[str(fresh / f"{stem}.png")] = name
                shutil.move(file, fresh / f"{stem}.png")
        if not names:
            first = session.source.stems[0]
            raise InputError(f"no mask is named like a frame; name them {first}.png and so on")
        Truth(fresh, first_object(session)).check_size(session.source.size)
    except InputError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        text = str(error)
        for path, name in names.items():
            text = text.replace(path, name)
        raise InputError(text.replace(str(fresh), "ground truth")) from None
    finally:
        session.uploads.clear()
        shutil.rmtree(session.folder / "uploads", ignore_errors=True)
    shutil.rmtree(session.truth_folder, ignore_errors=True)
    fresh.rename(session.truth_folder)
    score(session, Truth(session.truth_folder, first_object(session)))


def first_object(session) -> int:
    """The object that ground truth without ids shows."""
    return session.board.objects[0].id if session.board.objects else 1


def score(session, truth: Truth) -> None:
    """Put the IoU with ground truth into all records."""
    for arm in ARMS:
        for frame in sorted(session.results.frames(arm)):
            expected = truth.of(session.source.stems[frame])
            record = session.results.record(arm, frame)
            ids = ids_of_png(mask_file(session.masks, arm, frame).read_bytes())
            for object_id, values in record["objects"].items():
                values[TRUTH] = None
                if expected is not None and int(object_id) in truth.object_ids:
                    masks = ids == int(object_id), expected == int(object_id)
                    values[TRUTH] = round(iou(*masks), 4)
            session.results.add(record)
