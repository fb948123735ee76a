"""Geometry of every k-th frame, carried to the frames between by optical flow.

`CarriedGeometry` wraps a source. It asks the source for one frame in k. A frame between is matched
to the last frame that was asked for, and every cell takes the geometry of the place it came from;
the camera is fitted to the points. So masks still get geometry in every frame, for a part of its
price (docs/performance.md has the price in quality).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from geometry_fusion.fit import Fit
from geometry_fusion.geometry.cameras import rays_of
from geometry_fusion.geometry.flow import dis_flow
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.types import Camera, GeometryFrame

SIDE = 128  # pixels of the squashed grey frames in which flow is computed
POSE_CELLS = 16  # per side: the points to which a camera is fitted
POSE_ROUNDS = 5  # each fits to the half of the points that fitted best before
FEWEST_POINTS = 12  # known ones; with fewer the camera stays where it was


@dataclass(frozen=True)
class _Asked:
    """The last frame that the source was asked for."""

    index: int
    grey: np.ndarray  # [SIDE, SIDE] uint8
    geometry: GeometryFrame


class CarriedGeometry(GeometrySource):
    """The source's own answer for frames 0, k, 2k, ...; between them, the last one carried on.

    The source is asked as well while its first frames may still move its coordinates, and where the
    last frame it was asked for is k or more frames away, as after a jump.

    every: k, at least 1. Raises ValueError for less.
    """

    def __init__(self, source: GeometrySource, every: int):
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1")
        self._source, self._every = source, every
        self.levels, self.tolerance = source.levels, source.tolerance
        self.anchored = source.anchored
        self.origin = f"{source.origin}, of every {every}. frame"
        self._last: _Asked | None = None
        self._last_flow: np.ndarray | None = None  # to `_last` from the frame that was carried last

    @property
    def settled(self) -> bool:
        """That of the source."""
        return self._source.settled

    @property
    def keyframes(self) -> list[int]:
        """Those of the source."""
        return self._source.keyframes

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]."""
        return self.push_all({frame_index: image})[0]

    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` of one after another; the frames of which the source is asked go to it
        together.
        """
        waiting = dict(frames)
        answers = []
        while waiting and not self._source.settled:
            first = next(iter(waiting))
            image = waiting.pop(first)
            answers.append(self._source.push(first, image))
            self._took_in(first, image, answers[-1])
        asked = {index: waiting[index] for index in self._to_ask(waiting)}
        own = dict(zip(asked, self._source.push_all(asked)))
        for index, image in waiting.items():
            if index in own:
                self._took_in(index, image, own[index])
                answers.append(own[index])
            else:
                answers.append(self._carried(_grey(image)))
        return answers

    def _to_ask(self, indices: Iterable[int]) -> list[int]:
        """The frames of which the source is asked."""
        last = None if self._last is None else self._last.index
        asked = []
        for index in indices:
            if last is None or index % self._every == 0 or abs(index - last) >= self._every:
                asked.append(index)
                last = index
        return asked

    def _took_in(self, index: int, image: np.ndarray, answer: GeometryFrame) -> None:
        self._last, self._last_flow = _Asked(index, _grey(image), answer), None

    def _carried(self, grey: np.ndarray) -> GeometryFrame:
        """The geometry of the last frame that the source was asked for, where its pixels went."""
        last = self._last.geometry
        fit = last.fit
        # Begins with the flow of the frame before, as the distance grows from frame to frame.
        flow = self._last_flow = dis_flow(grey, self._last.grey, self._last_flow)
        height, width = last.confidence.shape
        origins = _origins(flow, fit, height, width)
        maps = torch.cat((last.points, last.confidence[None]))
        # The nearest point: between an object and its background no point would be right.
        *points, confidence = _sampled(maps, origins, "nearest")
        inside = torch.from_numpy((np.abs(origins) <= 1).all(-1)).to(confidence.device)
        levels = tuple(
            _sampled(level, _origins(flow, fit, *level.shape[1:]), "bilinear")
            for level in last.levels
        )
        answer = replace(
            last,
            levels=levels,
            points=torch.stack(points),
            confidence=torch.where(inside, confidence, 0.0),
            carried=True,
        )
        if last.camera is None:
            return answer
        camera = _fitted_camera(answer, last.points, origins)
        focal = confidence.new_tensor([camera.focal * fit.scale[0]])
        rays = rays_of(camera.camera_to_world[None], focal, (width, height))[0]
        return replace(answer, camera=camera, rays=rays)

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """As the source renders it."""
        return self._source.render(frame_index, image)

    def reset(self) -> None:
        """Reset the source."""
        self._source.reset()
        self._last = self._last_flow = None

    def trim(self, renders: bool = False) -> None:
        """Trim the source."""
        self._source.trim(renders)

    def snapshot(self) -> dict:
        """The snapshot of the source, and its last answer."""
        snapshot = {"source": self._source.snapshot()}
        if self._last_flow is not None:
            snapshot["flow"] = torch.from_numpy(self._last_flow)
        if self._last is not None:
            geometry = self._last.geometry
            tensors = ("levels", "points", "rays", "confidence", "scale")
            fit, camera = geometry.fit, geometry.camera
            snapshot["last"] = {
                "index": self._last.index,
                "grey": torch.from_numpy(self._last.grey.copy()),
                "fit": (fit.original, fit.resized, fit.crop, fit.size, int(fit.shrink_filter)),
                "camera": camera and (camera.focal, camera.camera_to_world),
                **{name: getattr(geometry, name) for name in tensors},
            }
        return snapshot

    def restore(self, snapshot: dict) -> None:
        """Continue from the `snapshot` of a source with the same k."""
        self._source.restore(snapshot["source"])
        self._last = self._last_flow = None
        if "last" in snapshot:
            last = dict(snapshot["last"])
            index, grey = last.pop("index"), last.pop("grey").cpu().numpy()
            *sizes, shrink_filter = last.pop("fit")
            fit = Fit(*map(tuple, sizes), Image.Resampling(shrink_filter))
            camera = last.pop("camera")
            last["levels"] = tuple(last["levels"])
            geometry = GeometryFrame(**last, fit=fit, camera=camera and Camera(*camera))
            self._last = _Asked(index, grey, geometry)
        if "flow" in snapshot:
            self._last_flow = snapshot["flow"].cpu().numpy()


def _grey(image: np.ndarray) -> np.ndarray:
    """An RGB uint8 frame as the flow sees it: [SIDE, SIDE] uint8, squashed."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _origins(
    flow: np.ndarray,  # [SIDE, SIDE, 2] to where each pixel was: x, y in pixels
    fit: Fit,
    height: int,
    width: int,
) -> np.ndarray:
    """Where each cell of a grid over the fitted image was, as `grid_sample` has it: float32
    [height, width, 2], the image's edges at -1 and 1.
    """
    # The centres of cells in the squashed frame, in its pixels.
    x, y = (fit.lies_at(a, n).astype(np.float32) * SIDE - 0.5 for a, n in ((0, width), (1, height)))
    columns, rows = np.meshgrid(x, y)
    shift = cv2.remap(flow, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The fitted image may show a part of the frame.
    shown = np.array([fit.size[a] / fit.resized[a] for a in (0, 1)], np.float32)
    u, v = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in (width, height))
    here = np.stack(np.meshgrid(u, v), -1)
    return 2 * (here + shift / SIDE / shown) - 1


def _sampled(grids: Tensor, origins: np.ndarray, mode: str) -> Tensor:
    """Grids [C, h, w] at `origins` [H, W, 2]: [C, H, W]. mode: of `grid_sample`."""
    at = torch.from_numpy(origins)[None].to(grids.device)
    return grid_sample(grids[None], at, mode, padding_mode="border", align_corners=False)[0]


def _fitted_camera(answer: GeometryFrame, points: Tensor, origins: np.ndarray) -> Camera:
    """The camera that sees points where they are now; begins from where it was.

    answer: of this frame, with the last frame's camera. points: [3, H, W] of the last frame;
    origins: of the cells [H, W, 2].
    """
    camera, fit = answer.camera, answer.fit
    height, width = answer.confidence.shape
    rows, columns = (np.arange(POSE_CELLS) * n // POSE_CELLS for n in (height, width))
    cells = np.ix_(rows, columns)
    weights = answer.confidence[cells].cpu().numpy().ravel()
    surest = (weights > 0) & (weights >= np.median(weights))
    if surest.sum() < FEWEST_POINTS:
        return camera
    # Between points of one surface: shifts by less than a cell count here.
    world = _sampled(points, origins[cells], "bilinear").flatten(1).T.cpu().numpy()
    world = world[surest].astype(float)
    x, y = np.meshgrid(columns, rows)
    pixels = np.stack((x.ravel(), y.ravel()), -1)[surest].astype(float)
    focal = camera.focal * fit.scale[0] * width / fit.size[0]
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    world_to_camera = np.linalg.inv(camera.camera_to_world.cpu().numpy().astype(float))
    turn = cv2.Rodrigues(world_to_camera[:3, :3])[0]
    shift = world_to_camera[:3, 3:].copy()
    near = np.ones(len(world), bool)
    for _ in range(POSE_ROUNDS):
        turn, shift = cv2.solvePnPRefineLM(world[near], pixels[near], k, None, turn, shift)
        seen = cv2.projectPoints(world, turn, shift, k, None)[0][:, 0]
        error = np.linalg.norm(seen - pixels, axis=1)
        near = error <= np.median(error)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3:] = cv2.Rodrigues(turn)[0], shift
    if not np.isfinite(pose).all():
        return camera
    pose = np.linalg.inv(pose)
    return Camera(camera.focal, torch.from_numpy(pose).to(camera.camera_to_world))
