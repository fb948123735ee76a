"""`ab_iou.py`: one prompt, two arms, SAM2 alone and SAM2 with geometry -> masks, videos, a report.

Writes OUT/pred_masks_baseline/, OUT/output_segmented_baseline.mp4, the same for `geom` when that
arm runs, and OUT/ab_report/index.html. Masks and videos are swapped in together when all are
complete, the report after them: an interrupted run changes nothing, and a report that fails costs
nothing but itself.
"""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

from geometry_fusion.assets import SAMPLES
from geometry_fusion.commands.ab_report import ReportInputs, print_arms, print_result, report_on
from geometry_fusion.commands.ab_watch import ArmWatch
from geometry_fusion.commands.arguments import FRAMES, point_xy_px
from geometry_fusion.commands.parsers import sample_names
from geometry_fusion.commands.prompts import mask_files, prompts_from_arguments
from geometry_fusion.data.given import GivenGeometry, open_geometry
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.atomic import (
    check_apart,
    check_replaceable,
    replacing_file,
    replacing_folder,
)
from geometry_fusion.io.mask_reader import LARGEST_ID
from geometry_fusion.io.open_frames import open_frames, opened_frames
from geometry_fusion.io.source_record import (
    OVERWRITE_CURE,
    Record,
    check_belongs,
    check_may_replace,
    record_of,
)
from geometry_fusion.measure.folders import check_ground_truth
from geometry_fusion.models.must3r import given_file
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.report.comparison import Arm
from geometry_fusion.tracking.clip_session import ClipSession, clip_session, track_together
from geometry_fusion.tracking.prompt_checks import check_prompts
from geometry_fusion.tracking.resume import MASK_SUFFIXES
from geometry_fusion.tracking.write_masks import mask_writer, write_masks_and_videos
from geometry_fusion.types import Frames, Prompt

ARM_TITLES = {
    "sam2": "SAM2",
    "3am": "3AM",
    "places": "SAM2 + places",
    "both": "3AM + places",
    "control": "control",
    "oracle": "oracle",
}
REPORT_SUFFIXES = (".html", ".csv", ".json", ".mp4", ".png")


def run(args: argparse.Namespace) -> None:
    """Track the prompts with both arms, then write masks, videos and the report.

    Raises InputError for bad options and inputs, and where only the report fails: masks and videos
    are then complete.
    """
    about = apply_sample(args) if args.sample else None
    prompts = prompts_from_arguments(args)
    outputs = Outputs(args)
    record = check_paths(args, outputs)
    # All that can be refused is refused before a long video is extracted.
    given = open_geometry(args.geometry, open_frames(args.frames)) if args.geometry else None
    trackers, without_geometry = load_trackers(args, given)
    check_prompts(prompts, open_frames(args.frames))
    with opened_frames(args.frames) as frames:
        truth_ids = check_truth(args.gt, frames, prompts) if args.gt else None
        arms, watch, sessions = track_arms(args, trackers, frames, prompts, outputs, record)
        inputs = ReportInputs(
            about=about,
            frames=frames,
            prompts=prompts,
            arms=arms,
            trackers=trackers,
            geometry=sessions[-1].geometry,
            scene=watch.scene,
            cloud=watch.cloud,
            truth_ids=truth_ids,
            without_geometry=without_geometry,
            given=given,
            fallback=watch.fallback,
            record=record,
            report=outputs.report,
        )
        try:
            summary, notes = report_on(args, inputs)
        except Exception as error:
            # Whatever went wrong in the report, the masks took minutes and are complete.
            print_arms(arms, args.out)
            raise report_failed(error, outputs.report) from None
    print_result(arms, summary, notes, args.out)


class Outputs:
    """Folders and files that a run writes: `folders` of masks and `videos` by arm, and `report`."""

    def __init__(self, args: argparse.Namespace):
        self.folders = {
            "baseline": args.pred_a or args.out / "pred_masks_baseline",
            "geom": args.pred_b or args.out / "pred_masks_geom",
        }
        self.videos = {key: args.out / f"output_segmented_{key}.mp4" for key in self.folders}
        self.report = args.out / "ab_report"


def apply_sample(args: argparse.Namespace) -> str:
    """Set --frames, --gt and, where none is given, the prompt to those of a bundled sample.

    Returns the sample's title. Raises InputError for an unknown sample, and where --frames or --gt
    is given as well.
    """
    folder = SAMPLES / args.sample
    if args.sample not in sample_names():
        raise InputError(
            f"--sample {args.sample}: unknown; choose one of {', '.join(sample_names())}"
        )
    given = [
        flag
        for flag, value in (("--frames", args.frames), ("--gt", args.gt))
        if value not in (None, FRAMES)
    ]
    if given:
        raise InputError(
            f"--sample {args.sample}: brings its own frames and ground truth; leave out {given[0]}"
        )
    sample = json.loads((folder / "sample.json").read_text())
    args.frames, args.gt = folder / "video.mp4", folder / "gt"
    if not (args.point or args.box or args.mask or args.prompts):
        args.point, args.prompt_frame = [point_xy_px(sample["point"])], sample["prompt_frame"]
    return sample["title"]


