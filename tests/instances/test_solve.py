"""From tracks to instances, on boxes whose depth and masks are exact."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from geometry_fusion.instances.cloud import fuse
from geometry_fusion.instances.lifting import lift
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.solve import solve
from geometry_fusion.instances.superpoints import superpoints_of
from tests.instances.boxes import Boxes, two_boxes

SETTINGS = InstanceSettings(voxel=0.025, lift_every=1)
PER_POINT = replace(SETTINGS, superpoints=False)


@pytest.fixture(scope="module")
def world() -> Boxes:
    return two_boxes()


@pytest.fixture(scope="module")
def cloud(world):
    frames = range(len(world.poses))
    return fuse(frames, world.view, world.image, SETTINGS.voxel, labels_of=world.ids.__getitem__)


def ious_of(instances, cloud) -> dict[int, float]:
    """Best IoU of every box with an instance."""
    best = {}
    for number in (1, 2):
        box = set(np.flatnonzero(cloud.labels == number).tolist())
        points = [set(instance.points.tolist()) for instance in instances]
        best[number] = max(len(box & p) / len(box | p) for p in points)
    return best


def frames_of(world: Boxes) -> range:
    return range(len(world.poses))


def test_two_boxes_on_a_floor_are_two_instances(world, cloud):
    tracks = [world.track(1), world.track(2)]
    superpoints = superpoints_of(cloud, SETTINGS)
    instances = solve(cloud, tracks, frames_of(world), world.view, SETTINGS, superpoints)
    assert len(instances) == 2
    assert min(ious_of(instances, cloud).values()) > 0.98
    assert {instance.tracks for instance in instances} == {(1,), (2,)}


def test_normals_point_to_the_cameras_and_out_of_the_boxes(world, cloud):
    for number, (low, high) in enumerate(world.boxes, 1):
        on_top = (cloud.labels == number) & (np.abs(cloud.points[:, 2] - high[2]) < 1e-3)
        inner = (cloud.points[:, :2] > low[:2] + 0.1).all(1)
        inner &= (cloud.points[:, :2] < high[:2] - 0.1).all(1)
        assert (on_top & inner).sum() > 20
        assert np.allclose(cloud.normals[on_top & inner], (0, 0, 1), atol=1e-3)


def noisy(world: Boxes, sigma: float):
    """Views whose depth is wrong by this share, each pixel by itself."""
    rng = np.random.default_rng(0)
    depths = [depth * rng.normal(1, sigma, depth.shape) for depth in world.depths]
    return lambda frame: replace(world.view(frame), depth=depths[frame])


def dilated(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)


def test_erosion_and_weights_keep_wide_masks_and_noisy_depth_apart(world, cloud):
    tracks = [world.track(1, dilated), world.track(2, dilated)]
    views, frames = noisy(world, 0.01), frames_of(world)

    def least_iou(settings: InstanceSettings) -> float:
        return min(ious_of(solve(cloud, tracks, frames, views, settings), cloud).values())

    assert least_iou(SETTINGS) >= 0.9
    # Superpoints repair outlines by themselves; point by point the two measures show.
    careful = least_iou(PER_POINT)
    assert least_iou(replace(PER_POINT, erosion=0.0, relative_sigma=0.0)) < careful - 0.05
    assert least_iou(replace(PER_POINT, erosion=0.0)) < careful - 0.05


def test_a_frame_whose_pose_is_wrong_by_5_cm_is_ignored(world, cloud):
    wrong = 3

    def view(frame: int):
        right = world.view(frame)
        if frame != wrong:
            return right
        pose = right.camera_to_world.copy()
        pose[:3, 3] += 0.05 * pose[:3, 2]  # along the axis: the depth no longer agrees
        return replace(right, camera_to_world=pose)

    # Near cameras: depth may be wrong by 3 cm, and its weight falls off by 1.5% of the depth.
    lifted = lift(cloud, [world.track(1), world.track(2)], frames_of(world), view, SETTINGS)
    assert lifted.ignored == [(0, wrong), (1, wrong)]
    exact = lift(cloud, [world.track(1)], frames_of(world), world.view, SETTINGS)
    assert exact.ignored == [] and exact.agreement[0] > 0.95
    # An ignored frame counts neither as inside nor as seen.
    others = [frame for frame in frames_of(world) if frame != wrong]
    without = lift(cloud, [world.track(1)], others, world.view, SETTINGS)
    assert np.array_equal(lifted.points[0], without.points[0])
    assert np.allclose(lifted.inside[0], without.inside[0])
    assert np.allclose(lifted.seen[0], without.seen[0])


def test_ids_and_order_of_tracks_change_nothing(world, cloud):
    # Two tracks of each box, so that there is something to merge, with equal starts.
    tracks = [
        world.track(1),
        world.track(2),
        world.track(1, start=4),
        world.track(2, start=4),
    ]
    tracks = [replace(track, id=number) for number, track in enumerate(tracks, 1)]
    shuffled = [replace(tracks[k], id=number) for number, k in enumerate((3, 0, 2, 1), 1)]
    one, other = (
        solve(cloud, some, frames_of(world), world.view, PER_POINT) for some in (tracks, shuffled)
    )
    assert len(one) == len(other) == 2
    for a, b in zip(one, other):
        assert np.array_equal(a.points, b.points) and a.confidence == b.confidence
    assert {i.tracks for i in one} == {(1, 3), (2, 4)}
    assert {i.tracks for i in other} == {(2, 3), (1, 4)}


def test_a_scene_in_which_nothing_was_proposed_has_no_instances(world, cloud):
    assert solve(cloud, [], frames_of(world), world.view, PER_POINT) == []
    nothing = replace(world.track(1), masks={})
    assert solve(cloud, [nothing], frames_of(world), world.view, PER_POINT) == []


def test_a_track_is_seen_only_from_its_keyframe_on(world, cloud):
    whole, late = world.track(1), world.track(1, start=8)
    lifted = lift(cloud, [whole, late], frames_of(world), world.view, SETTINGS)
    only = lift(cloud, [late], range(8, len(world.poses)), world.view, SETTINGS)
    assert np.array_equal(lifted.points[1], only.points[0])
    assert np.allclose(lifted.seen[1], only.seen[0])
    assert len(lifted.points[0]) > len(lifted.points[1])
