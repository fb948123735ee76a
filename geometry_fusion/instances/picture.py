"""The picture of instances from above."""

from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np

from geometry_fusion.instances.cloud import Cloud
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.report.pyplot import INK, ORANGE, plt

MOST_POINTS = 60_000
GOLDEN = 0.618034  # of a turn between the hues of two instances
GREY = 0.72  # of points without an instance: this share of white, the rest of their own colour


def axes_from_above(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions [2, 3] to the right and upwards on a picture from above, and up [3] in the world.

    poses: [T, 4, 4] camera-to-world. Up is the mean of the cameras' up; the first camera looks
    upwards on the picture, as far as it is not vertical.
    """
    up = -poses[:, :3, 1].mean(0)
    up /= np.linalg.norm(up)
    forward = poses[0, :3, 2] - (poses[0, :3, 2] @ up) * up
    if np.linalg.norm(forward) < 1e-3:
        forward = poses[0, :3, 1] - (poses[0, :3, 1] @ up) * up
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward]), up


def draw_from_above(file: Path, cloud: Cloud, owner: np.ndarray, poses: np.ndarray) -> None:
    """Write a PNG: every instance in its colour with its number, the rest pale, the camera's path.

    owner: [N] instance 1, 2, ... of every point, 0 for none. What lies above all cameras, such as a
    ceiling, is left out unless it belongs to an instance. Highest points are drawn last.
    """
    plane, up = axes_from_above(poses)
    heights = cloud.points @ up
    ceiling = (poses[:, :3, 3] @ up).max()
    shown = np.flatnonzero((owner > 0) | (heights < ceiling))
    chosen = np.random.default_rng(0).permutation(shown)[:MOST_POINTS]
    chosen = chosen[np.argsort(heights[chosen], kind="stable")]
    flat = cloud.points @ plane.T
    figure, axes = plt.subplots(figsize=(8, 8), layout="constrained")
    style = {"s": 3.0, "linewidths": 0, "rasterized": True}
    axes.scatter(*flat[chosen].T, c=painted(cloud, owner)[chosen] / 255, **style)
    path = poses[:, :3, 3] @ plane.T
    axes.plot(*path.T, color=ORANGE, lw=1.2)
    axes.plot(*path[0], "s", color=INK, ms=6)
    for number in range(1, int(owner.max(initial=0)) + 1):
        if (owner == number).any():
            middle = np.median(flat[owner == number], axis=0)
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8}
            axes.text(*middle, str(number), ha="center", va="center", fontsize=9, bbox=box)
    # Without the outermost points, but with all cameras.
    low, high = np.percentile(flat[shown], [0.5, 99.5], axis=0)
    low, high = np.minimum(low, path.min(0)), np.maximum(high, path.max(0))
    margin = 0.05 * (high - low).max()
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("3D instances from above; orange: the camera's path, from the square on")
    with replacing_file(file) as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def painted(cloud: Cloud, owner: np.ndarray) -> np.ndarray:
    """Colours [N, 3] uint8: those of instances; points of none keep a pale shade of their own."""
    pale = 255 * GREY + cloud.colours * (1 - GREY)
    palette = np.array([(0, 0, 0), *instance_colours(int(owner.max(initial=0)))])
    return np.where(owner[:, None] > 0, palette[owner], pale.round()).astype(np.uint8)


def instance_colours(count: int) -> list[tuple[int, int, int]]:
    """RGB of instances 1..count: strong colours, neighbours far apart. None is grey, as the
    colours of masks may be: grey is what belongs to no instance.
    """
    colours = []
    for number in range(count):
        hue, strength = number * GOLDEN % 1, 1 - 0.3 * (number // 8 % 2)
        colours.append(tuple(round(255 * c) for c in hsv_to_rgb(hue, 0.85, 0.9 * strength)))
    return colours
