"""Speed and memory of SAM2's own predictor, our baseline arm and our geometry arm, side by side:
make bench

    python benchmarks/speed.py                            the tiny models that ship; under 10
    minutes on two cores
    python benchmarks/speed.py --sam2 t --must3r 512 --lengths 8 16 --objects 1 4     published
    sizes, random weights
    python benchmarks/speed.py --device cuda

All three carry the same weights and track the same prompts through the same folder of frames: the
bundled `return` clip, forwards and backwards again and again. Each measurement is a process of its
own, because peak memory is a process's; the three take turns, and ratios are medians over rounds. A
time is that of a whole pass, from opening the frames to the last mask on the CPU, per frame;
loading weights and a first short pass are not counted. Writes benchmarks/out/results.json and
speed.png.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import psutil
import torch
from common import CLIP, OUT

ARMS = ("upstream", "baseline", "3am")
WARM_UP = 24  # frames, before anything is measured; full batches among them
ROUNDS = {64: 3, 256: 2}  # by frames times objects, at most; longer passes are measured once
WINDOW = 64  # frames over which the cost early and late in a video is taken; full batches of frames


def prompts(objects: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    """One click per object, spread over the frame."""
    columns = int(np.ceil(np.sqrt(objects)))
    cells = [
        ((i % columns + 0.5) / columns, (i // columns + 0.5) / columns) for i in range(objects)
    ]
    return [(x * size[0], y * size[1]) for x, y in cells]


def write_clip(folder: Path, length: int) -> None:
    """`length` frames of the sample, there and back again, as JPEG files."""
    from geometry_fusion.video import extract_frames

    files = extract_frames(CLIP, folder / "once", every=1, progress=False)
    there_and_back = cycle([*files, *files[-2:0:-1]])
    (folder / "clip").mkdir()
    for index, file in enumerate(islice(there_and_back, length)):
        os.link(file, folder / "clip" / f"{index:05d}.jpg")


def build(arm: str, args: argparse.Namespace):
    """The arm's predictor, with the weights that ship or those in `args.weights`."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    import fusion
    import sam2_model

    file = Path(args.weights) / f"{args.sam2}.pt" if args.weights else None
    if arm == "upstream":
        post = {"binarize_mask_from_pts_for_mem_enc": True}
        return sam2_model.build_sam2(
            args.sam2, target=SAM2VideoPredictor, checkpoint=file, device=args.device, **post
        )
    predictor = sam2_model.build_predictor(args.sam2, file, args.device, compile=args.compile)
    if arm == "3am":
        weights = Path(args.weights) if args.weights else None
        checkpoint = (
            weights / "fusion.safetensors"
            if weights
            else fusion.DEFAULT_CHECKPOINTS["tiny", "tiny"]
        )
        must3r = str(weights / f"{args.must3r}.pth") if weights else args.must3r
        fusion.fuse_checkpoint(predictor, checkpoint, sam2=args.sam2, sam2_file=file, must3r=must3r)
    return predictor


def masks_of(arm: str, predictor, folder: Path, clicks: list):
    """Yield every frame's masks, as a user of the arm gets them on the CPU."""
    from geometry_fusion.devices import autocast
    from geometry_fusion.session import Session
    from geometry_fusion.types import Prompt

    if arm == "upstream":
        with torch.inference_mode(), autocast(predictor.device):
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
    session = Session(predictor)
    for number, click in enumerate(clicks):
        session.add(Prompt(object_id=number + 1, points=(click,)))
    for _, ids in session.track(folder):
        yield ids


