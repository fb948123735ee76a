"""`main.py segment --photos`: objects in a set of unordered photos."""

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from geometry_fusion.commands.arguments import FRAMES
from geometry_fusion.commands.prompts import mask_files, prompts_from_arguments
from geometry_fusion.commands.trackers import load_tracker
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import (
    check_apart,
    check_holds_only,
    check_replaceable,
    replacing_folder,
)
from geometry_fusion.io.source_record import OVERWRITE_CURE, check_may_replace, record_of
from geometry_fusion.io.temporary import sweep
from geometry_fusion.models.must3r import given_file
from geometry_fusion.photos.collection import segment_photos
from geometry_fusion.photos.page import RESULTS, write_results
from geometry_fusion.photos.pictures import photo_files, read_photo
from geometry_fusion.photos.records import CONTRADICTION, Collection, PhotoSettings
from geometry_fusion.photos.work import UNFINISHED
from geometry_fusion.tracking.resume import MASK_SUFFIXES
from geometry_fusion.types import Prompt


def segment_folder(args: argparse.Namespace) -> None:
    """Segment the prompted objects in all photos; write masks, order.json and a page.

    Raises InputError for bad input. An existing result is replaced as a whole, at the end; until
    then the work is kept in OUT/unfinished, from which the same command continues.
    """
    check_flags(args)
    files = photo_files(args.photos)
    prompts = photo_prompts(args, files)
    folder = args.photos[0] if args.photos[0].is_dir() else files[0].parent
    record = record_of(folder)
    sweep(args.out.parent)  # results that a kill left between two names are old results
    check_holds_only(args.out, (*RESULTS, UNFINISHED), "--out")
    check_replaceable(args.out / "masks", MASK_SUFFIXES, "--out")
    weights = (args.sam2_checkpoint, args.checkpoint, given_file(args.must3r))
    check_apart((args.out,), (folder, *files, args.prompts, *mask_files(args), *weights))
    check_may_replace((args.out / "masks",), record, args.overwrite, OVERWRITE_CURE)
    reading = tqdm(files, unit="photo", desc="reading", delay=2)  # not before a quick refusal
    photos = [read_photo(file) for file in reading]
    for prompt in prompts:
        prompt.check(photos[prompt.frame].size, len(photos))
    tracker = load_tracker(args)
    collection = segment_photos(
        tracker,
        photos,
        prompts,
        PhotoSettings(order=args.order),
        progress=True,
        unfinished=args.out / UNFINISHED,
    )
    with replacing_folder(args.out) as fresh:
        write_results(collection, fresh, tracker.arm, record)
    print_summary(collection, args.out)


def check_flags(args: argparse.Namespace) -> None:
    """Raise InputError for options that photos do not have."""
    unusable = {
        "--frames": args.frames != FRAMES,
        "--source": args.source is not None,
        "--show": args.show,
        "--geometry": args.geometry is not None,
        "--mode full": args.mode == "full",
        "--carry-masks": args.carry_masks,
        f"--geometry-every {args.geometry_every}": args.geometry_every != 1,
        f"--memory {args.memory}": args.memory != "fifo",
        f"--prompt-frame {args.prompt_frame}": args.prompt_frame != 0,
    }
    for flag, given in unusable.items():
        if given:
            raise InputError(f"{flag}: is for videos, not for --photos; leave out one of them")
    if args.order == "given" and args.photos[0].is_dir():
        raise InputError(
            f"--order given: {args.photos[0]} is a folder, which has no order of its own; name the "
            "photos one by one, or use --order name"
        )


def photo_prompts(args: argparse.Namespace, files: list[Path]) -> list[Prompt]:
    """The prompts of a command line; `frame` is a place in `files`.

    Raises InputError for a photo that is not there, or not named.
    """
    flags = args.point or args.negative or args.box or args.mask
    if flags and args.prompt_image is None:
        raise InputError(
            f"--prompt-image: which photo does the prompt refer to? name one, like {files[0].name}"
        )
    by_name = {file.name: at for at, file in enumerate(files)}
    by_name |= {file.stem: at for at, file in enumerate(files)}
    at = 0
    if args.prompt_image is not None:
        name = Path(args.prompt_image).name
        if name not in by_name:
            raise InputError(
                f"--prompt-image {args.prompt_image}: no such photo; choose one of "
                f"{', '.join(file.name for file in files[:10])}"
            )
        at = by_name[name]
    prompts = prompts_from_arguments(args)
    moved = [replace(p, frame=at) if not_from_file(p, args) else p for p in prompts]
    for prompt in moved:
        if not 0 <= prompt.frame < len(files):
            raise InputError(
                f"{prompt.source}: photo {prompt.frame} does not exist; they are numbered 0.."
                f"{len(files) - 1} in the order of their names"
            )
    return moved


def not_from_file(prompt: Prompt, args: argparse.Namespace) -> bool:
    """Whether a prompt comes from flags, which refer to --prompt-image."""
    return args.prompts is None or not prompt.source.startswith(str(args.prompts))


def print_summary(collection: Collection, out: Path) -> None:
    """Print where the results are and what to look at."""
    steps = collection.steps
    flagged = [step for step in steps if step.flag]
    print(f"{out / 'masks'}/ and {out / 'index.html'}: {len(steps)} photos")
    if flagged:
        names = ", ".join(collection.photos[step.photo].name for step in flagged[:5])
        more = f" and {len(flagged) - 5} more" if len(flagged) > 5 else ""
        print(f"little connects these photos with the prompt, check them: {names}{more}")
    for photo, answers in sorted(collection.answers.items()):
        for object_id, answer in answers.items():
            if CONTRADICTION in answer.flags:
                print(
                    f"{collection.photos[photo].name}: the mask of object {object_id} lies where "
                    "the object cannot be, perhaps a twin"
                )
