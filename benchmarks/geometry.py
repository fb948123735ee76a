"""How good is the geometry? Streams whole walks of rooms nobody trained on and compares with depth
and poses.

    python benchmarks/geometry.py [--seeds 100000:100020] [--must3r tiny] [--out FILE.json]

Per frame, relative to the mean distance of the walk's points (prediction and truth each divided by
their own):
* local: error of the points in the own camera's frame; global: error of the points in the reference
frame;
* constant: the same errors of the best constant pointmap at the identity pose, the median over
frames of the truth;
* centre: error of the camera centre after the whole trajectory was aligned by a similarity (Umeyama
1991), and the
  rotation error in degrees, both as answered when the frame came.
Grouped by the angle between the viewing directions of this frame and the first.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fusion
import must3r_loader
from geometry_fusion.data.rooms import room_folder, seed_range, write_rooms
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import OneLineParser, run_cli

GRID = 32  # points per side at which pointmaps are compared
ANGLES = (0, 10, 30, 60, 90, 180.1)


def true_points(scene: Scene, index: int) -> np.ndarray:
    """Points [GRID, GRID, 3] in the camera's own frame at the centres of a grid over the image."""
    depth, (_, k) = scene.depth(index), scene.camera(index)
    height, width = depth.shape
    x, y = np.meshgrid(*((np.arange(GRID) + 0.5) * n / GRID - 0.5 for n in (width, height)))
    at = depth[y.round().astype(int), x.round().astype(int)]
    return (
        np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1)
        * at[..., None]
    )


def move(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]


def aligned(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`found` [N, 3] moved onto `truth` by the similarity that fits best."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.linalg.det(u @ vt)])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / max((a**2).sum(), 1e-12)
    return scale * a @ rotation.T + truth.mean(0)


def measure(scene: Scene, stream) -> dict[str, np.ndarray]:
    """Per-frame errors of one walk, and the truth that the constant predictor is made from."""
    poses = np.array([scene.camera(i)[0] for i in range(len(scene))])
    poses = np.linalg.inv(poses[0]) @ poses
    local = np.array([true_points(scene, i) for i in range(len(scene))])
    world = np.array([move(pose, points) for pose, points in zip(poses, local)])
    found_local, found_world, found_poses = [], [], []
    for index in range(len(scene)):
        answer = stream.push(index, scene.rgb(index))
        rows, columns = (n // GRID for n in answer.confidence.shape)
        every = (slice(rows // 2, None, rows), slice(columns // 2, None, columns))
        found_world.append(stream.maps.points[every].numpy())
        found_local.append(stream.maps.local[every].numpy())
        found_poses.append(answer.camera.camera_to_world.numpy())
    found_poses = np.array(found_poses)
    own, true = np.linalg.norm(found_world, axis=-1).mean(), np.linalg.norm(world, axis=-1).mean()
    error = lambda a, b: np.linalg.norm(np.array(a) / own - b / true, axis=-1).mean((1, 2))  # noqa: E731
    turned = np.einsum("tij,tij->t", found_poses[:, :3, :3], poses[:, :3, :3])
    centres = aligned(found_poses[:, :3, 3], poses[:, :3, 3])
    return {
        "local": error(found_local, local),
        "global": error(found_world, world),
        "rotation": np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1))),
        "centre": np.linalg.norm(centres - poses[:, :3, 3], axis=-1) / true,
        "angle": np.degrees(np.arccos(np.clip(poses[:, 2, 2], -1, 1))),
        "true_local": local / true,
        "true_world": world / true,
        "keyframes": np.array(len(stream.keyframes)),
    }


def main(argv=None) -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--seeds", default="100000:100020", help="rooms, first:last")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data/rooms/val"),
        help="folder of the rooms, rendered there",
    )
    parser.add_argument(
        "--must3r", default="tiny", help=f"model: {', '.join(must3r_loader.MODELS)}"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights, if not those of --must3r"
    )
    parser.add_argument("--out", type=Path, default=None, help="receives the table as JSON")
    args = parser.parse_args(argv)
    table = run(args)
    print(
        f"{'angle':<10}{'frames':>7}{'local':>8}{'constant':>10}{'global':>8}{'constant':>10}{'rotation':>10}{'centre':>8}"
    )
    for row in table["rows"]:
        print(
            f"{row['angle']:<10}{row['frames']:>7}{row['local']:>8.3f}{row['local_constant']:>10.3f}"
            f"{row['global']:>8.3f}{row['global_constant']:>10.3f}{row['rotation']:>9.1f}°{row['centre']:>8.3f}"
        )
    print(f"{table['rooms']} rooms, {table['keyframes']:.1f} keyframes a walk")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1))


def run(args: argparse.Namespace) -> dict:
    seeds = seed_range(args.seeds)
    if not all((room_folder(args.root, seed) / "scene.json").exists() for seed in seeds):
        write_rooms(seeds, args.root, 2)
    file = args.weights or must3r_loader.model_file(args.must3r)
    make = fusion.source_maker(
        fusion.spec_of("tiny" if args.must3r == "tiny" else "paper"), file, "cpu"
    )
    walks = [
        measure(Scene(room_folder(args.root, seed)), make()) for seed in tqdm(seeds, unit="room")
    ]
    joined = {k: np.concatenate([w[k] for w in walks]) for k in walks[0] if k != "keyframes"}
    constant = np.median(joined["true_local"], axis=0)
    for name in ("local", "world"):
        joined[f"constant_{name}"] = np.linalg.norm(
            joined[f"true_{name}"] - constant, axis=-1
        ).mean((1, 2))
    rows = []
    for low, high in (*pairwise(ANGLES), (0, ANGLES[-1])):
        some = (joined["angle"] >= low) & (joined["angle"] < high)
        if some.any():
            mean = lambda key: float(joined[key][some].mean())  # noqa: B023, E731
            rows.append(
                {
                    "angle": "all" if high - low > 180 else f"{low:.0f}..{high:.0f}",
                    "frames": int(some.sum()),
                    "local": mean("local"),
                    "local_constant": mean("constant_local"),
                    "global": mean("global"),
                    "global_constant": mean("constant_world"),
                    "rotation": mean("rotation"),
                    "centre": mean("centre"),
                }
            )
    return {
        "rows": rows,
        "rooms": len(walks),
        "keyframes": float(np.mean([w["keyframes"] for w in walks])),
        "must3r": args.must3r,
        "seeds": args.seeds,
    }


if __name__ == "__main__":
    sys.exit(run_cli(main))
