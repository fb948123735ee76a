"""What a run leaves behind: log.txt, train_stats.json (one JSON object a line) and TensorBoard events."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from geometry_fusion.training.stats import read_stats


class RunLog:
    """Writes under `run_dir`. Resuming at `first_step` drops what an interrupted run logged after that step."""

    def __init__(self, run_dir: Path, first_step: int):
        logs = run_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._stats_file = logs / "train_stats.json"
        kept = [r for r in read_stats(self._stats_file) if first_step and r["step"] <= first_step]
        self._stats_file.write_text("".join(json.dumps(r) + "\n" for r in kept))
        self._stats = open(self._stats_file, "a", buffering=1)  # noqa: SIM115  open as long as the run
        self._board = SummaryWriter(run_dir / "tensorboard", purge_step=first_step + 1)
        self._logger = logging.getLogger("3am.train")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.handlers = [logging.FileHandler(logs / "log.txt"), logging.StreamHandler(sys.stdout)]
        for handler in self._logger.handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def say(self, text: str) -> None:
        self._logger.info(text)

    def record(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Scalars of a step, under train/ or val/ in TensorBoard."""
        self._stats.write(json.dumps({"step": step, kind: values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def image(self, step: int, name: str, rgb: np.ndarray) -> None:
        self._board.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        self._stats.close()
        self._board.close()
        for handler in self._logger.handlers:
            handler.close()
        self._logger.handlers = []


class SilentLog:
    """The log of every process but the first."""

    def say(self, text): ...
    def record(self, step, kind, values): ...
    def image(self, step, name, rgb): ...
    def close(self): ...
