"""Synthetic rooms: textured rooms with twins, filmed by a camera that walks, turns away and comes
back.

    python -m geometry_fusion.data.rooms --seeds 0:100 --out data/rooms --workers 2

A room is drawn in three pure steps from one seed: `draw_layout` (walls, objects, twins),
`draw_path` (one camera pose per frame, clear of objects and walls) and `render_room` (PyBullet's
software renderer). Coordinates are metres, z up, origin at the centre of the floor; cameras are
camera-to-world with OpenCV axes, pixel centres at integers.

Seeds: train 0..99,999; val 100,000..100,099; test 200,000..200,099. Seeds from 900,000 on are
reserved for judging and must not be rendered for training, tests or tuning.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import CubicSpline
from tqdm import tqdm

from geometry_fusion.data import meshes, textures
from geometry_fusion.data.scenes import SceneFrame, SceneObject, write_scene
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.interrupts import ignored_by_children
from geometry_fusion.mask_files import write_rgb
from geometry_fusion.temporary import sweep, working_folder

NEAR_M, FAR_M = 0.05, 30.0
EYE_CLEARANCE_M = (
    0.4  # smallest distance from the camera to an object's bounding circle and to a wall
)
MAX_TURN_DEG = 11.0  # largest yaw step between frames
DEFAULT_FRAMES, DEFAULT_SIZE = 60, 256
SEED_END = 10_000_000
LIMITS = {"workers": 256, "frames": 10_000, "width": 4096, "height": 4096}


@dataclass(frozen=True)
class PlacedObject:
    id: int
    kind: str
    twin_of: int | None  # id of the object with the same mesh and texture, None if it has no twin
    mesh: meshes.Mesh
    texture: np.ndarray  # [256, 256, 3] uint8
    position: tuple[float, float]
    yaw: float  # radians
    radius: float


@dataclass(frozen=True)
class Layout:
    size: tuple[float, float, float]  # metres along x, y, z
    objects: tuple[PlacedObject, ...]
    walk: np.ndarray  # [T, 3] camera positions
    surfaces: tuple[np.ndarray, ...]  # textures of floor, ceiling and four walls
    light: tuple[float, float, float]
    field_of_view_deg: float


def draw_walk(rng: np.random.Generator, room_size, num_frames: int) -> np.ndarray:
    """Camera positions [T, 3]: part of a loop around the room's centre, wobbling in radius and
    height.
    """
    start, span = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * np.radians(rng.uniform(100, 350))
    if rng.random() < 0.2:
        span *= 0.2  # stands almost still and looks around
    knots = np.linspace(0, 1, 6)
    fraction = CubicSpline(knots, rng.uniform(0.17, 0.27, 6))
    height = CubicSpline(knots, rng.uniform(1.25, 1.75, 6))
    t = np.linspace(0, 1, num_frames)
    angle = start + span * t
    x, y = room_size[0] * fraction(t) * np.cos(angle), room_size[1] * fraction(t) * np.sin(angle)
    return np.stack([x, y, height(t)], -1)


def _free_spot(rng, room_size, radius, walk, placed, apart_from=None) -> tuple[float, float] | None:
    for _ in range(200):
        x, y = (rng.uniform(-1, 1) * (s / 2 - radius - 0.05) for s in room_size[:2])
        if np.hypot(walk[:, 0] - x, walk[:, 1] - y).min() < radius + EYE_CLEARANCE_M:
            continue
        if any(
            np.hypot(o.position[0] - x, o.position[1] - y) < radius + o.radius + 0.15
            for o in placed
        ):
            continue
        if apart_from and np.hypot(apart_from[0] - x, apart_from[1] - y) < 0.3 * max(room_size):
            continue
        return x, y
    return None


def draw_layout(seed: int, num_frames: int = DEFAULT_FRAMES) -> Layout:
    """A room of `seed` with 8 to 14 objects, two or three of them with an identical twin."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        size = (*rng.uniform(5.5, 8.0, 2), rng.uniform(2.6, 3.2))
        walk = draw_walk(rng, size, num_frames)
        placed: list[PlacedObject] = []
        pairs, singles = int(rng.integers(2, 4)), int(rng.integers(4, 9))
        for index in range(pairs + singles):
            kind = str(rng.choice(list(meshes.PART_KINDS)))
            mesh = meshes.PART_KINDS[kind](rng)
            atlas = np.block([[[textures.texture(rng)] for _ in range(2)] for _ in range(2)])
            first = None
            for _ in range(2 if index < pairs else 1):
                apart = first.position if first else None
                spot = _free_spot(rng, size, mesh.radius, walk, placed, apart)
                if spot is None:
                    break
                new_id = len(placed) + 1
                twin = first.id if first else None
                item = PlacedObject(
                    new_id, kind, twin, mesh, atlas, spot, rng.uniform(0, 2 * np.pi), mesh.radius
                )
                if first:
                    placed[-1] = PlacedObject(**{**vars(first), "twin_of": new_id})
                placed.append(item)
                first = item
        if 8 <= len(placed) <= 14 and any(o.twin_of for o in placed):
            flat = [textures.texture(rng, 256, vivid=False) for _ in range(2)]
            walls = [textures.poster_wall(rng, 768, 320) for _ in range(4)]
            light = (*rng.uniform(-1.2, 1.2, 2), 2.5)
            return Layout(size, tuple(placed), walk, (*flat, *walls), light, rng.uniform(62, 75))
    raise RuntimeError(f"seed {seed}: no room could be furnished in 100 attempts")


