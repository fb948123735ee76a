"""Clips with depth and poses for training MUSt3R: overlapping frames, in streaming order.

Recipe of a clip, a pure function of its random generator:
* A scene and its first frame are drawn uniformly. Each further frame is drawn uniformly from those
  whose overlap with the most similar earlier frame lies in `overlap`; if there are none, from those
  nearest to that range.
* With `steps`, the frames follow the sequence instead, an equal number of frames apart: the camera
  then turns far away from its first view, as it does at inference.
* The overlap of two frames is the share of one frame's points that the other sees; the smaller of
  both shares counts.
* All clips of a batch have the picture shape of its first scene.
* A height is drawn from `heights` for the whole batch; frames that are higher are cropped to their
  middle rows.
* The clip is mirrored with probability 1/2, its geometry included. Its colour channels are permuted
  and its brightness and contrast changed, the same way in all frames.

Frames stay in memory once read, at training size: 5 bytes a pixel, or 1.6 GB for 320 rooms of 60
frames at 128 px.

Pixel centres are at integers. Poses are camera-to-world with OpenCV axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.scenes import Scene
from geometry_fusion.fit import fit_crop
from geometry_fusion.geometry.cameras import resized_intrinsics
from geometry_fusion.training.batches import draw_frames

DEPTH_TOLERANCE = 0.1  # two depths of one point agree within this share
OVERLAP_GRID = 8  # points per side of a frame that are projected to measure overlap


@dataclass
class PosedBatch:
    """B clips of T frames. World coordinates are those of the scene, in metres."""

    images: Tensor  # [B, T, 3, H, W] in -1..1
    depth: Tensor  # [B, T, H, W] metres, 0 = no measurement
    camera_to_world: Tensor  # [B, T, 4, 4]
    intrinsics: Tensor  # [B, T, 3, 3] pixels
    sources: list[str]  # where each clip comes from, for error messages

    def to(self, device: torch.device) -> "PosedBatch":
        """A copy on `device`."""
        tensors = (getattr(self, f.name) for f in fields(self)[:-1])
        return PosedBatch(*(t.to(device) for t in tensors), self.sources)

    def local_points(self) -> Tensor:
        """Points in each frame's own camera: [B, T, H, W, 3], metres."""
        height, width = self.depth.shape[-2:]
        rows = torch.arange(height, device=self.depth.device)
        columns = torch.arange(width, device=self.depth.device)
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack((u, v, torch.ones_like(u)), -1).to(self.depth.dtype)
        rays = torch.einsum("btij,hwj->bthwi", torch.linalg.inv(self.intrinsics), pixels)
        return rays * self.depth[..., None]

    def reference_from_camera(self) -> Tensor:
        """Poses in the camera of the first frame: [B, T, 4, 4]."""
        return torch.linalg.inv(self.camera_to_world[:, :1]) @ self.camera_to_world


def move(poses: Tensor, points: Tensor) -> Tensor:
    """Apply poses [..., 4, 4] to points [..., H, W, 3]."""
    rotated = torch.einsum("...ij,...hwj->...hwi", poses[..., :3, :3], points)
    return rotated + poses[..., None, None, :3, 3]


@dataclass
class LoadedScene:
    """A scene at training size, as arrays over its T frames."""

    images: np.ndarray  # [T, H, W, 3] uint8
    depth_mm: np.ndarray  # [T, H, W] uint16
    poses: np.ndarray  # [T, 4, 4] float32 camera-to-world
    intrinsics: np.ndarray  # [T, 3, 3] float32 pixels of the H x W image
    overlap: np.ndarray  # [T, T] in 0..1

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.images.shape[1:3]


