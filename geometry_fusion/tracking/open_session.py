"""Opening a session by the name of its mode."""

from geometry_fusion.choices import MODES
from geometry_fusion.errors import InputError
from geometry_fusion.tracking.clip_session import ClipSession
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import Session
from geometry_fusion.tracking.stream_session import StreamSession


def open_session(
    predictor: GeometryVideoPredictor, mode: str = "stream", precision: str = "auto", **options
) -> Session:
    """A StreamSession ("stream") or a ClipSession ("full", which takes the `options` keep and
    progress). Raises InputError for other modes.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode}: unknown; choose one of {', '.join(MODES)}")
    if mode == "stream":
        return StreamSession(predictor, precision, **options)
    return ClipSession(predictor, precision, **options)
