"""Training clips of the fusion: frames, masks and geometry of scenes and of own videos."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from geometry_fusion.data.sampling import (
    SAMPLINGS,
    accepted_by_view,
    continuous_frames,
    fov_frames,
    random_frames,
    tracking_order,
)
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.training.batches import ClipBatch, clip_arrays, to_batch
from geometry_fusion.training.geometry_cache import GeometryCache, LiveGeometry
from geometry_fusion.types import GeometryFrame

MAX_REFERENCES = 10  # reference frames tried before a clip is continuous
MAX_REDRAWS = 1000  # scenes without a suitable object before a batch is refused


@dataclass
class FusionBatch(ClipBatch):
    """A ClipBatch with the geometry of every image."""

    geometry: list[GeometryFrame] | None = None  # in the order of flat_img_batch
    # Probability of clicks or a box rather than a mask, and, of these, of a box; None: the model's.
    prompts: tuple[float, float] | None = None

    def to(self, device: torch.device) -> "FusionBatch":
        """A copy on `device`."""
        moved = super().to(device)
        geometry = [frame.to(device) for frame in self.geometry]
        return FusionBatch(
            *(getattr(moved, f.name) for f in fields(ClipBatch)), geometry, self.prompts
        )


class FusionClips:
    """Draws batches of clips with geometry; fusion_task.py states the recipe.

    live: where continuous clips get their geometry; None: from `cache` too. Streaming a few frames
    costs less than keeping the geometry of whole videos on disk. Raises ValueError for an unknown
    sampling.
    """

    def __init__(
        self,
        scenes: list[Scene],
        cache: GeometryCache,
        size: int,
        *,
        min_area: int,
        references: int,
        twin_share: float,
        sampling: str,
        fov_share: float,
        tau: float,
        steps: tuple[int, int],
        live: LiveGeometry | None = None,
    ):
        if sampling not in SAMPLINGS:
            raise ValueError(
                f"sampling {sampling!r}: unknown; expected one of {', '.join(SAMPLINGS)}"
            )
        self.scenes = scenes
        self.size = size
        self.cache = cache
        self.fallbacks = 0  # clips made continuous because too few frames were in view
        self._live = live
        self._min_area = min_area
        self._references = references
        self._twin_share = twin_share
        self._sampling = sampling
        self._fov_share = fov_share
        self._tau = tau
        self._steps = steps

    @property
    def reads_cache(self) -> bool:
        """Whether any clip takes its geometry from `cache`."""
        return self._live is None or (self._sampling != "continuous" and self._fov_share > 0)

    def areas(self, scene: Scene) -> np.ndarray:
        """Pixels of every id in every frame at the model's input size, [T, max_id + 1]."""
        return scene.areas * (self.size**2 / (scene.size[0] * scene.size[1]))

    def references(self, scene: Scene) -> list[int]:
        """Frames from which geometry is streamed: those that show most objects.

        They are at least a tenth of the sequence apart.
        """
        shown = (self.areas(scene)[:, 1:] >= self._min_area).sum(1)
        chosen: list[int] = []
        for frame in np.argsort(-shown, kind="stable").tolist():
            if all(abs(frame - other) >= len(scene) / 10 for other in chosen):
                chosen.append(frame)
            if len(chosen) == self._references:
                break
        return chosen

    def at_step(self, step: int) -> None:
        """Nothing: the scenes are the same at every step."""

    def batch(self, rng: np.random.Generator, clips: int, frames: int, objects: int) -> FusionBatch:
        """A batch of `clips` clips, a pure function of the generator, the scenes and their
        geometry.

        Raises InputError where no reference frame shows a suitable object.
        """
        drawn = [self._clip(rng, frames, objects) for _ in range(clips)]
        sources = [
            self.cache if sparse or self._live is None else self._live for *_, sparse in drawn
        ]
        return join([clip for *clip, _ in drawn], self.size, sources)

    def _clip(
        self, rng: np.random.Generator, length: int, objects: int
    ) -> tuple[Scene, list[int], list[int], bool]:
        """Scene, frames, object ids, and whether the frames are spread over the whole sequence."""
        sparse = self._sampling != "continuous" and rng.random() < self._fov_share
        for _ in range(MAX_REFERENCES):
            scene, reference, ids = self._reference(rng, length)
            order = [t for t in tracking_order(reference, len(scene)) if scene.annotated[t]]
            if not sparse:
                frames = continuous_frames(rng, order, length, self._steps)
                return scene, frames, ids[:objects], False
            if self._sampling == "random":
                return scene, random_frames(rng, order, length), ids[:objects], True
            accepted = accepted_by_view(scene, reference, ids[0], self._tau)
            frames = fov_frames(rng, order, length, accepted)
            if frames is not None:
                return scene, frames, ids[:objects], True
        self.fallbacks += 1
        return scene, continuous_frames(rng, order, length, self._steps), ids[:objects], False

    def _reference(self, rng: np.random.Generator, length: int) -> tuple[Scene, int, list[int]]:
        """A scene, a reference frame and the objects it shows, the main one first."""
        for _ in range(MAX_REDRAWS):
            scene = self.scenes[rng.integers(len(self.scenes))]
            reference = int(rng.choice(self.references(scene)))
            areas = self.areas(scene)[reference, 1:]
            visible = (1 + np.flatnonzero(areas >= self._min_area)).tolist()
            if scene.annotated.sum() >= length and visible:
                wants_twin = rng.random() < self._twin_share
                with_twin = [i for i in visible if i in twins(scene)] if wants_twin else []
                main = int(rng.choice(with_twin or visible))
                others = [i for i in rng.permutation(visible).tolist() if i != main]
                return scene, reference, [main, *others]
        raise InputError(
            f"no reference frame of {len(self.scenes)} scenes shows an object of "
            f"data.min_area={self._min_area} pixels, or all scenes are shorter than {length} "
            "frames; lower data.min_area or batches.kinds.*.frames"
        )


