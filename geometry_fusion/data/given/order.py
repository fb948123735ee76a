"""Do the frames look as the geometry says? Finds geometry that was paired with other frames.

A point keeps its colour from frame to frame. Where geometry of frame 7 is used for frame 8, points
take colours of places beside them, and differ more between two frames.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice

import cv2
import numpy as np

from geometry_fusion.data.given.consistency import TOLERANCE, Probe, probe_of
from geometry_fusion.geometry.cameras import IN_FRONT_M
from geometry_fusion.geometry.posed_depth import PosedView

SIDE = 128  # pixels of the small grey pictures that are compared
SHIFTS = (-3, -2, -1, 1, 2, 3)
CLEARLY = 0.7  # part of the difference of colours that may remain where another pairing is right
LEAST_POINTS = 300
NEAR = 4  # each tested frame is compared with so many that follow it


def better_pairing(
    frames,  # Frames of the video, or a video file
    tested: Sequence[int],  # frames of the video that have geometry
    with_geometry: Sequence[int],  # all of these, sorted
    view_of: Callable[[int], PosedView | None],
) -> tuple[str, float, float] | None:
    """Another pairing of frames and geometry that fits the colours clearly better; None if none.

    (what it is, mean difference of grey values as paired, and as it would be), 0..255.
    """
    by_frame = _pictures(frames, tested)
    chosen = list(by_frame)
    pictures = list(by_frame.values())

    @cache
    def probe(frame: int) -> Probe | None:
        view = view_of(frame)
        return None if view is None else probe_of(view)

    place_of = {frame: place for place, frame in enumerate(with_geometry)}
    last = len(with_geometry) - 1
    given = _difference(pictures, [probe(frame) for frame in chosen])
    if given is None:
        return None
    best = None
    for shift in (*SHIFTS, None):
        places = [last - place_of[f] if shift is None else place_of[f] + shift for f in chosen]
        inside = [0 <= place <= last for place in places]
        moved = [probe(with_geometry[p]) for p, fits in zip(places, inside) if fits]
        kept = [picture for picture, fits in zip(pictures, inside) if fits]
        # The same frames as paired now: others may be harder.
        same = [probe(frame) for frame, fits in zip(chosen, inside) if fits]
        other, base = _difference(kept, moved), _difference(kept, same)
        if other is None or base is None or other > CLEARLY * base:
            continue
        if best is None or other < best[2]:
            best = ("in reversed order" if shift is None else _named(shift), base, other)
    return best


def _named(shift: int) -> str:
    plural = "s" * (abs(shift) > 1)
    return f"of {abs(shift)} frame{plural} {'later' if shift > 0 else 'earlier'}"


def _pictures(frames, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Frame -> small grey picture. A video file has no order but its own: it is read once."""
    if hasattr(frames, "__getitem__"):
        return {frame: _small(frames[frame]) for frame in wanted}
    read = enumerate(islice(frames, max(wanted) + 1))
    return {index: _small(image) for index, image in read if index in wanted}


def _small(image_rgb: np.ndarray) -> np.ndarray:
    """[SIDE, SIDE] float32 grey: blurred by shrinking, so that noise and edges count less."""
    grey = cv2.cvtColor(np.ascontiguousarray(image_rgb), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _difference(pictures: Sequence[np.ndarray], probes: Sequence[Probe | None]) -> float | None:
    """Mean difference of grey values of points that two frames see; None for too few points."""
    seen = [(picture, probe) for picture, probe in zip(pictures, probes) if probe is not None]
    differences = [
        _of_pair(seen[one], seen[other])
        for one in range(len(seen))
        for other in range(one + 1, min(one + 1 + NEAR, len(seen)))
    ]
    values = np.concatenate(differences) if differences else np.zeros(0)
    return float(values.mean()) if len(values) >= LEAST_POINTS else None


def _of_pair(source: tuple[np.ndarray, Probe], target: tuple[np.ndarray, Probe]) -> np.ndarray:
    """Differences [M] of grey values of the points of one frame that the other sees."""
    (picture, probe), (other_picture, other) = source, target
    move = np.linalg.inv(other.view.camera_to_world) @ probe.view.camera_to_world
    points = probe.directions * probe.depths
    u, v, z = other.view.lens.pixels(move[:3, :3] @ points + move[:3, 3:])
    own_u, own_v, _ = probe.view.lens.pixels(points)
    height, width = other.view.depth.shape
    with np.errstate(invalid="ignore"):
        inside = (z > IN_FRONT_M) & (u > -0.5) & (v > -0.5)
        inside &= (u < width - 0.5) & (v < height - 0.5)
    columns, rows = np.rint(u[inside]).astype(int), np.rint(v[inside]).astype(int)
    near = other.around[:, rows, columns]
    with np.errstate(divide="ignore"):
        off = np.abs(np.log(z[inside]) - np.log(near)).min(0)
    seen = np.flatnonzero(inside)[off <= TOLERANCE]
    own = _read(picture, own_u[seen], own_v[seen], probe.view.depth.shape)
    there = _read(other_picture, u[seen], v[seen], other.view.depth.shape)
    return np.abs(own - there)


def _read(picture: np.ndarray, u: np.ndarray, v: np.ndarray, map_hw: tuple[int, int]) -> np.ndarray:
    """Grey values [M] at pixels of a depth map, bilinear."""
    if not len(u):
        return np.zeros(0, np.float32)
    x = ((u + 0.5) * SIDE / map_hw[1] - 0.5).astype(np.float32)
    y = ((v + 0.5) * SIDE / map_hw[0] - 0.5).astype(np.float32)
    read = cv2.remap(picture, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return read[0]
