"""The wheel, as somebody has it who never saw the clone: code, configs, weights and samples."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, THREADS

FIVE_LINES = """
from geometry_fusion import load, Prompt
tracker = load("tiny", device="cpu")
count = 0
for frame in tracker.track("walk.mp4", Prompt(points=((180, 130),))):
    count += frame.ids.any() and frame.geometry is not None
    if frame.index == 5:
        break
print(count, tracker.arm, __import__("geometry_fusion").__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the clone as it is, without the network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel unpacked into a folder of its own, as pip unpacks it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--target", folder, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Python in an empty folder, offline, that finds the package in the wheel alone."""
    environment = {
        "PYTHONPATH": str(installed),
        "OMP_NUM_THREADS": THREADS,
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_wheel_carries_what_needs_no_download(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "assets/configs/merger/tiny.yaml",
        "assets/configs/experiment/my_video.yaml",
        "assets/checkpoints/fusion_tiny.safetensors",
        "assets/must3r_weights/must3r_tiny.safetensors",
        "assets/videos/samples/twins/video.mp4",
        "report/report.html.jinja",
        "player/player.js",
        "player/player.css",
        "ui/static/index.html",
        "ui/static/studio.js",
    ):
        assert f"geometry_fusion/{wanted}" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "main.py"))]


def test_five_lines_of_python_run_in_an_empty_folder(installed, tmp_path):
    clip = ROOT / "videos/samples/walk/video.mp4"
    (tmp_path / "walk.mp4").write_bytes(clip.read_bytes())
    done = run(installed, tmp_path, "-c", FIVE_LINES)
    assert done.returncode == 0, done.stderr
    count, arm, file = done.stdout.split()
    assert int(count) >= 4 and arm == "3am" and Path(file).is_relative_to(installed)


def test_the_console_command_works_in_an_empty_folder(installed, tmp_path):
    console = (installed / "bin" / "3am") if (installed / "bin").is_dir() else None
    assert console is not None and console.is_file()
    done = run(installed, tmp_path, console, "weights")
    assert done.returncode == 0 and "sam2_tiny.safetensors" in done.stdout, done.stderr
    assert "MB" in done.stdout.splitlines()[0] and "get: 3am weights --sam2 l" in done.stdout
    # What is fetched goes to the user's cache, not into the installation.
    code = "from geometry_fusion.models.names import SAM2_MODELS; print(SAM2_MODELS['l'][1])"
    done = run(installed, tmp_path, "-c", code)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / ".cache/3am")


@pytest.mark.slow
def test_a_sample_is_compared_in_an_empty_folder(installed, tmp_path):
    console = installed / "bin" / "3am"
    done = run(installed, tmp_path, console, "ab", "--sample", "walk", "--out", "results")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/ab_report/index.html").stat().st_size > 100_000
    assert "python ab_iou.py" not in done.stdout and "3AM" in done.stdout
