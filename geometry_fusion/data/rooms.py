"""Synthetic rooms: textured rooms with twins, filmed by a camera that looks around.

    python -m geometry_fusion.data.rooms --seeds 0:100 --out data/rooms --workers 2

The camera moves, turns away from objects and comes back to them. A room is drawn in three pure
steps from one seed: `draw_layout` (walls, objects, twins), `draw_path` (one camera pose per frame,
clear of objects and walls) and `render_room` (PyBullet's software renderer). Coordinates are
metres, z up, origin at the centre of the floor. Cameras are camera-to-world with OpenCV axes, pixel
centres at integers.

Seeds: train 0..99,999; val 100,000..100,099; test 200,000..200,099. Seeds from 900,000 on are
reserved for judging and must not be rendered for training, tests or tuning.
"""

from geometry_fusion.interrupts import ignored_by_children, watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from geometry_fusion.data.room_layout import (
    DEFAULT_FRAMES,
    DEFAULT_SIZE,
    Layout,
    draw_layout,
    draw_path,
)
from geometry_fusion.data.room_renderer import Renderer
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.io.temporary import sweep

SEED_END = 10_000_000
LIMITS = {"workers": 256, "frames": 10_000, "width": 4096, "height": 4096}  # of the flags


def render_room(
    seed: int,
    num_frames: int = DEFAULT_FRAMES,
    width: int = DEFAULT_SIZE,
    height: int = DEFAULT_SIZE,
) -> Iterator[SceneFrame]:
    """Frames of the room of `seed`, rendered one by one.

    The same seed, number of frames and size (pixels) give the same frames.
    """
    layout = draw_layout(seed, num_frames)
    focal = focal_of(layout, width, height)
    with Renderer(layout) as renderer:
        for index, pose in enumerate(draw_path(seed, layout)):
            yield rendered_frame(renderer, index, pose, width, height, focal)


def focal_of(layout: Layout, width: int, height: int) -> float:
    """Focal length in pixels of pictures of a room."""
    return 0.5 * max(width, height) / np.tan(np.radians(layout.field_of_view_deg) / 2)


def rendered_frame(
    renderer: Renderer,
    index: int,  # of the frame, which names its files
    pose: np.ndarray,  # [4, 4] camera-to-world
    width: int,  # pixels
    height: int,  # pixels
    focal: float,  # pixels
) -> SceneFrame:
    """One picture of a room as it stands."""
    rgb, instance, depth = renderer.render(pose, width, height, focal)
    centre = ((width - 1) / 2, (height - 1) / 2)
    return SceneFrame(f"{index:06d}", rgb, instance, depth, pose, (focal, focal, *centre))


def room_objects(seed: int, num_frames: int = DEFAULT_FRAMES) -> list[SceneObject]:
    """The objects in the room of `seed`; the number of frames changes where they stand."""
    return [SceneObject(o.id, o.kind, o.twin_of) for o in draw_layout(seed, num_frames).objects]


def room_folder(out: Path, seed: int) -> Path:
    """The scene folder of a room."""
    return Path(out) / f"room_{seed:06d}"


def _write_one(job: tuple[int, Path, int, int, int]) -> None:
    """Write one room in a worker process, unless it is there: seed, out, frames, width, height."""
    seed, out, frames, width, height = job
    cv2.setNumThreads(1)
    folder = room_folder(out, seed)
    if not (folder / "scene.json").exists():
        write_scene(folder, render_room(seed, frames, width, height), room_objects(seed, frames))


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
    write_beside(_write_one, jobs, out, workers, frames, "rooms")


def write_beside(
    write_one: Callable[[tuple], None],  # writes the scene of a job in a worker process
    jobs: Sequence[tuple],
    out: Path,  # unfinished scenes in it are removed
    workers: int,  # processes
    frames: int,  # of a scene
    name: str,  # of what is written, beside the progress bar
) -> None:
    """Write scenes in several processes."""
    context = multiprocessing.get_context("spawn")
    progress = tqdm(total=len(jobs) * frames, unit="frame", desc=name)
    # Ctrl-C reaches only this process, which then ends the workers. On their own they would print
    # a traceback each.
    sweep(out)
    with ignored_by_children():
        pool = context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with pool, progress as bar:
        try:
            for _ in pool.imap_unordered(write_one, jobs):
                bar.update(frames)
        except BaseException:
            pool.terminate()
            pool.join()
            sweep(out)  # unfinished rooms of the workers
            raise


def seed_range(text: str) -> range:
    """The range of seeds that "A:B" means, without B. Raises InputError for other texts."""
    first, colon, last = str(text).partition(":")
    if not (
        colon and first.isdecimal() and last.isdecimal() and int(first) < int(last) <= SEED_END
    ):
        raise InputError(
            f"seeds {text!r}: expected A:B with 0 <= A < B <= {SEED_END}, for example 0:100"
        )
    return range(int(first), int(last))


def arguments(argv, prog: str, description: str, folder: str) -> argparse.Namespace:
    """The command line of a world that is rendered; raises InputError for numbers out of range."""
    parser = OneLineParser(prog=prog, description=description)
    parser.add_argument("--seeds", required=True, help="A:B renders seeds A to B-1")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder that receives {folder} folders"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="frames per room")
    parser.add_argument("--width", type=int, default=DEFAULT_SIZE, help="pixels")
    parser.add_argument("--height", type=int, default=DEFAULT_SIZE, help="pixels")
    args = parser.parse_args(argv)
    for name, most in LIMITS.items():
        if not 1 <= getattr(args, name) <= most:
            raise InputError(f"--{name} {getattr(args, name)}: must be 1..{most}")
    return args


def main(argv=None) -> None:
    """Render rooms as scene folders."""
    args = arguments(
        argv,
        "python -m geometry_fusion.data.rooms",
        "Render synthetic rooms as scene folders.",
        "room_SEED",
    )
    write_rooms(
        seed_range(args.seeds), args.out, args.workers, args.frames, args.width, args.height
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
