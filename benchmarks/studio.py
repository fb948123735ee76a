"""The studio's waiting times and memory: click to mask, opening a long video, scrubbing, tracking.

    python benchmarks/studio.py                    ten minutes of video: about ten minutes
    python benchmarks/studio.py --frames 1000 --clicks 20
    python benchmarks/studio.py --track 2000       tracks 2,000 frames of it as well

Starts `main.py ui` and asks it over HTTP as the page does: a click is the command `mark` and the
request of its mask, and its time ends when the mask's bytes are here. "New" frames are shown for
the first time, "known" ones were encoded for an earlier click. The clip is the bundled `return`
sample, forwards and backwards again and again, as an H.264 file in a temporary folder. Memory is
the resident memory of the server and of its worker. Writes benchmarks/out/studio.json.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import psutil
from common import CLICK, CLIP, OUT, ROOT, endless_clip

MB = 2**20
RATE = 30
OWN = {"x-studio": "1"}
SCRUB_STEPS = 5  # places in the scrubbing at which memory is read
PATIENCE_S = 3600


class Server:
    """`main.py ui` on a free port."""

    def __init__(self, out: Path, options: list[str]):
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "ui", "--port", "0", "--no-browser"]
            + ["--out", str(out), *options],
            cwd=out.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        address = self.process.stdout.readline().split()[1]
        self.client = httpx.Client(base_url=address, headers=OWN, timeout=PATIENCE_S)
        self.answers_s = time.perf_counter() - began
        while not self.client.get("/api/info").json()["ready"]:
            time.sleep(0.05)
        self.ready_s = time.perf_counter() - began

    def post(self, path: str, body: dict) -> dict:
        """The JSON answer to a POST. Ends the benchmark where it is refused."""
        answer = self.client.post(path, json=body)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.text}")
        return answer.json()

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of the server and of the worker, in MB."""
        server = psutil.Process(self.process.pid)
        workers = [p for p in server.children() if "spawn_main" in " ".join(p.cmdline())]
        worker = max((p.memory_info().rss for p in workers), default=0)
        return {
            "server": round(server.memory_info().rss / MB, 1),
            "worker": round(worker / MB, 1),
        }

    def close(self) -> None:
        """As Ctrl-C."""
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


def write_video(file: Path, frames: int) -> None:
    """A video of so many frames; the sample is encoded once more by a real codec."""
    from geometry_fusion.io.video_file import VideoFile
    from geometry_fusion.io.video_writer import VideoWriter

    with VideoWriter(file, RATE, VideoFile(CLIP).size) as writer:
        for image in islice(endless_clip(), frames):
            writer.write(image)


def opened(server: Server, video: Path) -> tuple[str, float]:
    """(key of a new session over a video, seconds from the upload to its frames)."""
    key = server.post("/api/sessions", {})["key"]
    began = time.perf_counter()
    with open(video, "rb") as content:
        answer = server.client.put(
            f"/api/s/{key}/upload", params={"name": video.name}, content=content
        )
    server.post(f"/api/s/{key}/open", {"files": [answer.json()["id"]]})
    return key, time.perf_counter() - began


def click(server: Server, key: str, frame: int, xy: tuple[float, float]) -> float:
    """Milliseconds from a click on object 1 to the bytes of its mask."""
    action = {"do": "mark", "kind": "point", "frame": frame, "object": 1, "values": list(xy)}
    began = time.perf_counter()
    server.post(f"/api/s/{key}/do", {**action, "after": 10**9})
    mask = server.client.post(f"/api/s/{key}/preview", json={"frame": frame, "object": 1})
    if mask.status_code != 200 or not mask.content:
        raise SystemExit(f"preview: {mask.status_code} {mask.text[:200]}")
    return 1000 * (time.perf_counter() - began)


def clicks(server: Server, key: str, count: int, clicked: list[int]) -> dict[str, list[float]]:
    """Times of clicks on new frames, and of a second click on each of them."""
    server.post(f"/api/s/{key}/do", {"do": "add_object"})
    click(server, key, clicked[0], CLICK)  # the first one opens the folder in the worker
    times = {"new": [], "known": []}
    for frame in clicked[1 : count + 1]:
        server.client.get(f"/api/s/{key}/frame/{frame}.jpg")  # the person sees it first
        times["new"].append(click(server, key, frame, CLICK))
        times["known"].append(click(server, key, frame, (CLICK[0] + 3, CLICK[1] + 2)))
    return times


