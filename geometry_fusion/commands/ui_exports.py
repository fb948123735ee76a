"""The exports of the studio: masks, videos, prompts with the command, a report.

Masks and videos are those of `ab_iou.py`, with the deleted stretches left out. Files are made in
the session's folder, and name no path of this machine.
"""

import argparse
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from geometry_fusion.commands.arguments import command_line, program
from geometry_fusion.commands.ui_formats import FORMAT_EXPORTS
from geometry_fusion.commands.ui_report import write_session_report
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import overlay
from geometry_fusion.io.prompt_files import write_prompts
from geometry_fusion.io.source_record import record_of
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.report.reconstruct import write_ply
from geometry_fusion.tracking.write_masks import mask_writer
from geometry_fusion.ui.pictures import colour_table
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.scene_file import points_of
from geometry_fusion.ui.session import StudioSession
from geometry_fusion.ui.session_files import photo_sizes
from geometry_fusion.ui.sources import Cut

MASK_FOLDERS = {"baseline": "pred_masks_baseline", "geom": "pred_masks_geom"}
_one_at_a_time = threading.Lock()  # videos and reports take all cores


def export(studio, session: StudioSession, kind: str, args: argparse.Namespace) -> tuple[Path, str]:
    """Make an export; returns its file and the name to show. Raises InputError where what it needs
    is not there.
    """
    make = EXPORTS.get(kind)
    if make is None:
        raise InputError(f"export {kind}: unknown; choose one of {', '.join(EXPORTS)}")
    session.check_frame(0)
    if session.live():
        raise InputError("the live video is still being recorded; stop it first")
    folder = session.folder / "exports" / kind
    with _one_at_a_time:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file, name = make(session, folder, args)
        return (zipped(file, f"{name}.zip"), f"{name}.zip") if file.is_dir() else (file, name)


