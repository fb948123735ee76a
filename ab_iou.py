"""One prompt, two arms: SAM2 alone and SAM2 with geometry -> masks, videos and a report.

    python ab_iou.py --sample twins
    python ab_iou.py --point "180,296" --frames my_video.mp4 [--gt masks/]
    python ab_iou.py --point "180,296"                       # on videos/frames, as `main.py frames`
    left them

Writes OUT/pred_masks_baseline/, OUT/output_segmented_baseline.mp4, the same for `geom` when that
arm runs, and OUT/ab_report/index.html; OUT is `videos`. Masks and videos are swapped in together
when all are complete, the report after them: an interrupted run changes nothing, and a report that
fails costs nothing but itself.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import fusion
import metrics
import must3r_loader
import sam2_model
from geometry_fusion.comparison import Arm, ids_reader, look_at_masks, over_frames, truth_of
from geometry_fusion.devices import DEVICES, PRECISIONS, pick_device, uses_bf16
from geometry_fusion.errors import InputError, OneLineParser, one_line, run_cli
from geometry_fusion.files import check_apart, check_replaceable, replacing_file, replacing_folder
from geometry_fusion.footage import note_on_sam2
from geometry_fusion.geometry import Must3rStream
from geometry_fusion.mask_rule import LARGEST_ID
from geometry_fusion.prompts import (
    add_prompt_arguments,
    check_prompts,
    mask_files,
    point_xy_px,
    prompts_from_arguments,
)
from geometry_fusion.report import relative_link, write_report
from geometry_fusion.report_geometry import figures_of
from geometry_fusion.segment import MASK_SUFFIXES, write_masks_and_videos
from geometry_fusion.small_masks import small_mask_warnings
from geometry_fusion.source_record import (
    OVERWRITE_CURE,
    Record,
    check_belongs,
    check_may_replace,
    record_of,
)
from geometry_fusion.video import open_frames, opened_frames

ROOT = Path(__file__).resolve().parent
SAMPLES = ROOT / "videos/samples"
FRAMES = Path("videos/frames")  # where `main.py frames` leaves them
ARM_TITLES = {"3am": "3AM", "control": "control", "oracle": "oracle"}
REPORT_SUFFIXES = (".html", ".csv", ".json", ".mp4", ".png")


def parse(argv=None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    add_prompt_arguments(parser)
    parser.add_argument(
        "--sample", metavar="NAME", help=f"a bundled sample: {', '.join(sample_names())}"
    )
    parser.add_argument(
        "--frames", type=Path, default=FRAMES, help="folder of frames or a video file"
    )
    parser.add_argument(
        "--gt", type=Path, metavar="DIR", help="ground-truth masks, PNG, named like the frames"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("videos"), help="where masks, videos and the report go"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of another video")
    parser.add_argument(
        "--pred-a",
        type=Path,
        metavar="DIR",
        help="receives the baseline's masks; default OUT/pred_masks_baseline",
    )
    parser.add_argument(
        "--pred-b",
        type=Path,
        metavar="DIR",
        help="receives the masks with geometry; default OUT/pred_masks_geom",
    )
    parser.add_argument("--sam2", default="tiny", help=f"model: {', '.join(sam2_model.MODELS)}")
    parser.add_argument(
        "--sam2-checkpoint",
        type=Path,
        metavar="FILE",
        help="weights of --sam2, if not in checkpoints/",
    )
    parser.add_argument(
        "--must3r",
        default="tiny",
        help=f"geometry backbone of the second arm: {', '.join(must3r_loader.MODELS)}, or a "
        "weight file",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="merger weights of the second arm"
    )
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)}")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="auto is bf16 on CUDA, fp32 elsewhere",
    )
    return parser.parse_args(argv)


def sample_names() -> list[str]:
    return sorted(file.parent.name for file in SAMPLES.glob("*/sample.json"))


def apply_sample(args: argparse.Namespace) -> str:
    """Point --frames, --gt and, where none was given, the prompt to a bundled sample; returns its
    title.
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


