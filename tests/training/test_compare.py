"""Runs side by side."""

import json

import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.training import compare


@pytest.fixture
def runs(tmp_path):
    folders = []
    for name, scores in (("weak", [0.5, 0.25]), ("strong", [0.125, 0.75])):
        folder = tmp_path / name
        (folder / "logs").mkdir(parents=True)
        (folder / "config.yaml").write_text(f"variant: {name}\nsampling: {{tau: 0.25}}\n")
        (folder / "logs/log.txt").write_text("12:00:00 done\n")
        records = [{"step": step, "val": {"score": score}} for step, score in zip((10, 20), scores)]
        records.append({"step": 20, "train": {"total": 1.0}})
        (folder / "logs/train_stats.json").write_text(
            "".join(json.dumps(r) + "\n" for r in records)
        )
        folders.append(folder)
    return folders


def test_the_last_validation_counts_and_the_best_run_comes_first(runs, tmp_path, capsys):
    compare.main(
        [*map(str, runs), "--keys", "variant", "sampling.tau", "--out", str(tmp_path / "out")]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["run", "variant", "sampling.tau", "step", "score"],
        ["strong", "strong", "0.250", "20", "0.750"],
        ["weak", "weak", "0.250", "20", "0.250"],
    ]
    assert sorted(f.name for f in (tmp_path / "out/weak").iterdir()) == [
        "config.yaml",
        "log.txt",
        "train_stats.json",
    ]
    assert json.loads((tmp_path / "out/results.json").read_text())[0]["run"] == "strong"
    compare.main(
        [str(runs[0]), "--out", str(tmp_path / "out")]
    )  # an earlier comparison is replaced
    assert not (tmp_path / "out/strong").exists()


def test_what_is_no_run_or_no_comparison_is_refused_and_kept(runs, tmp_path, refuse):
    assert "no such key" in refuse(compare, runs[0], "--keys", "colour")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no validation"):
        compare.last_validation(tmp_path / "empty")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"x")
    assert "no earlier comparison" in refuse(compare, runs[0], "--out", tmp_path / "photos")
    assert "would replace the input" in refuse(compare, runs[0], "--out", tmp_path)
    assert (tmp_path / "photos/cat.png").exists()


def test_odd_lines_and_configs_of_a_run_are_left_out_or_refused(runs, tmp_path, refuse, capsys):
    stats = runs[0] / "logs/train_stats.json"
    whole = stats.read_bytes()
    odd = (
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"step": "x", "val": {"score": 1}}',
        b'{"step": 1, "val": [1]}',
        b"[" * 9999,
    )
    stats.write_bytes(b"\n".join(odd) + b"\n" + whole + b'{"step": 30, "val": {"sc')
    assert compare.last_validation(runs[0]) == {"step": 20, "score": 0.25}
    assert capsys.readouterr().out == f"7 lines of {stats} are no records and are left out\n"
    for content in (b"\xff\xfe\xfa", b"a: &a [*a]", b"[1, 2]", b"a: ${oc.env:HOME}"):
        (runs[0] / "config.yaml").write_bytes(content)
        assert "config.yaml" in refuse(compare, runs[0], "--keys", "a")


def test_a_folder_with_odd_results_is_no_comparison(runs, tmp_path, refuse):
    for content in (
        b"[]",
        b"[5]",
        b'[{"run": [1]}]',
        b'[{"run": 5}]',
        b"{}",
        b"\xff",
        b"[" * 100_000,
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/results.json").write_bytes(content)
        assert "no earlier comparison" in refuse(compare, runs[0], "--out", tmp_path / "out")
        assert (tmp_path / "out/results.json").read_bytes() == content