def load_trackers(
    args: argparse.Namespace, given: GivenGeometry | None
) -> tuple[dict[str, Tracker], str | None]:
    """The trackers by arm, and the reason why the geometry arm cannot run (None if it can).

    given: geometry of --geometry.
    """
    options = {"sam2_checkpoint": args.sam2_checkpoint, "device": args.device}
    options |= {"precision": args.precision, "memory": args.memory}
    baseline = load(args.sam2, geometry="none", **options)
    if args.geometry_mode == "off":
        return {"baseline": baseline}, "--geometry-mode off"
    named = "auto" if args.must3r == "auto" else f"auto:{args.must3r}"
    options |= {"geometry": given or named, "mode": args.geometry_mode}
    options["geometry_every"] = args.geometry_every
    second = load(args.sam2, checkpoint=args.checkpoint, **options)
    if second.without_geometry is None:
        return {"baseline": baseline, "geom": second}, None
    return {"baseline": baseline}, second.without_geometry


def check_paths(args: argparse.Namespace, outputs: Outputs) -> Record:
    """Raise InputError for outputs that would replace an input, foreign files or results of another
    video, and for masks of other frames. Returns the record of the frames.
    """
    for flag, folder in zip(("--pred-a", "--pred-b"), outputs.folders.values()):
        check_replaceable(folder, MASK_SUFFIXES, flag)
    check_replaceable(outputs.report, REPORT_SUFFIXES, "--out")
    written = (*outputs.folders.values(), *outputs.videos.values(), outputs.report)
    masks = mask_files(args)
    weights = (args.sam2_checkpoint, args.checkpoint, given_file(args.must3r))
    check_apart(written, (args.frames, args.gt, args.prompts, args.geometry, *masks, *weights))
    record = record_of(args.frames)
    check_may_replace(written, record, args.overwrite, OVERWRITE_CURE)
    for mask in masks:
        check_belongs(mask, record, "--mask")
    if args.gt:
        check_belongs(args.gt, record, "--gt")
    return record


def check_truth(gt: Path, frames: Frames, prompts: list[Prompt]) -> list[int] | None:
    """Raise InputError for ground truth that cannot be scored, before minutes of tracking.

    Returns its object ids; None where it shows one object without an id.
    """
    truth_ids = check_ground_truth(gt, frames.stems, frames.size)
    prompted = {prompt.object_id for prompt in prompts}
    unknown = prompted - set(truth_ids or prompted)
    if unknown:
        cure = "import it with import_masks first"
        if truth_ids[0] <= LARGEST_ID:
            cure = f"write --point {truth_ids[0]}:x,y"
        raise InputError(
            f"--gt {gt}: holds objects {', '.join(map(str, truth_ids))}, but object {min(unknown)} "
            f"is prompted; {cure}"
        )
    return truth_ids


def track_arms(
    args: argparse.Namespace,
    trackers: dict[str, Tracker],
    frames: Frames,
    prompts: list[Prompt],
    outputs: Outputs,
    record: Record,
) -> tuple[list[Arm], ArmWatch, list[ClipSession]]:
    """Track with all arms in step, so that each frame is decoded once.

    Masks and videos replace older ones when all are complete. Returns the arms, what was seen while
    they tracked, and the sessions.
    """
    sessions = [clip_session(t.predictor, prompts, args.precision) for t in trackers.values()]
    watch = ArmWatch(args, len(trackers) > 1, frames, prompts)
    object_ids = [prompt.object_id for prompt in prompts]
    write = mask_writer(len(set(object_ids)) > 1, record)
    with ExitStack() as swaps:
        masks = [swaps.enter_context(replacing_folder(outputs.folders[key])) for key in trackers]
        videos = [swaps.enter_context(replacing_file(outputs.videos[key])) for key in trackers]
        seconds = write_masks_and_videos(
            track_together(sessions, frames),
            frames,
            object_ids,
            masks,
            videos,
            record=record,
            watch=watch.see,
            before_videos=lambda: watch.fall_back(masks, write),
        )
    arms = [
        Arm(
            key,
            ARM_TITLES[tracker.arm] + ("" if args.memory == "fifo" else f", {args.memory}"),
            outputs.folders[key],
            outputs.videos[key],
            outputs.videos[key].name,
            pace,
        )
        for (key, tracker), pace in zip(trackers.items(), seconds)
    ]
    for arm, confidence in zip(arms, watch.confidences):
        arm.confidences = confidence
    arms[-1].decisions = watch.decisions
    return arms, watch, sessions


def report_failed(error: Exception, report: Path) -> InputError:
    """The error of a report that could not be written, as one line."""
    reason = one_line(error)
    if not isinstance(error, InputError | OSError):
        reason = f"{type(error).__name__}: {reason}"
    earlier = f"; {report} is that of an earlier run" if report.exists() else ""
    return InputError(
        f"{report}: the report failed, masks and videos are complete ({reason[:300]}){earlier}"
    )
