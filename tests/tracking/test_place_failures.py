"""Failures of places that were seen in practice, on boxes seen by a camera with exact points."""

import numpy as np
import pytest

from geometry_fusion.tracking.place import Cells, Place, lifted
from geometry_fusion.tracking.places import PlaceSettings, best_answer, is_clear, is_expected
from geometry_fusion.types import Tolerance

SIDE = 64
RULE = Tolerance(radius=1.0, scale=0.02)
SETTINGS = PlaceSettings()
FLOOR = ((-50.0, -1.0, -50.0), (50.0, 0.0, 50.0))  # a slab whose top is y = 0


def view(eye, boxes, target=(0.0, 0.5, 0.0)) -> tuple[Cells, np.ndarray]:
    """The frame that a camera at `eye` sees, and the number of the box in every cell; -1: none.

    boxes: (lowest corner, highest corner); the floor is number len(boxes).
    """
    eye = np.array(eye, float)
    forward = np.array(target) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    grid = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(grid * 0.6, grid * 0.6)
    rays = forward + x[..., None] * right + y[..., None] * down
    rays = rays.reshape(-1, 3)
    nearest = np.full(len(rays), np.inf)
    seen = np.full(len(rays), -1)
    for number, (low, high) in enumerate([*boxes, FLOOR]):
        with np.errstate(divide="ignore"):
            ends = (np.array([low, high])[:, None] - eye) / rays
        enter, leave = ends.min(0).max(1), ends.max(0).min(1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit], seen[hit] = enter[hit], number
    known = np.isfinite(nearest)
    points = eye + np.where(known, nearest, 0)[:, None] * rays
    return Cells(points.astype(np.float32), known, SIDE, 10.0), seen


def placed(cells: Cells, mask: np.ndarray) -> Place:
    place = Place(RULE)
    place.put_prompt(0, lifted(mask, cells), cells.scale)
    return place


def winner(own, masks, ious, sight) -> tuple[int, int] | None:
    """The answer that places prefer; the first of the masks is SAM2's own, before it is blanked."""
    own_iou = ious[0] if own.any() else 0.0
    return best_answer(
        own, own_iou, np.stack(masks)[:, None], np.array(ious)[:, None], sight, SETTINGS
    )


CUBE = ((-0.5, 0.0, -0.5), (0.5, 1.0, 0.5))


def seen_walking_around(box) -> tuple[list, list]:
    """How often the true mask of a box is near its place, from the front to the back: without
    growth, and where the place grew by the true masks on the way.
    """
    angles = np.linspace(0, np.pi, 25)
    views = [view((6 * np.sin(a), 1.5, 6 * np.cos(a)), [box]) for a in angles]
    cells, seen = views[0]
    still, grown = placed(cells, seen == 0), placed(cells, seen == 0)
    for cells, seen in views:
        grown.grow(seen == 0, cells, grown.sight(cells), SETTINGS.growth)
    return [
        [place.sight(cells).precision(seen == 0) for cells, seen in views]
        for place in (still, grown)
    ]


def test_an_object_known_from_one_side_is_found_from_the_other_once_it_was_seen_on_the_way():
    box = ((-0.5, 0.0, -0.3), (0.5, 1.0, 0.3))
    still, grown = seen_walking_around(box)
    assert min(still) < SETTINGS.precision <= min(grown)


def test_bounds_of_growth_leave_out_the_far_end_of_an_object_that_is_as_deep_as_wide():
    """The price of bounds that keep a place from sliding away (docs/geometry.md)."""
    _, grown = seen_walking_around(CUBE)
    assert grown[0] > 0.9 and grown[-1] < SETTINGS.precision


def test_a_place_does_not_drift_onto_a_neighbour_whose_mask_it_is_given():
    """SAM2 jumps to the neighbour for twenty frames: the place stays where the object is."""
    neighbour = ((1.0, 0.0, -0.5), (2.0, 1.0, 0.5))
    cells, seen = view((0.5, 1.5, 6.0), [CUBE, neighbour])
    place = placed(cells, seen == 0)
    for step in range(20):
        cells, seen = view((0.5 + 0.05 * step, 1.5, 6.0), [CUBE, neighbour])
        place.grow(seen == 1, cells, place.sight(cells), SETTINGS.growth)
    sight = place.sight(cells)
    assert sight.precision(seen == 0) >= 0.8
    assert sight.precision(seen == 1) < SETTINGS.precision