def geometry_arm(args: argparse.Namespace, device) -> tuple[object | None, str]:
    """The predictor of the second arm and its title, or None and the reason why it cannot run."""
    must3r_loader.checked_name(args.must3r)
    checkpoint = args.checkpoint
    if checkpoint is None:
        checkpoint = fusion.DEFAULT_CHECKPOINTS.get((args.sam2, args.must3r))
        if checkpoint is None or not checkpoint.is_file():
            backbones = f"sam2 '{args.sam2}' with must3r '{args.must3r}'"
            return None, (
                f"The geometry arm did not run: there are no merger weights for {backbones}; "
                "train them with "
                "python train.py experiment=my_video (README), or name some with --checkpoint."
            )
    predictor = sam2_model.build_predictor(args.sam2, args.sam2_checkpoint, device)
    try:
        spec = fusion.fuse_checkpoint(
            predictor,
            checkpoint,
            sam2=args.sam2,
            sam2_file=args.sam2_checkpoint,
            must3r=args.must3r,
            precision=args.precision,
        )
    except InputError as error:
        if args.checkpoint is None:  # nobody asked for this one
            return None, f"The geometry arm did not run: {error}."
        raise
    if spec.source == "depth":
        raise InputError(
            f"--checkpoint {checkpoint}: the oracle needs depth and poses; use evaluate.py with "
            "scenes"
        )
    return predictor, ARM_TITLES[spec.arm]


def check_paths(
    args: argparse.Namespace, folders: dict[str, Path], videos: dict[str, Path], report: Path
) -> Record:
    """Refuse outputs that would replace an input, other files or results of another video, and
    masks of other frames.

    Returns the record of the frames.
    """
    for flag, folder in zip(("--pred-a", "--pred-b"), folders.values()):
        check_replaceable(folder, MASK_SUFFIXES, flag)
    check_replaceable(report, REPORT_SUFFIXES, "--out")
    outputs, masks = (*folders.values(), *videos.values(), report), mask_files(args)
    weights = (args.sam2_checkpoint, args.checkpoint, must3r_loader.given_file(args.must3r))
    check_apart(outputs, (args.frames, args.gt, args.prompts, *masks, *weights))
    record = record_of(args.frames)
    check_may_replace(outputs, record, args.overwrite, OVERWRITE_CURE)
    for mask in masks:
        check_belongs(mask, record, "--mask")
    if args.gt:
        check_belongs(args.gt, record, "--gt")
    return record


