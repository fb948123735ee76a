"""Temporary folders: those of killed processes are swept, those of living ones are not, and results
are never lost.
"""

import os
import signal
import subprocess
import sys

import pytest

from geometry_fusion.io.temporary import LOCK, OLD, sweep, temporary_folder
from tests.conftest import ROOT

HOLDER = """
import sys
from pathlib import Path
from geometry_fusion.io.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1]), "masks") as folder:
    (folder / "0000.png").write_bytes(b"half")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a temporary folder in `tmp_path`, and the folder's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield process, tmp_path / process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_what_a_killed_process_left_is_swept_but_not_what_a_living_one_has(tmp_path, holder):
    process, folder = holder
    sweep(tmp_path)
    assert (folder / "0000.png").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "0000.png").exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_goes_when_the_block_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path, "x") as folder:
        assert folder.parent == tmp_path and [f.name for f in folder.iterdir()] == [LOCK]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_folders_are_swept(tmp_path):
    for name in (".masks.new-abcd1234", ".photos.new-12", "masks.new-abcd1234", ".x.old-abcd1234"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_text("no lock: not ours")
    (tmp_path / ".empty.new-abcd1234").mkdir()  # killed before it was locked
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (tmp_path / ".link.new-abcd1234").symlink_to(elsewhere)
    sweep(tmp_path)
    assert len(list(tmp_path.glob("**/precious.txt"))) == 4 and (elsewhere / LOCK).exists()
    assert not (tmp_path / ".empty.new-abcd1234").exists()


@pytest.mark.parametrize("new_is_complete", [True, False])
def test_a_kill_between_the_two_renames_of_a_swap_loses_nothing(tmp_path, new_is_complete):
    """Old results were renamed away, the new ones have not got their name."""
    aside = tmp_path / ".masks.new-abcd1234"
    (aside / OLD / "masks").mkdir(parents=True)
    (aside / LOCK).touch()
    (aside / OLD / "masks/0000.png").write_text("old")
    if new_is_complete:
        (aside / "masks").mkdir()
        (aside / "masks/0000.png").write_text("new")
    sweep(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["masks"]
    assert (tmp_path / "masks/0000.png").read_text() == ("new" if new_is_complete else "old")


def test_long_names_and_names_that_are_not_utf8_have_temporary_folders_too(tmp_path):
    for name in ("é" * 127, os.fsdecode(b"\xff\xfe"), "x" * 255):
        with temporary_folder(tmp_path, name) as folder:
            assert folder.is_dir()