def scrub(server: Server, key: str, frames: int) -> tuple[float, list[dict[str, float]]]:
    """(milliseconds a frame, memory on the way) of fetching every frame in order, and the state as
    often as an idle page asks for it.
    """
    memory, began = [], time.perf_counter()
    for index in range(frames):
        server.client.get(f"/api/s/{key}/frame/{index}.jpg")
        if index % 500 == 0:
            server.client.get(f"/api/s/{key}/state", params={"after": 10**9})
        if (index + 1) % max(1, frames // SCRUB_STEPS) == 0:
            memory.append(server.memory_mb())
    return 1000 * (time.perf_counter() - began) / frames, memory


def tracked(server: Server, video: Path, frames: int) -> dict:
    """Tracking the first frames of the video with both arms: pace and memory on the way."""
    key = server.post("/api/sessions", {})["key"]
    answer = server.client.put(
        f"/api/s/{key}/upload", params={"name": video.name}, content=video.read_bytes()
    )
    asked = {"files": [answer.json()["id"]], "last": frames - 1}
    server.post(f"/api/s/{key}/open", asked)
    server.post(f"/api/s/{key}/do", {"do": "add_object"})
    click(server, key, 0, CLICK)
    memory, began = [], time.perf_counter()
    job = server.post(f"/api/s/{key}/run", {})["job"]
    while job["status"] in ("waiting", "running"):
        time.sleep(0.5)
        job = server.client.get(f"/api/s/{key}/state", params={"after": 10**9}).json()["job"]
        if job["done"] >= (len(memory) + 1) * frames // SCRUB_STEPS:
            memory.append(server.memory_mb())
    seconds = time.perf_counter() - began
    return {"frames": frames, "status": job["status"], "seconds": seconds, "memory": memory}


def summary(times: list[float]) -> dict[str, float]:
    """Median, 90th percentile and maximum."""
    return {
        "median_ms": round(float(np.median(times)), 1),
        "p90_ms": round(float(np.percentile(times, 90)), 1),
        "most_ms": round(max(times), 1),
        "clicks": len(times),
    }


def table(result: dict) -> str:
    """The result for people."""
    rows = [("", "median", "90%", "most")]
    for name in ("new", "known"):
        of = result["click_to_mask"][name]
        values = (of[key] for key in ("median_ms", "p90_ms", "most_ms"))
        rows.append((f"click to mask, {name} frame", *(f"{value:.0f} ms" for value in values)))
    rows.append(("server answers / models ready", f"{result['answers_s']:.1f} s"))
    rows[-1] += (f"{result['ready_s']:.1f} s", "")
    opening = f"opening {result['frames']} frames"
    rows.append((opening, f"{result['open_s']:.0f} s", "", ""))
    rows.append(("a frame while scrubbing", f"{result['scrub_ms']:.1f} ms", "", ""))
    for name, memory in result["memory_mb"].items():
        steps = memory if isinstance(memory, list) else [memory]
        for part in ("server", "worker"):
            values = " -> ".join(f"{step[part]:.0f}" for step in steps)
            rows.append((f"{part}, {name}", f"{values} MB", "", ""))
    width = max(len(row[0]) for row in rows)
    lines = (f"{row[0]:{width}}  " + "  ".join(f"{c:>8}" for c in row[1:]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """All measurements, in one server."""
    video = folder / "long.mp4"
    write_video(video, args.frames)
    server = Server(folder / "studio", args.studio)
    try:
        memory = {"models ready": server.memory_mb()}
        key, open_s = opened(server, video)
        memory["video open"] = server.memory_mb()
        scrub_ms, memory["scrubbing"] = scrub(server, key, args.frames)
        order = random.Random(0).sample(range(args.frames), args.clicks + 1)
        times = clicks(server, key, args.clicks, order)
        memory["after clicks"] = server.memory_mb()
        run = None
        if args.track:
            run = tracked(server, video, min(args.track, args.frames))
            memory["tracking"] = run.pop("memory")
    finally:
        server.close()
    return {
        "frames": args.frames,
        "cpus": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "answers_s": round(server.answers_s, 2),
        "ready_s": round(server.ready_s, 2),
        "open_s": round(open_s, 1),
        "scrub_ms": round(scrub_ms, 2),
        "click_to_mask": {name: summary(values) for name, values in times.items()},
        "memory_mb": memory,
        "tracking": run,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=18_000, help="of the video")
    parser.add_argument("--clicks", type=int, default=60, help="on new frames, and on known ones")
    parser.add_argument("--track", type=int, default=0, metavar="N", help="track N frames as well")
    parser.add_argument("studio", nargs="*", help="options of main.py ui, after --")
    args = parser.parse_args()
    if not 0 < args.clicks < args.frames:
        raise SystemExit(f"--clicks {args.clicks}: must be 1..{args.frames - 1}")
    with tempfile.TemporaryDirectory(prefix="3am-studio-") as folder:
        result = measure(args, Path(folder))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "studio.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
