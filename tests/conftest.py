"""Shared helpers: scripts run as a user runs them, and small worlds made once per session."""
# ruff: noqa: E402

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geometry_fusion.threads import be_a_good_neighbour

be_a_good_neighbour()  # before torch is loaded: test processes share the cores

import torch

from geometry_fusion.errors import run_cli

ROOT = Path(__file__).resolve().parents[1]
# Test processes beside each other (pytest-xdist) have a core each.
THREADS = os.environ.get("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
torch.set_num_threads(int(THREADS))


@pytest.fixture
def threads():
    """Sets the number of torch's threads; restores it after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run_script(*arguments, cwd: Path = ROOT, env: dict | None = None, timeout: float = 300):
    """`python ARGUMENTS` in a fresh process, as a user would; returns the completed process with
    text output.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={"OMP_NUM_THREADS": THREADS, **os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
    )


def error_line(done) -> str:
    """The message of a script that refused its input: exit code 2 and exactly one line on
    stderr.
    """
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.fixture(scope="session")
def rooms(tmp_path_factory) -> Path:
    """Two small rooms on disk: 8 frames of 96x96, seeds 5 and 6."""
    from geometry_fusion.data.rooms import write_rooms

    folder = tmp_path_factory.mktemp("rooms")
    write_rooms(range(5, 7), folder, workers=1, frames=8, width=96, height=96)
    return folder


@pytest.fixture
def refuse(capsys):
    """Run a script's main in this process on bad input; returns its one line."""

    def run(script, *arguments) -> str:
        capsys.readouterr()
        assert run_cli(lambda: script.main([str(a) for a in arguments])) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0]

    return run


class Clip(list):
    """Images [H, W, 3] as `Frames`."""

    @property
    def size(self) -> tuple[int, int]:
        return self[0].shape[1::-1]


def ids_of(tracked) -> dict:
    """Frame index -> ids [H, W] of frames that a session or a tracker yields."""
    return {frame.index: frame.ids for frame in tracked}


def pairs(tracked):
    """(index, ids [H, W]) of frames that a session or a tracker yields, as they come."""
    for frame in tracked:
        yield frame.index, frame.ids
