"""Falling back to SAM2 alone for objects that move (docs/motion.md).

Geometry presumes that things stand still. The decision is made per object and once: masks of two
kinds in one memory would confuse both. `without_geometry` applies it to the masks of a whole clip;
`FallbackSession` to a stream, after its first frames.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_ids
from geometry_fusion.io.stream import Source, SourceFrame, open_source
from geometry_fusion.motion import Decision, MotionWatch
from geometry_fusion.tracking.places import MOVING
from geometry_fusion.tracking.session import Session, id_image
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Frames, Prompt, TrackedFrame

BURN_IN = 60  # frames of a stream, from the first prompt on, after which it is decided


def without_geometry(
    geometry_ids: np.ndarray,  # [H, W] uint8, the objects of the geometry arm
    baseline_ids: np.ndarray,  # [H, W] uint8, those of SAM2 alone
    moving: set[int],
) -> np.ndarray:
    """Ids [H, W] with the moving objects as SAM2 alone has them; where both kinds claim a pixel,
    the object that stands still keeps it.
    """
    ids = np.where(np.isin(geometry_ids, list(moving)), 0, geometry_ids)
    return np.where((ids == 0) & np.isin(baseline_ids, list(moving)), baseline_ids, ids)


class ClipFallback:
    """Watches both arms of a clip, and then replaces the masks of objects that move.

    frames: of the clip; always: do not decide, fall back for all objects.
    """

    def __init__(self, frames: Frames, prompts: Sequence[Prompt], always: bool = False):
        self._frames = frames
        self._object_ids = sorted({prompt.object_id for prompt in prompts})
        self._watch = None if always else MotionWatch()
        if self._watch is not None:
            for prompt in prompts:
                self._watch.note_prompt(prompt.object_id, prompt.frame)
        self.decisions: dict[int, Decision] = {}

    def add(self, alone: TrackedFrame, with_geometry: TrackedFrame) -> None:
        """Take in what SAM2 alone and the geometry arm answered for a frame."""
        if self._watch is not None:
            image = self._frames[alone.index]
            self._watch.add(alone.index, image, alone.ids, with_geometry.geometry)

    @property
    def moving(self) -> set[int]:
        """The objects for which SAM2 alone is used, once `decide` was called."""
        if self._watch is None:
            return set(self._object_ids)
        return {i for i, decision in self.decisions.items() if decision.dynamic}

    def decide(self) -> None:
        """Make the decisions, after the last frame."""
        if self._watch is not None:
            self.decisions = self._watch.decisions()

    def replace(self, baseline: Path, geometry: Path, stems: list[str], write) -> None:
        """Rewrite the masks in `geometry`, a folder of STEM.png, with those of moving objects from
        `baseline`. write: (file, ids [H, W]).
        """
        if not self.moving:
            return
        only = self._object_ids[0] if len(self._object_ids) == 1 else None
        for stem in stems:
            ours, theirs = (read_ids(folder / f"{stem}.png") for folder in (geometry, baseline))
            if only is not None:  # such masks are 0 and 255
                ours, theirs = (ours > 0) * np.uint8(only), (theirs > 0) * np.uint8(only)
            write(geometry / f"{stem}.png", without_geometry(ours, theirs, self.moving))


class SharedSource(Source):
    """A source whose frames come from an iterator that another reader shares.

    ahead: that of `source`, answered once for both: the second reader asks when the first has taken
    frames already.
    """

    def __init__(
        self,
        source: Source,
        frames: Iterator[SourceFrame],
        ahead: Callable[[int], int | None],
    ):
        self._source, self._frames, self._ahead_once = source, frames, ahead
        self.name, self.size, self.frame_rate = source.name, source.size, source.frame_rate
        self.live, self.num_frames, self.lost = source.live, source.num_frames, source.lost

    def __iter__(self) -> Iterator[SourceFrame]:
        yield from self._frames

    def close(self) -> None:
        """Nothing to close: the shared source has its own context."""

    def ahead(self, count: int) -> int | None:
        return self._ahead_once(count)

    @property
    def dropped(self) -> int:
        return self._source.dropped


class FallbackSession(Session):
    """A stream that is tracked with geometry and, at first, by SAM2 alone as well.

    After `burn_in` frames with objects, each object is decided: one that moves is tracked by SAM2
    alone from then on, with the memory that SAM2 alone had from its prompt; all others with
    geometry. Until then the answers are those with geometry. An object that is prompted later keeps
    geometry.
    """

    def __init__(self, geometry: StreamSession, baseline: StreamSession, burn_in: int = BURN_IN):
        self._arms: dict[str, StreamSession] = {"geometry": geometry, "baseline": baseline}
        self._burn_in = burn_in
        super().__init__(geometry._predictor, geometry._precision)

    def reset(self) -> None:
        """Forget the video and all objects."""
        for session in self._arms.values():
            session.reset()
        self._order: list[int] = []  # object ids, in the order of their first prompts
        self._active = set(self._arms)
        self._watch: MotionWatch | None = MotionWatch()
        self._frames_watched = 0
        self.decided_at: int | None = None  # the frame after which it was decided
        self.verdicts: dict[int, Decision] = {}
        self.frame_index: int | None = None
        self.stem: str | None = None
        self.image: np.ndarray | None = None
        self.logits: Tensor | None = None

    @property
    def object_ids(self) -> list[int]:
        """Ids of the objects that are tracked, in the order of their first prompts."""
        tracked = {i for arm in self._active for i in self._arms[arm].object_ids}
        self._order += sorted(tracked - set(self._order))
        return [i for i in self._order if i in tracked]

    @property
    def moving(self) -> set[int]:
        """The objects that were decided to move."""
        return {i for i, verdict in self.verdicts.items() if verdict.dynamic}

    def _arms_of(self, object_id: int) -> list[str]:
        """The active arms that track an object, or should."""
        if self.decided_at is None:
            return [arm for arm in self._arms if arm in self._active]
        arm = "baseline" if object_id in self.moving else "geometry"
        return [arm] if arm in self._active else list(self._active)

    def add(self, prompt: Prompt) -> np.ndarray | None:
        """As `StreamSession.add`."""
        if prompt.object_id not in self._order:
            self._order.append(prompt.object_id)
        if self._watch is not None:
            self._watch.note_prompt(prompt.object_id, prompt.frame)
        answers = [self._arms[arm].add(prompt) for arm in self._arms_of(prompt.object_id)]
        self.logits = self._joined_logits() if answers[0] is not None else self.logits
        return None if answers[0] is None else id_image(self.object_ids, self.logits)

    def remove(self, object_id: int) -> None:
        """As `Session.remove`."""
        if object_id not in self.object_ids:
            raise InputError(
                f"object {object_id}: is not tracked; tracked are {self.object_ids or 'none'}"
            )
        for arm in self._active:
            if object_id in self._arms[arm].object_ids:
                self._arms[arm].remove(object_id)

    def track(self, source) -> Iterator[TrackedFrame]:
        """As `StreamSession.track`."""
        source = source if isinstance(source, Source) else open_source(source)
        with source:
            copies = dict(zip(self._arms, itertools.tee(iter(source), len(self._arms))))
            ahead = cache(source.ahead)
            runs = {
                arm: self._arms[arm].track(SharedSource(source, copies[arm], ahead))
                for arm in list(self._active)
            }
            del copies
            try:
                while (frame := self._step(runs)) is not None:
                    yield frame
            finally:
                for run in runs.values():
                    run.close()

    def _step(self, runs: dict[str, Iterator[TrackedFrame]]) -> TrackedFrame | None:
        """The next frame by all active arms; None at the end."""
        for arm in set(runs) - self._active:
            runs.pop(arm).close()
        answers = {arm: next(run, None) for arm, run in runs.items()}
        first = answers.get("geometry") or answers.get("baseline")
        if first is None:
            return None
        self.frame_index, self.stem, self.image = first.index, first.stem, first.image
        self.logits = self._joined_logits()
        decisions = {**first.decisions, **dict.fromkeys(self.moving, MOVING)}
        decisions = {i: text for i, text in decisions.items() if i in self.object_ids}
        ids = first.ids
        if self.logits is not None:
            ids = id_image(self.object_ids, self.logits)
        frame = TrackedFrame(
            index=first.index,
            ids=ids,
            object_ids=tuple(self.object_ids),
            logits=self.logits,
            geometry=first.geometry,
            decisions=decisions,
            stem=first.stem,
            image=first.image,
        )
        if self.decided_at is None:
            self._watch_on(answers)
        return frame

    def _joined_logits(self) -> Tensor | None:
        """Mask logits [objects, 1, H, W] of the latest frame, each object by its arm."""
        rows = []
        for object_id in self.object_ids:
            arm = self._arms_of(object_id)[0]
            session = self._arms[arm]
            if session.logits is None:
                return None
            rows.append(session.logits[session.object_ids.index(object_id)])
        return torch.stack(rows) if rows else None

    def _watch_on(self, answers: dict[str, TrackedFrame]) -> None:
        """Show a frame to the watch; after the last of the burn-in, decide."""
        with_geometry, alone = answers["geometry"], answers["baseline"]
        if not alone.object_ids:
            return
        self._watch.add(alone.index, alone.image, alone.ids, with_geometry.geometry)
        self._frames_watched += 1
        if self._frames_watched < self._burn_in:
            return
        self.verdicts = self._watch.decisions()
        self.decided_at, self._watch = alone.index, None
        moving = self.moving & set(self.object_ids)
        still = set(self.object_ids) - moving
        if not moving:
            self._active = {"geometry"}
        elif not still:
            self._active = {"baseline"}
        for arm, others in (("geometry", moving), ("baseline", still)):
            if arm in self._active:
                for object_id in others:
                    self._arms[arm].remove(object_id)

    @property
    def settled(self) -> bool:
        """As `StreamSession.settled`, for all active arms."""
        # Each is asked, because asking lets it settle.
        return all([self._arms[arm].settled for arm in self._active])

    def snapshot(self) -> dict:
        """As `StreamSession.snapshot`."""
        if not self.settled:
            raise ValueError("no snapshot now: frames are encoded ahead; see settled")
        return {
            "frame_index": self.frame_index,
            "decided_at": self.decided_at,
            "watched": self._frames_watched,
            "watch": None if self._watch is None else self._watch.snapshot(),
            "moving": sorted(self.moving),
            "order": list(self._order),
            "arms": {arm: self._arms[arm].snapshot() for arm in sorted(self._active)},
        }

    def restore(self, snapshot: dict) -> None:
        """Resume from a `snapshot` of a session with equal arms."""
        self.reset()
        self.decided_at, self._frames_watched = snapshot["decided_at"], snapshot["watched"]
        self._watch = MotionWatch() if snapshot["watch"] else None
        if self._watch is not None:
            self._watch.restore(snapshot["watch"])
        self._order = list(snapshot["order"])
        self.verdicts = {i: Decision(i, True, 1.0, "dynamic", (), 0) for i in snapshot["moving"]}
        self._active = set(snapshot["arms"])
        for arm, state in snapshot["arms"].items():
            self._arms[arm].restore(state)
        self.frame_index = snapshot["frame_index"]
