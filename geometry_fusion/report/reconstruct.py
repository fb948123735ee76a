"""Reconstruction of a video by MUSt3R: coloured points, camera poses, and a picture of both.

Coordinates are those of the first frame's camera: x right, y down, z forward.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.source_record import Record
from geometry_fusion.report.pyplot import INK, ORANGE, plt
from geometry_fusion.report.reconstruction_quality import Quality, frame_facts, quality_of
from geometry_fusion.types import Frames


@dataclass(frozen=True)
class Reconstruction:
    """The geometry of a whole video."""

    points: np.ndarray  # [N, 3] float32
    colours: np.ndarray  # [N, 3] uint8 RGB
    confidence: np.ndarray  # [N] in 0..1
    poses: np.ndarray  # [T, 4, 4] camera-to-world, by the final memory
    focal: float  # pixels of the original frames
    keyframes: list[int]
    quality: Quality


def reconstruct(
    stream: Must3rStream, frames: Frames, every_pixel: int = 2, min_confidence: float = 0.0
) -> Reconstruction:
    """Stream all frames, then decode each one again with the final memory.

    every_pixel: points are taken from every n-th row and column. min_confidence: 0..1; points with
    less confidence, and points that are not finite, are left out.
    """
    for index in tqdm(range(len(frames)), desc="stream", unit="frame"):
        stream.push(index, frames[index])
    points, colours, confidence, poses, facts = [], [], [], [], []
    for index in tqdm(range(len(frames)), desc="render", unit="frame"):
        image = frames[index]
        geometry = stream.render(index, image)
        poses.append(geometry.camera.camera_to_world.cpu().numpy())
        facts.append(frame_facts(geometry))
        grid = (..., slice(None, None, every_pixel), slice(None, None, every_pixel))
        frame_confidence = geometry.confidence[grid].cpu().numpy()
        is_finite = geometry.points[grid].isfinite().all(0).cpu().numpy()
        keep = (frame_confidence >= min_confidence) & is_finite
        points.append(geometry.points[grid].permute(1, 2, 0).cpu().numpy()[keep])
        colours.append(geometry.fit.apply(image)[::every_pixel, ::every_pixel][keep])
        confidence.append(frame_confidence[keep])
    return Reconstruction(
        points=np.concatenate(points),
        colours=np.concatenate(colours),
        confidence=np.concatenate(confidence),
        poses=np.stack(poses),
        focal=stream.focal,
        keyframes=stream.keyframes,
        quality=quality_of(facts),
    )


def write_ply(file: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Write points [N, 3] with colours [N, 3] uint8 as a binary PLY file."""
    vertices = np.empty(len(points), [("point", "<f4", 3), ("colour", "u1", 3)])
    vertices["point"] = points
    vertices["colour"] = colours
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        "end_header",
    ]
    with replacing_file(file) as fresh:
        fresh.write_bytes(("\n".join(header) + "\n").encode() + vertices.tobytes())


def write_reconstruction(
    scene: Reconstruction, stems: list[str], folder: Path, record: Record | None = None
) -> None:
    """Write points.ply, cameras.json and overview.png into `folder`.

    cameras.json has the quality and, per frame, camera-to-world pose and focal length. record: of
    the source, kept in it.
    """
    write_ply(folder / "points.ply", scene.points, scene.colours)
    cameras = [
        {
            "stem": stem,
            "camera_to_world": pose.tolist(),
            "focal": scene.focal,
            "keyframe": index in scene.keyframes,
        }
        for index, (stem, pose) in enumerate(zip(stems, scene.poses))
    ]
    content = {"source": record, "quality": asdict(scene.quality), "frames": cameras}
    with replacing_file(folder / "cameras.json") as fresh:
        fresh.write_text(json.dumps(content, indent=1))
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), layout="constrained")
    for panel, (side, title) in zip(axes, ((2, "from above"), (1, "from behind"))):
        draw_scene(panel, scene.points, scene.colours, scene.poses, scene.keyframes, vertical=side)
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
    """Draw points, the camera path and viewing directions; x is to the right.

    most: points that are drawn, a fixed random choice of them.
    """
    sign = 1 if vertical == 2 else -1

    def on_panel(values: np.ndarray) -> np.ndarray:
        """[N, 3] -> [N, 2], to the right and upwards."""
        return np.stack([values[:, 0], sign * values[:, vertical]], -1)

    drawn = np.random.default_rng(0).permutation(len(points))[:most]
    shown = on_panel(points[drawn])
    style = {"s": 1.2, "linewidths": 0, "rasterized": True}
    axes.scatter(shown[:, 0], shown[:, 1], c=colours[drawn] / 255, **style)
    centres = on_panel(poses[:, :3, 3])
    forward = on_panel(poses[:, :3, 2])
    axes.plot(centres[:, 0], centres[:, 1], color=ORANGE, lw=1.4)
    arrows = {"color": ORANGE, "width": 0.004, "scale": 18}
    axes.quiver(*centres[::4].T, *forward[::4].T, **arrows)
    kept = centres[[k for k in keyframes if k < len(centres)]]
    axes.plot(kept[:, 0], kept[:, 1], "o", color=ORANGE, ms=4, label="keyframes")
    axes.plot(centres[0, 0], centres[0, 1], "s", color=INK, ms=6, label="first frame")
    if len(points):
        # Without the outermost points, but with all cameras.
        low, high = np.percentile(on_panel(points).astype(float), [1, 99], axis=0)
        low = np.minimum(low, centres.min(0))
        high = np.maximum(high, centres.max(0))
        margin = 0.06 * (high - low).max()
        axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    axes.set_aspect("equal")
    axes.set(xlabel="x", ylabel="z" if vertical == 2 else "up")
    axes.spines[["top", "right"]].set_visible(False)
