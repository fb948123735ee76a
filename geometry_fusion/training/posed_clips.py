"""Clips with depth and pose for training MUSt3R: frames that overlap, in the order in which they
will be seen.

Recipe of a clip, a pure function of its random generator:
* a scene is drawn uniformly, and its first frame; then frame after frame one is drawn uniformly
among those whose
  overlap with the best of the frames before lies in `overlap`, else the nearest to that range;
* with `steps`, the frames follow the walk instead, an equal number of frames apart: the camera
turns far from its first
  view, as it does at inference;
* overlap of two frames: share of either's points that the other sees, the smaller of both shares;
* a height is drawn from `heights` for the whole batch, all frames are cut to their middle rows;
* the clip is mirrored with probability 1/2 (its geometry with it), its colour channels are permuted
and its
  brightness and contrast changed, the same way in all frames.

Frames are kept in memory once read, at training size: 5 bytes a pixel, 1.6 GB for 320 rooms of 60
frames at 128 px.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.scenes import Scene
from geometry_fusion.training.batches import draw_frames

DEPTH_TOLERANCE = 0.1  # two depths of one point agree within this share
OVERLAP_GRID = 8  # points per side of a frame that are followed to measure overlap


@dataclass
class PosedBatch:
    """B clips of T frames. World coordinates are those of the scene, in metres."""

    images: Tensor  # [B, T, 3, H, W] in -1..1
    depth: Tensor  # [B, T, H, W] metres, 0 = no measurement
    camera_to_world: Tensor  # [B, T, 4, 4]
    intrinsics: Tensor  # [B, T, 3, 3] pixels
    sources: list[str]

    def to(self, device: torch.device) -> "PosedBatch":
        tensors = (getattr(self, f.name) for f in fields(self)[:-1])
        return PosedBatch(*(t.to(device) for t in tensors), self.sources)

    def local_points(self) -> Tensor:
        """Points in the own camera's frame: [B, T, H, W, 3]."""
        v, u = torch.meshgrid(
            *(torch.arange(n, device=self.depth.device) for n in self.depth.shape[-2:]),
            indexing="ij",
        )
        pixels = torch.stack((u, v, torch.ones_like(u)), -1).to(self.depth.dtype)
        rays = torch.einsum("btij,hwj->bthwi", torch.linalg.inv(self.intrinsics), pixels)
        return rays * self.depth[..., None]

    def reference_from_camera(self) -> Tensor:
        """Poses relative to the first frame: [B, T, 4, 4]."""
        return torch.linalg.inv(self.camera_to_world[:, :1]) @ self.camera_to_world


def move(poses: Tensor, points: Tensor) -> Tensor:
    """Apply [..., 4, 4] to points [..., H, W, 3]."""
    return (
        torch.einsum("...ij,...hwj->...hwi", poses[..., :3, :3], points)
        + poses[..., None, None, :3, 3]
    )


@dataclass
class LoadedScene:
    """A scene at training size, as arrays over its T frames."""

    images: np.ndarray  # [T, S, S, 3] uint8
    depth_mm: np.ndarray  # [T, S, S] uint16
    poses: np.ndarray  # [T, 4, 4] float32 camera-to-world
    intrinsics: np.ndarray  # [T, 3, 3] float32 pixels of the S x S image
    overlap: np.ndarray  # [T, T] in 0..1


def load_scene(scene: Scene, size: int) -> LoadedScene:
    """Read all frames of a scene, squashed to size x size. Raises InputError where depth or cameras
    are missing.
    """
    images, depths, poses, intrinsics = [], [], [], []
    for index in range(len(scene)):
        rgb = scene.rgb(index)
        height, width = rgb.shape[:2]
        images.append(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA))
        # Nearest only: between an object and the wall behind it there is nothing.
        depth = cv2.resize(scene.depth(index), (size, size), interpolation=cv2.INTER_NEAREST)
        depths.append((depth * 1000).round().astype(np.uint16))
        pose, k = scene.camera(index)
        scale = np.array([size / width, size / height, 1])[:, None]
        shift = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # pixel centres lie at integers
        intrinsics.append((k + shift) * scale - shift)
        poses.append(pose)
    poses, intrinsics = np.array(poses, np.float32), np.array(intrinsics, np.float32)
    return LoadedScene(
        np.stack(images), np.stack(depths), poses, intrinsics, overlaps(depths, poses, intrinsics)
    )


