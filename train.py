"""Train from a Hydra config:  python train.py experiment=tiny_sam2 [trainer.max_steps=100 ...]

A YAML file anywhere on disk works as well:  python train.py --config my.yaml   (it may refer to
keys, ${trainer.seed}, but call no resolvers) Values of keys that are paths (data.frames,
trainer.run_dir, ...) are taken as they are: no quotes inside quotes. Several processes:  torchrun
--nproc-per-node 2 train.py experiment=tiny_sam2 Watch:  tensorboard --logdir
sam2_logs/RUN/tensorboard
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import fusion
import must3r_loader
import sam2_model
from geometry_fusion.config import compose_config
from geometry_fusion.data.own_video import AnnotatedVideo, Split, split_video
from geometry_fusion.data.rooms import room_folder, seed_range, write_rooms
from geometry_fusion.data.sampling import SAMPLINGS
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.devices import pick_device, use_local_device, uses_bf16
from geometry_fusion.downloads import file_digest
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.limits import check_numbers, check_paths
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from geometry_fusion.training.loop import seed_all, train
from geometry_fusion.training.run_dir import check_run_dir
from geometry_fusion.training.schedule import parameter_groups
from geometry_fusion.training.settings import (
    check_batches,
    check_has_keys,
    check_posed_batches,
    check_rates,
)
from geometry_fusion.weights import load_strictly, read_weights

CONFIGS = Path(__file__).resolve().parent / "configs"
DATASET = {
    "scenes": None,
    "sampling": "continuous",
    "point": 0.5,
    "box": 0.5,
    "weight": None,
}  # of a mixture


def scenes_of(data: DictConfig, split: str) -> list[Scene]:
    """Scenes of `split` ("train" or "val"): a folder of scenes, or rooms, rendered where
    missing.
    """
    prefix = "" if split == "train" else "val_"
    folder = data[f"{prefix}scenes"]
    if folder:
        return [Scene(path) for path in find_scenes(folder)]
    seeds, root = planned_rooms(data, split), Path(data.root) / split
    missing = lambda: [s for s in seeds if not (room_folder(root, s) / "scene.json").exists()]  # noqa: E731
    if os.environ.get("RANK", "0") == "0" and missing():
        write_rooms(seeds, root, data.workers)
    while missing():  # the first process renders for all
        time.sleep(1)
    return [Scene(room_folder(root, seed)) for seed in seeds]


def check(config: DictConfig) -> None:
    """Refuse what could only fail after minutes of rendering. Raises InputError naming key, value
    and range.
    """
    if config.task not in TASKS:
        raise InputError(f"task={config.task}: unknown; known are: {', '.join(TASKS)}")
    check_has_keys(config)
    uses_bf16(pick_device(str(config.trainer.device)), str(config.trainer.precision))
    own_video = "frames" in config.data
    check_paths(
        config,
        ("trainer.run_dir", *(("data.frames", "data.masks") if own_video else ("data.root",))),
        ("trainer.init_from", "data.scenes", "data.val_scenes", "fusion_from"),
    )
    if "datasets" in config.data:
        check_mixture(config.data)
    check_numbers(config)
    check_rates(config)
    check_batches(config)
    if (own_video or "datasets" in config.data) and config.task != "fusion":
        raise InputError(
            f"task={config.task}: own videos and mixtures train a fusion: experiment=my_video or "
            "paper"
        )
    if own_video:
        if config.arm == "oracle" or config.sampling.sampling == "fov":
            raise InputError(
                f"arm={config.arm}, sampling.sampling={config.sampling.sampling}: oracle and fov "
                "need depth and "
                "poses, which a video does not have; convert a posed capture and give data.scenes"
            )
        split_of(config)
    for split in ("train", "val"):
        planned_rooms(config.data, split)
    for key in ("scenes", "val_scenes"):
        if config.data[key]:
            find_scenes(Path(config.data[key]))
    if config.task == "fusion":
        check_fusion(config)


def split_of(config: DictConfig) -> Split:
    """The parts of an own video. Raises InputError where its masks do not suffice."""
    data, side = config.data, sam2_model.image_size(config.sam2)
    return split_video(Path(data.frames), Path(data.masks), data.val_share, data.min_area / side**2)


def check_mixture(data: DictConfig) -> None:
    """Refuse datasets that are not there or whose settings make no sense, each by its key."""
    for name, given in data.datasets.items():
        where = f"data.datasets.{name}"
        if (
            not OmegaConf.is_dict(given)
            or "scenes" not in given
            or (unknown := given.keys() - DATASET.keys())
        ):
            wrong = sorted(unknown)[0] if OmegaConf.is_dict(given) and "scenes" in given else given
            raise InputError(
                f"{where}: {wrong}: expected scenes: DIR and any of {', '.join(DATASET)}"
            )
        part = data.datasets[name] = OmegaConf.merge(DATASET, given)
        if not isinstance(part.scenes, str):
            raise InputError(f"{where}.scenes={part.scenes}: must be a path")
        find_scenes(Path(part.scenes))
        if part.sampling not in SAMPLINGS:
            raise InputError(
                f"{where}.sampling={part.sampling}: unknown; known are: {', '.join(SAMPLINGS)}"
            )
    if all(part.weight == 0 for part in data.datasets.values()):
        raise InputError(
            "data.datasets: no dataset has a weight above 0, so nothing would be drawn"
        )
    if not data.val_scenes:
        raise InputError("data.val_scenes=null: a mixture needs a folder of scenes to validate on")


def check_fusion(config: DictConfig) -> None:
    """The same for what only a fusion has."""
    check_paths(config, ("geometry_cache",))
    if config.sampling.sampling not in SAMPLINGS:
        raise InputError(
            f"sampling.sampling={config.sampling.sampling}: unknown; known are: "
            f"{', '.join(SAMPLINGS)}"
        )


def choose_trainable(config: DictConfig) -> None:
    """Put the learning rates of a preset in place of its name. Raises InputError for an unknown
    name.
    """
    name, presets = config.trainer.trainable, config.get("trainable_presets", {})
    if isinstance(name, str):
        if name not in presets:
            known = ", ".join(presets) or "none in this experiment; write {module: learning rate}"
            raise InputError(f"trainer.trainable={name}: unknown; known are: {known}")
        config.trainer.trainable = presets[name]


def planned_rooms(data: DictConfig, split: str) -> range:
    """Seeds of the rooms of a split that has no folder of scenes; raises InputError when they are
    no range.
    """
    prefix = "" if split == "train" else "val_"
    if f"{prefix}scenes" not in data:
        raise InputError(
            f"data.{prefix}scenes: this data is for evaluation; choose data=rooms, mixture or "
            "own_video"
        )
    if "datasets" in data or data.get("frames"):
        return range(0)
    return range(0) if data[f"{prefix}scenes"] else seed_range(data[f"{prefix}seeds"])


def build_sam2_task(config: DictConfig):
    # Imported here: SAM2's training package needs requirements-train.txt.
    from geometry_fusion.training import sam2_task

    model = sam2_model.build_sam2(
        config.sam2,
        target=sam2_task.ClickTracker,
        checkpoint=config.trainer.init_from,
        random_weights=config.trainer.init_from is None,
        num_correction_pt_per_frame=0,
        prob_to_use_pt_input_for_train=config.prompts.point,
        prob_to_use_box_input_for_train=config.prompts.box,
    )
    if config.trainer.init_from is None:
        sam2_task.start_object_scores(model)
        sam2_task.start_click_attention(model)
        sam2_task.start_memory(model)
    parameter_groups(
        model, config.trainer.trainable, 0.0
    )  # wrong names are told before rooms are rendered
    return sam2_task.Sam2Task(
        model,
        scenes_of(config.data, "train"),
        scenes_of(config.data, "val"),
        max_steps=config.trainer.max_steps,
        min_area=config.data.min_area,
        loss_weights=config.loss_weights,
        val_objects=config.val_objects,
        val_frames=config.val_frames,
        **config.batches,
    )


def build_must3r_task(config: DictConfig):
    from geometry_fusion.training import must3r_task

    file = CONFIGS / "must3r" / f"{config.must3r}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.yaml")))
        raise InputError(f"must3r={config.must3r}: {file} does not exist; known are: {known}")
    constructors = OmegaConf.to_container(OmegaConf.load(file))
    model = must3r_task.StreamedClips(
        Dust3rEncoder(**constructors["encoder"]), MUSt3R(**constructors["decoder"])
    )
    if config.trainer.init_from is None:
        must3r_task.start_weights(model)
    else:
        load_strictly(
            model, read_weights(config.trainer.init_from), Path(config.trainer.init_from), file.name
        )
    parameter_groups(model, config.trainer.trainable, 0.0)
    size = constructors["encoder"]["img_size"][0]
    check_posed_batches(config, size, constructors["encoder"]["patch_size"])
    return must3r_task.Must3rTask(
        model,
        scenes_of(config.data, "train"),
        scenes_of(config.data, "val"),
        max_steps=config.trainer.max_steps,
        size=size,
        constructors=constructors,
        **config.losses,
        **config.validation,
        **config.batches,
    )


def fusion_model(config: DictConfig) -> tuple[torch.nn.Module, dict, fusion.FusionSpec, dict]:
    """The model to train with the weights it starts from; SAM2's own tensors but the image
    encoder's, by name; the spec; and role -> (name, file) of the backbones."""
    from geometry_fusion.training import fusion_task

    sam2_file = Path(config.trainer.init_from or sam2_model.model_files(config.sam2)[1])
    model = sam2_model.build_sam2(
        config.sam2,
        target=fusion_task.FusionTracker,
        checkpoint=sam2_file,
        num_correction_pt_per_frame=0,
        prob_to_use_pt_input_for_train=config.prompts.point,
        prob_to_use_box_input_for_train=config.prompts.box,
    )
    backbone = {
        name: value.clone() for name, value in model.state_dict().items() if fusion.is_tunable(name)
    }
    must3r = str(config.must3r)
    spec = fusion.spec_of(
        fusion.merger_of(config.merger, must3r), arm=config.arm, variant=config.variant
    )
    model.merger = spec.build_merger()
    parameter_groups(model, config.trainer.trainable, 0.0)
    if any(p.requires_grad for name, p in model.named_parameters() if not fusion.is_tunable(name)):
        raise InputError(
            f"trainer.trainable={config.trainer.trainable}: a fusion keeps SAM2's image encoder "
            "as it is; name other "
            "modules, such as merger and memory_attention"
        )
    files = {"sam2": (config.sam2, sam2_file)}
    if spec.source == "must3r":
        files["must3r"] = (must3r, must3r_loader.model_file(must3r))
    fusion_from = config.fusion_from
    if fusion_from == "auto":
        fusion_from = fusion.shipped_for(files) if config.arm == "3am" else None
        print(
            "starts from "
            f"{fusion_from or 'an untrained merger: no shipped fusion belongs to these backbones'}"
        )
    if fusion_from:
        fusion.continue_from(model, spec, Path(fusion_from), files)
    return model, backbone, spec, files


