"""Time and memory of `main.py segment --photos` by the number of photos.

    python benchmarks/photo_memory.py --photos 60 120 240

Photos are crops of the frames of validation rooms. Each number is a run of its own, as a user
starts it, with one object. Prints its seconds and the largest resident memory of its process; the
growth per photo, between the smallest and the largest run, gives that of 1000 photos. Appends a
line for each to benchmarks/out/photo_memory.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import OUT, ROOT
from PIL import Image

from geometry_fusion.data.scenes import Scene

SIDE = 256  # pixels
LEAST_SHARE = 0.85  # of a frame's side that a crop keeps


def write_photos(scenes: list[Scene], count: int, folder: Path) -> tuple[str, int, int]:
    """Write crops as photos; returns name, x and y of a click on an object of the first one."""
    draw = np.random.default_rng(0)
    frames = [(scene, at) for scene in scenes for at in range(len(scene))]
    click = None
    for number in range(count):
        scene, at = frames[number % len(frames)]
        picture = scene.rgb(at)
        height, width = picture.shape[:2]
        share = 1.0 if number == 0 else draw.uniform(LEAST_SHARE, 1)
        crop = (int(width * share), int(height * share))
        left, top = (int(draw.integers(0, n - c + 1)) for n, c in zip((width, height), crop))
        photo = Image.fromarray(picture[top : top + crop[1], left : left + crop[0]])
        photo.resize((SIDE, SIDE)).save(folder / f"{number:04d}.jpg", quality=93)
        if number == 0:
            ids = scene.instance(at)
            largest = int(np.bincount(ids[ids > 0]).argmax())
            rows, columns = np.nonzero(ids == largest)
            middle = int(np.hypot(rows - rows.mean(), columns - columns.mean()).argmin())
            click = (columns[middle] * SIDE // width, rows[middle] * SIDE // height)
    return "0000.jpg", *map(int, click)


def measured(count: int, scenes: list[Scene], arm: str) -> dict:
    """Seconds and peak memory of one run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        name, x, y = write_photos(scenes, count, folder)
        command = [sys.executable, ROOT / "main.py", "segment", "--photos", folder]
        command += ["--prompt-image", name, "--point", f"{x},{y}", "--arm", arm]
        command += ["--out", Path(temporary) / "out", "--device", "cpu"]
        began = time.perf_counter()
        run = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(run.pid, 0)  # its own memory, not that of earlier runs
        run.returncode = os.waitstatus_to_exitcode(status)
        if run.returncode:
            raise SystemExit(f"the run with {count} photos failed with {run.returncode}")
        sizes = [f.stat().st_size for f in (Path(temporary) / "out").rglob("*") if f.is_file()]
    return {
        "photos": count,
        "arm": arm,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 2**10, 1),
        "results_mb": round(sum(sizes) / 2**20, 1),
    }


def main() -> None:
    """Measure, then print and append the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[60, 120, 240])
    parser.add_argument("--rooms", type=Path, default=ROOT / "data/rooms/test")
    parser.add_argument("--seeds", default="100060:100063", help="FIRST:END of validation rooms")
    parser.add_argument("--arm", default="auto", choices=("auto", "sam2"))
    args = parser.parse_args()
    scenes = [
        Scene(args.rooms / f"room_{seed}") for seed in range(*map(int, args.seeds.split(":")))
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    runs = []
    for count in sorted(args.photos):
        runs.append(measured(count, scenes, args.arm))
        print(json.dumps(runs[-1]), flush=True)
        with open(OUT / "photo_memory.jsonl", "a") as file:
            file.write(json.dumps(runs[-1]) + "\n")
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        growth = (last["peak_mb"] - first["peak_mb"]) / (last["photos"] - first["photos"])
        whole = last["peak_mb"] + growth * (1000 - last["photos"])
        print(f"{growth:.2f} MB more per photo; 1000 photos by that: {whole:.0f} MB")


if __name__ == "__main__":
    main()
