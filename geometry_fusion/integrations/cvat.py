"""CVAT: a tracking function for its agents, which follows masks, polygons and boxes (docs/cvat.md).

    cvat-cli function create-native 3AM --function-module geometry_fusion.integrations.cvat
    cvat-cli function run-agent ID --function-module geometry_fusion.integrations.cvat

The agent calls `create` once, `init_tracking_state` with a shape on its frame, and `track` with
every frame that follows. Needs cvat-sdk, which comes with cvat-cli. The interface is that of
`cvat_sdk.auto_annotation.TrackingFunction`.
"""

import cv2
import cvat_sdk.auto_annotation as cvat
import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask
from PIL import Image

from geometry_fusion.io.stream import open_source
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt

SHAPES = ("mask", "polygon", "rectangle")
SIMPLER = 0.7  # pixels by which a polygon may leave the outline, so that it can be edited


def create(
    sam2: str = "tiny",
    mode: str = "auto",
    device: str = "auto",
    checkpoint: str | None = None,
) -> "TrackingFunction":
    """The function, from parameters such as `-p sam2=str:l`; all as in `geometry_fusion.load`.

    sam2: the name of the model; mode: how geometry is used; checkpoint: merger weights.
    """
    return TrackingFunction(load(sam2, mode=mode, device=device, checkpoint=checkpoint))


class TrackingFunction:
    """Follows shapes with a tracker; each shape has a session of its own."""

    spec = cvat.TrackingFunctionSpec(supported_shape_types=SHAPES)

    def __init__(self, tracker: Tracker):
        self._tracker = tracker

    def preprocess_image(
        self, context: cvat.TrackingFunctionContext, image: Image.Image
    ) -> np.ndarray:
        """The frame, RGB uint8 [H, W, 3]."""
        return np.asarray(image.convert("RGB"))

    def init_tracking_state(
        self,
        context: cvat.TrackingFunctionShapeContext,
        pp_image: np.ndarray,  # [H, W, 3], as `preprocess_image` gives it
        shape: cvat.TrackableShape,
    ) -> Session:
        """A session that knows the shape on this frame.

        Raises BadFunctionError for shapes that cannot be tracked, and InputError for those without
        area or outside the frame.
        """
        session = self._tracker.session()
        session.add(_prompt(shape, pp_image.shape[1], pp_image.shape[0]))
        _next(session, pp_image)
        return session

    def track(
        self,
        context: cvat.TrackingFunctionShapeContext,
        pp_image: np.ndarray,
        state: Session,
    ) -> cvat.TrackableShape | None:
        """The shape on the next frame, of the type that it began as; None where it is not seen."""
        mask = _next(state, pp_image)
        if not mask.any():
            return None
        kind = context.original_shape_type
        return cvat.TrackableShape(type=kind, points=_points(mask, kind))


def _next(session: Session, image: np.ndarray) -> np.ndarray:
    """[H, W] bool: the object on the next frame of a session."""
    # "Live", because nobody knows how many frames will come.
    (tracked,) = session.track(open_source([image], live=True))
    return tracked.ids > 0


def _prompt(shape: cvat.TrackableShape, width: int, height: int) -> Prompt:
    """A shape of CVAT, whose coordinates are corners of pixels, as prompt."""
    if shape.type == "mask":
        return Prompt(mask=decode_mask(shape.points, image_width=width, image_height=height))
    if shape.type == "polygon":
        mask = np.zeros((height, width), np.uint8)
        centres = np.round(np.reshape(shape.points, (-1, 2)) - 0.5).astype(np.int32)
        return Prompt(mask=cv2.fillPoly(mask, [centres], 1) > 0)
    if shape.type == "rectangle":
        x0, y0, x1, y1 = np.clip(shape.points, 0, (width, height, width, height)).tolist()
        return Prompt(box=(x0, y0, x1, y1))
    raise cvat.BadFunctionError(f"shapes of type {shape.type!r} are not tracked")


def _points(mask: np.ndarray, kind: str) -> list[float]:
    """The points of a shape of CVAT that shows a mask [H, W] bool, which is not empty."""
    if kind == "mask":
        return encode_mask(mask)
    if kind == "polygon":
        return _outline(mask)
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [float(edge) for edge in edges]


def _outline(mask: np.ndarray) -> list[float]:
    """x, y, x, y, ... around the largest part of a mask: a polygon of CVAT has one part."""
    outlines = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[
        -2
    ]
    outline = max(outlines, key=lambda points: (cv2.contourArea(points), len(points)))
    simple = cv2.approxPolyDP(outline, SIMPLER, closed=True).reshape(-1, 2)
    if len(simple) < 3:  # a line of pixels
        simple = cv2.boxPoints(cv2.minAreaRect(outline))
    return (simple + 0.5).ravel().astype(float).tolist()
