"""Fine-tuning the fusion: SAM2 with a FeatureMerger on clips whose geometry was streamed from their
first frame.

Recipe of a clip, a pure function of its random generator:
* a scene is drawn uniformly, and one of its reference frames; these are fixed per scene
(`references` of them, those
  that show most objects), so that their geometry can be cached;
* the main object is drawn among those the reference shows, with probability `twin_share` among
those that have a twin;
* frames: field-of-view aware with probability `fov_share` (geometry_fusion.data.sampling), else
continuous; if too few
  frames pass, another reference is drawn; after `MAX_REFERENCES` of them the clip is continuous,
  which is counted;
* further objects of the reference frame fill up to `objects`. Nothing is augmented: the geometry
belongs to the frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from sam2.modeling.position_encoding import apply_rotary_enc
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from geometry_fusion.data.sampling import (
    SAMPLINGS,
    accepted_by_view,
    continuous_frames,
    fov_frames,
    random_frames,
    tracking_order,
)
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.predictor import put_merged
from geometry_fusion.training.batches import ClipBatch, clip_arrays, to_batch
from geometry_fusion.training.geometry_cache import GeometryCache, LiveGeometry
from geometry_fusion.training.sam2_task import ClickTracker, Sam2Task, sam2_losses
from geometry_fusion.training.validation import PredictorMaker, VideoValidation, WalkValidation
from geometry_fusion.types import GeometryFrame

MAX_REFERENCES = 10
MAX_REDRAWS = 1000
GUIDED_CELLS = 64  # of a frame and object, per step


class FusionTracker(ClickTracker):
    """As ClickTracker, plus: the merged feature stands where SAM2's top-level feature stood, as in
    the predictor.

    In training, `attention_losses` holds `recognition_loss` of every attention to memory of the
    last forward.
    """

    merger: torch.nn.Module  # set after SAM2's own weights were loaded strictly
    _geometry: list[GeometryFrame]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.attention_losses: list[Tensor] = []
        self._cover: Tensor | None = (
            None  # [T, O, N] share of each cell that the object covers, in training
        )
        self._here: Tensor | None = (
            None  # [O, N] of the frame that attends, and [O, M] of the memory it attends to
        )
        self._remembered: Tensor | None = None
        for layer in self.memory_attention.layers:
            layer.cross_attn_image.register_forward_pre_hook(
                self._record_attention, with_kwargs=True
            )

    def forward(self, input):
        self._geometry, self.attention_losses = input.geometry, []
        side = self.image_size // self.backbone_stride
        self._cover = (
            adaptive_avg_pool2d(input.masks.float(), side).flatten(2) if self.training else None
        )
        return super().forward(input)

    def forward_image(self, img_batch):
        backbone_out = super().forward_image(img_batch)
        put_merged(backbone_out, self.merger(backbone_out["backbone_fpn"][-1], self._geometry))
        return backbone_out

    def _prepare_memory_conditioned_features(
        self, frame_idx, is_init_cond_frame, *args, output_dict, **kwargs
    ):
        if self.training and not is_init_cond_frame:
            # The order in which SAM2 joins memories: conditioning frames, then the last ones,
            # oldest first.
            recent = range(frame_idx - self.num_maskmem + 1, frame_idx)
            frames = [*output_dict["cond_frame_outputs"]]
            frames += [t for t in recent if t in output_dict["non_cond_frame_outputs"]]
            self._here = self._cover[frame_idx]
            self._remembered = torch.cat([self._cover[t] for t in frames], 1)
        return super()._prepare_memory_conditioned_features(
            frame_idx, is_init_cond_frame, *args, output_dict=output_dict, **kwargs
        )

    def _record_attention(self, module, args, kwargs):
        if not self.training:
            return
        pointers = kwargs.get("num_k_exclude_rope", 0)
        tokens = kwargs["k"].shape[1] - pointers
        assert tokens == self._remembered.shape[1], (tokens, self._remembered.shape)
        project = lambda linear, x: linear(x).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)  # noqa: E731
        queries, keys = (
            project(module.q_proj, kwargs["q"]),
            project(module.k_proj, kwargs["k"][:, :tokens]),
        )
        queries, keys = apply_rotary_enc(
            queries, keys, module.freqs_cis.to(queries.device), repeat_freqs_k=True
        )
        # Some cells tell enough: those on the object, and others at random.
        wanted = torch.where(self._here > 0.3, 2.0, (self._here == 0) * torch.rand_like(self._here))
        cells = wanted.topk(min(GUIDED_CELLS, wanted.shape[1])).indices
        queries = queries.take_along_dim(cells[:, None, :, None], 2)
        logits = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        here = self._here.take_along_dim(cells, 1)
        self.attention_losses.append(recognition_loss(logits.float(), here, self._remembered))


def recognition_loss(logits: Tensor, here: Tensor, remembered: Tensor) -> Tensor:
    """How badly attention to memory tells an object from everything else.

    Cells on the object should look where the memory shows it, -log(share); cells beside it should
    not, -log(1 - share); the mean of both means. Cells at the outline count for neither.

    logits: [O, heads, N, M] before the softmax, spatial memory only. here: [O, N], remembered: [O,
    M], the share of each cell that the object covers. Zero if there is nothing to recognise.
    """
    everything = logits.logsumexp(-1)
    sure, touched = (remembered > 0.5)[:, None, None], (remembered > 0.1)[:, None, None]
    floor = torch.finfo(logits.dtype).min / 2
    on = everything - logits.masked_fill(~touched, floor).logsumexp(-1)
    beside = everything - logits.masked_fill(sure, floor).logsumexp(-1)
    means = []
    for values, cells in ((on, here > 0.3), (beside, here == 0)):
        counts = (touched.any(-1) & cells[:, None]).expand_as(values)
        means.append((values * counts).sum() / counts.sum().clamp(min=1))
    return sum(means) / 2


@dataclass
class FusionBatch(ClipBatch):
    """A ClipBatch with the geometry of every image of `flat_img_batch`.

    prompts: probabilities that the prompt is clicks or a box rather than a mask, and of these a
    box; None: the model's.
    """

    geometry: list[GeometryFrame] | None = None
    prompts: tuple[float, float] | None = None

    def to(self, device: torch.device) -> "FusionBatch":
        moved = super().to(device)
        geometry = [frame.to(device) for frame in self.geometry]
        return FusionBatch(
            *(getattr(moved, f.name) for f in fields(ClipBatch)), geometry, self.prompts
        )


class FusionClips:
    """Draws batches; `batch(rng, ...)` depends on nothing but the generator, the scenes and their
    geometry.

    live: where continuous clips get their geometry, if not from `cache`: streaming their few frames
    costs less than keeping whole videos on disk.
    """

    def __init__(
        self,
        scenes: list[Scene],
        cache: GeometryCache,
        size: int,
        *,
        min_area: int,
        references: int,
        twin_share: float,
        sampling: str,
        fov_share: float,
        tau: float,
        steps: tuple[int, int],
        live: LiveGeometry | None = None,
    ):
        if sampling not in SAMPLINGS:
            raise ValueError(
                f"sampling {sampling!r}: unknown; expected one of {', '.join(SAMPLINGS)}"
            )
        self.scenes, self.size, self.cache, self._live = scenes, size, cache, live
        self._min_area, self._references, self._twin_share = min_area, references, twin_share
        self._sampling, self._fov_share, self._tau, self._steps = sampling, fov_share, tau, steps
        self.fallbacks = 0  # clips that found too few frames in view

    @property
    def reads_cache(self) -> bool:
        """Whether any clip takes its geometry from `cache`."""
        return self._live is None or (self._sampling != "continuous" and self._fov_share > 0)

    def areas(self, scene: Scene) -> np.ndarray:
        """Pixels of every id in every frame at the model's input size, [T, max_id + 1]."""
        return scene.areas * (self.size**2 / (scene.size[0] * scene.size[1]))

    def references(self, scene: Scene) -> list[int]:
        """Frames from which geometry is streamed: those that show most objects, at least a tenth of
        the walk apart.
        """
        shown = (self.areas(scene)[:, 1:] >= self._min_area).sum(1)
        chosen: list[int] = []
        for frame in np.argsort(-shown, kind="stable").tolist():
            if all(abs(frame - other) >= len(scene) / 10 for other in chosen):
                chosen.append(frame)
            if len(chosen) == self._references:
                break
        return chosen

    def batch(self, rng: np.random.Generator, clips: int, frames: int, objects: int) -> FusionBatch:
        drawn = [self._clip(rng, frames, objects) for _ in range(clips)]
        kept = [self.cache if sparse or self._live is None else self._live for *_, sparse in drawn]
        return join([clip for *clip, _ in drawn], self.size, kept)

    def _clip(self, rng, length: int, objects: int) -> tuple[Scene, list[int], list[int], bool]:
        """Scene, frames, object ids, and whether the frames are spread over the whole walk."""
        sparse = self._sampling != "continuous" and rng.random() < self._fov_share
        for _ in range(MAX_REFERENCES):
            scene, reference, ids = self._reference(rng, length)
            order = [
                frame for frame in tracking_order(reference, len(scene)) if scene.annotated[frame]
            ]
            if not sparse:
                return (
                    scene,
                    continuous_frames(rng, order, length, self._steps),
                    ids[:objects],
                    False,
                )
            if self._sampling == "random":
                return scene, random_frames(rng, order, length), ids[:objects], True
            frames = fov_frames(
                rng, order, length, accepted_by_view(scene, reference, ids[0], self._tau)
            )
            if frames is not None:
                return scene, frames, ids[:objects], True
        self.fallbacks += 1
        return scene, continuous_frames(rng, order, length, self._steps), ids[:objects], False

    def _reference(self, rng, length: int) -> tuple[Scene, int, list[int]]:
        """A scene, a reference frame and the objects it shows, the main one first."""
        for _ in range(MAX_REDRAWS):
            scene = self.scenes[rng.integers(len(self.scenes))]
            reference = int(rng.choice(self.references(scene)))
            visible = (
                1 + np.flatnonzero(self.areas(scene)[reference, 1:] >= self._min_area)
            ).tolist()
            if scene.annotated.sum() >= length and visible:
                with_twin = (
                    [i for i in visible if i in twins(scene)]
                    if rng.random() < self._twin_share
                    else []
                )
                main = int(rng.choice(with_twin or visible))
                return (
                    scene,
                    reference,
                    [main, *(i for i in rng.permutation(visible).tolist() if i != main)],
                )
        raise InputError(
            f"no reference frame of {len(self.scenes)} scenes shows an object of "
            f"data.min_area={self._min_area} "
            f"pixels, or all are shorter than {length} frames; lower data.min_area or "
            "batches.kinds.*.frames"
        )


