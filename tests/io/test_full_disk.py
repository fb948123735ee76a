"""Writes that fail end in one line that names the file, and what was there before stays.

A limit on the size of files stands for the full disk: a write beyond it fails as on one.
"""

import json

import numpy as np
import pytest

from geometry_fusion.io.atomic import replacing_file, replacing_folder
from geometry_fusion.io.mask_writer import write_mask
from tests.conftest import run_script
from tests.training.test_training import arguments

# Every writer in turn, through run_cli, with the limit.
WRITERS = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
import torch
import metrics
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import run_cli
from geometry_fusion.io.atomic import replacing_file, replacing_folder
from geometry_fusion.report.reconstruct import Reconstruction, write_reconstruction
from geometry_fusion.report.reconstruction_quality import Quality
from geometry_fusion.io.state_file import save_state
from geometry_fusion.training.checkpoints import save_weights
from geometry_fusion.training.run_log import RunLog
from geometry_fusion.io.video_writer import VideoWriter

out, limit = Path(sys.argv[1]), 40_000
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
tensors = {"weight": torch.rand(100_000)}

def scene():
    write_scene(out / "scene", [SceneFrame("0", noise)], [])

def reconstruction():
    points = np.random.rand(50_000, 3).astype(np.float32)
    grey, quality = np.zeros((50_000, 3), np.uint8), Quality(0.5, 1, 1, 1)
    found = Reconstruction(points, grey, points[:, 0], np.eye(4)[None], 1.0, [0], quality)
    with replacing_folder(out / "reconstruction") as folder:
        write_reconstruction(found, ["0"], folder)

def log():
    run = RunLog(out / "run", 0)
    for step in range(10_000):
        run.record(step, "train", {"loss": 1.0})

def text_log():
    run = RunLog(out / "run2", 0)
    while True:
        run.write("x" * 1000)

def video():
    with VideoWriter(out / "video.mp4", 10, (200, 200)) as writer:
        for _ in range(20):
            writer.write(np.random.default_rng().integers(0, 255, (200, 200, 3), dtype=np.uint8))

def report():
    metrics.main(["--pred", sys.argv[2], "--gt", sys.argv[2], "--json", str(out / "report.json")])

jobs = {
    "state.pt": lambda: save_state(out / "state.pt", tensors),
    "model.safetensors": lambda: save_weights(out / "model.safetensors", tensors, {}),
    "scene": scene, "reconstruction/points.ply": reconstruction, "run/": log,
    "run2/logs/log.txt": text_log,
    "video.mp4": video, "report.json": report,
}
for name, job in jobs.items():
    assert run_cli(job) == 2, name
"""


def test_every_writer_names_its_file_when_the_disk_is_full(tmp_path):
    out, masks = tmp_path / "out", tmp_path / "masks"
    out.mkdir()
    masks.mkdir()
    for index in range(2000):  # their scores are more than the limit
        write_mask(masks / f"{index:05d}.png", np.eye(8) > 0)
    for name in ("state.pt", "model.safetensors", "video.mp4"):
        (out / name).write_text("old")
    (out / "report.json").write_text('{"gt": "old", "arms": {}}')
    done = run_script("-c", WRITERS, out, masks)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    names = [
        "state.pt",
        "model.safetensors",
        "scene/rgb/0.jpg",
        "reconstruction/points.ply",
        "run/",
        "run2/logs/log.txt",
    ]
    names += ["video.mp4", "report.json"]
    assert len(lines) == len(names), done.stderr
    for line, name in zip(lines, names):
        assert line.startswith("error: ") and str(out / name) in line and ".new-" not in line, line
    assert all(
        (out / name).read_text() == "old" for name in ("state.pt", "model.safetensors", "video.mp4")
    )
    assert json.loads((out / "report.json").read_text())["gt"] == "old"
    assert sorted(f.name for f in out.iterdir()) == sorted(
        ["state.pt", "model.safetensors", "video.mp4", "report.json", "run", "run2"]
    )


def test_a_training_on_a_full_disk_ends_in_one_line(rooms, tmp_path):
    """The limit lets logs be written and no checkpoint."""
    limited = (
        "import resource, signal, sys, train; from geometry_fusion.errors import run_cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000,) * 2)\n"
        "sys.exit(run_cli(lambda: train.main(sys.argv[1:])))"
    )
    run = tmp_path / "run"
    done = run_script("-c", limited, *arguments(rooms, run, "trainer.max_steps=1")[1:])
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "File too large" in line and str(run / "checkpoints/checkpoint_best.safetensors") in line
    assert not list(run.glob("checkpoints/*")) and not list(run.glob("checkpoints/.*"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "No space left on device: '{}'"),
        (
            OSError("encoder error -2 when writing image file"),
            "{}: could not be written (encoder error -2",
        ),
        (OSError(28, "No space left on device", "/elsewhere/input.png"), "/elsewhere/input.png"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
    ],
)
def test_errors_of_writing_name_the_file_that_was_asked_for(tmp_path, error, expected):
    for replacing in (replacing_file, replacing_folder):
        with pytest.raises(OSError) as caught, replacing(tmp_path / "results"):
            raise error
        assert expected.format(tmp_path / "results") in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_errors_inside_a_new_folder_name_the_folder_that_was_asked_for(tmp_path):
    with pytest.raises(OSError) as caught, replacing_folder(tmp_path / "results") as fresh:
        (fresh / "no/such.txt").write_text("x")
    assert caught.value.filename == str(tmp_path / "results/no/such.txt")
