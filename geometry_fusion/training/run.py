"""One run of the training loop: its log, its checkpoints, its best score and its pace."""

import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from omegaconf import OmegaConf

from geometry_fusion.devices import peak_memory
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.training.checkpoints import save_resume, save_weights
from geometry_fusion.training.resume import restore_run, run_identity
from geometry_fusion.training.run_log import RunLog, SilentLog
from geometry_fusion.training.task import Task

PACE_KNOWN_AFTER = 4  # steps after which the remaining time and the memory are estimated


@dataclass
class Pace:
    """Seconds of the steps so far, and what they predict."""

    seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """Add a step."""
        self.seconds.append(seconds)

    @property
    def is_known(self) -> bool:
        """True after one step only, so that the estimate is logged once."""
        return len(self.seconds) == PACE_KNOWN_AFTER

    def estimate(self, steps_left: int, device: torch.device) -> str:
        """A line for the log."""
        # Without the first step, which also allocates memory and compiles kernels.
        per_step = statistics.median(self.seconds[1:])
        minutes = math.ceil(per_step * steps_left / 60)
        memory = peak_memory(device) / 2**30
        return (
            f"{per_step:.1f} s a step, about {minutes} min for the {steps_left} steps left, "
            f"validation not counted; peak memory so far {memory:.1f} GB"
        )


class Run:
    """The files of a run, and its best score. Only the first process validates and writes."""

    def __init__(
        self, task: Task, run_dir: Path, config: dict, accumulate: int, accelerator: Accelerator
    ):
        self.task = task
        self.accelerator = accelerator
        self.is_first = accelerator.is_main_process
        self.log: RunLog | SilentLog = SilentLog()
        self.result: dict[str, float] = {}  # of the last validation
        self._run_dir = run_dir
        self._checkpoints = run_dir / "checkpoints"
        self._config = config
        units = accumulate * accelerator.num_processes
        self._identity = run_identity(config, task.metadata(), units)
        self._best = float("-inf")

    def restore(self, optimizer: torch.optim.Optimizer) -> int:
        """Load resume.pt, if there is one, into model and optimizer; returns the steps done."""
        file = self._checkpoints / "resume.pt"
        if not file.exists():
            return 0
        step, self._best = restore_run(file, self.task.model, optimizer, self._identity)
        return step

    def open_log(self, start: int) -> None:
        """Start logging at step `start`, and write the config.

        Not before the run is known to be able to start or resume: one that cannot must not replace
        the config of an earlier run.
        """
        if not self.is_first:
            return
        self.log = RunLog(self._run_dir, start)
        with replacing_file(self._run_dir / "config.yaml") as fresh:
            fresh.write_text(OmegaConf.to_yaml(OmegaConf.create(self._config)))

    def validate(self, step: int, losses: dict[str, float]) -> None:
        """Validate, and log the result beside the losses of the step."""
        if not self.is_first:
            return
        self.result = self.task.validate()
        self.log.record(step, "val", self.result)
        measures = {**losses, **self.result}
        shown = [f"{k} {v}" if isinstance(v, int) else f"{k} {v:.4f}" for k, v in measures.items()]
        self.log.write(f"step {step}: " + " ".join(shown))
        for name, picture in self.task.pictures().items():
            self.log.image(step, name, picture)

    def only_validate(self, step: int) -> None:
        """Validate a run that has no steps left."""
        if self.is_first and step:
            self.log.write(
                f"complete at step {step}: raise trainer.max_steps, or choose another "
                "trainer.run_dir to train anew"
            )
        self.validate(step, {})

    def save_best(self, step: int) -> None:
        """Write the weights as the best ones so far."""
        if not self.is_first:
            return
        self._best = self.result["score"]
        self._save_weights("checkpoint_best", step, self.task.weights())

    def save(self, step: int, optimizer: torch.optim.Optimizer, may_be_best: bool) -> None:
        """Write the weights and the state to resume from.

        may_be_best: whether `result` is of this step, so that its score counts.
        """
        if not self.is_first:
            return
        weights = self.task.weights()
        if may_be_best and self.result["score"] > self._best:
            self._best = self.result["score"]
            self._save_weights("checkpoint_best", step, weights)
        self._save_weights("checkpoint_last", step, weights)
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "best": self._best,
            "identity": self._identity,
        }
        save_resume(self._checkpoints / "resume.pt", state)

    def _save_weights(self, name: str, step: int, weights: dict[str, torch.Tensor]) -> None:
        about = {"config": self._config, "step": step, "metrics": self.result}
        file = self._checkpoints / f"{name}.safetensors"
        save_weights(file, weights, {**self.task.metadata(), **about})
