"""What a run leaves behind: log.txt, train_stats.json (one JSON object a line) and TensorBoard
events.
"""

import json
import logging
import sys
import threading
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from geometry_fusion.files import naming, replacing_file
from geometry_fusion.training.stats import read_stats


class RunLog:
    """Writes under `run_dir`. Resuming at `first_step` drops what an interrupted run logged after
    that step.

    A write that fails raises an OSError that names the file.
    """

    def __init__(self, run_dir: Path, first_step: int):
        logs = run_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._stats_file = logs / "train_stats.json"
        kept = [r for r in read_stats(self._stats_file) if first_step and r["step"] <= first_step]
        with replacing_file(self._stats_file) as fresh:
            fresh.write_text("".join(json.dumps(r) + "\n" for r in kept))
        self._stats = open(self._stats_file, "a", buffering=1)  # noqa: SIM115  open as long as the run
        self._board_folder, self._board_error = run_dir / "tensorboard", None
        self._hook = threading.excepthook
        threading.excepthook = self._thread_failed
        self._board = SummaryWriter(self._board_folder, purge_step=first_step + 1)
        self._logger = logging.getLogger("3am.train")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.handlers = [_LogFile(logs / "log.txt"), logging.StreamHandler(sys.stdout)]
        for handler in self._logger.handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def say(self, text: str) -> None:
        self._logger.info(text)

    def record(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Scalars of a step, under train/ or val/ in TensorBoard."""
        with naming(self._stats_file):
            self._stats.write(json.dumps({"step": step, kind: values}) + "\n")
        if self._board_error is not None:
            raise OSError(
                self._board_error.errno, self._board_error.strerror, str(self._board_folder)
            )
        with naming(self._board_folder):
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def image(self, step: int, name: str, rgb: np.ndarray) -> None:
        with naming(self._board_folder):
            self._board.add_image(name, rgb, step, dataformats="HWC")

    def _thread_failed(self, failed) -> None:
        """TensorBoard writes on a thread of its own: keep its error for the next record, instead of
        a traceback.
        """
        if isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith(
            "tensorboard."
        ):
            self._board_error = failed.exc_value
        else:
            self._hook(failed)

    def close(self) -> None:
        with naming(self._stats_file):
            self._stats.close()
        with naming(self._board_folder):
            self._board.close()
        for handler in self._logger.handlers:
            handler.close()
        self._logger.handlers = []
        threading.excepthook = self._hook


class _LogFile(logging.FileHandler):
    """A log file whose failed writes are errors of the run: logging prints a traceback and goes
    on.
    """

    def handleError(self, record):
        with naming(Path(self.baseFilename)):
            raise


class SilentLog:
    """The log of every process but the first."""

    def say(self, text): ...
    def record(self, step, kind, values): ...
    def image(self, step, name, rgb): ...
    def close(self): ...