def load_scene(scene: Scene, size: int) -> LoadedScene:
    """Read all frames of a scene, fitted to a long side of `size` pixels as MUSt3R's input is.

    Raises InputError where depth or cameras are missing.
    """
    fit = fit_crop(scene.size, size)
    left, top = fit.crop
    window = slice(top, top + fit.size[1]), slice(left, left + fit.size[0])
    images, depths, poses, intrinsics = [], [], [], []
    for index in range(len(scene)):
        rgb = scene.rgb(index)
        images.append(cv2.resize(rgb, fit.resized, interpolation=cv2.INTER_AREA)[window])
        # Nearest only: averaging would invent points between an object and the wall behind it.
        depth = cv2.resize(scene.depth(index), fit.resized, interpolation=cv2.INTER_NEAREST)[window]
        depths.append((depth * 1000).round().astype(np.uint16))
        pose, k = scene.camera(index)
        k = resized_intrinsics(k, fit.scale)
        k[:2, 2] -= fit.crop
        intrinsics.append(k)
        poses.append(pose)
    poses = np.array(poses, np.float32)
    intrinsics = np.array(intrinsics, np.float32)
    overlap = overlaps(depths, poses, intrinsics)
    return LoadedScene(np.stack(images), np.stack(depths), poses, intrinsics, overlap)


