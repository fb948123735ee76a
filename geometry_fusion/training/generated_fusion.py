"""Batches for training the fusion from a pool of generated rooms, with geometry made on the spot.

The geometry of a clip is that of its own frames, in tracking order from the reference, as a stream
would see them if nearly all of them became keyframes.
"""

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.generated.clip import GeneratedClips
from geometry_fusion.data.generated.pool import ClipPool
from geometry_fusion.data.sampling import continuous_frames, random_frames, tracking_order
from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, fit_to_square
from geometry_fusion.geometry.cameras import rays_of
from geometry_fusion.must3r.postprocess import camera_to_world, focal_length, pointmaps
from geometry_fusion.training.batches import MAX_REDRAWS, ClipBatch
from geometry_fusion.training.fusion_clips import FusionBatch
from geometry_fusion.training.generated_clips import fitted, join, picture_size, ratio
from geometry_fusion.training.posed_clips import move
from geometry_fusion.types import GeometryFrame

KEPT_SHARE = 0.7  # of the frames after the first two that join the memory in training
DEPTH_SIDE = 64  # cells of a side on which true points are given, as PosedDepth has it


class ClipGeometry:
    """The frozen MUSt3R over batches of clips. levels: as in Must3rStream."""

    def __init__(self, encoder: torch.nn.Module, decoder: torch.nn.Module, levels: list[int]):
        self._encoder, self._decoder, self._levels = encoder, decoder, levels
        self.side = max(encoder.img_size)

    @torch.no_grad()
    def frames(
        self, rng: np.random.Generator, images: Tensor, fit: Fit
    ) -> list[list[GeometryFrame]]:
        """Geometry of images [V, T, 3, h, w] in -1..1, clip by clip."""
        count, length = images.shape[:2]
        tokens, positions = self._encoder(images.flatten(0, 1))
        tokens = tokens.unflatten(0, (count, length))
        positions = positions.unflatten(0, (count, length))
        shape = torch.tensor(images.shape[-2:], device=images.device).expand(count, length, 2)
        memory, maps, features = None, [], []
        for call in (slice(0, 2), *(slice(i, i + 1) for i in range(2, length))):
            inputs = (tokens[:, call], positions[:, call], shape[:, call])
            render = memory is not None and rng.random() > KEPT_SHARE
            memory, raw, levels = self._decoder(*inputs, memory, render=render, return_feats=True)
            maps.append(raw)
            features.append([levels[level] for level in self._levels])
        levels = [torch.cat(parts, 1).float() for parts in zip(*features)]
        return self._answers(torch.cat(maps, 1), levels, fit)

    def _answers(self, raw: Tensor, levels: list[Tensor], fit: Fit) -> list[list[GeometryFrame]]:
        """The frames that a stream would answer, from raw maps [V, T, h, w, 7]."""
        maps = pointmaps(raw)
        height, width = maps.confidence.shape[-2:]
        focal = focal_length(maps.local)
        weight = (maps.confidence.mean((-2, -1)) - 1) * (focal > 0)
        sums = (focal * weight).cumsum(1), weight.cumsum(1)
        mean = sums[0] / sums[1].clamp(min=1e-6)
        before = torch.cat((mean[:, :1], mean[:, :-1]), 1)
        stretch = torch.where(focal > 0, before / focal.clamp(min=1e-6), 1.0)
        stretch[:, 0] = 1
        local = maps.local.clone()
        local[..., 2] *= stretch[..., None, None]
        poses = camera_to_world(local, maps.points, maps.confidence)
        poses[:, 0] = torch.eye(4, device=poses.device)
        rays = rays_of(poses.flatten(0, 1), mean.flatten(), (width, height))
        rays = rays.unflatten(0, poses.shape[:2])
        points = maps.points.movedim(-1, 2)
        scale = maps.points[:, 0].norm(dim=-1).flatten(1).median(1).values
        confidence = 1 - 1 / maps.confidence
        patch = (height // 16, width // 16)
        levels = [level.transpose(-2, -1).unflatten(-1, patch) for level in levels]
        return [
            [
                GeometryFrame(
                    tuple(level[v, t] for level in levels),
                    points[v, t],
                    rays[v, t],
                    confidence[v, t],
                    scale[v],
                    None,
                    fit,
                )
                for t in range(points.shape[1])
            ]
            for v in range(len(points))
        ]


def true_geometry(entry: GeneratedClips, frames: list[int]) -> list[GeometryFrame]:
    """Points and rays from depth and poses, as PosedDepth gives them."""
    depth, poses, k = entry.depth[0, frames], entry.camera_to_world[0, frames], entry.intrinsics[0]
    side = depth.shape[-1]
    at = (torch.arange(DEPTH_SIDE, device=depth.device) + 0.5) * side / DEPTH_SIDE - 0.5
    near = at.round().long()
    cells = depth[:, near][:, :, near].float()
    v, u = torch.meshgrid(at, at, indexing="ij")
    directions = torch.stack(
        ((u - k[0, 0, 2]) / k[0, 0, 0], (v - k[0, 1, 2]) / k[0, 1, 1], torch.ones_like(u))
    )
    relative = torch.linalg.inv(poses[:1]) @ poses
    turned = torch.einsum("tij,jhw->tihw", relative[:, :3, :3], directions)
    points = turned * cells[:, None] + relative[:, :3, 3, None, None]
    rays = torch.nn.functional.normalize(turned, dim=1)
    known = cells > 0
    distance = points[0].norm(dim=0)
    scale = distance[known[0]].median() if known[0].any() else distance.new_ones(())
    fit = fit_to_square(picture_size(entry), DEPTH_SIDE)
    return [
        GeometryFrame((), points[t], rays[t], known[t].float(), scale, None, fit)
        for t in range(len(frames))
    ]


def no_geometry(entry: GeneratedClips, frames: list[int]) -> list[GeometryFrame]:
    """What NoGeometry answers."""
    empty = torch.zeros(3, 1, 1, device=entry.rgb.device)
    one = torch.ones((), device=entry.rgb.device)
    fit = fit_to_square(picture_size(entry), 1)
    return [GeometryFrame((), empty, empty, empty[0], one, None, fit) for _ in frames]


class GeneratedFusionBatches:
    """Draws the fusion's batches, all clips of one picture shape; fusion_task.py states the recipe.

    source: must3r, depth or none; geometry: needed for must3r. scene_share: of the clips that come
    from scene folders with depth, where the pool has any of the batch's shape.
    """

    reads_cache = False

    def __init__(
        self,
        pool: ClipPool,
        source: str,
        geometry: ClipGeometry | None,
        *,
        min_area: int,
        twin_share: float,
        fov_share: float,
        tau: float,
        steps: tuple[int, int],
        scene_share: float,
    ):
        self._pool, self._source, self._geometry = pool, source, geometry
        self._min_area, self._twin_share = min_area, twin_share
        self._fov_share, self._tau, self._steps = fov_share, tau, steps
        self._scenes = [entry for entry in pool.scenes if entry.depth is not None]
        self._scene_share = scene_share
        self.fallbacks = 0  # clips made continuous because too few frames were in view

    def at_step(self, step: int) -> None:
        """Renew the pool."""
        self._pool.at_step(step)

    def batch(self, rng: np.random.Generator, clips: int, frames: int, objects: int) -> FusionBatch:
        """A batch of `clips` clips, a pure function of the generator and the pool."""
        rooms = self._pool.rooms
        shape = ratio(rooms[rng.integers(len(rooms))])
        rooms = [entry for entry in rooms if ratio(entry) == shape]
        scenes = [entry for entry in self._scenes if ratio(entry) == shape]
        drawn = []
        for _ in range(clips):
            from_scenes = scenes and rng.random() < self._scene_share
            drawn.append(self._clip(rng, scenes if from_scenes else rooms, frames, objects))
        parts = [(entry.rgb[0, order], entry.ids[0, order], ids) for entry, order, ids in drawn]
        batch: ClipBatch = join(parts, mirror=False)
        geometry = self._geometry_of(rng, drawn)
        return FusionBatch(
            batch.flat_img_batch, batch.flat_obj_to_img_idx, batch.masks, batch.sources, geometry
        )

    def _geometry_of(self, rng: np.random.Generator, drawn: list) -> list[GeometryFrame]:
        """The geometry of all frames of all clips, in their order."""
        if self._source == "must3r":
            fits = [fitted(entry, order, self._geometry.side) for entry, order, _ in drawn]
            images = torch.stack([arrays[0] for _, arrays in fits]) / 127.5 - 1
            frames = self._geometry.frames(rng, images, fits[0][0])
            return [frame for clip in frames for frame in clip]
        answer = true_geometry if self._source == "depth" else no_geometry
        return [frame for entry, order, _ in drawn for frame in answer(entry, order)]

    def _clip(self, rng: np.random.Generator, entries: list, length: int, objects: int):
        """(entry, frames in tracking order, object ids) of one clip."""
        for _ in range(MAX_REDRAWS):
            entry = entries[rng.integers(len(entries))]
            reference = int(rng.integers(entry.rgb.shape[1]))
            areas = entry.areas[0]
            shown = (1 + np.flatnonzero(areas[reference, 1:] >= self._min_area)).tolist()
            if not shown or entry.rgb.shape[1] < length:
                continue
            twins = np.flatnonzero(entry.twin_of[0].cpu().numpy())
            with_twin = [i for i in shown if i in twins] if rng.random() < self._twin_share else []
            main = int(rng.choice(with_twin or shown))
            ids = [main, *(i for i in rng.permutation(shown).tolist() if i != main)][:objects]
            return entry, self._frames(rng, entry, reference, main, length), ids
        raise InputError(
            f"data.min_area={self._min_area}: no generated room of at least {length} frames shows "
            "an object of so many pixels; lower one of them"
        )

    def _frames(
        self,
        rng: np.random.Generator,
        entry: GeneratedClips,
        reference: int,
        main: int,
        length: int,
    ) -> list[int]:
        """Frames of a clip, by field of view or continuous."""
        order = tracking_order(reference, entry.rgb.shape[1])
        if rng.random() >= self._fov_share:
            return continuous_frames(rng, order, length, self._steps)
        share = view_shares(entry, reference, main)
        absent = entry.areas[0, :, main] == 0
        accepted = [t for t in order if t == reference or absent[t] or share[t] > self._tau]
        if len(accepted) < length:
            self.fallbacks += 1
            return continuous_frames(rng, order, length, self._steps)
        return random_frames(rng, accepted, length)


def view_shares(entry: GeneratedClips, reference: int, object_id: int) -> np.ndarray:
    """Share [T] of an object's pixels whose points lie in the reference camera's view."""
    every = (..., slice(None, None, 4), slice(None, None, 4))
    depth = entry.depth[0].float()
    k, poses = entry.intrinsics[0], entry.camera_to_world[0]
    side = torch.arange(depth.shape[-1], device=depth.device, dtype=torch.float32)
    v, u = torch.meshgrid(side, side, indexing="ij")
    pixels = torch.stack((u, v, torch.ones_like(u)), -1)[::4, ::4]
    rays = pixels @ torch.linalg.inv(k[0]).T
    points = move(poses, rays * depth[every][..., None])
    camera = move(torch.linalg.inv(poses[reference]).expand_as(poses), points)
    z = camera[..., 2]
    projected = camera @ k[0].T
    place = projected[..., :2] / z.clamp(min=1e-6)[..., None]
    last = depth.shape[-1] - 1
    inside = ((place > -0.5) & (place < last + 0.5)).all(-1) & (z > 0)
    mask = entry.ids[0][every] == object_id
    share = (inside & mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    return share.cpu().numpy()
