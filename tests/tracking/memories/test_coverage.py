"""Cases of `coverage`, in a world of two rooms."""

import numpy as np
import torch

from geometry_fusion.fit import fit_to_square
from geometry_fusion.tracking.memories.coverage import CoverageMemory
from geometry_fusion.tracking.memories.fifo import FifoMemory
from geometry_fusion.tracking.memories.records import Answer
from geometry_fusion.tracking.memories.views import SIDE, View, on_cells, view_of
from geometry_fusion.tracking.place import Cells
from geometry_fusion.types import Camera, GeometryFrame
from tests.tracking.memories.walks import mask_of, new, offer, read, step

WHOLE = np.ones((SIDE, SIDE), bool)


def pose_at(angle: float, distance: float = 4.0) -> np.ndarray:
    """Camera-to-world of a camera that looks at the origin from a side, in degrees."""
    turn = np.radians(angle)
    forward = -np.array([np.sin(turn), 0, np.cos(turn)])
    right = np.cross([0, 1, 0], forward)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, [0, 1, 0], forward], 1)
    pose[:3, 3] = -distance * forward
    return pose


def sphere_view(angle: float) -> View:
    """A unit sphere at the origin, seen from a side; everything else is unknown."""
    pose = pose_at(angle)
    steps = (np.arange(SIDE) + 0.5 - SIDE / 2) / SIDE
    x, y = np.meshgrid(steps, steps)
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ pose[:3, :3].T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    along = -rays @ pose[:3, 3]
    inside = along**2 - (pose[:3, 3] @ pose[:3, 3] - 1)
    known = inside > 0
    points = pose[:3, 3] + rays * (along - np.sqrt(np.maximum(inside, 0)))[:, None]
    return View(Cells(np.where(known[:, None], points, 0), known, SIDE, 4.0), (SIDE, SIDE), pose)


def track(memory, time, view, iou=0.9, mask=WHOLE):
    memory.look(time, view)
    memory.read(time, {0: 10.0})
    memory.choose(time, [offer(iou, masks=[mask])])
    memory.add(time, [Answer(iou, 5.0 if mask.any() else -5.0, mask)])


def test_a_view_shows_its_own_points_and_none_of_the_other_side():
    front, back = sphere_view(0), sphere_view(180)
    points = front.points_of(WHOLE, 256)
    assert len(points) == 256 and front.shows(points) > 0.99
    assert back.shows(points) < 0.05  # in the image, but behind the surface
    assert 0.2 < sphere_view(60).shows(points) < 0.9
    assert front.shows(np.array([[0.0, 0.0, 9.0]])) == 0  # behind the camera


def test_back_from_another_room_the_frame_of_this_side_is_read():
    """Frames 1 to 10 go round the object, 11 to 80 show another room, 81 is the side of frame 7."""
    memory = new(CoverageMemory)
    for time in range(1, 11):
        track(memory, time, sphere_view(30 * time))
    nothing = np.zeros_like(WHOLE)
    for time in range(11, 81):
        track(memory, time, sphere_view(0), mask=nothing)
    memory.look(81, sphere_view(210))
    memories = read(memory, 81)
    assert 7 in memories and 80 in memories and len(memories) == 7
    assert next(iter(memories)) == 0 and memories[80] == 0
    plain = new(FifoMemory)
    assert 7 not in read(plain, 81)


def test_without_usable_geometry_it_is_sam2s_rule():
    memory, plain = new(CoverageMemory), new(FifoMemory)
    for time in range(1, 20):
        track(memory, time, None)
        step(plain, time)
        memory.look(time + 1, None)
        assert memory.read(time + 1, {0: 1.0}) == plain.read(time + 1, {0: 1.0})


def test_candidates_that_are_most_alike_give_way():
    memory = new(CoverageMemory)
    for time in range(1, 40):
        track(memory, time, sphere_view(0 if time < 30 else 20 * time))
    assert len(memory._points) == memory.settings.candidates
    assert {30, 31, 32, 33, 34, 35, 36, 37, 38, 39} <= set(memory._points)


def test_unsure_and_absent_masks_are_no_candidates():
    memory = new(CoverageMemory)
    track(memory, 1, sphere_view(0), iou=0.3)
    track(memory, 2, sphere_view(0), mask=np.zeros_like(WHOLE))
    track(memory, 3, sphere_view(0))
    assert list(memory._points) == [3]


def test_geometry_counts_where_it_has_a_camera_and_is_sure():
    points = torch.zeros(3, SIDE, SIDE)
    camera = Camera(80.0, torch.eye(4))

    def frame(confidence: float, camera) -> GeometryFrame:
        sure = torch.full((SIDE, SIDE), confidence)
        fit = fit_to_square((160, 120), SIDE)
        return GeometryFrame((), points, points, sure, torch.ones(()), camera, fit)

    assert view_of(None) is None
    assert view_of(frame(0.9, None)) is None
    assert view_of(frame(0.33, camera)) is None
    view = view_of(frame(0.34, camera))
    assert view.focal == (80 / 160 * SIDE, 80 / 120 * SIDE)


def test_masks_of_any_size_are_read_on_the_grid():
    small = mask_of((8, 0, 16, 16), side=32)
    large = mask_of((64, 0, 128, 128), side=256)
    assert np.array_equal(on_cells(small, SIDE), on_cells(large, SIDE))
    assert on_cells(small, SIDE).sum() == 16 * 32
