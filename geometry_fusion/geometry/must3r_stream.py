"""Geometry from RGB alone: a frozen MUSt3R over a stream of frames (docs/must3r_spec.md section
10.4).

The path of a frame: `push_all` -> tokens.py (encode) -> `_initialised` or `_read` (decode against
the memory) -> decoded.py (maps, pose, focal length) -> keyframes.py (does it join the memory?) ->
`GeometryFrame`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.geometry.decoded import DecodedFrames, SequenceFocal, decoded
from geometry_fusion.geometry.keyframes import Keyframes
from geometry_fusion.geometry.overlap import FrameView, OverlapRule
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.geometry.tokens import FrameTokens, Tokens
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import Pointmaps, lengths
from geometry_fusion.types import GeometryFrame, Tolerance

SQUARE_SIDES = (224, 336, 448)  # encoders made for these sides take square images
IndexedTokens = tuple[int, Tokens]


class Must3rStream(GeometrySource):
    """MUSt3R over a stream of frames, with a cap on keyframes and eviction.

    Initialisation: the first `num_init_frames` frames are decoded jointly, again with each of them.
    A later frame is decoded against the memory, and joins it if it becomes a keyframe
    (keyframes.py).

    levels: feature levels of a GeometryFrame: 0 is the encoder's output, i that of decoder block i.
    side: pixels of the long side of images; default: that of the encoder.
    square: crop the centre square; default: for encoders made for square images.
    join_every: the keyframe interval. Frames form groups of this length by their numbers (4: a
    group begins at frames 0, 4, 8, ...), and keyframes join the memory when the next group begins.
    So a group is decoded at once, and results do not depend on how a video is cut into calls. 1 is
    the stream of the specification, where the very next frame reads a keyframe.

    Raises ValueError for a cap or an interval that cannot work.
    """

    tolerance = Tolerance(radius=0.7, scale=0.12)
    anchored = True
    origin = "MUSt3R's own reconstruction from RGB alone"

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        *,
        levels: Sequence[int],
        side: int | None = None,
        square: bool | None = None,
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
        side = side or max(encoder.img_size)
        square = side in SQUARE_SIDES if square is None else square
        self._tokens, self._decoder = FrameTokens(encoder, side, square), decoder
        self._device = next(encoder.parameters()).device
        self.levels, self._precision = tuple(levels), precision
        self._num_init, self._join_every = num_init_frames, join_every
        self._keyframes = Keyframes(rule or OverlapRule(), max_keyframes)
        self.reset()

    def reset(self) -> None:
        """Forget the video: the next frame is the reference frame, and may have another size."""
        self._tokens.reset()
        self._first_inputs: list[IndexedTokens] = []  # of the frames of the initialisation
        self._forget()
        self.maps: Pointmaps | None = None  # of the latest frame that was pushed, [H, W, ...]
        self._keyframes.scores = []

    def _forget(self) -> None:
        """Forget memory, keyframes and focal lengths, but not the frames of the initialisation."""
        self._memory: Memory | None = None  # read by the frames of the current group
        self._next_memory: Memory | None = None  # the same, with the keyframes of this group
        self._group: int | None = None
        self._focal = SequenceFocal()
        self._keyframes.reset()

    @property
    def settled(self) -> bool:
        """Whether the frames of the initialisation, which move its coordinates, have been seen."""
        return len(self._keyframes.poses) >= self._num_init

    @property
    def keyframes(self) -> list[int]:
        """Numbers of the frames in the memory, in the order in which they joined it."""
        return list(self._keyframes.labels)

    @property
    def scores(self) -> list[float]:
        """Overlap score of every scored frame, in order; see `Keyframes.scores`."""
        return self._keyframes.scores

    @property
    def memory(self) -> Memory | None:
        """The memory with all keyframes so far."""
        return self._next_memory

    @property
    def poses(self) -> dict[int, Tensor]:
        """Camera-to-world poses [4, 4], as estimated at the push, of all frames not trimmed."""
        return dict(self._keyframes.poses)

    @property
    def focal(self) -> float:
        """Mean focal length so far, in pixels of the original frame, weighted by confidence - 1."""
        return self._focal.mean(self._unknown_focal()) / self._tokens.fit.scale[0]

    @torch.no_grad()
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of an RGB uint8 frame [H, W, 3]. Raises InputError if the size changed."""
        return self.push_all({frame_index: image})[0]

    @torch.no_grad()
    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` of one after another, up to rounding: a group's frames are decoded together."""
        waiting = list(zip(frames, self._tokens.of(frames)))
        answers = []
        while waiting:
            index, tokens = waiting[0]
            if index in self._keyframes.poses:  # pushed before, and not trimmed since
                together = waiting[:1]
                answers += self._answers(self._rendered(tokens))
            elif len(self._keyframes.poses) < self._num_init:
                together = waiting[:1]
                answers += self._answers(self._initialised(index, tokens))[-1:]
            else:
                together = self._new_of_one_group(waiting)
                answers += self._answers(self._read(together))
            del waiting[: len(together)]
        return answers

    @torch.no_grad()
    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of any frame of the video by the memory as it is now, which does not change."""
        return self._answers(self._rendered(*self._tokens.of({frame_index: image})))[0]

    def trim(self, renders: bool = False) -> None:
        """Drop encoder tokens, and the poses of all frames but keyframes and the latest one."""
        if not renders:
            self._tokens.forget()
            self._keyframes.trim()  # by its pose, `push_all` recognises a frame that comes again
        del self._keyframes.scores[:-1]
        if len(self._keyframes.poses) >= self._num_init:
            self._first_inputs.clear()

    def snapshot(self) -> dict:
        """Memory, keyframes, focal lengths and the tokens of the initialisation."""
        snapshot = {
            "size": self._tokens.fit and self._tokens.fit.original,
            "first_inputs": self._first_inputs,
            "focals": self._focal.sums,
            "group": self._group,
            **self._keyframes.snapshot(),
        }
        memories = {"memory": self._memory, "next_memory": self._next_memory}
        if self._memory is self._next_memory:
            del memories["memory"]
        for name, memory in memories.items():
            if memory is not None:
                # Copies, because the layers are views of a buffer with room to spare.
                layers = [layer.clone() for layer in memory.layers]
                snapshot[name] = (layers, memory.labels.clone(), memory.num_images)
        return snapshot

    def restore(self, snapshot: dict) -> None:
        """Continue from a `snapshot` of a stream with equal networks and options."""
        self.reset()
        if snapshot["size"]:
            self._tokens.start(tuple(snapshot["size"]))
        # Image shapes are read on the CPU; on a GPU each read would wait for it.
        self._first_inputs = [
            (index, (*tokens[:2], tokens[2].cpu())) for index, tokens in snapshot["first_inputs"]
        ]
        self._focal.sums, self._group = snapshot["focals"], snapshot["group"]
        self._keyframes.restore(snapshot)
        if "next_memory" in snapshot:
            self._next_memory = Memory(*snapshot["next_memory"])
            self._memory = self._next_memory
            if "memory" in snapshot:
                self._memory = Memory(*snapshot["memory"])

    def _new_of_one_group(self, waiting: list[IndexedTokens]) -> list[IndexedTokens]:
        """The first of the waiting frames, and the new frames of its group that follow it."""
        every, poses = self._join_every, self._keyframes.poses
        group = waiting[0][0] // every
        return list(takewhile(lambda w: w[0] // every == group and w[0] not in poses, waiting))

    def _read(self, frames: list[IndexedTokens]) -> DecodedFrames:
        """Decode new frames of one group against the memory; its keyframes join the next memory."""
        group = frames[0][0] // self._join_every
        if group != self._group:
            self._memory, self._group = self._next_memory, group
        raw, features, extend = self._read_apart(frames)
        decoded_frames = self._decoded(raw, features)
        views = self._views(decoded_frames)
        for number, (index, _) in enumerate(frames):
            if self._keyframes.judge(index, decoded_frames.poses[number], views[number]):
                self._keep(index, number, extend)
        return decoded_frames

    def _keep(self, frame_index: int, number: int, extend: Callable[[int, Memory], Memory]) -> None:
        """Add a keyframe to the next memory; above the cap, evict one.

        number: of the frame among those decoded together. extend: see `_read_apart`.
        """
        with autocast(self._device, self._precision):
            self._next_memory = extend(number, self._next_memory)
            self._next_memory.settle()  # here, under autocast, not when it is first read
        self._keyframes.labels[frame_index] = self._next_memory.num_images - 1
        label = self._keyframes.evict()
        if label is not None:
            self._next_memory = self._next_memory.without([label])

    def _read_apart(
        self, frames: list[IndexedTokens]
    ) -> tuple[Tensor, list[Tensor], Callable[[int, Memory], Memory]]:
        """As MUSt3R.read_apart, without the batch dimension: raw maps [n, H, W, 7], features per
        level [n, N, D], and a function that adds frame `number` of them to a memory.
        """
        with autocast(self._device, self._precision):
            joined = [torch.cat(parts, 1) for parts in zip(*(tokens for _, tokens in frames))]
            raw, features, extend = self._decoder.read_apart(*joined, self._memory)
        return raw[0], [f[0] for f in features], extend

    def _decode(self, inputs: list[Tokens], memory: Memory | None, render: bool = False) -> tuple:
        """(memory, raw maps [n, H, W, 7], features) of n images at once.

        The images attend to each other, unless they are rendered.
        """
        joined = [torch.cat(parts, 1) for parts in zip(*inputs)]
        with autocast(self._device, self._precision):
            memory, raw, features = self._decoder(*joined, memory, render=render, return_feats=True)
        return memory, raw[0], [f[0] for f in features]

    def _initialised(self, frame_index: int, tokens: Tokens) -> DecodedFrames:
        """Decode all frames so far again, jointly: so the first frames attend to each other."""
        inputs = [*self._first_inputs, (frame_index, tokens)]
        memory, raw, features = self._decode([tokens for _, tokens in inputs], None)
        self._forget()
        self._first_inputs = inputs
        self._memory = self._next_memory = Memory.of(memory)
        decoded_frames = self._decoded(raw, features, with_reference=True)
        self._keyframes.scale = lengths(decoded_frames.maps.points[0]).median()
        views = self._views(decoded_frames)
        for label, (index, _) in enumerate(self._first_inputs):
            # All of them are keyframes: the joint call has put them into the memory.
            self._keyframes.judge(index, decoded_frames.poses[label], views[label])
            self._keyframes.labels[index] = label
        return decoded_frames

    def _rendered(self, tokens: Tokens) -> DecodedFrames:
        """A frame decoded against the memory, which does not change."""
        _, raw, features = self._decode([tokens], self._next_memory, render=True)
        return self._decoded(raw, features, record=False)

    def _decoded(self, raw: Tensor, features: list[Tensor], **options) -> DecodedFrames:
        """As `decoded`, with the decoder's activation and the focal length of this sequence."""
        return decoded(
            raw,
            features,
            getattr(self._decoder, "pointmaps_activation", "norm_exp"),
            self._focal,
            self._unknown_focal(),
            **options,
        )

    def _unknown_focal(self) -> float:
        """The focal length that is assumed before any is estimated: a view of about 53 degrees."""
        return float(max(self._tokens.fit.size))

    def _views(self, frames: DecodedFrames) -> list[FrameView]:
        """The inputs of the overlap rule, frame by frame."""
        points, local, confidence = frames.maps.points, frames.maps.local, frames.maps.confidence
        return self._keyframes.views_of(points, confidence, local[..., 2], frames.poses)

    def _answers(self, frames: DecodedFrames) -> list[GeometryFrame]:
        """The results that `push_all` returns; the latest maps are kept in `maps`."""
        self.maps = Pointmaps(*(m[-1] for m in frames.maps))
        tokens = self._tokens
        return frames.answers(self.levels, self._keyframes.scale, tokens.fit, tokens.patch_size)
