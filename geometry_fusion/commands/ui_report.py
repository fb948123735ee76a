"""The report of a studio session: that of `ab_iou.py`, from the masks that the session has."""

import argparse
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import MaskFolder, list_masks
from geometry_fusion.io.mask_writer import overlay
from geometry_fusion.io.source_record import record_of
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.report.comparison import Arm, ids_reader
from geometry_fusion.report.page import relative_link, write_report
from geometry_fusion.report.scoring import score_arms
from geometry_fusion.tracking.small_masks import small_mask_warnings
from geometry_fusion.ui.session import StudioSession

TITLES = {"baseline": "SAM2", "geom": "3AM"}


def write_session_report(
    session: StudioSession,
    folder: Path,
    args: argparse.Namespace,
    arms: list[str],
    write: Callable[[Path, np.ndarray], None],
    command: str,
) -> None:
    """Masks, overlay videos and ab_report/ in `folder`. command: the equivalent command line.
    Raises InputError where an arm has not answered every frame.
    """
    prompts, frames, source = session.prompts(), session.frames, session.source
    for arm in arms:
        missing = source.count - len(session.results.frames(arm))
        if missing:
            raise InputError(f"{missing} frames of {TITLES[arm]} have no mask yet; run to the end")
    tested = [_arm(session, arm, folder, write) for arm in arms]
    gt = SAMPLES / source.sample / "gt" if source.sample else None
    gt = session.truth_folder if session.truth_folder.is_dir() else gt
    asked = sorted({prompt.object_id for prompt in prompts})
    objects = MaskFolder(list_masks(gt, "ground truth")).ids if gt else None
    if gt and (len(asked) > 1 if objects is None else not set(asked) <= set(objects)):
        gt = None  # it does not show all objects one by one
    scores = score_arms(tested, gt, asked if objects else None, frames, prompts)
    notes = [f"Made in the studio from {source.count} frames."]
    notes += small_mask_warnings(prompts, min(source.size))
    if session.board.deletions:
        notes.append("Stretches that were deleted in the studio are left out of the masks.")
    report = folder / "ab_report"
    report.mkdir()
    scene = session.masks / "scene.json"
    write_report(
        report,
        clip=source.sample or source.name,
        about=source.name if source.sample else None,
        frames=frames,
        prompts=prompts,
        arms=tested,
        read_ids=ids_reader(prompts),
        truth_ids=scores.truth_ids,
        truth=scores.truth,
        agreement=scores.agreement,
        summary=scores.facts | _facts(session, args, command),
        weights={"SAM2": args.sam2, "geometry": session.settings["mode"]},
        notes=notes,
        links=[
            *(relative_link(f"masks of {a.title}", a.masks, report) for a in tested),
            *(relative_link(f"video of {a.title}", a.video, report) for a in tested),
        ],
        scene=json.loads(scene.read_text(encoding="utf-8")) if scene.exists() else None,
    )


def _arm(session: StudioSession, key: str, folder: Path, write) -> Arm:
    """Write an arm's masks and video; its record for the report."""
    masks, video = folder / f"pred_masks_{key}", folder / f"output_segmented_{key}.mp4"
    masks.mkdir()
    confidences: dict[int, list[float | None]] = {}
    with VideoWriter(video, Fraction(session.source.rate), session.source.size) as writer:
        for index, stem in enumerate(session.source.stems):
            ids = session.ids(key, index)
            write(masks / f"{stem}.png", ids)
            writer.write(overlay(session.frames[index], ids))
            for object_id, values in session.results.record(key, index)["objects"].items():
                of_object = confidences.setdefault(int(object_id), [None] * session.source.count)
                of_object[index] = values[1]
    pace = (session.job.pace or {}).get(key, 0) if session.job else 0
    arm = Arm(key, TITLES[key], masks, video, video.name, 1 / pace if pace else 0.0)
    arm.confidences = confidences
    return arm


def _facts(session: StudioSession, args: argparse.Namespace, command: str) -> dict:
    return {
        "prompt_frame": min(mark.frame for mark in session.board.marks),
        "device": args.device,
        "command": command,
        "source": {**record_of(session.frames_folder), "source": session.source.name},
        "settings": {"SAM2 model": args.sam2, **session.settings},
    }