def build_fusion_task(config: DictConfig):
    from geometry_fusion.training import fusion_task, validation
    from geometry_fusion.training.geometry_cache import GeometryCache, LiveGeometry

    model, backbone, spec, files = fusion_model(config)
    backbones = {
        role: {"name": name, "sha256": file_digest(file)} for role, (name, file) in files.items()
    }
    # In fp32, whatever the trainer computes in: the cache keeps what is computed here.
    must3r_file = files["must3r"][1] if "must3r" in files else None
    make_source = fusion.source_maker(spec, must3r_file, pick_device(config.trainer.device), "fp32")
    identity = {
        "geometry": spec.geometry,
        "source": spec.source,
        "backbone": backbones.get("must3r"),
    }
    feature_side = model.image_size // model.backbone_stride
    cells = (
        feature_side * spec.merger.get("subsamples", 1)
        if model.merger.reads_on_appearance
        else None
    )
    cache = GeometryCache(Path(config.geometry_cache), make_source, identity, cells)
    sampling = OmegaConf.to_container(config.sampling)
    facts = {"backbones": backbones, **spec.metadata()}
    live = LiveGeometry(make_source) if config.live_continuous else None
    precision = config.trainer.precision

    def clips_of(scenes: list[Scene], **changes) -> fusion_task.FusionClips:
        options = {**sampling, **changes, "min_area": config.data.min_area, "live": live}
        return fusion_task.FusionClips(scenes, cache, model.image_size, **options)

    def predictor_of(weights: dict[str, torch.Tensor], make: Callable):
        """What a user makes of a checkpoint with these weights."""
        predictor = sam2_model.build_predictor(
            config.sam2, files["sam2"][1], next(model.parameters()).device
        )
        fusion.fuse_weights(predictor, spec, weights, make, "the weights of this run")
        return predictor

    if config.data.get("frames"):
        split = split_of(config)
        shorten_clips(config.batches.kinds, split.train)
        facts["video"] = split.digest
        train_clips = clips_of([split.train])
        as_tracked = {"join_every": fusion.JOIN_EVERY, "precision": precision}
        measure = validation.VideoValidation(split, lambda: make_source(**as_tracked), precision)
    else:
        train_clips = mixed_clips(config.data, clips_of) or clips_of(
            scenes_of(config.data, "train")
        )
        chosen = {
            "count": config.val_objects,
            "step": config.val_step,
            "hard_only": config.val_hard_only,
        }
        val_clips = clips_of(scenes_of(config.data, "val"))
        walks = fusion_task.walks_to_validate(val_clips, min_area=config.data.min_area, **chosen)
        measure = validation.WalkValidation(walks, cache, precision)
    return fusion_task.FusionTask(
        model,
        train_clips,
        measure,
        predictor_of=predictor_of,
        backbone=backbone,
        max_steps=config.trainer.max_steps,
        **config.batches,
        facts=facts,
        **{k: config[k] for k in ("loss_weights", "attention_weight", "correction_share")},
    )


