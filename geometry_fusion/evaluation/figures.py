"""Curves of an evaluation: IoU over viewpoint change and over absence."""

import itertools
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from geometry_fusion.io.atomic import replacing_file

PANELS = {
    "by_viewpoint_change": "degrees between the prompted view and this one",
    "by_frames_out_of_view": "frames out of view since the prompt",
}


def draw(results: dict, config: DictConfig, file: Path, gain: bool) -> None:
    """Plot mean IoU over viewpoint change and over frames out of view, one line per arm.

    Only frames with the object count. gain: plot the difference to the first arm, which is sam2
    unless it is left out.
    """
    from geometry_fusion.report.pyplot import plt

    height = 3.4 * len(config.prompts)
    figure, rows = plt.subplots(
        len(config.prompts), 2, figsize=(11, height), layout="constrained", squeeze=False
    )
    for row, prompt in zip(rows, config.prompts):
        for axes, (key, label) in zip(row, PANELS.items()):
            _draw_panel(axes, results["by_prompt"][prompt][key], list(config.arms), gain)
            over = f" gain over {config.arms[0]}" if gain else ""
            axes.set(xlabel=label, ylabel=f"IoU{over}, {prompt} prompt")
    rows[0][0].legend(frameon=False)
    with replacing_file(file) as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def _draw_panel(axes, binned: dict, arms: list[str], gain: bool) -> None:
    """binned: "bins" -> their edges, and arm -> (mean, number of frames) of each bin."""
    bins = binned["bins"]
    # Bins of frame counts hold whole numbers: 1-5 and 6-15, where angles have 15-30 and 30-60.
    whole = all(isinstance(edge, int) for edge in bins) and bins[1] == 1
    names = [f"{a}-{b - 1 if whole else b}" for a, b in itertools.pairwise(bins)]
    names[-1] = f"{bins[-2]}+"
    means = {
        arm: np.array([np.nan if mean is None else mean for mean, _ in binned[arm]]) for arm in arms
    }
    for number, arm in enumerate(arms):
        if gain and not number:
            continue
        values = means[arm] - means[arms[0]] if gain else means[arm]
        axes.plot(names, values, color=f"C{number}", marker="o", label=arm)
    labels = [f"{name}\n{count} frames" for name, (_, count) in zip(names, binned[arms[0]])]
    axes.set_xticks(range(len(names)), labels, fontsize=8)
    if gain:
        axes.axhline(0, color="#888", lw=0.8)
    else:
        axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
