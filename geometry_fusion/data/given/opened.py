"""Opening geometry that the user brings: its layout, its frames, and whether it fits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.captures import format_of, open_capture
from geometry_fusion.data.given.check import (
    CheckedFrames,
    check_agrees,
    check_fits,
    principal_point,
)
from geometry_fusion.data.given.colmap import find_models, open_colmap
from geometry_fusion.data.given.layout import Layout
from geometry_fusion.data.given.matching import Matches, extraction_step, match_frames
from geometry_fusion.data.given.npz import find_npz, is_named, open_npz
from geometry_fusion.data.given.order import better_pairing
from geometry_fusion.data.given.scene_folder import is_scene_folder, open_scene_folder
from geometry_fusion.errors import InputError, printable
from geometry_fusion.geometry.posed_depth import PosedDepth, PosedView
from geometry_fusion.io.atomic import digest_of

LAYOUTS = (
    "a scene folder (depth/ and cameras.json), .npz files, a COLMAP model, or a capture of "
    "nerfstudio, Record3D, Polycam or Stray Scanner"
)
DOUBTFUL_SHARE = 0.9  # of points that agree, below which a warning is given
VIEWS_KEPT = 64  # of frames that come again while geometry is checked


@dataclass(frozen=True)
class GivenGeometry:
    """Depth and cameras for the frames of a video, checked."""

    layout: Layout
    matches: Matches
    num_frames: int  # of the video
    checked: CheckedFrames
    view: Callable[[int], PosedView | None]  # frame of the video -> what is known of it

    def source(self, side: int = 64) -> PosedDepth:
        """A fresh geometry source: frame k of the video asks for the geometry of frame k.

        Frames without geometry get confidence 0 everywhere. A damaged file raises InputError when
        its frame is pushed.
        """
        return PosedDepth(self.view, side)

    @property
    def digest(self) -> str:
        """What results depend on: 16 digits for the files' content and the pairing of frames."""
        return digest_of([self.layout.digest, sorted(self.matches.index_of.items())])

    def lines(self) -> list[str]:
        """What was found, for people: layout, pairing, extent and agreement, notes, warnings."""
        layout, checked = self.layout, self.checked
        agreement = checked.agreement
        agrees = "frames see too little in common to test"
        if agreement.is_judged:
            agrees = f"{agreement.share:.1%} of {agreement.landed:,} points agree between frames"
        lines = [
            f"geometry: {layout.what} of {len(self.matches.index_of)} of {self.num_frames} frames, "
            f"paired by {self.matches.by}; depth for {checked.known_share:.0%} of the pixels of "
            f"{len(checked.frames)} frames; {agrees}"
        ]
        return [printable(line) for line in (*lines, *layout.notes, *self.warnings())]

    def warnings(self) -> list[str]:
        """Doubts about geometry that was accepted, one line each."""
        lines = []
        checked = self.checked
        if checked.stands_still:
            lines.append("warning: the camera stands still: axes, scale and order were not tested")
        elif not checked.agreement.is_judged:
            lines.append("warning: frames see too little in common: geometry was not tested")
        elif checked.agreement.share < DOUBTFUL_SHARE:
            lines.append(
                f"warning: only {checked.agreement.share:.0%} of the points agree between frames"
            )
        view = checked.views[0]
        if np.allclose(principal_point(view), np.divide(view.picture_size, 2), atol=1e-3):
            lines.append(
                "warning: the principal point is half a pixel beside the middle; if your pixels' "
                "centres are at 0.5, subtract 0.5 from cx and cy"
            )
        return lines


def open_geometry(path: Path, frames) -> GivenGeometry:
    """Geometry at `path` for the frames of a video.

    frames: `Frames` with `stems`, or a video file, which is read once for the checks.

    Raises InputError for unknown layouts, damaged files, frames that cannot be paired, and geometry
    that contradicts itself.
    """
    path = Path(path)
    layout = open_layout(path)
    stems = list(getattr(frames, "stems", ()))
    num_frames = len(frames) if hasattr(frames, "__len__") else len(stems)
    matches = match_frames(layout, stems, num_frames, extraction_step(frames))
    size = tuple(frames.size)

    @lru_cache(VIEWS_KEPT)
    def view(frame: int) -> PosedView | None:
        place = matches.index_of.get(frame)
        known = None if place is None else layout.view(place)
        if known is not None:
            check_fits(known, size, str(path))
        return known

    paired = sorted(matches.index_of)
    checked = check_agrees(str(path), paired, view)
    if not checked.stands_still and checked.agreement.is_judged:
        _check_pairing(path, frames, checked, paired, view)
    return GivenGeometry(layout, matches, num_frames, checked, view)


def open_layout(path: Path) -> Layout:
    """The geometry at `path`, whichever layout it has. Raises InputError for unknown ones."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give {LAYOUTS}")
    if is_scene_folder(path):
        return open_scene_folder(path)
    arrays = find_npz(path)
    if arrays and (path.is_file() or is_named(arrays[0])):
        return open_npz(path)
    kind = format_of(path)
    models = find_models(path) if path.is_dir() else []
    if kind and not (kind == "nerfstudio" and models):
        return open_capture(path, kind)
    if models:
        return open_colmap(path)
    if arrays:  # last, because other layouts may have arrays of their own beside them
        return open_npz(path)
    raise InputError(f"{path}: holds no geometry that is known here; give {LAYOUTS}")


def _check_pairing(path: Path, frames, checked: CheckedFrames, paired: list[int], view) -> None:
    better = better_pairing(frames, checked.frames, paired, view)
    if better:
        how, given, other = better
        raise InputError(
            f"{path}: was made for other frames: with the geometry {how} the grey values of points "
            f"differ by {other:.1f} from frame to frame, as given by {given:.1f}; name its frames "
            "like the video's"
        )
