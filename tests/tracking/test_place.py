"""The points of a place and where frames show them, on synthetic geometry."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from geometry_fusion.fit import fit_crop, fit_to_square
from geometry_fusion.tracking.place import (
    FEWEST_CELLS,
    MOST_POINTS,
    Cells,
    GrowthRule,
    Place,
    cells_of,
    eroded,
    lifted,
    spread,
    thinned,
)
from geometry_fusion.tracking.places import PlaceSettings, best_answer, is_expected
from geometry_fusion.types import GeometryFrame, Tolerance

SIDE = 32
BOUNDS = GrowthRule(step=0.5, whole=1.0, reach=9.0)
RULE = Tolerance(radius=0.7, scale=0.05)


def wall(shift=(0.0, 0.0, 0.0), known=None) -> Cells:
    """A wall in front of the camera: cell (row, column) is at x = column, y = row, in units."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    points = np.stack([columns, rows, np.full_like(rows, 40)], -1).reshape(-1, 3) + shift
    known = np.ones(SIDE * SIDE, bool) if known is None else known
    return Cells(points.astype(np.float32), known, SIDE, 40.0)


def box(top, left, bottom, right) -> np.ndarray:
    """A mask [N] bool of the cells in a rectangle, ends excluded."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask.ravel()


def placed(mask=None, cells=None) -> Place:
    place = Place(RULE)
    cells = wall() if cells is None else cells
    mask = box(10, 10, 20, 20) if mask is None else mask
    place.put_prompt(0, lifted(mask, cells), cells.scale)
    return place


def test_distances_are_those_of_brute_force():
    place, cells = placed(), wall(shift=(0.4, -0.3, 0.7))
    sight = place.sight(cells)
    true = np.linalg.norm(cells.points[:, None] - place.points[None], axis=2).min(1)
    true /= place.tolerance
    inside = true < 1.5
    assert np.allclose(sight.distance[inside], true[inside], atol=1e-5) and inside.sum() > 50
    assert np.isinf(sight.distance[~inside]).all()
    assert sight.seen == pytest.approx(1.0)
    near = np.linalg.norm(cells.points[sight.near][None] - place.points[:, None], axis=2).min(1)
    assert sight.seen == pytest.approx((near < place.tolerance).mean())


def test_an_object_is_expected_where_its_place_is_seen_and_not_elsewhere():
    place, settings = placed(), PlaceSettings()
    assert is_expected(place.sight(wall()), SIDE, settings)
    assert not is_expected(place.sight(wall(shift=(200, 0, 0))), SIDE, settings)
    sliver = np.zeros((SIDE, SIDE), bool)
    sliver[10:20, 10] = True  # all but the object's left edge is hidden or unknown
    assert place.sight(wall(known=sliver.ravel())).seen < 0.6


def test_unknown_cells_are_neither_near_nor_far():
    known = ~box(10, 10, 20, 15)
    sight = placed().sight(wall(known=known))
    assert not sight.near[~known].any()
    # The mask's known half is near: the unknown half does not make it a mask of something else.
    assert sight.precision(box(10, 10, 20, 20)) == pytest.approx(1.0)
    assert sight.precision(box(10, 10, 20, 15)) == 0


def test_the_frame_without_confidence_shows_nothing():
    sight = placed().sight(wall(known=np.zeros(SIDE * SIDE, bool)))
    assert sight.seen == 0 and not sight.near.any()


def test_points_beside_the_object_are_dropped_as_outliers():
    cells = wall()
    cells.points[box(12, 12, 13, 14)] += (0, 0, 500)  # two cells that see through a hole
    points = lifted(box(10, 10, 20, 20), cells)
    assert points[:, 2].max() == 40 and len(points) == 8 * 8 - 2


def test_erosion_is_that_of_scipy_with_an_edge_that_counts_as_inside():
    random = np.random.default_rng(5)
    for share in (0.7, 0.9, 0.99):
        mask = random.random((SIDE, SIDE)) < share
        wanted = binary_erosion(mask, border_value=1)
        assert wanted.sum() >= FEWEST_CELLS
        assert np.array_equal(eroded(mask.ravel(), SIDE), wanted.ravel())


def test_small_masks_are_not_eroded_away():
    tiny = box(5, 5, 7, 7)
    assert np.array_equal(eroded(tiny, SIDE), tiny) and tiny.sum() < FEWEST_CELLS
    at_edge = box(0, 0, 4, 6)  # the edge of the image is no outline of the object
    assert eroded(at_edge, SIDE).reshape(SIDE, SIDE)[0, 0]


def test_growth_adds_a_neighbourhood_and_refuses_to_slide_away():
    place = placed()
    radius, before = place.radius, len(place.points)
    cells = wall()
    assert place.grow(box(10, 10, 20, 23), cells, place.sight(cells), BOUNDS)
    assert len(place.points) > before and place.radius == radius
    # Of a mask that reaches far beyond the place, only what lies within reach is added.
    assert place.points[:, 0].max() <= 19 + 1.5 * place.tolerance
    # Drift onto a neighbour: many points on one side would move the median.
    slid = placed(box(10, 10, 16, 16))
    earlier = slid.points.copy()
    assert not slid.grow(box(8, 16, 20, 30), cells, slid.sight(cells), GrowthRule(0.1, 1.0, 9.0))
    assert np.array_equal(slid.points, earlier)


def test_a_place_has_a_bounded_number_of_points():
    rng = np.random.default_rng(0)
    place = Place(Tolerance(0.01, 0.0))
    place.put_prompt(0, rng.normal(size=(5000, 3)).astype(np.float32), 1.0)
    assert len(place.points) == MOST_POINTS


def test_prompts_add_up_and_a_correction_replaces_what_was_learnt():
    place, cells = placed(), wall()
    place.grow(box(10, 10, 20, 23), cells, place.sight(cells), BOUNDS)
    place.put_prompt(9, lifted(box(10, 22, 20, 30), cells), cells.scale)
    assert place.points[:, 0].max() >= 28
    place.drop_prompt(9)
    assert np.array_equal(place.points, placed().points)  # growth is forgotten as well


def test_thinned_points_are_the_first_of_their_voxels():
    points = np.array([[0.1, 0, 0], [0.2, 0, 0], [1.1, 0, 0], [-0.1, 0, 0]], np.float32)
    assert thinned(points, 1.0)[:, 0].tolist() == pytest.approx([0.1, 1.1, -0.1])


def test_clicks_are_spread_over_the_object():
    cells = np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)
    clicks = spread(cells, np.array([4, 4]), 3)
    assert clicks[0].tolist() == [4, 4]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(clicks) for b in clicks[:i]]
    assert min(apart) > 5
    assert spread(cells[:1], cells[0], 3).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 96)])
def test_cells_are_read_where_the_fitted_image_lies(size):
    """Each cell's point carries its own position in the frame; cropped cells are unknown."""
    fit = fit_crop(size, 48) if size != (64, 64) else fit_to_square(size, 48)
    width, height = fit.size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    original = fit.points_back(np.stack([columns, rows], -1))
    points = np.concatenate([original, np.ones((height, width, 1))], -1)
    points = torch.from_numpy(points).permute(2, 0, 1).float()
    ones = torch.ones(height, width)
    frame = GeometryFrame((), points, points, ones, torch.tensor(1.0), None, fit)
    cells = cells_of(frame, 16)
    centres = (np.arange(16) + 0.5) / 16
    x, y = np.meshgrid(centres * size[0] - 0.5, centres * size[1] - 0.5)
    expected = np.stack([x.ravel(), y.ravel()], -1)
    pixel = max(1 / fit.scale[0], 1 / fit.scale[1])
    error = np.abs(cells.points[:, :2] - expected)[cells.known]
    assert error.max() <= pixel / 2 + 1e-4 and cells.known.mean() > 0.8
    fx, fy = fit.seen_at(0, 16), fit.seen_at(1, 16)
    inside = ((fy >= 0) & (fy < 1))[:, None] & ((fx >= 0) & (fx < 1))
    assert np.array_equal(cells.known, inside.ravel())


