"""The 3D part of the player: coloured points, the camera path, the objects' places.

`SceneCloud` collects them while a video is tracked, in bounded memory, and packs them for
`scene.js`: little-endian binary values as base64.
"""

import base64

import numpy as np

from geometry_fusion.geometry.object_point import object_point
from geometry_fusion.types import TrackedFrame

MOST_POINTS = 200_000  # that a page draws
PER_FRAME = 4096  # points that are taken from a frame, at most
LEAST_CONFIDENCE = 0.2  # of a point
VOXELS = 220  # along the longest side of the scene: finer points are thinned


class SceneCloud:
    """Collects the geometry of tracked frames: call `add` for each."""

    def __init__(self):
        self._points = np.zeros((0, 3), np.float32)
        self._colours = np.zeros((0, 3), np.uint8)
        self._frames = np.zeros(0, np.int32)
        self._cameras: dict[int, list[float]] = {}
        self._focals: dict[int, float] = {}
        self._places: dict[int, dict[int, list[float]]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no frame with a camera was added."""
        return not self._cameras

    def add(self, frame: TrackedFrame, image: np.ndarray) -> None:
        """Take in a frame's points, camera and objects, where it has geometry. image: the frame,
        RGB uint8 [H, W, 3].
        """
        geometry = frame.geometry
        if geometry is None or geometry.camera is None:
            return
        if frame.index not in self._cameras:
            self._add_points(frame.index, geometry, image)
        pose = geometry.camera.camera_to_world.cpu().numpy()
        self._cameras[frame.index] = np.round(pose[:3].flatten(), 5).tolist()
        self._focals[frame.index] = round(float(geometry.camera.focal), 2)
        for object_id in frame.object_ids:
            mask = frame.ids == object_id
            place = object_point(geometry, mask) if mask.any() else None
            places = self._places.setdefault(object_id, {})
            if place is None:
                places.pop(frame.index, None)
            else:
                places[frame.index] = np.round(place.astype(float), 4).tolist()

    def _add_points(self, index: int, geometry, image: np.ndarray) -> None:
        rows, columns = geometry.confidence.shape
        step = max(1, int(np.ceil(np.sqrt(rows * columns / PER_FRAME))))
        grid = (..., slice(None, None, step), slice(None, None, step))
        points = geometry.points[grid].permute(1, 2, 0).reshape(-1, 3).cpu().numpy()
        confidence = geometry.confidence[grid].flatten().cpu().numpy()
        colours = geometry.fit.apply(image)[::step, ::step].reshape(-1, 3)
        sure = (confidence >= LEAST_CONFIDENCE) & np.isfinite(points).all(1)
        self._points = np.concatenate([self._points, points[sure].astype(np.float32)])
        self._colours = np.concatenate([self._colours, colours[sure]])
        self._frames = np.concatenate([self._frames, np.full(sure.sum(), index, np.int32)])
        if len(self._points) > 2 * MOST_POINTS:
            self._thin()

    def _thin(self) -> None:
        """One point per voxel, and at most `MOST_POINTS`."""
        kept = thinned(self._points, MOST_POINTS)
        self._points, self._colours = self._points[kept], self._colours[kept]
        self._frames = self._frames[kept]

    def packed(self) -> dict | None:
        """JSON values for `scene.js`; None where nothing was added."""
        if self.is_empty:
            return None
        self._thin()
        order = sorted(self._cameras)
        return {
            "count": len(self._points),
            "points": _text(self._points.astype("<f4")),
            "colours": _text(self._colours),
            "frames": _text(self._frames.astype("<i4")),
            "cameras": [[i, *self._cameras[i]] for i in order],  # 3x4 camera to world, row by row
            "focals": [self._focals[i] for i in order],
            "places": {
                str(object_id): [[i, *place] for i, place in sorted(places.items())]
                for object_id, places in self._places.items()
            },
        }


def thinned(points: np.ndarray, most: int) -> np.ndarray:
    """Indices of points [N, 3] that stay: the first of every voxel, at most `most` of them."""
    if not len(points):
        return np.zeros(0, int)
    low, high = np.percentile(points, [1, 99], axis=0)
    side = max(float((high - low).max()) / VOXELS, 1e-9)
    cells = np.floor((points - low) / side).clip(-(10**6), 10**6).astype(np.int64)
    _, kept = np.unique(cells, axis=0, return_index=True)
    if len(kept) > most:
        kept = np.random.default_rng(0).permutation(kept)[:most]
    return np.sort(kept)


def fewer_points(scene: dict, most: int) -> dict:
    """A packed scene with at most so many points, a fixed random choice of them."""
    count = scene["count"]
    if count <= most:
        return scene
    kept = np.sort(np.random.default_rng(0).permutation(count)[:most])
    fewer = {**scene, "count": most}
    for key, kind, width in (("points", "<f4", 3), ("colours", "u1", 3), ("frames", "<i4", 1)):
        values = np.frombuffer(base64.b64decode(scene[key]), kind).reshape(count, width)
        fewer[key] = _text(values[kept])
    return fewer


def _text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
