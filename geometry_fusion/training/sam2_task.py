"""Training SAM2 on scenes: SAM2's own training forward and losses, fed with image clicks and short
clips.

`tiny_sam2` starts from random weights. Besides `ClickTracker`, three initialisations make that
possible:
* `start_object_scores`: SAM2 replaces the mask logits of absent objects by -1024, which passes no
gradient. The object
  score starts positive, so that masks learn from the first step.
* `start_click_attention`: a click's embedding is the positional code of its place, but fresh query
and key projections
  scramble it. The two-way transformer's cross attentions start with one shared selection of whole
  sine-cosine pairs
  for queries and keys, so that a click attends to its own surroundings from the first step.
* `start_memory`: memory starts loud enough to be heard, and looks at the same place first.
And the order matters: clicks on single images, then pairs of (nearly) equal frames, then clips.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor
from training.loss_fns import CORE_LOSS_KEY, MultiStepMultiMasksAndIous
from training.model.sam2 import SAM2Train

from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.training.batches import ClipBatch, SceneClips, clip_arrays, to_batch


class ClickTracker(SAM2Train):
    """As SAM2Train (sam2 1.1.0), plus two things that training from random weights needs.

    * The number of correction clicks can be zero.
    * In training, an object that is there keeps its mask though its score says absent. SAM2 would
    put -1024 in place
      of the mask logits, through which no gradient passes; the score is still trained on what it
      said itself.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._present = (
            None  # [O, 1] bool of the frame that is being tracked, None outside of training
        )
        self._scores: list[Tensor] = []
        self.sam_mask_decoder.register_forward_hook(self._keep_masks_of_present_objects)

    def prepare_prompt_inputs(self, backbone_out, input, start_frame_idx=0):
        backbone_out = super().prepare_prompt_inputs(backbone_out, input, start_frame_idx)
        if self.num_correction_pt_per_frame == 0:
            backbone_out["frames_to_add_correction_pt"] = []
        return backbone_out

    def track_step(self, *args, mask_inputs=None, gt_masks=None, **kwargs):
        self._present = gt_masks.flatten(1).any(1, keepdim=True) if self.training else None
        self._scores = []
        output = super().track_step(*args, mask_inputs=mask_inputs, gt_masks=gt_masks, **kwargs)
        # On frames with a mask prompt SAM2 takes the score from the mask, not from the decoder.
        if self.training and mask_inputs is None:
            output["multistep_object_score_logits"] = self._scores
        return output

    def _keep_masks_of_present_objects(self, decoder, inputs, output):
        if self._present is None:
            return output
        masks, ious, tokens, scores = output
        self._scores.append(scores)
        return masks, ious, tokens, torch.where(self._present & (scores <= 0), 1.0, scores)


def start_object_scores(model: torch.nn.Module, bias: float = 3.0) -> None:
    """Let the object score of a random SAM2 start at about `bias` (a logit)."""
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(bias)


