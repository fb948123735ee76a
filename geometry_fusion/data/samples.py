"""The bundled samples: three rooms from the validation seeds, none of them seen in training.

    python -m geometry_fusion.data.samples --out videos/samples

Each sample is a folder: video.mp4 (H.264), gt/STEM.png (0/255), sample.json (title, click, prompted
frame, origin). The click is the innermost point of the object, on the frame of its first appearance
that shows it largest.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import json
import sys
from itertools import islice
from pathlib import Path

from geometry_fusion.data.rooms import draw_layout, render_room
from geometry_fusion.errors import OneLineParser, run_cli
from geometry_fusion.files import check_holds_only, replacing_folder
from geometry_fusion.mask_files import innermost_point, write_mask
from geometry_fusion.video import VideoWriter

ROOM_FRAMES, FRAME_RATE = 60, 10
LANDSCAPE, SQUARE = (320, 240), (256, 256)  # the shipped weights were trained on square rooms
# name: (seed, size of the frames, object id, frames of the room, title)
SAMPLES = {
    "walk": (
        100_042,
        LANDSCAPE,
        3,
        range(25, 55),
        "A stack of blocks that stays in view while the camera walks",
    ),
    "return": (100_033, LANDSCAPE, 6, range(60), "A table that the camera leaves and finds again"),
    "twins": (
        100_026,
        SQUARE,
        5,
        range(60),
        "A vase and its twin: the camera leaves the one, passes the other and comes back",
    ),
}


def write_sample(
    folder: Path, seed: int, size: tuple[int, int], object_id: int, frames: range, title: str
) -> None:
    with replacing_folder(folder) as fresh:
        (fresh / "gt").mkdir()
        masks = []
        with VideoWriter(fresh / "video.mp4", FRAME_RATE, size) as writer:
            clip = islice(render_room(seed, ROOM_FRAMES, *size), frames.start, frames.stop)
            for index, frame in enumerate(clip):
                masks.append(frame.instance == object_id)
                writer.write(frame.rgb)
                write_mask(fresh / "gt" / f"{index:04d}.png", masks[-1])
        areas = [int(mask.sum()) for mask in masks]
        appears = next(i for i, area in enumerate(areas) if area)
        leaves = next((i for i, area in enumerate(areas) if i > appears and not area), len(areas))
        prompt_frame = max(range(appears, leaves), key=areas.__getitem__)
        click = innermost_point(masks[prompt_frame])
        twin = draw_layout(seed, ROOM_FRAMES).objects[object_id - 1].twin_of
        origin = {
            "seed": seed,
            "frames": [frames.start, frames.stop],
            "object": object_id,
            "twin_of": twin,
        }
        text = {
            "title": title,
            "point": f"{click[0]},{click[1]}",
            "prompt_frame": prompt_frame,
            **origin,
        }
        (fresh / "sample.json").write_text(json.dumps(text, indent=1) + "\n")


def main(argv=None) -> None:
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
        check_holds_only(args.out / name, ("video.mp4", "gt", "sample.json"), "--out")
    for name, facts in SAMPLES.items():
        write_sample(args.out / name, *facts)
        print(args.out / name)


if __name__ == "__main__":
    sys.exit(run_cli(main))
