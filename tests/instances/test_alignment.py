"""Alignment of views against known similarities: noise, wrong frames, cameras that hardly move.

Cameras look around from where they stand, so that their centres alone say little or nothing.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.alignment import (
    Similarity,
    aligned,
    median_point,
    median_rotation,
    similarity_of,
)
from geometry_fusion.instances.cloud import world_points

LENS = Lens(intrinsic_matrix(20.0, 20.0, 7.5, 7.5))
TRUE = Similarity(2.5, Rotation.from_euler("xyz", (30, -50, 110), degrees=True).as_matrix(), None)
TRUE = replace(TRUE, shift=np.array([1.0, -2.0, 3.0]))
FRAMES = 24


def centres_of(path: str) -> np.ndarray:
    """Camera centres [FRAMES, 3] in metres."""
    along = np.linspace(-1, 1, FRAMES)[:, None]
    return {
        "free": np.random.default_rng(1).normal(size=(FRAMES, 3)),
        "collinear": along * (1.0, 0.5, 0.2),
        "planar": np.c_[np.cos(3 * along), np.sin(3 * along), np.zeros((FRAMES, 1))],
        "static": np.zeros((FRAMES, 3)) + (1.0, 2.0, 3.0),
    }[path]


def views_of(path: str) -> list[PosedView]:
    rng = np.random.default_rng(0)
    views = []
    for centre, rotation in zip(centres_of(path), Rotation.random(FRAMES, rng).as_matrix()):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, centre
        views.append(PosedView(rng.uniform(1, 4, (16, 16)), pose, LENS))
    return views


def disturbed(view: PosedView, rng, degrees=2.0, metres=0.02, depth=0.03) -> PosedView:
    """A view with noise in orientation, centre, and every pixel's depth."""
    pose = view.camera_to_world.copy()
    pose[:3, :3] = (
        Rotation.from_rotvec(np.radians(rng.normal(0, degrees, 3))).as_matrix() @ (pose[:3, :3])
    )
    pose[:3, 3] += rng.normal(0, metres, 3)
    noise = rng.normal(1, depth, view.depth.shape)
    return replace(view, depth=view.depth * noise, camera_to_world=pose)


def degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(one @ other.T).magnitude()))


@pytest.mark.parametrize("path", ("free", "planar", "collinear", "static"))
def test_a_similarity_is_found_exactly(path):
    start = views_of(path)
    similarity = similarity_of(start, [TRUE.of_view(view) for view in start])
    assert similarity.scale == pytest.approx(TRUE.scale, rel=1e-5)
    assert np.allclose(similarity.rotation, TRUE.rotation, atol=1e-6)
    assert np.allclose(similarity.shift, TRUE.shift, atol=1e-4)


@pytest.mark.parametrize("path", ("free", "planar", "collinear", "static"))
@pytest.mark.parametrize("wrong", (0, FRAMES // 4))
def test_noise_and_wrong_frames_do_little_harm(path, wrong):
    rng = np.random.default_rng(2)
    end = [TRUE.of_view(view) for view in views_of(path)]
    start = [disturbed(view, rng) for view in views_of(path)]
    for frame in range(wrong):  # lost: turned, and somewhere else
        start[frame] = disturbed(start[frame], rng, degrees=60, metres=2.0, depth=0.3)
    similarity = similarity_of(start, end)
    assert similarity.scale == pytest.approx(TRUE.scale, rel=0.02)
    assert degrees_between(similarity.rotation, TRUE.rotation) < 2
    # In the unit of the known views, where the noise of a centre is 5 cm.
    middle = centres_of(path).mean(0)
    assert np.linalg.norm(similarity.of_points(middle) - TRUE.of_points(middle)) < 0.12


def test_moved_views_see_moved_points():
    view = views_of("free")[0]
    points, moved = world_points(view)[0], world_points(TRUE.of_view(view))[0]
    assert np.allclose(TRUE.scale * points @ TRUE.rotation.T + TRUE.shift, moved, atol=1e-5)


def test_frames_without_a_view_stay_without_one_and_others_come_back():
    known = views_of("collinear")
    away = [TRUE.of_view(view) for view in known]
    back = aligned([*away[:3], None, *away[4:]], known)
    assert back[3] is None
    for view, other in zip(back[4:], known[4:]):
        assert np.allclose(view.camera_to_world, other.camera_to_world, atol=1e-4)
        assert np.allclose(view.depth, other.depth, rtol=1e-4)
    assert aligned([None, None], known[:2]) == [None, None]


def test_depth_is_compared_where_both_have_it_and_maps_may_differ_in_size():
    known = PosedView(np.full((32, 32), 6.0), np.eye(4), LENS)
    depth = np.full((16, 16), 3.0)
    depth[:, 8:] = 1.0  # not sure there
    sure = np.zeros((16, 16))
    sure[:, :8] = 0.5
    view = PosedView(depth, np.eye(4), LENS, confidence=sure)
    assert similarity_of([view], [known]).scale == pytest.approx(2.0)
    with pytest.raises(InputError, match="no frame has depth in both"):
        similarity_of([replace(view, confidence=0 * sure)], [known])


def test_medians_ignore_a_minority():
    rng = np.random.default_rng(3)
    points = np.r_[rng.normal(0, 1e-3, (7, 3)), rng.normal(50, 1, (3, 3))]
    assert np.linalg.norm(median_point(points)) < 5e-3
    few = Rotation.from_rotvec(np.radians([[0, 0, 90], [0, 0, 100]])).as_matrix()
    many = Rotation.from_rotvec(
        np.radians([[0, 0, a] for a in (9.9, 10, 10.1, 10, 10)])
    ).as_matrix()
    expected = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    assert degrees_between(median_rotation(np.r_[few, many]), expected) < 0.2
