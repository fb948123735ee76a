"""The console command `3am`, and how the scripts of a clone start the same commands.

    3am ui|frames|pick|segment|ab|export|instances|train|evaluate|metrics|weights|reconstruct|
        geometry|check ...

A command is a parser (parsers.py, loads nothing heavy) and a module with `run(args)`, which is
imported only when the arguments are right.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from geometry_fusion.interrupts import loading, watch_imports


@dataclass(frozen=True)
class Command:
    """A command: the module with its `run`, what it does in a line, and its arguments in
    parsers.py.
    """

    module: str
    about: str
    arguments: str


COMMANDS = {
    "frames": Command("frames", "extract frames of a video", "frames_arguments"),
    "pick": Command(
        "pick", "click on objects, see their masks, get the command to run", "pick_arguments"
    ),
    "ui": Command("ui", "click, track, compare and correct in the browser", "ui_arguments"),
    "segment": Command(
        "segment", "track the prompted objects through all frames", "segment_arguments"
    ),
    "export": Command("export", "write masks in the formats of other tools", "export_arguments"),
    "ab": Command("ab", "compare SAM2 alone with SAM2 with geometry on one clip", "ab_arguments"),
    "train": Command("train", "train from a Hydra config", "train_arguments"),
    "evaluate": Command("evaluate", "score whole datasets, arm against arm", "evaluate_arguments"),
    "metrics": Command("metrics", "score folders of PNG masks", "metrics_arguments"),
    "weights": Command("weights", "list, fetch and verify weights", "weights_arguments"),
    "reconstruct": Command(
        "reconstruct", "points and camera path of a video, by MUSt3R", "reconstruct_arguments"
    ),
    "geometry": Command(
        "geometry", "cameras and points of a video, by COLMAP", "geometry_arguments"
    ),
    "instances": Command(
        "instances", "things of a scene as groups of 3D points", "instances_arguments"
    ),
    "cache-geometry": Command(
        "cache_geometry", "compute the geometry of a fusion training", "cache_geometry_arguments"
    ),
    "check": Command("check", "say whether a checkpoint carries merger weights", "check_arguments"),
}
# Commands of main.py.
MAIN = (
    "ui",
    "frames",
    "pick",
    "segment",
    "export",
    "reconstruct",
    "geometry",
    "instances",
    "weights",
)
ABOUT = """3AM: click an object once in a video and get its mask in every frame.

    3am frames walk.mp4 && 3am pick            frames, then a click; prints the next command
    3am ab --sample twins                      SAM2 alone and with geometry on a bundled clip
    3am segment --frames walk.mp4 --point 420,270

Each command explains itself: 3am COMMAND --help."""


def parse(
    name: str, words: Sequence[str] | None, description: str | None = None
) -> argparse.Namespace:
    """Arguments of one command; words: of a command line, default those of the process.

    Raises InputError for arguments that are wrong.
    """
    from geometry_fusion.errors import OneLineParser

    parser = OneLineParser(description=description or COMMANDS[name].about)
    _add_arguments(name, parser)
    # Intermixed: options may stand between overrides.
    return _with_words(parser.parse_intermixed_args(words), words)


def run_main(
    words: Sequence[str] | None, names: Sequence[str] = MAIN, description: str | None = None
) -> int | None:
    """Parse and run a command line whose first word is a command."""
    from geometry_fusion.errors import OneLineParser

    parser = OneLineParser(description=description)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        _add_arguments(name, subparsers.add_parser(name, help=COMMANDS[name].about))
    args = parser.parse_args(words)
    given = list(sys.argv[1:] if words is None else words)
    with loading():
        module = import_module(f"geometry_fusion.commands.{COMMANDS[args.command].module}")
    return module.run(_with_words(args, given[1:]))


def _add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    parsers = import_module("geometry_fusion.commands.parsers")
    getattr(parsers, COMMANDS[name].arguments)(parser)


def _with_words(args: argparse.Namespace, words: Sequence[str] | None) -> argparse.Namespace:
    """With the words of the command line, for reports that name the command."""
    args.words = list(sys.argv[1:] if words is None else words)
    return args


def run_script(command: Callable[[], int | None]) -> int:
    """Run the `main` of a script, or of the console; returns its exit code."""
    watch_imports()  # Ctrl-C while packages load ends without a traceback
    from geometry_fusion.errors import run_cli
    from geometry_fusion.threads import be_a_good_neighbour

    be_a_good_neighbour()
    return run_cli(command)


def main() -> int:
    """The console command `3am`; returns its exit code."""
    return run_script(lambda: run_main(None, tuple(COMMANDS), ABOUT))


if __name__ == "__main__":
    sys.exit(main())
