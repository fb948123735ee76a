"""What a person marks on frames, without a window: clicks and boxes of several objects, with undo.

`PickedPrompts` turns marks into prompts and into arguments of `ab_iou.py` and `main.py segment`.
`MaskPreview` gives the masks that SAM2 makes of prompts on their frame.
"""

from dataclasses import dataclass

import numpy as np
import torch

from geometry_fusion.devices import autocast
from geometry_fusion.session import id_image
from geometry_fusion.types import Prompt

LAST_OBJECT = 255


@dataclass(frozen=True)
class Mark:
    """One action of the user: values are x, y of a click, or x0, y0, x1, y1 of a box."""

    frame: int
    object_id: int
    kind: str  # "point", "negative" or "box"
    values: tuple[int, ...]


class PickedPrompts:
    """Marks in the order in which they were made. `frame` and `object_id` say what the next one is
    about.

    several_frames: whether marks on more than one frame are allowed; a command line names one frame
    only.
    """

    def __init__(self, frame: int = 0, several_frames: bool = False):
        self.frame, self.object_id = frame, 1
        self.marks: list[Mark] = []
        self._several_frames = several_frames

    def problem_here(self) -> str | None:
        """Why no mark can be made on the current frame; None if one can."""
        others = {mark.frame for mark in self.marks} - {self.frame}
        if others and not self._several_frames:
            return f"the marks are on frame {min(others)}: undo them, or start again with --save "
            "FILE.json"
        return None

    def add(self, kind: str, values: tuple[int, ...]) -> None:
        """A mark on the current frame for the current object; the same one twice in a row counts
        once.
        """
        assert kind in ("point", "negative", "box") and self.problem_here() is None, (kind, values)
        mark = Mark(self.frame, self.object_id, kind, values)
        if self.marks[-1:] != [mark]:
            self.marks.append(mark)

    def undo(self) -> None:
        """Take back the last mark; its object and frame become the current ones."""
        if self.marks:
            mark = self.marks.pop()
            self.frame, self.object_id = mark.frame, mark.object_id

    def next_object(self) -> None:
        """The next marks are for a new object."""
        known = {mark.object_id for mark in self.marks}
        if self.object_id in known:
            self.object_id = min(max(known) + 1, LAST_OBJECT)

    def prompts(self) -> list[Prompt]:
        """One for each object and frame that a click or a box marks; with several boxes the last
        one counts.
        """
        places = {(mark.frame, mark.object_id) for mark in self.marks}
        prompts = (self._prompt(frame, object_id) for frame, object_id in sorted(places))
        return [prompt for prompt in prompts if prompt.points or prompt.box]

    def shown_on(self, frame: int) -> list[Prompt]:
        """All marks on a frame, by object, complete or not."""
        objects = sorted({mark.object_id for mark in self.marks if mark.frame == frame})
        return [self._prompt(frame, object_id) for object_id in objects]

    def _prompt(self, frame: int, object_id: int) -> Prompt:
        of_kind = {"point": [], "negative": [], "box": []}
        for mark in self.marks:
            if (mark.frame, mark.object_id) == (frame, object_id):
                of_kind[mark.kind].append(mark.values)
        box = of_kind["box"][-1] if of_kind["box"] else None
        source = f"clicks on object {object_id}"
        return Prompt(
            frame,
            object_id,
            tuple(of_kind["point"]),
            tuple(of_kind["negative"]),
            box,
            source=source,
        )

    def incomplete(self) -> list[int]:
        """Objects with clicks beside them only, which make no prompt."""
        complete = {(prompt.frame, prompt.object_id) for prompt in self.prompts()}
        return sorted({m.object_id for m in self.marks if (m.frame, m.object_id) not in complete})

    def arguments(self) -> list[str]:
        """The prompts as arguments of a command line; all must be on one frame."""
        prompts = self.prompts()
        (frame,) = {prompt.frame for prompt in prompts}
        numbered = [prompt.object_id for prompt in prompts] != [1]
        words = []
        for prompt in prompts:
            name = f"{prompt.object_id}:" if numbered else ""
            marks = [("--point", xy) for xy in prompt.points] + [
                ("--negative", xy) for xy in prompt.negatives
            ]
            marks += [("--box", prompt.box)] if prompt.box else []
            for flag, values in marks:
                words += [flag, name + ",".join(map(str, values))]
        return words + (["--prompt-frame", str(frame)] if frame else [])


class MaskPreview:
    """Call it with prompts on one frame: their masks as ids [H, W] uint8, as tracking would start
    from them.

    predictor: of `sam2_model.build_predictor`; frames: RGB uint8 [H, W, 3] by index, with `len` and
    `.size`. A frame is encoded once, however many prompts are tried on it.
    """

    def __init__(self, predictor, frames, precision: str = "auto"):
        self._predictor, self._size, self._precision = predictor, frames.size, precision
        self._state = predictor.init_state(frames)

    @torch.inference_mode()
    def __call__(self, prompts: list[Prompt]) -> np.ndarray:
        self._predictor.reset_state(self._state)
        ids = np.zeros(self._size[::-1], np.uint8)
        for prompt in prompts:
            points = np.array([*prompt.points, *prompt.negatives], np.float32).reshape(-1, 2)
            labels = np.array([1] * len(prompt.points) + [0] * len(prompt.negatives), np.int32)
            given = {"points": points, "labels": labels} if len(points) else {}
            where = {
                "inference_state": self._state,
                "frame_idx": prompt.frame,
                "obj_id": prompt.object_id,
            }
            with autocast(self._predictor.device, self._precision):
                _, found, logits = self._predictor.add_new_points_or_box(
                    **where, **given, box=prompt.box
                )
            ids = id_image(found, logits)
        return ids
