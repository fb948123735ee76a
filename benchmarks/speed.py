"""Speed and memory of SAM2's own predictor, our baseline arm and our geometry arms (`make bench`).

    python benchmarks/speed.py                  the tiny models; about 15 minutes on two cores
    python benchmarks/speed.py --device cuda
    python benchmarks/speed.py --sam2 t --must3r 512 --lengths 8 16 --objects 1 4
                                                published sizes, random weights

All arms carry the same weights and track the same prompts through the same folder of frames: the
bundled `return` clip, forwards and backwards again and again. Each measurement is a process of its
own, because peak memory is a process's. The arms take turns; ratios are medians over rounds, with
the least and the largest. A time is that of a whole pass, from opening the frames to the last mask
on the CPU, divided by the number of frames; loading weights and a short first pass are not counted.
Processor seconds, of all threads, stand for energy. At the first length, arms are measured on one
core too, and beside a second program that does the same. Writes benchmarks/out/results.json and
speed.png; with --geometry-every or --precision, files with these in their names.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import psutil
import torch
from common import ARMS, OUT, write_clip
from speed_tables import draw, summarise, table

ROUNDS = {64: 3, 256: 2}  # frames times objects, at most -> rounds; longer passes have one
WINDOW = 64  # frames over which the cost early and late in a video is taken; whole batches


@dataclass(frozen=True)
class Plan:
    """What is measured with every arm."""

    frames: int
    objects: int
    cores: int | None = None  # None: all
    programs: int = 1  # that do the same at the same time


def prompts(objects: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    """One click (x, y) per object, spread over a frame of `size` (width, height)."""
    columns = int(np.ceil(np.sqrt(objects)))
    clicks = []
    for i in range(objects):
        x, y = (i % columns + 0.5) / columns, (i // columns + 0.5) / columns
        clicks.append((x * size[0], y * size[1]))
    return clicks


def build(arm: str, args: argparse.Namespace):
    """The arm's predictor, with the weights that ship or those in `args.weights`."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    from geometry_fusion import load
    from geometry_fusion.models.sam2 import build_sam2

    weights = Path(args.weights) if args.weights else None
    file = weights / f"{args.sam2}.pt" if weights else None
    if arm == "upstream":
        return build_sam2(
            args.sam2,
            target=SAM2VideoPredictor,
            checkpoint=file,
            device=args.device,
            binarize_mask_from_pts_for_mem_enc=True,  # as SAM2's own builder sets it
        )
    geometry, checkpoint = "none", None
    if arm != "baseline":
        geometry = f"must3r:{weights / args.must3r}.pth" if weights else f"must3r:{args.must3r}"
    if arm in ("3am", "both") and weights:
        checkpoint = weights / "fusion.safetensors"
    files = {"sam2_checkpoint": file, "checkpoint": checkpoint}
    mode = {"3am": "merger", "places": "places", "both": "both"}.get(arm, "auto")
    options = {"device": args.device, "compile": args.compile, "mode": mode}
    options["precision"] = args.precision
    if arm != "baseline":
        options["geometry_every"] = args.geometry_every
    return load(args.sam2, geometry=geometry, **files, **options).predictor


def masks_of(arm: str, predictor, folder: Path, clicks: list, precision: str = "auto"):
    """Masks of every frame, as a user of the arm gets them on the CPU."""
    from geometry_fusion.devices import autocast
    from geometry_fusion.tracking.stream_session import StreamSession
    from geometry_fusion.types import Prompt

    if arm == "upstream":
        with torch.inference_mode(), autocast(predictor.device, precision):
            state = predictor.init_state(
                str(folder), offload_video_to_cpu=predictor.device.type == "cpu"
            )
            for number, click in enumerate(clicks):
                predictor.add_new_points_or_box(
                    state, 0, number + 1, points=np.array([click], np.float32), labels=[1]
                )
            for _, _, logits in predictor.propagate_in_video(state):
                yield (logits > 0).cpu().numpy()
        return
    session = StreamSession(predictor, precision)
    for number, click in enumerate(clicks):
        session.add(Prompt(object_id=number + 1, points=(click,)))
    for frame in session.track(folder):
        yield frame.ids


def measure_here(args: argparse.Namespace) -> None:
    """Measure one arm, length and number of objects in this process; prints a JSON line."""
    from geometry_fusion.io.frame_folder import FrameFolder

    started = psutil.Process().create_time()
    arm, folder = args.one[0], Path(args.one[3])
    length, objects = int(args.one[1]), int(args.one[2])
    predictor = build(arm, args)
    clicks = prompts(objects, FrameFolder(folder / "warm").size)
    began = time.perf_counter()
    first_mask_s = None
    for _ in masks_of(arm, predictor, folder / "warm", clicks, args.precision):
        first_mask_s = first_mask_s or time.time() - started
    warm_up_s = time.perf_counter() - began
    gc.collect()  # what the first pass held is free for the second
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    process = psutil.Process()
    stamps, processor_began = [time.perf_counter()], time.process_time()
    peak = 0
    clip = masks_of(arm, predictor, folder / "clip", clicks, args.precision)
    for index, _ in enumerate(clip):
        stamps.append(time.perf_counter())
        if index % 8 == 0:
            peak = max(peak, process.memory_info().rss)
    assert len(stamps) == length + 1, (len(stamps), length)
    result = {
        "seconds_per_frame": (stamps[-1] - stamps[0]) / length,
        "processor_s_per_frame": (time.process_time() - processor_began) / length,
        "first_mask_s": first_mask_s,  # from the start of the process
        "peak_mb": peak / 2**20,
        "warm_up_s": warm_up_s,
    }
    if args.device == "cuda":
        result["peak_cuda_mb"] = torch.cuda.max_memory_allocated() / 2**20
    if length >= 4 * WINDOW:
        steps = np.diff(stamps)
        # Not the very first frames, in which memory fills.
        result["ms_early"] = typical_ms(steps[WINDOW : 2 * WINDOW])
        result["ms_late"] = typical_ms(steps[-WINDOW:])
    print(json.dumps(result))


