"""Train from a Hydra config:  python train.py experiment=tiny_sam2 [trainer.max_steps=100 ...]

A YAML file anywhere on disk works as well:  python train.py --config my.yaml
Several processes:  torchrun --nproc-per-node 2 train.py experiment=tiny_sam2
Watch:  tensorboard --logdir sam2_logs/RUN/tensorboard
"""

import argparse
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import sam2_model
from geometry_fusion.config import compose_config
from geometry_fusion.data.rooms import room_folder, seed_range, write_rooms
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.errors import OneLineParser, run_cli
from geometry_fusion.files import replacing_file
from geometry_fusion.training.loop import seed_all, train

CONFIGS = Path(__file__).resolve().parent / "configs"


def scenes_of(data: DictConfig, split: str) -> list[Scene]:
    """Scenes of `split` ("train" or "val"): a folder of scenes if one is given, else rooms, rendered where missing."""
    prefix = "" if split == "train" else "val_"
    folder = data[f"{prefix}scenes"]
    if folder:
        return [Scene(path) for path in find_scenes(folder)]
    seeds, root = seed_range(data[f"{prefix}seeds"]), Path(data.root) / split
    if not all((room_folder(root, seed) / "scene.json").exists() for seed in seeds):
        write_rooms(seeds, root, data.workers)
    return [Scene(room_folder(root, seed)) for seed in seeds]


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


TASKS = {"sam2": build_sam2_task}


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file that sets keys of the composed config")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides: experiment=NAME, trainer.device=cpu, ...")
    args = parser.parse_args()
    config = compose_config(CONFIGS, "train", args.overrides, args.config)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)

    run_dir = Path(config.trainer.run_dir)
    resolved = OmegaConf.to_container(config, resolve=True)
    seed_all(config.trainer.seed)  # the initial weights
    task = TASKS[config.task](config)
    run_dir.mkdir(parents=True, exist_ok=True)
    with replacing_file(run_dir / "config.yaml") as fresh:
        fresh.write_text(OmegaConf.to_yaml(config, resolve=True))
    options = {k: v for k, v in resolved["trainer"].items() if k not in ("threads", "run_dir", "init_from")}
    train(task, run_dir, resolved, **options)
    print(f"done: {run_dir}/checkpoints; watch with: tensorboard --logdir {run_dir}/tensorboard")


if __name__ == "__main__":
    sys.exit(run_cli(main))