def measure_here(args: argparse.Namespace) -> None:
    """One arm, one length, one number of objects; prints a JSON line."""
    arm, length, objects, folder = (
        args.one[0],
        int(args.one[1]),
        int(args.one[2]),
        Path(args.one[3]),
    )
    from geometry_fusion.frame_folder import FrameFolder
    from geometry_fusion.predictor import FRAMES_AT_ONCE

    predictor = build(arm, args)
    clicks = prompts(objects, FrameFolder(folder / "warm").size)
    began = time.perf_counter()
    for _ in masks_of(arm, predictor, folder / "warm", clicks):
        pass
    warm_up_s = time.perf_counter() - began
    gc.collect()  # what the first pass held is free for the second
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    process, began, stamps = psutil.Process(), time.perf_counter(), []
    peak = 0
    for index, _ in enumerate(masks_of(arm, predictor, folder / "clip", clicks)):
        stamps.append(time.perf_counter())
        if index % 8 == 0:
            peak = max(peak, process.memory_info().rss)
    assert len(stamps) == length, (len(stamps), length)
    steps = np.diff([began, *stamps])
    result = {
        "seconds_per_frame": (stamps[-1] - began) / length,
        "peak_mb": peak / 2**20,
        "warm_up_s": warm_up_s,
    }
    if args.device == "cuda":
        result["peak_cuda_mb"] = torch.cuda.max_memory_allocated() / 2**20
    if length >= 4 * WINDOW:  # what a frame costs early and late; the first ones fill memory
        # Some frames are encoded with those before them: a frame's cost is that of a run of them.
        result["ms_early"], result["ms_late"] = (
            1000 * float(np.median(part.reshape(-1, FRAMES_AT_ONCE).mean(1)))
            for part in (steps[WINDOW : 2 * WINDOW], steps[-WINDOW:])
        )
    print(json.dumps(result))


def measure(
    args: argparse.Namespace, arm: str, length: int, objects: int, folder: Path, weights: str | None
) -> dict:
    command = [sys.executable, __file__, "--one", arm, str(length), str(objects), str(folder)]
    command += ["--sam2", args.sam2, "--must3r", args.must3r, "--device", args.device]
    command += ["--weights", weights] if weights else []
    command += ["--compile"] if args.compile else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{arm}, {length} frames, {objects} objects failed:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def summarise(rows: list[dict]) -> dict:
    """The ratios, from medians over rounds; slopes of peak memory over length, per object."""

    def of(arm: str, key: str, length: int, objects: int) -> list[float]:
        return [
            r[key] for r in rows if (r["arm"], r["frames"], r["objects"]) == (arm, length, objects)
        ]

    def ratio(a: str, b: str, length: int, objects: int) -> float:
        pairs = zip(
            of(a, "seconds_per_frame", length, objects), of(b, "seconds_per_frame", length, objects)
        )
        return round(statistics.median(x / y for x, y in pairs), 3)

    lengths = sorted({r["frames"] for r in rows if r["objects"] == 1})
    counts = sorted({r["objects"] for r in rows})
    short, longest = lengths[0], lengths[-1]
    most = counts[-1]
    slopes = {
        arm: round(
            float(np.polyfit(lengths, [min(of(arm, "peak_mb", n, 1)) for n in lengths], 1)[0]), 4
        )
        for arm in ARMS
        if len(lengths) > 1
    }
    return {
        "time_ratio": {
            "baseline_over_upstream": ratio("baseline", "upstream", longest, 1),
            "3am_over_baseline": ratio("3am", "baseline", longest, 1),
            f"objects{most}_over_upstream{most}": ratio("baseline", "upstream", short, most),
            "baseline_over_upstream_by_length": {
                n: ratio("baseline", "upstream", n, 1) for n in lengths
            },
            "3am_over_baseline_by_length": {n: ratio("3am", "baseline", n, 1) for n in lengths},
            "baseline_over_upstream_by_objects": {
                n: ratio("baseline", "upstream", short, n) for n in counts
            },
            "3am_over_baseline_by_objects": {n: ratio("3am", "baseline", short, n) for n in counts},
        },
        "memory_slope_mb_per_frame": slopes,
        "late_over_early": {
            arm: round(r["ms_late"] / r["ms_early"], 3)
            for arm in ARMS
            for r in rows
            if r["arm"] == arm and r["frames"] == longest and "ms_late" in r
        },
    }