def twins(scene: Scene) -> set[int]:
    """Ids of the objects that have an identical twin in the scene."""
    return {i for o in scene.objects if o.twin_of is not None for i in (o.id, o.twin_of)}


class MixedClips:
    """Batches of several datasets: each is drawn by its weight, with its own prompts. parts: name
    -> (clips, weight, prompts as in FusionBatch)."""

    def __init__(self, parts: dict[str, tuple[FusionClips, float, tuple[float, float]]]):
        weights = np.array([weight for _, weight, _ in parts.values()], float)
        if not (weights >= 0).all() or not weights.sum() > 0:
            raise ValueError(f"weights {weights.tolist()}: must be positive")
        self._parts, self._shares = parts, weights / weights.sum()

    @property
    def members(self) -> list[FusionClips]:
        return [clips for clips, _, _ in self._parts.values()]

    @property
    def fallbacks(self) -> int:
        return sum(clips.fallbacks for clips in self.members)

    def batch(self, rng: np.random.Generator, clips: int, frames: int, objects: int) -> FusionBatch:
        name = str(rng.choice(list(self._parts), p=self._shares))
        part, _, prompts = self._parts[name]
        batch = part.batch(rng, clips, frames, objects)
        return replace(
            batch, prompts=prompts, sources=[f"{name}: {source}" for source in batch.sources]
        )


