"""Optical flow between two pictures: the one place that calls OpenCV for it."""

import cv2
import numpy as np


def dis_flow(
    first: np.ndarray,  # [H, W] uint8
    second: np.ndarray,  # [H, W] uint8
    start: np.ndarray | None = None,  # [H, W, 2] a flow near the one sought; not changed
) -> np.ndarray:
    """Where each pixel of the first picture is in the second, minus where it was: [H, W, 2] pixels.

    Dense inverse search, medium preset (Kroeger et al., ECCV 2016), by OpenCV. Every call makes an
    object of its own: one that was given a `start` keeps using it in calls without one.
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(first, second, None if start is None else start.copy())
