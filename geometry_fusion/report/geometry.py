"""The geometry part of a report: correspondence of features, and the scene from above.

The scene is drawn from the geometry that tracking returns with every frame (`SceneRecord`). The
features of two frames are compared as the geometry source's memory has them after the whole video.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from geometry_fusion.geometry.cameras import rotation_angle
from geometry_fusion.geometry.object_point import object_point
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.mask_writer import innermost_point
from geometry_fusion.merger_parts import to_appearance
from geometry_fusion.report.pictures import jpeg, scaled
from geometry_fusion.report.pyplot import BLUE, PAGE_STYLE, plt, svg_of
from geometry_fusion.report.reconstruct import draw_scene
from geometry_fusion.tracking.pixels import square
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.types import Frames, GeometryFrame, Prompt, TrackedFrame

PANEL = (320, 720)  # pixels of a similarity map's long side: at least, at most
LOWEST = -0.2  # similarity that is drawn darkest
SHARE_OF_HEAT = 0.62  # of the colour map over the grey frame
EVERY_PIXEL = 4  # points are taken from every n-th row and column
QUERY, BEST = (40, 190, 60), (92, 225, 255)  # colours of the marks


@dataclass(frozen=True)
class SimilarityMap:
    """The similarity of all places of a frame to the query place; or the query place itself."""

    name: str  # of the feature, or "query"
    caption: str
    picture: str  # data URI
    alt: str


@dataclass(frozen=True)
class GeometryFigures:
    """The figures and names that the report's page shows."""

    maps: list[SimilarityMap]  # empty where the source has no features
    origin: str  # of the scene's geometry
    above: str  # the scene from above, SVG
    above_alt: str
    object_id: int
    query_stem: str  # the prompted frame
    far_stem: str  # the frame that is compared with it


@torch.inference_mode()
def feature_maps(
    predictor: GeometryVideoPredictor,
    source: GeometrySource,
    frames: Frames,
    index: int,
    level_names: list[str],
) -> dict[str, Tensor]:
    """Features of one frame by name, each [C, h, w] on a grid that covers the whole frame."""
    pixels = square(frames[index], predictor.image_size).to(predictor.device)[None]
    appearance = predictor.forward_image(pixels)["backbone_fpn"][-1]
    geometry = source.render(index, frames[index]).to(predictor.device)
    features = {"SAM2": appearance[0]}
    for name, level in zip(level_names, geometry.levels):
        features[name] = to_appearance(level[None], geometry, appearance.shape[-2:])[0]
    features["merged"] = predictor.merger(appearance, geometry)[0]
    return features


def similarity(
    query: Tensor, query_xy: tuple[float, float], image_size: tuple[int, int], other: Tensor
) -> np.ndarray:
    """Cosine similarity of the feature at a pixel of one frame to all places of another.

    query, other: features [C, h, w] of the two frames. query_xy: the pixel. image_size: (width,
    height) of the frames. Returns [H, W] in -1..1.
    """
    width, height = image_size
    rows, columns = query.shape[-2:]
    row = min(int((query_xy[1] + 0.5) / height * rows), rows - 1)
    column = min(int((query_xy[0] + 0.5) / width * columns), columns - 1)
    # The mean is subtracted, because what all places share does not indicate correspondence.
    centre = other.flatten(1).mean(1)
    vector = normalize(query[:, row, column] - centre, dim=0)
    cosine = torch.einsum("c,chw->hw", vector, normalize(other - centre[:, None, None], dim=0))
    return interpolate(cosine[None, None], (height, width), mode="bilinear")[0, 0].cpu().numpy()


@dataclass(frozen=True)
class _View:
    """The contribution of one frame to the picture of the scene."""

    camera_to_world: np.ndarray  # [4, 4]
    points: np.ndarray  # [N, 3]
    colours: np.ndarray  # [N, 3] uint8
    object_point: np.ndarray | None  # [3] place of the object; None in frames without it


