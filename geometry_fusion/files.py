"""Writing without losing: new results are made beside the old ones and swapped in when complete."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from geometry_fusion.errors import InputError
from geometry_fusion.parsing import parse_json

CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave in folders that someone looked at


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that takes the place of `target` when the block ends without an error.

    Until then `target` is untouched; after an error or Ctrl-C the sibling is removed. The old folder is renamed
    away before the new one takes its name and deleted last, so a kill at any moment leaves one of them whole.
    """
    target = Path(target)
    made = _make_parents(target)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    fresh.chmod(0o755)  # mkdtemp makes private folders; results are ordinary files
    try:
        yield fresh
        old = fresh.with_name(fresh.name.replace(".new-", ".old-"))
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        for folder in made:  # of a failed run nothing stays, not even empty folders
            with suppress(OSError):
                folder.rmdir()


def _make_parents(target: Path) -> list[Path]:
    """Make the folders above `target`; returns those that did not exist, innermost first."""
    missing = [parent for parent in target.parents if not parent.exists()]
    blocked = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    if blocked:
        raise InputError(f"{blocked}: is not a folder; choose another output folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a sibling path that replaces `target` atomically (written, fsynced, renamed) when the block succeeds."""
    target = Path(target)
    if target.exists() and not target.is_file():  # folders, pipes and devices are not ours to rename over
        raise InputError(f"{target}: exists and is not a file; choose another name")
    _make_parents(target)
    # Process numbers are not enough: machines that share a folder have the same ones.
    fresh = target.with_name(f".{target.stem}.{uuid4().hex[:12]}.new{target.suffix}")
    try:
        yield fresh
        with open(fresh, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def check_replaceable(folder: Path, suffixes: Collection[str], flag: str) -> None:
    """Raise InputError unless `folder` is new, empty, or holds nothing but files that we write there.

    Replacing a folder deletes what was in it: `--out .` or a folder of photos must never be taken for old results.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{flag} {folder}: exists and is not a folder; choose another name")
    for entry in folder.iterdir() if folder.is_dir() else ():
        ours = entry.is_file() and entry.suffix.lower() in suffixes and not _is_colour_png(entry)
        if not (ours or entry.name in CLUTTER):
            raise InputError(
                f"{flag} {folder}: holds {entry.name!r}, not only old results; choose a new or empty folder"
            )


def _is_colour_png(file: Path) -> bool:
    """PNGs that we write to folders are masks: grey or palette. The pictures beside results are ours by their names."""
    if file.suffix.lower() != ".png" or file.name in ("strip.png", "overview.png"):
        return False
    header = file.read_bytes()[:26]
    return len(header) == 26 and header[25] not in (0, 3)  # the colour type of IHDR: 0 grey, 3 palette


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise InputError when writing one of `outputs` would replace one of `inputs` or a folder around it."""
    for output in outputs:
        for given in inputs:
            if given and Path(given).resolve().is_relative_to(Path(output).resolve()):
                raise InputError(f"{output}: would replace the input {given}; choose another output folder")


def read_json_lines(file: Path, is_record: Callable[[dict], bool] = bool) -> list[dict]:
    """The records of a file with one JSON object a line, empty where there is no file.

    A line that is no object, or none for which `is_record` holds, is left out, and how many there are is said once. A
    last line without its line break was cut by a kill, which says nothing about the rest.
    """
    *lines, last = file.read_bytes().split(b"\n") if file.exists() else [b""]
    records = [(line, json_record(line, is_record)) for line in [*lines, last] if line.strip()]
    bad = sum(record is None for line, record in records if line is not last)
    if bad:
        print(f"{bad} line{'s' * (bad > 1)} of {file} are no records and are left out")
    return [record for _, record in records if record is not None]


def json_record(line: bytes, is_record: Callable[[dict], bool] = bool) -> dict | None:
    """The object in a line of JSON; None where there is none, or it is no record."""
    try:
        record = parse_json(line, "line")
    except InputError:
        return None
    return record if isinstance(record, dict) and is_record(record) else None


def digest_of(facts) -> str:
    """16 hexadecimal digits that tell JSON values from others, for names of files that depend on them."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
