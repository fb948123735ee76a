"""A look at what a geometry source knows: coloured point cloud, camera path, and a picture of both
from above.

Coordinates are those of the first frame's camera: x right, y down, z forward.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.files import replacing_file
from geometry_fusion.geometry import Must3rStream
from geometry_fusion.plots import plt
from geometry_fusion.reconstruction_quality import Quality, frame_facts, quality_of
from geometry_fusion.source_record import Record
from geometry_fusion.types import GeometryFrame


@dataclass(frozen=True)
class Reconstruction:
    points: np.ndarray  # [N, 3] float32
    colours: np.ndarray  # [N, 3] uint8 RGB
    confidence: np.ndarray  # [N] in 0..1
    poses: np.ndarray  # [T, 4, 4] camera-to-world, as seen by the final memory
    focal: float  # pixels of the original frames
    keyframes: list[int]
    quality: Quality


def reconstruct(
    stream: Must3rStream, frames, every_pixel: int = 2, min_confidence: float = 0.0
) -> Reconstruction:
    """Stream all frames (RGB uint8 [H, W, 3], indexable), then read each one again from the final
    memory.

    every_pixel: points are taken from every n-th row and column. min_confidence: 0..1, less sure
    points are left out.
    """
    for index in tqdm(range(len(frames)), desc="stream", unit="frame"):
        stream.push(index, frames[index])
    points, colours, confidence, poses, facts = [], [], [], [], []
    for index in tqdm(range(len(frames)), desc="render", unit="frame"):
        image = frames[index]
        answer = stream.render(index, image)
        poses.append(answer.camera.camera_to_world.cpu().numpy())
        facts.append(frame_facts(answer))
        every = (..., slice(None, None, every_pixel), slice(None, None, every_pixel))
        sure = answer.confidence[every].cpu().numpy()
        keep = (sure >= min_confidence) & answer.points[every].isfinite().all(0).cpu().numpy()
        points.append(answer.points[every].permute(1, 2, 0).cpu().numpy()[keep])
        colours.append(answer.fit.apply(image)[::every_pixel, ::every_pixel][keep])
        confidence.append(sure[keep])
    joined = (np.concatenate(parts) for parts in (points, colours, confidence))
    return Reconstruction(
        *joined, np.stack(poses), stream.focal, stream.keyframes, quality_of(facts)
    )


def write_ply(file: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """A binary PLY of points [N, 3] with colours [N, 3] uint8."""
    vertices = np.empty(len(points), [("p", "<f4", 3), ("c", "u1", 3)])
    vertices["p"], vertices["c"] = points, colours
    names = [
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {c}" for c in ("red", "green", "blue")),
    ]
    head = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *names,
        "end_header",
    ]
    with replacing_file(file) as fresh:
        fresh.write_bytes(("\n".join(head) + "\n").encode() + vertices.tobytes())


def write_reconstruction(
    found: Reconstruction, stems: list[str], folder: Path, record: Record | None = None
) -> None:
    """points.ply, cameras.json (quality; camera-to-world and focal length per frame) and
    overview.png into `folder`.

    record: of the source, kept in cameras.json.
    """
    write_ply(folder / "points.ply", found.points, found.colours)
    cameras = [
        {
            "stem": stem,
            "camera_to_world": pose.tolist(),
            "focal": found.focal,
            "keyframe": index in found.keyframes,
        }
        for index, (stem, pose) in enumerate(zip(stems, found.poses))
    ]
    with replacing_file(folder / "cameras.json") as fresh:
        fresh.write_text(
            json.dumps(
                {"source": record, "quality": asdict(found.quality), "frames": cameras}, indent=1
            )
        )
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), layout="constrained")
    for panel, (side, title) in zip(axes, ((2, "from above"), (1, "from behind"))):
        draw_scene(panel, found.points, found.colours, found.poses, found.keyframes, vertical=side)
        panel.set_title(title)
    with replacing_file(folder / "overview.png") as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def draw_scene(
    axes,
    points: np.ndarray,  # [N, 3]
    colours: np.ndarray,  # [N, 3] uint8
    poses: np.ndarray,  # [T, 4, 4]
    keyframes: list[int],
    vertical: int = 2,  # the axis drawn upwards: 2 = z (from above), 1 = -y (from behind)
    most: int = 40_000,
) -> None:
    """Points, camera path and the directions in which the cameras look, x to the right."""
    some = np.random.default_rng(0).permutation(len(points))[:most]
    sign = 1 if vertical == 2 else -1
    axes.scatter(
        points[some, 0],
        sign * points[some, vertical],
        c=colours[some] / 255,
        s=1.2,
        linewidths=0,
        rasterized=True,
    )
    centres, forward = poses[:, :3, 3], poses[:, :3, 2]
    axes.plot(centres[:, 0], sign * centres[:, vertical], color="#c2571a", lw=1.4)
    axes.quiver(
        *(
            centres[::4, 0],
            sign * centres[::4, vertical],
            forward[::4, 0],
            sign * forward[::4, vertical],
        ),
        color="#c2571a",
        width=0.004,
        scale=18,
    )
    kept = centres[[k for k in keyframes if k < len(centres)]]
    axes.plot(kept[:, 0], sign * kept[:, vertical], "o", color="#c2571a", ms=4, label="keyframes")
    axes.plot(
        centres[0, 0], sign * centres[0, vertical], "s", color="#1d2329", ms=6, label="first frame"
    )
    if len(points):
        low, high = np.percentile(points[:, [0, vertical]] * [1, sign], [1, 99], axis=0)
        low, high = (
            np.minimum(low, (centres[:, [0, vertical]] * [1, sign]).min(0)),
            np.maximum(high, (centres[:, [0, vertical]] * [1, sign]).max(0)),
        )
        margin = 0.06 * (high - low).max()
        axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    axes.set_aspect("equal")
    axes.set(xlabel="x", ylabel="z" if vertical == 2 else "up")
    axes.spines[["top", "right"]].set_visible(False)


def object_point(answer: GeometryFrame, mask: np.ndarray) -> np.ndarray | None:
    """Where a mask [H, W] bool of the original frame lies: median of its surest half of points [3];
    None if unseen.
    """
    height, width = answer.confidence.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    # The grid of points has as many cells as the fitted image has pixels.
    original = answer.fit.points_back(np.stack([x, y], -1)).round().astype(int)
    inside = (original >= 0).all(-1) & (original < np.array(mask.shape[::-1])).all(-1)
    column, row = np.clip(original, 0, np.array(mask.shape[::-1]) - 1).transpose(2, 0, 1)
    on_object = inside & mask[row, column]
    if not on_object.any():
        return None
    confidence = answer.confidence.cpu().numpy()[on_object]
    points = answer.points.cpu().numpy()[:, on_object]
    return np.median(points[:, confidence >= np.median(confidence)], axis=1)
