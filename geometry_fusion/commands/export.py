"""`main.py export`: masks in the formats of other tools (docs/exports.md)."""

import argparse

from geometry_fusion.errors import InputError, printable
from geometry_fusion.io.exports import export


def run(args: argparse.Namespace) -> None:
    """Write the masks to --out and say what the format could not keep.

    Raises InputError for bad input.
    """
    given = args.names or []
    names = dict(given)
    if len(names) < len(given):
        raise InputError("--names: names an object twice; give every id once")
    exported = export(
        args.masks,
        args.to,
        args.out,
        frames=args.frames,
        names=names,
        objects=args.object,
        shapes=args.shapes,
        overwrite=args.overwrite,
        progress=True,
    )
    objects = [f"{object_id} ({name})" for object_id, name in exported.names.items()]
    shown = ", ".join(objects[:5]) + (", ..." if len(objects) > 5 else "")
    plural = "" if len(objects) == 1 else "s"
    print(
        printable(
            f"{exported.out}: {args.to}, {exported.num_frames} frames, {len(objects)} "
            f"object{plural}: {shown}"
        )
    )
    for note in exported.notes:
        print(printable(note))
