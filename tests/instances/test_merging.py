"""When fragments are one thing: hand cases of overlap in space and in time."""

from dataclasses import replace

import numpy as np
import pytest

from geometry_fusion.instances.affinity import affinities, cloud_overlap, mask_overlap
from geometry_fusion.instances.cloud import Cloud
from geometry_fusion.instances.fragments import large_parts
from geometry_fusion.instances.lifting import Lifted
from geometry_fusion.instances.merging import agglomerate
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import MaskTrack, decoded, encoded, intersections
from geometry_fusion.instances.votes import owners

SETTINGS = InstanceSettings()
LEFT = np.zeros((20, 20), bool)
LEFT[5:15, 0:8] = True
RIGHT = LEFT[:, ::-1].copy()


def line(count: int) -> Cloud:
    """Points 1 cm apart."""
    points = np.zeros((count, 3))
    points[:, 0] = np.arange(count) * 0.01
    return Cloud(points, np.tile([0.0, 0, 1], (count, 1)), np.zeros((count, 3), np.uint8))


def track(number: int, start: int, stop: int, masks: dict) -> MaskTrack:
    """masks: mask -> the frames that have it."""
    encodings = {t: encoded(mask) for mask, frames in masks.values() for t in frames}
    return MaskTrack(number, start, stop, masks=encodings)


def groups_of(tracks, fragments, settings=SETTINGS, count=200):
    space = cloud_overlap(line(count), fragments, settings.part_voxel)
    affinity, apart = affinities(space, mask_overlap(tracks), settings)
    return agglomerate(affinity, apart, settings.merge_at)


@pytest.mark.parametrize("common, expected", [(5, [[0], [1]]), (4, [[0, 1]])])
def test_twins_that_are_apart_in_five_frames_are_never_merged(common, expected):
    """They share no keyframe, and their clouds overlap fully: one of them was lifted wrongly."""
    one = track(1, 0, 20, {"left": (LEFT, range(20))})
    other = track(2, 20 - common, 20, {"right": (RIGHT, range(20 - common, 20))})
    both = [np.arange(100), np.arange(100)]
    # In time they have nothing in common, so that half of the affinity is left: just enough.
    assert groups_of([one, other], both) == expected
    free = replace(SETTINGS, use_apart=False)
    assert groups_of([one, other], both, free) == [[0, 1]]


def test_two_proposals_of_one_keyframe_are_two_things():
    tracks = [track(1, 0, 1, {"a": (LEFT, [0])}), track(2, 0, 1, {"b": (RIGHT, [0])})]
    assert groups_of(tracks, [np.arange(100), np.arange(100)]) == [[0], [1]]


def test_a_thing_that_left_and_came_back_is_one_instance():
    first = track(1, 0, 81, {"a": (LEFT, [*range(21), *range(60, 81)])})
    second = track(2, 60, 81, {"a": (LEFT, range(60, 81))})
    fragments = [np.arange(0, 100), np.arange(40, 140)]  # other sides of it: IoU 0.43
    assert groups_of([first, second], fragments) == [[0, 1]]


@pytest.mark.parametrize("shared, expected", [(75, [[0, 1]]), (57, [[0], [1]])])
def test_without_common_frames_the_clouds_decide(shared, expected):
    one = track(1, 0, 20, {"a": (LEFT, range(20))})
    other = track(2, 20, 40, {"b": (RIGHT, range(20, 40))})
    fragments = [np.arange(0, 100), np.arange(100 - shared, 200 - shared)]
    iou = shared / (200 - shared)
    assert iou == pytest.approx(0.6 if len(expected) == 1 else 0.4, abs=0.01)
    assert groups_of([one, other], fragments) == expected


def test_fragments_without_a_common_voxel_are_not_merged():
    tracks = [track(1, 0, 5, {"a": (LEFT, range(5))}), track(2, 0, 5, {"a": (LEFT, range(5))})]
    assert groups_of(tracks, [np.arange(0, 60), np.arange(100, 160)]) == [[0], [1]]


def test_overlaps_are_those_of_the_decoded_masks():
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 40)) < share for share in (0.1, 0.5, 0.9)]
    shared = intersections([encoded(mask) for mask in masks])
    assert np.array_equal(shared, [[(a & b).sum() for b in masks] for a in masks])
    assert all(np.array_equal(decoded(encoded(mask)), mask) for mask in masks)
    tracks = [
        MaskTrack(1, 0, 3, masks={0: encoded(masks[0]), 1: encoded(masks[1])}),
        MaskTrack(2, 1, 3, masks={1: encoded(masks[2]), 2: encoded(masks[0])}),
    ]
    time = mask_overlap(tracks)
    # Common frames are 1 and 2; in frame 2 the first track has no mask.
    inside = (masks[1] & masks[2]).sum()
    union = (masks[1] | masks[2]).sum() + masks[0].sum()
    assert time.iou[0, 1] == pytest.approx(inside / union)
    assert time.contained[0, 1] == pytest.approx(inside / masks[1].sum())
    assert time.both_present[0, 1] == 1


def test_average_linkage_joins_the_closest_pair_first_and_respects_cannot_link():
    affinity = np.array([[1, 0.9, 0.6], [0.9, 1, 0.2], [0.6, 0.2, 1]])
    apart = np.zeros((3, 3), bool)
    # After the first two are joined, the third has a mean of 0.4 with them.
    assert agglomerate(affinity, apart, 0.5) == [[0, 1], [2]]
    assert agglomerate(affinity, apart, 0.4) == [[0, 1, 2]]
    apart[0, 1] = apart[1, 0] = True
    assert agglomerate(affinity, apart, 0.3) == [[0, 2], [1]]
    assert agglomerate(np.zeros((0, 0)), np.zeros((0, 0), bool), 0.5) == []


def test_of_equal_affinities_the_smaller_members_are_joined():
    affinity = np.array([[1, 0.7, 0.7], [0.7, 1, 0.0], [0.7, 0.0, 1]])
    assert agglomerate(affinity, np.zeros((3, 3), bool), 0.5) == [[0, 1], [2]]


def lifted_of(points, inside, most_seen) -> Lifted:
    return Lifted(points, inside, inside, np.array(most_seen, float), np.ones(len(points)), [])


def test_a_superpoint_with_equal_votes_goes_to_the_first_instance():
    points = [np.array([0, 1]), np.array([0, 1, 2])]
    lifted = lifted_of(points, [np.array([2.0, 1.0]), np.array([1.0, 2.0, 3.0])], [3, 3, 3])
    superpoints = np.array([0, 0, 1])
    assert owners(superpoints, [[0], [1]], lifted, 0.3).tolist() == [0, 0, 1]
    assert owners(superpoints, [[1], [0]], lifted, 0.3).tolist() == [0, 0, 0]


def test_a_superpoint_with_few_votes_goes_to_nobody():
    lifted = lifted_of([np.array([0])], [np.array([1.0])], [5, 5])
    assert owners(np.array([0, 0]), [[0]], lifted, 0.3).tolist() == [-1, -1]
    assert owners(np.array([0, 1]), [[0]], lifted, 0.2).tolist() == [0, -1]


def test_small_parts_far_from_the_rest_are_left_out():
    points = np.concatenate([line(100).points, line(12).points + 5, line(8).points + 9])
    kept = large_parts(points, np.arange(120), 0.05, 0.1)
    assert kept.tolist() == list(range(112))
