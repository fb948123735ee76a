"""The smaller parts: keyframes, proposals, superpoints, views, settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.fit import fit_crop
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.cloud import Cloud, fuse, scene_diameter, world_points
from geometry_fusion.instances.keyframes import coverage_keyframes, stride_keyframes
from geometry_fusion.instances.lifting import eroded
from geometry_fusion.instances.proposals import Proposal, kept_proposals, new_proposals
from geometry_fusion.instances.settings import InstanceSettings, read_settings
from geometry_fusion.instances.superpoints import segment_graph, superpoints_of
from geometry_fusion.instances.tracks import encoded
from geometry_fusion.instances.views import ViewFiles, cleaned, view_of_geometry
from geometry_fusion.types import Camera, GeometryFrame
from tests.instances.boxes import two_boxes

SETTINGS = InstanceSettings()


def box_mask(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[rows, columns] = True
    return mask


def test_keyframes_by_stride_begin_with_the_first_frame():
    assert stride_keyframes(45, 20) == [0, 20, 40]


def test_a_frame_with_little_that_was_seen_before_is_a_keyframe():
    seen = {0: [0, 1, 2, 3], 1: [1, 2, 3, 4, 5], 2: [], 3: [4, 5, 6, 7], 4: [6, 7]}
    # Frame 1: 3 of 5 are known, not less than 60%. Frame 3: none. Frame 4: all.
    as_arrays = {t: np.array(ids, int) for t, ids in seen.items()}
    assert coverage_keyframes(range(5), as_arrays.__getitem__, 8, 0.6) == [0, 3]
    assert coverage_keyframes(range(5), as_arrays.__getitem__, 8, 0.61) == [0, 1, 3]


def test_specks_and_masks_of_most_of_the_image_are_no_proposals():
    speck = Proposal(box_mask(slice(0, 3), slice(0, 3)))
    thing = Proposal(box_mask(slice(20, 40), slice(20, 40)))
    wall = Proposal(box_mask(slice(0, 70), slice(0, 100)))
    assert kept_proposals([wall, speck, thing], None, SETTINGS) == [thing]


def test_a_mask_of_two_things_at_different_depths_is_no_proposal():
    near = Proposal(box_mask(slice(10, 30), slice(10, 30)))
    far = Proposal(box_mask(slice(10, 30), slice(30, 50)))
    both = Proposal(near.mask | far.mask)
    depth = np.tile(np.linspace(1, 1.05, 100), (100, 1))
    steps = depth + 3 * far.mask
    parts = kept_proposals([near, far], steps, SETTINGS)
    assert kept_proposals([both, near, far], steps, SETTINGS) == parts
    # On one surface it may be one thing with two parts.
    assert kept_proposals([both, near, far], depth, SETTINGS) == [*parts, both]
    assert len(kept_proposals([both, near, far], None, SETTINGS)) == 3


def test_a_proposal_that_a_track_explains_opens_no_new_one():
    mask = box_mask(slice(0, 20), slice(0, 20))
    by_iou = box_mask(slice(0, 20), slice(0, 15))  # IoU 0.75, recall 0.75
    by_shares = box_mask(slice(1, 20), slice(2, 22))  # precision 0.9, recall 0.855
    by_neither = box_mask(slice(0, 20), slice(0, 10))
    proposals = [Proposal(mask)]
    for other in (by_iou, by_shares):
        assert new_proposals(proposals, [encoded(other)], SETTINGS) == []
    assert new_proposals(proposals, [encoded(by_neither)], SETTINGS) == proposals
    assert new_proposals(proposals, [], SETTINGS) == proposals


def test_erosion_takes_a_disc_and_leaves_the_border_of_the_image():
    mask = box_mask(slice(0, 40), slice(10, 50))
    assert np.array_equal(eroded(mask, 0.01), box_mask(slice(0, 39), slice(11, 49)))
    assert np.array_equal(eroded(mask, 0.05), box_mask(slice(0, 38), slice(12, 48)))
    assert eroded(mask, 0.0) is mask


def slow_segments(count, edges, weights, scale, least) -> list[int]:
    """Felzenszwalb and Huttenlocher with sets."""
    segments = {k: {k} for k in range(count)}
    heaviest = dict.fromkeys(range(count), 0.0)
    order = sorted(range(len(edges)), key=lambda e: weights[e])

    def of(point):
        return next(name for name, members in segments.items() if point in members)

    def join(one, other, weight):
        segments[one] |= segments.pop(other)
        heaviest[one] = weight

    for edge in order:
        one, other = map(of, edges[edge])
        limits = [heaviest[s] + scale / len(segments[s]) for s in (one, other)]
        if one != other and weights[edge] <= min(limits):
            join(one, other, weights[edge])
    for edge in order:
        one, other = map(of, edges[edge])
        if one != other and min(len(segments[one]), len(segments[other])) < least:
            join(one, other, 0.0)
    names: dict[int, int] = {}
    return [names.setdefault(of(point), len(names)) for point in range(count)]


@pytest.mark.parametrize("seed", range(8))
def test_graph_segments_are_those_of_the_method_written_out(seed):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 40, (150, 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    weights = rng.random(len(edges)) * 0.3
    ours = segment_graph(40, edges, weights, 0.3, 3)
    assert ours.tolist() == slow_segments(40, edges.tolist(), weights.tolist(), 0.3, 3)


def test_superpoints_do_not_cross_from_a_box_to_the_floor():
    world = two_boxes(8, side=128)
    labels = world.ids.__getitem__
    cloud = fuse(range(8), world.view, world.image, 0.03, labels_of=labels)
    segment = superpoints_of(cloud, SETTINGS)
    assert segment.max() < len(cloud) / 10
    table = np.zeros((segment.max() + 1, 3))
    np.add.at(table, (segment, cloud.labels), 1)
    assert table.max(1).sum() / table.sum() > 0.99
    alone = superpoints_of(cloud, replace(SETTINGS, superpoints=False))
    assert np.array_equal(alone, np.arange(len(cloud)))


def test_labels_of_the_cloud_are_the_majority_of_its_pixels():
    view = PosedView(np.ones((2, 3)), np.eye(4), two_boxes(1).view(0).lens)
    labels = np.array([[1, 2, 2], [1, 1, 2]])
    image = np.zeros((2, 3, 3), np.uint8)
    cloud = fuse([0], lambda t: view, lambda t: image, 10.0, labels_of=lambda t: labels)
    # x and y are negative for all pixels, so that one voxel has them all: 1 and 2 are as frequent.
    assert len(cloud) == 1 and cloud.labels.tolist() == [1]


def geometry_of(world, frame: int) -> GeometryFrame:
    """What MUSt3R would say of a frame if it knew everything: a crop, and its own rays."""
    side = world.side
    fit = fit_crop((side, side - 20), side // 2, 16)
    width, height = fit.size
    focal, pose = 140.0, world.poses[frame]
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    depth = np.random.default_rng(frame).uniform(1, 3, (height, width))
    rays = np.stack([x / (focal * fit.scale[0]), y / (focal * fit.scale[1]), np.ones_like(x)])
    points = np.einsum("ij,jhw->ihw", pose[:3, :3], rays * depth) + pose[:3, 3, None, None]
    sure = torch.ones(height, width)
    sure[0, 0] = 0
    return GeometryFrame(
        (),
        torch.from_numpy(points),
        torch.zeros(3, 1, 1),
        sure,
        torch.tensor(1.0),
        Camera(focal, torch.from_numpy(pose)),
        fit,
    )


def test_a_view_of_must3r_gives_its_points_back():
    world = two_boxes(3)
    geometry = geometry_of(world, 1)
    view = view_of_geometry(geometry)
    points, rows, columns = world_points(view)
    left, top = geometry.fit.crop
    expected = geometry.points.numpy()[:, rows - top, columns - left].T
    assert np.allclose(points, expected, atol=1e-5)
    assert len(points) == geometry.confidence.numel() - 1  # all but the one that is not sure
    assert view.picture_size == geometry.fit.original


def test_unsure_pixels_and_steps_in_depth_are_left_out():
    depth = np.full((6, 8), 2.0)
    depth[:, 4:] = 2.19  # a step of 9.5%
    depth[0, 0] = 1.0
    sure = np.full((6, 8), 0.5)
    sure[5, 7] = 0.1
    view = PosedView(depth, np.eye(4), two_boxes(1).view(0).lens, sure)
    assert cleaned(view, SETTINGS) is view and cleaned(None, SETTINGS) is None
    learned = read_settings(learned=True)
    assert (learned.least_confidence, learned.depth_step) == (0.15, 0.1)
    left = cleaned(view, learned)
    unknown = np.argwhere(left.sureness() == 0).tolist()
    assert unknown == [[0, 0], [0, 1], [1, 0], [1, 1], [5, 7]]
    assert (cleaned(view, replace(learned, depth_step=0.05)).sureness()[:, 3:5] == 0).all()
    assert len(world_points(left)[0]) == 43


def test_views_on_disk_are_the_same_views(tmp_path):
    views = [view_of_geometry(geometry_of(two_boxes(3), 1)), None]
    files = ViewFiles(tmp_path / "views")
    assert not files.is_complete
    files.write(views)
    assert files.is_complete and files[1] is None
    assert np.array_equal(files[0].depth, views[0].depth)
    assert np.allclose(files[0].confidence, views[0].confidence)
    assert np.array_equal(files[0].lens.k, views[0].lens.k)
    assert files[0].picture_size == views[0].picture_size


def test_the_diameter_of_a_scene_scales_its_lengths():
    world = two_boxes(4, side=64)
    diameter = scene_diameter([world.view(t) for t in range(4)] + [None])
    assert 3 < diameter < 6  # the floor's diagonal is 5.7 m
    settings = SETTINGS.with_voxel(0.01)
    assert settings.voxel == 0.01 and settings.tolerance == pytest.approx(0.015)
    assert settings.part_voxel == pytest.approx(0.025) and settings.contained == 0.8
    with pytest.raises(InputError, match="no frame has depth"):
        scene_diameter([None])


def test_settings_are_read_and_checked(tmp_path):
    assert read_settings().points_per_side == 32
    assert read_settings(tiny=True).points_per_side == 16
    file = tmp_path / "mine.yaml"
    file.write_text("merge_at: 0.4\nstride: 7\n")
    chosen = read_settings(True, file, stride=9)
    assert (chosen.merge_at, chosen.stride, chosen.points_per_side) == (0.4, 9, 16)
    for text, part in (("merge: 1", "unknown key"), ("merge_at: 2", "merge_at=2: cannot be used")):
        file.write_text(text)
        with pytest.raises(InputError, match=f"mine.yaml: .*{part}"):
            read_settings(file=file)


def test_an_empty_cloud_is_refused():
    empty = PosedView(np.zeros((4, 4)), np.eye(4), two_boxes(1).view(0).lens)
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="no frame has depth"):
        fuse([0], lambda t: empty, lambda t: image, 0.02)
    assert len(Cloud(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8))) == 0
