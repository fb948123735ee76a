"""Building the task that trains a fusion: its model, its geometry, its clips and its validation.

Modules that need SAM2's training package (the extra "train") are imported where they are used.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from geometry_fusion.choices import KEYFRAME_INTERVAL
from geometry_fusion.data.own_video import AnnotatedVideo
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.models.checkpoint import (
    continue_from,
    fuse_weights,
    is_tunable,
    shipped_for,
    take_merger,
)
from geometry_fusion.models.geometry import SourceOptions, source_maker
from geometry_fusion.models.identity import WeightFile
from geometry_fusion.models.must3r import load_must3r, model_file
from geometry_fusion.models.sam2 import build_predictor, build_sam2, model_files
from geometry_fusion.models.spec import FusionSpec, merger_of, spec_of
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.training.generated_pool import is_generated, pool_of
from geometry_fusion.training.scenes import scenes_of, split_of
from geometry_fusion.training.schedule import parameter_groups
from geometry_fusion.training.task import Task


@dataclass(frozen=True)
class FusionModel:
    """The model that a run trains, and what a checkpoint of it refers to."""

    model: torch.nn.Module  # SAM2's training class, with `.merger`
    backbone: dict[str, torch.Tensor]  # SAM2's own tensors but the image encoder's, by name
    spec: FusionSpec
    files: dict[str, WeightFile]  # the backbones by role: sam2, must3r

    def predictor(
        self, weights: dict[str, torch.Tensor], make_source: Callable[[], GeometrySource]
    ) -> GeometryVideoPredictor:
        """The predictor that a user gets from a checkpoint with these weights."""
        sam2, device = self.files["sam2"], next(self.model.parameters()).device
        predictor = build_predictor(sam2.name, sam2.file, device)
        fuse_weights(predictor, self.spec, weights, make_source, "the weights of this run")
        return predictor


def build_fusion_model(config: DictConfig) -> FusionModel:
    """SAM2 with a merger, on the weights of `fusion_from` if there are any.

    Raises InputError for settings and files that do not belong together.
    """
    from geometry_fusion.training.fusion_model import FusionTracker

    sam2_file = Path(config.trainer.init_from or model_files(config.sam2)[1])
    model = build_sam2(
        config.sam2,
        target=FusionTracker,
        checkpoint=sam2_file,
        num_correction_pt_per_frame=0,
        prob_to_use_pt_input_for_train=config.prompts.point,
        prob_to_use_box_input_for_train=config.prompts.box,
    )
    state = model.state_dict()
    backbone = {name: value.clone() for name, value in state.items() if is_tunable(name)}
    must3r = str(config.must3r)
    spec = spec_of(merger_of(config.merger, must3r), arm=config.arm, variant=config.variant)
    model.merger = spec.build_merger()
    # Called to set requires_grad, and for its check of the names in `trainable`.
    parameter_groups(model, config.trainer.trainable, 0.0)
    if any(p.requires_grad for name, p in model.named_parameters() if not is_tunable(name)):
        raise InputError(
            f"trainer.trainable={config.trainer.trainable}: SAM2's image encoder stays frozen in a "
            "fusion; name other modules, such as merger and memory_attention"
        )
    files = {"sam2": WeightFile(config.sam2, sam2_file)}
    if spec.source == "must3r":
        files["must3r"] = WeightFile(must3r, model_file(must3r))
    start_from(model, spec, config, files)
    return FusionModel(model, backbone, spec, files)


def start_from(
    model: torch.nn.Module, spec: FusionSpec, config: DictConfig, files: dict[str, WeightFile]
) -> None:
    """Load the checkpoint `fusion_from`; "auto" is the shipped one of these backbones. Or load the
    merger alone of `merger_from`, a checkpoint of other backbones.

    Raises InputError for a checkpoint of another arm, merger or backbone.
    """
    if config.get("merger_from"):
        take_merger(model, spec, Path(config.merger_from))
    checkpoint = config.fusion_from
    if checkpoint == "auto":
        checkpoint = shipped_for(files) if config.arm == "3am" else None
        untrained = "an untrained merger: no shipped fusion belongs to these backbones"
        print(f"starts from {checkpoint or untrained}")
    if checkpoint:
        continue_from(model, spec, Path(checkpoint), files)


def build_fusion_task(config: DictConfig) -> Task:
    """The task of `experiment=tiny_fusion`, `paper` and `my_video`.

    Raises InputError for settings, files and scenes that do not belong together.
    """
    from geometry_fusion.training.fusion_clips import FusionClips
    from geometry_fusion.training.fusion_task import FusionTask
    from geometry_fusion.training.geometry_cache import LiveGeometry

    fusion = build_fusion_model(config)
    # In fp32, whatever precision trains: the cached geometry must not depend on it.
    must3r_file = fusion.files["must3r"].file if "must3r" in fusion.files else None
    device = pick_device(config.trainer.device)
    make_source = source_maker(fusion.spec, must3r_file, SourceOptions(device, "fp32"))
    cache = geometry_cache(config, fusion, make_source)
    sampling = OmegaConf.to_container(config.sampling)
    live = LiveGeometry(make_source) if config.live_continuous else None

    def clips_of(scenes: list[Scene], **changes) -> FusionClips:
        """Clips of these scenes; `changes` replace settings of `sampling`."""
        options = {**sampling, **changes, "min_area": config.data.min_area, "live": live}
        return FusionClips(scenes, cache, fusion.model.image_size, **options)

    backbones = {role: weights.facts() for role, weights in fusion.files.items()}
    facts = {"backbones": backbones, **fusion.spec.metadata()}
    if config.data.get("frames"):
        clips, validation, digest = own_video(config, clips_of, make_source)
        facts["video"] = digest
    else:
        clips, validation = scene_clips(config, clips_of, cache, fusion)
    return FusionTask(
        fusion.model,
        clips,
        validation,
        predictor_of=fusion.predictor,
        backbone=fusion.backbone,
        max_steps=config.trainer.max_steps,
        **config.batches,
        facts=facts,
        loss_weights=config.loss_weights,
        attention_weight=config.attention_weight,
        correction_share=config.correction_share,
    )


def geometry_cache(config: DictConfig, fusion: FusionModel, make_source: Callable):
    """The cache on disk of the geometry of training clips."""
    from geometry_fusion.training.geometry_cache import GeometryCache

    must3r = fusion.files.get("must3r")
    identity = {
        "geometry": fusion.spec.geometry,
        "source": fusion.spec.source,
        "backbone": must3r.facts() if must3r else None,
    }
    model, cells = fusion.model, None
    if model.merger.reads_on_appearance:
        feature_side = model.image_size // model.backbone_stride
        cells = feature_side * fusion.spec.merger.get("subsamples", 1)
    return GeometryCache(Path(config.geometry_cache), make_source, identity, cells)


def own_video(config: DictConfig, clips_of: Callable, make_source: Callable) -> tuple:
    """(training clips, validation, digest of its files) of an annotated video.

    Raises InputError for a video with too few masks.
    """
    from geometry_fusion.training.validation import VideoValidation

    split = split_of(config)
    shorten_clips(config.batches.kinds, split.train)
    precision = config.trainer.precision

    def make_as_tracked() -> GeometrySource:
        """The geometry that a user's tracking would get."""
        return make_source(join_every=KEYFRAME_INTERVAL, precision=precision)

    validation = VideoValidation(split, make_as_tracked, precision)
    return clips_of([split.train]), validation, split.digest


