"""Lenses: pixels to directions and back, with every kind of distortion."""

import numpy as np
import pytest

from geometry_fusion.geometry.cameras import back_project, project
from geometry_fusion.geometry.lenses import Lens

K = np.array([[60.0, 0, 39.5], [0, 58.0, 29.5], [0, 0, 1]])
LENSES = {
    "pinhole": Lens(K),
    "radial": Lens(K, (-0.2, 0.05, 0.0, 0.0)),
    "tangential": Lens(K, (-0.1, 0.01, 0.003, -0.002)),
    "rational": Lens(K, (0.1, 0.02, 0.0, 0.0, 0.01, 0.05, 0.01, 0.001)),
    "fisheye": Lens(K, (0.02, -0.01, 0.002, 0.0), fisheye=True),
    "fisheye without coefficients": Lens(K, (0.0, 0.0, 0.0, 0.0), fisheye=True),
}
U, V = np.meshgrid(np.linspace(0, 79, 9), np.linspace(0, 59, 7))


@pytest.mark.parametrize("name", LENSES)
def test_a_direction_leads_back_to_its_pixel(name):
    directions = LENSES[name].directions(U, V)
    assert directions.shape == (3, 7, 9) and (directions[2] == 1).all()
    u, v, z = LENSES[name].pixels(directions.reshape(3, -1) * 2.5)
    np.testing.assert_allclose(u, U.ravel(), atol=1e-3)
    np.testing.assert_allclose(v, V.ravel(), atol=1e-3)
    np.testing.assert_allclose(z, 2.5)


def test_without_distortion_a_lens_is_the_pinhole_of_the_other_module():
    pose = np.eye(4)
    pose[:3, 3] = (1.0, 2.0, 3.0)
    points = back_project(np.full(U.shape, 4.0), K, pose, U, V)
    ours = Lens(K).directions(U, V) * 4.0 + pose[:3, 3][:, None, None]
    np.testing.assert_array_equal(points, ours)
    seen = project(points.reshape(3, -1), K, pose)
    moved = points.reshape(3, -1) - pose[:3, 3:]
    np.testing.assert_allclose(Lens(K).pixels(moved), seen)


def test_a_fisheye_without_coefficients_maps_angles_evenly():
    lens = LENSES["fisheye without coefficients"]
    u, _, _ = lens.pixels(np.array([[np.tan(0.3), 0.0], [0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(u, [39.5 + 60 * 0.3, 39.5], atol=1e-9)


def test_where_a_lens_has_no_direction_the_answer_is_nan():
    # r - r^3 is at most 0.38: no direction leads farther out than that.
    lens = Lens(K, (-1.0, 0.0, 0.0, 0.0))
    inner, outer = 39.5 + 60 * 0.2, 39.5 + 60 * 0.6
    directions = lens.directions(np.array([inner, outer]), np.array([29.5, 29.5]))
    assert np.isfinite(directions[:, 0]).all() and np.isnan(directions[:, 1]).all()


@pytest.mark.parametrize("name", LENSES)
def test_a_resized_lens_sees_the_same_directions(name):
    small = LENSES[name].resized((0.5, 0.25))
    # Pixel centres: the middle of two columns and of four rows.
    directions = small.directions((U - 0.5) / 2, (V - 1.5) / 4)
    np.testing.assert_allclose(directions, LENSES[name].directions(U, V), atol=1e-6)


def test_a_padded_lens_sees_the_same_directions():
    padded = LENSES["radial"].padded(7)
    wanted = LENSES["radial"].directions(U, V)
    np.testing.assert_allclose(padded.directions(U + 7, V + 7), wanted, atol=1e-9)
