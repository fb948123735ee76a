"""How much a studio takes in. Every field is a flag of `main.py ui`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StudioLimits:
    """Limits of uploads and sessions; they hold while bytes and frames come, not after."""

    upload_mb: int = 500  # of one video, or of all photos together
    minutes: float = 10.0  # of a video
    frames: int = 18000  # of a session
    long_side: int = 4096  # pixels, of a video or photo that is taken in
    photos: int = 1000
    disk_gb: float = 20.0  # of all sessions
    idle_minutes: float = 30.0  # after which a session leaves memory; its files stay
    keep_hours: float = 24.0  # after which the files of a session are removed
    decode_seconds: float = 600.0  # for one video
