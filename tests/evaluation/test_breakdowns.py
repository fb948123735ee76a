"""Breakdowns of an evaluation: viewpoint gaps, returns, controls and memory policies, by hand."""

import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from geometry_fusion.assets import CONFIGS
from geometry_fusion.choices import MEMORY_POLICIES
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation import breakdowns, tables
from geometry_fusion.evaluation import run as evaluation
from geometry_fusion.evaluation.arm_names import expanded, is_arm, memory_of, parts_of
from geometry_fusion.evaluation.facts import add_derived, returns_of
from geometry_fusion.evaluation.records import is_record
from geometry_fusion.evaluation.results import gain_pairs, text_table, write_results
from geometry_fusion.evaluation.settings import check, check_list
from geometry_fusion.tracking.memory import MEMORIES
from tests.evaluation.test_records import RECORD

ABSENT, LOST, FOUND = (False, 1.0), (True, 0.1), (True, 0.8)


def record_of(frames, prompt_frame=0, arm="3am", name="room_1/1", **more) -> dict:
    present, ious = zip(*frames)
    return {
        **RECORD,
        "arm": arm,
        "object": name,
        "subsets": ["all"],
        "present": list(present),
        "frame_ious": list(ious),
        "prompt_frame": prompt_frame,
        **more,
    }


def test_measures_that_follow_from_the_frames():
    record = record_of([FOUND, LOST, FOUND, ABSENT, (False, 0.0)], frame_areas=[0.2, 0, 0, 0, 0.1])
    add_derived(record)
    assert record["recall"] == pytest.approx(2 / 3)
    assert record["false_answers"] == 0.5 and record["false_area"] == pytest.approx(0.05)
    older = record_of([FOUND, ABSENT])
    add_derived(older)
    assert older["false_area"] is None and older["recall"] == 1
    always = record_of([FOUND, LOST], frame_areas=[0.1, 0.1])
    add_derived(always)
    assert always["false_area"] is None and always["false_answers"] is None


@pytest.mark.parametrize(
    "frames, prompt, returns",
    [
        ([FOUND, *[ABSENT] * 3, LOST, LOST, FOUND, LOST], 0, [2]),
        ([FOUND, *[ABSENT] * 3, FOUND], 0, [0]),
        ([FOUND, *[ABSENT] * 3, LOST, *[ABSENT] * 4, FOUND], 0, [None, 0]),
        ([FOUND, *[ABSENT] * 2, FOUND], 0, []),  # too short an absence
        ([*[ABSENT] * 4, FOUND], 4, []),
        ([FOUND, LOST, *[ABSENT] * 3, FOUND, *[ABSENT] * 3, FOUND], 5, [0, 1]),  # and backwards
        ([FOUND, *[ABSENT] * 3, LOST, ABSENT, FOUND], 0, [None]),  # it left before it was found
    ],
)
def test_returns_are_counted_in_tracking_order(frames, prompt, returns):
    assert returns_of(record_of(frames, prompt)) == returns


def test_recall_by_viewpoint_gap():
    frames = [FOUND, LOST, FOUND, ABSENT, FOUND, LOST]
    record = record_of(frames, viewpoint_change=[0, 44.9, 45, 60, 180, float("nan")])
    other = record_of([FOUND, LOST], name="room_1/2", viewpoint_change=[0, 100])
    without = record_of([LOST], name="room_1/3")  # its scene has no depth
    rows = breakdowns.by_gap([record, other, without], "3am")
    assert [row["frames"] for row in rows] == [3, 1, 1, 1]
    assert [row["recall"]["mean"] for row in rows] == [0.75, 1, 0, 1]
    assert rows[0]["iou"]["mean"] == pytest.approx((0.45 + 0.8) / 2) and rows[0]["iou"]["n"] == 2
    assert {"low", "high"} < set(rows[0]["recall"]) and "low" not in rows[1]["recall"]
    text = "\n".join(tables.gap_lines({"3am": rows}))
    assert "0-45" in text and "0.750 / 0.625" in text and "3 frames, 2 obj." in text
    assert tables.gap_lines({"3am": breakdowns.by_gap([without], "3am")}) == []


def test_recovery_and_false_area():
    absent = [FOUND, *[ABSENT] * 3, LOST, FOUND]
    records = [
        record_of(absent, frame_areas=[0, 0.02, 0.04, 0, 0, 0]),
        record_of([FOUND, *[ABSENT] * 3, LOST], name="room_1/2"),
    ]
    for record in records:
        add_derived(record)
    row = breakdowns.recovery(records, "3am")
    assert (row["returns"], row["recovered"], row["frames"]) == (2, 0.5, 1.0)
    assert row["false_area"]["mean"] == pytest.approx(0.02) and row["false_area"]["n"] == 1
    assert "2.00%, 1 objects" in "\n".join(tables.recovery_lines({"3am": row}))