def test_cells_without_finite_points_or_confidence_are_unknown():
    points = torch.zeros(3, 4, 4)
    points[0, 0, 0] = torch.nan
    confidence = torch.ones(4, 4)
    confidence[1, 1] = 0
    frame = GeometryFrame(
        (), points, points, confidence, torch.tensor(1.0), None, fit_to_square((8, 8), 4)
    )
    known = cells_of(frame, 4).known.reshape(4, 4)
    assert not known[0, 0] and not known[1, 1] and known.sum() == 14


def candidates(*masks) -> np.ndarray:
    """[K, 1, N]: the first is SAM2's own, unprompted."""
    return np.stack(masks)[:, None]


def test_the_best_accepted_answer_wins_over_a_worse_own_one():
    sight, settings = placed().sight(wall()), PlaceSettings()
    right, wrong = box(10, 10, 20, 20), box(0, 24, 8, 32)
    masks = candidates(wrong, right, box(14, 14, 18, 18))
    ious = np.full((3, 1), 0.9)
    assert best_answer(wrong, 0.9, masks, ious, sight, settings) == (1, 0)
    # An own answer that is as good stays.
    assert best_answer(right, 0.9, masks, ious, sight, settings) is None
    nothing = np.zeros_like(right)
    assert best_answer(nothing, 0.0, masks, ious, sight, settings) == (1, 0)


def test_answers_elsewhere_or_of_untrained_masks_are_not_accepted():
    sight, settings = placed().sight(wall()), PlaceSettings()
    nothing = box(0, 0, 0, 0)
    elsewhere = candidates(nothing, box(0, 24, 8, 32))
    assert best_answer(nothing, 0, elsewhere, np.ones((2, 1)), sight, settings) is None
    right = candidates(nothing, box(10, 10, 20, 20))
    untrained = np.array([[1.0], [-np.inf]])
    assert best_answer(nothing, 0, right, untrained, sight, settings) is None
    assert best_answer(nothing, 0, right, np.ones((2, 1)), sight, settings) == (1, 0)


def test_the_floor_asks_for_predicted_quality_or_agreement_with_sam2():
    sight = placed().sight(wall())
    settings = PlaceSettings(least_iou=0.5, least_overlap=0.5)
    nothing, right = box(0, 0, 0, 0), box(10, 10, 20, 20)
    poor = np.array([[0.9], [0.2]])
    assert best_answer(nothing, 0, candidates(nothing, right), poor, sight, settings) is None
    agreeing = candidates(box(10, 10, 20, 19), right)  # SAM2's own mask, though it said absent
    assert best_answer(nothing, 0, agreeing, poor, sight, settings) is not None


def test_twins_closer_than_the_tolerance_cannot_be_told_apart():
    """A limit, stated in docs/geometry.md: the neighbour's mask counts as near."""
    place = Place(Tolerance(radius=0.7, scale=0.12))
    place.put_prompt(0, lifted(box(10, 10, 20, 14), wall()), 40.0)
    sight = place.sight(wall())
    assert sight.precision(box(10, 14, 20, 17)) == 1
    assert sight.precision(box(10, 26, 20, 30)) == 0