def overlaps(depths_mm, poses: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Of frames [T], the overlap of every pair: [T, T] in 0..1, symmetric."""
    depths = torch.from_numpy(np.stack(depths_mm).astype(np.float32) / 1000)
    side = depths.shape[-1]
    at = torch.arange(side // (2 * OVERLAP_GRID), side, side // OVERLAP_GRID)
    poses, intrinsics = torch.from_numpy(poses), torch.from_numpy(intrinsics)
    empty = PosedBatch(depths[None, :, None], depths[None], poses[None], intrinsics[None], [])
    points = move(poses, empty.local_points()[0])[:, at][:, :, at].flatten(1, 2)  # [T, P, 3]
    _, seen = project(points[None].expand(len(depths), -1, -1, -1), depths, poses, intrinsics)
    share = seen.float().mean(-1).T.numpy()
    return np.minimum(share, share.T)


def project(
    points: Tensor,  # [N, ..., 3] in the world
    depth: Tensor,  # [N, H, W] of the frames that look
    camera_to_world: Tensor,  # [N, 4, 4]
    intrinsics: Tensor,  # [N, 3, 3]
) -> tuple[Tensor, Tensor]:
    """Pixel [N, ..., 2] (x, y) of the points in each frame, and whether it sees them: inside, in
    front, not hidden.
    """
    (height, width), shape = depth.shape[-2:], points.shape[:-1]
    last = torch.tensor([width - 1, height - 1], device=depth.device)
    camera = move(torch.linalg.inv(camera_to_world), points.reshape(len(depth), -1, 1, 3))[:, :, 0]
    z = camera[..., 2]
    pixels = (
        torch.einsum("nij,npj->npi", intrinsics, camera)[..., :2] / z.clamp(min=1e-6)[..., None]
    )
    nearest = torch.minimum(pixels.round().clamp(min=0), last).long()
    there = depth.flatten(1).gather(1, nearest[..., 1] * width + nearest[..., 0])
    inside = ((pixels > -0.5) & (pixels < last + 0.5)).all(-1)
    seen = inside & (z > 1e-3) & ((there - z).abs() < DEPTH_TOLERANCE * z)
    return pixels.reshape(*shape, 2), seen.reshape(shape)


def draw_overlapping(
    rng: np.random.Generator, overlap: np.ndarray, length: int, allowed: tuple[float, float]
) -> list[int]:
    """`length` different frames, each overlapping the best of those before by
    `allowed[0]..allowed[1]` if any does.
    """
    chosen = [int(rng.integers(len(overlap)))]
    while len(chosen) < length:
        best = overlap[chosen].max(0)
        best[chosen] = np.nan
        outside = np.maximum(allowed[0] - best, best - allowed[1]).clip(min=0)
        nearest = np.nanmin(outside)
        chosen.append(int(rng.choice(np.flatnonzero(outside <= nearest + 1e-6))))
    return chosen


class PosedClips:
    """Draws batches of posed clips; `batch(rng, ...)` depends on nothing but the generator and the
    scenes.
    """

    def __init__(self, scenes: list[Scene], size: int):
        self.scenes, self.size = scenes, size
        self._loaded: dict[int, LoadedScene] = {}

    def loaded(self, number: int) -> LoadedScene:
        if number not in self._loaded:
            self._loaded[number] = load_scene(self.scenes[number], self.size)
        return self._loaded[number]

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        overlap: tuple[float, float] = (0.3, 1.0),
        heights: tuple[int, ...] | None = None,
        steps: tuple[int, int] | None = None,
    ) -> PosedBatch:
        drawn, sources = [], []
        height = int(rng.choice(heights)) if heights else self.size
        for _ in range(clips):
            number = int(rng.integers(len(self.scenes)))
            scene = self.loaded(number)
            length = min(frames, len(scene.images))
            if steps:
                indices = draw_frames(rng, len(scene.images), length, steps)
            else:
                indices = draw_overlapping(rng, scene.overlap, length, overlap)
            drawn.append(augmented(rng, *cut(height, *clip(scene, indices))))
            sources.append(f"{self.scenes[number].folder.name} frames {indices}")
        return to_batch(drawn, sources)


def clip(scene: LoadedScene, indices: list[int]) -> tuple[np.ndarray, ...]:
    """Images, depth in metres, poses and intrinsics of some frames."""
    depth = scene.depth_mm[indices].astype(np.float32) / 1000
    return scene.images[indices], depth, scene.poses[indices], scene.intrinsics[indices]


def cut(height: int, images, depth, poses, intrinsics) -> tuple[np.ndarray, ...]:
    """The middle `height` rows of all frames: videos are wider than high."""
    top = (images.shape[1] - height) // 2
    intrinsics = intrinsics.copy()
    intrinsics[:, 1, 2] -= top
    return images[:, top : top + height], depth[:, top : top + height], poses, intrinsics


def augmented(rng: np.random.Generator, images, depth, poses, intrinsics) -> tuple[np.ndarray, ...]:
    if rng.random() < 0.5:
        side = images.shape[-2]
        images, depth = images[:, :, ::-1], depth[..., ::-1]
        # The mirrored world: x changes its sign in the camera and in the scene.
        mirror = np.diag([-1, 1, 1, 1]).astype(np.float32)
        poses, intrinsics = mirror @ poses @ mirror, intrinsics.copy()
        intrinsics[:, 0, 2] = side - 1 - intrinsics[:, 0, 2]
    images = images[..., rng.permutation(3)].astype(np.float32)
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-25, 25)
    return ((images - 128) * gain + 128 + offset).clip(0, 255), depth, poses, intrinsics


def to_batch(clips: list[tuple[np.ndarray, ...]], sources: list[str]) -> PosedBatch:
    images, depth, poses, intrinsics = (np.stack(parts) for parts in zip(*clips))
    images = torch.from_numpy(images.astype(np.float32)).permute(0, 1, 4, 2, 3) / 127.5 - 1
    rest = (torch.from_numpy(np.ascontiguousarray(a)) for a in (depth, poses, intrinsics))
    return PosedBatch(images.contiguous(), *rest, sources)
