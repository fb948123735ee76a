"""What the server and its worker process say to each other, over a pipe."""

from dataclasses import dataclass, field
from pathlib import Path

from geometry_fusion.types import Prompt


@dataclass(frozen=True)
class WorkerOptions:
    """Models of a studio, as the flags of `ab_iou.py` name them."""

    sam2: str = "tiny"
    sam2_checkpoint: Path | None = None
    must3r: str = "auto"
    checkpoint: Path | None = None
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class TrackingJob:
    """One run of one or both arms over a session's frames."""

    job_id: str
    session_id: str
    frames: Path  # folder
    prompts: tuple[Prompt, ...]
    arms: tuple[str, ...]  # of results.ARMS
    mode: str  # of choices.GEOMETRY_MODES
    fallback: str  # of choices.FALLBACKS
    out: Path  # receives ARM/000000.png and scene.json
    truth: Path | None = None  # folder of ground truth masks
    truth_object: int = 1  # which object it shows, where it has no ids


@dataclass(frozen=True)
class Preview:
    """The mask of one object's prompt on its frame, before anything is tracked."""

    request: int
    session_id: str
    frames: Path  # folder
    prompt: Prompt


@dataclass(frozen=True)
class Cancel:
    """End a job; what it has done stays."""

    job_id: str


@dataclass(frozen=True)
class Ready:
    """The models are loaded. arms: key -> title; missing: key -> why an arm cannot run."""

    arms: dict[str, str]
    missing: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Previewed:
    """The answer to a Preview. mask: PNG, None where a later request replaced it, or with an
    error.
    """

    request: int
    mask: bytes | None = None
    area: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a job is. record: an answer of an arm, as in results.py."""

    job_id: str
    done: int = 0
    total: int = 0
    pace: dict[str, float] = field(default_factory=dict)  # arm -> frames per second
    record: dict | None = None


@dataclass(frozen=True)
class Ended:
    """A job ended. status: done, cancelled or failed; text: why it failed, or a note."""

    job_id: str
    status: str
    text: str = ""