class SceneRecord:
    """Collects the geometry of tracked frames: call `add` for each. object_id: the object whose
    places are recorded.
    """

    def __init__(self, frames: Frames, object_id: int):
        self.object_id = object_id
        self.scale = 1.0  # the unit of distances between cameras, as GeometryFrame.scale
        self._frames = frames
        self._views: dict[int, _View] = {}

    @property
    def has_views(self) -> bool:
        """Whether any frame with a camera was recorded."""
        return bool(self._views)

    def add(self, frame: TrackedFrame) -> None:
        """Record a frame, if it has geometry with a camera."""
        if frame.geometry is not None and frame.geometry.camera is not None:
            self._add(frame.index, frame.geometry, frame.ids)

    def _add(self, index: int, geometry: GeometryFrame, ids: np.ndarray) -> None:
        every = (..., slice(None, None, EVERY_PIXEL), slice(None, None, EVERY_PIXEL))
        mask = ids == self.object_id
        image = geometry.fit.apply(self._frames[index])
        self.scale = float(geometry.scale)
        self._views[index] = _View(
            geometry.camera.camera_to_world.cpu().numpy(),
            geometry.points[every].permute(1, 2, 0).reshape(-1, 3).cpu().numpy(),
            image[::EVERY_PIXEL, ::EVERY_PIXEL].reshape(-1, 3),
            object_point(geometry, mask) if mask.any() else None,
        )

    def complete(
        self, source: GeometrySource, read_ids: Callable[[int], np.ndarray]
    ) -> list[_View]:
        """The views of all frames, in order.

        Frames that were not recorded (tracking does not repeat those between two prompts) are
        rendered by `source`. read_ids: index -> ids [H, W].
        """
        for index in range(len(self._frames)):
            if index not in self._views:
                self._add(index, source.render(index, self._frames[index]), read_ids(index))
        return [self._views[index] for index in range(len(self._frames))]


def figures_of(
    predictor: GeometryVideoPredictor,
    source: GeometrySource,
    record: SceneRecord,
    frames: Frames,
    prompt: Prompt,
    read_ids: Callable[[int], np.ndarray],  # index -> ids [H, W]
) -> GeometryFigures | None:
    """Correspondence and view from above for one prompted object.

    A source without features has no correspondence. None where the source knows nothing, or where
    the masks show the object in no second frame.
    """
    if not record.has_views:
        return None
    prompted_mask = read_ids(prompt.frame) == prompt.object_id
    if not (prompt.points or prompted_mask.any()):
        return None
    query_xy = prompt.points[0] if prompt.points else innermost_point(prompted_mask)
    views = record.complete(source, read_ids)
    shows_object = [i for i, view in enumerate(views) if view.object_point is not None]
    others = [index for index in shows_object if index != prompt.frame]
    if not others:
        return None
    poses = np.stack([view.camera_to_world for view in views])
    far = _farthest_view(poses, prompt.frame, others, record.scale)
    far_mask = read_ids(far) == prompt.object_id
    names = [f"MUSt3R decoder {level}" if level else "MUSt3R encoder" for level in source.levels]
    maps = []
    if names:
        maps = similarity_maps(
            predictor, source, frames, prompt.frame, query_xy, far, far_mask, names
        )
    return GeometryFigures(
        maps=maps,
        origin=source.origin,
        above=_above(views, poses, source.keyframes, prompt.frame),
        above_alt=f"The scene from above: the path of the camera with {len(source.keyframes)} "
        f"keyframes, and the place of object {prompt.object_id} in the {len(others)} frames that "
        f"show it besides frame {frames.stems[prompt.frame]}.",
        object_id=prompt.object_id,
        query_stem=frames.stems[prompt.frame],
        far_stem=frames.stems[far],
    )


def _farthest_view(poses: np.ndarray, start: int, candidates: list[int], scale: float) -> int:
    """The candidate whose camera differs most from that of the frame `start`."""
    angles = rotation_angle(poses[start], poses)
    distances = np.linalg.norm(poses[:, :3, 3] - poses[start][:3, 3], axis=1) / scale
    return max(candidates, key=lambda i: angles[i] + distances[i])


