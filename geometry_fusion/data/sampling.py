"""Which frames make a training clip: continuous, random, or field-of-view aware.

Field-of-view sampling is that of 3AM (arXiv 2601.08831, section 3.4). The first frame of a clip is
the reference, which will be prompted. Frames are listed in tracking order: from the reference
forwards to the end of the sequence, then from the reference backwards to its start.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.geometry.cameras import IN_FRONT_M, back_project, project

SAMPLINGS = ("fov", "random", "continuous")
PIXEL_STRIDE = 3  # every third pixel along each axis is back-projected


def tracking_order(start: int, num_frames: int) -> list[int]:
    """All frames of a sequence in tracking order: from `start` forwards, then backwards."""
    return [*range(start, num_frames), *range(start - 1, -1, -1)]


def share_in_view(
    mask: np.ndarray,  # [H, W] bool
    depth: np.ndarray,  # [H, W] metres, 0 = no measurement
    camera: tuple[np.ndarray, np.ndarray],  # camera-to-world [4, 4] and K [3, 3] of the frame
    reference: tuple[np.ndarray, np.ndarray],  # the same of the reference frame
    reference_size: tuple[int, int],  # width, height
) -> float:
    """Share (0 to 1) of the masked pixels whose points project into the reference camera's image.

    Only pixels with depth count; the result is 0 if there are none. Occlusion is ignored: what
    matters is that the reference camera looks towards the place.
    """
    every = (slice(None, None, PIXEL_STRIDE),) * 2
    rows, columns = np.nonzero(mask[every] & (depth[every] > 0))
    if len(rows):
        rows, columns = rows * PIXEL_STRIDE, columns * PIXEL_STRIDE
    else:  # a small object may lie between the sampled pixels
        rows, columns = np.nonzero(mask & (depth > 0))
        if not len(rows):
            return 0.0
    pose, k = camera
    reference_pose, reference_k = reference
    points = back_project(depth[rows, columns], k, pose, columns, rows)
    u, v, z = project(points, reference_k, reference_pose)
    width, height = reference_size
    inside = (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
    return float((inside & (z > IN_FRONT_M)).mean())


def continuous_frames(
    rng: np.random.Generator,
    order: list[int],  # frames in tracking order
    length: int,  # frames of the clip
    steps: tuple[int, int],  # smallest and largest step, both included
) -> list[int]:
    """The first frame of `order` and the ones that follow it at a constant random step.

    The step is reduced where the sequence is too short for it; the clip has fewer than `length`
    frames only if `order` has.
    """
    longest_step = (len(order) - 1) // max(length - 1, 1)
    step = max(1, min(int(rng.integers(steps[0], steps[1] + 1)), longest_step))
    return order[::step][:length]


def random_frames(rng: np.random.Generator, order: list[int], length: int) -> list[int]:
    """The first frame of `order` and `length` - 1 random others, in tracking order."""
    others = rng.permutation(len(order) - 1)[: length - 1] + 1
    return [order[0], *(order[i] for i in sorted(others))]


def fov_frames(
    rng: np.random.Generator,
    order: list[int],  # frames in tracking order
    length: int,  # frames of the clip
    accepts: Callable[[int], bool],  # whether a frame may be in a clip with this reference
) -> list[int] | None:
    """As `random_frames`, but only frames that `accepts` allows; None if there are too few."""
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
    """The field-of-view rule of 3AM as a predicate over frame indices.

    A frame that shows the object is accepted if more than `tau` (a share, 0 to 1) of the object
    lies in the view of the reference frame. A frame that does not show it is always accepted: such
    frames teach the model to report absence.
    """
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
