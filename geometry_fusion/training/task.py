"""What the training loop asks of a task. `build.py` makes the tasks of the configs."""

from typing import Protocol

import numpy as np
import torch


class Task(Protocol):
    """What is trained."""

    model: torch.nn.Module

    def batch(self, rng: np.random.Generator, step: int):
        """The batch of one micro-step, a pure function of its arguments.

        It has `to(device)` and `sources`, a list of text that names the clips in error messages.
        """

    def losses(
        self, model: torch.nn.Module, batch, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """Scalars by name; "total" is minimised, the others are only logged.

        model: `self.model`, or its wrapper for data parallelism; call this one for the forward.
        """

    def validate(self) -> dict[str, float]:
        """Measures by name; the checkpoint with the largest "score" is kept as the best one."""

    def pictures(self) -> dict[str, np.ndarray]:
        """RGB uint8 [H, W, 3] by name, of the last validation; may be empty."""

    def weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint shares: the whole model, or only what differs from its backbones."""

    def metadata(self) -> dict:
        """JSON values for the checkpoint: what the weights are, and which backbones they need."""