def table(rows: list[dict], summary: dict) -> str:
    lines = [
        f"{'frames':>6} {'objects':>7}"
        + "".join(f"{arm + ' ms':>14}{'peak MB':>10}" for arm in ARMS)
    ]
    for length, objects in sorted(
        {(r["frames"], r["objects"]) for r in rows}, key=lambda key: key[::-1]
    ):
        line = f"{length:>6} {objects:>7}"
        for arm in ARMS:
            here = [
                r for r in rows if (r["arm"], r["frames"], r["objects"]) == (arm, length, objects)
            ]
            milliseconds = 1000 * statistics.median(r["seconds_per_frame"] for r in here)
            line += f"{milliseconds:>14.1f}{statistics.median(r['peak_mb'] for r in here):>10.0f}"
        lines.append(line)
    ratios = {k: v for k, v in summary["time_ratio"].items() if not isinstance(v, dict)}
    lines += ["", *(f"{name}: {value}" for name, value in ratios.items())]
    lines += [f"memory slope, MB a frame: {summary['memory_slope_mb_per_frame']}"]
    lines += [f"cost of a frame, late over early: {summary['late_over_early']}"]
    return "\n".join(lines)


def draw(rows: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    short = min(r["frames"] for r in rows)
    one, few = ([r for r in rows if r["objects"] == 1], [r for r in rows if r["frames"] == short])
    for panel, chosen, x, y, scale in (
        (panels[0], one, "frames", "seconds_per_frame", 1000),
        (panels[1], one, "frames", "peak_mb", 1),
        (panels[2], few, "objects", "seconds_per_frame", 1000),
    ):
        for colour, arm in enumerate(ARMS):
            here = [(r[x], scale * r[y]) for r in chosen if r["arm"] == arm]
            places = sorted({place for place, _ in here})
            medians = [
                statistics.median(value for place, value in here if place == at) for at in places
            ]
            panel.plot(places, medians, "-", color=f"C{colour}", label=arm)
            panel.plot(*zip(*here), ".", color=f"C{colour}")  # every round
    for panel, title, x in zip(
        panels,
        (
            "time, one object (ms a frame)",
            "peak memory, one object (MB)",
            f"time, {short} frames (ms a frame)",
        ),
        ("frames", "frames", "objects"),
    ):
        panel.set(title=title, xlabel=x, ylim=(0, None))
        panel.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
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
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure_here(args)
        return
    lengths = sorted(args.lengths)
    plan = [(n, 1) for n in lengths] + [(lengths[0], k) for k in args.objects if k > 1]
    rows, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        weights = None
        if args.sam2 != "tiny":
            import full_size

            weights = str(full_size.write_all(Path(name), args.sam2, args.must3r))
        for length, objects in plan:
            folder = Path(name) / f"{length}-{objects}"
            folder.mkdir()
            write_clip(folder, length)
            (folder / "warm").mkdir()
            for file in sorted((folder / "clip").iterdir())[:WARM_UP]:
                os.link(file, folder / "warm" / file.name)
            for round_ in range(
                next((n for most, n in ROUNDS.items() if length * objects <= most), 1)
            ):
                # Each round begins with another arm: who comes first finds a cooler machine.
                for arm in islice(chain(ARMS, ARMS), round_ % 3, round_ % 3 + 3):
                    found = measure(args, arm, length, objects, folder, weights)
                    rows.append({"arm": arm, "frames": length, "objects": objects, **found})
                    print(rows[-1], flush=True)
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
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "results.json").write_text(
        json.dumps({**summary, "measured_on": facts, "rows": rows}, indent=1) + "\n"
    )
    draw(rows, OUT / "speed.png")
    print(table(rows, summary))


if __name__ == "__main__":
    main()
