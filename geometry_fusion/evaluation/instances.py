"""How good 3D instances are, on rooms with known objects (docs/instances.md).

    python -m geometry_fusion.evaluation.instances --seeds 100060:100066 --arms truth,sam2,3am
    python -m geometry_fusion.evaluation.instances --seeds 100060:100062 --proposals auto
    python -m geometry_fusion.evaluation.instances --seeds 100060:100066 --arms truth \\
        --without erosion,weights,time,space,superpoints,apart

The arm "truth" tracks with the true masks: an upper bound. All others start from true masks on
keyframes, or, with `--proposals auto`, from the automatic mask generator's. Points are those of the
true depth. `--geometry must3r` lifts by MUSt3R's depth and cameras, moved onto the true ones by a
similarity. `--points own` takes MUSt3R's own points, which needs no true cameras.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from geometry_fusion.data import rooms
from geometry_fusion.data.rooms import seed_range
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.worlds import rendered_rooms
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.evaluation.instance_rooms import ARMS, InstanceRoom, tracker_of
from geometry_fusion.evaluation.instance_scores import (
    RoomScores,
    drawn_measures,
    interval_of,
    measures,
    scores_of,
)
from geometry_fusion.instances.settings import InstanceSettings, read_settings
from geometry_fusion.instances.solve import solve
from geometry_fusion.io.atomic import replacing_file

ABLATIONS = {
    "erosion": {"erosion": 0.0},
    "weights": {"relative_sigma": 0.0},
    "time": {"use_time": False},
    "space": {"use_space": False},
    "superpoints": {"superpoints": False},
    "apart": {"use_apart": False},
}
WITHOUT = " without "  # between an arm and what was left out
COLUMNS = {  # measure -> heading; all but the last two are shown in percent
    "ap": "AP",
    "ap_10": "AP (10)",
    "ap50": "AP50",
    "ap25": "AP25",
    "ap_ranked": "AP ranked",
    "ap50_ranked": "AP50 ranked",
    "twins_merged": "twins merged",
    "returned": "returned found",
    "fragments": "fragments",
}
ROOM_STRIDE = 5  # frames between keyframes: rooms have five frames per second, and a quick camera


def score_arm(
    rooms: list[InstanceRoom], arm: str, args: argparse.Namespace, changes: list[str]
) -> dict[str, list[RoomScores]]:
    """Scores per room, by ablation; "" is none. Tracks are made once."""
    tracker = tracker_of(arm)
    scores: dict[str, list[RoomScores]] = {name: [] for name in changes}
    for room in rooms:
        tracks = room.tracks(arm, args.proposals == "auto", tracker)
        ground = room.ground(args.geometry, args.points)
        for name in changes:
            settings = replace(ground.settings, **ABLATIONS.get(name, {}))
            superpoints = ground.superpoints if settings.superpoints else None
            frames = range(len(room.scene))
            instances = solve(ground.cloud, tracks, frames, ground.view_of, settings, superpoints)
            labels = ground.cloud.labels
            scores[name].append(scores_of(room.scene, labels, instances, args.least_points))
    return scores


def table(results: dict[str, dict]) -> str:
    """Rows of arms, columns of measures, and the paired differences of AP50."""
    lines = [["", *COLUMNS.values()]]
    for name, result in results.items():
        cells = [_cell(measure, result["measures"][measure]) for measure in COLUMNS]
        lines.append([name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]
    for name, result in results.items():
        parts = [
            f"{COLUMNS[measure]} {100 * low:.1f} to {100 * high:.1f}"
            for measure, (low, high) in result["intervals"].items()
        ]
        rows.append(f"{name}, 95%: {', '.join(parts)}")
    return "\n".join(rows)


def _cell(measure: str, value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.2f}" if measure == "fragments" else f"{100 * value:.1f}"


def differences(draws: dict[str, dict], results: dict[str, dict]) -> dict[str, dict]:
    """AP50 of every later arm minus every earlier one, and of every ablation minus its arm, with
    intervals over rooms.
    """
    gains = {}
    names = list(results)
    for number, arm in enumerate(names):
        base = arm.partition(WITHOUT)[0]
        others = [base] if base != arm else [n for n in names[:number] if WITHOUT not in n]
        for other in others:
            mean = results[arm]["measures"]["ap50"] - results[other]["measures"]["ap50"]
            low, high = interval_of(draws[arm]["ap50"] - draws[other]["ap50"])
            gains[f"{arm} - {other}"] = {"ap50": mean, "low": low, "high": high}
    return gains


def arguments(argv) -> argparse.Namespace:
    """The command line; raises InputError for wrong words and numbers."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.evaluation.instances",
        description="Measure 3D instances on rooms.",
    )
    add = parser.add_argument
    add("--seeds", required=True, help="A:B, rooms")
    add("--arms", default="truth,sam2,control,3am", help=f"of {', '.join(ARMS)}")
    add("--proposals", default="true", choices=("true", "auto"), help="masks on keyframes")
    add("--geometry", default="scan", choices=("scan", "must3r"), help="for lifting")
    add("--points", default="true", choices=("true", "own"), help="of true depth, or of MUSt3R")
    add("--without", default="", help=f"ablations beside the default: {', '.join(ABLATIONS)}")
    add("--stride", type=int, default=ROOM_STRIDE, help="frames between keyframes")
    add("--least-points", type=int, default=50, help="objects with fewer points are not counted")
    add("--settings", type=Path, help="YAML file, changes configs/instances_tiny.yaml")
    add("--root", type=Path, default=Path("data/rooms/test"), help="rendered rooms")
    add("--workers", type=int, default=1, help="processes that render missing rooms")
    add("--out", type=Path, default=Path("eval_logs/instances"), help="gets tables and a cache")
    args = parser.parse_args(argv)
    args.arms = args.arms.split(",")
    args.without = args.without.split(",") if args.without else []
    for flag, words, known in (("arms", args.arms, ARMS), ("without", args.without, ABLATIONS)):
        for word in words:
            if word not in known:
                raise InputError(f"--{flag} {word}: unknown; choose some of {', '.join(known)}")
    if args.points == "own" and args.geometry == "scan":
        raise InputError("--points own: are those of --geometry must3r; give both")
    return args


