"""Geometry sources that evaluations wrap around others: replayed answers, and controls.

The controls show what an arm owes to its geometry: `zero` knows nothing, `shuffled` is that of
another scene, and `true` (`geometry.posed_depth`) is the scene's own depth and poses.
"""

from dataclasses import replace

import numpy as np
import torch

from geometry_fusion.data.scenes import Scene
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.types import GeometryFrame


class WrappedSource(GeometrySource):
    """A source that answers as the one it wraps."""

    def __init__(self, source: GeometrySource):
        self._source = source
        self.levels, self.tolerance = source.levels, source.tolerance

    @property
    def settled(self) -> bool:
        """That of the wrapped source."""
        return self._source.settled

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of an RGB uint8 frame [H, W, 3]."""
        return self._source.push(frame_index, image)

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """As `GeometrySource.render`."""
        return self._source.render(frame_index, image)

    def reset(self) -> None:
        """Reset the wrapped source."""
        self._source.reset()

    def trim(self, renders: bool = False) -> None:
        """Trim the wrapped source."""
        self._source.trim(renders)

    def snapshot(self) -> dict:
        """The snapshot of the wrapped source."""
        return self._source.snapshot()

    def restore(self, snapshot: dict) -> None:
        """Restore the wrapped source."""
        self._source.restore(snapshot)


class Replay(WrappedSource):
    """Computes each frame once, for several prompts of one object.

    All of them track the same frames in the same order, so that the wrapped source would give the
    same results again, at the same moments.
    """

    def __init__(self, source: GeometrySource, device: torch.device):
        super().__init__(source)
        self._device = device
        self._answers: dict[tuple[str, int], GeometryFrame] = {}

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of an RGB uint8 frame [H, W, 3]; computed at the first call."""
        return self._answer("push", frame_index, image)

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """As `GeometrySource.render`; computed at the first call."""
        return self._answer("render", frame_index, image)

    def _answer(self, method: str, frame_index: int, image: np.ndarray) -> GeometryFrame:
        key = (method, frame_index)
        if key not in self._answers:
            answer = getattr(self._source, method)(frame_index, image)
            self._answers[key] = answer.to(self._device)
        return self._answers[key]

    def reset(self) -> None:
        """Nothing to forget: the next prompt starts at the same frame of the same video."""

    def trim(self, renders: bool = False) -> None:
        """Nothing to drop: the next prompt reads all frames again."""

    def restore(self, snapshot: dict) -> None:
        """Restore the wrapped source; frames are computed again."""
        self._answers.clear()
        super().restore(snapshot)


class ZeroGeometry(WrappedSource):
    """The control that knows nothing: features, points and confidence are 0."""

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        return self._zeroed(super().push(frame_index, image))

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        return self._zeroed(super().render(frame_index, image))

    @staticmethod
    def _zeroed(frame: GeometryFrame) -> GeometryFrame:
        return replace(
            frame,
            levels=tuple(torch.zeros_like(level) for level in frame.levels),
            points=torch.zeros_like(frame.points),
            rays=torch.zeros_like(frame.rays),
            confidence=torch.zeros_like(frame.confidence),
        )


class ShuffledGeometry(WrappedSource):
    """The control with another scene's geometry: its frames, in an order that means nothing."""

    def __init__(self, source: GeometrySource, other: Scene):
        super().__init__(source)
        self._other = other
        self._order = np.random.default_rng(0).permutation(len(other))

    def _image(self, frame_index: int) -> np.ndarray:
        return self._other.rgb(int(self._order[frame_index % len(self._order)]))

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        return super().push(frame_index, self._image(frame_index))

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        return super().render(frame_index, self._image(frame_index))


def another_scene(scene: Scene) -> Scene:
    """The scene folder that follows in its folder, or the first one; the scene itself if alone."""
    folders = sorted(f for f in scene.folder.parent.iterdir() if (f / "rgb").is_dir())
    after = [f for f in folders if f.name > scene.folder.name]
    return Scene((after or folders)[0])
