"""Render the bundled samples: three rooms from the validation seeds, none of them trained on.

    python -m geometry_fusion.data.samples --out videos/samples

Each sample is a folder: video.mp4 (H.264), gt/STEM.png (0/255), sample.json (title, click, prompted
frame, origin). The prompted frame is the one of the object's first appearance that shows it
largest; the click is the object's innermost point there.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import json
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from geometry_fusion.data.room_layout import draw_layout
from geometry_fusion.data.rooms import render_room
from geometry_fusion.errors import OneLineParser, run_cli
from geometry_fusion.io.atomic import check_holds_only, replacing_folder
from geometry_fusion.io.mask_writer import innermost_point, write_mask
from geometry_fusion.io.video_writer import VideoWriter

ROOM_FRAMES, FRAME_RATE = 60, 10
LANDSCAPE, SQUARE = (320, 240), (256, 256)  # the shipped weights were trained on square rooms
FILES = ("video.mp4", "gt", "sample.json")  # what a folder may hold that is replaced


@dataclass(frozen=True)
class Sample:
    """The recipe of one sample."""

    seed: int  # of the room
    size: tuple[int, int]  # (width, height)
    object_id: int
    frames: range  # of the room's sequence
    title: str


SAMPLES = {
    "walk": Sample(
        100_042,
        LANDSCAPE,
        3,
        range(25, 55),
        "A stack of blocks that stays in view while the camera walks",
    ),
    "return": Sample(
        100_033, LANDSCAPE, 6, range(60), "A table that the camera leaves and finds again"
    ),
    "twins": Sample(
        100_026,
        SQUARE,
        5,
        range(60),
        "A vase and its twin: the camera leaves the one, passes the other and comes back",
    ),
}


def write_sample(folder: Path, sample: Sample) -> None:
    """Render a sample into `folder`, which is replaced once all is there."""
    with replacing_folder(folder) as fresh:
        (fresh / "gt").mkdir()
        masks = []
        with VideoWriter(fresh / "video.mp4", FRAME_RATE, sample.size) as writer:
            room = render_room(sample.seed, ROOM_FRAMES, *sample.size)
            clip = islice(room, sample.frames.start, sample.frames.stop)
            for index, frame in enumerate(clip):
                masks.append(frame.instance == sample.object_id)
                writer.write(frame.rgb)
                write_mask(fresh / "gt" / f"{index:04d}.png", masks[-1])
        prompt_frame = _prompt_frame(masks)
        click = innermost_point(masks[prompt_frame])
        layout = draw_layout(sample.seed, ROOM_FRAMES)
        text = {
            "title": sample.title,
            "point": f"{click[0]},{click[1]}",
            "prompt_frame": prompt_frame,
            "seed": sample.seed,
            "frames": [sample.frames.start, sample.frames.stop],
            "object": sample.object_id,
            "twin_of": layout.objects[sample.object_id - 1].twin_of,
        }
        (fresh / "sample.json").write_text(json.dumps(text, indent=1) + "\n")


def _prompt_frame(masks: list[np.ndarray]) -> int:
    """Index of the largest mask of the object's first appearance."""
    areas = [int(mask.sum()) for mask in masks]
    appears = next(i for i, area in enumerate(areas) if area)
    leaves = next((i for i, area in enumerate(areas) if i > appears and not area), len(areas))
    return max(range(appears, leaves), key=areas.__getitem__)


def main(argv=None) -> None:
    """Render all samples."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.data.samples", description="Render the bundled samples."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("videos/samples"),
        help="folder that receives one folder each",
    )
    args = parser.parse_args(argv)
    for name in SAMPLES:
        check_holds_only(args.out / name, FILES, "--out")
    for name, sample in SAMPLES.items():
        write_sample(args.out / name, sample)
        print(args.out / name)


if __name__ == "__main__":
    sys.exit(run_cli(main))
