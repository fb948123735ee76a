"""A small room whose geometry is known by formula, and writers of it in every layout.

The camera looks at a box in a room with coloured walls, walks past it and turns. Depth is exact at
pixel centres. Nothing here comes from the package but file names.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

W, H, COUNT = 64, 48, 14
FX, FY, CX, CY = 52.0, 50.0, 31.0, 24.5  # pixel centres at integers
K = np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1]])
ROOM = np.array([[-2.0, -1.4, -2.5], [2.0, 1.4, 3.0]])  # metres
BOX = np.array([[-0.4, 0.3, 0.8], [0.5, 1.4, 1.6]])
OPENGL = np.diag([1.0, -1, -1, 1])


def pose_at(step: float) -> np.ndarray:
    """Camera-to-world of the walk; no rotation in it is symmetric."""
    yaw, pitch, roll = 0.5 - 0.075 * step, 0.12 + 0.01 * step, 0.05 * np.sin(step)
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in (yaw, pitch, roll))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    at = (-1.2 + 0.15 * step, -0.3 + 0.02 * step, -1.5 + 0.05 * step)
    return np.vstack([np.column_stack([turn @ tilt @ lean, at]), (0, 0, 0, 1)])


def _first_hits(rays: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """How many ray lengths away the room's walls or the box are."""
    with np.errstate(divide="ignore"):
        walls = np.max((ROOM - origin)[:, :, None] / rays, axis=0).min(0)
        ends = np.sort((BOX - origin)[:, :, None] / rays, axis=0)
    enters, leaves = ends[0].max(0), ends[1].min(0)
    return np.where((enters < leaves) & (enters > 0), enters, walls)


