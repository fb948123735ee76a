"""Tracking a stream: each frame once, in constant memory, however long the video is."""

import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.io.prefetch import Prefetch
from geometry_fusion.io.stream import Source, SourceFrame, open_source
from geometry_fusion.tracking.pixels import square
from geometry_fusion.tracking.session import Session, id_image
from geometry_fusion.types import Prompt, TrackedFrame

Group = dict[int, tuple[SourceFrame, Tensor]]  # time -> a frame, and its pixels for SAM2
READY = 2  # frames that wait in the form in which SAM2 takes them
UNKNOWN = sys.maxsize  # frames of a video that may go on for ever
SNAPSHOT_FORMAT = 4  # counts up when earlier snapshots cannot be restored


class HeldFrames:
    """The frames a stream currently holds, indexed by consecutive frame number (dropped frames do
    not count).

    `prepared` holds the same frames as SAM2's image encoder takes them.
    """

    def __init__(self, size: tuple[int, int], count: int):
        self.size, self._count = size, count
        self._images: dict[int, np.ndarray] = {}
        self._numbers: dict[int, int] = {}
        self.prepared: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self._count

    def hold(self, frames: Group) -> None:
        """Hold these frames, by time, and no others."""
        self._images = {time: frame.image for time, (frame, _) in frames.items()}
        self._numbers = {time: frame.index for time, (frame, _) in frames.items()}
        self.prepared = {time: pixels for time, (_, pixels) in frames.items()}

    def shows(self, time: int, image: np.ndarray) -> bool:
        """Whether the frame that is held is this image."""
        return time in self._images and np.array_equal(self._images[time], image)

    def number(self, time: int) -> int:
        """The number that the source gave a frame that is held."""
        return self._numbers[time]

    def __getitem__(self, time: int) -> np.ndarray:
        if time not in self._images:
            held = ", ".join(map(str, self._images))
            raise InputError(f"frame {time}: was dropped; a streamed session holds only {held}")
        return self._images[time]


def _with_following(groups: Iterator[Group]) -> Iterator[tuple[Group, Group]]:
    """Groups of frames, each with the one after it; the last one with an empty one.

    An error of `groups` is raised at its place: after the groups before it.
    """
    group = next(groups, None)
    error = None
    while group is not None:
        try:
            following = next(groups, None)
        except Exception as raised:
            following, error = None, raised
        yield group, following or {}
        group = following
    if error is not None:
        raise error


def _alone(groups: Iterator[Group]) -> Iterator[tuple[Group, Group]]:
    """Groups of frames, without those after them."""
    for group in groups:
        yield group, {}


