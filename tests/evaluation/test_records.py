"""Records of evaluate.py that were cut, edited or come from elsewhere: left out, said once, never a
traceback.
"""

import copy
import json

import pytest
from omegaconf import OmegaConf

from geometry_fusion.evaluation.records import is_record, keep_records, read_records
from geometry_fusion.evaluation.results import portable, summarise

RECORD = {
    "identity": "weights and data",
    "arm": "3am",
    "prompt": "mask",
    "object": "room_000005/3",
    "subsets": ["all", "twins"],
    "iou": 0.5,
    "positive_iou": 0.25,
    "accuracy": None,
    "success_rate": 0.5,
    "jf": 0.75,
    "num_frames": 3,
    "num_positive_frames": 2,
    "frame_ious": [1.0, 0.0, 0.5],
}
ODD = (None, "x", "0.5", [], {}, float("nan"), float("inf"), -1, 1.5, True, 10**18)
ODD_LINES = [
    b"[]",
    b"null",
    b"{}",
    b"5",
    b'"text"',
    b"\xff\xfe",
    b"{",
    b"[" * 100_000,
    b'{"a": 1, "a": 2}',
    b"\x00",
]


def test_results_name_no_folder_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"data": {"root": str(tmp_path / "data/rooms"), "scenes": None}, "out": "logs", "n": 2}
    config["arms"] = ["sam2", str(tmp_path / "x")]
    assert portable(config) == {
        "data": {"root": "data/rooms", "scenes": None},
        "out": "logs",
        "n": 2,
        "arms": ["sam2", "x"],
    }


def test_a_record_is_one():
    assert is_record(RECORD)
    assert is_record(
        {**RECORD, "arm": "sam2", "prompt": "click", "positive_iou": None, "jf": None, "more": 1}
    )


@pytest.mark.parametrize("field", RECORD)
def test_records_that_lack_a_field_or_hold_another_kind_are_none(field):
    assert not is_record({key: value for key, value in RECORD.items() if key != field})
    for value in ODD:
        if (field, value) == ("object", "x") or (field, value) == ("identity", "x"):
            continue
        text = isinstance(value, str) and field in ("identity", "object")
        none = value is None and field in ("positive_iou", "accuracy", "jf")
        assert is_record({**RECORD, field: value}) == (text or none), (field, value)


def test_frames_are_checked_one_by_one():
    for value in ODD:
        changed = copy.deepcopy(RECORD)
        changed["frame_ious"][1] = value
        assert not is_record(changed), value
    assert not is_record(
        {**RECORD, "frame_ious": [1.0, 0.5]}
    )  # shorter than the clip: later frames would be lost


def test_bad_lines_are_counted_left_out_and_kept_aside(tmp_path, capsys):
    file = tmp_path / "objects.jsonl"
    good = json.dumps(RECORD).encode()
    file.write_bytes(b"\n".join([good, *ODD_LINES, b"", good]) + b"\n" + good[:40])
    assert keep_records(file) == [RECORD, RECORD]
    said = capsys.readouterr().out
    assert said == f"{len(ODD_LINES)} lines of {file} are no records and are left out\n"
    assert file.read_bytes().splitlines() == [good, good]
    assert (tmp_path / "objects.jsonl.unreadable").read_bytes().split(b"\n")[:-1] == ODD_LINES
    assert keep_records(file) == [RECORD, RECORD] and capsys.readouterr().out == ""


def test_a_line_cut_by_a_kill_is_no_news(tmp_path, capsys):
    file = tmp_path / "objects.jsonl"
    good = json.dumps(RECORD).encode()
    file.write_bytes(good + b"\n" + good[:50])
    assert keep_records(file) == [RECORD] and capsys.readouterr().out == ""
    assert [f.name for f in tmp_path.iterdir()] == ["objects.jsonl"]
    file.write_bytes(good)  # only its line break is missing
    assert read_records(file) == [RECORD] and keep_records(tmp_path / "none.jsonl") == []


def test_an_arm_without_a_measure_for_one_object_still_gets_gains():
    """`accuracy` is None where a mask never meets its object; that object has no paired gain."""
    config = OmegaConf.create({"arms": ["sam2", "3am"]})
    records = []
    for arm, accuracies in {"sam2": [None, 0.5, 0.25], "3am": [0.75, None, 0.5]}.items():
        for number, accuracy in enumerate(accuracies):
            name = f"room_000005/{number}"
            records.append({**RECORD, "arm": arm, "object": name, "accuracy": accuracy})
    gains = summarise(records, config)["gains"]["3am-sam2"]["all"]
    assert gains["accuracy"] == {"mean": 0.25}
    assert gains["iou"]["mean"] == 0
