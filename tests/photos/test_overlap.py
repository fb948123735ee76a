"""Overlap of photos of a wall, whose shares are known."""

import numpy as np
import pytest

from geometry_fusion.photos.overlap import (
    GUESS,
    harmonic,
    of_nodes,
    overlap,
    overlaps,
    points_of,
    visibility,
)
from tests.photos.views import shown


def test_a_photo_overlaps_itself_and_not_the_opposite_view():
    front, back = shown().view, shown(turned=True).view
    assert overlap(front, front) == 1.0
    assert overlap(back, back) == 1.0
    assert overlap(front, back) == overlap(back, front) == 0.0


def test_a_close_up_lies_in_the_wide_view_and_not_the_other_way():
    wide, close = shown().view, shown(focal=256.0).view
    assert overlap(close, wide) == 1.0
    # A quarter of the width and of the height.
    assert overlap(wide, close) == pytest.approx(1 / 16, abs=0.02)


def test_a_camera_moved_sideways_shows_the_share_that_is_left():
    # The wall is 4 wide in the image; moved by 1, three quarters are left.
    one, other = shown().view, shown(x=1.0).view
    assert overlap(one, other) == pytest.approx(0.75, abs=0.03)
    weights = overlaps([shown(), shown(x=1.0)], np.eye(2))
    assert weights[0, 1] == weights[1, 0] == pytest.approx(0.75, abs=0.03)


def test_points_behind_a_nearer_surface_do_not_count_but_are_inside_the_image():
    far = shown().view
    near = shown(z=1.0)  # the same wall, 3 in front of the camera
    points = points_of(far)
    hidden = points + [0, 0, 2.0]  # behind the wall
    seen, framed = visibility(hidden, [near, shown(turned=True)])
    assert seen.tolist() == [0.0, 0.0]
    assert framed[0] > 0.5 and framed[1] == 0.0


def test_unsure_geometry_counts_a_quarter_of_the_similarity():
    similarity = np.array([[1, 0.8, 0.6], [0.8, 1, 0.4], [0.6, 0.4, 1]])
    unsure = shown(sure=0.2)
    assert unsure.view is None and unsure.confidence == pytest.approx(0.2)
    weights = overlaps([shown(), unsure, shown()], similarity)
    assert weights[0, 1] == pytest.approx(GUESS * 0.8)
    assert weights[1, 2] == pytest.approx(GUESS * 0.4)
    assert weights[0, 2] == 1.0
    seen, framed = visibility(points_of(shown().view), [shown(), unsure])
    assert seen[0] == 1.0 and np.isnan(seen[1]) and np.isnan(framed[1])


def test_an_object_without_points_is_visible_nowhere_that_is_known():
    seen, framed = visibility(np.empty((0, 3)), [shown()])
    assert np.isnan(seen).all() and np.isnan(framed).all()


def test_the_harmonic_mean():
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.0, 1.0) == 0.0


def test_near_duplicates_have_the_edges_of_their_node():
    weights = np.array([[1, 0.2, 0.3], [0.2, 1, 0.7], [0.3, 0.7, 1.0]])
    shared = of_nodes(weights, [0, 1, 0])
    assert np.array_equal(shared, [[1, 0.2, 1], [0.2, 1, 0.2], [1, 0.2, 1]])
