"""Which frames make a clip: the field-of-view rule against brute force, orders, fallbacks; subsets
of an evaluation.
"""

import numpy as np
import pytest

from geometry_fusion.data.sampling import (
    accepted_by_view,
    continuous_frames,
    fov_frames,
    random_frames,
    share_in_view,
    tracking_order,
)
from geometry_fusion.data.scenes import Scene, SceneFrame, SceneObject, find_scenes
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.objects import Reappear, Track, spans, tracks_of
from geometry_fusion.io.mask_writer import write_mask


def test_tracking_goes_forwards_then_backwards():
    assert tracking_order(2, 5) == [2, 3, 4, 1, 0]
    assert tracking_order(0, 3) == [0, 1, 2]


def look(yaw_deg=0.0, at=(0, 0, 0)):
    yaw = np.radians(yaw_deg)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    pose[:3, 3] = at
    return pose, np.array([[10.0, 0, 9.5], [0, 10.0, 9.5], [0, 0, 1]])


@pytest.mark.parametrize("yaw", [0, 20, 45, 80, 180])
def test_share_in_view_equals_brute_force(yaw):
    rng = np.random.default_rng(yaw)
    mask, depth = rng.random((20, 20)) < 0.5, rng.uniform(1, 4, (20, 20))
    depth[rng.random((20, 20)) < 0.1] = 0
    camera, reference = look(10, (0.3, 0, 0)), look(yaw)
    inside = total = 0
    for y in range(0, 20, 3):
        for x in range(0, 20, 3):
            if mask[y, x] and depth[y, x] > 0:
                total += 1
                world = camera[0] @ [*(np.linalg.inv(camera[1]) @ [x, y, 1] * depth[y, x]), 1]
                local = (np.linalg.inv(reference[0]) @ world)[:3]
                u, v, w = reference[1] @ local
                inside += bool(w > 0 and -0.5 <= u / w < 19.5 and -0.5 <= v / w < 19.5)
    assert share_in_view(mask, depth, camera, reference, (20, 20)) == pytest.approx(inside / total)


def test_share_in_view_of_nothing_and_of_a_single_pixel():
    depth = np.full((20, 20), 2.0)
    camera = look()
    assert share_in_view(np.zeros((20, 20), bool), depth, camera, camera, (20, 20)) == 0
    assert share_in_view(depth > 0, depth * 0, camera, camera, (20, 20)) == 0
    single = np.zeros((20, 20), bool)
    single[7, 8] = True  # between the pixels that are looked at first
    assert share_in_view(single, depth, camera, camera, (20, 20)) == 1


def test_clips_start_with_the_reference_and_keep_tracking_order():
    order = tracking_order(4, 12)
    position = {frame: i for i, frame in enumerate(order)}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for frames in (
            random_frames(rng, order, 6),
            fov_frames(rng, order, 6, lambda frame: frame % 4 != 3),
            continuous_frames(rng, order, 6, (1, 2)),
        ):
            assert frames[0] == 4 and len(set(frames)) == 6
            assert [position[f] for f in frames] == sorted(position[f] for f in frames)
    picked = {
        f
        for seed in range(30)
        for f in fov_frames(np.random.default_rng(seed), order, 6, lambda f: f % 4 != 3)
    }
    assert not any(f % 4 == 3 for f in picked)
    assert fov_frames(np.random.default_rng(0), order, 6, lambda frame: frame < 3) is None
    assert continuous_frames(np.random.default_rng(0), order, 6, (2, 2)) == order[:11:2]
    assert (
        continuous_frames(np.random.default_rng(0), order, 6, (9, 9)) == order[:11:2]
    )  # short walks: smaller steps


