"""`main.py segment`: track prompted objects through a file, a folder or a live source."""

import argparse
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from geometry_fusion.commands.arguments import FRAMES
from geometry_fusion.commands.messages import print_moving, print_summary
from geometry_fusion.commands.prompts import mask_files, prompts_from_arguments
from geometry_fusion.commands.trackers import load_tracker, sam2_options
from geometry_fusion.devices import check_compiler
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import (
    check_apart,
    check_replaceable,
    digest_of,
    replacing_file,
    replacing_folder,
)
from geometry_fusion.io.mask_writer import digest_of_mask
from geometry_fusion.io.open_frames import open_frames, opened_frames
from geometry_fusion.io.source_record import (
    OVERWRITE_CURE,
    check_belongs,
    check_may_replace,
    fingerprint,
    record_of,
)
from geometry_fusion.io.temporary import temporary_folder
from geometry_fusion.limits import COUNT, LIMITS, SECONDS, SECONDS_ABOVE_0, check_option
from geometry_fusion.models.footage import note_on_sam2
from geometry_fusion.models.must3r import given_file
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.tracking.clip_session import clip_session, track_together
from geometry_fusion.tracking.fallback import ClipFallback, FallbackSession
from geometry_fusion.tracking.prompt_checks import check_prompts
from geometry_fusion.tracking.resume import MASK_SUFFIXES
from geometry_fusion.tracking.segment_stream import segment_stream
from geometry_fusion.tracking.small_masks import small_mask_warnings
from geometry_fusion.tracking.stream_session import SNAPSHOT_FORMAT
from geometry_fusion.tracking.write_masks import mask_writer, write_masks_and_videos
from geometry_fusion.types import Prompt, TrackedFrame
from geometry_fusion.ui.live_window import LiveWindow

ARM_WORDS = {
    "3am": "with geometry",
    "places": "with geometry (places)",
    "both": "with geometry (merger and places)",
    "sam2": "SAM2 alone",
}


def run(args: argparse.Namespace) -> None:
    """Track the prompted objects; write masks and a video. Raises InputError for bad input."""
    if args.photos:
        # Here, because loading it takes a third of a second that videos need not wait for.
        from geometry_fusion.commands.photos import segment_folder

        segment_folder(args)
        return
    spec = check_options(args)
    clicks_later = args.show and not (args.point or args.box or args.mask or args.prompts)
    prompts = [] if clicks_later else prompts_from_arguments(args)
    check_paths(args, spec)
    tracker = load_tracker(args)
    for warning in small_mask_warnings(prompts, tracker.predictor.image_size):
        print(warning, flush=True)
    baseline = None
    if tracker.arm != "sam2" and args.fallback == "auto":
        baseline = load(args.sam2, geometry="none", **sam2_options(args))
    if args.mode == "full":
        first_image = segment_full(args, tracker, baseline, prompts)
    else:
        first_image = segment_once(args, tracker, baseline, prompts, spec)
    if note := note_on_sam2(args.sam2, args.sam2_checkpoint, first_image, footage_name(args)):
        print(note)


def check_options(args: argparse.Namespace) -> str | Path:
    """Raise InputError for options that cannot work. Returns the source to open: a path or an
    address.
    """
    if args.source is not None and args.frames != FRAMES:
        raise InputError(
            f"--source {args.source}: excludes --frames {args.frames}; give one of them"
        )
    check_option("--objects-at-once", args.objects_at_once, COUNT)
    check_option("--save-every", args.save_every, SECONDS)
    check_option("--timeout", args.timeout, SECONDS_ABOVE_0)
    check_option("--max-keyframes", args.max_keyframes, LIMITS["max_keyframes"])
    check_option("--join-every", args.join_every, LIMITS["join_every"])
    if args.compile:
        check_compiler()
    return args.frames if args.source is None else args.source


def check_paths(args: argparse.Namespace, spec: str | Path) -> None:
    """Raise InputError for outputs that would replace an input or results of another source, and
    for masks of other frames.
    """
    outputs = (args.out / "masks", args.out / "segmented.mp4")
    check_replaceable(outputs[0], MASK_SUFFIXES, "--out")
    masks = mask_files(args)
    weights = (args.sam2_checkpoint, args.checkpoint, given_file(args.must3r))
    unfinished = (
        args.out / "masks.unfinished",
        args.out / "segmented.unfinished.mp4",
        args.out / "unfinished.pt",
    )
    inputs = (Path(spec), args.prompts, args.geometry, *masks, *weights)
    check_apart((*outputs, *unfinished), inputs)
    record = record_of(spec)
    check_may_replace(outputs, record, args.overwrite, OVERWRITE_CURE)
    for mask in masks:
        check_belongs(mask, record, "--mask")