def main(argv=None) -> None:
    args = parse(argv)
    about = apply_sample(args) if args.sample else None
    prompts = prompts_from_arguments(args)
    device = pick_device(args.device)
    folders = {
        "baseline": args.pred_a or args.out / "pred_masks_baseline",
        "geom": args.pred_b or args.out / "pred_masks_geom",
    }
    report_folder = args.out / "ab_report"
    videos = {key: args.out / f"output_segmented_{key}.mp4" for key in folders}
    record = check_paths(args, folders, videos, report_folder)

    predictors = {
        "baseline": ("SAM2", sam2_model.build_predictor(args.sam2, args.sam2_checkpoint, device))
    }
    fused, said = geometry_arm(args, device)
    if fused is not None:
        predictors["geom"] = (said, fused)
    check_prompts(prompts, open_frames(args.frames))  # before a long video is extracted
    with opened_frames(args.frames) as frames:
        truth_ids = None
        if args.gt:
            # Bad ground truth is told before minutes of tracking, not after.
            truth_ids = metrics.check_ground_truth(args.gt, frames.stems, frames.size)
            unknown = {p.object_id for p in prompts} - set(
                truth_ids or [p.object_id for p in prompts]
            )
            if unknown:
                can_be_prompted = truth_ids[0] <= LARGEST_ID
                cure = (
                    f"write --point {truth_ids[0]}:x,y"
                    if can_be_prompted
                    else "import it with import_masks first"
                )
                raise InputError(
                    f"--gt {args.gt}: holds objects {', '.join(map(str, truth_ids))}, but object "
                    f"{min(unknown)} is "
                    f"prompted; {cure}"
                )
        with ExitStack() as swaps:
            masks = [swaps.enter_context(replacing_folder(folders[key])) for key in predictors]
            written = [swaps.enter_context(replacing_file(videos[key])) for key in predictors]
            both = [predictor for _, predictor in predictors.values()]
            seconds = write_masks_and_videos(
                both, frames, prompts, masks, written, args.precision, record
            )
        arms = [
            Arm(key, name, folders[key], videos[key], videos[key].name, pace)
            for (key, (name, _)), pace in zip(predictors.items(), seconds)
        ]
        objects = sorted({p.object_id for p in prompts}) if args.gt and truth_ids else None
        summary = {
            "prompt_frame": min(p.frame for p in prompts),
            "device": f"{device}, {'bf16' if uses_bf16(device, args.precision) else 'fp32'}",
            "command": " ".join(
                ["python ab_iou.py", *map(_quoted, sys.argv[1:] if argv is None else argv)]
            ),
            "source": record,
            "settings": {
                "SAM2 model": args.sam2,
                "frames": str(args.frames),
                "ground truth": str(args.gt or "none given"),
            },
        }
        reader = ids_reader(prompts)
        notes = [] if fused else [said]
        notes += small_mask_warnings(prompts, predictors["baseline"][1].image_size)
        if not args.gt:
            compared = (
                "the arms are compared with each other"
                if fused
                else "nothing is measured here, look at the video"
            )
            notes.append(f"No ground truth was given: {compared}.")
        shipped = sam2_model.MODELS["tiny"][1]
        if note := note_on_sam2(args.sam2, args.sam2_checkpoint, shipped, frames[0], args.frames):
            notes.append(note)
        try:
            scored_facts, scored = score(arms, args.gt, objects, frames, prompts)
            summary = {**scored_facts, **summary}
            if args.gt and truth_ids is None and len(arms[0].objects) > 1:
                notes.append(
                    "The ground truth shows one object without an id: the "
                    f"{len(arms[0].objects)} prompted objects are "
                    "scored together against it."
                )
            with replacing_folder(report_folder) as report:
                write_report(
                    report,
                    clip=args.sample or record["source"],
                    about=about,
                    frames=frames,
                    prompts=prompts,
                    arms=arms,
                    read_ids=reader,
                    figures=figures_of(fused, arms[-1], frames, prompts, reader) if fused else None,
                    summary=summary,
                    weights=weights_of(args, fused),
                    notes=notes,
                    links=[
                        *(
                            relative_link(f"masks of {arm.title}", folders[arm.key], report_folder)
                            for arm in arms
                        ),
                        *(
                            relative_link(f"video of {arm.title}", videos[arm.key], report_folder)
                            for arm in arms
                        ),
                    ],
                    **scored,
                )
        except (
            Exception
        ) as error:  # whatever it is: minutes of tracking are worth more than the report
            print_arms(arms, folders, args.out)
            raise report_failed(error, report_folder) from None
    print_result(arms, summary, notes, folders, args.out)


def report_failed(error: Exception, report_folder: Path) -> InputError:
    """One line about a report that could not be written."""
    reason = (
        one_line(error)
        if isinstance(error, InputError | OSError)
        else f"{type(error).__name__}: {one_line(error)}"
    )
    earlier = f"; {report_folder} is that of an earlier run" if report_folder.exists() else ""
    return InputError(
        f"{report_folder}: the report failed, masks and videos are complete "
        f"({reason[:300]}){earlier}"
    )