def start_click_attention(model: torch.nn.Module, gain: float = 2.2) -> None:
    """Let the mask decoder's image-token cross attentions start as a match of positional codes.

    SAM's code of a place is [sin(2 pi g.x), cos(2 pi g.x)] over random frequencies g. A head that
    selects both halves of a few frequencies, in queries and keys alike, computes sum cos(2 pi g.(x
    - y)): largest where both places agree.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        heads, per_head = attention.num_heads, attention.internal_dim // attention.num_heads
        half = attention.embedding_dim // 2
        weight = torch.zeros(attention.internal_dim, attention.embedding_dim)
        for head in range(heads):
            for pair in range(per_head // 2):
                frequency = (head * (per_head // 2) + pair) % half
                row = head * per_head + 2 * pair
                weight[row, frequency] = weight[row + 1, half + frequency] = gain
        noise = 0.02
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.copy_(weight + noise * torch.randn(weight.shape))
                projection.bias.zero_()


def start_memory(model: torch.nn.Module, locality: float = 1.5) -> None:
    """Let what memory says arrive from the first step: a random SAM2 changes by less than one
    percent with its mask.

    The embedding of masks, the memory and the values read from it start larger. Queries and keys of
    the memory cross attention start with one shared bias on the middle frequencies of their rotary
    code, so that each place first looks at the same place, a few cells around, in the frames it
    remembers.
    """
    with torch.no_grad():
        model.memory_encoder.mask_downsampler.encoder[-1].weight.mul_(6)
        model.memory_encoder.out_proj.weight.mul_(3**0.5)
        for layer in model.memory_attention.layers:
            attention = layer.cross_attn_image
            attention.v_proj.weight.mul_(2.5)
            attention.out_proj.weight.mul_(2.5)
            # sam2's axial rotary code: complex pairs, first half along x, second half along y.
            pairs = attention.internal_dim // 4
            frequency = 10000.0 ** (-torch.arange(pairs) / pairs)
            bias = torch.where((frequency > 0.12) & (frequency < 0.9), locality * 0.5**0.5, 0.0)
            bias = bias.repeat(2).repeat_interleave(2)
            attention.q_proj.bias.copy_(bias)
            attention.k_proj.bias.copy_(bias)


def sam2_losses(weights: dict[str, float]) -> MultiStepMultiMasksAndIous:
    """SAM2's own losses; weights of loss_mask (focal), loss_dice, loss_iou (L1) and loss_class
    (object score).
    """
    return MultiStepMultiMasksAndIous(
        dict(weights),
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=True,
        focal_gamma_obj_score=0.0,
        focal_alpha_obj_score=-1.0,
    )


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """IoU of boolean masks over the last two dimensions; 1 where both are empty."""
    union = (predicted | truth).flatten(-2).sum(-1)
    return torch.where(union > 0, (predicted & truth).flatten(-2).sum(-1) / union.clamp(min=1), 1.0)


def largest_view_windows(
    areas: np.ndarray, length: int, min_area: int
) -> list[tuple[int, list[int]]]:
    """For each object its id and `length` consecutive frames, the first of which shows it largest.

    Only windows in which the object keeps at least `min_area` pixels count; they run forwards or
    backwards in time. areas: int [T, ids]. Objects without such a window are left out.
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
    """Trains a `ClickTracker` on scenes; see geometry_fusion.training.loop.Task for the interface.

    kinds: name -> keyword arguments of `SceneClips.batch`. stages: in order, each lasts until a
    share of `max_steps` and draws a kind of batch per step by weight.
    """

    def __init__(
        self,
        model: ClickTracker,
        train_scenes: list[Scene],
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
        self.model = model.to(
            memory_format=torch.channels_last
        )  # twice as fast convolutions on CPUs
        self._clips = SceneClips(train_scenes, model.image_size, min_area)
        self._set_batches(kinds, stages, max_steps)
        self._correction_share = correction_share
        self._loss = sam2_losses(loss_weights)
        self._val = _spread(_validation_windows(val_scenes, val_frames, min_area), val_objects)
        if not self._val:
            raise InputError(
                f"no object of the validation scenes keeps data.min_area={min_area} pixels over "
                f"val_frames={val_frames} frames; lower one of them"
            )
        self._pictures: dict[str, np.ndarray] = {}

    def _set_batches(self, kinds: dict[str, dict], stages: list[dict], max_steps: int) -> None:
        self._kinds = {name: dict(arguments) for name, arguments in kinds.items()}
        self._stages = [(stage["until"] * max_steps, dict(stage["weights"])) for stage in stages]

    def batch(self, rng: np.random.Generator, step: int) -> ClipBatch:
        weights = next((w for until, w in self._stages if step < until), self._stages[-1][1])
        shares = np.array(list(weights.values())) / sum(weights.values())
        return self._clips.batch(rng, **self._kinds[str(rng.choice(list(weights), p=shares))])

    def losses(
        self, model: torch.nn.Module, batch: ClipBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
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
        """One click or one mask on the largest view, then `val_frames` frames: mean IoU. `score` is
        the click's.
        """
        model, result = self.model.eval(), {}
        device = next(model.parameters()).device
        for prompt, probability in (("click", 1.0), ("mask", 0.0)):
            model.prob_to_use_pt_input_for_eval = probability
            model.num_correction_pt_per_frame = 0
            ious = []
            for chunk in _chunks(self._val, 8):
                clips = [
                    clip_arrays(scene, frames, [object_id], model.image_size)
                    for scene, object_id, frames in chunk
                ]
                batch = to_batch(clips, [scene.folder.name for scene, _, _ in chunk]).to(device)
                predicted = torch.stack(
                    [out["pred_masks_high_res"][:, 0] > 0 for out in model(batch)]
                )
                ious.append(mask_iou(predicted, batch.masks))
                if len(ious) == 1:
                    self._pictures[f"val_{prompt}"] = _strip(clips, predicted.cpu().numpy())
            table = torch.cat(ious, 1)
            if prompt == "click":
                result["click_first_frame_iou"] = float(table[0].mean())
                result["click_iou"] = float(table.mean())
            else:
                result["mask_later_iou"] = float(table[1:].mean())
        return {"score": result["click_iou"], **result}

    def pictures(self) -> dict[str, np.ndarray]:
        """Strips of the first validation clips, RGB uint8: truth in green, prediction in red."""
        return self._pictures

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def metadata(self) -> dict:
        return {"model": "sam2", "trained": "all parameters, from random weights"}


def _as_float(output: dict) -> dict:
    # The losses are computed in fp32 whatever the forward pass was computed in.
    return {
        k: [t.float() for t in v]
        if k.startswith("multistep") and isinstance(v, list) and torch.is_tensor(v[0])
        else v
        for k, v in output.items()
    }


def _validation_windows(
    scenes: Iterable[Scene], length: int, min_area: int
) -> list[tuple[Scene, int, list[int]]]:
    return [
        (s, object_id, frames)
        for s in scenes
        for object_id, frames in largest_view_windows(s.areas, length, min_area)
    ]


def _spread(items: list, count: int) -> list:
    """`count` items evenly spread over the list, all of them if there are fewer."""
    return [
        items[i]
        for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))
    ]


def _chunks(items: list, size: int) -> Iterable[list]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _strip(clips: list, predicted: np.ndarray, rows: int = 4) -> np.ndarray:
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
