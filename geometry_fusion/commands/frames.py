"""`main.py frames`: write frames of a video to a folder."""

import argparse
from pathlib import Path

from geometry_fusion.commands.arguments import FRAMES, command_line, program
from geometry_fusion.io.extract import extract_frames


def get_frames(video, out=FRAMES, every: int = 6, size=None, overwrite: bool = False) -> list[Path]:
    """Write every `every`-th frame of `video` to `out` as 0000.jpg ... and return the files.

    size: None (keep the shape, long side at most 1280), "keep", or (width, height). overwrite:
    replace frames of another video. Raises InputError on bad input.
    """
    return extract_frames(video, out, every, size, overwrite=overwrite)


def run(args: argparse.Namespace) -> None:
    """Extract the frames and print the next command. Raises InputError as `get_frames`."""
    files = get_frames(args.video, args.out, args.every, args.size, args.overwrite)
    pick = command_line(program("pick"))
    ab = command_line(program("ab"))
    print(f"{len(files)} frames in {args.out}; next: {pick}, or {ab} --point x,y")
