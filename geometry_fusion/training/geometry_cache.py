"""Geometry of whole walks, streamed once per reference frame exactly as at inference and kept on
disk for training.

One file per (scene, reference frame): levels, points, rays and confidence of every frame in half
precision, in tracking order. The folder is named after what the geometry depends on, so that other
weights or options never meet old files.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from geometry_fusion.data.sampling import tracking_order
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.files import digest_of, replacing_file
from geometry_fusion.fit import Fit
from geometry_fusion.geometry import GeometrySource
from geometry_fusion.parsing import parse_json, reading
from geometry_fusion.state_file import write_safetensors
from geometry_fusion.types import GeometryFrame

CACHE_VERSION = 2  # counts up when the same inputs would give other files


class GeometryCache:
    """`clip(scene, reference, frames)` -> GeometryFrames.

    make_source: a fresh source for a scene. identity: what the geometry depends on besides the
    scene, JSON values. cells: cells per side of the grid on which the merger will read points; None
    if it reads them on the grid of levels.
    """

    def __init__(
        self,
        folder: Path,
        make_source: Callable[[Scene], GeometrySource],
        identity: dict,
        cells: int | None = None,
    ):
        self._folder = Path(folder) / digest_of([identity, cells, CACHE_VERSION])
        self._make_source, self._cells = make_source, cells

    def file(self, scene: Scene, reference: int) -> Path:
        """Where the geometry of a walk that is streamed from `reference` lies, or will."""
        return self._folder / scene.cache_name / f"{reference:06d}.safetensors"

    def fill(self, scene: Scene, reference: int) -> Path:
        """The same, computed if it is not there yet. Several processes may do so at once: files
        appear whole.
        """
        file = self.file(scene, reference)
        if not file.exists():
            self._stream(scene, reference, file)
        return file

    def clip(self, scene: Scene, reference: int, frames: list[int]) -> list[GeometryFrame]:
        """Geometry of some frames of the walk that was streamed from `reference` on."""
        file = self.fill(scene, reference)
        cure = "delete it, it is computed again"
        with reading(file, "geometry of a walk", cure), _opened(file, cure) as handle:
            metadata = {k: parse_json(v, file, cure) for k, v in handle.metadata().items()}
            fit = Fit(
                **{k: tuple(v) for k, v in metadata["fit"].items()},
                shrink_filter=metadata["shrink_filter"],
            )
            names = [f"level{i}" for i in range(metadata["levels"])]
            slices = {
                name: handle.get_slice(name)
                for name in (*names, "points", "rays", "confidence", "scale")
            }
            read = lambda name, t: slices[name][t : t + 1][0].float()  # noqa: E731
            return [
                GeometryFrame(
                    tuple(read(name, t) for name in names),
                    read("points", t),
                    read("rays", t),
                    read("confidence", t),
                    read("scale", t),
                    None,
                    fit,
                )
                for t in frames
            ]

    def _stream(self, scene: Scene, reference: int, file: Path) -> None:
        source = self._make_source(scene)
        answers = {}
        for index in tracking_order(reference, len(scene)):
            answers[index] = source.push(index, scene.rgb(index))
        answers = [answers[index] for index in range(len(scene))]
        first = answers[0]
        own = first.levels[0].shape[-2:] if first.levels else first.confidence.shape
        read_at = (self._cells,) * 2 if self._cells else own
        every = (..., *(_read_by(n, cells) for n, cells in zip(first.confidence.shape, read_at)))
        half = lambda tensors: torch.stack(list(tensors)).half()  # noqa: E731
        tensors = {
            f"level{i}": half(a.levels[i] for a in answers) for i in range(len(first.levels))
        }
        # Points beyond the range of half precision are of no use to anyone.
        tensors["points"] = half((a.points[every] / a.scale).clamp(-6e4, 6e4) for a in answers)
        tensors["rays"] = half(a.rays[every] for a in answers)
        tensors["confidence"] = half(a.confidence[every] for a in answers)
        tensors["scale"] = torch.ones(len(answers))  # points were divided by it
        fit = {
            name: list(getattr(first.fit, name)) for name in ("original", "resized", "crop", "size")
        }
        filter_number = json.dumps(int(first.fit.shrink_filter))
        metadata = {
            "fit": json.dumps(fit),
            "shrink_filter": filter_number,
            "levels": json.dumps(len(first.levels)),
        }
        with replacing_file(file) as fresh:
            write_safetensors(tensors, fresh, metadata)


@contextmanager
def _opened(file: Path, cure: str) -> Iterator[safe_open]:
    try:
        with safe_open(file, framework="pt") as handle:
            yield handle
    except SafetensorError as error:
        raise InputError(f"{file}: damaged ({one_line(error)}); {cure}") from None


def _read_by(size: int, cells: int) -> slice:
    """The rows (or columns) that a nearest reading by `cells` cells finds; all where they do not
    divide evenly.
    """
    step = size // cells if size % cells == 0 else 1
    return slice(
        round((step - 1) / 2), None, step
    )  # halves go to the even pixel, as in grid_sample


class LiveGeometry:
    """As GeometryCache, but streamed when it is asked for, through the frames of the clip alone;
    nothing is kept.
    """

    def __init__(self, make_source: Callable[[Scene], GeometrySource]):
        self._make_source = make_source

    def clip(self, scene: Scene, reference: int, frames: list[int]) -> list[GeometryFrame]:
        """Geometry of the frames of a clip, which starts with its reference."""
        assert frames[0] == reference, (frames, reference)
        source = self._make_source(scene)
        return [source.push(frame, scene.rgb(frame)) for frame in frames]


class CachedWalk(GeometrySource):
    """Answers as a source that streamed a whole walk from `reference`. frames: those of it that
    make the video.
    """

    def __init__(self, cache: GeometryCache, scene: Scene, reference: int, frames: list[int]):
        self._cache, self._scene, self._reference, self._frames = cache, scene, reference, frames

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        return self._cache.clip(self._scene, self._reference, [self._frames[frame_index]])[0]

    def reset(self) -> None:
        pass

    def trim(self, renders: bool = False) -> None:
        pass
