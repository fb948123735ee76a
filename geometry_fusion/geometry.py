"""Geometry sources: what each frame shows of the scene, in the coordinates of the first frame that was pushed.

`GeometrySource.push(frame_index, image) -> GeometryFrame`, `push_all` for several, `reset()`, and for long videos
`trim()`, `snapshot()` and `restore()`. Three of them:
* `Must3rStream`: from RGB alone, by a frozen MUSt3R with its multi-view memory (docs/must3r_spec.md section 10.4);
* `PosedDepth`: from depth maps and camera poses, where the user has them;
* `NoGeometry`: nothing; the baseline arm, so that both arms run the same code.

Frames are pushed in tracking order. A frame that was pushed before (tracking backwards passes the prompted frame again)
is answered from the memory as it is now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Protocol

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, fit_crop, fit_to_square
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import Pointmaps, camera_to_world, focal_length, lengths, pointmaps
from geometry_fusion.types import Camera, GeometryFrame

FAR = np.finfo(np.float64).max  # the distance to the nearest of no points
APART = 1e6  # between bins of directions in the tree, in units of points: farther than any point of a scene
READ_AT_ONCE = 8  # new frames decoded together at most; fewer where many become keyframes


class GeometrySource(Protocol):
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]."""

    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` of one frame after another, in their order; sources may be faster with several."""
        return [self.push(index, image) for index, image in frames.items()]

    def reset(self) -> None:
        """Forget all frames: the next one is the reference."""

    def trim(self) -> None:
        """Forget what is only needed if an earlier frame comes again; its keyframes and the latest frame may."""

    def snapshot(self) -> dict:
        """All that is known, as plain values and tensors, so that an interrupted run can continue."""

    def restore(self, snapshot: dict) -> None:
        """Know what a source of the same kind and options knew at its `snapshot`."""


class NoGeometry(GeometrySource):
    """Knows nothing: no levels, confidence 0 everywhere."""

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        empty = torch.zeros(3, 1, 1)
        fit = fit_to_square(image.shape[1::-1], 1)
        return GeometryFrame((), empty, empty, empty[0], torch.ones(()), None, fit)

    def reset(self) -> None:
        pass

    def trim(self) -> None:
        pass

    def snapshot(self) -> dict:
        return {}

    def restore(self, snapshot: dict) -> None:
        pass


class PosedDepth(GeometrySource):
    """Points and rays from depth and poses: `look(frame_index)` gives depth [H, W] in metres (0 = unknown),
    camera-to-world [4, 4] and K [3, 3]; for scene folders see `posed_depth_of`.

    side: pixels of the square grid on which points are given.
    """

    def __init__(self, look: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]], side: int = 64):
        self._look, self._side = look, side
        self.reset()

    def reset(self) -> None:
        self._world_to_reference: np.ndarray | None = None
        self._scale: float | None = None

    def trim(self) -> None:
        pass

    def snapshot(self) -> dict:
        known = self._world_to_reference
        return {"reference": None if known is None else torch.from_numpy(known), "scale": self._scale}

    def restore(self, snapshot: dict) -> None:
        reference = snapshot["reference"]
        self._world_to_reference = None if reference is None else reference.numpy()
        self._scale = snapshot["scale"]

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Raises InputError when the first frame has no depth at all."""
        depth, pose, k = self._look(frame_index)
        height, width = depth.shape
        if self._world_to_reference is None:
            self._world_to_reference = np.linalg.inv(pose)
        pose = self._world_to_reference @ pose
        # Centres of the cells of the grid, in pixels of the depth map.
        columns, rows = ((np.arange(self._side) + 0.5) * n / self._side - 0.5 for n in (width, height))
        u, v = np.meshgrid(columns, rows)
        at = depth[np.ix_(rows.round().astype(int), columns.round().astype(int))]
        directions = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)])
        points = np.einsum("ij,jhw->ihw", pose[:3, :3], directions * at) + pose[:3, 3, None, None]
        rays = np.einsum("ij,jhw->ihw", pose[:3, :3], directions / np.linalg.norm(directions, axis=0))
        known = at > 0
        if self._scale is None:
            if not known.any():
                raise InputError(f"frame {frame_index}: the reference frame has no depth; start at another frame")
            self._scale = float(np.median(np.linalg.norm(points, axis=0)[known]))
        tensors = (torch.from_numpy(a.astype(np.float32)) for a in (points, rays, known, np.array(self._scale)))
        camera = Camera(float(k[0, 0]) * image.shape[1] / width, torch.from_numpy(pose).float())
        return GeometryFrame((), *tensors, camera, fit_to_square(image.shape[1::-1], self._side))


def posed_depth_of(scene, frames: Sequence[int] | None = None, side: int = 64) -> PosedDepth:
    """`PosedDepth` of a scene folder (geometry_fusion.data.scenes.Scene); frames: scene index of each video frame."""

    def look(index: int):
        index = frames[index] if frames is not None else index
        return scene.depth(index), *scene.camera(index)

    return PosedDepth(look, side)


class OverlapRule:
    """Decides whether a frame sees something new (SPEC section 10.3): kept points of earlier keyframes in a
    nearest-neighbour structure for each bin of viewing direction. Here they are one tree, its bins far apart along a
    fourth axis.

    Score: p-th percentile over the frame's sure points of the distance to the nearest kept point of the same bin,
    relative to the point's own depth. A frame is new if its score exceeds `threshold` and its median confidence
    `min_confidence`.
    """

    def __init__(
        self,
        threshold: float = 0.15,
        min_confidence: float = 1.5,
        percentile: float = 70,
        subsample: int = 4,
        relative: bool = True,  # mode nn-norm; False is mode nn
        angular_bins: int = 2,  # along the polar angle; 2 n^2 bins in all
    ):
        self.threshold, self.min_confidence, self.percentile = threshold, min_confidence, percentile
        self._every, self._relative, self._n = subsample, relative, angular_bins
        self.reset()

    def reset(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # keyframe -> points [N, 3], bins [N]
        self._tree: KDTree | None = None

    def score(self, points: Tensor, confidence: Tensor, depth: Tensor, pose: Tensor) -> float:
        """points [H, W, 3], confidence [H, W], depth (local z) [H, W], pose [4, 4]; 0 if no point is sure."""
        found, bins, z = self._sure(points, confidence, depth, pose)
        if not len(found):
            return 0.0
        distance = np.full(len(found), np.inf)
        if self._kept:
            distance = self._built().query(_with_bins(found, bins), distance_upper_bound=APART / 2)[0]
        if self._relative:
            distance /= z + 1e-9
        distance[np.isinf(distance)] = FAR
        with np.errstate(over="ignore", invalid="ignore"):
            score = np.percentile(distance, self.percentile)
        return float(score) if np.isfinite(score) else FAR

    def is_new(self, score: float, confidence: Tensor) -> bool:
        return score > self.threshold and float(confidence.median()) > self.min_confidence

    def keep(self, keyframe: int, points: Tensor, confidence: Tensor, depth: Tensor, pose: Tensor) -> None:
        self._kept[keyframe] = self._sure(points, confidence, depth, pose)[:2]
        self._tree = None

    def drop(self, keyframe: int) -> None:
        self._kept.pop(keyframe, None)
        self._tree = None

    def snapshot(self) -> dict:
        return {keyframe: tuple(map(torch.from_numpy, kept)) for keyframe, kept in self._kept.items()}

    def restore(self, snapshot: dict) -> None:
        self._kept = {keyframe: tuple(t.numpy() for t in kept) for keyframe, kept in snapshot.items()}
        self._tree = None

    def _built(self) -> KDTree:
        if self._tree is None:
            points, bins = (np.concatenate(parts) for parts in zip(*self._kept.values()))
            self._tree = KDTree(_with_bins(points, bins))
        return self._tree

    def _sure(self, points, confidence, depth, pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        every = (slice(None, None, self._every),) * 2
        points, confidence, depth = (t[every].cpu().numpy() for t in (points, confidence, depth))
        sure = (confidence > self.min_confidence) & np.isfinite(points).all(-1)
        points = points[sure]
        return points, self._direction_bins(points, pose[:3, 3].cpu().numpy()), depth[sure].astype(np.float64)

    def _direction_bins(self, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        rays = points - centre
        rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-5)
        theta = np.clip(np.arccos(np.clip(rays[:, 2], -1, 1)) / np.pi, 1e-5, 1 - 1e-5)
        phi = np.clip(np.arctan2(rays[:, 1], rays[:, 0]) / np.pi, -1 + 1e-5, 1 - 1e-5)
        return (np.floor(theta * self._n) + (np.floor(phi * self._n) + self._n) * self._n).astype(int)


def _with_bins(points: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """[N, 3], [N] -> [N, 4]: distances within a bin stay what they are, other bins are out of reach."""
    return np.concatenate((points, bins[:, None] * APART), 1, dtype=np.float64)


@dataclass
class _View:
    """One decoded frame. Its depth is rescaled to the focal length of the sequence, except in the first frame."""

    maps: Pointmaps  # [H, W, ...]
    pose: Tensor  # [4, 4]
    own_focal: float  # pixels of the fitted image
    features: list[Tensor]  # per decoder level [N, D]

    @property
    def weight(self) -> float:
        return float(self.maps.confidence.mean()) - 1


class Must3rStream(GeometrySource):
    """MUSt3R over a stream of frames (SPEC section 10.4), with a cap on keyframes and eviction.

    The first `num_init_frames` frames are decoded jointly, again with each of them. A later frame is decoded against
    the memory; it becomes a keyframe, part of the memory, if the overlap rule finds something new in it. With more
    than `max_keyframes`, of the two keyframes whose viewpoints are most alike the later one goes, never the first:
    views that were seen once from one place are what a returning camera needs. A frame that would go itself is not
    taken in.

    levels: which features a GeometryFrame carries: 0 is the encoder's, i the output of decoder block i.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        *,
        levels: Sequence[int],
        side: int | None = None,  # pixels of the long side; default: the encoder's own
        square: bool | None = None,  # cut the centre square; default: for encoders made for 224, 336 and 448
        num_init_frames: int = 2,
        max_keyframes: int = 24,
        rule: OverlapRule | None = None,
        precision: str = "auto",
    ):
        if num_init_frames < 1 or max_keyframes < max(num_init_frames, 2):
            raise ValueError(f"max_keyframes={max_keyframes}: must be at least 2 and num_init_frames={num_init_frames}")
        self._encoder, self._decoder = encoder, decoder
        self.levels, self._precision = tuple(levels), precision
        self._side = side or max(encoder.img_size)
        self._square = self._side in (224, 336, 448) if square is None else square
        self._num_init, self._max_keyframes = num_init_frames, max_keyframes
        self._rule = rule or OverlapRule()
        self._device = next(encoder.parameters()).device
        self.reset()

    def reset(self) -> None:
        self._fit: Fit | None = None
        self._first_inputs: list[tuple[int, tuple]] = []  # (frame_index, tokens) of the frames of the initialisation
        self._forget()
        self.maps: Pointmaps | None = None  # of the latest answer, [H, W, ...]
        self.scores: list[float] = []  # of every frame that was judged, in order; the first ones more than once

    def _forget(self) -> None:
        self._memory: Memory | None = None
        self._labels: dict[int, int] = {}  # frame in memory -> its label there
        self._poses: dict[int, Tensor] = {}
        self._focals = [
            0.0,
            0.0,
        ]  # sum of focal length times weight, and of weights, over the frames where both are known
        self._scale: Tensor | None = None
        self._read_at_once = READ_AT_ONCE
        self._rule.reset()

    @property
    def keyframes(self) -> list[int]:
        """Indices of the frames in memory."""
        return list(self._labels)

    @property
    def memory(self) -> Memory | None:
        return self._memory

    @property
    def poses(self) -> dict[int, Tensor]:
        """Camera-to-world [4, 4] of every frame pushed (since the last `trim`, and of keyframes), as estimated when
        it came."""
        return dict(self._poses)

    @property
    def focal(self) -> float:
        """Mean focal length of the frames so far in pixels of the original frame, weighted by mean confidence - 1."""
        return self._mean_focal() / self._fit.scale[0]

    @torch.no_grad()
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]. Raises InputError if its size is not that of the first frame."""
        return self.push_all({frame_index: image})[0]

    @torch.no_grad()
    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` one after another, up to rounding: frames are encoded together, and decoded together up to the
        first one that becomes a keyframe; those after it are decoded again, with it in memory."""
        waiting = list(zip(frames, self._encode(list(frames.values()))))
        answers = []
        while waiting:
            index, tokens = waiting[0]
            if index in self._poses:
                answers.append(self._answer(self._rendered(tokens)))
                del waiting[0]
            elif len(self._poses) < self._num_init:
                answers.append(self._answer(self._initialise(index, tokens)))
                del waiting[0]
            else:
                new = takewhile(lambda frame: frame[0] not in self._poses, waiting)
                read = self._read_up_to_a_keyframe(list(islice(new, self._read_at_once)))
                answers += read
                del waiting[: len(read)]
        return answers

    def _read_up_to_a_keyframe(self, frames: list[tuple[int, tuple]]) -> list[GeometryFrame]:
        """New frames (index, tokens) decoded against the memory, in order, until one of them changes it."""
        answers = []
        raw, features, with_image = self._read_apart(frames)
        for number, measured in enumerate(self._measured(raw)):
            index = frames[number][0]
            view = self._view(measured, [f[number] for f in features], self._mean_focal())
            is_keyframe = self._judge(index, view)
            if is_keyframe:
                with autocast(self._device, self._precision):
                    self._memory = with_image(number)
                    self._memory.settle()
                self._labels[index] = self._memory.num_images - 1
                self._evict()
            answers.append(self._answer(view))
            if is_keyframe:
                self._read_at_once = 2  # while new places come, more are decoded in vain
                return answers
        self._read_at_once = min(2 * self._read_at_once, READ_AT_ONCE)
        return answers

    def _read_apart(self, frames: list[tuple[int, tuple]]) -> tuple[Tensor, list[Tensor], Callable[[int], Memory]]:
        """As MUSt3R.read_apart, without the batch dimension; the official decoder reads the first of them alone."""
        with autocast(self._device, self._precision):
            if hasattr(self._decoder, "read_apart"):
                joined = [torch.cat(parts, 1) for parts in zip(*(tokens for _, tokens in frames))]
                raw, features, with_image = self._decoder.read_apart(*joined, Memory.of(self._memory))
            else:
                memory, raw, features = self._decoder(*frames[0][1], self._memory, return_feats=True)
                with_image = lambda _: Memory.of(memory)  # noqa: E731
        return raw[0], [f[0] for f in features], with_image

    def trim(self) -> None:
        if len(self._poses) > len(self._labels) + 1:
            latest = next(reversed(self._poses))
            self._poses = {f: pose for f, pose in self._poses.items() if f in self._labels or f == latest}
        del self.scores[:-1]
        if len(self._poses) >= self._num_init:
            self._first_inputs.clear()

    def snapshot(self) -> dict:
        known = {
            "size": self._fit and self._fit.original,
            "first_inputs": self._first_inputs,
            "labels": self._labels,
            "poses": self._poses,
            "focals": self._focals,
            "scale": self._scale,
            "scores": self.scores,
            "read_at_once": self._read_at_once,
            "rule": self._rule.snapshot(),
        }
        if self._memory is not None:
            memory = Memory.of(self._memory)
            # Copies of what is used: the buffer behind has room to spare.
            layers = [t.clone() for t in memory.layers]
            known["memory"] = (layers, memory.labels.clone(), memory.num_images)
        return known

    def restore(self, snapshot: dict) -> None:
        self.reset()
        if snapshot["size"]:
            self._fit = fit_crop(tuple(snapshot["size"]), self._side, square=self._square)
        self._first_inputs = list(snapshot["first_inputs"])
        self._labels, self._poses = dict(snapshot["labels"]), dict(snapshot["poses"])
        self._focals, self._scale, self.scores = snapshot["focals"], snapshot["scale"], list(snapshot["scores"])
        self._read_at_once = snapshot["read_at_once"]
        self._rule.restore(snapshot["rule"])
        if "memory" in snapshot:
            self._memory = Memory(*snapshot["memory"])

    @torch.no_grad()
    def render(self, image: np.ndarray) -> GeometryFrame:
        """A frame of the same video as the memory sees it now; changes nothing."""
        return self._answer(self._rendered(*self._encode([image])))

    def _encode(self, images: list[np.ndarray]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image its tokens [1, 1, N, De], positions [1, 1, N, 2] and shape [1, 1, 2]."""
        size = images[0].shape[1::-1]
        if self._fit is None:
            self._fit = fit_crop(size, self._side, square=self._square)
        for size in (image.shape[1::-1] for image in images):
            if self._fit.original != size:
                was, now = ("x".join(map(str, s)) for s in (self._fit.original, size))
                raise InputError(f"frame of {now}: the video started with {was}; frames must not change size")
        # Values in -1..1 (SPEC section 8).
        pixels = torch.from_numpy(np.stack([self._fit.apply(image) for image in images])).to(self._device)
        pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        shape = torch.tensor([pixels.shape[-2:]] * len(images))
        encoded = (*self._encoder(pixels, shape), shape)
        return [tuple(part[i : i + 1, None].transpose(0, 1) for part in encoded) for i in range(len(images))]

    def _decode(self, inputs: list[tuple], memory: Memory | None, render: bool = False) -> tuple:
        """(memory, per image what `_view` takes of it)."""
        joined = [torch.cat(parts, 1) for parts in zip(*inputs)]
        with autocast(self._device, self._precision):
            memory, raw, features = self._decoder(*joined, memory, render=render, return_feats=True)
        measured = self._measured(raw[0])
        return memory, [(found, [f[0, i] for f in features]) for i, found in enumerate(measured)]

    def _initialise(self, frame_index: int, tokens: tuple) -> _View:
        # Everything is done anew with all frames so far: only the joint call lets the first frames see each other.
        self._first_inputs.append((frame_index, tokens))
        self._forget()
        self._memory, results = self._decode([tokens for _, tokens in self._first_inputs], None)
        for label, ((index, _), result) in enumerate(zip(self._first_inputs, results)):
            view = self._view(*result, self._mean_focal() if label else None)
            self._judge(index, view)
            self._labels[index] = label
        return view

    def _rendered(self, tokens: tuple) -> _View:
        _, (result,) = self._decode([tokens], self._memory, render=True)
        return self._view(*result, self._mean_focal())

    def _measured(self, raw: Tensor) -> list[tuple[Pointmaps, float]]:
        """Raw maps [n, H, W, 7] -> per image its pointmaps and the focal length they have in pixels of the fit."""
        maps = pointmaps(raw, getattr(self._decoder, "pointmaps_activation", "norm_exp"))
        focals = focal_length(maps.local).tolist()
        return [(Pointmaps(*(m[i] for m in maps)), focal) for i, focal in enumerate(focals)]

    def _view(self, measured: tuple[Pointmaps, float], features: list[Tensor], focal: float | None) -> _View:
        """focal: what the sequence is known to have, in pixels of the fitted image; None for the reference frame."""
        maps, own_focal = measured
        if focal is None:
            return _View(maps, torch.eye(4, device=maps.points.device), own_focal, features)
        if own_focal > 0:
            maps = maps._replace(local=maps.local * maps.local.new_tensor([1, 1, focal / own_focal]))
        return _View(maps, camera_to_world(maps.local, maps.points, maps.confidence), own_focal, features)

    def _mean_focal(self) -> float:
        weighted, weights = self._focals
        return weighted / weights if weights else float(max(self._fit.size))  # unknown: about 53 degrees

    def _judge(self, frame_index: int, view: _View) -> bool:
        """Record a new frame; whether it is a keyframe."""
        first = not self._poses
        if first:
            self._scale = lengths(view.maps.points).median()
        if view.own_focal > 0 and view.weight > 0:
            self._focals = [self._focals[0] + view.own_focal * view.weight, self._focals[1] + view.weight]
        self._poses[frame_index] = view.pose
        seen = (view.maps.points, view.maps.confidence, view.maps.local[..., 2], view.pose)
        score = self._rule.score(*seen)
        self.scores.append(score)
        is_keyframe = first or self._rule.is_new(score, view.maps.confidence)
        if is_keyframe and len(self._labels) >= self._max_keyframes:
            # What would be evicted at once is not taken in: the memory stays as it is.
            is_keyframe = self._dispensable([*self._labels, frame_index]) != frame_index
        if is_keyframe:
            self._rule.keep(frame_index, *seen)
        return is_keyframe

    def _evict(self) -> None:
        if len(self._labels) > self._max_keyframes:
            evicted = self._dispensable(list(self._labels))
            self._memory = Memory.of(self._memory).without([self._labels.pop(evicted)])
            self._rule.drop(evicted)

    def _dispensable(self, frames: list[int]) -> int:
        """The later one of the two frames whose viewpoints are most alike."""
        poses = torch.stack([self._poses[frame] for frame in frames])
        apart = torch.cdist(poses[:, :3, 3], poses[:, :3, 3]) / self._scale
        turned = torch.einsum("aij,bij->ab", poses[:, :3, :3], poses[:, :3, :3])  # trace of the relative rotation
        unlike = apart + ((turned - 1) / 2).clamp(-1, 1).acos()
        unlike = unlike + torch.full_like(unlike, torch.inf).tril()
        return frames[int(unlike.argmin()) % len(frames)]  # the column

    def _answer(self, view: _View) -> GeometryFrame:
        self.maps = view.maps
        height, width = view.maps.confidence.shape
        patch = self._encoder.patch_size
        grid = (height // patch, width // patch)
        levels = tuple(view.features[level].T.unflatten(1, grid).float() for level in self.levels)
        focal = self._mean_focal()
        x = (torch.arange(width, device=self._device) - width / 2) / focal
        y = ((torch.arange(height, device=self._device) - height / 2) / focal)[:, None]
        right, down, forward = view.pose[:3, :3].T[..., None, None]  # the camera's axes, [3, 1, 1]
        rays = (right * x + down * y + forward) / (x.square() + y.square() + 1).sqrt()
        return GeometryFrame(
            levels,
            view.maps.points.permute(2, 0, 1),
            rays,
            1 - 1 / view.maps.confidence,
            self._scale,
            Camera(focal / self._fit.scale[0], view.pose),
            self._fit,
        )