def similarity_maps(
    predictor: GeometryVideoPredictor,
    source: GeometrySource,
    frames: Frames,  # with `stems`
    prompt_frame: int,
    query_xy: tuple[float, float],  # pixel of the prompted frame
    far: int,  # the frame that is compared with it
    far_mask: np.ndarray,  # [H, W] bool, the object there
    level_names: list[str],  # of the source's feature levels
) -> list[SimilarityMap]:
    """The query place, and for every kind of feature a map of another frame."""
    query = feature_maps(predictor, source, frames, prompt_frame, level_names)
    other = feature_maps(predictor, source, frames, far, level_names)
    x, y = round(query_xy[0]), round(query_xy[1])
    stem, far_stem = frames.stems[prompt_frame], frames.stems[far]
    picture = _marked(frames[prompt_frame], query_xy, cv2.MARKER_DIAMOND, QUERY)
    caption = f"the place asked for, frame {stem}"
    maps = [SimilarityMap("query", caption, picture, f"Frame {stem}, a dot at {x},{y}")]
    grey = np.repeat(cv2.cvtColor(frames[far], cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    for name in query:
        heat = similarity(query[name], query_xy, frames.size, other[name])
        best_y, best_x = np.unravel_index(heat.argmax(), heat.shape)
        shown = (np.clip(heat, LOWEST, 1) - LOWEST) / (1 - LOWEST)
        shade = matplotlib.colormaps["inferno"](shown)[..., :3] * 255
        painted = (grey * (1 - SHARE_OF_HEAT) + shade * SHARE_OF_HEAT).astype(np.uint8)
        where = "on the object" if far_mask[best_y, best_x] else "beside the object"
        alt = (
            f"Frame {far_stem}, similarity under {name}: the most similar place is "
            f"{best_x},{best_y}, {where}"
        )
        picture = _marked(painted, (best_x, best_y), cv2.MARKER_CROSS, BEST)
        maps.append(SimilarityMap(name, f"most similar place {where}", picture, alt))
    return maps


def _marked(
    rgb: np.ndarray, xy: tuple[float, float], marker: int, colour: tuple[int, int, int]
) -> str:
    """A picture resized for the page, with a mark at a pixel, as data URI."""
    side = max(rgb.shape[:2])
    scale = np.clip(side, *PANEL) / side
    picture = np.ascontiguousarray(scaled(rgb, scale))
    # Pixel centres are at integers.
    place = tuple(round((float(value) + 0.5) * scale - 0.5) for value in xy)
    size = max(14, round(max(picture.shape[:2]) / 22))
    if marker == cv2.MARKER_DIAMOND:
        cv2.circle(picture, place, size // 2, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, place, size // 2 - 2, colour, -1, cv2.LINE_AA)
    else:
        cv2.drawMarker(picture, place, (0, 0, 0), marker, size + 4, 5, cv2.LINE_AA)
        cv2.drawMarker(picture, place, colour, marker, size, 2, cv2.LINE_AA)
    return jpeg(picture)


def _above(views: list[_View], poses: np.ndarray, keyframes: list[int], prompt_frame: int) -> str:
    """The scene from above as SVG."""
    points = np.concatenate([view.points for view in views])
    colours = np.concatenate([view.colours for view in views])
    with plt.rc_context(PAGE_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 5.6), dpi=110, layout="constrained")
        draw_scene(axes, points, colours, poses, keyframes)
        places = np.array([v.object_point for v in views if v.object_point is not None])
        style = {"color": BLUE, "ms": 7, "label": "object, as found in each frame"}
        axes.plot(places[:, 0], places[:, 2], ".", **style)
        prompted = views[prompt_frame].object_point
        if prompted is not None:
            style = {"color": "#28be3c", "ms": 15, "mec": "white"}
            axes.plot(prompted[0], prompted[2], "*", label="object, prompted frame", **style)
        figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=2)
        return svg_of(figure, "above")
