"""Ctrl-C, SIGTERM and SIGHUP: one line, the shell's exit code, no temporary files, results as they
were.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geometry_fusion.errors import INTERRUPTED, run_cli
from geometry_fusion.interrupts import MESSAGE
from tests.conftest import ROOT, THREADS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Each gets as far as loading its packages.
COMMANDS = (
    ("main.py", "segment", "--point", "1,1"),
    ("ab_iou.py", "--sample", "walk", "--out", "nowhere"),
    ("train.py", "experiment=none"),
    ("evaluate.py", "data=none"),
    ("metrics.py", "--gt", "none", "--pred", "none"),
    ("cache_geometry.py", "experiment=none"),
)


def start(*command, temporary=None, **options):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": THREADS,
        **({"TMPDIR": str(temporary)} if temporary else {}),
    }
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, **pipes, **options
    )


def wait_until(condition, process) -> None:
    deadline = time.time() + 120
    while not condition():
        assert process.poll() is None and time.time() < deadline, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS[1:])  # Ctrl-C: tests/commands/test_scripts.py
def test_a_stopped_run_ends_with_one_line_and_leaves_nothing(tmp_path, number):
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    process = start(
        "ab_iou.py", "--sample", "walk", "--device", "cpu", "--out", out, temporary=temporary
    )
    wait_until(lambda: list(out.glob(".pred_masks_baseline.new-*/*/*.png")), process)
    assert list(temporary.iterdir())
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == MESSAGE and "Traceback" not in errors
    assert not out.exists()
    assert [
        f.name for f in temporary.iterdir() if not f.name.startswith("torchinductor")
    ] == []  # torch's own


def test_while_packages_load_a_signal_is_no_traceback():
    """Sent when torch is being loaded, which takes seconds."""
    for command, number in zip(COMMANDS, SIGNALS * 3):
        process = start(*command)
        maps = f"/proc/{process.pid}/maps"
        if os.path.exists(maps):
            wait_until(lambda maps=maps: "numpy" in Path(maps).read_text(), process)
        else:
            time.sleep(0.5)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, (command, errors)
        assert errors.strip() == MESSAGE


def test_every_program_watches_its_imports():
    programs = [
        f
        for f in ROOT.glob("**/*.py")
        if '\nif __name__ == "__main__":\n    sys.exit' in f.read_text()
    ]
    programs = [f for f in programs if f.relative_to(ROOT).parts[0] not in ("benchmarks", ".venv")]
    assert len(programs) >= 14
    for file in programs:
        text = file.read_text()
        # Or by the console, which loads nothing heavy before it watches.
        by_console = re.search(r"sys\.exit\((run_script|main)\(", text)
        assert by_console or text.index("watch_imports()") < text.index("\nimport "), file


def test_ignored_signals_stay_ignored():
    """As under nohup; afterwards the handlers are what they were."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_cli(lambda: signal.raise_signal(signal.SIGHUP)) == 0
        assert run_cli(lambda: signal.raise_signal(signal.SIGTERM)) == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_a_destructor_swallows_ends_the_run_nevertheless(capsys):
    class Stubborn:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def main():
        Stubborn()
        time.sleep(10)

    began = time.monotonic()
    assert run_cli(main) == INTERRUPTED and time.monotonic() - began < 5
    assert capsys.readouterr().err.strip() == MESSAGE
