"""Training batches of scenes: clips with instance masks, in the form SAM2's own training forward
takes.

Recipe of a batch, a pure function of its random generator:
* scenes are drawn uniformly; the frames of a clip lie an equal number of frames apart, drawn from
`steps` (0 repeats
  one frame: the easiest thing to track), half of the clips reversed in time;
* the first frame of a clip shows every object of the clip with at least `min_area` pixels; later
frames may not;
* up to `objects` objects per clip, drawn uniformly;
* the whole clip is mirrored with probability 1/2, its colour channels are permuted and its
brightness and contrast
  changed, the same way in all frames.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.predictor import normalise

MAX_REDRAWS = 1000


@dataclass
class ClipBatch:
    """V clips of T frames with O objects in all; the attributes that SAM2Train's forward reads."""

    flat_img_batch: Tensor  # [V * T, 3, S, S] normalised, frames of a clip adjacent
    flat_obj_to_img_idx: Tensor  # [T, O] row of flat_img_batch that shows object o at time t
    masks: Tensor  # [T, O, S, S] bool
    sources: list[str]  # where each clip comes from, for error messages

    @property
    def num_frames(self) -> int:
        return len(self.masks)

    def to(self, device: torch.device) -> "ClipBatch":
        images = self.flat_img_batch.to(device, memory_format=torch.channels_last)
        return ClipBatch(
            images, self.flat_obj_to_img_idx.to(device), self.masks.to(device), self.sources
        )


def clip_arrays(
    scene: Scene, frames: list[int], ids: list[int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """RGB [T, S, S, 3] uint8 and masks [T, O, S, S] bool of chosen frames and objects, squashed to
    a square.
    """
    images, masks = [], []
    for index in frames:
        images.append(cv2.resize(scene.rgb(index), (size, size), interpolation=cv2.INTER_AREA))
        # Nearest only: averaging would invent ids between two objects.
        instance = cv2.resize(
            scene.instance(index).astype(np.uint16), (size, size), interpolation=cv2.INTER_NEAREST
        )
        masks.append(instance[None] == np.array(ids)[:, None, None])
    return np.stack(images), np.stack(masks)


def draw_frames(
    rng: np.random.Generator, num_frames: int, length: int, steps: tuple[int, int]
) -> list[int]:
    """`length` indices an equal steps[0]..steps[1] apart (less in short scenes), in half of the
    draws reversed.
    """
    step = min(int(rng.integers(steps[0], steps[1] + 1)), (num_frames - 1) // max(length - 1, 1))
    start = int(rng.integers(0, num_frames - step * (length - 1)))
    frames = [start + step * i for i in range(length)]
    return frames[::-1] if rng.random() < 0.5 else frames


def augment(
    rng: np.random.Generator, images: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, permute channels, change brightness and contrast of a whole clip. Images become float
    0..255.
    """
    if rng.random() < 0.5:
        images, masks = images[:, :, ::-1], masks[..., ::-1]
    images = images[..., rng.permutation(3)].astype(np.float32)
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-25, 25)
    return ((images - 128) * gain + 128 + offset).clip(0, 255), masks


def to_batch(clips: list[tuple[np.ndarray, np.ndarray]], sources: list[str]) -> ClipBatch:
    """Stack clips (RGB [T, S, S, 3], masks [T, O_v, S, S]) of equal length into one batch."""
    length = len(clips[0][0])
    images = np.concatenate([normalise(rgb) for rgb, _ in clips])
    rows = [
        np.arange(length)[:, None] + video * length + np.zeros((1, masks.shape[1]), int)
        for video, (_, masks) in enumerate(clips)
    ]
    return ClipBatch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(np.concatenate(rows, 1)),
        torch.from_numpy(np.concatenate([masks for _, masks in clips], 1)),
        sources,
    )


class SceneClips:
    """Draws batches from scene folders. `batch(rng, ...)` depends on nothing but the generator and
    the scenes.
    """

    def __init__(self, scenes: list[Scene], size: int, min_area: int):
        self.scenes, self.size, self.min_area = scenes, size, min_area

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        objects: int,
        steps: tuple[int, int] = (1, 1),
    ) -> ClipBatch:
        drawn = [self._clip(rng, frames, objects, steps) for _ in range(clips)]
        return to_batch([clip for clip, _ in drawn], [source for _, source in drawn])

    def _clip(self, rng, length, objects, steps):
        for _ in range(MAX_REDRAWS):
            scene = self.scenes[rng.integers(len(self.scenes))]
            if len(scene) < length:
                continue
            indices = draw_frames(rng, len(scene), length, steps)
            ids = 1 + np.flatnonzero(scene.areas[indices[0], 1:] >= self.min_area)
            if len(ids):
                ids = rng.permutation(ids)[:objects].tolist()
                clip = augment(rng, *clip_arrays(scene, indices, ids, self.size))
                return clip, f"{scene.folder.name} frames {indices} objects {ids}"
        raise InputError(
            f"no frame of {len(self.scenes)} scenes of at least {length} frames shows an object of "
            f"data.min_area={self.min_area} pixels; lower data.min_area or batches.kinds.*.frames"
        )