def twins(scene: Scene) -> set[int]:
    """Ids of the objects that have an identical twin in the scene."""
    return {i for o in scene.objects if o.twin_of is not None for i in (o.id, o.twin_of)}


class MixedClips:
    """Batches of several datasets: each batch is of one dataset, which is drawn by weight.

    datasets: name -> (clips, weight, prompts as in FusionBatch). Raises ValueError for weights of
    which none is above 0.
    """

    def __init__(self, datasets: dict[str, tuple[FusionClips, float, tuple[float, float]]]):
        weights = np.array([weight for _, weight, _ in datasets.values()], float)
        if not (weights >= 0).all() or not weights.sum() > 0:
            raise ValueError(f"weights {weights.tolist()}: must be positive")
        self._datasets = datasets
        self._shares = weights / weights.sum()

    @property
    def members(self) -> list[FusionClips]:
        """The clips of each dataset."""
        return [clips for clips, _, _ in self._datasets.values()]

    @property
    def fallbacks(self) -> int:
        """As of FusionClips, over all datasets."""
        return sum(clips.fallbacks for clips in self.members)

    def at_step(self, step: int) -> None:
        """Nothing, as in FusionClips."""

    def batch(self, rng: np.random.Generator, clips: int, frames: int, objects: int) -> FusionBatch:
        """As FusionClips.batch, of one dataset and with its prompts."""
        name = str(rng.choice(list(self._datasets), p=self._shares))
        dataset, _, prompts = self._datasets[name]
        batch = dataset.batch(rng, clips, frames, objects)
        sources = [f"{name}: {source}" for source in batch.sources]
        return replace(batch, prompts=prompts, sources=sources)


def join(
    clips: list[tuple[Scene, list[int], list[int]]],
    size: int,
    sources: list[GeometryCache | LiveGeometry],
) -> FusionBatch:
    """One batch of clips, given as (scene, frames, object ids), at the model's input size.

    The geometry is the one that is streamed from each clip's first frame. sources: what answers it,
    for each clip.
    """
    arrays = [clip_arrays(scene, frames, ids, size) for scene, frames, ids in clips]
    names = [f"{scene.folder.name} frames {frames} objects {ids}" for scene, frames, ids in clips]
    batch = to_batch(arrays, names)
    geometry = [
        frame
        for (scene, frames, _), source in zip(clips, sources)
        for frame in source.clip(scene, frames[0], frames)
    ]
    return FusionBatch(*(getattr(batch, f.name) for f in fields(ClipBatch)), geometry)
