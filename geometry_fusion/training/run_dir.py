"""What may be in the folder of a training run before it starts."""

import os
from collections.abc import Iterable
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.files import check_apart
from geometry_fusion.temporary import sweep


def check_run_dir(
    run_dir: Path, inputs: Iterable[str | Path | None], config_file: Path | None
) -> None:
    """Raise InputError where the run would replace one of its inputs, or files that are of no run.

    config_file: the YAML file the run is started with; that of the run itself is an input too, but
    may be given to resume it. Sweeps what killed runs left.
    """
    checkpoints = run_dir / "checkpoints"
    names = ("checkpoint_best.safetensors", "checkpoint_last.safetensors", "resume.pt")
    logs = [run_dir / "logs" / name for name in ("log.txt", "train_stats.json")]
    config = run_dir / "config.yaml"
    outputs = [config, *logs, *(checkpoints / name for name in names)]
    resumes = (checkpoints / "resume.pt").is_file()
    check_apart(
        outputs, [*(Path(given) for given in inputs if given), None if resumes else config_file]
    )
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
