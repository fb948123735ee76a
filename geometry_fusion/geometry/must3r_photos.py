"""Geometry of unordered photos: MUSt3R's memory is built first, then every photo is rendered.

So the geometry of a photo does not depend on when it is asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.geometry.decoded import DecodedFrames, SequenceFocal, decoded
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.geometry.overlap import FrameView, OverlapRule
from geometry_fusion.must3r.postprocess import focal_length, pointmaps
from geometry_fusion.types import GeometryFrame

# The part of a padded picture that shows the photo: left, top, right, bottom in 0..1.
Area = tuple[float, float, float, float]
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)


class EveryFrame(OverlapRule):
    """Every frame becomes a keyframe: which ones are shown was decided before."""

    def score(self, view: FrameView) -> float:
        return 0.0

    def is_new(self, score: float, view: FrameView) -> bool:
        return True

    def keep(self, keyframe: int, view: FrameView) -> None:
        pass


class Must3rPhotos(Must3rStream):
    """`remember` builds the memory; `push` then renders against it, which changes nothing.

    areas: by photo, the part of its picture that shows it; outside, confidence is 0. one_camera:
    all photos have one focal length, the mean of the remembered ones; else each has its own.
    """

    def __init__(self, encoder, decoder, *, one_camera: bool = True, **options):
        self.areas: dict[int, Area] = {}
        self._one_camera = one_camera
        fixed = {"rule": EveryFrame(), "join_every": 1, "num_init_frames": 2}
        super().__init__(encoder, decoder, **{**options, **fixed})

    @property
    def settled(self) -> bool:
        """The memory is complete before any frame is pushed."""
        return True

    @torch.no_grad()
    def encode(self, index: int, image: np.ndarray) -> Tensor:
        """Encoder tokens [N, De] of the part of an RGB uint8 image [H, W, 3] that shows the photo;
        the memory is neither read nor changed.
        """
        tokens, positions, _ = self._tokens.of({index: image})[0]
        fit, patch = self._tokens.fit, self._tokens.patch_size
        rows = self._inside(index, 1, fit.size[1] // patch)
        columns = self._inside(index, 0, fit.size[0] // patch)
        row, column = positions[0, 0].cpu().unbind(-1)
        shown = rows[row] & columns[column]
        return tokens[0, 0][shown.to(tokens.device)]

    def remember(self, photos: Iterable[tuple[int, np.ndarray]]) -> None:
        """Add photos (number, RGB uint8 [H, W, 3]) to the memory: the first two jointly, then one
        by one. The first is the reference.
        """
        for index, image in photos:
            super().push_all({index: image})

    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """Each frame by the finished memory."""
        return [self.render(index, image) for index, image in frames.items()]

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        geometry = super().render(frame_index, image)
        height, width = geometry.confidence.shape
        rows = self._inside(frame_index, 1, height)
        shown = rows[:, None] & self._inside(frame_index, 0, width)
        confidence = geometry.confidence * shown.to(geometry.confidence.device)
        return replace(geometry, confidence=confidence)

    def trim(self, renders: bool = False) -> None:
        """Nothing is dropped: photos are asked for again."""

    def _inside(self, index: int, axis: int, cells: int) -> Tensor:
        """Which of `cells` along an axis (0 = x) of the fitted image show the photo: [cells]."""
        area = self.areas.get(index, WHOLE)
        lies = torch.from_numpy(self._tokens.fit.lies_at(axis, cells))
        return (lies >= area[axis]) & (lies <= area[axis + 2])

    def _decoded(self, raw: Tensor, features: list[Tensor], **options) -> DecodedFrames:
        """As Must3rStream, with each photo's own focal length where cameras differ."""
        if self._one_camera:
            return super()._decoded(raw, features, **options)
        activation = getattr(self._decoder, "pointmaps_activation", "norm_exp")
        estimates = focal_length(pointmaps(raw, activation).local).tolist()
        parts = []
        for i, estimate in enumerate(estimates):
            own = SequenceFocal()
            own.add(estimate, 1.0)
            is_reference = options.get("with_reference", False) and i == 0
            features_i = [level[i : i + 1] for level in features]
            parts.append(
                decoded(
                    raw[i : i + 1],
                    features_i,
                    activation,
                    own,
                    self._unknown_focal(),
                    record=False,
                    with_reference=is_reference,
                )
            )
        maps = type(parts[0].maps)(*(torch.cat(m) for m in zip(*(part.maps for part in parts))))
        poses = torch.cat([part.poses for part in parts])
        return DecodedFrames(maps, poses, [part.focals[0] for part in parts], features)
