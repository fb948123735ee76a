"""The evaluation of photos: sets of cameras by overlap, and scores, against hand cases."""

from types import SimpleNamespace

import numpy as np
import pytest

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation import photos as command
from geometry_fusion.evaluation.photo_rooms import (
    HEIGHTS_M,
    REGIMES,
    best_overlaps,
    chosen_set,
    drawn_cameras,
    overlaps_of,
    pose_of,
    true_view,
)
from geometry_fusion.evaluation.photo_scores import (
    PhotoSet,
    positive_iou,
    presence,
    tables,
    twin_error,
)


def turned(degrees: float):
    """A camera in the middle of a round room with walls 4 m away, seeing 90 degrees."""
    side = 64
    columns = (np.arange(side) + 0.5 - side / 2) / (side / 2)
    depth = np.tile(4 / np.hypot(1, columns), (side, 1))
    return true_view(depth, pose_of(np.zeros(3), np.radians(degrees), 0.0), side / 2)


def test_overlaps_are_the_share_of_the_view_that_is_left():
    overlaps = overlaps_of([turned(degrees) for degrees in (0, 22.5, 45, 180)])
    assert np.array_equal(overlaps, overlaps.T)
    # Columns within 45 degrees of an axis are tan(angle) of them, and rows do not change.
    share = (1 - np.tan(np.radians(-22.5))) / 2
    assert overlaps[0, 1] == pytest.approx(share, abs=0.06)
    assert overlaps[0, 2] == pytest.approx(0.5, abs=0.06)
    assert overlaps[0, 3] == 0


@pytest.mark.parametrize("regime", REGIMES)
def test_sets_stay_between_the_bounds_of_their_regime(regime):
    draw = np.random.default_rng(0)
    places = draw.uniform(0, 3, (200, 2))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    overlaps = np.clip(1 - apart, 0, 1)
    low, high = REGIMES[regime]
    chosen = chosen_set(overlaps, 6, (low, high), np.random.default_rng(1))
    assert len(set(chosen)) == 6
    best = best_overlaps(overlaps[np.ix_(chosen, chosen)])
    assert best.min() >= low and best.max() <= high
    assert chosen_set(np.eye(20), 2, (low, high), np.random.default_rng(1)) is None


def test_cameras_are_clear_of_objects_and_walls():
    things = [SimpleNamespace(position=at, radius=0.5) for at in ((1, 1), (-2, 0.5), (0, -2))]
    layout = SimpleNamespace(size=(6.0, 7.0, 3.0), objects=things)
    cameras = drawn_cameras(layout, np.random.default_rng(0))
    places = np.array([place for place, _, _ in cameras])
    for thing in layout.objects:
        assert np.hypot(*(places[:, :2] - thing.position).T).min() >= thing.radius + 0.4
    assert (np.abs(places[:, :2]) <= np.array(layout.size[:2]) / 2 - 0.4).all()
    assert places[:, 2].min() >= HEIGHTS_M[0] and places[:, 2].max() <= HEIGHTS_M[1]


@pytest.fixture(scope="module")
def photos(rooms) -> PhotoSet:
    return PhotoSet(Scene(sorted(rooms.glob("room_*"))[0]), "clip", 8)


def test_true_masks_score_one_and_masks_of_the_twin_are_twin_errors(photos):
    objects = photos.objects(20)
    masks = {i: [photos.truth(i, at) for at in range(len(photos))] for i in objects}
    records = photos.scores(objects, masks)
    assert objects and [positive_iou(r) for r in records] == [1.0] * len(objects)
    assert all(presence(r) == 1 and twin_error(r) in (0, None) for r in records)
    twin_of = {o.id: o.twin_of for o in photos._scene.objects if o.twin_of}
    one = next(i for i in objects if i in twin_of)
    on_twin = [photos.truth(twin_of[one], at) for at in range(len(photos))]
    record = photos.scores([one], {one: on_twin})[0]
    shown = [on_twin[at].any() for at in range(len(photos)) if at != photos.prompted(one)]
    assert twin_error(record) == pytest.approx(np.mean(shown))


def record(arm: str, ious: list[float], found: list[bool], areas: list[float]) -> dict:
    parts = zip(ious, found, areas)
    photos = [
        {"iou": iou, "found": mask, "area": area, "on_twin": 0.0, "angle": 30.0}
        for iou, mask, area in parts
    ]
    return {
        "arm": arm,
        "set": "room/sparse/4",
        "kind": "sparse",
        "photos_in_set": 4,
        "object": 3,
        "has_twin": False,
        "photos": photos,
    }


def test_scores_equal_the_hand_result():
    # Found; missed; a mask without the object; so little of it that it counts as neither.
    areas = [0.1, 0.1, 0.0, 0.001]
    one = record("photos", [0.6, 0.0, 0.0, 0.0], [True, False, True, True], areas)
    other = record("shuffled fifo", [0.2, 0.0, 1.0, 0.0], [True, False, False, True], areas)
    assert positive_iou(one) == pytest.approx(0.3)
    assert presence(one) == pytest.approx(2 / 4) and presence(other) == pytest.approx(2 / 3)
    text = tables([one, other], ["shuffled fifo", "photos"])
    assert "sparse, 4 photos: 1 objects in 1 sets" in text
    assert "photos - shuffled fifo: +0.200" in text


def test_arguments_that_cannot_be_used_are_refused(refuse):
    line = refuse(command, "--seeds", "5:6", "--sets", "thick")
    assert "--sets thick: unknown; choose of dense" in line
    assert "--arms xyz" in refuse(command, "--seeds", "5:6", "--arms", "xyz")
    assert "have no order" in refuse(command, "--seeds", "5:6", "--arms", "video,photos")


@pytest.mark.slow
def test_a_set_is_evaluated_once_and_then_read_from_its_records(tmp_path, capsys):
    arguments = ["--seeds", "100060:100061", "--sets", "medium", "--photos", "4", "--objects", "1"]
    arguments += ["--arms", "sam2 shuffled fifo,photos", "--out", str(tmp_path)]
    command.main(arguments)
    file = tmp_path / "objects.jsonl"
    first, lines = capsys.readouterr().out, file.read_bytes()
    assert "medium, 4 photos: 1 objects in 1 sets" in first
    command.main(arguments)
    assert capsys.readouterr().out == first and file.read_bytes() == lines
    file.write_bytes(lines[:-20])  # as a kill leaves it
    command.main(arguments)
    assert capsys.readouterr().out.splitlines()[1:] == first.splitlines()
    assert file.read_bytes().count(b"\n") == 3
