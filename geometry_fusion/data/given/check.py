"""The checks that given geometry passes before it is used, on a few of its frames.

Cameras and depth maps fit the frames; points of one frame lie where other frames see them
(`consistency`; the likely mistake is named, `mistakes`); and frames look as the geometry of their
number says (`order`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from geometry_fusion.data.given.consistency import Agreement, Probe, agreement, probe_of
from geometry_fusion.data.given.mistakes import find_mistake
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import rotation_angle
from geometry_fusion.geometry.posed_depth import PosedView

ANCHORS = 5  # places of a video around which frames are tested
LEAST_SHARE = 0.8  # of points that agree, below which geometry is refused
OFF_CENTRE = 0.25  # largest distance of a principal point from the middle, of a side
SHAPE_TOLERANCE = 0.05  # relative; models resize pictures to multiples of 14 pixels
STILL_TURN = np.radians(1.0)
STILL_SHARE = 0.01  # of the median depth, that a camera which stands still may move


@dataclass(frozen=True)
class CheckedFrames:
    """Frames of the video that were tested, and with what result."""

    frames: list[int]
    views: list[PosedView]
    agreement: Agreement
    stands_still: bool
    known_share: float  # of the pixels of the tested frames, 0..1


def frames_to_check(frames: Sequence[int]) -> list[int]:
    """Some of the frames, sorted: a few places of the video, and near each some frames later."""
    count = len(frames)
    gap = int(np.clip(count // 30, 1, 10))
    starts = np.linspace(0, max(0, count - 1 - 3 * gap), ANCHORS).astype(int)
    places = {min(count - 1, int(start) + later) for start in starts for later in (0, gap, 3 * gap)}
    return [frames[place] for place in sorted(places)]


def check_fits(view: PosedView, size: tuple[int, int], where: str) -> None:
    """Raise InputError unless a view's depth map and lens can be those of frames of `size`."""
    width, height = view.picture_size
    if abs(width * size[1] / (height * size[0]) - 1) > SHAPE_TOLERANCE:
        raise InputError(
            f"{where}: is for pictures of {width}x{height}, the frames are {size[0]}x{size[1]}: "
            "turned, cropped or padded; give geometry of whole frames"
        )
    middle = principal_point(view)
    if (np.abs((middle + 0.5) / (width, height) - 0.5) > OFF_CENTRE).any():
        factor = width / (2 * middle[0] + 1)
        raise InputError(
            f"{where}: the principal point {middle[0]:.0f},{middle[1]:.0f} is not near the middle "
            f"of the depth map's {width}x{height}; intrinsics are in pixels of the depth map: "
            f"scale them by {factor:.3g}"
        )


def principal_point(view: PosedView) -> np.ndarray:
    """[2] x, y in pixels of the picture that the view is for, centres at integers."""
    scale = np.divide(view.picture_size, view.depth.shape[::-1])
    return (view.lens.k[:2, 2] + 0.5) * scale - 0.5


def check_agrees(
    where: str, frames: Sequence[int], view_of: Callable[[int], PosedView | None]
) -> CheckedFrames:
    """Test the frames that have geometry. Raises InputError where it contradicts itself.

    frames: all frames of the video with geometry, sorted; view_of: the view of one of them.
    """
    chosen = [(frame, view_of(frame)) for frame in frames_to_check(frames)]
    probes: list[Probe] = []
    tested: list[int] = []
    known = []
    for frame, view in chosen:
        probe = None if view is None else probe_of(view, frame)
        known.append(0.0 if view is None else float((view.sureness() > 0).mean()))
        if probe is not None:
            probes.append(probe)
            tested.append(frame)
    if not probes:
        raise InputError(f"{where}: none of {len(chosen)} frames that were looked at has any depth")
    poses = [probe.view.camera_to_world for probe in probes]
    pairs = list(permutations(range(len(probes)), 2))
    measured = agreement(probes, poses, pairs)
    mistake = find_mistake(probes, poses, pairs, measured, _neighbours(frames, tested, view_of))
    if mistake:
        compared = _compared(measured, mistake.reached)
        raise InputError(
            f"{where}: contradicts itself: {compared} {mistake.reading}; {mistake.cure}"
        )
    if measured.is_judged and measured.share < LEAST_SHARE:
        raise InputError(
            f"{where}: contradicts itself: {_percent(measured)}, at least {LEAST_SHARE:.0%} are "
            "needed, and no usual mistake explains it (poses inverted, OpenGL axes, other units, "
            "1/depth, other order); check poses and depth against each other"
        )
    views = [probe.view for probe in probes]
    still = _stands_still(probes, poses)
    return CheckedFrames(tested, views, measured, still, float(np.mean(known)))


def _compared(given: Agreement, other: Agreement) -> str:
    """Given geometry and another reading of it, by the number in which they differ most."""
    if not given.is_judged or other.share - given.share > 0.02:
        return f"{_percent(given)}, but {other.share:.0%}"
    if given.miss > 2 * other.miss:
        return (
            f"depths of points that two frames see differ by {given.miss:.1%}, but by "
            f"{other.miss:.1%}"
        )
    more = other.agreeing / given.agreeing
    return f"{_percent(given)}, but {more:.1f} times as many points are seen by several frames"


def _percent(measured: Agreement) -> str:
    if not measured.is_judged:
        return "its frames look past each other"
    return f"{measured.share:.0%} of the points that a frame sees lie where other frames see them"


def _neighbours(
    frames: Sequence[int], tested: Sequence[int], view_of: Callable[[int], PosedView | None]
) -> Callable[[int], list[np.ndarray] | None]:
    place_of = {frame: place for place, frame in enumerate(frames)}

    def poses_at(places: int) -> list[np.ndarray] | None:
        poses = []
        for frame in tested:
            own = place_of[frame]
            place = own + places if places else len(frames) - 1 - own
            # At an end of the video the next place is the last one that there is.
            view = view_of(frames[min(max(place, 0), len(frames) - 1)])
            if view is None:
                return None
            poses.append(view.camera_to_world)
        return poses

    return poses_at


def _stands_still(probes: Sequence[Probe], poses: Sequence[np.ndarray]) -> bool:
    depth = float(np.median(np.concatenate([probe.depths for probe in probes])))
    stacked = np.stack(poses)
    moved = np.linalg.norm(stacked[:, :3, 3] - stacked[0, :3, 3], axis=1).max()
    turned = rotation_angle(stacked, stacked[:1]).max()
    return bool(moved < STILL_SHARE * depth and turned < STILL_TURN)
