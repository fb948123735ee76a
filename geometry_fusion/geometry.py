"""Geometry sources: what each frame shows of the scene, in the coordinates of the first frame that
was pushed.

`GeometrySource.push(frame_index, image) -> GeometryFrame`, `push_all` for several, `reset()`, and
for long videos `trim()`, `snapshot()` and `restore()`. Three of them: * `Must3rStream`: from RGB
alone, by a frozen MUSt3R with its multi-view memory (docs/must3r_spec.md section 10.4); *
`PosedDepth`: from depth maps and camera poses, where the user has them; * `NoGeometry`: nothing;
the baseline arm, so that both arms run the same code.

Frames are pushed in tracking order. A frame that was pushed before (tracking backwards passes the
prompted frame again) is answered from the memory as it is now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, fit_crop, fit_to_square
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import (
    Pointmaps,
    camera_to_world,
    focal_length,
    lengths,
    pointmaps,
)
from geometry_fusion.overlap import OverlapRule, Sight
from geometry_fusion.types import Camera, GeometryFrame

ENCODED_BYTES = 256 * 2**20  # of encoder tokens at most, for frames that come or are rendered again


class GeometrySource(Protocol):
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]."""

    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` of one frame after another, in their order; sources may be faster with
        several.
        """
        return [self.push(index, image) for index, image in frames.items()]

    def reset(self) -> None:
        """Forget all frames: the next one is the reference."""

    def trim(self, renders: bool = False) -> None:
        """Drop per-frame data of all frames except keyframes and the latest one. renders: earlier
        frames may come again, by `push` or to be rendered; keep what that needs."""

    def snapshot(self) -> dict:
        """All that is known, as plain values and tensors, so that an interrupted run can
        continue.
        """

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

    def trim(self, renders: bool = False) -> None:
        pass

    def snapshot(self) -> dict:
        return {}

    def restore(self, snapshot: dict) -> None:
        pass


class PosedDepth(GeometrySource):
    """Points and rays from depth and poses: `look(frame_index)` gives depth [H, W] in metres (0 =
    unknown), camera-to-world [4, 4] and K [3, 3]; for scene folders see `posed_depth_of`.

    side: pixels of the square grid on which points are given.
    """

    def __init__(
        self, look: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]], side: int = 64
    ):
        self._look, self._side = look, side
        self.reset()

    def reset(self) -> None:
        self._world_to_reference: np.ndarray | None = None
        self._scale: float | None = None

    def trim(self, renders: bool = False) -> None:
        pass

    def snapshot(self) -> dict:
        known = self._world_to_reference
        return {
            "reference": None if known is None else torch.from_numpy(known),
            "scale": self._scale,
        }

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
        columns, rows = (
            (np.arange(self._side) + 0.5) * n / self._side - 0.5 for n in (width, height)
        )
        u, v = np.meshgrid(columns, rows)
        at = depth[np.ix_(rows.round().astype(int), columns.round().astype(int))]
        directions = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)])
        points = np.einsum("ij,jhw->ihw", pose[:3, :3], directions * at) + pose[:3, 3, None, None]
        rays = np.einsum(
            "ij,jhw->ihw", pose[:3, :3], directions / np.linalg.norm(directions, axis=0)
        )
        known = at > 0
        if self._scale is None:
            if not known.any():
                raise InputError(
                    f"frame {frame_index}: the reference frame has no depth; start at another frame"
                )
            self._scale = float(np.median(np.linalg.norm(points, axis=0)[known]))
        tensors = (
            torch.from_numpy(a.astype(np.float32))
            for a in (points, rays, known, np.array(self._scale))
        )
        camera = Camera(float(k[0, 0]) * image.shape[1] / width, torch.from_numpy(pose).float())
        return GeometryFrame((), *tensors, camera, fit_to_square(image.shape[1::-1], self._side))


def posed_depth_of(scene, frames: Sequence[int] | None = None, side: int = 64) -> PosedDepth:
    """`PosedDepth` of a scene folder (geometry_fusion.data.scenes.Scene); frames: scene index of
    each video frame.
    """

    def look(index: int):
        index = frames[index] if frames is not None else index
        return scene.depth(index), *scene.camera(index)

    return PosedDepth(look, side)


@dataclass
class _Views:
    """Decoded frames. Depth is rescaled to the focal length of the sequence, except in the
    reference frame.
    """

    maps: Pointmaps  # [F, H, W, ...]
    poses: Tensor  # [F, 4, 4] camera-to-world
    focals: list[float]  # the sequence's mean after each frame, pixels of the fitted image
    features: list[Tensor]  # per decoder level [F, N, D]


class Must3rStream(GeometrySource):
    """MUSt3R over a stream of frames (SPEC section 10.4), with a cap on keyframes and eviction.

    The first `num_init_frames` frames are decoded jointly, again with each of them. A later frame
    is decoded against the memory; it becomes a keyframe, part of the memory, if the overlap rule
    finds something new in it. With more than `max_keyframes`, of the two keyframes whose viewpoints
    are most alike the later one goes, never the first: views that were seen once from one place are
    what a returning camera needs. A frame that would go itself is not taken in.

    levels: which features a GeometryFrame carries: 0 is the encoder's, i the output of decoder
    block i. join_every: keyframes join the memory when the next group of so many frames begins, by
    their numbers (4: at frames 4, 8, ...), so that a group is decoded at once and answers do not
    depend on how a video is cut into calls; 1 is the specification's stream, where the very next
    frame reads a keyframe.

    Until `reset` a frame's index stands for one image.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        *,
        levels: Sequence[int],
        side: int | None = None,  # pixels of the long side; default: the encoder's own
        square: bool
        | None = None,  # cut the centre square; default: for encoders made for 224, 336 and 448
        num_init_frames: int = 2,
        max_keyframes: int = 24,
        join_every: int = 1,
        rule: OverlapRule | None = None,
        precision: str = "auto",
    ):
        if num_init_frames < 1 or max_keyframes < max(num_init_frames, 2):
            raise ValueError(
                f"max_keyframes={max_keyframes}: must be at least 2 and "
                f"num_init_frames={num_init_frames}"
            )
        if join_every < 1:
            raise ValueError(f"join_every={join_every}: must be at least 1")
        self._encoder, self._decoder = encoder, decoder
        self.levels, self._precision = tuple(levels), precision
        self._side = side or max(encoder.img_size)
        self._square = self._side in (224, 336, 448) if square is None else square
        self._num_init, self._max_keyframes, self._join_every = (
            num_init_frames,
            max_keyframes,
            join_every,
        )
        self._rule = rule or OverlapRule()
        self._device = next(encoder.parameters()).device
        self.reset()

    def reset(self) -> None:
        self._fit: Fit | None = None
        self._encoded: dict[int, tuple] = {}  # frames as `_encode` gives them, the first ones
        self._first_inputs: list[
            tuple[int, tuple]
        ] = []  # (frame_index, tokens) of the frames of the initialisation
        self._forget()
        self.maps: Pointmaps | None = None  # of the latest answer, [H, W, ...]
        # Of the frames that were judged, in order: the first ones more than once, at the cap not
        # those whose viewpoint is too much like another's to be taken in.
        self.scores: list[float] = []

    def _forget(self) -> None:
        self._memory: Memory | None = None  # what frames of the present group read
        self._next_memory: Memory | None = None  # with the keyframes of this group
        self._group: int | None = None
        self._labels: dict[int, int] = {}  # frame in the next memory -> its label there
        self._poses: dict[int, Tensor] = {}
        # Sum of focal length times weight, and of weights, over the frames where both are known.
        self._focals = [0.0, 0.0]
        self._scale: Tensor | None = None
        self._rule.reset()

    @property
    def keyframes(self) -> list[int]:
        """Indices of the frames in memory."""
        return list(self._labels)

    @property
    def memory(self) -> Memory | None:
        """With all keyframes so far."""
        return self._next_memory

    @property
    def poses(self) -> dict[int, Tensor]:
        """Camera-to-world [4, 4] of every frame pushed (since the last `trim`, and of keyframes),
        as estimated when it came."""
        return dict(self._poses)

    @property
    def focal(self) -> float:
        """Mean focal length of the frames so far in pixels of the original frame, weighted by mean
        confidence - 1.
        """
        return self._mean_focal() / self._fit.scale[0]

    @torch.no_grad()
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]. Raises InputError if its size is not that of
        the first frame.
        """
        return self.push_all({frame_index: image})[0]

    @torch.no_grad()
    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` one after another, up to rounding: frames are encoded together, those of a
        group decoded together."""
        waiting = list(zip(frames, self._encode(frames)))
        answers = []
        while waiting:
            index, tokens = waiting[0]
            if index in self._poses:
                together = waiting[:1]
                answers += self._answers(self._rendered(tokens))
            elif len(self._poses) < self._num_init:
                together = waiting[:1]
                answers += self._answers(self._initialised(index, tokens))[-1:]
            else:
                together = self._new_of_one_group(waiting)
                answers += self._answers(self._read(together))
            del waiting[: len(together)]
        return answers

    def _new_of_one_group(self, waiting: list[tuple[int, tuple]]) -> list[tuple[int, tuple]]:
        """The first of the frames (index, tokens) and those after it that belong to its group and
        are new.
        """
        group = waiting[0][0] // self._join_every
        return list(
            takewhile(
                lambda f: f[0] // self._join_every == group and f[0] not in self._poses, waiting
            )
        )

    def _read(self, frames: list[tuple[int, tuple]]) -> _Views:
        """New frames of one group decoded against the memory; keyframes among them go to the
        next.
        """
        group = frames[0][0] // self._join_every
        if group != self._group:
            self._memory, self._group = self._next_memory, group
        raw, features, remembered = self._read_apart(frames)
        views = self._views(raw, features)
        sights = self._sights(views)
        for number, (index, _) in enumerate(frames):
            if self._is_keyframe(index, views.poses[number], sights[number]):
                self._keep(index, lambda number=number: remembered(number, self._next_memory))
        return views

    def _keep(self, frame_index: int, extended: Callable[[], Memory]) -> None:
        """A new keyframe joins the next memory; at the cap one leaves it."""
        with autocast(self._device, self._precision):
            self._next_memory = extended()
            self._next_memory.settle()
        self._labels[frame_index] = self._next_memory.num_images - 1
        self._evict()

    def _read_apart(
        self, frames: list[tuple[int, tuple]]
    ) -> tuple[Tensor, list[Tensor], Callable[[int, Memory], Memory]]:
        """As MUSt3R.read_apart, without the batch dimension; the official decoder reads one after
        another.
        """
        with autocast(self._device, self._precision):
            if hasattr(self._decoder, "read_apart"):
                joined = [torch.cat(parts, 1) for parts in zip(*(tokens for _, tokens in frames))]
                raw, features, remembered = self._decoder.read_apart(*joined, self._memory)
                return raw[0], [f[0] for f in features], remembered
            found = [self._read_alone(*tokens) for _, tokens in frames]
        layers, raw, features = zip(*found)

        def remembered(number: int, memory: Memory) -> Memory:
            labels = torch.full(layers[number][0].shape[:2], memory.num_images, device=self._device)
            return memory.appended(lambda: layers[number], labels, 1)

        return (
            torch.cat(raw, 1)[0],
            [torch.cat(level, 1)[0] for level in zip(*features)],
            remembered,
        )

    def _read_alone(self, *tokens: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """One image by the official decoder: what it would add to every layer of the memory, raw
        maps, features.
        """
        memory, raw, features = self._decoder(*tokens, self._memory, return_feats=True)
        # Copies: the official memory is a whole one for every image.
        return [layer[:, self._memory.num_tokens :].clone() for layer in memory[0]], raw, features

    def trim(self, renders: bool = False) -> None:
        if not renders:
            self._encoded.clear()
        # A frame that comes again is known by its pose.
        if not renders and len(self._poses) > len(self._labels) + 1:
            latest = next(reversed(self._poses))
            self._poses = {
                f: pose for f, pose in self._poses.items() if f in self._labels or f == latest
            }
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
            "group": self._group,
            "rule": self._rule.snapshot(),
        }
        memories = {"memory": self._memory, "next_memory": self._next_memory}
        if self._memory is self._next_memory:
            del memories["memory"]
        for name, memory in memories.items():
            if memory is not None:
                # Copies of what is used: the buffer behind has room to spare.
                known[name] = (
                    [t.clone() for t in memory.layers],
                    memory.labels.clone(),
                    memory.num_images,
                )
        return known

    def restore(self, snapshot: dict) -> None:
        self.reset()
        if snapshot["size"]:
            self._fit = fit_crop(tuple(snapshot["size"]), self._side, square=self._square)
        # Shapes stay where they are read, on the CPU.
        self._first_inputs = [
            (index, (*tokens[:2], tokens[2].cpu())) for index, tokens in snapshot["first_inputs"]
        ]
        self._labels, self._poses = dict(snapshot["labels"]), dict(snapshot["poses"])
        self._focals, self._scale, self.scores = (
            snapshot["focals"],
            snapshot["scale"],
            list(snapshot["scores"]),
        )
        self._group = snapshot["group"]
        self._rule.restore(snapshot["rule"])
        if "next_memory" in snapshot:
            self._next_memory = Memory(*snapshot["next_memory"])
            self._memory = (
                Memory(*snapshot["memory"]) if "memory" in snapshot else self._next_memory
            )

    @torch.no_grad()
    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """A frame of the same video, pushed before or not, as the memory sees it now; the memory
        stays as it is.
        """
        return self._answers(self._rendered(*self._encode({frame_index: image})))[0]

    def _encode(self, frames: Mapping[int, np.ndarray]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image its tokens [1, 1, N, De], positions [1, 1, N, 2] and shape [1, 1, 2]."""
        if self._fit is None:
            first = next(iter(frames.values()))
            self._fit = fit_crop(first.shape[1::-1], self._side, square=self._square)
        for size in (image.shape[1::-1] for image in frames.values()):
            if self._fit.original != size:
                was, now = ("x".join(map(str, s)) for s in (self._fit.original, size))
                raise InputError(
                    f"frame of {now}: the video started with {was}; frames must not change size"
                )
        found = {index: self._encoded[index] for index in frames if index in self._encoded}
        new = [index for index in frames if index not in found]
        if new:
            # Values in -1..1 (SPEC section 8).
            pixels = torch.from_numpy(
                np.stack([self._fit.apply(frames[index]) for index in new])
            ).to(self._device)
            pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
            shape = torch.tensor([pixels.shape[-2:]] * len(new))
            encoded = (*self._encoder(pixels, shape), shape)
            for i, index in enumerate(new):
                found[index] = tuple(part[i : i + 1, None].transpose(0, 1) for part in encoded)
                room = ENCODED_BYTES // (encoded[0][i].numel() * encoded[0].element_size())
                if (
                    len(self._encoded) < room
                ):  # the first ones stay: renders come in the order of frames
                    self._encoded[index] = tuple(part.clone() for part in found[index])
        return [found[index] for index in frames]

    def _decode(self, inputs: list[tuple], memory: Memory | None, render: bool = False) -> tuple:
        """(memory, raw maps [n, H, W, 7], features) of n images at once, which see each other
        unless they render.
        """
        joined = [torch.cat(parts, 1) for parts in zip(*inputs)]
        with autocast(self._device, self._precision):
            memory, raw, features = self._decoder(*joined, memory, render=render, return_feats=True)
        return memory, raw[0], [f[0] for f in features]

    def _initialised(self, frame_index: int, tokens: tuple) -> _Views:
        """All frames so far. Everything is done anew with them: only the joint call lets the first
        frames see each other."""
        inputs = [*self._first_inputs, (frame_index, tokens)]
        memory, raw, features = self._decode([tokens for _, tokens in inputs], None)
        self._forget()
        self._first_inputs = inputs
        self._memory = self._next_memory = Memory.of(memory)
        views = self._views(raw, features, with_reference=True)
        self._scale = lengths(views.maps.points[0]).median()
        sights = self._sights(views)
        for label, (index, _) in enumerate(self._first_inputs):
            self._is_keyframe(index, views.poses[label], sights[label])
            self._labels[index] = label
        return views

    def _rendered(self, tokens: tuple) -> _Views:
        _, raw, features = self._decode([tokens], self._next_memory, render=True)
        return self._views(raw, features, record=False)

    def _views(
        self, raw: Tensor, features: list[Tensor], record: bool = True, with_reference: bool = False
    ) -> _Views:
        """Raw maps [F, H, W, 7] and features of frames in their order. record: their focal lengths
        count from now on; with_reference: the first of them is the reference frame."""
        maps = pointmaps(raw, getattr(self._decoder, "pointmaps_activation", "norm_exp"))
        own = focal_length(maps.local)
        weights = maps.confidence.mean((1, 2)) - 1
        before, after = [], []
        for focal, weight in torch.stack((own, weights), 1).tolist():
            before.append(self._mean_focal())
            if record and focal > 0 and weight > 0:
                self._focals = [self._focals[0] + focal * weight, self._focals[1] + weight]
            after.append(self._mean_focal())
        stretch = torch.where(own > 0, own.new_tensor(before) / own, 1.0)
        if with_reference:
            stretch[0] = 1
        maps.local[..., 2] *= stretch[:, None, None]
        poses = camera_to_world(maps.local, maps.points, maps.confidence)
        if with_reference:
            poses[0] = torch.eye(4)
        return _Views(maps, poses, after, features)

    def _mean_focal(self) -> float:
        weighted, weights = self._focals
        return (
            weighted / weights if weights else float(max(self._fit.size))
        )  # unknown: about 53 degrees

    def _sights(self, views: _Views) -> list[Sight]:
        return self._rule.sights(
            views.maps.points, views.maps.confidence, views.maps.local[..., 2], views.poses
        )

    def _is_keyframe(self, frame_index: int, pose: Tensor, sight: Sight) -> bool:
        """Whether a new frame becomes one; records it."""
        first = not self._poses
        self._poses[frame_index] = pose
        full = len(self._labels) >= self._max_keyframes
        if full and self._dispensable([*self._labels, frame_index]) == frame_index:
            return False  # what would be evicted at once is not taken in: the memory stays as it is
        self.scores.append(self._rule.score(sight))
        is_keyframe = first or self._rule.is_new(self.scores[-1], sight)
        if is_keyframe:
            self._rule.keep(frame_index, sight)
        return is_keyframe

    def _evict(self) -> None:
        if len(self._labels) > self._max_keyframes:
            evicted = self._dispensable(list(self._labels))
            self._next_memory = self._next_memory.without([self._labels.pop(evicted)])
            self._rule.drop(evicted)

    def _dispensable(self, frames: list[int]) -> int:
        """The later one of the two frames whose viewpoints are most alike."""
        poses = torch.stack([self._poses[frame] for frame in frames])
        apart = torch.cdist(poses[:, :3, 3], poses[:, :3, 3]) / self._scale
        turned = torch.einsum(
            "aij,bij->ab", poses[:, :3, :3], poses[:, :3, :3]
        )  # trace of the relative rotation
        unlike = apart + ((turned - 1) / 2).clamp(-1, 1).acos()
        unlike = unlike + torch.full_like(unlike, torch.inf).tril()
        return frames[int(unlike.argmin()) % len(frames)]  # the column

    def _answers(self, views: _Views) -> list[GeometryFrame]:
        count, height, width = views.maps.confidence.shape
        self.maps = Pointmaps(*(m[-1] for m in views.maps))
        patch = self._encoder.patch_size
        grid = (height // patch, width // patch)
        levels = [
            views.features[level].transpose(1, 2).unflatten(2, grid).float()
            for level in self.levels
        ]
        focals = views.poses.new_tensor(views.focals)[:, None]
        x = (torch.arange(width, device=self._device) - width / 2) / focals
        y = (torch.arange(height, device=self._device) - height / 2) / focals
        x, y = x[:, None, None], y[:, None, :, None]  # [F, 1, H or 1, W or 1]
        right, down, forward = views.poses[:, :3, :3, None, None].unbind(
            2
        )  # the cameras' axes, [F, 3, 1, 1]
        rays = (right * x + down * y + forward) / (x.square() + y.square() + 1).sqrt()
        points, confidence = views.maps.points.permute(0, 3, 1, 2), 1 - 1 / views.maps.confidence
        return [
            GeometryFrame(
                tuple(level[i] for level in levels),
                points[i],
                rays[i],
                confidence[i],
                self._scale,
                Camera(views.focals[i] / self._fit.scale[0], views.poses[i]),
                self._fit,
            )
            for i in range(count)
        ]
