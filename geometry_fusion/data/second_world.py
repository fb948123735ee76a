"""The second world: rooms of another look than geometry_fusion.data.rooms, for validation only.

    python -m geometry_fusion.data.second_world --seeds 130000:130012 --out data/second_world

Nothing is trained on it. It shares no mesh, texture, layout, camera path or renderer with the rooms
that the tiny models were trained on, so it shows whether they carry over. A room is drawn in pure
steps from one seed: `furnish` (walls, furniture, things, twins, lights), `draw_path` (one camera
pose per frame) and `Renderer` (rays cast by Embree). Coordinates are metres, z up, origin at the
centre of the floor. Cameras are camera-to-world with OpenCV axes, pixel centres at integers. The
pictures of a room have a shape that its seed draws, unless one is given.

Seeds: val 130,000..130,099; test 230,000..230,099. Seeds from 900,000 on are reserved for judging
and are refused.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data import rooms
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.data.second_world_camera import DEFAULT_FRAMES, draw_path
from geometry_fusion.data.second_world_layout import Room, furnish
from geometry_fusion.data.second_world_renderer import Renderer
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError, OneLineParser, run_cli

RESERVED_FROM = 900_000
SHAPES = ((256, 256), (320, 240), (320, 180), (240, 320), (180, 320))  # width, height in pixels
LIMITS = {"workers": 256, "frames": 10_000}  # of the flags
LARGEST_SIDE = 4096  # pixels
ATTEMPTS = 100


def draw_room(seed: int, num_frames: int = DEFAULT_FRAMES) -> tuple[Room, np.ndarray]:
    """The room of `seed` and its camera's poses [T, 4, 4]; the room is the same for every T.

    Raises InputError for reserved seeds, RuntimeError if 100 attempts gave no room for a film.
    """
    _refuse_reserved(seed)
    for attempt in range(ATTEMPTS):
        room = furnish(np.random.default_rng([seed, attempt]))
        poses = room and draw_path([seed, attempt, 1], room, num_frames)
        if poses is not None:
            return room, poses
    raise RuntimeError(f"seed {seed}: no room could be furnished in {ATTEMPTS} attempts")


def shape_of(seed: int) -> tuple[int, int]:
    """Width and height in pixels of the pictures of a room, where no shape is given."""
    return SHAPES[int(np.random.default_rng([seed, 2]).integers(len(SHAPES)))]


def render_room(
    seed: int,
    num_frames: int = DEFAULT_FRAMES,
    shape: tuple[int, int] | None = None,  # width, height in pixels; None: drawn by the seed
) -> Iterator[SceneFrame]:
    """Frames of the room of `seed`, rendered one by one; the same arguments give the same frames.

    A film of N frames is the start of every longer one.
    """
    width, height = shape or shape_of(seed)
    room, poses = draw_room(seed, num_frames)
    # Of the longer side; upright pictures would show too little of a room's width otherwise.
    view = np.radians(np.random.default_rng([seed, 3]).uniform(58, 74) + 5 * (height > width))
    focal = 0.5 * max(width, height) / np.tan(view / 2)
    renderer = Renderer([*room.shell, *room.objects], room.lights, width, height, focal, seed)
    intrinsics = (focal, focal, (width - 1) / 2, (height - 1) / 2)
    for index, pose in enumerate(poses):
        rgb, instance, depth = renderer.render(pose, index)
        yield SceneFrame(f"{index:06d}", rgb, instance, depth, pose, intrinsics)


def room_objects(seed: int) -> list[SceneObject]:
    """The objects in the room of `seed`."""
    room, _ = draw_room(seed, 1)
    return [SceneObject(o.id, o.kind, o.twin_of) for o in room.objects]


def room_folder(out: Path, seed: int) -> Path:
    """The scene folder of a room."""
    return Path(out) / f"second_{seed:06d}"


def _write_one(job: tuple[int, Path, int, tuple[int, int] | None]) -> None:
    """Write one room in a worker process, unless it is there: seed, out, frames, shape."""
    seed, out, frames, shape = job
    cv2.setNumThreads(1)
    folder = room_folder(out, seed)
    if not (folder / "scene.json").exists():
        write_scene(folder, render_room(seed, frames, shape), room_objects(seed))


def write_rooms(
    seeds: range,
    out: Path,
    workers: int = 1,  # processes
    frames: int = DEFAULT_FRAMES,  # per room
    shape: tuple[int, int] | None = None,  # width, height in pixels; None: drawn by the seed
) -> None:
    """Write the rooms of `seeds` as scene folders under `out`; those that exist are kept."""
    jobs = [(seed, out, frames, shape) for seed in seeds]
    rooms.write_beside(_write_one, jobs, out, workers, frames, "second world")


def seed_range(text: str) -> range:
    """The range of seeds that "A:B" means, without B.

    Raises InputError for other texts and for reserved seeds.
    """
    seeds = rooms.seed_range(text)
    _refuse_reserved(seeds[-1])
    return seeds


def _refuse_reserved(seed: int) -> None:
    if seed >= RESERVED_FROM:
        raise InputError(
            f"seed {seed}: those from {RESERVED_FROM} on are reserved; choose lower ones, for "
            "example --seeds 130000:130012"
        )


def picture_shape(text: str) -> tuple[int, int]:
    """Width and height in pixels that "WxH" means. Raises InputError for other texts."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = map(int, match.groups()) if match else (0, 0)
    if not 8 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
        raise InputError(
            f"--shape {text!r}: expected WIDTHxHEIGHT with sides of 8..{LARGEST_SIDE} pixels, for "
            "example 256x256"
        )
    return width, height


def main(argv=None) -> None:
    """Render rooms of the second world as scene folders."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.data.second_world",
        description="Render rooms of the second world, for validation only, as scene folders.",
    )
    parser.add_argument("--seeds", required=True, help="A:B renders seeds A to B-1")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that receives second_SEED folders"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="frames per room")
    parser.add_argument("--shape", help="WIDTHxHEIGHT in pixels; without it, the seed draws one")
    args = parser.parse_args(argv)
    for name, most in LIMITS.items():
        if not 1 <= getattr(args, name) <= most:
            raise InputError(f"--{name} {getattr(args, name)}: must be 1..{most}")
    shape = None if args.shape is None else picture_shape(args.shape)
    write_rooms(seed_range(args.seeds), args.out, args.workers, args.frames, shape)


if __name__ == "__main__":
    sys.exit(run_cli(main))
