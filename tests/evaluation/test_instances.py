"""Scores of 3D instances by hand, and MUSt3R's geometry beside the true one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from geometry_fusion.data.scenes import Scene, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.instance_geometry import LearnedGeometry
from geometry_fusion.evaluation.instance_rooms import InstanceRoom
from geometry_fusion.evaluation.instance_scores import measures, scores_of
from geometry_fusion.evaluation.instances import arguments, differences
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.solve import Instance, solve

LABELS = np.repeat([0, 1, 2, 3], 100)  # points 100..199 are object 1, and so on
AREAS = np.ones((12, 4), int)
AREAS[4:8, 3] = 0  # object 3 leaves and comes back


def scene(twins: bool = True):
    objects = [SceneObject(1, "a"), SceneObject(2, "b", 1 if twins else None), SceneObject(3, "c")]
    return SimpleNamespace(objects=objects, areas=AREAS, motions={})


def scored(*parts, twins: bool = True) -> dict[str, float]:
    """Measures of instances given as ranges of points."""
    instances = [Instance(np.concatenate([np.arange(*p) for p in part]), 1.0, ()) for part in parts]
    return measures([scores_of(scene(twins), LABELS, instances, 50)])


def test_objects_that_are_found_exactly():
    values = scored([(100, 200)], [(200, 300)], [(300, 400)])
    assert values["ap"] == values["ap50"] == values["ap25_ranked"] == 1
    assert values["twins_merged"] == 0 and values["returned"] == 1 and values["fragments"] == 1


@pytest.mark.parametrize("share, merged", [(20, 1), (19, 0)])
def test_twins_are_merged_from_a_fifth_of_both_on(share, merged):
    assert scored([(100, 200), (200, 200 + share)])["twins_merged"] == merged
    assert np.isnan(scored([(100, 300)], twins=False)["twins_merged"])


def test_parts_of_an_object_are_counted_as_fragments():
    # Two parts of object 3; an instance with less than half of its points on it is none.
    values = scored([(300, 350)], [(350, 400)], [(0, 60), (100, 140)])
    assert values["fragments"] == 2 and values["returned"] == 0
    assert values["ap50"] == 0 and values["ap25"] > 0


def test_gains_are_those_of_paired_draws():
    drawn = {"a": [0, 1], "a without time": [0, 0], "b": [0.1, 1]}
    draws = {name: {"ap50": np.array(values)} for name, values in drawn.items()}
    means = {"a": 0.5, "a without time": 0.0, "b": 0.6}
    results = {name: {"measures": {"ap50": value}} for name, value in means.items()}
    gains = differences(draws, results)
    assert list(gains) == ["a without time - a", "b - a"]
    gain = gains["b - a"]
    assert gain["ap50"] == pytest.approx(0.1) and -1e-9 <= gain["low"] <= gain["high"] <= 0.1 + 1e-9


def test_own_points_are_those_of_must3r():
    assert arguments(["--seeds", "1:2", "--geometry", "must3r", "--points", "own"]).points == "own"
    with pytest.raises(InputError, match="--points own: are those of --geometry must3r"):
        arguments(["--seeds", "1:2", "--points", "own"])


@pytest.fixture(scope="module")
def room(rooms, tmp_path_factory) -> InstanceRoom:
    settings = InstanceSettings(voxel=0.05, fuse_every=1, lift_every=1, stride=3, least_points=20)
    return InstanceRoom(
        Scene(sorted(rooms.glob("room_*"))[0]), settings, tmp_path_factory.mktemp("c")
    )


def test_true_tracks_find_the_objects_of_a_room_again(room):
    ground = room.ground("scan", "true")
    instances = solve(
        ground.cloud,
        room.true_tracks(),
        range(len(room.scene)),
        ground.view_of,
        ground.settings,
        ground.superpoints,
    )
    values = measures([scores_of(room.scene, ground.cloud.labels, instances, 100)])
    assert values["ap25"] > 0.7 and values["fragments"] < 1.3


def test_errors_of_points_are_measured_in_metres(room):
    frames = range(len(room.scene))
    exact = LearnedGeometry(room.scene, [room.true_view(t) for t in frames], room.true_view)
    assert exact.errors.distance < 1e-6 and 0.2 < exact.errors.size < 3
    shifted = []
    for view in exact.views:
        pose = view.camera_to_world.copy()
        pose[:3, 3] += (0.3, 0.0, 0.4)
        shifted.append(replace(view, camera_to_world=pose))
    off = replace(exact, views=shifted).errors
    assert off.distance == pytest.approx(0.5) and off.size == exact.errors.size
    assert "% of objects' size" in str(off)


@pytest.mark.slow
def test_points_of_must3r_are_labelled_by_pixels(room):
    """Computed once; the alignment brings the cloud near the true one, its labels need none."""
    ground = room.ground("must3r", "own")
    assert len(list(room.cache.glob("*_must3r_views_*.npz"))) == 1
    assert ground.settings.part_voxel == pytest.approx(ground.settings.voxel)  # as in `room`
    assert set(np.unique(ground.cloud.labels)) <= {0, *(o.id for o in room.scene.objects)}
    assert (ground.cloud.labels > 0).mean() > 0.01
    known = room.ground("must3r", "true")
    assert known.cloud is room.cloud and known.view_of(0) is ground.view_of(0)
    assert np.abs(np.median(ground.cloud.points - np.median(room.cloud.points, 0), 0)).max() < 2
