"""The test whether geometry belongs to the frames, on a picture that slides by whole pixels."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from geometry_fusion.tracking.place import Cells
from geometry_fusion.tracking.place_trust import GeometryTrust

SIDE, PIXELS = 64, 128


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    return cv2.resize(noise, (240, PIXELS), interpolation=cv2.INTER_CUBIC)


def frame(picture, shift: int) -> tuple[np.ndarray, Cells]:
    """A window of the picture, and its points: each carries its own place in the picture."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    points = np.stack([2 * columns + shift, 2 * rows, np.zeros_like(rows)], -1).reshape(-1, 3)
    known = np.ones(SIDE * SIDE, bool)
    return picture[:, shift : shift + PIXELS], Cells(points.astype(np.float32), known, SIDE, 50.0)


def seen(picture, shifts, points_of=None) -> GeometryTrust:
    trust = GeometryTrust()
    for index, shift in enumerate(shifts):
        image, cells = frame(picture, shift)
        if points_of is not None:
            cells = frame(picture, points_of[index])[1]
        trust.see(index, image, cells)
    return trust


def test_points_that_follow_the_flow_are_trusted(picture):
    trust = seen(picture, [0, 6, 12, 18])
    assert trust.pairs == 3 and trust.total > 2.9 and trust.suffices


def test_points_of_other_frames_are_not(picture):
    """The picture slides by 6 pixels, the points by 40 there and back; "close" is 6 units."""
    assert not seen(picture, [0, 6, 12, 18], points_of=[0, 40, 0, 40]).suffices


def test_one_pair_is_not_enough_and_gaps_are_no_pairs(picture):
    assert not seen(picture, [0, 6]).suffices
    trust = GeometryTrust()
    for index in (0, 2, 4, 6):
        trust.see(index, *frame(picture, 3 * index))
    assert trust.pairs == 0 and not trust.suffices
    trust = GeometryTrust()
    for index in (6, 5, 4):  # backwards
        trust.see(index, *frame(picture, 3 * index))
    assert trust.suffices


def test_carried_geometry_is_no_evidence_for_itself(picture):
    """It agrees with the flow that carried it, in every scene."""
    trust = GeometryTrust()
    for index in range(6):
        image, cells = frame(picture, 3 * index)
        trust.see(index, image, replace(cells, carried=index % 2 == 1))
    assert trust.pairs == 2  # frames 1 and 2, 3 and 4


def test_where_nothing_is_known_nothing_is_tested(picture):
    trust = GeometryTrust()
    for index in range(4):
        image, cells = frame(picture, 6 * index)
        trust.see(index, image, Cells(cells.points, np.zeros(SIDE * SIDE, bool), SIDE, 50.0))
    assert trust.pairs == 0 and not trust.suffices


def test_a_restored_test_resumes_where_it_stopped(picture):
    whole = seen(picture, [0, 6, 12, 18])
    first, second = seen(picture, [0, 6]), GeometryTrust()
    second.restore(first.snapshot())
    for index in (2, 3):
        second.see(index, *frame(picture, 6 * index))
    assert (second.pairs, second.total) == (whole.pairs, whole.total)
    second.clear()
    assert second.pairs == 0 and "last" not in second.snapshot()
