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
    memory: str = "fifo"  # of choices.MEMORY_POLICIES
    truth: Path | None = None  # folder of ground truth masks
    truth_object: int = 1  # which object it shows, where it has no ids
    unordered: bool = False  # frames are photos in no order; fallback and memory do not apply


@dataclass(frozen=True)
class LiveJob:
    """Tracking of a live source, which is recorded meanwhile."""

    job_id: str
    session_id: str
    spec: str | None  # what `main.py segment --source` takes; None: pictures that the page sends
    arm: str  # of results.ARMS
    mode: str
    fallback: str
    memory: str
    frames: Path  # folder, receives 000000.jpg ...
    out: Path  # receives ARM/000000.png and scene.json
    most_frames: int
    most_side: int  # pixels, of pictures that the page sends


@dataclass(frozen=True)
class LivePrompt:
    """A prompt on a frame of a running LiveJob; it takes the place of the one before it there."""

    job_id: str
    prompt: Prompt


@dataclass(frozen=True)
class LiveRemove:
    """An object of a running LiveJob is no longer tracked."""

    job_id: str
    object_id: int


@dataclass(frozen=True)
class LiveControl:
    """do: pause, resume or stop."""

    job_id: str
    do: str


@dataclass(frozen=True)
class LivePicture:
    """A picture of the page's camera, JPEG. Sent once for every LiveWants."""

    job_id: str
    content: bytes


@dataclass(frozen=True)
class LiveWants:
    """The worker can take a picture of the page's camera."""

    job_id: str


@dataclass(frozen=True)
class LiveFrame:
    """The latest frame of a LiveJob with its masks."""

    job_id: str
    number: int  # among the frames that were recorded
    size: tuple[int, int]  # (width, height) of the recorded frame
    image: bytes  # JPEG, at the size at which it is shown
    mask: bytes  # palette PNG of the same size
    pace: float  # recorded frames per second, so far


@dataclass(frozen=True)
class LiveNote:
    """A line for the person about a running LiveJob."""

    job_id: str
    text: str


LIVE_COMMANDS = (LivePrompt, LiveRemove, LiveControl, LivePicture)


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
