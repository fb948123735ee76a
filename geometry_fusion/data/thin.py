"""Thin scene folders for travel: every N-th frame, smaller pictures, coarser depth.

    python -m geometry_fusion.data.thin data/rooms/train --out DIR --every 4 --scenes 72 \
        --with-depth 24

For a training on another machine to which only little can be copied.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import sys
from pathlib import Path

import numpy as np

from geometry_fusion.data.scenes import Scene, SceneFrame, find_scenes
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import OneLineParser, run_cli

DEPTH_STEP_M = 0.016  # depth is rounded to it: its PNG is then half as large


def thinned(scene: Scene, every: int, with_depth: bool):
    """Every `every`-th frame of a scene, as `write_scene` takes them."""
    for index in range(0, len(scene), every):
        pose, k = scene.camera(index)
        depth = None
        if with_depth:
            depth = np.round(scene.depth(index) / DEPTH_STEP_M) * DEPTH_STEP_M
        intrinsics = (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        yield SceneFrame(
            scene.stems[index], scene.rgb(index), scene.instance(index), depth, pose, intrinsics
        )


def main(argv=None) -> None:
    """Write thinned copies of scenes."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.data.thin",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of scene folders")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the copies")
    parser.add_argument("--every", type=int, default=4, help="keep every N-th frame")
    parser.add_argument("--scenes", type=int, default=1_000_000, help="at most so many scenes")
    parser.add_argument(
        "--with-depth", type=int, default=1_000_000, help="so many of them keep depth"
    )
    args = parser.parse_args(argv)
    for number, folder in enumerate(find_scenes(args.folder)[: args.scenes]):
        scene = Scene(folder)
        frames = thinned(scene, args.every, number < args.with_depth)
        write_scene(args.out / folder.name, frames, scene.objects)


if __name__ == "__main__":
    sys.exit(run_cli(main))
