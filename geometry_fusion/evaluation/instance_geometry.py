"""What tracks are lifted on in rooms: true depth, or MUSt3R's geometry and how far that is off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.arms import SceneFrames
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.cloud import (
    Cloud,
    fuse,
    picture_pixels,
    scene_diameter,
    world_points,
)
from geometry_fusion.instances.settings import VOXEL_OF_DIAMETER, InstanceSettings
from geometry_fusion.instances.views import rendered_views
from geometry_fusion.models.geometry import SourceOptions, must3r_points
from geometry_fusion.models.must3r import model_file


@dataclass(frozen=True)
class Ground:
    """What tracks are lifted on."""

    cloud: Cloud  # with labels
    view_of: Callable[[int], PosedView]
    settings: InstanceSettings
    superpoints: np.ndarray  # [N]


@dataclass(frozen=True)
class PointErrors:
    """How far the objects of a room are off in MUSt3R's geometry, after alignment, in metres."""

    # Median over objects of the median distance of a pixel's point from its true one.
    distance: float
    size: float  # median over objects of the longest side of their box

    def __str__(self) -> str:
        share = 100 * self.distance / self.size
        return f"{self.distance:.2f} m, {share:.0f}% of objects' size ({self.size:.2f} m)"


def must3r_arrays(scene: Scene) -> dict[str, np.ndarray]:
    """MUSt3R's depth [T, h, w], confidence [T, h, w], poses [T, 4, 4] and intrinsics [T, 3, 3]."""
    make = must3r_points("tiny", model_file("tiny"), SourceOptions("cpu"))
    views = list(rendered_views(make(), SceneFrames(scene)))
    return {
        "depth": np.array([view.depth for view in views]),
        "confidence": np.array([view.confidence for view in views]),
        "pose": np.array([view.camera_to_world for view in views]),
        "k": np.array([view.lens.k for view in views]),
    }


def stored_views(file: Path) -> list[PosedView]:
    """The views of `must3r_arrays` in a file."""
    with np.load(file) as stored:
        parts = zip(*(stored[name] for name in ("depth", "pose", "k", "confidence")))
        return [PosedView(depth, pose, Lens(k), sure) for depth, pose, k, sure in parts]


@dataclass(frozen=True)
class LearnedGeometry:
    """MUSt3R's views of a scene, aligned with the true ones."""

    scene: Scene
    views: Sequence[PosedView]
    true_view: Callable[[int], PosedView]

    def own_cloud(self, settings: InstanceSettings) -> tuple[Cloud, InstanceSettings]:
        """The cloud that MUSt3R sees, and settings in its unit, as `main.py instances` has them.

        A label is what most pixels in the voxel show, so that no alignment enters.
        """
        frames = range(0, len(self.scene), settings.fuse_every)
        diameter = scene_diameter(self.views[frame] for frame in frames)
        settings = settings.with_voxel(VOXEL_OF_DIAMETER * diameter)
        cloud = fuse(
            frames,
            self.views.__getitem__,
            self.scene.rgb,
            settings.voxel,
            settings.neighbours,
            labels_of=self.labels_of,
        )
        return cloud, settings

    def labels_of(self, frame: int) -> np.ndarray:
        """The ids [h, w] of the pixels of a frame's depth map."""
        view, ids = self.views[frame], self.scene.instance(frame)
        return ids[picture_pixels(view, ids.shape, *np.indices(view.depth.shape))]

    @cached_property
    def errors(self) -> PointErrors:
        """How far objects are off."""
        points, truth, ids = (np.concatenate(parts) for parts in zip(*self._pairs()))
        far = np.linalg.norm(points - truth, axis=1)
        numbers = np.unique(ids[ids > 0])
        sides = [np.ptp(truth[ids == number], axis=0).max() for number in numbers]
        medians = [np.median(far[ids == number]) for number in numbers]
        return PointErrors(float(np.median(medians)), float(np.median(sides)))

    def _pairs(self):
        """Per frame, points [M, 3] of pixels, the true points of these pixels, and their ids."""
        for frame, view in enumerate(self.views):
            true_view, labels = self.true_view(frame), self.labels_of(frame)
            points, rows, columns = world_points(view, step=2)
            there = picture_pixels(view, true_view.depth.shape, rows, columns)
            depth = true_view.depth[there]
            directions = true_view.lens.directions(there[1].astype(float), there[0].astype(float))
            pose = true_view.camera_to_world
            truth = (pose[:3, :3] @ (directions * depth)).T + pose[:3, 3]
            yield points[depth > 0], truth[depth > 0], labels[rows, columns][depth > 0]