def join(
    clips: list[tuple[Scene, list[int], list[int]]],
    size: int,
    kept: list[GeometryCache | LiveGeometry] | GeometryCache,
) -> FusionBatch:
    """Clips as (scene, frames, object ids); the geometry is the one streamed from each clip's first
    frame.

    kept: where it comes from, for each clip or for all.
    """
    kept = kept if isinstance(kept, list) else [kept] * len(clips)
    arrays = [clip_arrays(scene, frames, ids, size) for scene, frames, ids in clips]
    sources = [f"{scene.folder.name} frames {frames} objects {ids}" for scene, frames, ids in clips]
    batch = to_batch(arrays, sources)
    geometry = [
        frame
        for (scene, frames, _), k in zip(clips, kept)
        for frame in k.clip(scene, frames[0], frames)
    ]
    return FusionBatch(*(getattr(batch, f.name) for f in fields(ClipBatch)), geometry)


class FusionTask(Sam2Task):
    """Trains parts of a `FusionTracker`; see geometry_fusion.training.loop.Task for the interface.

    kinds: name -> keyword arguments of `FusionClips.batch`; stages as in `Sam2Task`. validation:
    measures the weights as a checkpoint holds them, with predictors of `predictor_of`. backbone:
    SAM2's own tensors by name, on the CPU, but those of the image encoder, which must be frozen.
    """

    def __init__(
        self,
        model: FusionTracker,
        train: FusionClips | MixedClips,
        validation: VideoValidation | WalkValidation,
        *,
        predictor_of: PredictorMaker,
        backbone: dict[str, Tensor],
        max_steps: int,
        kinds: dict[str, dict],
        stages: list[dict],
        loss_weights: dict[str, float],
        attention_weight: float,
        correction_share: float,
        facts: dict,
    ):
        self.model = model.to(memory_format=torch.channels_last)
        self._loss = sam2_losses(loss_weights)
        self._attention_weight = attention_weight
        self._correction_share = correction_share
        self._clips = train
        self._set_batches(kinds, stages, max_steps)
        self._validation, self._predictor_of = validation, predictor_of
        self._backbone = backbone
        self._facts = facts
        self._pictures: dict[str, np.ndarray] = {}

    @property
    def notes(self) -> list[str]:
        return list(self._validation.notes)

    def losses(
        self, model: torch.nn.Module, batch: FusionBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        if batch.prompts is not None:
            (
                self.model.prob_to_use_pt_input_for_train,
                self.model.prob_to_use_box_input_for_train,
            ) = batch.prompts
        named = super().losses(model, batch, rng)
        found = self.model.attention_losses  # none in clips of one frame
        attention = torch.stack(found).mean() if found else named["total"].new_zeros(())
        return {
            **named,
            "total": named["total"] + self._attention_weight * attention,
            "attention": attention,
        }

    def geometry_needed(self) -> list[tuple[GeometryCache, Scene, int]]:
        """(cache, scene, reference) of all geometry that training and validation read from disk, in
        a fixed order.
        """
        clips = [*getattr(self._clips, "members", [self._clips])]
        walks = [(c, scene) for c in clips if c.reads_cache for scene in c.scenes]
        needed = [
            (c.cache, scene, reference) for c, scene in walks for reference in c.references(scene)
        ]
        needed += self._validation.geometry_needed
        return list({cache.file(*at): (cache, *at) for cache, *at in needed}.values())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        measured = self._validation.measure(self.weights(), self._predictor_of)
        return {**measured, "fallbacks": float(self._clips.fallbacks)}

    def weights(self) -> dict[str, Tensor]:
        """The merger, and of SAM2 what this run trains or what differs from the backbone: what an
        earlier run tuned, and running statistics. With the backbone they are the whole model."""
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        state = self.model.state_dict()

        def differs(name: str) -> bool:
            before = self._backbone.get(name)
            return before is not None and not torch.equal(state[name].cpu(), before)

        kept = [
            name for name in state if name.startswith("merger.") or name in trained or differs(name)
        ]
        return {name: state[name] for name in kept}

    def metadata(self) -> dict:
        return self._facts


def walks_to_validate(
    clips: FusionClips, count: int, step: int, min_area: int, hard_only: bool
) -> list[tuple[Scene, list[int], list[int]]]:
    """As `whole_walks`; raises InputError where there is none."""
    walks = list(whole_walks(clips, count, step, min_area, hard_only))
    if not walks:
        which = "no object of the validation scenes " + (
            "leaves the view or has a twin" if hard_only else "counts"
        )
        raise InputError(f"{which} with views of {3 * min_area} pixels; lower data.min_area")
    return walks


def whole_walks(
    clips: FusionClips, count: int, step: int, min_area: int, hard_only: bool = True
) -> Iterable[tuple[Scene, list[int], list[int]]]:
    """Up to `count` (scene, frames, [object]): from its largest view on every `step`-th frame in
    tracking order.

    Objects are spread evenly over scenes; with `hard_only`, those that leave the view or have a
    twin: the others are easy.
    """
    found = []
    for scene in clips.scenes:
        table = clips.areas(scene)
        for object_id in range(1, table.shape[1]):
            areas = table[:, object_id]
            start = int(areas.argmax())
            order = [
                frame for frame in tracking_order(start, len(scene)) if scene.annotated[frame]
            ][::step]
            leaves = (areas[order] == 0).any() and (areas[order] >= min_area).sum() >= 3
            hard = leaves or object_id in twins(scene)
            if areas[start] >= 3 * min_area and (hard or not hard_only):
                found.append((scene, order, [object_id]))
    for index in np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)):
        yield found[index]
