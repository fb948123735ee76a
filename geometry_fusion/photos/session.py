"""SAM2 over photos in any order: each photo reads what `NeighbourMemory` chooses, and nothing else.

SAM2 itself has no time but the order of processing. Here that order says nothing: time codes and
the ages of pointers are ranks of overlap.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.devices import autocast
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.photos.pictures import PhotoFrames
from geometry_fusion.tracking.lanes import EncodedFrames
from geometry_fusion.tracking.memories.neighbours import NeighbourMemory, NeighbourSettings
from geometry_fusion.tracking.memories.records import Answer
from geometry_fusion.tracking.memory_bank import Held
from geometry_fusion.tracking.memory_tokens import ReadOutputs
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import clicks_and_box
from geometry_fusion.tracking.state import PROMPTED, TRACKED
from geometry_fusion.tracking.strategy_step import Path, Survivor
from geometry_fusion.types import GeometryFrame, Prompt

MEMORY = ("maskmem_features", "obj_ptr", "object_score_logits")  # of outputs: what is read again
LEAST_LENGTH = 16  # photos by which SAM2 scales the ages of pointers, as in longer videos


@dataclass(frozen=True)
class Look:
    """What SAM2 answers for one object on one photo."""

    iou: float  # predicted; 1 for prompts
    score: float  # object score, a logit
    mask: np.ndarray  # [h, w] bool, at the decoder's resolution
    logits: Tensor  # [1, 1, h, w] on the CPU
    output: dict  # SAM2's, which other photos may read
    prompted: bool = False

    @property
    def present(self) -> bool:
        """Whether the object is in the photo. Never forced: SAM2's own score decides."""
        return self.score > 0 and bool(self.mask.any())


