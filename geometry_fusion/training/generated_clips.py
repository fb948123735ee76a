"""Batches for training SAM2 and MUSt3R from a pool of generated clips, on the pool's device.

They are what geometry_fusion.training.batches and posed_clips draw from scene folders; the recipes
are theirs, except that nothing is recoloured, which the pool has done.
"""

from math import gcd

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geometry_fusion.data.generated.clip import GeneratedClips
from geometry_fusion.data.generated.pool import ClipPool
from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, fit_crop
from geometry_fusion.tracking.pixels import IMAGE_MEAN, IMAGE_STD
from geometry_fusion.training.batches import MAX_REDRAWS, ClipBatch, draw_frames
from geometry_fusion.training.posed_clips import (
    OVERLAP_GRID,
    PosedBatch,
    draw_overlapping,
    move,
    project,
)

LONG_SIDE = 256  # pixels of the longer side that a generated picture stands for


def picture_size(clips: GeneratedClips) -> tuple[int, int]:
    """(width, height) in pixels of the picture that was squashed."""
    longer = max(clips.shape)
    return tuple(round(side * LONG_SIDE / longer) for side in clips.shape)


def ratio(clips: GeneratedClips) -> tuple[int, int]:
    """Width and height of the picture in lowest terms."""
    divisor = gcd(*clips.shape)
    return clips.shape[0] // divisor, clips.shape[1] // divisor


def normalised(rgb: Tensor) -> Tensor:
    """RGB uint8 [N, 3, S, S] -> float32 as SAM2's image encoder expects it."""
    mean = torch.as_tensor(IMAGE_MEAN, dtype=torch.float32, device=rgb.device)[:, None, None]
    std = torch.as_tensor(IMAGE_STD, dtype=torch.float32, device=rgb.device)[:, None, None]
    return (rgb.float() / 255 - mean) / std


class GeneratedClipBatches:
    """Draws SAM2's batches. min_area: least pixels of an object in the first frame.

    layered_share: of the clips of a batch that are layered; scene_share: of the others that come
    from scene folders, where the pool has any.
    """

    def __init__(self, pool: ClipPool, min_area: int, layered_share: float, scene_share: float):
        self._pool = pool
        self._min_area = min_area
        self._layered_share = layered_share
        self._scene_share = scene_share if pool.scenes else 0.0

    def at_step(self, step: int) -> None:
        """Renew the pool."""
        self._pool.at_step(step)

    def pictures(self, count: int) -> Tensor:
        """`count` frames of layered clips, normalised [N, 3, S, S]; always the same ones."""
        return normalised(self._pool.layered(0, count, 1).rgb[:, 0])

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        objects: int,
        steps: tuple[int, int] = (1, 1),
    ) -> ClipBatch:
        """A batch of `clips` clips, a pure function of the generator and the pool."""
        layered = int(rng.binomial(clips, self._layered_share))
        drawn = self._layered(rng, layered, frames, objects, steps) if layered else []
        while len(drawn) < clips:
            drawn.append(self._room(rng, frames, objects, steps))
        return join(drawn)

    def _layered(self, rng: np.random.Generator, count: int, length: int, objects: int, steps):
        """Fresh layered clips: [(rgb [T, 3, S, S], ids [T, S, S], object ids)]."""
        # A clip with equal neighbours is drawn with fewer frames that are repeated.
        step = int(rng.integers(steps[0], steps[1] + 1))
        still = step == 0
        drawn = []
        while len(drawn) < count:  # some clips show nothing large enough in their first frame
            seed = int(rng.integers(1 << 31))
            clips = self._pool.layered(seed, count - len(drawn), 1 if still else length)
            for row in range(len(clips)):
                ids = self._ids(rng, clips.areas[row, 0], objects)
                if len(ids):
                    rgb, labels = clips.rgb[row], clips.ids[row]
                    rgb, labels = rgb.expand(length, -1, -1, -1), labels.expand(length, -1, -1)
                    drawn.append((rgb, labels, ids))
        return drawn

    def _room(self, rng: np.random.Generator, length: int, objects: int, steps):
        """One clip of a room or a scene, as `_layered` lists them."""
        for _ in range(MAX_REDRAWS):
            from_scenes = rng.random() < self._scene_share
            entries = self._pool.scenes if from_scenes else self._pool.rooms
            entry = entries[rng.integers(len(entries))]
            frames = draw_frames(rng, entry.rgb.shape[1], length, steps)
            ids = self._ids(rng, entry.areas[0, frames[0]], objects)
            if len(ids):
                return entry.rgb[0, frames], entry.ids[0, frames], ids
        raise InputError(
            f"data.min_area={self._min_area}: no generated room shows an object of so many pixels; "
            "lower it"
        )

    def _ids(self, rng: np.random.Generator, areas: np.ndarray, objects: int) -> list[int]:
        shown = 1 + np.flatnonzero(areas[1:] >= self._min_area)
        return rng.permutation(shown)[:objects].tolist()


