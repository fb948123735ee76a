"""The second half of `ab_iou.py`: scores, report and what is printed."""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.commands.arguments import command_line, program
from geometry_fusion.data.given import GivenGeometry
from geometry_fusion.devices import uses_bf16
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.atomic import replacing_folder
from geometry_fusion.io.source_record import Record
from geometry_fusion.models.footage import note_on_sam2
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.motion import Decision
from geometry_fusion.player.scene import SceneCloud
from geometry_fusion.report.comparison import Arm, ids_reader
from geometry_fusion.report.geometry import GeometryFigures, SceneRecord, figures_of
from geometry_fusion.report.motion_pairs import PairPicture, pair_pictures
from geometry_fusion.report.page import relative_link, write_report
from geometry_fusion.report.scoring import score_arms
from geometry_fusion.tracking.fallback import ClipFallback
from geometry_fusion.tracking.small_masks import small_mask_warnings
from geometry_fusion.types import Frames, Prompt

PART_NAMES = {"sam2": "SAM2", "must3r": "MUSt3R", "checkpoint": "merger"}
PRINTED = ("iou", "positive_iou", "accuracy", "success_rate", "jf")


@dataclass(frozen=True)
class ReportInputs:
    """What a run of `ab_iou.py` knows after tracking."""

    about: str | None  # the clip, in a sentence
    frames: Frames
    prompts: list[Prompt]
    arms: list[Arm]
    trackers: dict[str, Tracker]  # by key of the arm
    geometry: GeometrySource  # of the last arm
    scene: SceneRecord  # what the last arm handed out
    cloud: SceneCloud  # the same for the player
    truth_ids: list[int] | None  # objects of the ground truth
    without_geometry: str | None  # why the geometry arm did not run
    given: GivenGeometry | None  # geometry that the user brought
    fallback: ClipFallback | None  # what was decided about moving objects
    record: Record  # of the frames
    report: Path


def report_on(args: argparse.Namespace, inputs: ReportInputs) -> tuple[dict, list[str]]:
    """Score the arms and write the report; returns its summary and its notes."""
    prompts, arms, frames = inputs.prompts, inputs.arms, inputs.frames
    objects = None
    if args.gt and inputs.truth_ids:
        objects = sorted({prompt.object_id for prompt in prompts})
    scores = score_arms(arms, args.gt, objects, frames, prompts)
    summary = {**scores.facts, **run_facts(args, inputs), **fallback_facts(args, inputs)}
    notes = notes_on(args, inputs)
    with replacing_folder(inputs.report) as report:
        write_report(
            report,
            clip=args.sample or inputs.record["source"],
            about=inputs.about,
            frames=frames,
            prompts=prompts,
            arms=arms,
            read_ids=ids_reader(prompts),
            truth_ids=scores.truth_ids,
            truth=scores.truth,
            agreement=scores.agreement,
            figures=figures(inputs),
            summary=summary,
            weights=weights_of(inputs),
            notes=notes,
            links=[
                *(relative_link(f"masks of {a.title}", a.masks, inputs.report) for a in arms),
                *(relative_link(f"video of {a.title}", a.video, inputs.report) for a in arms),
            ],
            scene=inputs.cloud.packed(),
            motion=motion_pictures(inputs),
        )
    return summary, notes


def figures(inputs: ReportInputs) -> GeometryFigures | None:
    """The geometry figures, where the second arm ran."""
    if inputs.without_geometry:
        return None
    read, arm = ids_reader(inputs.prompts), inputs.arms[-1]

    def read_ids(index: int) -> np.ndarray:
        return read(arm, inputs.frames.stems[index])

    predictor = inputs.trackers[arm.key].predictor
    prompt = inputs.prompts[0]
    return figures_of(predictor, inputs.geometry, inputs.scene, inputs.frames, prompt, read_ids)


def run_facts(args: argparse.Namespace, inputs: ReportInputs) -> dict:
    """How the masks were made."""
    device = inputs.trackers["baseline"].predictor.device
    return {
        "prompt_frame": min(prompt.frame for prompt in inputs.prompts),
        "device": f"{device}, {'bf16' if uses_bf16(device, args.precision) else 'fp32'}",
        "command": command_line([*program("ab"), *args.words]),
        "source": inputs.record,
        "settings": {
            "SAM2 model": args.sam2,
            "frames": str(args.frames),
            "ground truth": str(args.gt or "none given"),
            "geometry": f"--geometry-mode {args.geometry_mode}, --fallback {args.fallback}",
        },
    }


