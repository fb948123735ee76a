"""The geometry part of a report: side-by-side video, where features correspond, and the scene from above.

The figures look at one prompted object with the geometry as it is after the whole video was seen.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from geometry_fusion.geometry import Must3rStream
from geometry_fusion.mask_files import overlay
from geometry_fusion.merger import to_appearance
from geometry_fusion.reconstruct import draw_scene, object_point
from geometry_fusion.video import VideoWriter

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class GeometryFigures:
    """SVG or data URIs that the report embeds."""

    correspondence: str
    above: str
    far_stem: str


def write_side_by_side(file: Path, frames, arms: list, read_ids) -> None:
    """The arms' overlays next to each other, each under its name: H.264 at the frames' rate."""
    width, height = frames.size
    bar = max(18, height // 14)
    size = (len(arms) * width // 2 * 2, (height + bar) // 2 * 2)
    with VideoWriter(file, frames.frame_rate, size) as writer:
        for index, stem in enumerate(frames.stems):
            panels = []
            for arm in arms:
                panel = np.full((height + bar, width, 3), 255, np.uint8)
                panel[bar:] = overlay(frames[index], read_ids(arm, stem))
                scale = bar / 32
                cv2.putText(
                    panel, arm.title, (6, bar - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA
                )
                panels.append(panel)
            writer.write(np.ascontiguousarray(np.hstack(panels)[: size[1], : size[0]]))


@torch.inference_mode()
def feature_maps(predictor, source: Must3rStream, frames, index: int, level_names: list[str]) -> dict[str, Tensor]:
    """Features of one frame by name, each [C, h, w] on a grid that covers the whole frame."""
    from geometry_fusion.predictor import LazyFrames

    pixels = LazyFrames(frames, predictor.image_size)[index].to(predictor.device)[None]
    appearance = predictor.forward_image(pixels)["backbone_fpn"][-1]
    answer = source.render(index, frames[index]).to(predictor.device)
    maps = {"SAM2": appearance[0]}
    for name, level in zip(level_names, answer.levels):
        maps[name] = to_appearance(level[None], answer, appearance.shape[-2:])[0]
    maps["merged"] = predictor.merger(appearance, answer)[0]
    return maps


def similarity(query: Tensor, query_xy: tuple[float, float], image_size: tuple[int, int], other: Tensor) -> np.ndarray:
    """Cosine similarity of the feature under a pixel of one frame to all places of another: [H, W] in -1..1."""
    width, height = image_size
    rows, columns = query.shape[-2:]
    row = min(int((query_xy[1] + 0.5) / height * rows), rows - 1)
    column = min(int((query_xy[0] + 0.5) / width * columns), columns - 1)
    # What all places have in common says nothing about correspondence.
    centre = other.flatten(1).mean(1)
    vector = normalize(query[:, row, column] - centre, dim=0)
    found = torch.einsum("c,chw->hw", vector, normalize(other - centre[:, None, None], dim=0))
    return interpolate(found[None, None], (height, width), mode="bilinear")[0, 0].cpu().numpy()


def geometry_figures(
    predictor,
    source: Must3rStream,
    frames,
    *,
    prompt_frame: int,
    query_xy: tuple[float, float],
    masks: list[np.ndarray],  # the object in every frame [H, W] bool, as the arm found it
    level_names: list[str],
) -> GeometryFigures | None:
    """None where the object is found in no second frame."""
    answers, points, colours, places = [], [], [], []
    for index in range(len(frames)):
        answer = source.render(index, frames[index])
        answers.append(answer.camera.camera_to_world.cpu().numpy())
        every = (..., slice(None, None, 4), slice(None, None, 4))
        points.append(answer.points[every].permute(1, 2, 0).reshape(-1, 3).cpu().numpy())
        colours.append(answer.fit.apply(frames[index])[::4, ::4].reshape(-1, 3))
        places.append(object_point(answer, masks[index]) if masks[index].any() else None)
    poses = np.stack(answers)
    seen = [i for i, place in enumerate(places) if place is not None and i != prompt_frame]
    if not seen:
        return None
    # The far view: the object's frame whose camera stands or looks most differently.
    turned = np.arccos(np.clip((np.einsum("ij,nij->n", poses[prompt_frame][:3, :3], poses[:, :3, :3]) - 1) / 2, -1, 1))
    moved = np.linalg.norm(poses[:, :3, 3] - poses[prompt_frame][:3, 3], axis=1) / float(answer.scale)
    far = max(seen, key=lambda i: turned[i] + moved[i])
    return GeometryFigures(
        _correspondence(predictor, source, frames, prompt_frame, query_xy, far, level_names),
        _above(np.concatenate(points), np.concatenate(colours), poses, source.keyframes, places, prompt_frame),
        frames.stems[far],
    )


def _correspondence(predictor, source, frames, prompt_frame, query_xy, far, level_names) -> str:
    query = feature_maps(predictor, source, frames, prompt_frame, level_names)
    other = feature_maps(predictor, source, frames, far, level_names)
    columns = len(query) + 1
    figure, axes = plt.subplots(1, columns, figsize=(2.1 * columns, 2.5), layout="constrained")
    axes[0].imshow(frames[prompt_frame])
    axes[0].plot(*query_xy, "o", color="#28be3c", ms=7, mec="white", mew=1.5)
    axes[0].set_title("query", fontsize=10)
    for panel, name in zip(axes[1:], query):
        heat = similarity(query[name], query_xy, frames.size, other[name])
        panel.imshow(cv2.cvtColor(frames[far], cv2.COLOR_RGB2GRAY), cmap="gray", vmin=0, vmax=255)
        panel.imshow(heat, cmap="inferno", alpha=0.62, vmin=-0.2, vmax=1)
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        panel.plot(x, y, "+", color="#5ce1ff", ms=9, mew=2)
        panel.set_title(name, fontsize=10)
    for panel in axes:
        panel.set_axis_off()
    return _png(figure)


def _above(points, colours, poses, keyframes, places, prompt_frame) -> str:
    figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    draw_scene(axes, points, colours, poses, keyframes)
    known = np.array([p for p in places if p is not None])
    axes.plot(known[:, 0], known[:, 2], ".", color="#1f6fb2", ms=7, label="object, as found in each frame")
    asked = places[prompt_frame]
    if asked is not None:
        axes.plot(asked[0], asked[2], "*", color="#28be3c", ms=15, mec="white", label="object in the prompted frame")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    return _png(figure)


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
