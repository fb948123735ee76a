"""Run train.py, evaluate.py or cache_geometry.py as jobs, by Hydra's submitit launcher.

A sweep in processes on this machine, a training on a cluster, and a sharded cache:

    python launch.py --multirun seed=0,1,2 \\
        'args="experiment=tiny_fusion trainer.seed=${seed} name=seed_${seed}"'
    python launch.py --multirun hydra/launcher=submitit_slurm hydra.launcher.partition=gpu \\
        hydra.launcher.nodes=4 hydra.launcher.gpus_per_node=8 \\
        hydra.launcher.tasks_per_node=8 'args="experiment=paper"'
    python launch.py --multirun hydra/launcher=submitit_slurm script=cache_geometry \\
        'shard=range(64)' 'args="experiment=paper --shard ${shard}/64"'

A job with several tasks is one training, and every task one process of it. Jobs that a cluster
stops and queues again resume, as the scripts do. `hydra/launcher=submitit_local` runs the jobs in
processes on this machine.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import os
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent
SCRIPTS = ("train", "evaluate", "cache_geometry")


def process_group() -> dict[str, str]:
    """Environment variables that make this task one process of its job's training.

    Empty outside a job, and for a job of one task.
    """
    try:
        import submitit

        job = submitit.JobEnvironment()
    except (ImportError, RuntimeError):  # not installed, or not inside a job
        return {}
    if job.num_tasks == 1:
        return {}
    environment = submitit.helpers.TorchDistributedEnvironment()
    names = ("master_addr", "master_port", "rank", "world_size", "local_rank", "local_world_size")
    return {name.upper(): str(getattr(environment, name)) for name in names}


@hydra.main(config_path="configs", config_name="launch", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run the configured script in a process of its own. Raises RuntimeError if it fails."""
    if config.script not in SCRIPTS:
        sys.exit(f"error: script={config.script}: unknown; known are: {', '.join(SCRIPTS)}")
    command = [sys.executable, str(ROOT / f"{config.script}.py"), *shlex.split(str(config.args))]
    print(shlex.join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **process_group()})
    if done.returncode:
        raise RuntimeError(f"{config.script}.py ended with exit code {done.returncode}")


if __name__ == "__main__":
    # The tasks of a training would wait for one that died, for hours and on GPUs. With this srun
    # ends them, and the job fails at once.
    os.environ.setdefault("SLURM_KILL_BAD_EXIT", "1")
    main()
