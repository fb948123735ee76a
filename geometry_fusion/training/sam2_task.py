"""Training SAM2 on scenes with SAM2's own forward and losses, on clicked images and short clips.

`tiny_sam2` starts from random weights. Besides `ClickTracker`, three initialisations of
sam2_model.py make that possible:
* `start_object_scores`: SAM2 replaces the mask logits of absent objects by -1024, through which no
  gradient passes. The object score starts positive, so that masks learn from the first step.
* `start_click_attention`: a click's embedding is the code of its position, which random query and
  key projections scramble. The two-way transformer's cross attentions start with one shared
  selection of whole sine-cosine pairs for queries and keys, so that a click attends to its own
  surroundings from the first step.
* `start_memory`: memory features start at a scale that influences the output, and memory attention
  starts local.
The order of the stages matters too: clicks on single images, then pairs of (nearly) equal frames,
then clips.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from training.loss_fns import CORE_LOSS_KEY

from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.training.batches import (
    LAYOUT,
    ClipBatch,
    SceneClips,
    clip_arrays,
    to_batch,
)
from geometry_fusion.training.generated_clips import GeneratedClipBatches
from geometry_fusion.training.sam2_model import ClickTracker, mask_iou, sam2_losses
from geometry_fusion.training.schedule import draw_kind, stages_in_steps

VALIDATION_BATCH = 8  # clips


def largest_view_windows(
    areas: np.ndarray, length: int, min_area: int
) -> list[tuple[int, list[int]]]:
    """(id, frames) of each object: `length` consecutive frames, starting at its largest view.

    Windows run forwards or backwards in time, and the object keeps at least `min_area` pixels in
    them. If the largest view has no such window, the next largest one is tried. Objects without any
    window are left out. areas: pixels, int [T, ids].
    """
    windows = []
    for object_id in range(1, areas.shape[1]):
        visible = areas[:, object_id] >= min_area
        best = None
        for start in np.argsort(-areas[:, object_id], kind="stable"):
            for direction in (1, -1):
                frames = [int(start) + direction * i for i in range(length)]
                if min(frames) >= 0 and max(frames) < len(areas) and visible[frames].all():
                    best = best or (object_id, frames)
            if best or not visible[start]:
                break
        if best:
            windows.append(best)
    return windows


class Sam2Task:
    """Trains a `ClickTracker` on scenes; the interface is `Task`.

    kinds: name -> keyword arguments of `SceneClips.batch`. stages: in order; each lasts until a
    share of `max_steps` and draws a kind of batch per step by weight. correction_share: probability
    that a batch has correction clicks. Raises InputError where no object of the validation scenes
    stays in view long enough.
    """

    def __init__(
        self,
        model: ClickTracker,
        train_clips: SceneClips | GeneratedClipBatches,
        val_scenes: list[Scene],
        *,
        max_steps: int,
        kinds: dict[str, dict],
        stages: list[dict],
        correction_share: float,
        min_area: int,
        loss_weights: dict[str, float],
        val_objects: int,
        val_frames: int,
    ):
        self.model = model.to(memory_format=LAYOUT)
        self._clips = train_clips
        self._set_batches(kinds, stages, max_steps)
        self._correction_share = correction_share
        self._loss = sam2_losses(loss_weights)
        windows = [
            (scene, object_id, frames)
            for scene in val_scenes
            for object_id, frames in largest_view_windows(scene.areas, val_frames, min_area)
        ]
        self._val = _spread(windows, val_objects)
        if not self._val:
            raise InputError(
                f"no object of the validation scenes keeps data.min_area={min_area} pixels over "
                f"val_frames={val_frames} frames; lower one of them"
            )
        self._pictures: dict[str, np.ndarray] = {}

    def _set_batches(self, kinds: dict[str, dict], stages: list[dict], max_steps: int) -> None:
        self._kinds = {name: dict(arguments) for name, arguments in kinds.items()}
        self._stages = stages_in_steps(stages, max_steps)

    def batch(self, rng: np.random.Generator, step: int) -> ClipBatch:
        """A batch of a kind that the stage of `step` draws."""
        self._clips.at_step(step)
        return self._clips.batch(rng, **self._kinds[draw_kind(rng, self._stages, step)])

    def losses(
        self, model: torch.nn.Module, batch: ClipBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """SAM2's losses as means over frames, and the IoU of objects in view for the log."""
        self.model.rng = rng  # SAM2Train draws its prompts from this generator
        corrects = rng.random() < self._correction_share
        self.model.num_correction_pt_per_frame = 1 if corrects else 0
        outputs = [_as_float(out) for out in model(batch)]
        losses = self._loss(outputs, batch.masks)
        frames = batch.num_frames
        named = {
            name.removeprefix("loss_"): value / frames
            for name, value in losses.items()
            if name != CORE_LOSS_KEY
        }
        with torch.no_grad():
            predicted = torch.stack([out["pred_masks_high_res"][:, 0] > 0 for out in outputs])
            iou = mask_iou(predicted, batch.masks)[batch.masks.flatten(-2).any(-1)].mean()
        return {"total": losses[CORE_LOSS_KEY] / frames, **named, "mean_iou": iou}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean IoUs over `val_frames` frames, from one click or one mask on the largest view.

        `score` is `click_iou`.
        """
        click_ious = self._validation_ious("click")
        mask_ious = self._validation_ious("mask")
        result = {
            "click_first_frame_iou": float(click_ious[0].mean()),
            "click_iou": float(click_ious.mean()),
            "mask_later_iou": float(mask_ious[1:].mean()),
        }
        return {"score": result["click_iou"], **result}

    def _validation_ious(self, prompt: str) -> Tensor:
        """IoUs [T, O] of the validation objects; draws the first batch for `pictures`."""
        model = self.model.eval()
        device = next(model.parameters()).device
        model.prob_to_use_pt_input_for_eval = 1.0 if prompt == "click" else 0.0
        model.num_correction_pt_per_frame = 0
        ious = []
        for start in range(0, len(self._val), VALIDATION_BATCH):
            chunk = self._val[start : start + VALIDATION_BATCH]
            clips = [
                clip_arrays(scene, frames, [object_id], model.image_size)
                for scene, object_id, frames in chunk
            ]
            batch = to_batch(clips, [scene.folder.name for scene, _, _ in chunk]).to(device)
            predicted = torch.stack([out["pred_masks_high_res"][:, 0] > 0 for out in model(batch)])
            ious.append(mask_iou(predicted, batch.masks))
            if start == 0:
                self._pictures[f"val_{prompt}"] = _strip(clips, predicted.cpu().numpy())
        return torch.cat(ious, 1)

    def pictures(self) -> dict[str, np.ndarray]:
        """Strips of the first validation clips, RGB uint8: truth in green, prediction in red."""
        return self._pictures

    def weights(self) -> dict[str, Tensor]:
        """The whole model."""
        return self.model.state_dict()

    def metadata(self) -> dict:
        """What the model is; the config beside it says where it started from."""
        return {"model": "sam2", "trained": "all parameters"}


def _as_float(output: dict) -> dict:
    """A frame's output with its lists of tensors in fp32, in which losses are always computed."""
    converted = {}
    for key, value in output.items():
        is_tensors = isinstance(value, list) and value and torch.is_tensor(value[0])
        if key.startswith("multistep") and is_tensors:
            value = [tensor.float() for tensor in value]
        converted[key] = value
    return converted


def _spread(items: list, count: int) -> list:
    """`count` items evenly spread over the list, all of them if there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[i] for i in np.unique(places.astype(int))]


def _strip(
    clips: list[tuple[np.ndarray, np.ndarray]],  # (images, masks) as `clip_arrays`
    predicted: np.ndarray,  # [T, O, S, S] bool, one object per clip
    rows: int = 4,
) -> np.ndarray:
    """The first clips as a picture, one clip per row; outlines of truth and prediction."""
    lines = []
    for column, (images, masks) in enumerate(clips[:rows]):
        tiles = []
        for t, image in enumerate(images):
            tile = np.ascontiguousarray(image)
            for mask, colour in ((masks[t, 0], (0, 255, 0)), (predicted[t, column], (255, 0, 0))):
                outlines, _ = cv2.findContours(
                    mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
                )
                cv2.drawContours(tile, outlines, -1, colour, 1)
            tiles.append(tile)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)
