"""How well motion is detected, on rooms with moving objects.

    python -m geometry_fusion.evaluation.motion --seeds 120000:120024 --still 100040:100048
    python -m geometry_fusion.evaluation.motion --seeds 120000:120024 --calibrate

Every object is watched alone, with the baseline's masks (SAM2, prompted by the mask of the largest
view) or the true ones, and with MUSt3R's geometry, the true one, or none. Rooms, masks, geometry
and the evidence of pairs are kept under --out and not computed again. Thresholds are those of
configs/motion.yaml; --calibrate searches better ones and prints them.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import itertools
import json
import sys
from pathlib import Path

from tqdm import tqdm

from geometry_fusion.data import moving_rooms, rooms
from geometry_fusion.data.rooms import seed_range
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.worlds import rendered_rooms
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.evaluation.motion_inputs import MotionInputs
from geometry_fusion.evaluation.motion_objects import (
    GEOMETRIES,
    MASKS,
    MotionObject,
    objects_of,
)
from geometry_fusion.evaluation.motion_scores import SEARCH, calibrated, summary
from geometry_fusion.motion.settings import read_settings


def scenes_of(args: argparse.Namespace) -> list[Scene]:
    """The rooms of the command line, rendered where they are missing."""
    folders = rendered_rooms(
        moving_rooms, args.root / "moving_rooms/test", seed_range(args.seeds), args.workers
    )
    if args.still:
        still = seed_range(args.still)
        folders += rendered_rooms(rooms, args.root / "rooms/test", still, args.workers)
    return [Scene(folder) for folder in folders]


def column(
    scenes: list[Scene], args: argparse.Namespace, masks: str, geometry: str, settings
) -> list[MotionObject]:
    """The objects of all scenes with one kind of masks and of geometry."""
    inputs = MotionInputs(args.out / "cache", args.sam2, args.must3r)
    objects = []
    for scene in tqdm(scenes, unit="room", desc=f"{masks} masks, {geometry} geometry"):
        objects += objects_of(
            scene, inputs, masks, geometry, settings, args.out / "pairs", args.min_area
        )
    return objects


def table(results: dict[str, dict]) -> str:
    """Measures by rows, one column per kind of masks and geometry."""
    lines = [["", *results]]
    measures = [name for name in next(iter(results.values())) if name not in ("rates", "unknown")]
    for name in measures:
        values = (result[name] for result in results.values())
        lines.append([name, *("-" if v is None else f"{v:.3f}" for v in values)])
    for name in next(iter(results.values()))["rates"]:
        cells = []
        for result in results.values():
            hits, of = result["rates"].get(name, (0, 0))
            cells.append(f"{hits}/{of} = {100 * hits / of:.1f}%" if of else "-")
        lines.append([f"fires: {name}", *cells])
    lines.append(["unknown", *(str(result["unknown"]) for result in results.values())])
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines)


def arguments(argv) -> argparse.Namespace:
    """The command line; raises InputError for wrong words and numbers."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.evaluation.motion",
        description="Measure how well moving objects are told from still ones.",
    )
    parser.add_argument("--seeds", required=True, help="A:B, rooms with moving objects")
    parser.add_argument("--still", help="A:B, still rooms beside them")
    parser.add_argument("--masks", default="baseline,true", help=f"of {', '.join(MASKS)}")
    parser.add_argument("--geometry", default="must3r,true", help=f"of {', '.join(GEOMETRIES)}")
    parser.add_argument("--settings", type=Path, help="YAML file in place of configs/motion.yaml")
    parser.add_argument("--calibrate", action="store_true", help="search thresholds, column 1")
    parser.add_argument("--root", type=Path, default=Path("data"), help="rendered rooms")
    parser.add_argument("--out", type=Path, default=Path("eval_logs/motion"), help="results")
    parser.add_argument("--sam2", default="tiny", help="model of the baseline")
    parser.add_argument("--must3r", default="tiny", help="model or weight file")
    parser.add_argument("--min-area", type=int, default=300, help="pixels of the largest view")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    args = parser.parse_args(argv)
    for flag, known in (("masks", MASKS), ("geometry", GEOMETRIES)):
        words = getattr(args, flag).split(",")
        for word in words:
            if word not in known:
                raise InputError(f"--{flag} {word}: unknown; choose some of {','.join(known)}")
        setattr(args, flag, words)
    return args


def main(argv=None) -> None:
    """Measure, print and write a table; with --calibrate also the thresholds."""
    args = arguments(argv)
    settings = read_settings(args.settings)
    scenes, results = scenes_of(args), {}
    for masks, geometry in itertools.product(args.masks, args.geometry):
        objects = column(scenes, args, masks, geometry, settings)
        if args.calibrate and not results:
            settings = calibrated(objects, settings)
            print({name: getattr(settings, name) for name in SEARCH})
        results[f"{masks}/{geometry}"] = summary(objects, settings)
    text = table(results)
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"{args.seeds.replace(':', '-')}"
    (args.out / f"{name}.txt").write_text(text + "\n")
    (args.out / f"{name}.json").write_text(json.dumps(results, indent=1))
    print(f"written: {args.out}/{name}.txt, {name}.json")


if __name__ == "__main__":
    sys.exit(run_cli(main))
