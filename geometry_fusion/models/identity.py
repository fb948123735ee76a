"""What results depend on: the weight files and options of a tracker.

One answer for resumed runs, evaluations and training: two trackers with equal facts give equal
masks on equal frames and prompts.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from geometry_fusion.io.digests import file_digest


@dataclass(frozen=True)
class WeightFile:
    """A weight file by the name of its model. `sha256` is computed once, when it is first read."""

    name: str
    file: Path

    @cached_property
    def sha256(self) -> str:
        return file_digest(self.file)

    def facts(self) -> dict[str, str]:
        """What a checkpoint records of a backbone."""
        return {"name": self.name, "sha256": self.sha256}


@dataclass(frozen=True)
class Identity:
    """Arm, weight files by role (sam2, must3r, checkpoint) and options of a tracker."""

    arm: str  # sam2, or the arm of the checkpoint: 3am, control, oracle
    weights: dict[str, WeightFile]
    options: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """All of it as text by name; files by the first 16 digits of their SHA-256."""
        digests = {role: weights.sha256[:16] for role, weights in self.weights.items()}
        return {"arm": self.arm, **self.options, **digests}

    def described(self) -> dict[str, str]:
        """Weight files for readers: model name and file name, by role."""
        return {
            role: f"{weights.name} ({weights.file.name})" for role, weights in self.weights.items()
        }
