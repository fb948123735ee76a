"""Rooms with moving objects, for validation and test of the dynamic fallback.

    python -m geometry_fusion.data.moving_rooms --seeds 120000:120004 --out data/moving_rooms

A room is a still room (geometry_fusion/data/rooms.py) in which three or four objects move, see
geometry_fusion/data/room_motion.py. Its scene folder holds `motion.json` as well.

Seeds: val 120,000..120,999; test 220,000..220,999. Those from 900,000 on are reserved.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2

from geometry_fusion.data import rooms
from geometry_fusion.data.room_layout import DEFAULT_FRAMES, DEFAULT_SIZE
from geometry_fusion.data.room_motion import FRAME_RATE, MovingRoom, draw_moving_room
from geometry_fusion.data.room_renderer import Renderer
from geometry_fusion.data.rooms import seed_range as seed_range  # this world's, see worlds.py
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import run_cli


def render_room(
    seed: int,
    num_frames: int = DEFAULT_FRAMES,
    width: int = DEFAULT_SIZE,
    height: int = DEFAULT_SIZE,
) -> Iterator[SceneFrame]:
    """Frames of the room of `seed`; the same number of frames and size give the same frames."""
    yield from _render(draw_moving_room(seed, num_frames), width, height)


def _render(room: MovingRoom, width: int, height: int) -> Iterator[SceneFrame]:
    focal = rooms.focal_of(room.layout, width, height)
    with Renderer(room.layout) as renderer:
        for index, pose in enumerate(room.camera_to_world):
            for body, poses in enumerate(room.body_to_world):
                renderer.place(body, poses[index])
            yield rooms.rendered_frame(renderer, index, pose, width, height, focal)


def room_objects(seed: int, num_frames: int = DEFAULT_FRAMES) -> list[SceneObject]:
    """The objects in the room of `seed`: those of the still room."""
    return rooms.room_objects(seed, num_frames)


def room_folder(out: Path, seed: int) -> Path:
    """The scene folder of a room."""
    return Path(out) / f"moving_{seed:06d}"


def _write_one(job: tuple[int, Path, int, int, int]) -> None:
    """Write one room in a worker process, unless it is there: seed, out, frames, width, height."""
    seed, out, frames, width, height = job
    cv2.setNumThreads(1)
    folder = room_folder(out, seed)
    if not (folder / "scene.json").exists():
        room = draw_moving_room(seed, frames)
        pictures = _render(room, width, height)
        write_scene(folder, pictures, room_objects(seed, frames), room.motions, FRAME_RATE)


def write_rooms(
    seeds: range,
    out: Path,
    workers: int = 1,  # processes
    frames: int = DEFAULT_FRAMES,  # per room
    width: int = DEFAULT_SIZE,  # pixels
    height: int = DEFAULT_SIZE,  # pixels
) -> None:
    """Write the rooms of `seeds` as scene folders under `out`; those that exist are kept."""
    jobs = [(seed, out, frames, width, height) for seed in seeds]
    rooms.write_beside(_write_one, jobs, out, workers, frames, "moving rooms")


def main(argv=None) -> None:
    """Render rooms with moving objects as scene folders."""
    args = rooms.arguments(
        argv,
        "python -m geometry_fusion.data.moving_rooms",
        "Render synthetic rooms with moving objects as scene folders.",
        "moving_SEED",
    )
    write_rooms(
        seed_range(args.seeds), args.out, args.workers, args.frames, args.width, args.height
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
