"""Writing without losing results: new files are made beside old ones, and replace them at the end.

Also the checks that a run makes first: that outputs replace no input and nothing but old results.
"""

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.io.temporary import swap_in, temporary_folder

# Files that file managers leave in folders.
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
# Error numbers of failed writes, whose errors may not name the file. Some libraries give no number.
WRITE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    None,
)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the block ends without an error.

    Until then `target` is untouched; after an error or Ctrl-C the new folder is removed. The old
    folder is renamed, then the new one takes its name, then the old one is deleted, so a kill at
    any moment leaves one of them whole.
    """
    target = _with_name(target)
    with _parents_of(target), temporary_folder(target.parent, target.name) as aside:
        fresh = aside / target.name
        fresh.mkdir()
        with naming(target, fresh):
            yield fresh
            swap_in(fresh, target, aside)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a path that replaces `target` when the block ends without an error.

    The new file is synced, then renamed, so a kill at any moment leaves one of them whole. Raises
    InputError where `target` is a folder, a pipe or a device.
    """
    target = _with_name(target)
    if target.exists() and not target.is_file():
        raise InputError(f"{target}: exists and is not a file; choose another name")
    with _parents_of(target), temporary_folder(target.parent, target.name) as aside:
        fresh = aside / target.name
        with naming(target, fresh):
            yield fresh
            with open(fresh, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(fresh, target)


def _with_name(target: Path) -> Path:
    """The path itself, resolved where it has no name of its own, as `.` and `x/..`."""
    return Path(target).resolve() if Path(target).name in ("", "..") else Path(target)


@contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the folders above `target`; new ones are removed again if they stay empty."""
    missing = [parent for parent in target.parents if not parent.exists()]
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(f"{parent}: is not a folder; choose another output folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def naming(target: Path, fresh: Path | None = None) -> Iterator[None]:
    """Let errors of writing in the block name `target`, if they name no file or, instead of it, the
    temporary path `fresh`.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ""
        if fresh and name.startswith(str(fresh)):
            name = name.replace(str(fresh), str(target), 1)
            raise OSError(error.errno, error.strerror, name) from None
        if name or error.errno not in WRITE_ERRORS:
            raise
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, str(target)) from None
        text = one_line(error).replace(str(fresh), str(target))
        if str(target) not in text:
            text = f"{target}: could not be written ({text}); is the disk full?"
        raise OSError(text) from None


def check_replaceable(folder: Path, suffixes: Collection[str], flag: str) -> None:
    """Raise InputError unless `folder` is new, empty, or holds nothing but files that we write.

    Replacing a folder deletes its contents: `--out .` or a folder of photos must never be mistaken
    for old results. suffixes: of the files that we write there. flag: named in the message.
    """

    def is_result(entry: Path) -> bool:
        return entry.is_file() and entry.suffix.lower() in suffixes and not _is_photo(entry)

    _check_holds_only(folder, is_result, flag)


def check_holds_only(folder: Path, names: Collection[str], flag: str) -> None:
    """As `check_replaceable`, where the files and folders that we write have fixed names."""
    _check_holds_only(folder, lambda entry: entry.name in names, flag)


def _check_holds_only(folder: Path, is_result: Callable[[Path], bool], flag: str) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{flag} {folder}: exists and is not a folder; choose another name")
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if not (is_result(entry) or entry.name in CLUTTER):
            raise InputError(
                f"{flag} {folder}: holds {entry.name!r}, not only old results; choose a new or "
                "empty folder"
            )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InputError(f"{flag} {folder}: is the folder you are in or above it; choose another")


def _is_photo(file: Path) -> bool:
    """Whether a PNG is a colour picture of the user's. We write masks, which are grey or palette
    PNGs, and pictures with the two names below.
    """
    if file.suffix.lower() != ".png" or file.name in ("strip.png", "overview.png"):
        return False
    # Imported here, because many commands only write JSON.
    from geometry_fusion.io.mask_reader import is_colour_png

    return is_colour_png(file)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise InputError when writing one of `outputs` would replace an input, a folder that holds
    one, or another output.

    Symbolic and hard links are followed. inputs: None is ignored.
    """
    outputs = list(outputs)
    sources = [source for source in inputs if source]
    for output in outputs:
        for source in sources:
            inside = any(_is_inside(place, output) for place in _places_of(source))
            if inside or _holds_hard_link(output, source):
                raise InputError(
                    f"{output}: would replace the input {source}; choose another output folder"
                )
    for one, other in itertools.permutations(outputs, 2):
        if _is_inside(_resolved(one), other):
            raise InputError(
                f"{one}: would be replaced by the output {other}; choose another name for one of "
                "them"
            )


def _resolved(path: Path) -> Path:
    try:
        return Path(path).resolve()
    except (RuntimeError, OSError) as error:  # a loop of symbolic links
        raise InputError(f"{path}: not a usable path ({one_line(error)}); choose another") from None


def _places_of(source: Path) -> set[Path]:
    """Paths at which an input is stored: its own, its link's target, and the targets of the links
    in it, if it is a folder.
    """
    source = Path(source)
    places = {_resolved(source.parent) / source.name, _resolved(source)}
    if source.is_dir():
        with os.scandir(source) as entries:
            places |= {_resolved(Path(entry.path)) for entry in entries if entry.is_symlink()}
    return places


def _is_inside(place: Path, output: Path) -> bool:
    """Whether the resolved path `place` is `output` or in it."""
    if place.is_relative_to(_resolved(output)):
        return True
    # The file system knows whether names that differ in case are the same.
    if not os.path.exists(output):
        return False
    return any(os.path.exists(p) and os.path.samefile(p, output) for p in (place, *place.parents))


def _holds_hard_link(output: Path, source: Path) -> bool:
    """Whether the file `source` has another name inside the folder `output`."""
    if not os.path.isfile(source) or not os.path.isdir(output) or os.stat(source).st_nlink == 1:
        return False
    files = (Path(folder) / name for folder, _, names in os.walk(output) for name in names)
    return any(file.exists() and os.path.samefile(file, source) for file in files)


def read_json_lines(file: Path, is_record: Callable[[dict], bool] = bool) -> list[dict]:
    """The records of a file with one JSON object per line; empty where there is no file.

    Lines that are no object, or for which `is_record` is false, are left out, and their number is
    printed. A last line without a line break was cut by a kill and is not counted.
    """
    *lines, last = file.read_bytes().split(b"\n") if file.exists() else [b""]
    records = [(line, json_record(line, is_record)) for line in [*lines, last] if line.strip()]
    bad = sum(record is None for line, record in records if line is not last)
    if bad:
        print(f"{bad} line{'s' * (bad > 1)} of {file} are no records and are left out")
    return [record for _, record in records if record is not None]


def json_record(line: bytes, is_record: Callable[[dict], bool] = bool) -> dict | None:
    """The object in a line of JSON; None for other values, and where `is_record` is false."""
    try:
        record = parse_json(line, "line")
    except InputError:
        return None
    return record if isinstance(record, dict) and is_record(record) else None


def digest_of(facts) -> str:
    """16 hexadecimal digits that identify a JSON value, for names of files that depend on it."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
