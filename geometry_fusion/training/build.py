"""Building the tasks that `train.py` trains, from their configs: `TASKS[config.task](config)`.

Models are built, and names in their settings checked, before any scene is rendered.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from geometry_fusion.assets import CONFIGS
from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.io.weights import load_strictly, read_weights
from geometry_fusion.models.sam2 import build_sam2
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from geometry_fusion.training.build_fusion import build_fusion_task
from geometry_fusion.training.generated_pool import is_generated, pool_of
from geometry_fusion.training.scenes import scenes_of
from geometry_fusion.training.schedule import parameter_groups
from geometry_fusion.training.settings import check_posed_batches
from geometry_fusion.training.start_from import start_from
from geometry_fusion.training.task import Task

START_PICTURES = 96  # on which the neck of the second tiny SAM2 is fitted to that of the first


def build_sam2_task(config: DictConfig) -> Task:
    """The task of `tiny_sam2` and `worlds_sam2`: SAM2 from scratch, from `trainer.init_from`, or
    behind a new trunk from the model `start_from`.

    Raises InputError for unknown module names and unreadable weights.
    """
    # Imported here: SAM2's training package needs the extra "train".
    from geometry_fusion.training import sam2_model
    from geometry_fusion.training.sam2_task import Sam2Task

    model = build_sam2(
        config.sam2,
        target=sam2_model.ClickTracker,
        checkpoint=config.trainer.init_from,
        random_weights=config.trainer.init_from is None,
        num_correction_pt_per_frame=0,
        prob_to_use_pt_input_for_train=config.prompts.point,
        prob_to_use_box_input_for_train=config.prompts.box,
    )
    if config.trainer.init_from is None:
        sam2_model.start_object_scores(model)
        sam2_model.start_click_attention(model)
        sam2_model.start_memory(model)
        if config.get("trunk_weights"):
            load_trunk(model, config.trunk_weights)
    # Called for its check of the names in `trainable`; the loop makes the groups that it uses.
    parameter_groups(model, config.trainer.trainable, 0.0)
    clips = sam2_clips(config, model.image_size)
    if config.trainer.init_from is None and config.get("start_from"):
        start_from(model, build_sam2(config.start_from), clips.pictures(START_PICTURES))
    return Sam2Task(
        model,
        clips,
        scenes_of(config.data, "val"),
        max_steps=config.trainer.max_steps,
        min_area=config.data.min_area,
        loss_weights=config.loss_weights,
        val_objects=config.val_objects,
        val_frames=config.val_frames,
        **config.batches,
    )


def load_trunk(model: torch.nn.Module, source: str) -> None:
    """Start the image trunk from weights trained on photographs.

    source: a file that trunk_weights.py wrote, or "package": the pip package with the weights.
    """
    from geometry_fusion.training.trunk_weights import trunk_weights

    weights = trunk_weights() if source == "package" else read_weights(Path(source))
    body = model.image_encoder.trunk.body
    load_strictly(body, weights, Path(source), "the trunk EfficientNet-Lite0")


def sam2_clips(config: DictConfig, size: int):
    """What draws SAM2's batches: generated worlds or scenes."""
    from geometry_fusion.training.batches import SceneClips
    from geometry_fusion.training.generated_clips import GeneratedClipBatches

    data = config.data
    if not is_generated(data):
        return SceneClips(scenes_of(data, "train"), size, data.min_area)
    pool = pool_of(data, size, pick_device(config.trainer.device))
    shares = data.worlds.layered_share, data.worlds.scene_share
    return GeneratedClipBatches(pool, data.min_area, *shares)


def posed_clips(config: DictConfig, size: int):
    """What draws MUSt3R's batches: generated worlds or scenes. size: of MUSt3R's input."""
    from geometry_fusion.training.generated_clips import LONG_SIDE, GeneratedPosedBatches
    from geometry_fusion.training.posed_clips import PosedClips

    data = config.data
    if not is_generated(data):
        return PosedClips(scenes_of(data, "train"), size)
    for kind, shape in config.batches.kinds.items():
        if "heights" in shape:
            raise InputError(
                f"batches.kinds.{kind}.heights={shape.heights}: generated pictures have shapes of "
                "their own; leave it out, as experiment=worlds_must3r does"
            )
    smallest = size * size // 2  # pixels of the thinnest picture, 16:9 cut to multiples of a patch
    if config.losses.pixels > smallest:
        raise InputError(f"losses.pixels={config.losses.pixels}: must be at most {smallest}")
    pool = pool_of(data, LONG_SIDE, pick_device(config.trainer.device))
    return GeneratedPosedBatches(pool, size, data.worlds.scene_share)


def build_must3r_task(config: DictConfig) -> Task:
    """The task of `tiny_must3r` and `worlds_must3r`: MUSt3R from random weights, or from
    `trainer.init_from`.

    Raises InputError for an unknown model, batches that do not fit it, and unreadable weights.
    """
    from geometry_fusion.training import must3r_task

    file = CONFIGS / "must3r" / f"{config.must3r}.yaml"
    if not file.is_file():
        models = ", ".join(sorted(f.stem for f in file.parent.glob("*.yaml")))
        raise InputError(f"must3r={config.must3r}: {file} does not exist; known are: {models}")
    constructors = OmegaConf.to_container(OmegaConf.load(file))
    model = must3r_task.StreamedClips(
        Dust3rEncoder(**constructors["encoder"]), MUSt3R(**constructors["decoder"])
    )
    if config.trainer.init_from is None:
        must3r_task.start_weights(model)
    else:
        weights_file = Path(config.trainer.init_from)
        # Released weights lack the matching head, which only training needs: it starts anew.
        anew = {k: v for k, v in model.state_dict().items() if k.startswith("matcher.")}
        load_strictly(model, {**anew, **read_weights(weights_file)}, weights_file, file.name)
    parameter_groups(model, config.trainer.trainable, 0.0)
    size = constructors["encoder"]["img_size"][0]
    check_posed_batches(config, size, constructors["encoder"]["patch_size"])
    return must3r_task.Must3rTask(
        model,
        posed_clips(config, size),
        scenes_of(config.data, "val"),
        max_steps=config.trainer.max_steps,
        size=size,
        constructors=constructors,
        **config.losses,
        **config.validation,
        **config.batches,
    )


TASKS = {"sam2": build_sam2_task, "must3r": build_must3r_task, "fusion": build_fusion_task}
