"""`main.py geometry`: cameras and points of a video by COLMAP, to give to --geometry."""

import argparse
import json

from geometry_fusion.data.given import open_geometry
from geometry_fusion.data.given.run_colmap import run_colmap
from geometry_fusion.errors import printable
from geometry_fusion.io.atomic import check_apart, check_replaceable, replacing_folder
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.io.source_record import OVERWRITE_CURE, check_may_replace, record_of

SUFFIXES = (".bin", ".json")


def run(args: argparse.Namespace) -> None:
    """Write a COLMAP model of the video to --out and say how good it is.

    Raises InputError for bad input, and where the camera moves too little.
    """
    check_replaceable(args.out, SUFFIXES, "--out")
    check_apart((args.out,), (args.frames,))
    record = record_of(args.frames)
    check_may_replace((args.out,), record, args.overwrite, OVERWRITE_CURE)
    with opened_frames(args.frames) as frames, replacing_folder(args.out) as folder:
        result = run_colmap(
            frames, folder, args.frames, lambda step: print(f"{step} ...", flush=True)
        )
        about = {
            "source": record,
            "made_by": f"COLMAP ({args.method})",
            "frames": len(frames),
            "registered": result.registered,
            "points": result.points,
        }
        (folder / "geometry.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        lines = open_geometry(folder, frames).lines()
        num_frames = len(frames)
    print(
        printable(
            f"{args.out}/: {result.registered} of {num_frames} frames, {result.points:,} points; "
            f"the camera moved by {result.baseline:.0%} of the median depth"
        )
    )
    print("\n".join(lines))
    print(printable(f"use it: --frames {args.frames} --geometry {args.out}"))