def join(drawn: list[tuple[Tensor, Tensor, list[int]]], mirror: bool = True) -> ClipBatch:
    """One batch of clips (rgb [T, 3, S, S], ids [T, S, S], object ids); every other is mirrored."""
    device, length = drawn[0][0].device, len(drawn[0][0])
    images, rows, masks = [], [], []
    for number, (rgb, labels, ids) in enumerate(drawn):
        if mirror and number % 2:
            rgb, labels = rgb.flip(-1), labels.flip(-1)
        images.append(rgb)
        wanted = torch.tensor(ids, device=device)[None, :, None, None]
        masks.append(labels[:, None] == wanted)
        row = torch.arange(length, device=device)[:, None] + number * length
        rows.append(row.expand(-1, len(ids)))
    return ClipBatch(
        normalised(torch.cat(images)),
        torch.cat(rows, 1),
        torch.cat(masks, 1),
        [f"generated, objects {ids}" for _, _, ids in drawn],
    )


def overlap_of(entry: GeneratedClips) -> np.ndarray:
    """Overlap of every pair of frames, [T, T] in 0..1, as posed_clips measures it; kept with it."""
    if entry.overlap is None:
        depth, poses, k = entry.depth[0].float(), entry.camera_to_world[0], entry.intrinsics[0]
        side = depth.shape[-1]
        at = torch.arange(side // (2 * OVERLAP_GRID), side, side // OVERLAP_GRID)
        batch = PosedBatch(depth[None, :, None], depth[None], poses[None], k[None], [])
        points = move(poses, batch.local_points()[0])[:, at][:, :, at].flatten(1, 2)
        _, seen = project(points[None].expand(len(depth), -1, -1, -1), depth, poses, k)
        share = seen.float().mean(-1).T.cpu().numpy()
        entry.overlap = np.minimum(share, share.T)
    return entry.overlap


def fitted(entry: GeneratedClips, frames: list[int], side: int) -> tuple[Fit, tuple[Tensor, ...]]:
    """Frames as MUSt3R sees them: (fit, (images in 0..255 [T, 3, h, w], depth, poses, K))."""
    fit = fit_crop(picture_size(entry), side)
    width, height = fit.resized
    columns = slice(fit.crop[0], fit.crop[0] + fit.size[0])
    rows = slice(fit.crop[1], fit.crop[1] + fit.size[1])
    shrunk = interpolate(
        entry.rgb[0, frames].float(), size=(height, width), mode="bilinear", antialias=True
    )
    depth = interpolate(entry.depth[0, frames].float()[None], size=(height, width), mode="nearest")
    k = entry.intrinsics[0, frames].clone()
    square = entry.rgb.shape[-1]
    for axis, scale in ((0, width / square), (1, height / square)):
        k[:, axis, axis] *= scale
        k[:, axis, 2] = (k[:, axis, 2] + 0.5) * scale - 0.5 - fit.crop[axis]
    poses = entry.camera_to_world[0, frames]
    return fit, (shrunk[..., rows, columns], depth[0][..., rows, columns], poses, k)


class GeneratedPosedBatches:
    """Draws MUSt3R's batches: clips of still rooms, all of one picture shape.

    side: pixels of the longer side of its input. scene_share: as in GeneratedClipBatches.
    """

    def __init__(self, pool: ClipPool, side: int, scene_share: float):
        self._pool, self._side = pool, side
        self._scenes = [entry for entry in pool.scenes if entry.depth is not None]
        self._scene_share = scene_share if self._scenes else 0.0

    def at_step(self, step: int) -> None:
        """Renew the pool."""
        self._pool.at_step(step)

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        overlap: tuple[float, float] = (0.3, 1.0),
        steps: tuple[int, int] | None = None,
    ) -> PosedBatch:
        """A batch of `clips` clips, a pure function of the generator and the pool."""
        rooms = [entry for entry in self._pool.rooms if not bool(entry.moves)]
        if not rooms:
            raise InputError(
                "data.worlds.moving_share: things move in all rooms of the pool, and MUSt3R is "
                "trained on still ones; lower it, or raise data.worlds.start"
            )
        shape = ratio(rooms[rng.integers(len(rooms))])
        rooms = [entry for entry in rooms if ratio(entry) == shape]
        scenes = [entry for entry in self._scenes if ratio(entry) == shape]
        parts, sources = [], []
        for _ in range(clips):
            from_scenes = scenes and rng.random() < self._scene_share
            entries = scenes if from_scenes else rooms
            entry = entries[rng.integers(len(entries))]
            if steps:
                chosen = draw_frames(rng, entry.rgb.shape[1], frames, steps)
            else:
                length = min(frames, entry.rgb.shape[1])
                chosen = draw_overlapping(rng, overlap_of(entry), length, overlap)
            _, arrays = fitted(entry, chosen, self._side)
            parts.append(mirrored(arrays) if rng.random() < 0.5 else arrays)
            sources.append(f"generated, frames {chosen}")
        images, depth, poses, k = (torch.stack(values) for values in zip(*parts))
        return PosedBatch(images / 127.5 - 1, depth, poses, k, sources)


def mirrored(arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A posed clip (images, depth, poses, K) in the mirrored world, where x changes its sign."""
    images, depth, poses, k = arrays
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], device=poses.device))
    k = k.clone()
    k[:, 0, 2] = images.shape[-1] - 1 - k[:, 0, 2]
    return images.flip(-1), depth.flip(-1), mirror @ poses @ mirror, k