def draw_path(seed: int, layout: Layout) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4]: looks at an object, turns to others, comes back to the
    first.
    """
    rng = np.random.default_rng([seed, 1_000_003])
    num_frames = len(layout.walk)
    with_twin = [o for o in layout.objects if o.twin_of]
    first = rng.choice(with_twin if rng.random() < 0.6 else layout.objects)
    others = list(rng.permutation([o for o in layout.objects if o.id != first.id]))
    if first.twin_of and rng.random() < 0.5:
        others.insert(int(rng.integers(0, 2)), layout.objects[first.twin_of - 1])
    targets = [first, others[0], others[1], first, others[2], first]
    holds = np.cumsum(rng.uniform(0.7, 1.3, len(targets)))
    schedule = np.searchsorted(holds / holds[-1], np.linspace(0, 0.999, num_frames))

    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    yaw = pitch = None
    turn = tilt = 0.0
    for t, eye in enumerate(layout.walk):
        target = targets[schedule[t]]
        look = np.array([*target.position, 0.55 * target.mesh.height]) - eye
        wanted_yaw, wanted_pitch = (
            np.arctan2(look[1], look[0]),
            np.arctan2(look[2], np.hypot(look[0], look[1])),
        )
        wanted_pitch = np.clip(wanted_pitch, np.radians(-32), np.radians(4))
        if yaw is None:
            yaw, pitch = wanted_yaw + rng.uniform(-0.3, 0.3), wanted_pitch
        limit = np.radians(MAX_TURN_DEG)
        difference = (wanted_yaw - yaw + np.pi) % (2 * np.pi) - np.pi
        turn = np.clip(0.5 * turn + 0.25 * difference, -limit, limit)
        tilt = 0.5 * tilt + 0.25 * (wanted_pitch - pitch)
        yaw, pitch = yaw + turn, pitch + np.clip(tilt, -limit / 2, limit / 2)
        forward = np.array(
            [np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)]
        )
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        poses[t, :3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        poses[t, :3, 3] = eye
    return poses


class _Renderer:
    """One PyBullet world holding one room. Use as a context manager."""

    def __init__(self, layout: Layout):
        import pybullet  # Only rendering needs it: datasets are read without.

        self._p = pybullet
        self._layout = layout

    def __enter__(self):
        with ExitStack() as stack:
            self._client = self._p.connect(self._p.DIRECT)
            stack.callback(self._p.disconnect, self._client)
            self._folder = stack.enter_context(working_folder("3am-textures"))
            self._fill()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def _add(
        self, mesh: meshes.Mesh, image: np.ndarray, position=(0, 0, 0), yaw: float = 0.0
    ) -> int:
        p = self._p
        shape = p.createVisualShape(
            p.GEOM_MESH,
            vertices=mesh.vertices.tolist(),
            indices=mesh.faces.reshape(-1).tolist(),
            normals=mesh.normals.tolist(),
            uvs=mesh.uvs.tolist(),
            physicsClientId=self._client,
        )
        turn = (0, 0, np.sin(yaw / 2), np.cos(yaw / 2))
        body = p.createMultiBody(0, -1, shape, position, turn, physicsClientId=self._client)
        file = self._folder / f"{body}.png"
        write_rgb(file, image)
        texture_id = p.loadTexture(str(file), physicsClientId=self._client)
        p.changeVisualShape(
            body,
            -1,
            textureUniqueId=texture_id,
            rgbaColor=(1, 1, 1, 1),
            physicsClientId=self._client,
        )
        return body

    def _fill(self):
        layout = self._layout
        x, y, z = np.array(layout.size) / (2, 2, 1)
        corners = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
        for surface in (0, 1):
            up = 1.0 if surface == 0 else -1.0
            order = corners if surface == 0 else corners[::-1]
            vertices = np.column_stack([order, np.full(4, surface * z)])
            self._quad(vertices, (0, 0, up), layout.surfaces[surface], order / 2.5)
        for side in range(4):
            # Seen from inside, the wall runs from corner b to corner a.
            a, b = corners[side], corners[(side + 1) % 4]
            vertices = np.array([(*b, 0), (*a, 0), (*a, z), (*b, z)])
            inward = -(a + b) / np.linalg.norm(a + b)
            self._quad(
                vertices,
                (*inward, 0),
                layout.surfaces[2 + side],
                np.array([(0, 1), (1, 1), (1, 0), (0, 0)]),
            )
        bodies = {
            self._add(o.mesh, o.texture, (*o.position, 0), o.yaw): o.id for o in layout.objects
        }
        self._id_of_body = np.zeros(
            max(bodies) + 2, np.uint16
        )  # the last entry serves body -1, the background
        for body, object_id in bodies.items():
            self._id_of_body[body] = object_id

    def _quad(self, vertices, normal, image, uvs):
        mesh = meshes.Mesh(
            vertices,
            np.tile(normal, (4, 1)),
            np.asarray(uvs, float),
            np.array([(0, 1, 2), (0, 2, 3)]),
        )
        self._add(mesh, image)

    def render(self, camera_to_world: np.ndarray, width: int, height: int, focal: float) -> tuple:
        """RGB [H, W, 3] uint8, ids [H, W] uint16, z-depth [H, W] metres of one pose."""
        flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenCV camera to OpenGL camera
        view = np.linalg.inv(camera_to_world @ flip).T.reshape(-1).tolist()
        sharp, buffer, bodies = self._raw(view, width, height, focal, shift=0.0)
        # Two colour samples half a pixel apart soften edges at half the cost of 2 x 2; ids and
        # depth stay exact.
        shifted, _, _ = self._raw(view, width, height, focal, shift=0.5)
        rgb = cv2.addWeighted(sharp, 0.5, shifted, 0.5, 0)
        depth = FAR_M * NEAR_M / (FAR_M - (FAR_M - NEAR_M) * buffer)
        return rgb, self._id_of_body[bodies], depth

    def _raw(self, view, width, height, focal, shift):
        p = self._p
        # TinyRenderer samples at integers and counts rows from the bottom: its principal point is
        # (W/2, H/2 - 1). The off-centre terms move it to ((W-1)/2, (H-1)/2), and the samples by
        # `shift` pixels right and down.
        x, y = (1 + 2 * shift) / width, (1 - 2 * shift) / height
        projection = [2 * focal / width, 0, 0, 0, 0, 2 * focal / height, 0, 0, x, y]
        projection += [
            -(FAR_M + NEAR_M) / (FAR_M - NEAR_M),
            -1,
            0,
            0,
            -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M),
            0,
        ]
        *_, rgba, depth, bodies = p.getCameraImage(
            width,
            height,
            view,
            projection,
            shadow=1,
            lightDirection=self._layout.light,
            lightDistance=8,
            lightAmbientCoeff=0.62,
            lightDiffuseCoeff=0.42,
            lightSpecularCoeff=0.0,
            renderer=p.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        shape = (height, width)
        return (
            rgba.reshape(*shape, 4)[..., :3].astype(np.uint8),
            depth.reshape(shape),
            bodies.reshape(shape),
        )


def render_room(
    seed: int,
    num_frames: int = DEFAULT_FRAMES,
    width: int = DEFAULT_SIZE,
    height: int = DEFAULT_SIZE,
) -> Iterator[SceneFrame]:
    """Frames of the room of `seed`, rendered one by one; the same seed and sizes give the same
    frames.
    """
    layout = draw_layout(seed, num_frames)
    focal = 0.5 * max(width, height) / np.tan(np.radians(layout.field_of_view_deg) / 2)
    with _Renderer(layout) as renderer:
        for index, pose in enumerate(draw_path(seed, layout)):
            rgb, instance, depth = renderer.render(pose, width, height, focal)
            centre = ((width - 1) / 2, (height - 1) / 2)
            yield SceneFrame(f"{index:06d}", rgb, instance, depth, pose, (focal, focal, *centre))


def room_objects(seed: int, num_frames: int = DEFAULT_FRAMES) -> list[SceneObject]:
    """What stands in the room of `seed`."""
    return [SceneObject(o.id, o.kind, o.twin_of) for o in draw_layout(seed, num_frames).objects]


def room_folder(out: Path, seed: int) -> Path:
    return Path(out) / f"room_{seed:06d}"


def _write_one(job) -> int:
    seed, out, frames, width, height = job
    cv2.setNumThreads(1)
    folder = room_folder(out, seed)
    if not (folder / "scene.json").exists():
        write_scene(folder, render_room(seed, frames, width, height), room_objects(seed, frames))
    return seed


def write_rooms(
    seeds: range,
    out: Path,
    workers: int = 1,
    frames=DEFAULT_FRAMES,
    width=DEFAULT_SIZE,
    height=DEFAULT_SIZE,
):
    """Write the rooms of `seeds` as scene folders under `out`; rooms that are already there are
    kept.
    """
    jobs = [(seed, out, frames, width, height) for seed in seeds]
    context = multiprocessing.get_context("spawn")
    progress = tqdm(total=len(jobs) * frames, unit="frame", desc="rooms")
    # Ctrl-C reaches only this process, which then ends the others: they would die in the middle of
    # a traceback.
    sweep(out)
    with ignored_by_children():
        pool = context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with pool, progress as bar:
        try:
            for _ in pool.imap_unordered(_write_one, jobs):
                bar.update(frames)
        except BaseException:
            pool.terminate()
            pool.join()
            sweep(out)  # what the workers were at
            raise


def seed_range(text: str) -> range:
    """ "A:B" -> range(A, B), for command lines and configs."""
    first, colon, last = str(text).partition(":")
    if not (
        colon and first.isdecimal() and last.isdecimal() and int(first) < int(last) <= SEED_END
    ):
        raise InputError(
            f"seeds {text!r}: expected A:B with 0 <= A < B <= {SEED_END}, for example 0:100"
        )
    return range(int(first), int(last))


def main(argv=None):
    parser = OneLineParser(
        prog="python -m geometry_fusion.data.rooms",
        description="Render synthetic rooms as scene folders.",
    )
    parser.add_argument("--seeds", required=True, help="A:B renders seeds A to B-1")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that receives room_SEED folders"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="frames per room")
    parser.add_argument("--width", type=int, default=DEFAULT_SIZE, help="pixels")
    parser.add_argument("--height", type=int, default=DEFAULT_SIZE, help="pixels")
    args = parser.parse_args(argv)
    for name, most in LIMITS.items():
        if not 1 <= getattr(args, name) <= most:
            raise InputError(f"--{name} {getattr(args, name)}: must be 1..{most}")
    write_rooms(
        seed_range(args.seeds), args.out, args.workers, args.frames, args.width, args.height
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
