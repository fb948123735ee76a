"""The logs of a run: log.txt, train_stats.json (a JSON object per line) and TensorBoard events."""

import json
import logging
import sys
import threading
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from geometry_fusion.io.atomic import naming, replacing_file
from geometry_fusion.training.stats import read_stats


class RunLog:
    """Writes the logs under `run_dir`.

    first_step: the step from which a run resumes; records of later steps, which the interrupted run
    logged, are dropped. 0 starts anew. A write that fails raises an OSError that names the file.
    """

    def __init__(self, run_dir: Path, first_step: int):
        logs = run_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._stats_file = logs / "train_stats.json"
        records = read_stats(self._stats_file)
        earlier = [r for r in records if first_step and r["step"] <= first_step]
        with replacing_file(self._stats_file) as fresh:
            fresh.write_text("".join(json.dumps(r) + "\n" for r in earlier))
        self._stats = open(self._stats_file, "a", buffering=1)  # noqa: SIM115  open as long as the run
        self._board_folder = run_dir / "tensorboard"
        self._board_error: OSError | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._thread_failed
        self._board = SummaryWriter(self._board_folder, purge_step=first_step + 1)
        self._logger = logging.getLogger("3am.train")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.handlers = [_LogFile(logs / "log.txt"), logging.StreamHandler(sys.stdout)]
        for handler in self._logger.handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def write(self, text: str) -> None:
        """A line for log.txt and the terminal."""
        self._logger.info(text)

    def record(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Scalars of a step; in TensorBoard under the kind, "train" or "val"."""
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
        """A picture of a step for TensorBoard, RGB uint8 [H, W, 3]."""
        with naming(self._board_folder):
            self._board.add_image(name, rgb, step, dataformats="HWC")

    def _thread_failed(self, failed) -> None:
        """Keep an error of TensorBoard's own thread; `record` raises it, instead of a traceback."""
        is_board = type(failed.thread).__module__.startswith("tensorboard.")
        if is_board and isinstance(failed.exc_value, OSError):
            self._board_error = failed.exc_value
        else:
            self._hook(failed)

    def close(self) -> None:
        """Write what is buffered and close all files."""
        with naming(self._stats_file):
            self._stats.close()
        with naming(self._board_folder):
            self._board.close()
        for handler in self._logger.handlers:
            handler.close()
        self._logger.handlers = []
        threading.excepthook = self._hook


class _LogFile(logging.FileHandler):
    """A log file that raises when a write fails."""

    def handleError(self, record):
        """As logging.FileHandler, but an error: logging would print a traceback and continue."""
        with naming(Path(self.baseFilename)):
            raise


class SilentLog:
    """The log of all processes but the first: it writes nothing."""

    def write(self, text: str) -> None:
        """Nothing."""

    def record(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Nothing."""

    def image(self, step: int, name: str, rgb: np.ndarray) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
