"""Files that come from a browser: received within limits, kept under random ids, then taken in."""

import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

from anyio import open_file, to_thread

from geometry_fusion.errors import InputError
from geometry_fusion.ui.board import clean_name
from geometry_fusion.ui.session import StudioSession
from geometry_fusion.ui.sources import Cut, check_picture, opened

ID = re.compile(r"[0-9a-f]{32}")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LEAST_FREE = 512 * 2**20  # bytes that stay free on the disk


async def receive_file(
    studio, session: StudioSession, name: str, chunks: AsyncIterator[bytes]
) -> dict:
    """Keep an upload under a random id; returns {"id", "name"}. Raises InputError as soon as the
    session's limit is passed; nothing is left then.
    """
    shown = clean_name(name or "upload")
    folder = session.folder / "uploads"
    folder.mkdir(exist_ok=True)
    held = [file for file in folder.iterdir() if file.is_file()]
    if len(held) >= studio.limits.photos:
        raise InputError(f"at most {studio.limits.photos} files are taken at once")
    most = studio.limits.upload_mb * 2**20
    received = sum(file.stat().st_size for file in held)
    file_id = secrets.token_hex(16)
    file = folder / file_id
    try:
        async with await open_file(file, "wb") as handle:
            async for chunk in chunks:
                received += len(chunk)
                if received > most:
                    raise InputError(
                        f"{shown}: is larger than {studio.limits.upload_mb} MB; cut it, or start "
                        "the studio with --max-upload"
                    )
                if shutil.disk_usage(folder).free < LEAST_FREE:
                    raise InputError("the disk of the studio is full; remove files")
                await handle.write(chunk)
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    session.uploads[file_id] = shown
    return {"id": file_id, "name": shown}


def open_files(studio, session: StudioSession, asked: Mapping) -> None:
    """Take in received files as the session's new source. Raises InputError, and then the old
    source stays.
    """
    files = asked.get("files")
    if not isinstance(files, list) or not files:
        raise InputError("files: expected a list of ids")
    named = []
    for file_id in files:
        if not isinstance(file_id, str) or file_id not in session.uploads:
            raise InputError("a file was not received; choose it again")
        named.append((session.folder / "uploads" / file_id, session.uploads[file_id]))
    if session.busy:
        raise InputError("another file is being read; wait for it")
    session.busy = "reading"
    try:
        take_in(studio, session, named, cut_of(asked))
    finally:
        session.busy = None
        session.uploads.clear()
        shutil.rmtree(session.folder / "uploads", ignore_errors=True)


def open_path(studio, session: StudioSession, asked: Mapping) -> None:
    """A video or a folder of frames by its path below the folder of --allow-paths. Raises
    InputError for all others.
    """
    root = studio.allow_paths
    if root is None:
        raise InputError("paths are not opened; start the studio with --allow-paths DIR")
    given = asked.get("path")
    if not isinstance(given, str) or "\0" in given or len(given) > 4000:
        raise InputError("path: expected text")
    path = (root / given).resolve()
    if not path.is_relative_to(root):
        raise InputError("this path is not in the folder that the studio may open")
    name = path.relative_to(root).as_posix()
    if not path.exists():
        raise InputError(f"{name}: no such file or folder")
    if path.is_dir():
        session.new_source(opened("path", name, path, Cut()))
        return
    out = session.folder / f"frames-{time.time_ns():x}"
    cut = cut_of(asked)
    notes = studio.intake.video(path, name, out, cut)
    session.new_source(opened("path", name, out, cut, notes))


def take_in(studio, session: StudioSession, named: list[tuple[Path, str]], cut: Cut) -> None:
    """Frames of a video, or of photos, into the session's folder."""
    out = session.folder / f"frames-{time.time_ns():x}"
    photos = [name for _, name in named if Path(name).suffix.lower() in PHOTO_SUFFIXES]
    if len(named) > 1 or photos:
        notes = studio.intake.photos(named, out)
        source = opened("photos", f"{len(named)} photos", out, Cut(), notes)
    else:
        (file, name) = named[0]
        notes = studio.intake.video(file, name, out, cut)
        source = opened("video", name, out, cut, notes)
    old = session.source
    session.new_source(source)
    if old is not None and Path(old.folder).parent == session.folder:
        shutil.rmtree(old.folder, ignore_errors=True)


def cut_of(asked: Mapping) -> Cut:
    """The stretch of frames that a page asks for. Raises InputError for other values."""
    values = {}
    for key, least in (("every", 1), ("first", 0), ("last", 0), ("long_side", 16)):
        value = asked.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 10**7:
            raise InputError(f"{key}: expected a whole number from {least}")
        values[key] = value
    return Cut(**values)


async def add_mask(
    studio, session: StudioSession, asked: Mapping, chunks: AsyncIterator[bytes]
) -> None:
    """A mask picture as a prompt: frame and object from `asked`. Raises InputError."""
    try:
        frame, object_id = int(asked.get("frame", "")), int(asked.get("object", ""))
    except ValueError:
        raise InputError("frame and object: expected whole numbers") from None
    received = await receive_file(studio, session, asked.get("name", "mask.png"), chunks)
    file = session.folder / "uploads" / received["id"]

    def take() -> None:
        try:
            check_picture(file, received["name"], studio.limits)
            session.add_mask(frame, object_id, file.read_bytes(), received["name"])
        finally:
            session.uploads.pop(received["id"], None)
            file.unlink(missing_ok=True)

    await to_thread.run_sync(take)
