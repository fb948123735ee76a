"""A small world with exact depth: boxes on a floor, seen by cameras on an arc."""

from dataclasses import dataclass

import numpy as np

from geometry_fusion.geometry.cameras import directions_of, intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.tracks import MaskTrack, encoded

FLOOR = np.array([[-2.0, -2.0, -0.1], [2.0, 2.0, 0.0]])


def camera_at(angle: float, distance: float = 2.4, height: float = 1.5) -> np.ndarray:
    """Camera-to-world pose [4, 4] on a circle, looking at the middle of the boxes; z is up."""
    centre = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
    forward = np.array([0, 0, 0.25]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = centre
    return pose


@dataclass
class Boxes:
    """Boxes [[low], [high]] in metres, by id 1, 2, ..."""

    boxes: list[np.ndarray]
    poses: list[np.ndarray]
    side: int = 160

    def __post_init__(self):
        middle = (self.side - 1) / 2
        self.k = intrinsic_matrix(1.1 * self.side, 1.1 * self.side, middle, middle)
        seen = [self._seen(pose) for pose in self.poses]
        self.depths = [depth for depth, _ in seen]
        self.ids = [ids for _, ids in seen]

    def _seen(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v, u = np.mgrid[0 : self.side, 0 : self.side].astype(float)
        rays = np.einsum("ij,jhw->hwi", pose[:3, :3], directions_of(self.k, u, v))
        depth, ids = np.full(u.shape, np.inf), np.zeros(u.shape, int)
        for number, (low, high) in enumerate([FLOOR, *self.boxes]):
            with np.errstate(divide="ignore"):
                one, other = (low - pose[:3, 3]) / rays, (high - pose[:3, 3]) / rays
            enters = np.minimum(one, other).max(-1)
            leaves = np.maximum(one, other).min(-1)
            hit = (enters < leaves) & (enters > 0) & (enters < depth)
            depth[hit], ids[hit] = enters[hit], number
        return np.where(np.isfinite(depth), depth, 0), ids

    def view(self, frame: int) -> PosedView:
        return PosedView(self.depths[frame], self.poses[frame], Lens(self.k))

    def image(self, frame: int) -> np.ndarray:
        """Every thing in a colour of its own."""
        palette = np.array([(120, 120, 120), (200, 60, 60), (60, 60, 200), (60, 200, 60)], np.uint8)
        return palette[self.ids[frame]]

    def track(self, number: int, change=lambda mask: mask, start: int = 0) -> MaskTrack:
        """The true masks of a box, changed."""
        track = MaskTrack(number, start, len(self.poses))
        for frame in range(start, len(self.poses)):
            if (self.ids[frame] == number).any():
                track.masks[frame] = encoded(change(self.ids[frame] == number))
        return track


def two_boxes(frames: int = 16, side: int = 160) -> Boxes:
    """Two boxes side by side, seen from all around."""
    boxes = [
        np.array([[-0.5, -0.3, 0.0], [-0.05, 0.2, 0.5]]),
        np.array([[0.15, -0.2, 0.0], [0.6, 0.25, 0.35]]),
    ]
    angles = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    return Boxes(boxes, [camera_at(angle) for angle in angles], side)