def masks(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """Masks of all arms, named as the frames, with the marks and the command."""
    write = writer_of(session)
    for arm in arms_of(session):
        (folder / MASK_FOLDERS[arm]).mkdir()
        for index, ids in tracked(session, arm):
            write(folder / MASK_FOLDERS[arm] / f"{session.source.stems[index]}.png", ids)
    if session.board.marks:
        save_prompts(session, folder)
        (folder / "command.txt").write_text(command_text(session, args), encoding="utf-8")
    return zipped(folder, "masks.zip"), "masks.zip"


def video(arm: str) -> Callable:
    """The export of one arm's overlay video."""

    def make(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
        file = folder / f"output_segmented_{arm}.mp4"
        write_video(session, file, (arm,))
        return file, file.name

    return make


def side_by_side(
    session: StudioSession, folder: Path, args: argparse.Namespace
) -> tuple[Path, str]:
    """Both arms beside each other."""
    write_video(session, folder / "side_by_side.mp4", ARMS)
    return folder / "side_by_side.mp4", "side_by_side.mp4"


def write_video(session: StudioSession, file: Path, arms: tuple[str, ...]) -> None:
    """The frames with masks in the page's colours; frames that were not tracked stay plain."""
    for arm in arms:
        if not session.results.frames(arm):
            raise InputError("this arm has no masks yet; press Run")
    palette = colour_table(session.board)
    width, height = session.source.size
    rate = Fraction(session.source.rate)
    hidden = [item.id for item in session.board.objects if item.hidden]
    with VideoWriter(file, rate, (width * len(arms), height)) as writer:
        for index in range(session.source.count):
            panels = []
            for arm in arms:
                ids = session.ids(arm, index)
                image = session.frames[index]
                if ids is not None:
                    shown = np.where(np.isin(ids, hidden), 0, ids)
                    image = overlay(image, shown, palette=palette)
                panels.append(image)
            writer.write(np.hstack(panels))


def prompts(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """The marks as `--prompts` reads them; with masks as pictures, a zip."""
    save_prompts(session, folder)
    if len(list(folder.iterdir())) > 1:
        return zipped(folder, "prompts.zip"), "prompts.zip"
    return folder / "prompts.json", "prompts.json"


def command(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """The equivalent command line."""
    file = folder / "command.txt"
    file.write_text(command_text(session, args), encoding="utf-8")
    return file, file.name


def report(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """Masks, videos and the report of `ab_iou.py`, as a zip."""
    text = command_text(session, args).strip()
    write_session_report(session, folder, args, arms_of(session), writer_of(session), text)
    for arm in ARMS if session.is_unordered else ():
        if (page := session.photo_page(arm)).is_dir():
            shutil.copytree(page, folder / page.name)
    return zipped(folder, "report.zip"), "report.zip"


def ply(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """The points of the 3D view."""
    points, colours = points_of(session.masks / "scene.json")
    write_ply(folder / "points.ply", points, colours)
    return folder / "points.ply", "points.ply"


def frames(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
    """The frames that were tracked."""
    return zipped(session.frames_folder, "frames.zip", folder), "frames.zip"


EXPORTS: dict[str, Callable] = {
    "masks": masks,
    "overlay_baseline": video("baseline"),
    "overlay_geom": video("geom"),
    "side_by_side": side_by_side,
    "prompts": prompts,
    "command": command,
    "report": report,
    "ply": ply,
    "frames": frames,
    **FORMAT_EXPORTS,
}


def arms_of(session: StudioSession) -> list[str]:
    """The arms that have masks. Raises InputError where none has."""
    arms = [arm for arm in ARMS if session.results.frames(arm)]
    if not arms:
        raise InputError("there are no masks yet; press Run")
    return arms


def tracked(session: StudioSession, arm: str) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of an arm that have a mask, with its ids [H, W]."""
    for index in range(session.source.count):
        ids = session.ids(arm, index)
        if ids is not None:
            yield index, ids


def writer_of(session: StudioSession) -> Callable[[Path, np.ndarray], None]:
    """Writes masks as `ab_iou.py` does for the same prompts."""
    several = len({mark.object_id for mark in session.board.marks}) > 1
    return mask_writer(several, source_record(session))


def source_record(session: StudioSession) -> dict:
    """The record of the session's frames; a photo folder has the name that was shown."""
    record = record_of(session.frames_folder)
    if session.source.kind == "photos":
        record = {**record, "source": session.source.name}
    return record


def save_prompts(session: StudioSession, folder: Path) -> None:
    """prompts.json, and masks as prompt_*.png beside it."""
    write_prompts(folder / "prompts.json", session.prompts(), masks=True)


def command_text(session: StudioSession, args: argparse.Namespace) -> str:
    """The command that gives the same masks, with what has to be known about it."""
    words = command_words(session, args)
    command = command_line([*named("segment" if session.is_unordered else "ab"), *words])
    lines = [*about_frames(session), command]
    if "--prompts" in words:
        lines.insert(0, "# prompts.json: Export, Prompts")
    if session.board.deletions:
        lines.append("# stretches that were deleted in the studio are not in its masks")
    return "\n".join(lines) + "\n"


def about_frames(session: StudioSession) -> list[str]:
    """Lines that say how to get the frames."""
    source = session.source
    cut = Cut(**source.cut)
    unpack = "# frames: unpack frames.zip (Export) into the folder frames"
    if session.is_unordered and len(set(photo_sizes(session.frames_folder))) > 1:
        hint = "# photos of several sizes: give their own folder, and points in their own pixels"
        return [unpack, hint]
    if source.kind in ("photos", "live") or not (cut.first == 0 and cut.last is None):
        return [unpack]
    if cut.is_whole and session.frames.files[0].suffix == ".png":
        return []
    size = "x".join(map(str, source.size))
    words = ["frames", source.name, "--every", str(cut.every), "--size", size]
    return [command_line([*named("frames")[:-1], *words, "--out", "frames"])]


def named(command: str) -> list[str]:
    """As `program`, without the folder of the clone."""
    return [Path(word).name if word.endswith(".py") else word for word in program(command)]


def command_words(session: StudioSession, args: argparse.Namespace) -> list[str]:
    """Arguments of `ab_iou.py`, or of `main.py segment --photos`."""
    source, unordered = session.source, session.is_unordered
    if unordered:
        words = ["--photos", "frames"]
    elif source.sample:
        words = ["--sample", source.sample]
    else:
        words = ["--frames", frames_word(session)]
    words += prompt_words(session)
    if session.results.frames("baseline") and not session.results.frames("geom"):
        words += ["--geometry-mode", "off"]
    elif session.settings["mode"] != "auto":
        words += ["--geometry-mode", session.settings["mode"]]
    for flag, key, default in (("--fallback", "fallback", "auto"), ("--memory", "memory", "fifo")):
        if session.settings[key] != default and not unordered:
            words += [flag, session.settings[key]]
    for flag, value, default in (
        ("--sam2", args.sam2, "tiny"),
        ("--sam2-checkpoint", args.sam2_checkpoint and args.sam2_checkpoint.name, None),
        ("--must3r", args.must3r, "auto"),
        ("--checkpoint", args.checkpoint and args.checkpoint.name, None),
        ("--precision", args.precision, "auto"),
    ):
        words += [flag, str(value)] if value != default else []
    return words


def frames_word(session: StudioSession) -> str:
    """What --frames names: the video, or the folder of frames made of it."""
    is_video = session.source.kind in ("video", "path") and Cut(**session.source.cut).is_whole
    is_kept = session.frames.files[0].suffix == ".png"
    return session.source.name if is_video and is_kept else "frames"


def prompt_words(session: StudioSession) -> list[str]:
    """Clicks and boxes of one frame as flags; anything more as a file."""
    given = session.board.prompts()
    has_masks = any(mark.kind == "mask" for mark in session.board.marks)
    if has_masks or len({prompt.frame for prompt in given}) != 1:
        return ["--prompts", "prompts.json"]
    words = []
    for prompt in given:
        name = f"{prompt.object_id}:" if [p.object_id for p in given] != [1] else ""
        for flag, values in (
            *(("--point", xy) for xy in prompt.points),
            *(("--negative", xy) for xy in prompt.negatives),
            *((("--box", prompt.box),) if prompt.box else ()),
        ):
            words += [flag, name + ",".join(f"{value:g}" for value in values)]
    if session.is_unordered:
        return ["--prompt-image", session.source.stems[given[0].frame], *words]
    return [*words, *(["--prompt-frame", str(given[0].frame)] if given[0].frame else [])]


def zipped(folder: Path, name: str, out: Path | None = None) -> Path:
    """All files of a folder in a zip beside it, or in `out`; pictures and videos as they are."""
    file = (out or folder.parent) / name
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner in sorted(folder.rglob("*")):
            if inner.is_file():
                packed = inner.suffix in (".png", ".jpg", ".mp4")
                kind = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                archive.write(inner, inner.relative_to(folder).as_posix(), kind)
    return file