def render(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB uint8 [H, W, 3], z-depth [H, W] and world points [H, W, 3]."""
    u, v = np.meshgrid(np.arange(W), np.arange(H))
    directions = np.stack([(u - CX) / FX, (v - CY) / FY, np.ones((H, W))]).reshape(3, -1)
    rays = pose[:3, :3] @ directions
    depth = _first_hits(rays, pose[:3, 3])
    points = (pose[:3, 3:] + rays * depth).T
    waves = np.sin(points * (3.1, 4.3, 3.7) + np.roll(points, 1, 1) * 2.2)
    rgb = np.rint(127.5 + 120 * waves).astype(np.uint8)
    return rgb.reshape(H, W, 3), depth.reshape(H, W), points.reshape(H, W, 3)


POSES = np.stack([pose_at(step) for step in range(COUNT)])
RENDERED = [render(pose) for pose in POSES]
RGB, DEPTH, POINTS = (np.stack(part) for part in zip(*RENDERED))


@dataclass
class Video:
    """Frames in memory."""

    images: np.ndarray  # [N, H, W, 3] uint8
    stems: list[str]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[1]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]


def stems(first: int = 0) -> list[str]:
    return [f"{n:04d}" for n in range(first, first + COUNT)]


def video(first: int = 0) -> Video:
    return Video(RGB, stems(first))


def arrays(**changes) -> dict:
    """The arrays of our minimal .npz; None leaves one out."""
    held = {"depth": DEPTH.astype(np.float32), "intrinsics": K, "camera_to_world": POSES, **changes}
    return {name: values for name, values in held.items() if values is not None}


def write_npz(folder, name="geometry.npz", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / name, **arrays(**changes))
    return folder


def write_millimetres(file, metres) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(file)


def write_scene(folder):
    cameras = []
    for stem, depth, pose in zip(stems(), DEPTH, POSES):
        write_millimetres(folder / f"depth/{stem}.png", depth)
        size = {"width": W, "height": H}
        own = {"stem": stem, "camera_to_world": pose.tolist(), "fx": FX, "fy": FY}
        cameras.append({**own, "cx": CX, "cy": CY, **size})
    (folder / "cameras.json").write_text(json.dumps({"frames": cameras}))
    return folder


def write_nerfstudio(folder, **changes):
    records = []
    (folder / "images").mkdir(parents=True)
    for stem, rgb, depth, pose in zip(stems(), RGB, DEPTH, POSES):
        Image.fromarray(rgb).save(folder / f"images/frame_{stem}.png")
        write_millimetres(folder / f"depths/{stem}.png", depth)
        named = {"file_path": f"images/frame_{stem}.png", "depth_file_path": f"depths/{stem}.png"}
        records.append({**named, "transform_matrix": (pose @ OPENGL).tolist()})
    meta = {"fl_x": FX, "fl_y": FY, "cx": CX + 0.5, "cy": CY + 0.5, "w": W, "h": H, **changes}
    (folder / "transforms.json").write_text(json.dumps({**meta, "frames": records}))
    return folder


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """qw, qx, qy, qz: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = [
        [a - e - i, b + d, c + g, h - f],
        [b + d, e - a - i, f + h, c - g],
        [c + g, f + h, i - a - e, d - b],
        [h - f, c - g, d - b, a + e + i],
    ]
    x, y, z, w = np.linalg.eigh(np.array(matrix))[1][:, -1]
    return np.array([w, x, y, z])


PINHOLE = ("PINHOLE", 1, (FX, FY, CX + 0.5, CY + 0.5))


def colmap_images(observed=None):
    """(name, world-to-camera quaternion and translation, observed pixels [M, 2], points [M, 3]).

    Without `observed`, every pixel of every frame is a point of its own.
    """
    u, v = np.meshgrid(np.arange(W), np.arange(H))
    everywhere = np.stack([u, v], -1).reshape(-1, 2).astype(float)
    for index, pose in enumerate(POSES):
        inverse = np.linalg.inv(pose)
        own = (everywhere, POINTS[index].reshape(-1, 3)) if observed is None else observed[index]
        yield f"{stems()[index]}.jpg", quaternion_of(inverse[:3, :3]), inverse[:3, 3], *own


def write_colmap(folder, binary: bool, camera=PINHOLE, observed=None):
    folder.mkdir(parents=True, exist_ok=True)
    images = list(colmap_images(observed))
    (_write_binary if binary else _write_text)(folder, camera, images)
    return folder


def _write_text(folder, camera, images) -> None:
    name, _, parameters = camera
    numbers = " ".join(map(repr, parameters))
    (folder / "cameras.txt").write_text(f"# cameras\n1 {name} {W} {H} {numbers}\n")
    lines, points = ["# images"], ["# points"]
    for number, (picture, quaternion, translation, pixels, places) in enumerate(images, 1):
        pose = " ".join(f"{float(x)!r}" for x in (*quaternion, *translation))
        lines.append(f"{number} {pose} 1 {picture}")
        first = len(points)
        entries = enumerate(zip(pixels, places), first)
        lines.append(" ".join(f"{x + 0.5:.4f} {y + 0.5:.4f} {i}" for i, ((x, y), _) in entries))
        for i, (x, y, z) in enumerate(places, first):
            points.append(f"{i} {x:.6f} {y:.6f} {z:.6f} 9 9 9 0.1 {number} {i - first}")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")


def _write_binary(folder, camera, images) -> None:
    _, model, parameters = camera
    header = struct.pack("<QIiQQ", 1, 1, model, W, H)
    (folder / "cameras.bin").write_bytes(header + struct.pack(f"<{len(parameters)}d", *parameters))
    content, points = [struct.pack("<Q", len(images))], []
    for number, (picture, quaternion, translation, pixels, places) in enumerate(images, 1):
        content.append(struct.pack("<I7dI", number, *quaternion, *translation, 1))
        content.append(picture.encode() + b"\0" + struct.pack("<Q", len(pixels) + 1))
        content.append(struct.pack("<2dq", 3.0, 4.0, -1))  # a feature without a point
        first = len(points) + 1
        for i, ((x, y), place) in enumerate(zip(pixels, places), first):
            content.append(struct.pack("<2dq", x + 0.5, y + 0.5, i))
            own = struct.pack("<Q3d3BdQ", i, *place, 9, 9, 9, 0.1, 1)
            points.append(own + struct.pack("<II", number, i - first + 1))
    (folder / "images.bin").write_bytes(b"".join(content))
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(points))