def test_a_thin_object_is_placed_at_its_own_depth_not_at_what_is_behind_it():
    pole = ((-0.06, 0.0, -0.06), (0.06, 2.0, 0.06))
    wall = ((-9.0, 0.0, -5.0), (9.0, 9.0, -4.0))
    cells, seen = view((0, 1.0, 4.0), [pole, wall], target=(0, 1.0, 0))
    mask = (seen == 0).reshape(SIDE, SIDE)
    assert mask.any(0).sum() <= 3  # cells across
    place = placed(cells, mask.ravel())
    assert np.abs(place.points[:, 2]).max() < 0.5
    # A mask that is one cell too wide, as SAM2's often are.
    wide = mask | np.roll(mask, 1, 1) | np.roll(mask, -1, 1)
    place = placed(cells, wide.ravel())
    assert np.median(np.abs(place.points[:, 2])) < 0.5


def test_no_click_on_an_occluder_is_accepted_as_the_hidden_object():
    """The object is hidden but for a strip; the occluder's mask is far from the place."""
    occluder = ((-1.2, 0.0, 2.5), (0.15, 1.4, 2.7))
    cells, seen = view((0, 0.8, 6.0), [CUBE])
    place = placed(cells, seen == 0)
    cells, seen = view((0, 0.8, 6.0), [CUBE, occluder])
    sight = place.sight(cells)
    strip, in_front = seen == 0, seen == 1
    assert 6 < strip.sum() < in_front.sum() / 4
    assert is_expected(sight, SIDE, SETTINGS)
    nothing = np.zeros_like(strip)
    assert winner(nothing, [nothing, in_front, strip], [0.0, 0.95, 0.7], sight) == (2, 0)
    assert winner(nothing, [nothing, in_front], [0.0, 0.95], sight) is None
    assert sight.precision(in_front) < SETTINGS.veto


def test_a_sliver_in_the_corner_of_a_frame_is_not_asked_for():
    """A cube in the air, of which the frame's corner shows more and more."""
    floating = ((-0.5, 5.0, -0.5), (0.5, 6.0, 0.5))
    eye = (0, 5.5, 6.0)
    cells, seen = view(eye, [floating], target=(0, 5.5, 0))
    place = placed(cells, seen == 0)
    asked = {}  # cells of the cube that are seen -> whether it is asked for
    for turn in np.linspace(2.0, 4.5, 101):
        cells, seen = view(eye, [floating], target=(turn, 5.5 - turn, 0.0))
        asked[int((seen == 0).sum())] = is_expected(place.sight(cells), SIDE, SETTINGS)
    assert any(0 < shown < SETTINGS.expected_cells for shown in asked)
    assert any(shown > SETTINGS.expected_cells for shown in asked)
    for shown, is_asked in asked.items():
        assert is_asked == (shown >= SETTINGS.expected_cells), shown


def test_a_mask_that_runs_onto_the_wall_an_object_touches_loses_to_one_that_does_not():
    wall = ((-9.0, 0.0, -1.0), (9.0, 9.0, -0.5))
    cells, seen = view((0.5, 1.5, 6.0), [CUBE, wall])
    place = placed(cells, seen == 0)
    cells, seen = view((-1.0, 1.5, 6.0), [CUBE, wall])
    sight = place.sight(cells)
    right, with_wall = seen == 0, (seen == 0) | (seen == 1)
    assert winner(with_wall, [with_wall, right], [0.9, 0.8], sight) == (1, 0)
    assert winner(right, [right, with_wall], [0.8, 0.9], sight) is None
    assert not is_clear(with_wall, 0.95, sight, SETTINGS)


def test_nothing_repairs_a_wrong_first_mask_but_a_correction():
    other = ((2.0, 0.0, -0.5), (3.0, 1.0, 0.5))
    cells, seen = view((1.0, 1.5, 7.0), [CUBE, other])
    place = placed(cells, seen == 1)  # the user meant number 0
    for _ in range(5):
        place.grow(seen == 0, cells, place.sight(cells), SETTINGS.growth)
    assert place.sight(cells).precision(seen == 0) < SETTINGS.veto
    place.drop_prompt(0)
    place.put_prompt(0, lifted(seen == 0, cells), cells.scale)
    assert place.sight(cells).precision(seen == 0) == pytest.approx(1.0)
    assert place.sight(cells).precision(seen == 1) < SETTINGS.veto
