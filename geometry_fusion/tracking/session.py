"""Tracking one video: prompts in, `TrackedFrame` out. What both kinds of session share.

    session = open_session(predictor)                          # or tracker.session()
    session.add(Prompt(frame=0, points=((180, 296),)))
    for frame in session.track("clip.mp4"):                    # a file, a folder, a camera, arrays
        if frame.index == 100:
            session.add(Prompt(frame=100, object_id=2, points=((40, 80),)))

`StreamSession` (mode "stream") takes each frame once, in constant memory: prompts are for the
current frame or later ones. `ClipSession` (mode "full") keeps the video at hand: any frame can be
prompted again, and tracking also runs backwards. From an object's last prompt on, both give the
same masks bit for bit.

A prompt is the truth. An object is tracked forwards from each of its prompts; a ClipSession also
tracks it backwards: from its first prompt to the first frame, and between two prompts to the frames
that are nearer to the later one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.errors import InputError
from geometry_fusion.threads import share_cores
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.state import TrackState
from geometry_fusion.types import Prompt, TrackedFrame

GIVEN_LOGIT = 100.0  # of a pixel inside a user's own mask: above what any model answers


class Session(ABC):
    """One video and any number of objects. Several sessions can use one predictor at a time.

    predictor: as `models.sam2.build_predictor` makes it, with or without geometry fused; precision:
    auto, fp32 or bf16. `frame_index`, `stem`, `image` and `logits` [objects, 1, H, W] are those of
    the latest frame; stem and image are known in streams only. Raises InputError for prompts that
    do not fit.

    On a CPU, tracking files and clips encodes the next frames on threads of its own, and sets the
    number of torch's threads to a half until the run ends (threads.py); torch with a single thread
    stays as it is.
    """

    def __init__(self, predictor: GeometryVideoPredictor, precision: str = "auto"):
        self._predictor, self._precision = predictor, precision
        self.reset()

    def reset(self) -> None:
        """Forget the video and all objects."""
        if getattr(self, "_state", None) is not None:
            self._state.lanes.stop_ahead()
        self._state: TrackState | None = None
        self._waiting: list[Prompt] = []  # for frames that have not come
        self._time: int | None = None  # the latest frame's number for SAM2's memory: without gaps
        # (time, object id) -> a user's own mask, which is the answer there
        self._given: dict[tuple[int, int], np.ndarray] = {}
        self.frame_index: int | None = None
        self.stem: str | None = None
        self.image: np.ndarray | None = None
        self.logits: Tensor | None = None

    @property
    def object_ids(self) -> list[int]:
        """Ids of the objects that are tracked, in the order of their first prompts."""
        return self._state.object_ids if self._state else []

    @abstractmethod
    def add(self, prompt: Prompt) -> np.ndarray | None:
        """A new object, or a correction of one. Returns ids [H, W] uint8 where it takes effect at
        once, None where it waits for its frame.
        """

    @abstractmethod
    def track(self, source) -> Iterator[TrackedFrame]:
        """Track a video and yield its frames."""

    @torch.inference_mode()
    def remove(self, object_id: int) -> None:
        """Stop tracking an object. Raises InputError for an id that is not tracked."""
        if object_id not in self.object_ids:
            raise InputError(
                f"object {object_id}: is not tracked; tracked are {self.object_ids or 'none'}"
            )
        self._predictor.remove_object(self._state, object_id, need_output=False)
        self._state.batches.clear()
        self._given = {at: mask for at, mask in self._given.items() if at[1] != object_id}

    @contextmanager
    def _encoding_ahead(self, wanted: bool = True) -> Iterator[bool]:
        """Within it, the next frames are encoded beside tracking, where that pays: on a CPU with
        models small enough to encode several frames at once. Yields whether that is so.
        """
        predictor = self._predictor
        pays = predictor.device.type == "cpu" and predictor.frames_at_once > 1
        with share_cores(wanted and pays and not predictor.upstream) as shared:
            try:
                yield shared
            finally:
                if self._state is not None:
                    self._state.lanes.stop_ahead()
                    self._state.lanes.allow_ahead(False)

    def _tracked(self, ids: np.ndarray) -> TrackedFrame:
        """The record of the latest frame."""
        return TrackedFrame(
            index=self.frame_index,
            ids=ids,
            object_ids=tuple(self.object_ids),
            logits=self.logits,
            geometry=self._state.lanes.main.geometry.get(self._time),
            stem=self.stem,
            image=self.image,
            decisions=self._state.decisions(),
            scores=self._state.object_scores(self._time),
        )

    @torch.inference_mode()
    def _apply(self, prompt: Prompt, time: int) -> np.ndarray:
        """Give the predictor a prompt on a frame; returns that frame's ids [H, W]."""
        where = {"inference_state": self._state, "frame_idx": time, "obj_id": prompt.object_id}
        with autocast(self._predictor.device, self._precision):
            if prompt.mask is not None:
                _, ids, self.logits = self._predictor.add_new_mask(**where, mask=prompt.mask)
            else:
                _, ids, self.logits = self._predictor.add_new_points_or_box(
                    **where, **clicks_and_box(prompt)
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


def clicks_and_box(prompt: Prompt) -> dict:
    """A prompt's clicks and box as arguments of SAM2's `add_new_points_or_box`."""
    points = np.array([*prompt.points, *prompt.negatives], np.float32).reshape(-1, 2)
    labels = np.array([1] * len(prompt.points) + [0] * len(prompt.negatives), np.int32)
    clicks = {"points": points, "labels": labels} if len(points) else {}
    return {**clicks, "box": prompt.box}


def id_image(object_ids: Sequence[int], logits: Tensor) -> np.ndarray:
    """Mask logits [O, 1, H, W] of `object_ids` -> ids [H, W] uint8, 0 where no object has a
    positive logit.
    """
    best, index = logits[:, 0].float().max(0)
    ids = torch.tensor(list(object_ids), dtype=torch.uint8, device=logits.device)[index]
    return torch.where(best > 0, ids, 0).to(torch.uint8).cpu().numpy()
