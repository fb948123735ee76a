"""Checks of the folder of a training run before it starts."""

import os
from collections.abc import Iterable
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import check_apart
from geometry_fusion.io.temporary import sweep


def check_run_dir(
    run_dir: Path, inputs: Iterable[str | Path | None], config_file: Path | None
) -> None:
    """Raise InputError where the run would replace one of its inputs, or files of something else.

    config_file: the YAML file that the run is started with. To resume a run, its own config.yaml
    may be given. Also removes the temporary folders of killed runs.
    """
    checkpoints = run_dir / "checkpoints"
    names = ("checkpoint_best.safetensors", "checkpoint_last.safetensors", "resume.pt")
    logs = [run_dir / "logs" / name for name in ("log.txt", "train_stats.json")]
    config = run_dir / "config.yaml"
    outputs = [config, *logs, *(checkpoints / name for name in names)]
    resumes = (checkpoints / "resume.pt").is_file()
    files_read = [Path(file) for file in inputs if file]
    check_apart(outputs, [*files_read, None if resumes else config_file])
    for file in outputs:
        if os.path.lexists(file) and not file.is_file():
            raise InputError(
                f"{file}: is not a file; move it away or choose another trainer.run_dir"
            )
    if config.exists() and not logs[1].exists():
        raise InputError(
            f"{config}: exists and is of no training run; choose another trainer.run_dir"
        )
    for folder in (run_dir, checkpoints):
        sweep(folder)
