"""How the camera goes through a room of the second world, and where it looks.

It walks from a first view of one object to a view of its other side, and on. Meanwhile it turns
away to others, its twin among them, and back. A film of N frames is the start of every longer one.
"""

import re
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d

from geometry_fusion.data.second_world_floor import Floor
from geometry_fusion.data.second_world_layout import Placed, Room

DEFAULT_FRAMES = 40
EYE_CLEARANCE_M = 0.25  # smallest distance of the camera from walls and from what stands around
NEAREST_M, FARTHEST_M = 1.0, 2.5  # from the first object, on the floor plan
OTHER_SIDE_DEG = 60.0  # by how much the second view of the first object differs at least
FASTEST_M = 0.26  # between frames
MOST_BARE = 5  # frames of a film that show no object near their middle
MIDDLE_DEG = 24.0  # from the view's axis, what counts as near the middle
TRIES = 4  # walks for each object
SEEN_DEG = 8.0  # how far from the middle an object may be to count as looked at


def draw_path(seeds: Sequence[int], room: Room, num_frames: int) -> np.ndarray | None:
    """Camera-to-world poses [T, 4, 4] with OpenCV axes; None where no good film was found.

    A good film shows its first object, loses it, and comes back to it; it seldom shows bare walls,
    and its camera does not run.
    """
    rng = np.random.default_rng(seeds)
    allowed = room.floor.open_part(EYE_CLEARANCE_M + 0.08)
    paired = [item for item in room.objects if item.twin_of]
    others = [item for item in room.objects if not item.twin_of]
    order = [*rng.permutation(paired), *rng.permutation(others)]
    if rng.random() < 0.3:
        order = list(rng.permutation(room.objects))
    for number, first in enumerate(order * TRIES):
        # A generator of its own: how many draws a film takes depends on its length.
        rng = np.random.default_rng([*seeds, number])
        stops = _stops(rng, room.floor, allowed, first)
        if stops is not None:
            eyes = _walk(rng, room.floor, allowed, stops, max(num_frames, DEFAULT_FRAMES))
            poses = _poses(rng, room, eyes, first)
            if _good(room, poses[:DEFAULT_FRAMES], first):
                return poses[:num_frames]
    return None


def _good(room: Room, poses: np.ndarray, first: Placed) -> bool:
    """Whether a film [T, 4, 4] is one that `draw_path` promises."""
    if np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() > FASTEST_M:
        return False
    shown = np.stack([_shown(room, poses, item) for item in room.objects])
    if (~shown.any(0)).sum() > MOST_BARE:
        return False
    text = "".join("01"[int(value)] for value in shown[first.id - 1])
    return re.search("1{3,}0{4,}1{3,}", text) is not None


def _shown(room: Room, poses: np.ndarray, item: Placed) -> np.ndarray:
    """Whether an object is near the middle of the picture and behind no wall: bool [T]."""
    x, y, z = np.einsum("tji,tj->ti", poses[:, :3, :3], item.middle - poses[:, :3, 3]).T
    reach = np.tan(np.radians(MIDDLE_DEG)) * z
    inside = (z > 0) & (np.abs(x) < reach) & (np.abs(y) < reach)
    return inside & room.floor.sees(np.array(item.position[:2]), poses[:, :2, 3])


def _stops(
    rng: np.random.Generator, floor: Floor, allowed: np.ndarray, first: Placed
) -> np.ndarray | None:
    """Three places [3, 2] that see the object, the second from another side than the first."""
    places = np.column_stack([floor.x[allowed], floor.y[allowed]])
    centre = np.array(first.position[:2])
    away = places - centre
    distance = np.hypot(*away.T)
    places = places[(distance > NEAREST_M) & (distance < FARTHEST_M)]
    places = places[floor.sees(centre, places)] if len(places) else places
    angles = np.arctan2(*(places - centre).T[::-1])
    for _ in range(20 if len(places) else 0):
        start = int(rng.integers(len(places)))
        turned = np.abs((angles - angles[start] + np.pi) % (2 * np.pi) - np.pi)
        across = np.flatnonzero(turned > np.radians(OTHER_SIDE_DEG))
        if len(across):
            chosen = [start, int(rng.choice(across)), int(rng.integers(len(places)))]
            return places[chosen]
    return None


