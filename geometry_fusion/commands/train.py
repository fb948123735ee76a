"""`train.py`: train from a Hydra config."""

import argparse
from pathlib import Path

import torch
from omegaconf import OmegaConf

from geometry_fusion.assets import CONFIGS
from geometry_fusion.commands.config import compose_config
from geometry_fusion.devices import use_local_device
from geometry_fusion.models.names import MUST3R_MODELS
from geometry_fusion.training.build import TASKS
from geometry_fusion.training.build_fusion import stream_beforehand
from geometry_fusion.training.checks import check, choose_trainable
from geometry_fusion.training.loop import seed_all, train
from geometry_fusion.training.run_dir import check_run_dir


def run(args: argparse.Namespace) -> None:
    """Train the task of a config in its run folder, or resume it there.

    Raises InputError for bad settings and inputs, before anything is computed.
    """
    config = compose_config(CONFIGS, "train", args.overrides, args.config)
    check(config)
    choose_trainable(config)
    inputs = [
        config.trainer.init_from,
        config.get("fusion_from"),
        config.get("merger_from"),
        config.data.get("frames"),
        config.data.get("masks"),
    ]
    if str(config.get("must3r")) not in MUST3R_MODELS:
        inputs.append(config.get("must3r"))
    check_run_dir(Path(config.trainer.run_dir), inputs, args.config)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)

    use_local_device()
    # On GPUs that have it, TF32 for what is not computed in bf16; CPUs compute as before.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    run_dir = Path(config.trainer.run_dir)
    seed_all(config.trainer.seed)  # before the task is built: it draws the initial weights
    task = TASKS[config.task](config)
    if config.data.get("frames") and config.trainer.max_steps:
        stream_beforehand(task)
    resolved = OmegaConf.to_container(config, resolve=True)
    options = {
        key: value
        for key, value in resolved["trainer"].items()
        if key not in ("threads", "run_dir", "init_from")
    }
    train(task, run_dir, resolved, **options)
    print(f"done: {run_dir}/checkpoints; watch with: tensorboard --logdir {run_dir}/tensorboard")
