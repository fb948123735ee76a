"""Tracking clips whose frames are at hand: forwards and backwards, with prompts on any frame, by
one session or by several in step.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.tracking.delayed import decide_all, final_masks, held_back
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import Session, id_image
from geometry_fusion.types import Frames, Prompt, TrackedFrame


class ClipSession(Session):
    """Every `track` starts anew from the prompts, so that it gives the same masks each time.

    keep: "all" keeps everything, so that any frame can be prompted again; "reachable" drops behind
    it what tracking forwards once and backwards once does not read. progress: show a bar.
    """

    def __init__(
        self,
        predictor: GeometryVideoPredictor,
        precision: str = "auto",
        keep: str = "all",
        progress: bool = False,
    ):
        self._keep, self._progress = keep, progress
        super().__init__(predictor, precision)

    def reset(self) -> None:
        super().reset()
        self._frames: Frames | None = None
        self._direction: str | None = None  # of the pass that is running
        self._may_encode_ahead = False

    @property
    def frames_at_once(self) -> int:
        """How many frames are encoded together."""
        return self._predictor.frames_at_once

    @property
    def device(self) -> torch.device:
        """Where the predictor computes."""
        return self._predictor.device

    @property
    def seconds_elsewhere(self) -> float:
        """Seconds of this video's work that other threads and sessions did so far."""
        return self._state.lanes.seconds_ahead if self._state else 0.0

    @property
    def geometry(self) -> GeometrySource | None:
        """The geometry source of this video's first object, once tracking began."""
        if self._state is None:
            return None
        main = self._state.lanes.main
        main.ahead.wait()
        return main.source

    def add(self, prompt: Prompt) -> np.ndarray | None:
        """A new object, or a correction of one, on any frame; `track` then gives the masks anew.

        Returns ids [H, W] uint8 of its frame, or None where it waits for its frame or for tracking
        to begin. Raises InputError where frames are not kept.
        """
        if self._state is None:
            self._waiting.append(prompt)
            return None
        if self._keep != "all":
            raise InputError(
                f"{prompt.source}: this session keeps only what one pass over the video reads; "
                'add all prompts before tracking, or make it with keep="all"'
            )
        prompt.check(self._frames.size, len(self._frames))
        if self._direction == "forwards" and prompt.frame > self.frame_index:
            self._waiting.append(prompt)
            return None
        return self._apply(prompt, prompt.frame)

    def track(self, source: Frames | str | Path) -> Iterator[TrackedFrame]:
        """Yield every frame once: from the last prompted one on, then backwards.

        source: a folder of frames, or `Frames`. Prompts that are added meanwhile take effect in the
        running pass as far as it has not passed them. Raises InputError where there is no prompt.
        """
        return self._run(FrameFolder(source) if isinstance(source, str | Path) else source)

    def _run(self, frames: Frames) -> Iterator[TrackedFrame]:
        with self._encoding_ahead() as self._may_encode_ahead:
            yield from self._track(frames)

    def _track(self, frames: Frames) -> Iterator[TrackedFrame]:
        self._begin_pass(frames)
        if self._predictor.upstream:
            yield from self._track_as_sam2()
            return
        last = self._last_prompted()
        first = min([*self._prompted(), *(prompt.frame for prompt in self._waiting)])
        count = len(self._frames)
        total, hidden = count - first + last, not self._progress
        with tqdm(total=total, unit="frame", desc="tracking", disable=hidden) as bar:
            try:
                self._direction = "forwards"
                for frame in self._pass(range(first, count)):
                    bar.update()
                    if frame.index >= last:
                        yield frame
                self._direction = "backwards"
                for frame in self._pass(range(self._last_prompted() - 1, -1, -1)):
                    bar.update()
                    yield frame
            finally:  # also where the caller leaves in the middle
                self._direction = None

    @torch.inference_mode()
    def _begin_pass(self, frames: Frames) -> None:
        """Get ready to track all frames anew from the prompts."""
        if not (self._waiting or self.object_ids):
            raise InputError("nothing to track: no object was prompted; add a prompt first")
        if self._state is None:
            for prompt in self._waiting:
                prompt.check(frames.size, len(frames))
            self._frames = frames
            self._state = self._predictor.init_state(frames, keep=self._keep)
        elif not self._predictor.upstream:
            self._state.rewind()
        self._state.lanes.allow_ahead(self._may_encode_ahead)
        if self._keep == "reachable":
            self._state.answered_later = range(self._last_prompted())

    def _prompted(self) -> set[int]:
        return self._state.prompted_frames if self.object_ids else set()

    def _last_prompted(self) -> int:
        """The last frame that was or will be prompted: from it on, what tracking forwards answers
        is final.
        """
        return max([*self._prompted(), *(prompt.frame for prompt in self._waiting)])

    def _track_as_sam2(self) -> Iterator[TrackedFrame]:
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
                    yield self._tracked(id_image(self.object_ids, self.logits))

    def _pass(self, order: range) -> Iterator[TrackedFrame]:
        """Track through frames in one direction; where later frames decide, yield them after it.

        Prompts that are added while such frames are yielded take effect in the next `track`.
        """
        frames = self._tracked_pass(order)
        if self._state.memories is None or not self._state.memories.delayed:
            yield from frames
            return
        held = held_back(frames, self._state)
        decide_all(self._state)
        direction, self._direction = self._direction, None
        for waiting in held:
            self._time = self.frame_index = waiting.frame.index
            with torch.inference_mode(), autocast(self._predictor.device, self._precision):
                joined = torch.cat(final_masks(waiting, self._state))
                logits = self._predictor._get_orig_video_res_output(self._state, joined)[1]
                self.logits = self._with_given_masks(logits, self._time)
            ids = id_image(waiting.object_ids, self.logits)
            yield replace(waiting.frame, ids=ids, logits=self.logits)
        self._direction = direction

    def _tracked_pass(self, order: range) -> Iterator[TrackedFrame]:
        """Track through frames in one direction; prompts take effect when their frame comes."""
        predictor, reverse = self._predictor, order.step < 0
        for number, index in enumerate(order, 1):
            with torch.inference_mode(), autocast(predictor.device, self._precision):
                self._time = self.frame_index = index
                if not reverse:
                    self._meet_prompts(index)
                if not self.object_ids:
                    raise InputError("nothing to track any more: all objects were removed")
                predictor.propagate_in_video_preflight(self._state)
                prompted = set() if reverse else self._prompted()
                prompted.update(prompt.frame for prompt in self._waiting)
                logits = predictor.track_frame(
                    self._state, index, reverse, order[number:], prompted
                )
                self.logits = self._with_given_masks(logits, index)
            yield self._tracked(id_image(self.object_ids, self.logits))

    def _meet_prompts(self, index: int) -> None:
        """On the way forwards: prompts of earlier passes, then those that wait for this frame."""
        if index in self._prompted():
            self._predictor.remember_again(self._state, index)
        for prompt in [p for p in self._waiting if p.frame == index]:
            self._waiting.remove(prompt)
            prompt.check(self._frames.size, len(self._frames))
            self._apply(prompt, index)


