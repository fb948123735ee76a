"""Geometry of whole sequences, kept on disk for training.

It is streamed once per reference frame, exactly as at inference. One file per (scene, reference
frame) holds feature levels, points, rays and confidence of all frames in half precision. The folder
is named by a digest of what the geometry depends on, so that other weights or options never read
old files.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from geometry_fusion.data.sampling import tracking_order
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.fit import Fit
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.atomic import digest_of, replacing_file
from geometry_fusion.io.parsing import parse_json, reading
from geometry_fusion.io.state_file import write_safetensors
from geometry_fusion.types import GeometryFrame

CACHE_VERSION = 2  # to be raised whenever the same inputs would give other files


class GeometryCache:
    """Answers `clip(scene, reference, frames)` from disk, and computes what is missing.

    make_source: makes a new source for a scene. identity: what the geometry depends on besides the
    scene, JSON values. cells: cells per side of the grid on which the merger reads points; None if
    it reads them on the grid of the feature levels.
    """

    def __init__(
        self,
        folder: Path,
        make_source: Callable[[Scene], GeometrySource],
        identity: dict,
        cells: int | None = None,
    ):
        self._folder = Path(folder) / digest_of([identity, cells, CACHE_VERSION])
        self._make_source = make_source
        self._cells = cells

    def file(self, scene: Scene, reference: int) -> Path:
        """The file of the sequence streamed from `reference`; it may not exist yet."""
        return self._folder / scene.cache_name / f"{reference:06d}.safetensors"

    def fill(self, scene: Scene, reference: int) -> Path:
        """As `file`, computed if it does not exist.

        Several processes may do so at once, because files appear whole.
        """
        file = self.file(scene, reference)
        if not file.exists():
            self._stream(scene, reference, file)
        return file

    def clip(self, scene: Scene, reference: int, frames: list[int]) -> list[GeometryFrame]:
        """Geometry of some frames of the sequence that was streamed from `reference`.

        Raises InputError for a damaged file.
        """
        file = self.fill(scene, reference)
        cure = "delete it, it is computed again"
        with reading(file, "geometry of a sequence", cure), _opened(file, cure) as handle:
            metadata = {k: parse_json(v, file, cure) for k, v in handle.metadata().items()}
            sizes = {name: tuple(size) for name, size in metadata["fit"].items()}
            fit = Fit(**sizes, shrink_filter=metadata["shrink_filter"])
            return [_frame_of(handle, metadata["levels"], fit, t) for t in frames]

    def _stream(self, scene: Scene, reference: int, file: Path) -> None:
        """Stream the whole sequence from its reference frame and write its geometry."""
        source = self._make_source(scene)
        by_index = {}
        for index in tracking_order(reference, len(scene)):
            by_index[index] = source.push(index, scene.rgb(index))
        frames = [by_index[index] for index in range(len(scene))]
        first = frames[0]
        level_grid = first.levels[0].shape[-2:] if first.levels else first.confidence.shape
        grid = (self._cells, self._cells) if self._cells else level_grid
        # Only the rows and columns that the merger will read.
        kept = (..., *(_rows_read(size, n) for size, n in zip(first.confidence.shape, grid)))
        tensors = {
            f"level{i}": _stack_half(f.levels[i] for f in frames) for i in range(len(first.levels))
        }
        # Divided by the scale; what then exceeds half precision is too far away to be of use.
        points = ((f.points[kept] / f.scale).clamp(-6e4, 6e4) for f in frames)
        tensors["points"] = _stack_half(points)
        tensors["rays"] = _stack_half(f.rays[kept] for f in frames)
        tensors["confidence"] = _stack_half(f.confidence[kept] for f in frames)
        tensors["scale"] = torch.ones(len(frames))
        sizes = ("original", "resized", "crop", "size")
        metadata = {
            "fit": json.dumps({name: list(getattr(first.fit, name)) for name in sizes}),
            "shrink_filter": json.dumps(int(first.fit.shrink_filter)),
            "levels": json.dumps(len(first.levels)),
        }
        with replacing_file(file) as fresh:
            write_safetensors(tensors, fresh, metadata)


def _stack_half(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tensors)).half()


def _frame_of(handle: safe_open, num_levels: int, fit: Fit, index: int) -> GeometryFrame:
    """One frame of an opened file; only its values are read."""

    def read(name: str) -> torch.Tensor:
        return handle.get_slice(name)[index : index + 1][0].float()

    return GeometryFrame(
        levels=tuple(read(f"level{i}") for i in range(num_levels)),
        points=read("points"),
        rays=read("rays"),
        confidence=read("confidence"),
        scale=read("scale"),
        camera=None,
        fit=fit,
    )


@contextmanager
def _opened(file: Path, cure: str) -> Iterator[safe_open]:
    try:
        with safe_open(file, framework="pt") as handle:
            yield handle
    except SafetensorError as error:
        raise InputError(f"{file}: damaged ({one_line(error)}); {cure}") from None


def _rows_read(size: int, cells: int) -> slice:
    """The rows (or columns) of `size` that nearest sampling at `cells` cell centres reads.

    All of them where the cells do not divide the size evenly.
    """
    step = size // cells if size % cells == 0 else 1
    # A centre between two pixels is rounded to the even one, as grid_sample does.
    return slice(round((step - 1) / 2), None, step)


class LiveGeometry:
    """As GeometryCache, but every clip is streamed anew through its own frames; nothing is kept."""

    def __init__(self, make_source: Callable[[Scene], GeometrySource]):
        self._make_source = make_source

    def clip(self, scene: Scene, reference: int, frames: list[int]) -> list[GeometryFrame]:
        """Geometry of the frames of a clip, which starts with its reference."""
        assert frames[0] == reference, (frames, reference)
        source = self._make_source(scene)
        return [source.push(frame, scene.rgb(frame)) for frame in frames]


class CachedSequence(GeometrySource):
    """A geometry source that reads from a cache, as if it had streamed the sequence from
    `reference`.

    frames: the frames of the scene that make the video, by their indices in the scene.
    """

    def __init__(self, cache: GeometryCache, scene: Scene, reference: int, frames: list[int]):
        self._cache = cache
        self._scene = scene
        self._reference = reference
        self._frames = frames

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """As GeometrySource.push, from the cache; the image is not needed."""
        return self._cache.clip(self._scene, self._reference, [self._frames[frame_index]])[0]

    def reset(self) -> None:
        """Nothing: no state depends on earlier frames."""

    def trim(self, renders: bool = False) -> None:
        """Nothing: no frames are held."""

    def snapshot(self) -> dict:
        """Nothing to save: all geometry is in the cache."""
        return {}

    def restore(self, snapshot: dict) -> None:
        """Nothing to restore."""