def mixed_clips(data: DictConfig, clips_of: Callable):
    """The datasets of a mixture, None where there is none."""
    from geometry_fusion.training.fusion_task import MixedClips

    parts = {}
    for name, part in data.get("datasets", {}).items():
        scenes = [Scene(path) for path in find_scenes(part.scenes)]
        weight = len(scenes) if part.weight is None else part.weight
        parts[name] = (clips_of(scenes, sampling=part.sampling), weight, (part.point, part.box))
    return MixedClips(parts) if parts else None


def shorten_clips(kinds: DictConfig, video: AnnotatedVideo) -> None:
    """Make no clip longer than the annotated frames of the training part; says so."""
    most = int(video.annotated.sum())
    for name, shape in kinds.items():
        if shape.frames > most:
            print(
                f"clips '{name}' have {most} frames instead of {shape.frames}: the training part "
                "has no more masks"
            )
            shape.frames = most


TASKS = {"sam2": build_sam2_task, "must3r": build_must3r_task, "fusion": build_fusion_task}


def stream_beforehand(task) -> None:
    """Compute the geometry of an own video now, each process its share, so that the pace of the
    steps can be told.
    """
    rank, world = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    walks = [
        (cache, *at)
        for cache, *at in task.geometry_needed()[rank::world]
        if not cache.file(*at).exists()
    ]
    for cache, scene, reference in tqdm(walks, desc="geometry", unit="walk", disable=None):
        cache.fill(scene, reference)


