"""Writing without losing: new results are made beside the old ones and swapped in when complete."""

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.parsing import parse_json
from geometry_fusion.temporary import swap_in, temporary_folder

CLUTTER = (
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
)  # what file managers leave in folders that someone looked at
# Of a write that failed; some libraries give no number. Such errors may not say which file it was.
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
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    Until then `target` is untouched; after an error or Ctrl-C the new folder is removed. The old
    folder is renamed away before the new one takes its name and deleted last, so a kill at any
    moment leaves one of them whole.
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
    """Yield a path that replaces `target` atomically (written, fsynced, renamed) when the block
    succeeds.
    """
    target = _with_name(target)
    if (
        target.exists() and not target.is_file()
    ):  # folders, pipes and devices are not ours to rename over
        raise InputError(f"{target}: exists and is not a file; choose another name")
    with _parents_of(target), temporary_folder(target.parent, target.name) as aside:
        fresh = aside / target.name
        with naming(target, fresh):
            yield fresh
            with open(fresh, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(fresh, target)


def _with_name(target: Path) -> Path:
    """`.` and `x/..` have no name of their own."""
    return Path(target).resolve() if Path(target).name in ("", "..") else Path(target)


@contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the folders above `target`. Those that did not exist are removed again when nothing came
    to lie in them.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    blocked = next(
        (parent for parent in target.parents if parent.exists() and not parent.is_dir()), None
    )
    if blocked:
        raise InputError(f"{blocked}: is not a folder; choose another output folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def naming(target: Path, fresh: Path | None = None) -> Iterator[None]:
    """Errors of writing name the file `target`, not the temporary `fresh` in its place, nor no file
    at all.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ""
        if fresh and name.startswith(str(fresh)):
            raise OSError(
                error.errno, error.strerror, name.replace(str(fresh), str(target), 1)
            ) from None
        if name or error.errno not in WRITE_ERRORS:
            raise
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, str(target)) from None
        text = one_line(error).replace(str(fresh), str(target))
        if str(target) not in text:
            text = f"{target}: could not be written ({text}); is the disk full?"
        raise OSError(text) from None


def check_replaceable(folder: Path, suffixes: Collection[str], flag: str) -> None:
    """Raise InputError unless `folder` is new, empty, or holds nothing but files that we write
    there.

    Replacing a folder deletes what was in it: `--out .` or a folder of photos must never be taken
    for old results.
    """

    def is_ours(entry: Path) -> bool:
        return entry.is_file() and entry.suffix.lower() in suffixes and not _is_colour_png(entry)

    _check_holds_only(folder, is_ours, flag)


def check_holds_only(folder: Path, names: Collection[str], flag: str) -> None:
    """The same where our files and folders have fixed names."""
    _check_holds_only(folder, lambda entry: entry.name in names, flag)


def _check_holds_only(folder: Path, is_ours, flag: str) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{flag} {folder}: exists and is not a folder; choose another name")
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if not (is_ours(entry) or entry.name in CLUTTER):
            raise InputError(
                f"{flag} {folder}: holds {entry.name!r}, not only old results; choose a new or "
                "empty folder"
            )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InputError(f"{flag} {folder}: is the folder you are in or above it; choose another")


def _is_colour_png(file: Path) -> bool:
    """PNGs that we write to folders are masks: grey or palette. The pictures beside results are
    ours by their names.
    """
    if file.suffix.lower() != ".png" or file.name in ("strip.png", "overview.png"):
        return False
    header = file.read_bytes()[:26]
    return len(header) == 26 and header[25] not in (
        0,
        3,
    )  # the colour type of IHDR: 0 grey, 3 palette


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise InputError when writing one of `outputs` would replace one of `inputs`, a folder around
    it, or an output.

    Links count: an input may be reached by another path than the one given, and be a folder of
    links.
    """
    outputs, inputs = list(outputs), [given for given in inputs if given]
    for output in outputs:
        for given in inputs:
            inside = any(_is_inside(place, output) for place in _places_of(given))
            if inside or _holds_hard_link(output, given):
                raise InputError(
                    f"{output}: would replace the input {given}; choose another output folder"
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


def _places_of(given: Path) -> set[Path]:
    """Where an input lies: by its own name, where links lead, and where those in it lead if it is a
    folder of links.
    """
    given = Path(given)
    places = {_resolved(given.parent) / given.name, _resolved(given)}
    if given.is_dir():
        with os.scandir(given) as entries:
            places |= {_resolved(Path(entry.path)) for entry in entries if entry.is_symlink()}
    return places


def _is_inside(place: Path, output: Path) -> bool:
    """Whether `place`, which is resolved, is `output` or in it. The system judges where names may
    differ in case.
    """
    if place.is_relative_to(_resolved(output)):
        return True
    if not os.path.exists(output):
        return False
    return any(os.path.exists(p) and os.path.samefile(p, output) for p in (place, *place.parents))


def _holds_hard_link(output: Path, given: Path) -> bool:
    """Whether the file `given` has another name inside the folder `output`."""
    if not os.path.isfile(given) or not os.path.isdir(output) or os.stat(given).st_nlink == 1:
        return False
    files = (Path(folder) / name for folder, _, names in os.walk(output) for name in names)
    return any(file.exists() and os.path.samefile(file, given) for file in files)


def read_json_lines(file: Path, is_record: Callable[[dict], bool] = bool) -> list[dict]:
    """The records of a file with one JSON object a line, empty where there is no file.

    A line that is no object, or none for which `is_record` holds, is left out, and how many there
    are is said once. A last line without its line break was cut by a kill, which says nothing about
    the rest.
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
    """16 hexadecimal digits that tell JSON values from others, for names of files that depend on
    them.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