class PhotoSession:
    """One set of photos and any number of objects.

    overlaps: [n, n] by photo. source: geometry of the photos. Photos may be asked for again and in
    any order; `ask` changes nothing that other photos read, `keep` does.
    """

    def __init__(
        self,
        predictor: GeometryVideoPredictor,
        frames: PhotoFrames,
        source: GeometrySource | None,
        precision: str = "auto",
    ):
        self._predictor, self._precision = predictor, precision
        self._state = predictor.init_state(frames, geometry=source)
        self._state.scale_ages_as(LEAST_LENGTH)
        self._held: dict[int, Held] = {}
        self.keep_features = False  # of all photos: for sets that are segmented again and again
        self._features: dict[int, EncodedFrames] = {}

    @property
    def object_ids(self) -> list[int]:
        """Ids in the order of their first prompts."""
        return self._state.object_ids

    @torch.inference_mode()
    def add(self, prompts: Sequence[Prompt]) -> None:
        """All prompts, in the pixels of the canvas, on photos by number."""
        with autocast(self._predictor.device, self._precision):
            for prompt in prompts:
                where = {"frame_idx": prompt.frame, "obj_id": prompt.object_id}
                if prompt.mask is not None:
                    self._predictor.add_new_mask(self._state, **where, mask=prompt.mask)
                else:
                    self._predictor.add_new_points_or_box(
                        self._state, **where, **clicks_and_box(prompt)
                    )
            self._predictor.propagate_in_video_preflight(self._state)

    def begin(self, overlaps: np.ndarray, settings: NeighbourSettings | None = None) -> None:
        """Forget all answers but those of prompts. overlaps: [n, n] by photo."""
        bank = self._predictor.bank(self._state.num_frames)
        self._held = {}
        for obj_idx, object_id in enumerate(self.object_ids):
            self._state.outputs[obj_idx][TRACKED].clear()
            memory = NeighbourMemory(bank, overlaps, settings)
            self._held[object_id] = Held(False, 0, memory)

    def prompted(self, object_id: int) -> set[int]:
        """The photos on which an object was prompted."""
        return set(self._state.outputs[self._index(object_id)][PROMPTED])

    def prompt_of(self, photo: int, object_id: int) -> Look:
        """The answer of a prompt."""
        output = self._state.outputs[self._index(object_id)][PROMPTED][photo]
        logits = output["pred_masks"].float().cpu()
        score = float(output["object_score_logits"])
        return Look(1.0, score, (logits[0, 0] > 0).numpy(), logits, output, prompted=True)

    def geometry(self, photo: int) -> GeometryFrame | None:
        """The geometry of a photo; None without a source."""
        source = self._state.geometry
        return None if source is None else source.push(photo, self._state.frames[photo])

    @torch.inference_mode()
    def appearance(self, photo: int) -> Tensor:
        """SAM2's top-level feature [C, h, w] of a photo."""
        with autocast(self._predictor.device, self._precision):
            self._predictor._get_image_feature(self._state, photo, 1)
        return self._state.features[photo][1]["backbone_fpn"][-1][0]

    @torch.inference_mode()
    def ask(
        self, photo: int, object_ids: Collection[int], prompts_only: bool = False
    ) -> dict[int, Look]:
        """What SAM2 answers for objects that are not prompted on a photo.

        prompts_only: read no other photos.
        """
        predictor, state = self._predictor, self._state
        with autocast(predictor.device, self._precision):
            self._encode(photo)
            if state.places is not None:
                state.places.begin_frame(state.object_ids)
            paths = [
                Path(self._index(i), self._reading(photo, i, prompts_only)) for i in object_ids
            ]
            decoded = predictor._decoded(state, photo, paths)
            survivors = [
                Survivor(path.obj_idx, 0, d, self._chosen(photo, path.obj_idx, d))
                for path, d in zip(paths, decoded)
            ]
            outputs, answers, masks = predictor._encoded(state, photo, survivors, False)
        looks = {}
        for object_id in object_ids:
            at = self._index(object_id)
            answer = answers[at][0]
            looks[object_id] = Look(
                answer.iou, answer.score, answer.mask, masks[at].float().cpu(), outputs[at][0]
            )
        return looks

    def keep(self, photo: int, object_id: int, look: Look, barred: bool = False) -> None:
        """Let other photos read an answer. barred: they must not."""
        held = self._held[object_id]
        (held.memory.barred.add if barred else held.memory.barred.discard)(photo)
        held.memory.add(photo, [Answer(look.iou, look.score, look.mask)])
        self._state.outputs[self._index(object_id)][TRACKED][photo] = look.output

    def packed(self, looks: Mapping[int, Look]) -> dict:
        """Answers of `ask`, and the places as they are after it, as tensors and plain values."""
        facts = {}
        for object_id, look in looks.items():
            kept = {name: look.output[name].cpu().clone() for name in MEMORY}
            kept |= {"logits": look.logits.clone(), "mask": torch.from_numpy(look.mask)}
            facts[object_id] = {"iou": look.iou, "score": look.score, **kept}
        places = self._state.places
        return {"looks": facts, "places": None if places is None else places.snapshot()}

    def unpacked(self, piece: dict) -> dict[int, Look]:
        """The answers that `packed` packed; the places become what they were then."""
        if piece["places"] is not None:
            self._state.places.restore(piece["places"])
        looks = {}
        for object_id, kept in piece["looks"].items():
            prompts = self._state.outputs[self._index(object_id)][PROMPTED]
            output = {name: kept[name].to(self._predictor.device) for name in MEMORY}
            # Position codes of memories are the same for all photos and objects.
            output["maskmem_pos_enc"] = next(iter(prompts.values()))["maskmem_pos_enc"]
            mask, logits = kept["mask"].numpy(), kept["logits"]
            looks[object_id] = Look(kept["iou"], kept["score"], mask, logits, output)
        return looks

    def on_canvas(self, logits: Tensor) -> Tensor:
        """Mask logits [objects, 1, h, w] at the canvas's size, [objects, 1, H, W]."""
        moved = logits.to(self._predictor.device)
        return self._predictor._get_orig_video_res_output(self._state, moved)[1]

    def _encode(self, photo: int) -> None:
        """Give the state a photo's features."""
        state, lane = self._state, self._state.lanes.main
        if photo in self._features:
            lane.set_features(self._features[photo])
            return
        self._predictor._get_image_feature(state, photo, 1)
        if self.keep_features:
            parts = {photo: lane.features[photo]}, {photo: lane.geometry[photo]}
            self._features[photo] = EncodedFrames(*parts, lane.settled)

    def _index(self, object_id: int) -> int:
        return self.object_ids.index(object_id)

    def _chosen(self, photo: int, obj_idx: int, decoded) -> int:
        memory = self._held[self._state.object_id(obj_idx)].memory
        return memory.choose(photo, [decoded.candidates()])[0].candidate

    def _reading(self, photo: int, object_id: int, prompts_only: bool) -> ReadOutputs:
        """The outputs that a photo reads for an object."""
        held = self._held[object_id]
        outputs = self._state.outputs[self._index(object_id)]
        prompts = {t: float(o["object_score_logits"]) for t, o in outputs[PROMPTED].items()}
        memory = held.memory
        if prompts_only:
            only = NeighbourSettings(kind="prompt_only")
            memory = NeighbourMemory(memory.bank, memory.overlaps, only)
        return held.outputs_of(memory.read(photo, prompts)[0], outputs)
