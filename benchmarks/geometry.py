"""How good is the geometry? Streams rooms that no network was trained on, with known geometry.

    python benchmarks/geometry.py [--seeds 100000:100020] [--must3r tiny] [--out FILE.json]

Per frame, relative to the mean distance of the sequence's points (prediction and ground truth each
divided by their own):

* local: error of the points in the frame's own camera axes;
* global: error of the points in the axes of the reference frame;
* constant: the same errors of the best constant pointmap (the median of the ground truth over all
  frames) at the identity pose;
* centre: error of the camera centre after aligning the whole trajectory by a similarity (Umeyama,
  "Least-squares estimation of transformation parameters between two point patterns", 1991);
* rotation: error of the camera's rotation in degrees. Centre and rotation are those that were
  answered when the frame came.

The table groups frames by the angle between their viewing direction and that of the first frame.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository's package

from geometry_fusion.data.rooms import room_folder, seed_range, write_rooms
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import OneLineParser, run_cli
from geometry_fusion.geometry.cameras import directions_of, rotation_angle
from geometry_fusion.models.geometry import SourceOptions, source_maker
from geometry_fusion.models.must3r import model_file
from geometry_fusion.models.names import MUST3R_MODELS
from geometry_fusion.models.spec import merger_of, spec_of

GRID = 32  # points per side at which pointmaps are compared
COLUMNS = ("local", "local_constant", "global", "global_constant", "rotation", "centre")
ANGLES = (0, 10, 30, 60, 90, 180.1)  # degrees, edges of the table's groups


def true_points(scene: Scene, index: int) -> np.ndarray:
    """Points [GRID, GRID, 3] in metres, in the camera's axes, at the centres of a grid's cells."""
    depth, (_, k) = scene.depth(index), scene.camera(index)
    height, width = depth.shape
    columns = (np.arange(GRID) + 0.5) * width / GRID - 0.5
    rows = (np.arange(GRID) + 0.5) * height / GRID - 0.5
    u, v = np.meshgrid(columns, rows)
    at = depth[v.round().astype(int), u.round().astype(int)]
    return np.ascontiguousarray(np.moveaxis(directions_of(k, u, v) * at, 0, -1))


def moved(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] after a pose [4, 4]."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def aligned(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`estimate` [N, 3] moved onto `truth` [N, 3] by the best similarity (Umeyama 1991)."""
    a, b = estimate - estimate.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.linalg.det(u @ vt)])  # no reflections
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / max((a**2).sum(), 1e-12)
    return scale * a @ rotation.T + truth.mean(0)


def mean_error(estimate: np.ndarray, scale: float, truth: np.ndarray, true_scale: float):
    """Mean distance [T] between two sequences of maps [T, h, w, 3], each divided by its scale."""
    difference = np.array(estimate) / scale - truth / true_scale
    return np.linalg.norm(difference, axis=-1).mean((1, 2))


def measure(scene: Scene, stream) -> dict[str, np.ndarray]:
    """Errors of every frame of a scene, [T] each, and the true points for the constant map."""
    poses = np.array([scene.camera(i)[0] for i in range(len(scene))])
    poses = np.linalg.inv(poses[0]) @ poses  # the reference frame is the first
    true_local = np.array([true_points(scene, i) for i in range(len(scene))])
    true_global = np.array([moved(pose, points) for pose, points in zip(poses, true_local)])
    local, in_reference = [], []
    estimated_poses = []
    for index in range(len(scene)):
        answer = stream.push(index, scene.rgb(index))
        height, width = answer.confidence.shape
        row_step, column_step = height // GRID, width // GRID
        cells = (slice(row_step // 2, None, row_step), slice(column_step // 2, None, column_step))
        in_reference.append(stream.maps.points[cells].numpy())
        local.append(stream.maps.local[cells].numpy())
        estimated_poses.append(answer.camera.camera_to_world.numpy())
    estimated_poses = np.array(estimated_poses)
    scale = np.linalg.norm(in_reference, axis=-1).mean()
    true_scale = np.linalg.norm(true_global, axis=-1).mean()
    centres = aligned(estimated_poses[:, :3, 3], poses[:, :3, 3])
    # Between viewing directions only: a camera that rolls still looks at the same place.
    between_views = np.arccos(np.clip(poses[:, 2, 2], -1, 1))
    return {
        "local": mean_error(local, scale, true_local, true_scale),
        "global": mean_error(in_reference, scale, true_global, true_scale),
        "rotation": np.degrees(rotation_angle(estimated_poses, poses)),
        "centre": np.linalg.norm(centres - poses[:, :3, 3], axis=-1) / true_scale,
        "angle": np.degrees(between_views),
        "true_local": true_local / true_scale,
        "true_global": true_global / true_scale,
        "keyframes": np.array(len(stream.keyframes)),
    }


def main(argv=None) -> None:
    """Measure, print the table and write it where `--out` says."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--seeds", default="100000:100020", help="rooms, first:last")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data/rooms/val"),
        help="folder of the rooms, rendered there",
    )
    parser.add_argument("--must3r", default="tiny", help=f"model: {', '.join(MUST3R_MODELS)}")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights, if not those of --must3r"
    )
    parser.add_argument("--out", type=Path, default=None, help="receives the table as JSON")
    args = parser.parse_args(argv)
    table = run(args)
    print(
        f"{'angle':<10}{'frames':>7}{'local':>8}{'constant':>10}{'global':>8}{'constant':>10}"
        f"{'rotation':>10}{'centre':>8}"
    )
    for row in table["rows"]:
        print(
            f"{row['angle']:<10}{row['frames']:>7}{row['local']:>8.3f}"
            f"{row['local_constant']:>10.3f}{row['global']:>8.3f}{row['global_constant']:>10.3f}"
            f"{row['rotation']:>9.1f}°{row['centre']:>8.3f}"
        )
    print(f"{table['rooms']} rooms, {table['keyframes']:.1f} keyframes per sequence")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1))


def run(args: argparse.Namespace) -> dict:
    """The table of all rooms, which are rendered if they are missing."""
    seeds = seed_range(args.seeds)
    if not all((room_folder(args.root, seed) / "scene.json").exists() for seed in seeds):
        write_rooms(seeds, args.root, 2)
    file = args.weights or model_file(args.must3r)
    new_stream = source_maker(spec_of(merger_of("auto", str(file))), file, SourceOptions("cpu"))
    results = [
        measure(Scene(room_folder(args.root, seed)), new_stream())
        for seed in tqdm(seeds, unit="room")
    ]
    errors = {
        key: np.concatenate([result[key] for result in results])
        for key in results[0]
        if key != "keyframes"
    }
    constant = np.median(errors["true_local"], axis=0)
    for name in ("local", "global"):
        distances = np.linalg.norm(errors[f"true_{name}"] - constant, axis=-1)
        errors[f"{name}_constant"] = distances.mean((1, 2))
    rows = []
    for low, high in (*pairwise(ANGLES), (0, ANGLES[-1])):
        in_group = (errors["angle"] >= low) & (errors["angle"] < high)
        if in_group.any():
            row = {"angle": "all" if high - low > 180 else f"{low:.0f}..{high:.0f}"}
            row["frames"] = int(in_group.sum())
            rows.append(row | {key: float(errors[key][in_group].mean()) for key in COLUMNS})
    return {
        "rows": rows,
        "rooms": len(results),
        "keyframes": float(np.mean([result["keyframes"] for result in results])),
        "must3r": args.must3r,
        "seeds": args.seeds,
    }


if __name__ == "__main__":
    sys.exit(run_cli(main))
