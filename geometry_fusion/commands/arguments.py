"""Arguments that several commands share, and their types.

Imports only the standard library and model names: a command's help must not wait for torch.
"""

import argparse
import math
import os
import re
import shlex
import sys
from pathlib import Path

from geometry_fusion.choices import (
    DEVICES,
    FALLBACKS,
    GEOMETRY_MODES,
    MEMORY_POLICIES,
    PHOTO_ORDERS,
    PRECISIONS,
)
from geometry_fusion.models.names import MUST3R_MODELS, SAM2_MODELS

FRAMES = Path("videos/frames")  # where `main.py frames` leaves them
# command -> its script in a clone; all others are sub-commands of main.py
SCRIPTS = {
    "ab": "ab_iou.py",
    "train": "train.py",
    "evaluate": "evaluate.py",
    "metrics": "metrics.py",
}


def point_xy_px(text: str) -> tuple[int, tuple[float, ...]]:
    """A click: '180,296' -> (1, (180.0, 296.0)), for object 1; '2:180,296' is for object 2.

    Raises ArgumentTypeError, as all types here, with an example of the right form.
    """
    return _numbers(text, 2, '--point "180,296"')


def box_xyxy_px(text: str) -> tuple[int, tuple[float, ...]]:
    """A box: '10,20,90,80' -> (1, (10.0, 20.0, 90.0, 80.0)), for object 1."""
    return _numbers(text, 4, '--box "10,20,90,80"')


def _numbers(text: str, count: int, example: str) -> tuple[int, tuple[float, ...]]:
    head, colon, tail = text.rpartition(":")
    try:
        object_id = int(head) if colon else 1
        values = tuple(float(part) for part in tail.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: not numbers; write it like {example}"
        ) from None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {count} numbers, like {example}")
    return object_id, values


def object_name(text: str) -> tuple[int, str]:
    """The name of an object: '1=red vase' -> (1, 'red vase')."""
    number, equals, name = text.partition("=")
    if not (equals and name.strip() and number.isascii() and number.isdecimal() and int(number)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: not an id and a name; write it like --names 1=cup 2='red vase'"
        )
    return int(number), name.strip()


def frame_size(text: str) -> tuple[int, int] | str:
    """A size (width, height): '640x480' -> (640, 480); 'keep' -> 'keep'."""
    if text == "keep":
        return text
    try:
        width, height = text.lower().split("x")
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: not a size; write --size 640x480 or --size keep"
        ) from None


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the prompt options: clicks, boxes, masks, JSON files. `commands.prompts` reads them."""
    group = parser.add_argument_group(
        "prompt (pixels of the frames; ID:x,y names an object other than 1)"
    )
    add = group.add_argument
    repeated = {"action": "append", "type": point_xy_px, "metavar": "x,y"}
    add("--point", **repeated, help="click on the object; repeatable")
    add("--negative", **repeated, help="click outside the object; repeatable")
    add(
        "--box",
        action="append",
        type=box_xyxy_px,
        metavar="x0,y0,x1,y1",
        help="box around the object",
    )
    add("--mask", type=Path, metavar="PNG", help="mask of the object; palette: one object per id")
    add("--prompt-frame", type=int, default=0, metavar="N", help="frame that the prompt refers to")
    add("--prompts", type=Path, metavar="JSON", help="several objects and frames, docs/prompts.md")


def add_frames_argument(parser: argparse.ArgumentParser) -> None:
    """Add --frames."""
    parser.add_argument(
        "--frames", type=Path, default=FRAMES, help="folder of frames or a video file"
    )


def add_sam2_arguments(parser: argparse.ArgumentParser, what: str = "model") -> None:
    """Add --sam2 and --sam2-checkpoint. what: the model's role, for the help text."""
    parser.add_argument("--sam2", default="tiny", help=f"{what}: {', '.join(SAM2_MODELS)}")
    parser.add_argument(
        "--sam2-checkpoint", type=Path, metavar="FILE", help="weights of --sam2, if not its own"
    )


def add_geometry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --geometry-mode, --must3r and --checkpoint: how the geometry arm works, its weights."""
    modes = (
        "merger: trained weights; places: needs none; auto: merger where weights fit, else places"
    )
    parser.add_argument("--geometry-mode", default="auto", choices=GEOMETRY_MODES, help=modes)
    falls = "SAM2 alone for objects that move; auto decides by their motion"
    parser.add_argument("--fallback", default="auto", choices=FALLBACKS, help=falls)
    parser.add_argument(
        "--must3r",
        default="auto",
        help=f"geometry backbone: {', '.join(MUST3R_MODELS)}, a weight file, or auto, which takes "
        "the one that goes with --sam2",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="merger weights of the geometry arm"
    )
    parser.add_argument(
        "--geometry",
        type=Path,
        metavar="PATH",
        help="depth and cameras made by anything, instead of MUSt3R's: docs/own_geometry.md",
    )
    every = "MUSt3R sees every N-th frame, optical flow carries geometry on: faster, less exact"
    parser.add_argument("--geometry-every", type=int, default=1, metavar="N", help=every)


def add_memory_argument(parser: argparse.ArgumentParser) -> None:
    """Add --memory: what an object reads of its past."""
    policies = "what an object reads of its past; fifo is SAM2's own rule: docs/memory.md"
    parser.add_argument("--memory", default="fifo", choices=MEMORY_POLICIES, help=policies)


def add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of photo collections: photos instead of frames."""
    group = parser.add_argument_group("unordered photos instead of frames: docs/photos.md")
    add = group.add_argument
    photos = "folder of photos of any sizes, or photos one by one"
    add("--photos", type=Path, nargs="+", metavar="DIR", help=photos)
    add("--prompt-image", metavar="NAME", help="photo that the prompt refers to")
    orders = "order of processing; overlap: photos that show the same places follow each other"
    add("--order", default="overlap", choices=PHOTO_ORDERS, help=orders)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)}")


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Add --precision."""
    parser.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="auto is bf16 on CUDA, fp32 elsewhere",
    )


def command_line(words: list[str]) -> str:
    """Words of a command as text to paste into a shell, quoted where needed."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    is_plain = re.fullmatch(r"[\w@%+=:./-]+", word, re.ASCII) is not None
    # PowerShell splits an unquoted 1,2 into two words; double quotes work in every shell.
    is_coordinates = re.fullmatch(r"[\w:,.-]+", word, re.ASCII) is not None
    if not is_plain and (is_coordinates or os.name == "nt"):
        return f'"{word}"'
    return shlex.quote(word)


def program(name: str) -> list[str]:
    """Words that start a command as this process was started: `python main.py pick` in a clone,
    `3am pick` after an installation.
    """
    started = Path(sys.argv[0])
    if started.stem == "3am":
        return ["3am", name]
    script = SCRIPTS.get(name, "main.py")
    place = started.with_name(script) if started.name in (*SCRIPTS.values(), "main.py") else script
    return ["python", str(place), *([] if name in SCRIPTS else [name])]
