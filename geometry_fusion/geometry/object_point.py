"""Where an object is: the place of a mask in the coordinates of a frame's geometry."""

import numpy as np

from geometry_fusion.types import GeometryFrame


def object_point(geometry: GeometryFrame, mask: np.ndarray) -> np.ndarray | None:
    """The place [3] of a mask [H, W] bool of the original frame; None where it covers no point.

    It is the median of those half of its points that have the most confidence.
    """
    height, width = geometry.confidence.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    # The grid of points has as many cells as the fitted image has pixels.
    pixels = geometry.fit.points_back(np.stack([x, y], -1)).round().astype(int)
    size = np.array(mask.shape[::-1])
    inside = (pixels >= 0).all(-1) & (pixels < size).all(-1)
    column, row = np.clip(pixels, 0, size - 1).transpose(2, 0, 1)
    on_object = inside & mask[row, column]
    if not on_object.any():
        return None
    confidence = geometry.confidence.cpu().numpy()[on_object]
    points = geometry.points.cpu().numpy()[:, on_object]
    return np.median(points[:, confidence >= np.median(confidence)], axis=1)