def overlaps(
    depths_mm: Sequence[np.ndarray],  # T of [H, W] uint16
    poses: np.ndarray,  # [T, 4, 4] camera-to-world
    intrinsics: np.ndarray,  # [T, 3, 3] pixels
) -> np.ndarray:  # [T, T] in 0..1
    """The overlap of every pair of frames; symmetric."""
    depths = torch.from_numpy(np.stack(depths_mm).astype(np.float32) / 1000)
    rows, columns = (
        torch.arange(side // (2 * OVERLAP_GRID), side, max(side // OVERLAP_GRID, 1))
        for side in depths.shape[1:]
    )
    poses, intrinsics = torch.from_numpy(poses), torch.from_numpy(intrinsics)
    # A batch of one clip, for its `local_points`; they need no images.
    batch = PosedBatch(depths[None, :, None], depths[None], poses[None], intrinsics[None], [])
    points = move(poses, batch.local_points()[0])[:, rows][:, :, columns].flatten(1, 2)
    _, seen = project(points[None].expand(len(depths), -1, -1, -1), depths, poses, intrinsics)
    share = seen.float().mean(-1).T.numpy()
    return np.minimum(share, share.T)


def project(
    points: Tensor,  # [N, ..., 3] in the world
    depth: Tensor,  # [N, H, W] metres, of the frames into which points are projected
    camera_to_world: Tensor,  # [N, 4, 4]
    intrinsics: Tensor,  # [N, 3, 3] pixels
) -> tuple[Tensor, Tensor]:
    """(pixels [N, ..., 2] as x, y; bool [N, ...] whether a frame sees the point).

    A point is seen if it is inside the image, in front of the camera, and not hidden.
    """
    height, width = depth.shape[-2:]
    shape = points.shape[:-1]
    last = torch.tensor([width - 1, height - 1], device=depth.device)
    camera = move(torch.linalg.inv(camera_to_world), points.reshape(len(depth), -1, 1, 3))[:, :, 0]
    z = camera[..., 2]
    projected = torch.einsum("nij,npj->npi", intrinsics, camera)
    pixels = projected[..., :2] / z.clamp(min=1e-6)[..., None]
    nearest = torch.minimum(pixels.round().clamp(min=0), last).long()
    measured = depth.flatten(1).gather(1, nearest[..., 1] * width + nearest[..., 0])
    inside = ((pixels > -0.5) & (pixels < last + 0.5)).all(-1)
    seen = inside & (z > 1e-3) & ((measured - z).abs() < DEPTH_TOLERANCE * z)
    return pixels.reshape(*shape, 2), seen.reshape(shape)


def draw_overlapping(
    rng: np.random.Generator, overlap: np.ndarray, length: int, allowed: tuple[float, float]
) -> list[int]:
    """`length` different frames, drawn as the module's description says.

    overlap: [T, T] as `overlaps`. allowed: range of overlap with the most similar earlier frame.
    """
    chosen = [int(rng.integers(len(overlap)))]
    while len(chosen) < length:
        best = overlap[chosen].max(0)
        best[chosen] = np.nan
        # Distance of each frame from the allowed range; 0 inside it.
        distance = np.maximum(allowed[0] - best, best - allowed[1]).clip(min=0)
        nearest = np.nanmin(distance)
        chosen.append(int(rng.choice(np.flatnonzero(distance <= nearest + 1e-6))))
    return chosen


class PosedClips:
    """Draws batches of posed clips, all of one picture shape. size: pixels of the long side."""

    def __init__(self, scenes: list[Scene], size: int):
        self.scenes = scenes
        self.size = size
        self._loaded: dict[int, LoadedScene] = {}

    def loaded(self, number: int) -> LoadedScene:
        """The scene `scenes[number]`, read once. Raises InputError as `load_scene`."""
        if number not in self._loaded:
            self._loaded[number] = load_scene(self.scenes[number], self.size)
        return self._loaded[number]

    def _shape(self, number: int) -> tuple[int, int]:
        """(H, W) of a scene as it is loaded, without loading it."""
        return fit_crop(self.scenes[number].size, self.size).size[::-1]

    def at_step(self, step: int) -> None:
        """Nothing: the scenes are the same at every step."""

    def batch(
        self,
        rng: np.random.Generator,
        clips: int,
        frames: int,
        overlap: tuple[float, float] = (0.3, 1.0),
        heights: tuple[int, ...] | None = None,
        steps: tuple[int, int] | None = None,
    ) -> PosedBatch:
        """A batch of `clips` clips, a pure function of the generator and the scenes."""
        drawn, sources = [], []
        height = int(rng.choice(heights)) if heights else self.size
        numbers, shape = range(len(self.scenes)), None
        for _ in range(clips):
            number = numbers[rng.integers(len(numbers))]
            scene = self.loaded(number)
            if shape is None:
                shape = scene.shape
                numbers = [i for i in numbers if self._shape(i) == shape]
            length = min(frames, len(scene.images))
            if steps:
                indices = draw_frames(rng, len(scene.images), length, steps)
            else:
                indices = draw_overlapping(rng, scene.overlap, length, overlap)
            drawn.append(augmented(rng, *cut(min(height, shape[0]), *clip(scene, indices))))
            sources.append(f"{self.scenes[number].folder.name} frames {indices}")
        return to_batch(drawn, sources)


def clip(scene: LoadedScene, indices: list[int]) -> tuple[np.ndarray, ...]:
    """(images, depth in metres, poses, intrinsics) of the frames with these indices."""
    depth = scene.depth_mm[indices].astype(np.float32) / 1000
    return scene.images[indices], depth, scene.poses[indices], scene.intrinsics[indices]


def cut(height: int, images, depth, poses, intrinsics) -> tuple[np.ndarray, ...]:
    """A clip cropped to its middle `height` rows, because videos are wider than high."""
    top = (images.shape[1] - height) // 2
    intrinsics = intrinsics.copy()
    intrinsics[:, 1, 2] -= top
    return images[:, top : top + height], depth[:, top : top + height], poses, intrinsics


def augmented(
    rng: np.random.Generator,
    images: np.ndarray,  # [T, H, W, 3] uint8
    depth: np.ndarray,  # [T, H, W] metres
    poses: np.ndarray,  # [T, 4, 4]
    intrinsics: np.ndarray,  # [T, 3, 3]
) -> tuple[np.ndarray, ...]:
    """The clip mirrored (or not) and recoloured; images become float32 in 0..255."""
    if rng.random() < 0.5:
        width = images.shape[-2]
        images, depth = images[:, :, ::-1], depth[..., ::-1]
        # In the mirrored world x changes its sign, both in the camera and in the scene.
        mirror = np.diag([-1, 1, 1, 1]).astype(np.float32)
        poses, intrinsics = mirror @ poses @ mirror, intrinsics.copy()
        intrinsics[:, 0, 2] = width - 1 - intrinsics[:, 0, 2]
    images = images[..., rng.permutation(3)].astype(np.float32)
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-25, 25)
    return ((images - 128) * gain + 128 + offset).clip(0, 255), depth, poses, intrinsics


def to_batch(clips: list[tuple[np.ndarray, ...]], sources: list[str]) -> PosedBatch:
    """Stack clips (images, depth, poses, intrinsics) of equal shape into one batch."""
    images, depth, poses, intrinsics = zip(*clips)
    rgb = torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 1, 4, 2, 3)
    return PosedBatch(
        images=(rgb / 127.5 - 1).contiguous(),
        depth=torch.from_numpy(np.stack(depth)),
        camera_to_world=torch.from_numpy(np.stack(poses)),
        intrinsics=torch.from_numpy(np.stack(intrinsics)),
        sources=sources,
    )
