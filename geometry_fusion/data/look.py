"""One picture of a scene, to see before training whether its masks, depth and cameras belong
together.

    python -m geometry_fusion.data.look data/mine/kitchen                    a scene folder ->
    videos/look/kitchen.png
    python -m geometry_fusion.data.look --format polycam CAPTURE --scene kitchen       before
    conversion

Frames with their masks, depth in colour, cameras and points from above, and the check that finds
wrong axes, units, pairings and half pixels: pixels of one frame are back-projected and looked up in
another about ten frames away. In right data the depth agrees to about a percent (sensors: a few)
wherever both frames see the place. What a scene lacks is left out.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.convert import find, open_scene
from geometry_fusion.data.readers import FORMATS
from geometry_fusion.data.readers.source import nearest, resized
from geometry_fusion.data.scenes import Scene, SceneFrame
from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.files import check_apart, replacing_file
from geometry_fusion.mask_files import colour, overlay
from geometry_fusion.names import shown_name
from geometry_fusion.plots import plt

GAP = 10  # frames between the two of a pair
CONSISTENT = 0.03  # of the depth: nearer than this a pixel sees the same place in both frames
NOT_SEEN, DIFFERS, AGREES = 0, 1, 2
VERDICT_COLOURS = {DIFFERS: (220, 50, 40), AGREES: (40, 170, 70)}
MOST_PROBLEMS, MOST_POINTS, MOST_BARS = 5, 40_000, 16
PANEL_PX = 480  # long side of a frame in the picture


@dataclass(frozen=True)
class View:
    """What is read of a scene: some frames, and the cameras and ids of what there is."""

    name: str
    stems: list[str]  # of all frames
    frames: dict[int, SceneFrame]  # position in `stems` -> frame
    shown: list[int]  # positions, in time order
    pairs: dict[int, int]  # shown position -> the other frame of its check
    poses: np.ndarray  # [T, 4, 4] camera-to-world of all cameras that are known
    names: dict[int, str]  # of objects
    problems: list[str]  # what could not be read, one line each


@dataclass(frozen=True)
class Agreement:
    """How the pixels of a frame, back-projected, look in another. NaN where nothing can be
    compared.
    """

    depth_error: float  # median of |depth there - expected| / expected, over `pixels`
    consistent: float  # share of `pixels` whose error is below CONSISTENT
    ids: float  # share with one id in both, of the consistent pixels that are an object's in either
    pixels: int  # that are seen there: inside the image, in front, with depth in both
    verdict: np.ndarray  # [H, W] NOT_SEEN, DIFFERS or AGREES

    def __str__(self) -> str:
        if not self.pixels:
            return "no pixel is seen in both"
        text = f"depth off by {self.depth_error:.1%} (median), {self.consistent:.0%} of "
        f"{self.pixels} pixels consistent"
        return text + ("" if np.isnan(self.ids) else f", ids agree {self.ids:.1%}")


def agreement(source: SceneFrame, target: SceneFrame) -> Agreement | None:
    """None unless both frames have depth and a camera."""
    if any(
        part is None
        for f in (source, target)
        for part in (f.depth, f.camera_to_world, f.intrinsics)
    ):
        return None
    rows, columns = np.nonzero(source.depth > 0)
    to_target = np.linalg.inv(target.camera_to_world)
    x, y, z = to_target[:3, :3] @ back_projected(source, rows, columns).T + to_target[:3, 3:]
    fx, fy, cx, cy = target.intrinsics
    height, width = target.depth.shape
    ahead = np.maximum(z, 1e-3)
    u, v = np.rint(fx * x / ahead + cx), np.rint(fy * y / ahead + cy)
    inside = (z > 1e-3) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    at = np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)
    seen = inside & (target.depth[at] > 0)
    rows, columns, z, at = rows[seen], columns[seen], z[seen], (at[0][seen], at[1][seen])
    error = np.abs(target.depth[at] - z) / z
    good = error < CONSISTENT
    verdict = np.full(source.depth.shape, NOT_SEEN, np.uint8)
    verdict[rows, columns] = np.where(good, AGREES, DIFFERS)
    same = np.empty(0)
    if source.instance is not None and target.instance is not None:
        here, there = source.instance[rows, columns][good], target.instance[at][good]
        same = (here == there)[(here >= 0) & (there >= 0) & ((here > 0) | (there > 0))]
    median = float(np.median(error)) if len(error) else np.nan
    consistent, ids = (float(a.mean()) if len(a) else np.nan for a in (good, same))
    return Agreement(median, consistent, ids, len(z), verdict)


def back_projected(frame: SceneFrame, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """World points [N, 3] of pixels with depth."""
    fx, fy, cx, cy = frame.intrinsics
    depth = frame.depth[rows, columns]
    camera = np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], -1)
    return camera @ frame.camera_to_world[:3, :3].T + frame.camera_to_world[:3, 3]


def from_above(poses: np.ndarray) -> np.ndarray:
    """[3, 3], rows right, ahead, up: the axes of a view from above, whatever direction is up in
    this world.

    The view is along the normal of the plane that the camera path spans best (least squares),
    because people move cameras along the floor; its side is the one where the tops of the pictures
    are. A path that spans no plane (one place, a line, a cloud) leaves the mean of the pictures'
    upward directions.
    """
    centres = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    _, spread, axes = np.linalg.svd(np.vstack([centres, np.zeros((3, 3))]))
    up = -poses[:, :3, 1].mean(0)
    planar = spread[1] > 0.05 * spread[0] and spread[1] > 3 * spread[2]
    normal = (
        axes[2] * (1 if axes[2] @ up >= 0 else -1) if planar or np.linalg.norm(up) < 1e-6 else up
    )
    normal = normal / np.linalg.norm(normal)
    # Along the path, or whatever does not point upwards.
    flat = [a - normal * (a @ normal) for a in (axes[0], poses[0, :3, 0], *np.eye(3))]
    right = next(a for a in flat if np.linalg.norm(a) > 0.3)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(normal, right), normal])


def id_shares(ids: np.ndarray) -> dict[int, float]:
    """Id -> share of the pixels, most frequent first; -1 is void."""
    values, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(values[i]): counts[i] / ids.size for i in order}


def choose(count: int, number: int) -> tuple[list[int], dict[int, int]]:
    """Positions of `number` frames spread evenly over `count`, and for each the partner of its
    check.
    """
    shown = sorted({round(p) for p in np.linspace(0, count - 1, min(number, count))})
    partners = {
        i: max(min(i + GAP, count - 1), max(i - GAP, 0), key=lambda j: abs(j - i)) for i in shown
    }
    return shown, {i: j for i, j in partners.items() if i != j}


def view_of_scene(folder: Path, number: int) -> View:
    """View of a scene folder; what is damaged or missing for some frames is told in `problems`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a scene folder (or --format FORMAT ROOT)")
    scene, problems = Scene(folder), []
    has_depth, has_cameras = (folder / "depth").is_dir(), (folder / "cameras.json").exists()

    def part(there: bool, read: Callable, index: int):
        try:
            return read(index) if there else None
        except InputError as error:
            problems.append(str(error))
            return None

    shown, pairs = choose(len(scene), number)
    cameras = {
        i: camera
        for i in range(len(scene))
        if (camera := part(has_cameras, scene.camera, i)) is not None
    }
    frames = {}
    for i in sorted({*shown, *pairs.values()}):
        pose, k = cameras.get(i, (None, None))
        intrinsics = None if k is None else (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        ids, depth = part(scene.has_ids, scene.instance, i), part(has_depth, scene.depth, i)
        frames[i] = SceneFrame(scene.stems[i], scene.rgb(i), ids, depth, pose, intrinsics)
    poses = np.stack([pose for pose, _ in cameras.values()]) if cameras else np.empty((0, 4, 4))
    names = {o.id: o.name for o in scene.objects}
    return View(folder.resolve().name, scene.stems, frames, shown, pairs, poses, names, problems)


def view_of_source(kind: str, root: Path, name: str | None, number: int) -> View:
    """View of a scene as its dataset has it; only the cameras of the frames that are read are
    known.
    """
    found = find(kind, root)
    if name is None and len(found) == 1:
        name = found[0]
    if name not in found:
        raise InputError(
            f"--scene {name or ''}: not one scene of {root}; there are: {', '.join(found[:10])}"
        )
    source = open_scene(kind, root, name)
    shown, pairs = choose(len(source.stems), number)
    needed = sorted({*shown, *pairs.values()})
    frames = dict(zip(needed, source.frames([source.stems[i] for i in needed])))
    poses = [f.camera_to_world for f in frames.values() if f.camera_to_world is not None]
    names = {o.id: o.name for o in source.objects}
    poses = np.stack(poses) if poses else np.empty((0, 4, 4))
    return View(source.name, source.stems, frames, shown, pairs, poses, names, list(source.notes))


def checks(view: View) -> dict[int, Agreement]:
    """Shown position -> agreement with its partner, where both have depth and cameras."""
    found = {i: agreement(view.frames[i], view.frames[j]) for i, j in view.pairs.items()}
    return {i: result for i, result in found.items() if result is not None}


def report(view: View, found: dict[int, Agreement]) -> Iterable[str]:
    """The numbers of the picture, line by line."""
    parts = {"ids": "instance", "depth": "depth", "cameras": "camera_to_world"}
    has = [
        k
        for k, name in parts.items()
        if any(getattr(f, name) is not None for f in view.frames.values())
    ]
    yield f"{view.name}: {len(view.stems)} frames; {', '.join(has) or 'colour only'}"
    yield from view.problems[:MOST_PROBLEMS]
    if len(view.problems) > MOST_PROBLEMS:
        yield f"... and {len(view.problems) - MOST_PROBLEMS} lines like these"
    for i in view.shown:
        if (ids := view.frames[i].instance) is not None:
            shares = ", ".join(
                f"{'void' if n < 0 else n} {share:.1%}" for n, share in id_shares(ids).items()
            )
            yield f"{view.stems[i]}: ids {shares}"
    for i, result in found.items():
        yield f"{view.stems[i]} -> {view.stems[view.pairs[i]]}: {result}"


def draw(view: View, found: dict[int, Agreement], out: Path) -> None:
    """The picture: a column per shown frame, below them the scene from above and the ids."""
    frames = [view.frames[i] for i in view.shown]
    depths = [f.depth[f.depth > 0] for f in frames if f.depth is not None and (f.depth > 0).any()]
    rows = ["frame", *(["depth"] if depths else []), *(["check"] if found else [])]
    seen = {n for f in frames if f.instance is not None for n in np.unique(f.instance).tolist()}
    panels = [*(["above"] if len(view.poses) else []), *(["ids"] if seen else [])]
    columns, tallest = len(frames), max(f.rgb.shape[0] / f.rgb.shape[1] for f in frames)
    width = max(8.0, columns * max(1.8, min(3.2, 16 / columns)))
    heights = [
        len(rows) * (min(width / columns, 3.4) * min(tallest, 1.6) + 0.45),
        4.6 if panels else 0.01,
    ]
    figure = plt.figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(shown_name(next(iter(report(view, {})))), fontsize=12)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    limits = np.percentile(np.concatenate(depths), [1, 99]) if depths else (0, 1)
    grid = upper.subplots(len(rows), columns, squeeze=False)
    for column, i in enumerate(view.shown):
        for row, kind in enumerate(rows):
            _draw_panel(grid[row, column], kind, view, i, found.get(i), limits)
    for axes, kind in zip(
        lower.subplots(1, len(panels), squeeze=False)[0] if panels else (), panels
    ):
        _draw_above(axes, view) if kind == "above" else _draw_ids(axes, view, frames)
    with replacing_file(out) as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def _draw_panel(axes, kind: str, view: View, i: int, result: Agreement | None, limits) -> None:
    axes.set(xticks=[], yticks=[])
    frame = view.frames[i]
    scale = min(1.0, PANEL_PX / max(frame.rgb.shape[:2]))
    small = resized(frame, tuple(max(1, round(side * scale)) for side in frame.rgb.shape[1::-1]))
    size, picture = small.rgb.shape[1::-1], small.rgb
    if kind == "frame":
        axes.set_title(shown_name(view.stems[i]), fontsize=9)
        axes.imshow(picture if small.instance is None else overlay(picture, small.instance))
    elif kind == "depth" and small.depth is not None:
        known = frame.depth[frame.depth > 0]
        span = (
            f"{known.min():.2f} to {known.max():.2f} m, {len(known) / frame.depth.size:.0%}"
            if len(known)
            else "none"
        )
        axes.set_title(f"depth: {span}", fontsize=8)
        axes.imshow(
            np.where(small.depth > 0, small.depth, np.nan), "turbo", vmin=limits[0], vmax=limits[1]
        )
        axes.set_facecolor("black")
    elif kind == "check" and result is not None:
        ids = "" if np.isnan(result.ids) else f", ids {result.ids:.1%}"
        numbers = f"depth off {result.depth_error:.1%}\nconsistent {result.consistent:.0%}{ids}"
        partner = shown_name(view.stems[view.pairs[i]])
        axes.set_title(f"in {partner}: {numbers if result.pixels else result}", fontsize=8)
        verdict, painted = nearest(result.verdict, size), picture * 0.35
        for value, rgb in VERDICT_COLOURS.items():
            painted[verdict == value] = 0.4 * picture[verdict == value] + 0.6 * np.array(rgb)
        axes.imshow(painted.astype(np.uint8))
        if i == view.shown[0]:
            axes.set_ylabel(
                f"green: depth within {CONSISTENT:.0%}\nred: not, dark: not seen", fontsize=7
            )
    else:
        axes.set_title(f"no {kind}", fontsize=8)
        axes.set_box_aspect(size[1] / size[0])


def _draw_above(axes, view: View) -> None:
    """Points below the highest camera, so that no ceiling hides them; the path and where shown
    cameras look.
    """
    turn, points, colours = from_above(view.poses), [], []
    known = [
        f for f in view.frames.values() if f.depth is not None and f.camera_to_world is not None
    ]
    for frame in known:
        stride = max(1, int((frame.depth.size * len(known) / MOST_POINTS) ** 0.5))
        rows, columns = (a * stride for a in np.nonzero(frame.depth[::stride, ::stride] > 0))
        points.append(back_projected(frame, rows, columns) @ turn.T)
        colours.append(frame.rgb[rows, columns] / 255)
    centres, ahead = view.poses[:, :3, 3] @ turn.T, view.poses[:, :3, 2] @ turn.T
    box = [centres[:, :2]]
    if points:
        points, colours = np.concatenate(points), np.concatenate(colours)
        order = np.argsort(points[:, 2])[
            : np.searchsorted(np.sort(points[:, 2]), centres[:, 2].max()) or None
        ]
        axes.scatter(*points[order, :2].T, c=colours[order], s=1.5, linewidths=0, rasterized=True)
        box.append(np.percentile(points[order, :2], [1, 99], axis=0))
    axes.plot(*centres[:, :2].T, color="#c2571a", lw=1.4)
    axes.plot(*centres[0, :2], "s", color="#1d2329", ms=6, label="first camera")
    every = slice(None, None, max(1, len(centres) // 12))
    axes.quiver(
        *centres[every, :2].T, *ahead[every, :2].T, color="#c2571a", width=0.004, scale=16, zorder=3
    )
    low, high = np.concatenate(box).min(0), np.concatenate(box).max(0)
    margin = 0.06 * (high - low).max() or 1.0
    axes.set(
        xlim=(low[0] - margin, high[0] + margin),
        ylim=(low[1] - margin, high[1] + margin),
        aspect="equal",
    )
    axes.set_title("from above (metres)", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.tick_params(labelsize=7)


def _draw_ids(axes, view: View, frames: list[SceneFrame]) -> None:
    """Bars: share of the shown frames' pixels by id, the largest first; what is nothing would dwarf
    the others.
    """
    shares = id_shares(
        np.concatenate([f.instance.ravel() for f in frames if f.instance is not None])
    )
    nothing = shares.pop(0, 0.0)
    shown = dict(list(shares.items())[:MOST_BARS])
    labels = [
        "void" if n < 0 else shown_name(f"{n} {view.names.get(n, '')}".strip()[:28]) for n in shown
    ]
    shades = [np.array(colour(n)) / 255 for n in shown]
    bars = axes.barh(labels, [100 * share for share in shown.values()], color=shades)
    axes.bar_label(bars, [f"{share:.1%}" for share in shown.values()], fontsize=7, padding=2)
    axes.set(xticks=[], xlim=(0, 115 * max(shown.values(), default=1)))
    axes.tick_params(labelsize=7)
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(
        f"{len(shown)} of {len(shares)} ids, share of the shown pixels (0: {nothing:.1%})",
        fontsize=9,
    )


def parse(argv=None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m geometry_fusion.data.look", description=__doc__)
    parser.add_argument(
        "place", type=Path, metavar="SCENE", help="scene folder; with --format the root of the data"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"look at a dataset: {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--scene", metavar="NAME", help="which scene of the dataset; default: the only one"
    )
    parser.add_argument("--out", type=Path, help="PNG to write; default: videos/look/NAME.png")
    parser.add_argument("--frames", type=int, default=4, help="how many frames to show")
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    if not 1 <= args.frames <= 20:
        raise InputError(f"--frames {args.frames}: must be 1..20")
    if args.out is not None and args.out.suffix.lower() != ".png":
        raise InputError(f"--out {args.out}: must end in .png")
    if args.out is not None:
        check_apart([args.out], [args.place])
        if args.out.exists() and args.out.resolve().is_relative_to(args.place.resolve()):
            raise InputError(
                f"--out {args.out}: would replace a file of {args.place}; choose another name"
            )
    if args.scene and not args.format:
        raise InputError(
            f"--scene {args.scene}: goes with --format; without it give the scene folder itself"
        )
    if args.format:
        view = view_of_source(args.format, args.place, args.scene, args.frames)
    else:
        view = view_of_scene(args.place, args.frames)
    found = checks(view)
    for line in report(view, found):
        print(printable(line))
    out = args.out or Path("videos/look") / f"{view.name}.png"
    draw(view, found, out)
    print(printable(str(out)))


if __name__ == "__main__":
    sys.exit(run_cli(main))
