"""The geometry part of a report: where features correspond, and the scene from above.

The figures look at one prompted object with the geometry as it is after the whole video was seen.
"""

from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from geometry_fusion.comparison import Arm
from geometry_fusion.geometry import Must3rStream
from geometry_fusion.mask_files import innermost_point
from geometry_fusion.merger import to_appearance
from geometry_fusion.plots import BLUE, PAGE_STYLE, plt, svg_of
from geometry_fusion.reconstruct import draw_scene, object_point
from geometry_fusion.report_pictures import jpeg, scaled

PANEL = (320, 720)  # pixels of a similarity map's long side: at least, at most
LOWEST = -0.2  # similarity drawn darkest
SHARE_OF_HEAT = 0.62
QUERY, BEST = (40, 190, 60), (92, 225, 255)


@dataclass(frozen=True)
class SimilarityMap:
    """How alike all places of a frame are to the place that was asked for, or that place itself."""

    name: str  # of the feature
    caption: str
    picture: str  # data URI
    alt: str


@dataclass(frozen=True)
class GeometryFigures:
    """What the report embeds."""

    maps: list[SimilarityMap]
    above: str  # SVG
    above_alt: str
    object_id: int
    query_stem: str
    far_stem: str


@torch.inference_mode()
def feature_maps(
    predictor, source: Must3rStream, frames, index: int, level_names: list[str]
) -> dict[str, Tensor]:
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


def similarity(
    query: Tensor, query_xy: tuple[float, float], image_size: tuple[int, int], other: Tensor
) -> np.ndarray:
    """Cosine similarity of the feature under a pixel of one frame to all places of another: [H, W]
    in -1..1.
    """
    width, height = image_size
    rows, columns = query.shape[-2:]
    row = min(int((query_xy[1] + 0.5) / height * rows), rows - 1)
    column = min(int((query_xy[0] + 0.5) / width * columns), columns - 1)
    # What all places have in common says nothing about correspondence.
    centre = other.flatten(1).mean(1)
    vector = normalize(query[:, row, column] - centre, dim=0)
    found = torch.einsum("c,chw->hw", vector, normalize(other - centre[:, None, None], dim=0))
    return interpolate(found[None, None], (height, width), mode="bilinear")[0, 0].cpu().numpy()


def figures_of(predictor, arm: Arm, frames, prompts: list, read_ids) -> GeometryFigures | None:
    """Correspondence and view from above for the first prompted object; None where MUSt3R is not
    the source, or where the object is found in no second frame."""
    if not isinstance(predictor.source, Must3rStream):
        return None
    prompt = prompts[0]
    masks = [read_ids(arm, stem) == prompt.object_id for stem in frames.stems]
    if not (prompt.points or masks[prompt.frame].any()):
        return None
    levels = predictor.source.levels
    return geometry_figures(
        predictor,
        predictor.source,
        frames,
        prompt_frame=prompt.frame,
        query_xy=prompt.points[0] if prompt.points else innermost_point(masks[prompt.frame]),
        masks=masks,
        level_names=[
            "MUSt3R encoder" if level == 0 else f"MUSt3R decoder {level}" for level in levels
        ],
        object_id=prompt.object_id,
    )


def geometry_figures(
    predictor,
    source: Must3rStream,
    frames,
    *,
    prompt_frame: int,
    query_xy: tuple[float, float],
    masks: list[np.ndarray],  # the object in every frame [H, W] bool, as the arm found it
    level_names: list[str],
    object_id: int = 1,
) -> GeometryFigures | None:
    """None where the object is found in no second frame."""
    cameras, points, colours, places = [], [], [], []
    for index in range(len(frames)):
        answer = source.render(index, frames[index])
        cameras.append(answer.camera.camera_to_world.cpu().numpy())
        every = (..., slice(None, None, 4), slice(None, None, 4))
        points.append(answer.points[every].permute(1, 2, 0).reshape(-1, 3).cpu().numpy())
        colours.append(answer.fit.apply(frames[index])[::4, ::4].reshape(-1, 3))
        places.append(object_point(answer, masks[index]) if masks[index].any() else None)
    poses = np.stack(cameras)
    seen = [i for i, place in enumerate(places) if place is not None and i != prompt_frame]
    if not seen:
        return None
    # The far view: the object's frame whose camera stands or looks most differently.
    turned = np.arccos(
        np.clip(
            (np.einsum("ij,nij->n", poses[prompt_frame][:3, :3], poses[:, :3, :3]) - 1) / 2, -1, 1
        )
    )
    moved = np.linalg.norm(poses[:, :3, 3] - poses[prompt_frame][:3, 3], axis=1) / float(
        answer.scale
    )
    far = max(seen, key=lambda i: turned[i] + moved[i])
    scene = np.concatenate(points), np.concatenate(colours), poses, source.keyframes
    return GeometryFigures(
        similarity_maps(
            predictor, source, frames, prompt_frame, query_xy, far, masks[far], level_names
        ),
        _above(*scene, places, prompt_frame),
        f"The scene from above: the path of the camera with {len(source.keyframes)} keyframes, "
        "and the place of object "
        f"{object_id} in the {len(seen)} frames that show it besides frame "
        f"{frames.stems[prompt_frame]}.",
        object_id,
        frames.stems[prompt_frame],
        frames.stems[far],
    )


