"""What kill -9 leaves of any script is gone after the next good run: beside the results and among
temporary files.
"""

import json
import os

import pytest

from geometry_fusion.io.open_frames import open_frames
from geometry_fusion.io.video_writer import VideoWriter
from tests.conftest import ROOT, run_script
from tests.training.test_training import SMALL

# Runs scripts again and again in forked children, which find torch imported, and kills them after a
# random while; then once more to their end. Prints what was met after kills, and what is there at
# the end.
KILLER = """
import importlib, json, os, random, shutil, sys, time
import torch
from geometry_fusion.errors import run_cli

def start(script, arguments, log):
    child = os.fork()
    if not child:
        sys.stderr = sys.stdout = open(log, "w", buffering=1)
        os._exit(run_cli(lambda: script.main(arguments)))
    return child

def run(script, arguments, log):
    return os.waitstatus_to_exitcode(os.waitpid(start(script, arguments, log), 0)[1])

def entries(folders):
    walks = (step for folder in folders for step in os.walk(folder))
    return [os.path.join(at, name) for at, inner, files in walks for name in inner + files]

def kill(name, arguments, folders, finished, kills, log):
    script, rng, met = importlib.import_module(name), random.Random(name), set()
    began = time.time()
    first, seconds = run(script, arguments, log), time.time() - began
    for _ in range(kills):
        if finished:
            shutil.rmtree(finished, ignore_errors=True)
        child = start(script, arguments, log)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, 9)
        os.waitpid(child, 0)
        met |= set(entries(folders))
    last = run(script, arguments, log)
    said = open(log).read()[-1500:]
    return {"exits": [first, last], "left": entries(folders), "met": sorted(met), "said": said}

torch.set_num_threads(1)
jobs, kills, log = json.loads(sys.argv[1])
print(json.dumps({job[0]: kill(*job, kills, log) for job in jobs}))
"""


def is_leftover(entry: str) -> bool:
    return (
        os.path.basename(entry).startswith((".", "tmp"))
        or "unfinished" in entry
        or "/temporary/" in entry
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Eight small frames, as a video file."""
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = open_frames(ROOT / "videos/samples/return/video.mp4")
    with VideoWriter(file, 10, (320, 240)) as writer:
        for image, _ in zip(frames, range(8)):
            writer.write(image)
    return file


def jobs(clip, rooms, folder, temporary) -> list:
    """Script, arguments, the folders to look at, and the folder of finished work that would leave
    it nothing to do.
    """
    point = ["--point", "158,97", "--device", "cpu", "--frames", clip]
    data = [f"data.scenes={rooms}", f"data.val_scenes={rooms}"]
    steps = ["trainer.max_steps=3", "trainer.save_every=1", "val_objects=1"]
    tracks = [
        f"data.scenes={rooms}",
        "data.min_area=20",
        "arms=[sam2]",
        "prompts=[click]",
        "max_objects=2",
    ]
    found = [
        ("ab_iou", [*point, "--out", folder / "ab"], folder / "ab", None),
        (
            "main",
            ["segment", *point, "--out", folder / "masks", "--save-every", 0],
            folder / "masks",
            None,
        ),
        (
            "train",
            [*SMALL, *data, *steps, f"trainer.run_dir={folder}/run/it"],
            folder / "run",
            folder / "run/it",
        ),
        (
            "evaluate",
            [*tracks, "device=cpu", f"out={folder}/eval/it"],
            folder / "eval",
            folder / "eval/it",
        ),
    ]
    return [
        (name, [*map(str, args)], [str(at), temporary], done and str(done))
        for name, args, at, done in found
    ]


def check_nothing_is_left(kills, clip, rooms, tmp_path, only=None):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    wanted = [job for job in jobs(clip, rooms, tmp_path, str(temporary)) if only in (None, job[0])]
    facts = json.dumps([wanted, kills, str(tmp_path / "log.txt")])
    done = run_script("-c", KILLER, facts, env={"TMPDIR": str(temporary)}, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found["exits"] == [0, 0], (name, found["said"])
        assert [entry for entry in found["left"] if is_leftover(entry)] == [], name
        half_done = [
            entry for entry in found["met"] if is_leftover(entry) or entry.endswith("objects.jsonl")
        ]
        assert kills < 10 or half_done, f"no kill of {name} met anything half done"


@pytest.mark.parametrize("script", [pytest.param("ab_iou", marks=pytest.mark.slow), "main"])
def test_after_kills_and_a_good_run_nothing_is_left_over(script, clip, rooms, tmp_path):
    check_nothing_is_left(2, clip, rooms, tmp_path, only=script)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["ab_iou", "main", "train", "evaluate"])
def test_after_many_kills_and_a_good_run_nothing_is_left_over(script, clip, rooms, tmp_path):
    check_nothing_is_left(20, clip, rooms, tmp_path, only=script)
