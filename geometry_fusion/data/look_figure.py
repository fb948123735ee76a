"""The picture and the printed lines of `data.look`: frames, a map from above, bars of ids."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from geometry_fusion.data.agreement import (
    AGREES,
    CONSISTENT,
    DIFFERS,
    Agreement,
    View,
    from_above,
    id_shares,
    points_of,
)
from geometry_fusion.data.readers.source import nearest, resized
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.mask_writer import colour, overlay
from geometry_fusion.names import shown_name
from geometry_fusion.report.pyplot import plt

VERDICT_COLOURS = {DIFFERS: (220, 50, 40), AGREES: (40, 170, 70)}
PATH_COLOUR = "#c2571a"
MOST_PROBLEMS = 5  # lines printed of what could not be read
MOST_POINTS = 40_000  # in the map from above
MOST_BARS = 16  # ids in the bar chart
PANEL_PX = 480  # long side of a frame in the picture


def draw(view: View, results: dict[int, Agreement], out: Path) -> None:
    """Write the picture: one column per shown frame, below them the map from above and the ids."""
    frames = [view.frames[i] for i in view.shown]
    depths = [f.depth[f.depth > 0] for f in frames if f.depth is not None and (f.depth > 0).any()]
    has_ids = any(f.instance is not None for f in frames)
    rows = ["frame", *(["depth"] if depths else []), *(["check"] if results else [])]
    panels = [*(["above"] if len(view.poses) else []), *(["ids"] if has_ids else [])]
    columns, tallest = len(frames), max(f.rgb.shape[0] / f.rgb.shape[1] for f in frames)
    width = max(8.0, columns * max(1.8, min(3.2, 16 / columns)))  # inches
    upper_height = len(rows) * (min(width / columns, 3.4) * min(tallest, 1.6) + 0.45)
    heights = [upper_height, 4.6 if panels else 0.01]
    figure = plt.figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(shown_name(next(iter(report(view, {})))), fontsize=12)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    # One colour scale for all depth panels, without the few farthest and nearest values.
    limits = np.percentile(np.concatenate(depths), [1, 99]) if depths else (0, 1)
    grid = upper.subplots(len(rows), columns, squeeze=False)
    for column, i in enumerate(view.shown):
        for row, kind in enumerate(rows):
            _draw_panel(grid[row, column], kind, view, i, results.get(i), limits)
    lower_axes = lower.subplots(1, len(panels), squeeze=False)[0] if panels else ()
    for axes, kind in zip(lower_axes, panels):
        if kind == "above":
            _draw_above(axes, view)
        else:
            _draw_ids(axes, view, frames)
    with replacing_file(out) as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def _draw_panel(axes, kind: str, view: View, i: int, result: Agreement | None, limits) -> None:
    """One frame as `kind` ("frame", "depth" or "check"); an empty panel where that is missing."""
    axes.set(xticks=[], yticks=[])
    frame = view.frames[i]
    scale = min(1.0, PANEL_PX / max(frame.rgb.shape[:2]))
    small = resized(frame, tuple(max(1, round(side * scale)) for side in frame.rgb.shape[1::-1]))
    if kind == "frame":
        axes.set_title(shown_name(view.stems[i]), fontsize=9)
        axes.imshow(small.rgb if small.instance is None else overlay(small.rgb, small.instance))
    elif kind == "depth" and small.depth is not None:
        axes.set_title(f"depth: {_depth_span(frame.depth)}", fontsize=8)
        measured = np.where(small.depth > 0, small.depth, np.nan)
        axes.imshow(measured, "turbo", vmin=limits[0], vmax=limits[1])
        axes.set_facecolor("black")
    elif kind == "check" and result is not None:
        _draw_check(axes, small.rgb, result, shown_name(view.stems[view.pairs[i]]))
        if i == view.shown[0]:
            legend = f"green: depth within {CONSISTENT:.0%}\nred: not, dark: not seen"
            axes.set_ylabel(legend, fontsize=7)
    else:
        axes.set_title(f"no {kind}", fontsize=8)
        axes.set_box_aspect(small.rgb.shape[0] / small.rgb.shape[1])


def _depth_span(depth: np.ndarray) -> str:
    measured = depth[depth > 0]
    if not len(measured):
        return "none"
    share = len(measured) / depth.size
    return f"{measured.min():.2f} to {measured.max():.2f} m, {share:.0%}"


def _draw_check(axes, picture: np.ndarray, result: Agreement, partner: str) -> None:
    """The frame darkened, with pixels seen in the partner green or red."""
    ids = "" if np.isnan(result.ids) else f", ids {result.ids:.1%}"
    numbers = f"depth off {result.depth_error:.1%}\nconsistent {result.consistent:.0%}{ids}"
    axes.set_title(f"in {partner}: {numbers if result.pixels else result}", fontsize=8)
    verdict = nearest(result.verdict, picture.shape[1::-1])
    painted = picture * 0.35
    for value, rgb in VERDICT_COLOURS.items():
        painted[verdict == value] = 0.4 * picture[verdict == value] + 0.6 * np.array(rgb)
    axes.imshow(painted.astype(np.uint8))


def _draw_above(axes, view: View) -> None:
    """Points from above, the camera path, and where some of its cameras look."""
    axes_from_world = from_above(view.poses)
    centres = view.poses[:, :3, 3] @ axes_from_world.T
    ahead = view.poses[:, :3, 2] @ axes_from_world.T
    corners = [centres[:, :2]]  # what the map must contain
    points, colours = _coloured_points(view, axes_from_world)
    if len(points):
        # The lowest first, and none above the highest camera: a ceiling would hide everything.
        below = np.searchsorted(np.sort(points[:, 2]), centres[:, 2].max()) or None
        order = np.argsort(points[:, 2])[:below]
        axes.scatter(*points[order, :2].T, c=colours[order], s=1.5, linewidths=0, rasterized=True)
        corners.append(np.percentile(points[order, :2], [1, 99], axis=0))
    axes.plot(*centres[:, :2].T, color=PATH_COLOUR, lw=1.4)
    axes.plot(*centres[0, :2], "s", color="#1d2329", ms=6, label="first camera")
    every = slice(None, None, max(1, len(centres) // 12))
    arrows = (*centres[every, :2].T, *ahead[every, :2].T)
    axes.quiver(*arrows, color=PATH_COLOUR, width=0.004, scale=16, zorder=3)
    low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
    margin = 0.06 * (high - low).max() or 1.0
    axes.set(
        xlim=(low[0] - margin, high[0] + margin),
        ylim=(low[1] - margin, high[1] + margin),
        aspect="equal",
    )
    axes.set_title("from above (metres)", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.tick_params(labelsize=7)


def _coloured_points(view: View, axes_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """About MOST_POINTS points [N, 3] of the frames, in the axes of the map, and colours [N, 3]."""
    frames = [
        f for f in view.frames.values() if f.depth is not None and f.camera_to_world is not None
    ]
    points, colours = [np.empty((0, 3))], [np.empty((0, 3))]
    for frame in frames:
        stride = max(1, int((frame.depth.size * len(frames) / MOST_POINTS) ** 0.5))
        rows, columns = np.nonzero(frame.depth[::stride, ::stride] > 0)
        rows, columns = rows * stride, columns * stride
        points.append(points_of(frame, rows, columns).T @ axes_from_world.T)
        colours.append(frame.rgb[rows, columns] / 255)
    return np.concatenate(points), np.concatenate(colours)


def _draw_ids(axes, view: View, frames: list[SceneFrame]) -> None:
    """Bars: share of the shown frames' pixels by id, the largest first.

    The background (id 0) is in the title only: its bar would dwarf the others.
    """
    ids = np.concatenate([f.instance.ravel() for f in frames if f.instance is not None])
    shares = id_shares(ids)
    background = shares.pop(0, 0.0)
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
    title = f"{len(shown)} of {len(shares)} ids, share of the shown pixels (0: {background:.1%})"
    axes.set_title(title, fontsize=9)


def report(view: View, results: dict[int, Agreement]) -> Iterable[str]:
    """The numbers of the picture, line by line; the first line is its title."""
    attributes = {"ids": "instance", "depth": "depth", "cameras": "camera_to_world"}
    available = [
        name
        for name, attribute in attributes.items()
        if any(getattr(frame, attribute) is not None for frame in view.frames.values())
    ]
    yield f"{view.name}: {len(view.stems)} frames; {', '.join(available) or 'colour only'}"
    yield from view.problems[:MOST_PROBLEMS]
    if len(view.problems) > MOST_PROBLEMS:
        yield f"... and {len(view.problems) - MOST_PROBLEMS} lines like these"
    for i in view.shown:
        ids = view.frames[i].instance
        if ids is not None:
            shares = ", ".join(
                f"{'void' if n < 0 else n} {share:.1%}" for n, share in id_shares(ids).items()
            )
            yield f"{view.stems[i]}: ids {shares}"
    for i, result in results.items():
        yield f"{view.stems[i]} -> {view.stems[view.pairs[i]]}: {result}"
