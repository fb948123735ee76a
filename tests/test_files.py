"""Results are swapped in whole: failures leave what existed, and nothing else."""

import os

import numpy as np
import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.files import check_apart, check_replaceable, replacing_file, replacing_folder
from geometry_fusion.mask_files import write_mask, write_rgb


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
    with pytest.raises(InputError, match="not a folder"), replacing_folder(tmp_path / "file" / "out"):
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