def clip_session(
    predictor: GeometryVideoPredictor,
    prompts: Sequence[Prompt],
    precision: str = "auto",
    progress: bool = False,
) -> ClipSession:
    """A session with its prompts that keeps what one pass over a clip reads."""
    session = ClipSession(predictor, precision, keep="reachable", progress=progress)
    for prompt in prompts:
        session.add(prompt)
    return session


def track(
    predictor: GeometryVideoPredictor,
    frames: Frames,
    prompts: Sequence[Prompt],
    precision: str = "auto",
    progress: bool = True,
) -> Iterator[TrackedFrame]:
    """Yield every frame once: from the last prompted frame on, then backwards.

    Where masks overlap the most confident object wins. Raises InputError when a prompt does not fit
    the frames.
    """
    yield from clip_session(predictor, prompts, precision, progress).track(frames)


def track_together(
    sessions: Sequence[ClipSession], frames: Frames
) -> Iterator[tuple[list[TrackedFrame], list[float]]]:
    """Track the same frames with several sessions in step, whose predictors have equal image
    encoders: for every frame what each session answers, and the seconds that each would have taken
    alone, one stage after another.

    A frame is decoded and encoded once; the time to encode it is counted for every session. On a
    CPU, where stages run beside each other, seconds are those of their threads.
    """
    batch = max(session.frames_at_once for session in sessions)
    clock = time.thread_time if sessions[0].device.type == "cpu" else time.perf_counter
    shared = FrameFeatures(frames, images_kept=2 + 2 * batch, bytes_kept=0, clock=clock)
    runs = [session.track(shared) for session in sessions]
    while True:
        tracked, seconds = [], []
        for session, run in zip(sessions, runs):
            before = session.seconds_elsewhere
            began = clock()
            tracked.append(next(run, None))
            seconds.append(clock() - began + session.seconds_elsewhere - before)
        if tracked[0] is None:
            return
        yield tracked, seconds
