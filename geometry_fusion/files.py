"""Writing without losing: new results are made beside the old ones and swapped in when complete."""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from geometry_fusion.errors import InputError


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that takes the place of `target` when the block ends without an error.

    Until then `target` is untouched; after an error or Ctrl-C the sibling is removed. The old folder is renamed
    away before the new one takes its name and deleted last, so a kill at any moment leaves one of them whole.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
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


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a sibling path that replaces `target` atomically (written, fsynced, renamed) when the block succeeds."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.stem}.{os.getpid()}.new{target.suffix}")
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
        if entry.is_dir() or entry.suffix.lower() not in suffixes:
            raise InputError(
                f"{flag} {folder}: holds {entry.name!r}, not only old results; choose a new or empty folder"
            )