@pytest.fixture
def turning(tmp_path) -> Scene:
    """Ten frames of a camera that turns away from a square and comes back; id 2 is its twin, id 3
    always there.
    """
    frames = []
    for index, yaw in enumerate((0, 5, 10, 50, 90, 130, 90, 10, 5, 0)):
        instance = np.zeros((20, 20), np.uint16)
        if yaw <= 10:
            instance[5:12, 5:12] = 1
        if 50 <= yaw < 130:
            instance[3:9, 3:9] = 2
        instance[15:, 15:] = 3
        depth = np.full((20, 20), 2.0)
        pose, k = look(yaw)
        rgb = np.full((20, 20, 3), 90, np.uint8)
        frames.append(
            SceneFrame(
                f"{index:06d}", rgb, instance, depth, pose, (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
            )
        )
    objects = [SceneObject(1, "square"), SceneObject(2, "square", 1), SceneObject(3, "sign")]
    write_scene(tmp_path / "turning", frames, objects)
    return Scene(tmp_path / "turning")


def test_the_view_rule_keeps_absence_and_drops_other_places(turning):
    accepts = accepted_by_view(turning, 0, 1, tau=0.25)
    assert [accepts(i) for i in range(10)] == [
        True
    ] * 10  # near the reference, or the object is absent
    # The sign turns with the camera: seen from frame 0 it lies elsewhere as soon as the camera
    # turned far.
    accepts = accepted_by_view(turning, 0, 3, tau=0.25)
    assert accepts(1) and not accepts(4) and not accepts(5)


def test_subsets_follow_their_definitions(turning):
    assert spans(turning.areas[:, 1] > 0) == [(0, 3), (7, 10)]
    assert Track(turning, 1).subsets == ("all", "reappear", "twins")
    assert Track(turning, 2).subsets == (
        "all",
        "twins",
    )  # three frames in all, none of its spans is long enough twice
    assert Track(turning, 3).subsets == ("all",)
    assert [t.object_id for t in tracks_of([turning], min_area=40)] == [1]
    assert [t.object_id for t in tracks_of([turning], min_area=1, subset="twins")] == [1, 2]
    assert len(tracks_of([turning], min_area=1, at_most=2)) == 2


@pytest.mark.parametrize(
    ("spans_wanted", "frames_wanted"), [(2, 3), (1, 1), (2, 1), (3, 1), (2, 4), (3, 2), (1, 9)]
)
def test_what_reappears_equals_counting_frame_by_frame(turning, spans_wanted, frames_wanted):
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(60):
        visible = rng.random(24) < rng.choice([0.04, 0.4, 0.7, 0.9])
        long, run = 0, 0
        for here in [*visible, False]:
            long += not here and run >= frames_wanted
            run = run + 1 if here else 0
        track = Track(turning, 1, Reappear(spans_wanted, frames_wanted))
        track.__dict__["areas"] = visible * 7  # in place of the scene's pixels
        assert ("reappear" in track.subsets) == (long >= spans_wanted)
        found.add("reappear" in track.subsets)
    assert found == {True, False}


def test_what_reappears_may_be_chosen(turning):
    def of(*wanted):
        tracks = tracks_of([turning], 1, "reappear", reappear=Reappear(*wanted))
        return [track.object_id for track in tracks]

    # Object 1 is seen in frames 0-2 and 7-9, object 2 in 3, 4 and 6, object 3 always.
    assert (of(), of(2, 1), of(1, 3), of(1, 4), of(2, 4)) == ([1], [1, 2], [1, 3], [3], [])


def test_scenes_without_an_object_list_have_no_twins(turning):
    (turning.folder / "scene.json").unlink()
    assert Track(Scene(turning.folder), 1).subsets == ("all", "reappear")
    (turning.folder / "scene.json").write_text("[]")
    with pytest.raises(InputError, match=r"scene\.json: not a list of objects"):
        Track(Scene(turning.folder), 1).subsets  # noqa: B018


def test_depth_of_another_size_than_the_camera_is_refused(turning):
    write_mask(turning.folder / "depth/000000.png", np.ones((10, 10), bool))
    with pytest.raises(InputError, match=r"depth is 10x10, cameras\.json says 20x20"):
        Track(turning, 1).viewpoint_change()


def test_facts_per_frame(turning):
    track = Track(turning, 1)
    assert track.prompt_frame == 0
    assert track.frames_out_of_view().tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4, 4]
    assert np.allclose(track.viewpoint_change(), 0, atol=1e-3)  # the camera turns on the spot


def test_viewpoint_change_is_the_angle_at_the_object(rooms):
    scene = Scene(find_scenes(rooms)[0])
    track = tracks_of([scene], min_area=20)[0]
    change = track.viewpoint_change()
    assert change[track.prompt_frame] == 0 and (change >= 0).all() and change.max() > 0
