"""The user's marks on frames, without a window: clicks and boxes of several objects, with undo.

`PickedPrompts` turns marks into prompts and into arguments of `ab_iou.py` and `main.py segment`.
`MaskPreview` computes SAM2's masks of prompts on their frame.
"""

from dataclasses import dataclass

import numpy as np
import torch

from geometry_fusion.devices import autocast
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import clicks_and_box, id_image
from geometry_fusion.types import Frames, Prompt

LAST_OBJECT = 255


@dataclass(frozen=True)
class Mark:
    """One action of the user."""

    frame: int
    object_id: int
    kind: str  # "point", "negative" or "box"
    values: tuple[int, ...]  # pixels: x, y of a click; x0, y0, x1, y1 of a box


class PickedPrompts:
    """Marks in the order in which they were made. The next one is for `object_id` on `frame`.

    several_frames: whether marks may be on more than one frame; a command line has only one.
    """

    def __init__(self, frame: int = 0, several_frames: bool = False):
        self.frame = frame
        self.object_id = 1
        self.marks: list[Mark] = []
        self._several_frames = several_frames

    def problem_here(self) -> str | None:
        """Why no mark can be added on the current frame; None if one can."""
        others = {mark.frame for mark in self.marks} - {self.frame}
        if others and not self._several_frames:
            return (
                f"the marks are on frame {min(others)}: undo them, or start again with --save "
                "FILE.json"
            )
        return None

    def add(self, kind: str, values: tuple[int, ...]) -> None:
        """Add a mark for the current object and frame, unless it repeats the last one."""
        assert kind in ("point", "negative", "box") and self.problem_here() is None, (kind, values)
        mark = Mark(self.frame, self.object_id, kind, values)
        if self.marks[-1:] != [mark]:
            self.marks.append(mark)

    def undo(self) -> None:
        """Remove the last mark; its object and frame become the current ones."""
        if self.marks:
            mark = self.marks.pop()
            self.frame = mark.frame
            self.object_id = mark.object_id

    def next_object(self) -> None:
        """Let the next marks be for a new object; no change if the current one has no marks."""
        marked = {mark.object_id for mark in self.marks}
        if self.object_id in marked:
            self.object_id = min(max(marked) + 1, LAST_OBJECT)

    def prompts(self) -> list[Prompt]:
        """One prompt per object and frame with a click on it or a box; of several boxes, the last
        one counts.
        """
        places = {(mark.frame, mark.object_id) for mark in self.marks}
        prompts = (self._prompt(frame, object_id) for frame, object_id in sorted(places))
        return [prompt for prompt in prompts if prompt.points or prompt.box]

    def shown_on(self, frame: int) -> list[Prompt]:
        """The marks on a frame as prompts, one per object, also those that are incomplete."""
        objects = sorted({mark.object_id for mark in self.marks if mark.frame == frame})
        return [self._prompt(frame, object_id) for object_id in objects]

    def _prompt(self, frame: int, object_id: int) -> Prompt:
        values = {"point": [], "negative": [], "box": []}
        for mark in self.marks:
            if (mark.frame, mark.object_id) == (frame, object_id):
                values[mark.kind].append(mark.values)
        return Prompt(
            frame,
            object_id,
            points=tuple(values["point"]),
            negatives=tuple(values["negative"]),
            box=values["box"][-1] if values["box"] else None,
            source=f"clicks on object {object_id}",
        )

    def incomplete(self) -> list[int]:
        """Ids of objects that only have clicks beside them, which is not enough for a prompt."""
        complete = {(prompt.frame, prompt.object_id) for prompt in self.prompts()}
        return sorted({m.object_id for m in self.marks if (m.frame, m.object_id) not in complete})

    def arguments(self) -> list[str]:
        """The prompts as arguments of a command line; all must be on one frame."""
        prompts = self.prompts()
        (frame,) = {prompt.frame for prompt in prompts}
        # A single object with id 1 needs no id in the arguments.
        needs_ids = [prompt.object_id for prompt in prompts] != [1]
        words = []
        for prompt in prompts:
            prefix = f"{prompt.object_id}:" if needs_ids else ""
            marks = [("--point", xy) for xy in prompt.points]
            marks += [("--negative", xy) for xy in prompt.negatives]
            marks += [("--box", prompt.box)] if prompt.box else []
            for flag, values in marks:
                words += [flag, prefix + ",".join(map(str, values))]
        return words + (["--prompt-frame", str(frame)] if frame else [])


class MaskPreview:
    """Computes the masks from which tracking would start. A frame is encoded only once.

    precision: auto, fp32 or bf16.
    """

    def __init__(self, predictor: GeometryVideoPredictor, frames: Frames, precision: str = "auto"):
        self._predictor = predictor
        self._size = frames.size
        self._precision = precision
        self._state = predictor.init_state(frames)

    @torch.inference_mode()
    def __call__(self, prompts: list[Prompt]) -> np.ndarray:
        """The masks of prompts on one frame, as ids [H, W] uint8."""
        self._predictor.reset_state(self._state)
        ids = np.zeros(self._size[::-1], np.uint8)
        for prompt in prompts:
            where = {
                "inference_state": self._state,
                "frame_idx": prompt.frame,
                "obj_id": prompt.object_id,
            }
            # SAM2 returns the masks of all objects so far, so the last answer is the whole one.
            if prompt.mask is not None:  # a user's own mask is the answer
                ids[prompt.mask] = prompt.object_id
                continue
            with autocast(self._predictor.device, self._precision):
                _, object_ids, logits = self._predictor.add_new_points_or_box(
                    **where, **clicks_and_box(prompt)
                )
            ids = id_image(object_ids, logits)
        return ids
