"""The tracker that the arguments of `main.py segment` ask for."""

import argparse

from geometry_fusion.data.given import GivenGeometry, open_geometry
from geometry_fusion.errors import InputError
from geometry_fusion.io.open_frames import open_frames
from geometry_fusion.models.must3r import default_must3r
from geometry_fusion.models.tracker import Tracker, load


def sam2_options(args: argparse.Namespace) -> dict:
    """Options of `load` that concern SAM2."""
    return {
        "sam2_checkpoint": args.sam2_checkpoint,
        "device": args.device,
        "precision": args.precision,
        "compile": args.compile,
        "objects_at_once": args.objects_at_once,
        "memory": args.memory,
    }


def given_geometry(args: argparse.Namespace) -> GivenGeometry | None:
    """Geometry of --geometry, checked and described; None without one."""
    if args.geometry is None:
        return None
    if args.source is not None:
        raise InputError(
            f"--geometry {args.geometry}: is of a file or folder; give it as --frames, not --source"
        )
    given = open_geometry(args.geometry, open_frames(args.frames))
    print("\n".join(given.lines()), flush=True)
    return given


def load_tracker(args: argparse.Namespace) -> Tracker:
    """The tracker of `--arm`. Prints the reason where `auto` falls back to SAM2 alone.

    Raises InputError for weights that are missing or do not fit.
    """
    if args.arm == "sam2" and args.checkpoint:
        raise InputError(f"--checkpoint {args.checkpoint}: is for geometry; leave out --arm sam2")
    kind = {"auto": "auto", "3am": "must3r"}.get(args.arm)
    options = sam2_options(args)
    if kind is None or args.geometry_mode == "off" or args.fallback == "always":
        return load(args.sam2, geometry="none", **options)
    options |= {"max_keyframes": args.max_keyframes, "keyframe_interval": args.join_every}
    options["geometry_every"] = args.geometry_every
    given = given_geometry(args)
    named = f"{kind}:{args.must3r}"
    if args.must3r == "auto":
        named = kind if kind == "auto" else f"{kind}:{default_must3r(args.sam2)}"
    options |= {"geometry": given or named, "mode": args.geometry_mode}
    try:
        tracker = load(args.sam2, checkpoint=args.checkpoint, **options)
    except InputError as error:
        if args.arm == "3am" and not args.checkpoint:
            raise InputError(f"--arm 3am: {error}") from None
        raise
    if tracker.without_geometry:
        print(f"SAM2 alone, without geometry: {tracker.without_geometry}", flush=True)
    if tracker.without_merger:
        print(f"places, without a merger: {tracker.without_merger}", flush=True)
    return tracker