def similarity_maps(
    predictor, source, frames, prompt_frame, query_xy, far, far_mask, level_names
) -> list[SimilarityMap]:
    """The place that is asked for, and a map of another frame for every kind of feature."""
    query = feature_maps(predictor, source, frames, prompt_frame, level_names)
    other = feature_maps(predictor, source, frames, far, level_names)
    x, y = round(query_xy[0]), round(query_xy[1])
    stem, far_stem = frames.stems[prompt_frame], frames.stems[far]
    place = _marked(frames[prompt_frame], query_xy, cv2.MARKER_DIAMOND, QUERY)
    maps = [
        SimilarityMap(
            "query", f"the place asked for, frame {stem}", place, f"Frame {stem}, a dot at {x},{y}"
        )
    ]
    grey = np.repeat(cv2.cvtColor(frames[far], cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    for name in query:
        heat = similarity(query[name], query_xy, frames.size, other[name])
        best_y, best_x = np.unravel_index(heat.argmax(), heat.shape)
        shown = (np.clip(heat, LOWEST, 1) - LOWEST) / (1 - LOWEST)
        shade = matplotlib.colormaps["inferno"](shown)[..., :3] * 255
        painted = (grey * (1 - SHARE_OF_HEAT) + shade * SHARE_OF_HEAT).astype(np.uint8)
        where = "on the object" if far_mask[best_y, best_x] else "beside the object"
        alt = f"Frame {far_stem}, similarity under {name}: the most similar place is "
        f"{best_x},{best_y}, {where}"
        picture = _marked(painted, (best_x, best_y), cv2.MARKER_CROSS, BEST)
        maps.append(SimilarityMap(name, f"most similar place {where}", picture, alt))
    return maps


def _marked(
    rgb: np.ndarray, xy: tuple[float, float], marker: int, colour: tuple[int, int, int]
) -> str:
    """The picture at a size to look at, with a mark at a place; data URI."""
    side = max(rgb.shape[:2])
    scale = np.clip(side, *PANEL) / side
    picture = np.ascontiguousarray(scaled(rgb, scale))
    # Pixel centres are at integers.
    place = tuple(round((float(v) + 0.5) * scale - 0.5) for v in xy)
    size = max(14, round(max(picture.shape[:2]) / 22))
    if marker == cv2.MARKER_DIAMOND:
        cv2.circle(picture, place, size // 2, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, place, size // 2 - 2, colour, -1, cv2.LINE_AA)
    else:
        cv2.drawMarker(picture, place, (0, 0, 0), marker, size + 4, 5, cv2.LINE_AA)
        cv2.drawMarker(picture, place, colour, marker, size, 2, cv2.LINE_AA)
    return jpeg(picture)


def _above(points, colours, poses, keyframes, places, prompt_frame) -> str:
    with plt.rc_context(PAGE_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 5.6), dpi=110, layout="constrained")
        draw_scene(axes, points, colours, poses, keyframes)
        known = np.array([p for p in places if p is not None])
        axes.plot(
            known[:, 0], known[:, 2], ".", color=BLUE, ms=7, label="object, as found in each frame"
        )
        asked = places[prompt_frame]
        if asked is not None:
            axes.plot(
                asked[0],
                asked[2],
                "*",
                color="#28be3c",
                ms=15,
                mec="white",
                label="object, prompted frame",
            )
        figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=2)
        return svg_of(figure, "above")
