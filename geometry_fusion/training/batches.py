"""Training batches of scenes: clips with instance masks, as SAM2's own training forward reads them.

Recipe of a batch, a pure function of its random generator:
* Scenes are drawn uniformly. The frames of a clip lie an equal number of frames apart, drawn from
  `steps` (0 repeats one frame, the easiest thing to track). Half of the clips are reversed in time.
* The first frame of a clip shows every object of the clip with at least `min_area` pixels; later
  frames may not.
* Up to `objects` objects per clip are drawn uniformly.
* The whole clip is mirrored with probability 1/2. Its colour channels are permuted and its
  brightness and contrast changed, the same way in all frames.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.tracking.pixels import normalise

LAYOUT = torch.channels_last  # convolutions on CPUs are twice as fast in it
MAX_REDRAWS = 1000  # scenes without a suitable object before a batch is refused


@dataclass
class ClipBatch:
    """V clips of T frames with O objects in all. SAM2Train's forward reads these names."""

    flat_img_batch: Tensor  # [V * T, 3, S, S] normalised, frames of a clip adjacent
    flat_obj_to_img_idx: Tensor  # [T, O] row of flat_img_batch that shows object o at time t
    masks: Tensor  # [T, O, S, S] bool
    sources: list[str]  # where each clip comes from, for error messages

    @property
    def num_frames(self) -> int:
        """T; SAM2Train reads it."""
        return len(self.masks)

    def to(self, device: torch.device) -> "ClipBatch":
        """A copy on `device`."""
        images = self.flat_img_batch.to(device, memory_format=LAYOUT)
        return ClipBatch(
            images, self.flat_obj_to_img_idx.to(device), self.masks.to(device), self.sources
        )


def clip_arrays(
    scene: Scene, frames: list[int], ids: list[int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """RGB [T, S, S, 3] uint8 and masks [T, O, S, S] bool of chosen frames and objects.

    Frames are resized to size x size without keeping their aspect, as SAM2 resizes them.
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
    """`length` indices at an equal distance, drawn from steps[0]..steps[1] (less in short scenes).

    Half of the draws are reversed in time.
    """
    step = min(int(rng.integers(steps[0], steps[1] + 1)), (num_frames - 1) // max(length - 1, 1))
    start = int(rng.integers(0, num_frames - step * (length - 1)))
    frames = [start + step * i for i in range(length)]
    return frames[::-1] if rng.random() < 0.5 else frames


def augment(
    rng: np.random.Generator, images: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror a whole clip, permute its channels, change its brightness and contrast.

    images: RGB [T, S, S, 3], returned as float32 in 0..255. masks: [T, O, S, S] bool.
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
    # [T, O_v] per clip: all objects of a clip are in the same images.
    rows = [
        np.arange(length)[:, None] + number * length + np.zeros((1, masks.shape[1]), int)
        for number, (_, masks) in enumerate(clips)
    ]
    return ClipBatch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(np.concatenate(rows, 1)),
        torch.from_numpy(np.concatenate([masks for _, masks in clips], 1)),
        sources,
    )


class SceneClips:
    """Draws batches from scene folders.

    size: side of the square input of the model. min_area: least pixels of an object in the first
    frame, at the scene's own size.
    """

    def __init__(self, scenes: list[Scene], size: int, min_area: int):
        self.scenes = scenes
        self.size = size
        self.min_area = min_area

    def at_step(self, step: int) -> None:
        """Nothing: the scenes are the same at every step."""

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        objects: int,
        steps: tuple[int, int] = (1, 1),
    ) -> ClipBatch:
        """A batch of `clips` clips, a pure function of the generator and the scenes.

        Raises InputError where no scene has a suitable object.
        """
        drawn = [self._clip(rng, frames, objects, steps) for _ in range(clips)]
        return to_batch([clip for clip, _ in drawn], [source for _, source in drawn])

    def _clip(
        self, rng: np.random.Generator, length: int, objects: int, steps: tuple[int, int]
    ) -> tuple[tuple[np.ndarray, np.ndarray], str]:
        """((images, masks), where they come from) of one clip."""
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