def main(argv=None) -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, help="YAML file that sets keys of the composed config"
    )
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides: experiment=NAME, trainer.device=cpu, ..."
    )
    args = parser.parse_args(argv)
    config = compose_config(CONFIGS, "train", args.overrides, args.config)
    check(config)
    choose_trainable(config)
    inputs = [
        config.trainer.init_from,
        config.get("fusion_from"),
        config.data.get("frames"),
        config.data.get("masks"),
    ]
    if str(config.get("must3r")) not in must3r_loader.MODELS:
        inputs.append(config.get("must3r"))
    check_run_dir(Path(config.trainer.run_dir), inputs, args.config)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)

    use_local_device()
    run_dir = Path(config.trainer.run_dir)
    seed_all(config.trainer.seed)  # the initial weights
    task = TASKS[config.task](config)
    if config.data.get("frames") and config.trainer.max_steps:
        stream_beforehand(task)
    resolved = OmegaConf.to_container(config, resolve=True)
    options = {
        k: v for k, v in resolved["trainer"].items() if k not in ("threads", "run_dir", "init_from")
    }
    train(task, run_dir, resolved, **options)
    print(f"done: {run_dir}/checkpoints; watch with: tensorboard --logdir {run_dir}/tensorboard")


if __name__ == "__main__":
    sys.exit(run_cli(main))