def scene_clips(config: DictConfig, clips_of: Callable, cache, fusion: FusionModel) -> tuple:
    """(training clips, validation) of scenes: a mixture of datasets, or a single one.

    Raises InputError where no object of the validation scenes can be scored.
    """
    from geometry_fusion.training.validation import SequenceValidation
    from geometry_fusion.training.validation_sequences import sequences_to_validate

    if is_generated(config.data):
        clips = generated_clips(config, fusion)
    else:
        clips = mixed_clips(config.data, clips_of) or clips_of(scenes_of(config.data, "train"))
    sequences = sequences_to_validate(
        clips_of(scenes_of(config.data, "val")),
        min_area=config.data.min_area,
        count=config.val_objects,
        step=config.val_step,
        hard_only=config.val_hard_only,
    )
    return clips, SequenceValidation(sequences, cache, config.trainer.precision)


def generated_clips(config: DictConfig, fusion: FusionModel):
    """The clips of generated worlds."""
    from geometry_fusion.training.generated_fusion import ClipGeometry, GeneratedFusionBatches

    device = pick_device(config.trainer.device)
    spec, geometry = fusion.spec, None
    if spec.source == "must3r":
        encoder, decoder = load_must3r(fusion.files["must3r"].file, device=device)
        geometry = ClipGeometry(encoder, decoder, spec.geometry["levels"])
    pool = pool_of(config.data, fusion.model.image_size, device)
    sampling = config.sampling
    return GeneratedFusionBatches(
        pool,
        spec.source,
        geometry,
        min_area=config.data.min_area,
        twin_share=sampling.twin_share,
        fov_share=sampling.fov_share if sampling.sampling == "fov" else 0.0,
        tau=sampling.tau,
        steps=tuple(sampling.steps),
        scene_share=config.data.worlds.scene_share,
    )


def mixed_clips(data: DictConfig, clips_of: Callable):
    """The clips of a mixture of datasets; None where the data is no mixture."""
    from geometry_fusion.training.fusion_clips import MixedClips

    datasets = {}
    for name, given in data.get("datasets", {}).items():
        scenes = [Scene(path) for path in find_scenes(given.scenes)]
        weight = len(scenes) if given.weight is None else given.weight
        clips = clips_of(scenes, sampling=given.sampling)
        datasets[name] = (clips, weight, (given.point, given.box))
    return MixedClips(datasets) if datasets else None


def shorten_clips(kinds: DictConfig, video: AnnotatedVideo) -> None:
    """Make no clip longer than the annotated frames of `video`; prints what was changed."""
    most = int(video.annotated.sum())
    for name, shape in kinds.items():
        if shape.frames > most:
            print(
                f"clips '{name}' have {most} frames instead of {shape.frames}: the training part "
                "has no more masks"
            )
            shape.frames = most


def stream_beforehand(task) -> None:
    """Compute the missing geometry of an own video, each process its share.

    Done before training, so that the time per step can be estimated.
    """
    # Set by the launcher; Accelerate has not started yet.
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    missing = [
        (cache, scene, reference)
        for cache, scene, reference in task.geometry_needed()[rank::processes]
        if not cache.file(scene, reference).exists()
    ]
    for cache, scene, reference in tqdm(missing, desc="geometry", unit="sequence", disable=None):
        cache.fill(scene, reference)