class StreamSession(Session):
    """Frames pass once. What SAM2 can still read is kept, nothing else."""

    def reset(self) -> None:
        super().reset()
        self._frames: HeldFrames | None = None
        self._settle = False  # a snapshot is wanted: nothing is encoded ahead

    def add(self, prompt: Prompt) -> np.ndarray | None:
        """A new object, or a correction of one: on the current frame at once (returns its ids
        [H, W]), else when its frame comes. Raises InputError for frames that have passed.
        """
        now = self.frame_index
        if now is not None and prompt.frame < now:
            raise InputError(
                f"{prompt.source}: frame {prompt.frame} was dropped; a streamed session takes "
                f"prompts on its current frame, {now}, and later ones; the mode 'full' keeps all "
                "frames"
            )
        if prompt.frame == now:
            return self._apply_checked(prompt, self._time)
        self._waiting.append(prompt)
        return None

    def track(self, source) -> Iterator[TrackedFrame]:
        """Yield every frame as it comes; before the first prompt nothing is tracked.

        source: what `open_source` opens, or a Source. Frames of files and folders are encoded a few
        at once, live ones do not wait for each other. Raises InputError where a prompt waits for a
        frame that never came.
        """
        source = source if isinstance(source, Source) else open_source(source)
        with (
            source,
            self._encoding_ahead(not source.live) as ahead,
            closing(self._prepared(source, ahead)) as frames,
        ):
            groups = self._groups(frames, source.live)
            for group, following in _with_following(groups) if ahead else _alone(groups):
                held = {**group, **following}
                self._drop_features_of_others(held)
                self._frames.hold(held)
                for time, (frame, _) in group.items():
                    self._state.lanes.allow_ahead(ahead and not self._settle)
                    upcoming = [later for later in held if later > time]
                    yield self._take(frame, time, source.live, upcoming)
        if self._waiting and not source.live:
            missed = self._waiting[0]
            raise InputError(
                f"{missed.source}: frame {missed.frame} did not come; the video ended before it"
            )

    def _drop_features_of_others(self, frames: Group) -> None:
        """Drop features that an earlier call of `track`, which was left, encoded ahead, unless the
        same frames follow now.
        """
        for time, (frame, _) in frames.items():
            known = any(time in lane.features for lane in self._state.lanes)
            if known and not self._frames.shows(time, frame.image):
                self._state.drop_features()

    def _prepared(self, source: Source, ahead: bool) -> Iterator[tuple[SourceFrame, Tensor]]:
        """Frames of a source with their pixels for SAM2.

        The state is made first, once it is known whether the source is shorter than SAM2's memory
        of object pointers. Frames that can wait are prepared on a thread of their own for a GPU,
        and where frames are encoded ahead.
        """
        ready = ((frame, self._pixels(frame.image)) for frame in source)
        if self._state is None:
            pointers = self._predictor.max_obj_ptrs_in_encoder
            left = None if source.live else source.ahead(pointers)
            self._begin(source.size, UNKNOWN if left is None else left)
        elif source.size != self._frames.size:
            was, now = ("x".join(map(str, size)) for size in (self._frames.size, source.size))
            raise InputError(
                f"{source.name}: frames are {now}, this session began with {was}; start another "
                "session"
            )
        if source.live or not (ahead or self._predictor.device.type == "cuda"):
            # On a CPU torch's threads hold every core: one thread more makes all of them wait.
            yield from ready
            return
        with Prefetch(ready, READY) as prepared:
            yield from prepared

    def _pixels(self, image: np.ndarray) -> Tensor:
        """An image as the predictor takes it; for CUDA in memory from which it is copied while
        others are computed.
        """
        pixels = square(image, self._predictor.image_size)
        return pixels.pin_memory() if self._predictor.device.type == "cuda" else pixels

    def _groups(self, frames: Iterator[tuple[SourceFrame, Tensor]], live: bool) -> Iterator[Group]:
        """Frames by their time for SAM2's memory, as many together as the predictor encodes at
        once.
        """
        at_once = 1 if live else self._predictor.frames_at_once
        time, group = self._time, {}
        try:
            for frame in frames:
                time = frame[0].index if time is None else time + 1
                group[time] = frame
                if (time + 1) % at_once == 0:
                    yield group
                    group = {}
        except Exception:
            if group:
                yield group  # what came before the error counts
            raise
        if group:
            yield group

    @torch.inference_mode()
    def _begin(self, size: tuple[int, int], count: int) -> None:
        self._frames = HeldFrames(size, count)
        self._state = self._predictor.init_state(self._frames, keep="ahead")

    @torch.inference_mode()
    def _take(self, frame: SourceFrame, time: int, live: bool, upcoming: list[int]) -> TrackedFrame:
        """Track the next frame. upcoming: times of frames that are held and follow."""
        self._time, self.frame_index, self.logits = time, frame.index, None
        self.stem, self.image = frame.stem, frame.image
        self._given.clear()  # earlier frames do not come again
        for prompt in [p for p in self._waiting if p.frame <= frame.index]:
            if prompt.frame < frame.index and not live:
                raise InputError(
                    f"{prompt.source}: frame {prompt.frame} cannot be read; prompt on another frame"
                )
            self._waiting.remove(prompt)
            self._apply_checked(prompt, time)
        if not self.object_ids:
            return self._tracked(np.zeros(frame.image.shape[:2], np.uint8))
        with autocast(self._predictor.device, self._precision):
            self._predictor.propagate_in_video_preflight(self._state)
            logits = self._predictor.track_frame(
                self._state, time, upcoming=upcoming, interruptions=self._prompted_times(upcoming)
            )
        self.logits = self._with_given_masks(logits, time)
        return self._tracked(id_image(self.object_ids, self.logits))

    def _prompted_times(self, upcoming: list[int]) -> set[int]:
        """Those of the times on whose frames a prompt will take effect."""
        frames = {prompt.frame for prompt in self._waiting}
        return {time for time in upcoming if self._frames.number(time) in frames}

    def _apply_checked(self, prompt: Prompt, time: int) -> np.ndarray:
        # How many frames a stream will have is not known, and its prompts wait until theirs comes.
        prompt.check(self._frames.size, prompt.frame + 1)
        return self._apply(prompt, time)

    @property
    def settled(self) -> bool:
        """Whether a `snapshot` can be taken: a frame was tracked, and none after it is encoded.

        Where it cannot, nothing is encoded ahead until it was taken, so that it soon can.
        """
        if self._state is None or self.frame_index is None:
            return False
        is_settled = self._state.is_settled(self._time)
        self._settle = self._settle or not is_settled
        return is_settled

    def snapshot(self) -> dict:
        """All that tracking on needs, after a frame was tracked: plain values and tensors, for
        `torch.save`. Raises ValueError where the session is not `settled`; after a few more frames
        it is.
        """
        if not self.settled:
            raise ValueError(
                "no snapshot now: frames are encoded ahead, or nothing was tracked; see settled"
            )
        self._settle = False
        return {
            "format": SNAPSHOT_FORMAT,
            "size": self._frames.size,
            "time": self._time,
            "frame_index": self.frame_index,
            "count": len(self._frames),
            **self._state.snapshot(),
        }

    def restore(self, snapshot: dict) -> None:
        """Resume from a `snapshot` of a session with an equal predictor: the next frame is the one
        after its last. Raises InputError for a snapshot of another version.
        """
        if snapshot.get("format") != SNAPSHOT_FORMAT:
            raise InputError(
                "unfinished work: was written by another version of the program; delete it and "
                "begin anew"
            )
        self.reset()
        self._begin(tuple(snapshot["size"]), snapshot["count"])
        self._time, self.frame_index = snapshot["time"], snapshot["frame_index"]
        self._state.restore(snapshot)