def typical_ms(steps: np.ndarray) -> float:
    """Milliseconds per frame: the median over batches, of the mean of each batch."""
    from geometry_fusion.tracking.encoder import FRAMES_AT_ONCE

    return 1000 * float(np.median(steps.reshape(-1, FRAMES_AT_ONCE).mean(1)))


def begin(
    args: argparse.Namespace,
    plan: Plan,
    arm: str,
    folder: Path,  # of the frames
    weights: str | None,  # folder of weight files; None: those that ship
) -> subprocess.Popen:
    """Start `measure_here` in a process of its own."""
    one = ["--one", arm, str(plan.frames), str(plan.objects), str(folder)]
    command = [sys.executable, __file__, *one]
    command += ["--sam2", args.sam2, "--must3r", args.must3r, "--device", args.device]
    command += ["--geometry-every", str(args.geometry_every), "--precision", args.precision]
    command += ["--weights", weights] if weights else []
    command += ["--compile"] if args.compile else []
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}  # as the commands set it
    if plan.cores:
        command = ["taskset", "-c", f"0-{plan.cores - 1}", *command]
        environment["OMP_NUM_THREADS"] = str(plan.cores)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def measure(args: argparse.Namespace, plan: Plan, arm: str, folder: Path, weights) -> dict:
    """One row, of programs that run at the same time; SystemExit with the output of one that fails.

    Of several, times are means.
    """
    running = [begin(args, plan, arm, folder, weights) for _ in range(plan.programs)]
    results = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{arm}, {plan} failed:\n{errors[-2000:]}")
        results.append(json.loads(out.splitlines()[-1]))
    means = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
    return {"arm": arm, **asdict(plan), **means}


def measure_all(args: argparse.Namespace, folder: Path) -> list[dict]:
    """All measurements, each as a row with arm, frames and objects; frames lie in `folder`."""
    weights = None
    if args.sam2 != "tiny":
        import full_size

        weights = str(full_size.write_all(folder, args.sam2, args.must3r))
    rows = []
    for plan in plans(args):
        clip_folder = folder / f"{plan.frames}-{plan.objects}-{plan.cores}-{plan.programs}"
        clip_folder.mkdir()
        write_clip(clip_folder, plan.frames)
        rounds = next((n for most, n in ROUNDS.items() if plan.frames * plan.objects <= most), 1)
        arms = ARMS if plan.frames == min(args.lengths) else [a for a in ARMS if a != "both"]
        for number in range(rounds):
            # Each round begins with another arm: the first runs on a cooler machine.
            first = number % len(arms)
            for arm in islice(chain(arms, arms), first, first + len(arms)):
                rows.append(measure(args, plan, arm, clip_folder, weights))
                print(rows[-1], flush=True)
    return rows


def plans(args: argparse.Namespace) -> list[Plan]:
    """Lengths with one object; at the first length several objects, one core, two programs."""
    lengths = sorted(args.lengths)
    several = [Plan(lengths[0], objects) for objects in args.objects if objects > 1]
    beside = []
    if args.device == "cpu" and sys.platform == "linux":
        beside = [Plan(lengths[0], 1, cores=1), Plan(lengths[0], 1, programs=2)]
    return [*(Plan(length, 1) for length in lengths), *several, *beside]


def parse() -> argparse.Namespace:
    """The command line; --one and --weights are for the processes that it starts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lengths", nargs="+", type=int, default=[64, 256, 1024], help="with one object"
    )
    parser.add_argument(
        "--objects", nargs="+", type=int, default=[1, 4, 16], help="at the first length"
    )
    parser.add_argument("--sam2", default="tiny", help="other sizes get random weights")
    parser.add_argument("--must3r", default="tiny")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "mps"))
    parser.add_argument(
        "--compile",
        action="store_true",
        help="our arms with torch.compile; compiling is not counted",
    )
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--geometry-every", type=int, default=1, help="of the geometry arms")
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, then print the table and write results and figure."""
    args = parse()
    if args.one:
        measure_here(args)
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        rows = measure_all(args, Path(name))
    summary = summarise(rows)
    facts = {
        "sam2": args.sam2,
        "must3r": args.must3r,
        "device": args.device,
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "torch": torch.__version__,
        "compile": args.compile,
        "precision": args.precision,
        "geometry_every": args.geometry_every,
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    OUT.mkdir(exist_ok=True)
    results = {**summary, "measured_on": facts, "rows": rows}
    kind = "" if args.geometry_every == 1 else f"_every{args.geometry_every}"
    kind += "" if args.precision == "auto" else f"_{args.precision}"
    (OUT / f"results{kind}.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(rows, OUT / f"speed{kind}.png")
    print(table(rows, summary))


if __name__ == "__main__":
    main()