def rooms_of(args: argparse.Namespace) -> list[InstanceRoom]:
    """The rooms of the command line, rendered where they are missing."""
    settings: InstanceSettings = read_settings(
        True, args.settings, args.geometry == "must3r", stride=args.stride
    )
    folders = rendered_rooms(rooms, args.root, seed_range(args.seeds), args.workers)
    return [InstanceRoom(Scene(folder), settings, args.out / "cache") for folder in folders]


def main(argv=None) -> None:
    """Measure, print and write a table."""
    args = arguments(argv)
    chosen = rooms_of(args)
    results, draws = {}, {}
    for arm in args.arms:
        changes = ["", *args.without]
        for name, scores in score_arm(chosen, arm, args, changes).items():
            label = f"{arm}{WITHOUT}{name}" if name else arm
            draws[label] = drawn_measures(scores)
            intervals = {measure: interval_of(v) for measure, v in draws[label].items()}
            results[label] = {"measures": measures(scores), "intervals": intervals}
    gains = differences(draws, results)
    text = table(results)
    errors = {}
    if args.geometry == "must3r":
        errors = {room.scene.folder.name: room.learned.errors for room in chosen}
    for name, error in errors.items():
        text += f"\n{name}: points of objects are off by {error}"
    for name, gain in gains.items():
        values = (100 * gain[key] for key in ("ap50", "low", "high"))
        text += "\nAP50 {}: {:+.1f} ({:+.1f} to {:+.1f})".format(name, *values)
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = args.seeds.replace(":", "-")
    name = f"{seeds}_{args.proposals}_{args.geometry}_{'-'.join(args.arms)}"
    name += "_own" if args.points == "own" else ""
    name += "_ablations" if args.without else ""
    content = {
        "seeds": args.seeds,
        "proposals": args.proposals,
        "geometry": args.geometry,
        "points": args.points,
        "point_errors": {name: asdict(error) for name, error in errors.items()},
        "least_points": args.least_points,
        "settings": chosen[0].settings.facts(),
        "results": results,
        "differences": gains,
    }
    for suffix, written in ((".txt", text + "\n"), (".json", json.dumps(content, indent=1))):
        with replacing_file(args.out / (name + suffix)) as fresh:
            fresh.write_text(written)
    print(f"written: {args.out}/{name}.txt, .json")


if __name__ == "__main__":
    sys.exit(run_cli(main))