def weights_of(args: argparse.Namespace, fused) -> dict[str, str]:
    """What the arms were computed with, by part: names and files."""
    file = args.sam2_checkpoint or sam2_model.model_files(args.sam2)[1]
    weights = {"SAM2": f"{args.sam2} ({file.name})"}
    if fused is None:
        return weights
    if isinstance(fused.source, Must3rStream):
        file = must3r_loader.model_file(args.must3r)
        name = args.must3r if args.must3r in must3r_loader.MODELS else "file"
        weights["MUSt3R"] = f"{name} ({file.name})"
    checkpoint = args.checkpoint or fusion.DEFAULT_CHECKPOINTS[args.sam2, args.must3r]
    return weights | {"merger": checkpoint.name}


def score(
    arms: list[Arm], gt: Path | None, objects: list[int] | None, frames, prompts
) -> tuple[dict, dict]:
    """Fill the arms' objects, and their scores against `gt`; returns facts about the clip and what
    the report needs.

    objects: those of `gt` that are scored, None if it shows one object without an id.
    """
    summary = {"num_frames": len(frames), "width": frames.size[0], "height": frames.size[1]}
    agreement = look_at_masks(arms, frames.stems, prompts, metrics.iou)
    if not gt:
        return summary, {"agreement": agreement} if len(arms) == 2 else {}
    prompted = {frames.stems[p.frame] for p in prompts}
    for arm in arms:
        result = metrics.score_folders(arm.masks, gt, prompted=prompted, objects=objects)
        arm.scores = vars(metrics.mean_scores(result.objects.values()))
        if result.without_prompted:
            arm.unprompted = vars(metrics.mean_scores(result.without_prompted.values()))
        # A single object without an id is the one that was prompted, or all of them.
        by_id = result.objects if objects else dict(zip(arm.objects, result.objects.values()))
        for object_id, scores in by_id.items() if objects or len(arm.objects) == 1 else ():
            arm.objects[object_id].ious = over_frames(result.stems, scores.frame_ious, frames.stems)
            arm.objects[object_id].scores = {
                k: v for k, v in vars(scores).items() if k != "frame_ious"
            }
        means = np.mean([scores.frame_ious for scores in result.objects.values()], 0).tolist()
        arm.ious = over_frames(result.stems, means, frames.stems)
    truth, truth_ids = truth_of(gt, objects, frames.stems, list(arms[0].objects))
    summary |= {
        "num_truth_frames": len(result.stems),
        "num_objects": len(result.objects),
        "num_positive_frames": sum(map(bool, truth.present)),
    }
    return summary, {"truth_ids": truth_ids, "truth": truth}


def print_result(
    arms: list[Arm], summary: dict, notes: list[str], folders: dict[str, Path], out: Path
) -> None:
    if arms[0].scores:
        two = len(arms) == 2
        print(
            f"{'measure':<16}"
            + "".join(f"{arm.title:>12}" for arm in arms)
            + ("  difference" if two else "")
        )
        for measure in ("iou", "positive_iou", "accuracy", "success_rate", "jf"):
            values = [arm.scores[measure] for arm in arms]
            cells = ["-" if value is None else f"{value:.3f}" for value in values]
            if two:
                cells.append("-" if None in values else f"{values[1] - values[0]:+.3f}")
            print(f"{measure:<16}" + "".join(f"{cell:>12}" for cell in cells))
        print(
            f"{summary['num_truth_frames']} ground-truth frames, object in view in "
            f"{summary['num_positive_frames']}"
        )
    for note in notes:
        print(note)
    print(f"report: {out / 'ab_report' / 'index.html'}")
    print_arms(arms, folders, out)


def print_arms(arms: list[Arm], folders: dict[str, Path], out: Path) -> None:
    for arm in arms:
        print(
            f"{arm.title}: {folders[arm.key]}/ and {out / arm.video_name}, "
            f"{1 / arm.seconds_per_frame:.3g} frames/s"
        )


def _quoted(word: str) -> str:
    return f'"{word}"' if set(word) & set(' ,;"') else word


if __name__ == "__main__":
    sys.exit(run_cli(main))