def footage_name(args: argparse.Namespace) -> str:
    """The source of the frames for messages, without the password that an address may hold."""
    return str(args.frames) if args.source is None else re.sub(r"//[^/]*@", "//", args.source)


def segment_full(
    args: argparse.Namespace, tracker: Tracker, baseline: Tracker | None, prompts: list[Prompt]
) -> np.ndarray:
    """Track forwards and backwards from the first prompted frame.

    baseline: SAM2 alone, for objects that move; None: geometry is used for all. Returns the first
    image [H, W, 3]. Raises InputError with --source and --show.
    """
    if args.source is not None or args.show:
        raise InputError(
            "--mode full: needs --frames, and shows nothing; leave out --source and --show"
        )
    check_prompts(prompts, open_frames(args.frames))
    trackers = [tracker] if baseline is None else [tracker, baseline]
    sessions = [clip_session(t.predictor, prompts, args.precision) for t in trackers]
    record, object_ids = record_of(args.frames), [prompt.object_id for prompt in prompts]
    write = mask_writer(len(set(object_ids)) > 1, record)
    with opened_frames(args.frames) as frames, ExitStack() as swaps:
        folders = [swaps.enter_context(replacing_folder(args.out / "masks"))]
        video = swaps.enter_context(replacing_file(args.out / "segmented.mp4"))
        fallback = None
        if baseline is not None:
            fallback = ClipFallback(frames, prompts)
            folders.append(swaps.enter_context(temporary_folder(args.out, "alone")))

        def watch(tracked: list[TrackedFrame]) -> None:
            if fallback:
                fallback.add(tracked[1], tracked[0])

        def fall_back() -> None:
            if fallback:
                fallback.decide()
                fallback.replace(folders[1], folders[0], frames.stems, write)

        seconds = write_masks_and_videos(
            track_together(sessions, frames),
            frames,
            object_ids,
            folders,
            [video],
            record=record,
            watch=watch,
            before_videos=fall_back,
        )
        first_image = frames[0]
    print_moving(fallback.decisions if fallback else {})
    pace = f"{1 / sum(seconds):.1f} frames/s, {ARM_WORDS[tracker.arm]}"
    print(f"{args.out / 'masks'}/ and {args.out / 'segmented.mp4'}: {pace}")
    return first_image


def segment_once(
    args: argparse.Namespace,
    tracker: Tracker,
    baseline: Tracker | None,
    prompts: list[Prompt],
    spec: str | Path,
) -> np.ndarray:
    """Track each frame once, in constant memory; an interrupted run is resumed.

    baseline: as in `segment_full`. Returns the first image [H, W, 3].
    """
    session = tracker.session()
    if baseline is not None:
        session = FallbackSession(session, baseline.session())
    with ExitStack() as stack:
        watch = stack.enter_context(LiveWindow(needs_click=not prompts)) if args.show else None
        summary = segment_stream(
            session,
            spec,
            prompts,
            args.out,
            run_identity(tracker, prompts, spec, args.fallback),
            carry_masks=args.carry_masks,
            save_every_s=args.save_every,
            watch=watch,
            several=True if args.show else None,
            record=record_of(spec),
            timeout=args.timeout,
        )
    if baseline is not None:
        print_moving(session.verdicts)
    print_summary(summary, prompts, session.object_ids, spec)
    pace = f"{summary.num_frames} frames, {1 / summary.seconds_per_frame:.1f} frames/s"
    results = f"{args.out / 'masks'}/ and {args.out / 'segmented.mp4'}"
    print(f"{results}: {pace}, {ARM_WORDS[tracker.arm]}")
    return summary.first_image


def run_identity(
    tracker: Tracker, prompts: list[Prompt], spec: str | Path, fallback: str
) -> dict[str, str]:
    """What the masks of a run depend on. A run is resumed only if every value is unchanged."""
    prompt_facts = [
        [p.frame, p.object_id, p.points, p.negatives, p.box, digest_of_mask(p.mask)]
        for p in prompts
    ]
    return {
        "source": fingerprint(spec) if Path(spec).exists() else str(spec),
        "prompts": digest_of(prompt_facts),
        "snapshots": str(SNAPSHOT_FORMAT),
        "fallback": fallback,
        **tracker.identity.facts(),
    }
