"""Tracking a video of any length, or a live one, through one object:

    session = Session(predictor)
    session.add(Prompt(frame=0, points=((180, 296),)))
    for frame_index, masks in session.track("clip.mp4"):      # a file, a folder, a camera's number,
    an address, arrays
        if frame_index == 100:
            session.add(Prompt(frame=100, object_id=2, points=((40, 80),)))

`masks` [H, W] uint8 holds the object id of every pixel, 0 for none. In the mode "stream" frames
pass once, in constant memory: what SAM2 can still read is kept, nothing else, and prompts are for
the current frame or later ones. The mode "full" keeps everything: any frame can be prompted again
and tracking runs backwards as well, at the price of memory that grows with the video. From an
object's last prompt on, both give the same masks bit for bit.

A prompt is the truth. An object is tracked forwards from each of its prompts. In the mode "full" it
is also tracked backwards: from its first prompt to the first frame, and between two prompts to the
frames that are nearer to the later one. So a correction changes the frames before it as well. Every
`track` of a session in the mode "full" starts anew from the prompts, so that it gives the same
masks each time.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.predictor import GeometryVideoPredictor, square
from geometry_fusion.prefetch import Prefetch
from geometry_fusion.sources import Source, SourceFrame, open_source
from geometry_fusion.types import Prompt

MODES = ("stream", "full")
READY = 2  # frames that wait in the form in which SAM2 takes them
SNAPSHOT_FORMAT = 3  # counts up when earlier snapshots cannot be restored
GIVEN_LOGIT = 100.0  # of a pixel inside a user's own mask: above what any model answers
UNKNOWN = sys.maxsize  # frames of a video that may go on for ever
# What of SAM2's inference state tracking reads, beside the frames.
STATE_KEYS = (
    *(
        "obj_id_to_idx",
        "obj_idx_to_id",
        "obj_ids",
        "point_inputs_per_obj",
        "mask_inputs_per_obj",
        "constants",
    ),
    *("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj"),
)


class HeldFrames:
    """The few frames that a streamed session holds, in the form in which the predictor reads
    frames. Times are frame numbers without gaps."""

    def __init__(self, size: tuple[int, int], count: int):
        self.size, self._count = size, count
        self._images: dict[int, np.ndarray] = {}
        self.prepared: dict[int, Tensor] = {}  # the frames as SAM2's image encoder takes them

    def __len__(self) -> int:
        return self._count

    def hold(self, frames: dict[int, tuple[SourceFrame, Tensor]]) -> None:
        """Hold these frames, by time, and no others."""
        self._images = {time: frame.image for time, (frame, _) in frames.items()}
        self.prepared = {time: pixels for time, (_, pixels) in frames.items()}

    def __getitem__(self, time: int) -> np.ndarray:
        if time not in self._images:
            held = ", ".join(map(str, self._images))
            raise InputError(f"frame {time}: was dropped; a streamed session holds only {held}")
        return self._images[time]


class Session:
    """One video, one predictor, any number of objects. Raises InputError for prompts that do not
    fit.

    predictor: of `sam2_model.build_predictor`, with or without geometry fused. keep: in the mode
    "full", "reachable" drops behind it what tracking forwards once and backwards once does not
    read. progress: a bar in the mode "full". `frame_index`, `stem`, `image`, `object_ids` and
    `logits` [objects, 1, H, W] are those of the latest frame; `stem` and `image` of streams only.
    """

    def __init__(
        self,
        predictor: GeometryVideoPredictor,
        mode: str = "stream",
        precision: str = "auto",
        keep: str | None = None,
        progress: bool = False,
    ):
        if mode not in MODES:
            raise InputError(f"mode {mode}: unknown; choose one of {', '.join(MODES)}")
        self._predictor, self._mode, self._precision = predictor, mode, precision
        self._progress = progress
        self._keep = keep or ("ahead" if mode == "stream" else "all")
        self.reset()

    def reset(self) -> None:
        """Forget the video and all objects."""
        self._state: dict | None = None
        self._waiting: list[Prompt] = []  # for frames that have not come
        self._frames = None  # HeldFrames, or all frames in the mode "full"
        self._time: int | None = None  # the latest frame's number for SAM2's memory: without gaps
        self._direction: str | None = None  # of the pass that is running in the mode "full"
        self._given: dict[
            tuple[int, int], np.ndarray
        ] = {}  # (time, object id) -> a user's mask, the answer there
        self.frame_index: int | None = None
        self.stem: str | None = None
        self.image: np.ndarray | None = None
        self.logits: Tensor | None = None

    @property
    def object_ids(self) -> list[int]:
        return list(self._state["obj_ids"]) if self._state else []

    def add(self, prompt: Prompt) -> np.ndarray | None:
        """A new object, or a correction of one: on the current frame at once (returns its ids [H,
        W]), else when its frame comes. In the mode "full" any frame will do once tracking began;
        `track` then gives the masks anew."""
        now = self.frame_index
        if self._mode == "full" and self._state is not None:
            if self._keep != "all":
                raise InputError(
                    f"{prompt.source}: this session keeps only what one pass over the video "
                    "reads; add all prompts "
                    'before tracking, or make it with keep="all"'
                )
            prompt.check(self._frames.size, len(self._frames))
            if self._direction == "forwards" and prompt.frame > now:
                self._waiting.append(prompt)
                return None
            return self._apply(prompt, prompt.frame)
        if now is not None and prompt.frame < now:
            raise InputError(
                f"{prompt.source}: frame {prompt.frame} was dropped; a streamed session takes "
                "prompts on its current "
                f"frame, {now}, and later ones; the mode 'full' keeps all frames"
            )
        if prompt.frame == now:
            return self._apply(prompt, self._time)
        self._waiting.append(prompt)
        return None

    @torch.inference_mode()
    def remove(self, object_id: int) -> None:
        """Stop tracking an object. Raises InputError for an id that is not tracked."""
        if object_id not in self.object_ids:
            raise InputError(
                f"object {object_id}: is not tracked; tracked are {self.object_ids or 'none'}"
            )
        self._predictor.remove_object(self._state, object_id, need_output=False)
        self._state["batches"].clear()
        self._given = {at: mask for at, mask in self._given.items() if at[1] != object_id}

    def track(self, source) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (frame index, ids [H, W] uint8) of every frame as it comes; before the first prompt
        nothing is tracked.

        source: what `open_source` opens, or a Source. In the mode "full": a folder of frames, or a
        sequence of RGB uint8 [H, W, 3] with `.size`; frames come from the last prompted one on,
        then backwards. Each comes once, unless a prompt is added meanwhile. Raises InputError where
        there is no prompt.
        """
        if self._mode == "stream":
            return self._track_stream(source)
        return self._track_all(FrameFolder(source) if isinstance(source, str | Path) else source)

    def _track_stream(self, source) -> Iterator[tuple[int, np.ndarray]]:
        source = source if isinstance(source, Source) else open_source(source)
        with source, closing(self._prepared(source)) as frames:
            for group in self._groups(frames, source.live):
                self._frames.hold(group)
                for time, (frame, _) in group.items():
                    yield (
                        frame.index,
                        self._take(frame, time, source.live, [t for t in group if t > time]),
                    )
        if self._waiting and not source.live:
            missed = self._waiting[0]
            raise InputError(
                f"{missed.source}: frame {missed.frame} did not come; the video ended before it"
            )

    def _prepared(self, source: Source) -> Iterator[tuple[SourceFrame, Tensor]]:
        """Frames of a source with their pixels for SAM2, once it is known whether it is shorter
        than SAM2's memory of object pointers. For a GPU, frames that can wait are made ready on a
        thread of their own."""
        ready = ((frame, self._pixels(frame.image)) for frame in source)
        if self._state is None:
            left = None if source.live else source.ahead(self._predictor.max_obj_ptrs_in_encoder)
            self._begin(source.size, UNKNOWN if left is None else left)
        elif source.size != self._frames.size:
            was, now = ("x".join(map(str, size)) for size in (self._frames.size, source.size))
            raise InputError(
                f"{source.name}: frames are {now}, this session began with {was}; start another "
                "session"
            )
        if source.live or self._predictor.device.type == "cpu":
            # On a CPU torch's threads hold every core: one thread more makes all of them wait.
            yield from ready
            return
        with Prefetch(ready, READY) as ahead:
            yield from ahead

    def _pixels(self, image: np.ndarray) -> Tensor:
        """An image as the predictor takes it; for CUDA in memory from which it is copied while
        others are computed.
        """
        pixels = square(image, self._predictor.image_size)
        return pixels.pin_memory() if self._predictor.device.type == "cuda" else pixels

    def _groups(self, frames: Iterator[tuple[SourceFrame, Tensor]], live: bool) -> Iterator[dict]:
        """Frames by their time for SAM2's memory, as many together as the predictor encodes at
        once; live ones do not wait for each other."""
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
        self._state = self._predictor.init_state(self._frames, keep=self._keep)

    @torch.inference_mode()
    def _take(self, frame: SourceFrame, time: int, live: bool, upcoming: list[int]) -> np.ndarray:
        """The next frame: its ids [H, W]. upcoming: times of frames that are held and follow."""
        self._time = time
        self.frame_index, self.stem, self.image, self.logits = (
            frame.index,
            frame.stem,
            frame.image,
            None,
        )
        self._given.clear()  # earlier frames do not come again
        for prompt in [p for p in self._waiting if p.frame <= frame.index]:
            if prompt.frame < frame.index and not live:
                raise InputError(
                    f"{prompt.source}: frame {prompt.frame} cannot be read; prompt on another frame"
                )
            self._waiting.remove(prompt)
            self._apply(prompt, time)
        if not self._state["obj_ids"]:
            return np.zeros(frame.image.shape[:2], np.uint8)
        with autocast(self._predictor.device, self._precision):
            self._predictor.propagate_in_video_preflight(self._state)
            logits = self._predictor.track_frame(self._state, time, upcoming=upcoming)
        self.logits = self._with_given_masks(logits, time)
        return id_image(self.object_ids, self.logits)

    @torch.inference_mode()
    def _apply(self, prompt: Prompt, time: int) -> np.ndarray:
        # How many frames a stream will have is not known, and its prompts wait until theirs comes.
        prompt.check(
            self._frames.size, len(self._frames) if self._mode == "full" else prompt.frame + 1
        )
        where = {"inference_state": self._state, "frame_idx": time, "obj_id": prompt.object_id}
        with autocast(self._predictor.device, self._precision):
            if prompt.mask is not None:
                _, ids, self.logits = self._predictor.add_new_mask(**where, mask=prompt.mask)
            else:
                points = np.array([*prompt.points, *prompt.negatives], np.float32).reshape(-1, 2)
                labels = np.array([1] * len(prompt.points) + [0] * len(prompt.negatives), np.int32)
                given = {"points": points, "labels": labels} if len(points) else {}
                _, ids, self.logits = self._predictor.add_new_points_or_box(
                    **where, **given, box=prompt.box
                )
        self._given.pop((time, prompt.object_id), None)
        if prompt.mask is not None:
            self._given[time, prompt.object_id] = prompt.mask
        self.logits = self._with_given_masks(self.logits, time)
        return id_image(ids, self.logits)

    def _with_given_masks(self, logits: Tensor, time: int) -> Tensor:
        """Mask logits [objects, 1, H, W] of a frame: where a user gave the mask, it is the answer,
        pixel by pixel.
        """
        for place, object_id in enumerate(self.object_ids):
            mask = self._given.get((time, object_id))
            if mask is not None:
                inside = torch.from_numpy(mask).to(logits.device)
                logits[place, 0] = torch.where(inside, GIVEN_LOGIT, -GIVEN_LOGIT)
        return logits

    def _track_all(self, frames: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        self._begin_pass(frames)
        if self._predictor.upstream:
            yield from self._track_as_sam2()
            return
        last = self._last_prompted()
        first = min([*self._prompted(), *(prompt.frame for prompt in self._waiting)])
        count = len(self._frames)
        with tqdm(
            total=count - first + last, unit="frame", desc="tracking", disable=not self._progress
        ) as bar:
            try:
                self._direction = "forwards"
                for index, ids in self._pass(range(first, count)):
                    bar.update()
                    if index >= last:
                        yield index, ids
                self._direction = "backwards"
                for index, ids in self._pass(range(self._last_prompted() - 1, -1, -1)):
                    bar.update()
                    yield index, ids
            finally:  # also where the caller leaves in the middle
                self._direction = None

    @torch.inference_mode()
    def _begin_pass(self, frames: Sequence[np.ndarray]) -> None:
        """Get ready to track all frames anew from the prompts."""
        if not (self._waiting or self.object_ids):
            raise InputError("nothing to track: no object was prompted; add a prompt first")
        if self._state is None:
            for prompt in self._waiting:
                prompt.check(frames.size, len(frames))
            self._frames = frames
            self._state = self._predictor.init_state(frames, keep=self._keep)
        elif not self._predictor.upstream:
            self._predictor.rewind(self._state)
        if self._keep == "reachable":
            self._state["answer_later"] = range(self._last_prompted())

    def _prompted(self) -> set[int]:
        return self._predictor.prompted_frames(self._state) if self.object_ids else set()

    def _last_prompted(self) -> int:
        """The last frame that was or will be prompted: from it on, what tracking forwards answers
        is final.
        """
        return max([*self._prompted(), *(prompt.frame for prompt in self._waiting)])

    def _track_as_sam2(self) -> Iterator[tuple[int, np.ndarray]]:
        """All prompts first, then SAM2's own propagation: forwards from the first prompted frame,
        then backwards.
        """
        predictor, state = self._predictor, self._state
        with torch.inference_mode():
            for prompt in self._waiting:
                self._apply(prompt, prompt.frame)
            self._waiting.clear()
            predictor.propagate_in_video_preflight(state)
        first = min(self._prompted())
        for reverse in (False, True):
            steps = predictor.propagate_in_video(
                state, start_frame_idx=first, reverse=reverse, progress=False
            )
            while True:
                with torch.inference_mode(), autocast(predictor.device, self._precision):
                    step = next(steps, None)
                if step is None:
                    break
                index, _, self.logits = step
                self._time = self.frame_index = index
                if not (reverse and index == first):
                    yield index, id_image(self.object_ids, self.logits)

    def _pass(self, order: range) -> Iterator[tuple[int, np.ndarray]]:
        """Track through frames in one direction; prompts take effect when their frame comes."""
        predictor, reverse = self._predictor, order.step < 0
        for number, time in enumerate(order, 1):
            with torch.inference_mode(), autocast(predictor.device, self._precision):
                self._time = self.frame_index = time
                if not reverse:
                    self._meet_prompts(time)
                if not self.object_ids:
                    raise InputError("nothing to track any more: all objects were removed")
                predictor.propagate_in_video_preflight(self._state)
                logits = predictor.track_frame(self._state, time, reverse, order[number:])
                self.logits = self._with_given_masks(logits, time)
            yield time, id_image(self.object_ids, self.logits)

    def _meet_prompts(self, time: int) -> None:
        """On the way forwards: prompts of earlier passes, then those that wait for this frame."""
        if time in self._prompted():
            self._predictor.remember_again(self._state, time)
        for prompt in [p for p in self._waiting if p.frame == time]:
            self._waiting.remove(prompt)
            self._apply(prompt, time)

    @property
    def settled(self) -> bool:
        """Whether a `snapshot` can be taken: a frame of a stream was tracked, and none after it is
        encoded already.
        """
        if self._mode != "stream" or self._state is None or self.frame_index is None:
            return False
        return all(time <= self._time for time in self._state["encoded_ahead"])

    def snapshot(self) -> dict:
        """All that tracking on needs, after a frame was tracked: plain values and tensors, for
        `torch.save`. Raises ValueError where the session is not `settled`; after a few more frames
        it is."""
        if not self.settled:
            raise ValueError(
                "no snapshot now: frames are encoded ahead, or nothing was tracked; see settled"
            )
        known = {key: self._state[key] for key in STATE_KEYS}
        session = {"size": self._frames.size, "time": self._time, "frame_index": self.frame_index}
        return {
            **session,
            "count": len(self._frames),
            "state": known,
            "geometry": self._state["geometry"].snapshot(),
        }

    def restore(self, snapshot: dict) -> None:
        """Go on from a `snapshot` of a session with an equal predictor: the next frame is the one
        after its last.
        """
        self.reset()
        self._begin(tuple(snapshot["size"]), snapshot["count"])
        self._time, self.frame_index = snapshot["time"], snapshot["frame_index"]
        self._state.update(_moved(snapshot["state"], self._predictor.device))
        self._state["geometry"].restore(_moved(snapshot["geometry"], self._predictor.device))


def id_image(object_ids: Sequence[int], logits: Tensor) -> np.ndarray:
    """Mask logits [O, 1, H, W] of `object_ids` -> ids [H, W] uint8, 0 where no object has a
    positive logit.
    """
    best, index = logits[:, 0].float().max(0)
    ids = torch.tensor(list(object_ids), dtype=torch.uint8, device=logits.device)[index]
    return torch.where(best > 0, ids, 0).to(torch.uint8).cpu().numpy()


def _moved(value, device: torch.device):
    """`value` with every tensor in it on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)((k, _moved(v, device)) for k, v in value.items())
    return (
        type(value)(_moved(v, device) for v in value) if isinstance(value, (list, tuple)) else value
    )