def test_controls_say_what_is_left_of_a_gain():
    def gain(mean):
        return {"all": {"positive_iou": {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}}}

    gains = {"3am-sam2": gain(0.2), "3am_zero-sam2": gain(0.05), "3am_shuffled-sam2": gain(-0.02)}
    arms = ["sam2", "3am", "3am_zero", "3am_shuffled", "places_zero"]
    rows = breakdowns.controls(gains, arms)
    assert [(r["control"], round(r["left"], 2)) for r in rows] == [
        ("zero", 0.25),
        ("shuffled", -0.1),
    ]
    text = "\n".join(tables.control_lines(rows))
    assert "25%" in text and "-10%" in text and "+0.200 (+0.150..+0.250)" in text


def test_policies_are_compared_on_the_same_objects():
    records = []
    for arm, ious in {"3am": [0.5, 0.6], "3am+dam": [0.6, 0.8], "sam2": [0.1, 0.1]}.items():
        for number, iou in enumerate(ious):
            record = record_of([FOUND, LOST], arm=arm, name=f"room_1/{number}", positive_iou=iou)
            add_derived(record)
            records.append(record)
    rows = breakdowns.policies(records, ["sam2", "3am", "3am+dam"], ["all", "twins"])
    assert [(r["arm"], r["memory"]) for r in rows] == [("3am", "fifo"), ("3am", "dam")]
    assert rows[1]["gain"]["mean"] == pytest.approx(0.15) and rows[1]["recall"]["mean"] == 0.5
    text = tables.policy_lines(rows)
    assert text[-2].endswith("+0.150 (+0.100..+0.200)") and "no gain" not in text[-2]
    rows[1]["gain"]["low"] = -0.01
    assert tables.policy_lines(rows)[-2].endswith("no gain shown")


def test_names_of_arms_with_policies_and_controls():
    assert (*MEMORIES,) == MEMORY_POLICIES
    assert parts_of("places_true+dam") == ("places", "true") and memory_of("3am+tree") == "tree"
    assert memory_of("3am") == "fifo" and not is_arm("3am+fifo") and not is_arm("3am+elephant")
    arms = expanded(["sam2", "3am", "oracle"], ["zero", "shuffled"], ["fifo", "dam"])
    assert arms == [
        *("sam2", "3am", "oracle", "3am_zero", "3am_shuffled"),
        *("sam2+dam", "3am+dam", "oracle+dam"),
    ]
    assert ("3am+dam", "sam2+dam") in gain_pairs(arms) and ("3am+dam", "3am") in gain_pairs(arms)
    assert expanded(["sam2+dam"], [], ["tree"]) == ["sam2+dam"]
    assert is_record({**RECORD, "arm": "3am_zero+coverage"})


@pytest.mark.parametrize("values", [["elephant"], [], "dam", ["dam", "dam"], None])
def test_settings_that_are_no_list_of_policies_are_refused(values):
    config = OmegaConf.create({"memory": values})
    with pytest.raises(InputError, match=r"memory=.*: write a list such as memory=\[fifo,dam,tree"):
        check_list("memory", config.memory, MEMORY_POLICIES, least=1)
    check_list("controls", OmegaConf.create([]), ("zero",))


def test_records_with_odd_areas_are_none():
    assert is_record({**RECORD, "frame_areas": [0.0, 0.5, 1.0]})
    for areas in (None, [0.1], [0.1, 0.2, 1.5], "x", [0.1, 0.2, float("nan")]):
        assert not is_record({**RECORD, "frame_areas": areas})


def test_policies_are_run_recorded_and_resumed_apart(rooms, tmp_path):
    config = OmegaConf.load(CONFIGS / "evaluate.yaml")
    config.arms, config.device, config.max_objects = ["sam2"], "cpu", 2
    config.prompts, config.out = ["mask"], str(tmp_path)
    config.data = {"scenes": str(rooms), "root": str(rooms), "min_area": 60}
    config.memory = ["fifo", "dam"]
    check(config)
    config.arms = expanded(config.arms, config.controls, config.memory)
    records = evaluation.run(config, tmp_path)
    identities = {record["arm"]: record["identity"] for record in records}
    assert set(identities) == {"sam2", "sam2+dam"} and "memory=dam" in identities["sam2+dam"]
    assert "memory" not in identities["sam2"]  # records of earlier versions are fifo's
    lines = (tmp_path / "objects.jsonl").read_text().splitlines()
    assert len(lines) == 4 and all(len(json.loads(line)["frame_areas"]) == 8 for line in lines)
    results = write_results(records, config, tmp_path)
    table = text_table(results, config)
    assert "memory policies" in table and "frames until then" in table
    policies = results["by_prompt"]["mask"]["memory_policies"]
    assert [row["memory"] for row in policies if row["subset"] == "all"] == ["fifo", "dam"]
    gaps = results["by_prompt"]["mask"]["by_viewpoint_gap"]["sam2"]
    assert sum(row["frames"] for row in gaps) == sum(
        np.isfinite(np.array(r["viewpoint_change"])[np.array(r["present"])]).sum()
        for r in records
        if r["arm"] == "sam2"
    )
    config.arms = ["sam2"]
    again = evaluation.run(config, tmp_path)
    assert [r["arm"] for r in again] == ["sam2"] * 2
    assert len((tmp_path / "objects.jsonl").read_text().splitlines()) == 4  # nothing was computed
