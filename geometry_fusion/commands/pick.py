"""`main.py pick`: click objects in a window, see their masks, get the command to run."""

import argparse
import sys

from geometry_fusion.commands.arguments import FRAMES, command_line, program
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_browser import browse
from geometry_fusion.io.prompt_files import write_prompts
from geometry_fusion.models.tracker import load
from geometry_fusion.ui.pick import PickWindow
from geometry_fusion.ui.picked_prompts import MaskPreview, PickedPrompts


def run(args: argparse.Namespace) -> None:
    """Open the window; then print the command, and write the prompts to --save.

    Raises InputError for bad input, and where the window is closed without a click on an object.
    """
    frames = browse(args.frames)
    if not 0 <= args.prompt_frame < len(frames):
        raise InputError(
            f"--prompt-frame {args.prompt_frame}: does not exist; frames are 0..{len(frames) - 1}"
        )
    if args.save is not None and args.save.exists():
        raise InputError(f"--save {args.save}: exists; choose another name")
    picked = PickedPrompts(args.prompt_frame, several_frames=args.save is not None)
    tracker = load(
        args.sam2, geometry="none", sam2_checkpoint=args.sam2_checkpoint, device=args.device
    )
    PickWindow(frames, picked, MaskPreview(tracker.predictor, frames)).run()
    prompts = picked.prompts()
    for object_id in picked.incomplete():
        print(f"object {object_id}: left out, it has negative clicks only", file=sys.stderr)
    if not prompts:
        raise InputError(
            "the window was closed without a click on an object; run it again, or give --point x,y"
        )
    if args.save is not None:
        write_prompts(args.save, prompts)
    print(command_line(command_of(args, picked)))


def command_of(args: argparse.Namespace, picked: PickedPrompts) -> list[str]:
    """Words of the command that tracks the picked objects with both arms, with those options of
    `pick` that differ from the defaults.
    """
    words = program("ab")
    words += picked.arguments() if args.save is None else ["--prompts", str(args.save)]
    for flag, value, default in (
        ("--frames", args.frames, FRAMES),
        ("--sam2", args.sam2, "tiny"),
        ("--sam2-checkpoint", args.sam2_checkpoint, None),
        ("--device", args.device, "auto"),
    ):
        words += [flag, str(value)] if value != default else []
    return words
