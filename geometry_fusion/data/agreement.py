"""Do the depth and cameras of two frames agree? Points of one frame, looked up in the other.

Wrong axes, units, pairings and half-pixel errors all show as disagreement.
"""

from dataclasses import dataclass

import numpy as np

from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.geometry.cameras import back_project, intrinsic_matrix, project

GAP = 10  # frames between the two frames of a check
CONSISTENT = 0.03  # relative depth error below which a pixel shows the same place in both frames
NEAREST_M = 1e-3  # z-depth in metres above which a point counts as in front of the other camera

NOT_SEEN, DIFFERS, AGREES = 0, 1, 2  # verdicts on a pixel


@dataclass(frozen=True)
class View:
    """What `data.look` shows of a scene: some of its frames, its cameras and object names."""

    name: str
    stems: list[str]  # of all frames
    frames: dict[int, SceneFrame]  # index in `stems` -> frame; those shown and their partners
    shown: list[int]  # indices of the frames to show, in time order
    pairs: dict[int, int]  # index of a shown frame -> index of its partner in the check
    poses: np.ndarray  # [T, 4, 4] camera-to-world of all cameras that could be read
    names: dict[int, str]  # object id -> name
    problems: list[str]  # what could not be read, one line each


@dataclass(frozen=True)
class Agreement:
    """How the pixels of a frame, back-projected, compare with another frame.

    Numbers are NaN where there is nothing to compare.
    """

    depth_error: float  # median of |depth there - expected| / expected, over `pixels`
    consistent: float  # share of `pixels` whose relative depth error is below CONSISTENT
    ids: float  # share with equal ids, of the consistent pixels that show an object in either frame
    pixels: int  # number of pixels seen in the other frame: in its image, with depth in both
    verdict: np.ndarray  # [H, W] uint8, NOT_SEEN, DIFFERS or AGREES

    def __str__(self) -> str:
        if not self.pixels:
            return "no pixel is seen in both"
        depth = (
            f"depth off by {self.depth_error:.1%} (median), "
            f"{self.consistent:.0%} of {self.pixels} pixels consistent"
        )
        return depth if np.isnan(self.ids) else f"{depth}, ids agree {self.ids:.1%}"


def agreement(source: SceneFrame, target: SceneFrame) -> Agreement | None:
    """Compare every pixel of `source` that has depth with `target`.

    None unless both frames have depth and a camera.
    """
    if not (_has_geometry(source) and _has_geometry(target)):
        return None
    rows, columns = np.nonzero(source.depth > 0)
    points = points_of(source, rows, columns)
    u, v, z = project(points, intrinsic_matrix(*target.intrinsics), target.camera_to_world)
    u, v = np.rint(u), np.rint(v)
    height, width = target.depth.shape
    inside = (z > NEAREST_M) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u = np.where(inside, u, 0).astype(int)
    v = np.where(inside, v, 0).astype(int)
    seen = inside & (target.depth[v, u] > 0)
    rows, columns, u, v, z = rows[seen], columns[seen], u[seen], v[seen], z[seen]
    error = np.abs(target.depth[v, u] - z) / z
    good = error < CONSISTENT
    verdict = np.full(source.depth.shape, NOT_SEEN, np.uint8)
    verdict[rows, columns] = np.where(good, AGREES, DIFFERS)
    same_id = np.empty(0)
    if source.instance is not None and target.instance is not None:
        ids, other_ids = source.instance[rows, columns][good], target.instance[v, u][good]
        # Void says nothing, and agreement on the background is no evidence for the ids.
        counts = (ids >= 0) & (other_ids >= 0) & ((ids > 0) | (other_ids > 0))
        same_id = (ids == other_ids)[counts]
    median = float(np.median(error)) if len(error) else np.nan
    return Agreement(median, _mean(good), _mean(same_id), len(z), verdict)


def _has_geometry(frame: SceneFrame) -> bool:
    facts = (frame.depth, frame.camera_to_world, frame.intrinsics)
    return all(fact is not None for fact in facts)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def points_of(frame: SceneFrame, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """World points [3, N] in metres of the frame's pixels at `rows` and `columns`, each [N]."""
    k = intrinsic_matrix(*frame.intrinsics)
    return back_project(frame.depth[rows, columns], k, frame.camera_to_world, columns, rows)


def from_above(poses: np.ndarray) -> np.ndarray:
    """Axes of a view from above, as rows [3, 3]: right, ahead, up.

    poses: [T, 4, 4] camera-to-world; any direction may be up in their world. The view is along the
    normal of the plane that fits the camera path best (least squares), because people move cameras
    parallel to the floor; of its two sides, the one to which the tops of the images point. If the
    path spans no plane (one place, a line, a cloud), up is the mean upward direction of the images.
    """
    centres = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    # Three rows of zeros: the decomposition then has three axes also for one or two cameras.
    _, spread, axes = np.linalg.svd(np.vstack([centres, np.zeros((3, 3))]))
    up = -poses[:, :3, 1].mean(0)
    planar = spread[1] > 0.05 * spread[0] and spread[1] > 3 * spread[2]
    if planar or np.linalg.norm(up) < 1e-6:
        normal = axes[2] * (1 if axes[2] @ up >= 0 else -1)
    else:
        normal = up
    normal = normal / np.linalg.norm(normal)
    # Right is along the path, or else the first direction that does not point upwards.
    flat = [a - normal * (a @ normal) for a in (axes[0], poses[0, :3, 0], *np.eye(3))]
    right = next(a for a in flat if np.linalg.norm(a) > 0.3)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(normal, right), normal])


def id_shares(ids: np.ndarray) -> dict[int, float]:
    """Id -> share of the pixels (0 to 1), most frequent first; -1 is void."""
    values, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(values[i]): counts[i] / ids.size for i in order}
