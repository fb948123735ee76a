"""Which frames make a training clip: continuous, random, or field-of-view aware (3AM, arXiv
2601.08831, section 3.4).

The first frame of a clip is the reference, the one that will be prompted. Frames are listed in
tracking order: from the reference forwards to the end of the walk, then backwards from it.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.data.scenes import Scene

SAMPLINGS = ("fov", "random", "continuous")
PIXEL_STRIDE = 3  # every third masked pixel per axis is back-projected


def tracking_order(start: int, num_frames: int) -> list[int]:
    """Frames of a walk in the order in which tracking from `start` meets them."""
    return [*range(start, num_frames), *range(start - 1, -1, -1)]


def share_in_view(
    mask: np.ndarray,  # [H, W] bool
    depth: np.ndarray,  # [H, W] metres, 0 = no measurement
    camera: tuple[np.ndarray, np.ndarray],  # camera-to-world [4, 4] and K [3, 3] of the frame
    reference: tuple[np.ndarray, np.ndarray],  # the same of the reference frame
    reference_size: tuple[int, int],  # width, height
) -> float:
    """Share of the masked pixels with depth whose points fall inside the reference camera's image,
    in front of it.

    0 if no masked pixel has depth. Occlusion does not count: the reference camera looks towards the
    place.
    """
    every = (slice(None, None, PIXEL_STRIDE),) * 2
    rows, columns = np.nonzero(mask[every] & (depth[every] > 0))
    if not len(rows):
        rows, columns = np.nonzero(mask & (depth > 0))
        if not len(rows):
            return 0.0
    else:
        rows, columns = rows * PIXEL_STRIDE, columns * PIXEL_STRIDE
    (pose, k), (reference_pose, reference_k) = camera, reference
    rays = np.linalg.inv(k) @ np.stack([columns, rows, np.ones_like(rows)])
    world = pose[:3, :3] @ (rays * depth[rows, columns]) + pose[:3, 3:]
    seen = np.linalg.inv(reference_pose)
    local = seen[:3, :3] @ world + seen[:3, 3:]
    x, y, z = reference_k @ local
    in_front = z > 1e-6
    z = np.where(in_front, z, 1.0)
    width, height = reference_size
    inside = (x / z >= -0.5) & (x / z < width - 0.5) & (y / z >= -0.5) & (y / z < height - 0.5)
    return float((inside & in_front).mean())


def continuous_frames(
    rng: np.random.Generator, order: list[int], length: int, steps: tuple[int, int]
) -> list[int]:
    """The first frame of `order` and the following ones, an equal steps[0]..steps[1] apart (less
    where it is short).
    """
    step = max(
        1, min(int(rng.integers(steps[0], steps[1] + 1)), (len(order) - 1) // max(length - 1, 1))
    )
    return order[::step][:length]


def random_frames(rng: np.random.Generator, order: list[int], length: int) -> list[int]:
    """The first frame of `order` and `length` - 1 others, in its order."""
    others = rng.permutation(len(order) - 1)[: length - 1] + 1
    return [order[0], *(order[i] for i in sorted(others))]


def fov_frames(
    rng: np.random.Generator,
    order: list[int],
    length: int,
    accepts: Callable[[int], bool],  # whether a frame may be in a clip with this reference
) -> list[int] | None:
    """As `random_frames`, of those that `accepts` lets pass; None if they are too few."""
    chosen = []
    for position in rng.permutation(len(order) - 1) + 1:
        if accepts(order[position]):
            chosen.append(position)
            if len(chosen) == length - 1:
                return [order[0], *(order[i] for i in sorted(chosen))]
    return None


def accepted_by_view(
    scene: Scene, reference: int, object_id: int, tau: float
) -> Callable[[int], bool]:
    """The field-of-view rule: a frame that shows the object passes if more than `tau` of it lies in
    the reference's view; a frame that does not show it passes, it teaches absence."""
    size = scene.rgb(reference).shape[1::-1]

    def accepts(frame: int) -> bool:
        if object_id >= scene.areas.shape[1] or not scene.areas[frame, object_id]:
            return True
        mask = scene.instance(frame) == object_id
        view = share_in_view(
            mask, scene.depth(frame), scene.camera(frame), scene.camera(reference), size
        )
        return view > tau

    return accepts
