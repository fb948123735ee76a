"""The work of a run, photo by photo, which an interrupted run finds again.

    OUT/unfinished/identity.json        what the masks depend on
    OUT/unfinished/encoded_000012.pt    photo 12: its descriptor and tokens for matching
    OUT/unfinished/shown_000012.pt      its 3D points
    OUT/unfinished/asked_000012.pt      SAM2's answers
    OUT/unfinished/again_000012.pt      SAM2's answers at the second look
    OUT/unfinished/similarity.pt, overlaps.pt

What depends on MUSt3R's reference is kept once for each (`PhotoWork.part`): shown2_000012.pt, ...

Photos are numbered by content. Each file is written beside its place and renamed, and has a
checksum, so a kill at any moment leaves whole files alone. What is not there is computed, by the
same steps in the same order: so masks are the same, bit for bit.
"""

from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import torch

from geometry_fusion.io.state_file import load_state, save_state
from geometry_fusion.io.unfinished import delete_cure, open_unfinished
from geometry_fusion.photos.overlap import Shown
from geometry_fusion.tracking.memories.views import View
from geometry_fusion.tracking.place import Cells

SHARED = ("encoded", "similarity")  # by all parts
UNFINISHED = "unfinished"  # the folder's name
WORK_RULES = 2  # increased when a change of the pipeline makes unfinished work invalid


class PhotoWork:
    """Pieces of work by name. folder: where they are kept; None: nowhere.

    identity: what they depend on, as text by name. Raises InputError for a folder of a run with
    another identity.
    """

    def __init__(self, folder: Path | None = None, identity: dict[str, str] | None = None):
        self.folder, self._suffix = folder, ""
        if folder is not None:
            open_unfinished(folder, {"rules": str(WORK_RULES), **(identity or {})})

    def part(self, number: int) -> "PhotoWork":
        """The work of a group of objects (0, 1, ...) with a reference of their own."""
        part = copy(self)
        part._suffix = str(number + 1) if number else ""
        return part

    def once(self, name: str, make: Callable[[], dict], photo: int | None = None) -> dict:
        """The piece with a name (of a photo) that is kept, or the one that `make` returns, which is
        kept: tensors and plain values. Raises InputError for a damaged file.
        """
        if self.folder is None:
            return make()
        name += "" if name in SHARED else self._suffix
        file = self.folder / (f"{name}.pt" if photo is None else f"{name}_{photo:06d}.pt")
        if file.exists():
            return load_state(file, delete_cure(self.folder))
        piece = make()
        save_state(file, piece)
        return piece

    def array(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """As `once`, for one array."""
        return self.once(name, lambda: {"values": torch.from_numpy(make())})["values"].numpy()

    def count(self, name: str) -> int:
        """Photos of which a piece is kept; of several parts, of the first one."""
        return 0 if self.folder is None else len(list(self.folder.glob(f"{name}_*.pt")))


def packed_shown(shown: Shown) -> dict:
    """A photo's geometry as tensors and plain values."""
    if shown.view is None:
        return {"confidence": shown.confidence}
    cells = shown.view.cells
    return {
        "confidence": shown.confidence,
        "points": torch.from_numpy(cells.points),
        "known": torch.from_numpy(cells.known),
        "side": cells.side,
        "scale": cells.scale,
        "focal": shown.view.focal,
        "pose": torch.from_numpy(shown.view.camera_to_world),
    }


def unpacked_shown(piece: dict) -> Shown:
    """What `packed_shown` packed."""
    if "points" not in piece:
        return Shown(piece["confidence"], None)
    points, known, pose = (piece[name].numpy() for name in ("points", "known", "pose"))
    cells = Cells(points, known, piece["side"], piece["scale"])
    return Shown(piece["confidence"], View(cells, tuple(piece["focal"]), pose))
