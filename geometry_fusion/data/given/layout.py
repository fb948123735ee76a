"""What every layout of given geometry becomes: named views of frames, read when they are asked for.

Also the steps that layouts share: names of frames, maps at a bounded size, digests of files.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.io.digests import file_digest
from geometry_fusion.io.frame_folder import IMAGE_SUFFIXES, OTHER_IMAGES

LONG_SIDE = 256  # from which a map is kept in memory at `KEPT` x `KEPT` pixels instead
# Three times the cells on which PosedDepth gives points: the middle one of three has their centre,
# so that points do not change.
KEPT = 192


@dataclass(frozen=True)
class Layout:
    """Geometry as it was found at `path`."""

    what: str  # for people: "COLMAP model (binary)"
    path: Path
    names: list[str] | None  # the stem of each frame's picture; None: frames have no names
    count: int  # of frames
    view: Callable[[int], PosedView | None]  # frame of the layout -> what is known of it
    digest: str  # of the content of all files that were read, hexadecimal
    notes: list[str] = field(default_factory=list)  # what was left out, one line each


def stem_of(name: str) -> str:
    """The stem of a picture's name, without folders: video/frame_0001.jpg -> frame_0001."""
    last = PurePosixPath(name.replace("\\", "/")).name
    for suffix in (*IMAGE_SUFFIXES, *OTHER_IMAGES, ".npz"):
        if last.lower().endswith(suffix):
            return last[: -len(suffix)]
    return last


def shrunk(values: np.ndarray) -> np.ndarray:
    """A map [h, w], at `KEPT` x `KEPT` by its nearest values if its long side is above `LONG_SIDE`.

    Averages would invent depths between an object and its background.
    """
    if max(values.shape) <= LONG_SIDE:
        return values
    rows, columns = (
        ((np.arange(KEPT) + 0.5) * side / KEPT - 0.5).round().astype(int) for side in values.shape
    )
    return values[np.ix_(rows, columns)]


def shrunk_view(view: PosedView) -> PosedView:
    """A view whose maps are `shrunk`, float32, with the lens for them."""
    depth = shrunk(view.depth).astype(np.float32)
    confidence = view.confidence
    if confidence is not None:
        confidence = shrunk(confidence).astype(np.float32)
    scale = [new / old for new, old in zip(depth.shape[::-1], view.depth.shape[::-1])]
    lens = view.lens.resized(tuple(scale))
    return PosedView(depth, view.camera_to_world, lens, confidence, view.picture_size)


def padded_view(view: PosedView, border: int) -> PosedView:
    """A view for a picture with `border` more pixels on every side, where nothing is known."""
    confidence = None if view.confidence is None else np.pad(view.confidence, border)
    lens: Lens = view.lens.padded(border)
    return PosedView(np.pad(view.depth, border), view.camera_to_world, lens, confidence)


def known_depth(depth: np.ndarray) -> np.ndarray:
    """Depth [h, w] float32 with 0 for everything that is no distance: NaN, infinity, below 0."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is unknown
        depth = np.asarray(depth).astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def digest_of_files(files: Iterable[Path]) -> str:
    """SHA-256 of names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files):
        name = file.name.encode(errors="surrogateescape")
        digest.update(b"%d %s " % (len(name), name))
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()
