"""Measures of motion detection, and the command on two small rooms."""

import numpy as np
import pytest

from geometry_fusion.data import moving_rooms
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation import motion
from geometry_fusion.evaluation.motion_inputs import MotionInputs
from geometry_fusion.evaluation.motion_objects import MotionObject, objects_of, subset_of
from geometry_fusion.evaluation.motion_scores import (
    auroc,
    average_precision,
    calibrated,
    recall_at,
    summary,
)
from geometry_fusion.evaluation.objects import tracks_of
from geometry_fusion.motion.pairs import PairEvidence
from geometry_fusion.motion.settings import MotionSettings


def test_curves_have_known_values():
    positives, negatives = np.array([3.0, 2.0, 0.5]), np.array([2.0, 1.0, 0.0, 0.0])
    assert auroc(positives, negatives) == pytest.approx((4 + 3.5 + 2) / 12)
    assert average_precision(positives, negatives) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert recall_at(positives, negatives, 0.0) == pytest.approx(1 / 3)  # above 2.0
    assert recall_at(positives, negatives, 0.25) == pytest.approx(2 / 3)  # one may be wrong
    assert recall_at(positives, negatives, 1.0) == 1


def item(subset, rho, *, twins=False, beside=False, speed=0.5) -> MotionObject:
    pairs = tuple(PairEvidence(i, i + 4, 10.0, rho, 10.0, rho, "rigid", 0.2) for i in range(6))
    subsets = ("all", "twins") if twins else ("all",)
    kind = "none" if subset == "static" else "translate"
    moved = 1.0 if subset == "dyn_visible" else 0.0
    return MotionObject("room/1", kind, speed, subset, moved, beside, subsets, pairs)


def test_the_summary_counts_what_it_says():
    objects = [
        item("dyn_visible", 0.2),
        item("dyn_visible", 0.0, speed=0.02),
        item("static", 0.0, twins=True),
        item("static", 0.2, beside=True),
        item("dyn_unseen", 0.2),
    ]
    found = summary(objects, MotionSettings())
    assert found["rates"]["dyn_visible"] == (1, 2)
    assert found["rates"]["dyn_visible fast"] == (1, 1)
    assert found["rates"]["static twins"] == (0, 1)
    assert found["rates"]["distractor_moves"] == (1, 1)
    assert found["rates"]["dyn_unseen"] == (1, 1)
    assert found["cost"] == pytest.approx((0 + 5 * 0.5) / 6)


def test_the_calibration_prefers_misses_to_false_fallbacks():
    objects = [item("dyn_visible", 0.07), item("static", 0.07), item("dyn_visible", 0.2)]
    chosen = calibrated(objects, MotionSettings())
    assert chosen.rho > 0.07
    rates = summary(objects, chosen)["rates"]
    assert rates["static"] == (0, 1) and rates["dyn_visible"] == (1, 2)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    root = tmp_path_factory.mktemp("moving")
    folder = root / "moving_rooms/test"
    moving_rooms.write_rooms(range(120_009, 120_010), folder, frames=60, width=64, height=64)
    return root


def test_evidence_of_a_room_is_kept(room, tmp_path):
    scene = Scene(room / "moving_rooms/test/moving_120009")
    inputs, settings = MotionInputs(tmp_path), MotionSettings(min_pixels=16)
    arguments = (scene, inputs, "true", "true", settings, tmp_path / "pairs", 60)
    found = objects_of(*arguments)
    assert [o.name.split("/")[1] for o in found] == [
        str(t.object_id) for t in tracks_of([scene], 60)
    ]
    assert any(o.pairs for o in found)
    (file,) = (tmp_path / "pairs").iterdir()
    assert objects_of(*arguments) == found
    file.write_text(file.read_text().replace("rigid", "other"))
    assert objects_of(*arguments) != found  # read, not computed
    for track in tracks_of([scene], 60):
        moving = scene.motions[track.object_id].moving
        assert (subset_of(track) == "static") == (not moving)


def test_the_command_prints_a_table(room, tmp_path, capsys):
    words = ["--seeds", "120009:120010", "--root", str(room), "--out", str(tmp_path)]
    motion.main([*words, "--masks", "true", "--geometry", "true,none", "--min-area", "60"])
    text = capsys.readouterr().out
    assert "true/true" in text and "true/none" in text and "distractor_moves" in text
    assert (tmp_path / "120009-120010.json").exists()
    with pytest.raises(InputError, match="--geometry depth: unknown"):
        motion.main([*words, "--geometry", "depth"])