def _walk(
    rng: np.random.Generator,
    floor: Floor,
    allowed: np.ndarray,
    stops: np.ndarray,  # [3, 2] metres
    num_frames: int,
) -> np.ndarray:
    """Eye positions [T, 3] in metres: at the second stop after about 6 of 10 default frames.

    Beyond the default number of frames, the camera walks back and forth.
    """
    legs = [floor.way(stops[index : index + 2], allowed) for index in (0, 1)]
    middle = rng.uniform(0.5, 0.65)
    shares = [np.linspace(0, middle, len(legs[0])), np.linspace(middle, 1, len(legs[1]))]
    times = np.linspace(0, 1, 400)
    share = np.concatenate(shares)
    corners = [np.interp(times, share, axis) for axis in np.concatenate(legs).T]
    for width in (22, 14, 8, 4, 2):  # the smoothest walk that keeps clear of things
        smooth = np.stack([gaussian_filter1d(axis, width, mode="nearest") for axis in corners], -1)
        if (floor.clearance()[floor.cell(*smooth.T)] > EYE_CLEARANCE_M + 0.04).all():
            break
    high, sway, phase = rng.uniform(1.25, 1.65), rng.uniform(0.02, 0.15), rng.uniform(0, 6)
    height = high + sway * np.sin(times * rng.uniform(3, 9) + phase)
    at = np.arange(num_frames) / (DEFAULT_FRAMES - 1)
    at = np.abs((at + 1) % 2 - 1)  # there and back
    return np.stack([np.interp(at, times, axis) for axis in (*smooth.T, height)], -1)


def _poses(rng: np.random.Generator, room: Room, eyes: np.ndarray, first: Placed) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4] at the eyes [T, 3]: looks at `first`, away, and back."""
    fastest = np.radians(rng.uniform(7.0, 10.0))  # a frame, without the hand's shaking
    shaking = _shaking(rng, len(eyes))
    target, waiting = first, int(rng.integers(3, 6))
    seen = {first.id}
    yaw, pitch = _aim(eyes[0], first)
    yaw += rng.uniform(-0.25, 0.25)
    turn = tilt = 0.0  # radians a frame
    poses = np.tile(np.eye(4), (len(eyes), 1, 1))
    for t, eye in enumerate(eyes):
        wanted_yaw, wanted_pitch = _aim(eye, target)
        left = (wanted_yaw - yaw + np.pi) % (2 * np.pi) - np.pi
        wanted_turn = np.clip(0.45 * left, turn - 0.6 * fastest, turn + 0.6 * fastest)
        turn = np.clip(wanted_turn, -fastest, fastest)
        tilt = 0.5 * tilt + 0.2 * (wanted_pitch - pitch)
        yaw, pitch = yaw + turn, pitch + np.clip(tilt, -0.07, 0.07)
        dyaw, dpitch, roll = shaking[t]
        poses[t, :3, :3] = _rotation(yaw + dyaw, pitch + dpitch, roll)
        poses[t, :3, 3] = eye
        waiting -= abs(left) < np.radians(SEEN_DEG)
        if waiting <= 0:
            target = _next(rng, room, eye, first, seen) if target is first else first
            seen.add(target.id)
            waiting = int(rng.integers(2, 5))
    return poses


def _next(
    rng: np.random.Generator, room: Room, eye: np.ndarray, first: Placed, seen: set[int]
) -> Placed:
    """What to look at after `first`: something in another direction, its twin before others."""
    facing = _aim(eye, first)[0]
    others = [item for item in room.objects if item.id != first.id]
    angles = np.array([_aim(eye, item)[0] for item in others])
    apart = np.degrees(np.abs((angles - facing + np.pi) % (2 * np.pi) - np.pi))
    far = (apart > 65) & (apart < 125)  # farther ones take too many frames
    if not far.any():
        return others[int(apart.argmax())]
    open_view = room.floor.sees(eye[:2], np.array([item.position[:2] for item in others]))
    fresh = np.array([item.id not in seen for item in others])
    twin = np.array([item.id == first.twin_of for item in others])
    rank = 4.0 * (twin & fresh) + 2.0 * fresh + open_view + 1 + 0.9 * rng.random(len(others))
    return others[int((far * rank).argmax())]


def _aim(eye: np.ndarray, item: Placed) -> tuple[float, float]:
    """Yaw and pitch in radians from an eye [3] to the middle of an object; pitch is limited."""
    x, y, z = item.middle - eye
    pitch = np.arctan2(z, np.hypot(x, y))
    return float(np.arctan2(y, x)), float(np.clip(pitch, np.radians(-36), np.radians(4)))


def _shaking(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Small turns [T, 3] of a hand: yaw, pitch and roll in radians."""
    frames = np.arange(num_frames)[:, None]
    total = np.zeros((num_frames, 3))
    for slowness in (2.7, 6.0, 15.0):
        phase, speed = rng.uniform(0, 6.3, 3), rng.uniform(0.8, 1.2, 3) / slowness
        total += np.sin(frames * speed + phase) * np.array((0.004, 0.005, 0.012))
    return total * rng.uniform(0.5, 1.6)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world rotation [3, 3]; its columns point right, down and forward."""
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    turned_right = np.cos(roll) * right + np.sin(roll) * down
    return np.stack([turned_right, np.cross(forward, turned_right), forward], 1)
