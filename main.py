"""The everyday commands; each explains itself with --help.

    python main.py ui                           the studio: click, track and correct in the browser
    python main.py frames VIDEO                 video -> videos/frames/0000.jpg ...
    python main.py pick                         click in a window; prints the command to run
    python main.py segment --point "180,296"    masks and an overlay video, of any length
    python main.py segment --source 0 --show    the same live: click in the window
    python main.py export MASKS --to coco       masks in the formats of other tools
    python main.py reconstruct --frames DIR     point cloud and camera path, by MUSt3R
    python main.py geometry --with colmap       cameras and points by COLMAP, for --geometry
    python main.py instances --scene DIR        things of a scene as groups of 3D points
    python main.py weights                      which weights are here; fetches missing ones

From Python: `from main import getFrames; getFrames("x.mp4")`.
"""

import sys

from geometry_fusion.commands.console import run_main, run_script


def getFrames(video, out="videos/frames", every=6, size=None, overwrite=False):
    """Write every `every`-th frame of `video` to `out` as 0000.jpg ... and return the files.

    size: None (keep the shape, long side at most 1280), "keep", or (width, height). overwrite:
    replace frames of another video. Raises InputError on bad input.
    """
    from geometry_fusion.commands.frames import get_frames

    return get_frames(video, out, every, size, overwrite)


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    return run_main(argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(run_script(main))