def fallback_facts(args: argparse.Namespace, inputs: ReportInputs) -> dict:
    """What was decided about the motion of each object, and by which pairs of frames."""
    if inputs.fallback is None:
        return {}
    decisions = inputs.fallback.decisions.items()
    objects = {i: {**asdict(decision), "evidence": evidence(decision)} for i, decision in decisions}
    return {"fallback": {"mode": args.fallback, "objects": objects}}


def evidence(decision: Decision) -> list[dict]:
    """The strongest pairs of frames behind a decision."""
    return [
        {"frames": [pair.first, pair.second], "z": pair.z, "rho": pair.rho}
        for pair in decision.evidence
    ]


def motion_pictures(inputs: ReportInputs) -> list[PairPicture]:
    """The pairs of frames that show that objects move, with the masks of SAM2 alone."""
    if inputs.fallback is None:
        return []
    read, alone = ids_reader(inputs.prompts), inputs.arms[0]

    def ids_of(index: int) -> np.ndarray:
        return read(alone, inputs.frames.stems[index])

    return pair_pictures(inputs.fallback.decisions, inputs.frames, ids_of)


def notes_on_motion(fallback: ClipFallback) -> list[str]:
    """A sentence for each object that moves."""
    notes = []
    for object_id in sorted(fallback.moving):
        decision = fallback.decisions.get(object_id)
        if decision is None:
            notes.append(f"Object {object_id}: SAM2's own masks were kept (--fallback always).")
            continue
        pairs = ", ".join(f"{p.first} and {p.second}" for p in decision.evidence)
        notes.append(
            f"Object {object_id} moves, so that SAM2's own masks were kept for it: motion score "
            f"{decision.score:.1f}, where 1 is enough. Strongest between frames {pairs}. "
            "--fallback never keeps geometry."
        )
    return notes


def notes_on(args: argparse.Namespace, inputs: ReportInputs) -> list[str]:
    """What readers should know: arms that did not run, small masks, missing ground truth, weights
    that were made for other footage.
    """
    notes = []
    if inputs.without_geometry:
        notes.append(f"The geometry arm did not run: {inputs.without_geometry}.")
    if inputs.given is not None:
        notes += inputs.given.lines()
    if inputs.fallback is not None:
        notes += notes_on_motion(inputs.fallback)
    *_, last = inputs.trackers.values()
    if last.without_merger:
        notes.append(f"Geometry works by places, not by a merger: {last.without_merger}.")
    image_size = inputs.trackers["baseline"].predictor.image_size
    notes += small_mask_warnings(inputs.prompts, image_size)
    if not args.gt:
        compared = "the arms are compared with each other"
        if inputs.without_geometry:
            compared = "nothing is measured here, look at the video"
        notes.append(f"No ground truth was given: {compared}.")
    note = note_on_sam2(args.sam2, args.sam2_checkpoint, inputs.frames[0], args.frames)
    if note:
        notes.append(note)
    num_objects = len({prompt.object_id for prompt in inputs.prompts})
    if args.gt and inputs.truth_ids is None and num_objects > 1:
        notes.append(
            f"The ground truth shows one object without an id: the {num_objects} prompted objects "
            "are scored together against it."
        )
    return notes


def weights_of(inputs: ReportInputs) -> dict[str, str]:
    """What the arms were computed with, by part: names and files."""
    *_, tracker = inputs.trackers.values()
    described = {PART_NAMES[role]: text for role, text in tracker.identity.described().items()}
    if "checkpoint" in tracker.identity.weights:
        described["merger"] = tracker.identity.weights["checkpoint"].file.name
    return described


def print_result(arms: list[Arm], summary: dict, notes: list[str], out: Path) -> None:
    """Scores, notes and where the results are."""
    if arms[0].scores:
        two = len(arms) == 2
        titles = "".join(f"{arm.title:>14}" for arm in arms)
        print(f"{'measure':<16}{titles}{'    difference' if two else ''}")
        for measure in PRINTED:
            values = [arm.scores[measure] for arm in arms]
            cells = ["-" if value is None else f"{value:.3f}" for value in values]
            if two:
                cells.append("-" if None in values else f"{values[1] - values[0]:+.3f}")
            print(f"{measure:<16}" + "".join(f"{cell:>14}" for cell in cells))
        print(
            f"{summary['num_truth_frames']} ground-truth frames, object in view in "
            f"{summary['num_positive_frames']}"
        )
    for note in notes:
        print(note)
    print(f"report: {out / 'ab_report' / 'index.html'}")
    print_arms(arms, out)


def print_arms(arms: list[Arm], out: Path) -> None:
    """Masks, video and speed of each arm."""
    for arm in arms:
        pace = f"{1 / arm.seconds_per_frame:.3g} frames/s"
        print(f"{arm.title}: {arm.masks}/ and {out / arm.video_name}, {pace}")
