"""Results are swapped in whole: failures leave what existed, and nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import (
    check_apart,
    check_holds_only,
    check_replaceable,
    replacing_file,
    replacing_folder,
)
from geometry_fusion.io.mask_writer import write_mask, write_rgb


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_is_replaced_only_by_a_complete_one(tmp_path):
    target = tmp_path / "results"
    for content in ("first", "second"):
        with replacing_folder(target) as fresh:
            (fresh / "a").write_text(content)
            assert not target.exists() or (target / "a").read_text() == "first"
        assert (target / "a").read_text() == content and names(tmp_path) == ["results"]
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as fresh:
        (fresh / "a").write_text("third")
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "second" and names(tmp_path) == ["results"]


def test_a_failed_run_leaves_no_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="boom"), replacing_folder(tmp_path / "a/b/c"):
        raise ValueError("boom")
    assert not names(tmp_path)


def test_a_file_is_replaced_only_by_a_complete_one(tmp_path):
    target = tmp_path / "x.txt"
    with replacing_file(target) as fresh:
        fresh.write_text("first")
    with pytest.raises(ValueError, match="boom"), replacing_file(target) as fresh:
        fresh.write_text("second")
        raise ValueError("boom")
    assert target.read_text() == "first" and names(tmp_path) == ["x.txt"]


def test_folders_and_pipes_are_never_renamed_over(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(InputError, match=name), replacing_file(tmp_path / name):
            raise AssertionError("must not get here")
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match="not a folder"),
        replacing_folder(tmp_path / "file" / "out"),
    ):
        raise AssertionError("must not get here")


def test_only_folders_of_masks_count_as_old_masks(tmp_path):
    check_replaceable(tmp_path / "new", (".png",), "--out")
    write_mask(tmp_path / "0000.png", np.ones((4, 4), bool))
    (tmp_path / ".DS_Store").write_text("")
    check_replaceable(tmp_path, (".png",), "--out")
    write_rgb(tmp_path / "holiday.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"holiday\.png"):
        check_replaceable(tmp_path, (".png",), "--out")


def test_inputs_and_outputs_are_kept_apart(tmp_path):
    check_apart([tmp_path / "out"], [tmp_path / "in", None])
    for given in (tmp_path / "out", tmp_path / "out" / "gt", tmp_path / "in" / ".." / "out"):
        with pytest.raises(InputError, match="would replace the input"):
            check_apart([tmp_path / "out"], [given])


def test_links_and_other_paths_of_an_input_are_found(tmp_path, monkeypatch):
    """All of these name, or lead to, something inside the folder that would be replaced."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "0.png").write_text("frame")
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "file_link.png").symlink_to(out / "0.png")
    (elsewhere / "0.png").symlink_to(out / "0.png")  # a folder of links
    os.link(out / "0.png", tmp_path / "hard.png")
    monkeypatch.chdir(elsewhere)
    inputs = (
        out / "0.png",
        tmp_path / "link",
        tmp_path / "link/0.png",
        tmp_path / "file_link.png",
        elsewhere,
    )
    for given in (
        *inputs,
        tmp_path / "hard.png",
        "../out/0.png",
        "../link/../out",
        out / "not_there",
    ):
        with pytest.raises(InputError, match="would replace the input"):
            check_apart([out], [given])
        with pytest.raises(InputError, match="would replace the input"):
            check_apart([tmp_path / "link"], [given])
    check_apart([out / "video.mp4"], [out / "0.png", elsewhere])
    with pytest.raises(InputError, match="would replace the input"):
        check_apart([out / "0.png"], [tmp_path / "hard.png"])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="not a usable path"):
        check_apart([out], [tmp_path / "loop"])


def test_outputs_are_kept_apart_from_each_other(tmp_path):
    check_apart([tmp_path / "a", tmp_path / "b", tmp_path / "ab"], [])
    for pair in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "c/../a")):
        with pytest.raises(InputError, match="would be replaced by the output"):
            check_apart([tmp_path / name for name in pair], [])


def test_the_folder_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "here/inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for folder in (".", tmp_path / "empty", "../empty"):
        with pytest.raises(InputError, match="the folder you are in"):
            check_replaceable(Path(folder), (".png",), "--out")
    check_replaceable(tmp_path / "here/inner", (".png",), "--out")


def test_results_with_fixed_names_replace_nothing_else(tmp_path):
    check_holds_only(tmp_path / "new", ("a",), "--out")
    (tmp_path / "a").mkdir()
    check_holds_only(tmp_path, ("a",), "--out")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        check_holds_only(tmp_path, ("a",), "--out")
