"""Temporary folders, PARENT/.NAME.new-XXXXXXXX/, that are removed even after a kill.

Each holds a file that is locked while its process lives. A killed process leaves its folder without
a lock, and the next process that makes a temporary folder in PARENT removes it. Needs nothing but
the standard library.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and leftovers stay
    fcntl = None

LOCK = ".3am-lock"  # the locked file
OLD = ".3am-old"  # the folder for what is being replaced
LONGEST_NAME = 200  # bytes of NAME; file systems allow 255 for the whole name
LEFTOVER = re.compile(r"\..*\.new-[a-z0-9_]{8}", re.DOTALL)

_swept: set[Path] = set()


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder `parent`/.NAME.new-XXXXXXXX that is removed when the block ends."""
    _sweep_once(parent)
    folder, lock = _locked_folder(parent, name)
    try:
        yield folder
    finally:
        _finish_swap(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """As `temporary_folder`, in the system's folder of temporary files."""
    with temporary_folder(Path(tempfile.gettempdir()), name) as folder:
        yield folder


def swap_in(fresh: Path, target: Path, aside: Path) -> None:
    """Rename the folder `fresh` to `target`; an older `target` is moved into `aside` first.

    aside: a temporary folder beside `target`. After a kill between the two renames, the next sweep
    completes the swap.
    """
    if os.path.lexists(target):
        (aside / OLD).mkdir()
        os.rename(target, aside / OLD / target.name)
    os.rename(fresh, target)


def sweep(folder: Path) -> None:
    """Remove the temporary folders that killed processes left in `folder`."""
    with suppress(OSError):
        entries = [
            Path(folder) / entry.name
            for entry in os.scandir(folder)
            if LEFTOVER.fullmatch(entry.name)
        ]
        for entry in entries:
            _sweep_one(entry)


def sweep_working_folders() -> None:
    """As `sweep`, for `working_folder`; only once in a process."""
    _sweep_once(Path(tempfile.gettempdir()))


def _sweep_once(folder: Path) -> None:
    folder = Path(folder).resolve()
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


def _sweep_one(folder: Path) -> None:
    """Remove a temporary folder of this user, unless its process lives."""
    if fcntl is None or folder.is_symlink() or not folder.is_dir():
        return
    if folder.stat().st_uid != os.getuid():
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        with suppress(OSError):
            folder.rmdir()  # killed before it was locked; fails, as it should, unless empty
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _finish_swap(folder)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its process lives, or this file system has no locks
        pass
    finally:
        os.close(lock)


def _locked_folder(parent: Path, name: str) -> tuple[Path, int | None]:
    """A new temporary folder and the file descriptor of its lock; None where there are no locks."""
    short = os.fsdecode(os.fsencode(name)[:LONGEST_NAME])
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{short}.new-", dir=parent))
        except OSError as error:  # its message would name the temporary folder
            raise OSError(error.errno, error.strerror, str(parent)) from None
        if fcntl is None:
            return folder, None
        lock = _lock(folder)
        if lock is not None:
            return folder, lock


def _lock(folder: Path) -> int | None:
    """The file descriptor of the folder's lock.

    None where another process removed the folder as a leftover, before it was locked.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileNotFoundError:
        return None
    except OSError as error:
        folder.rmdir()
        raise OSError(error.errno, error.strerror, str(folder.parent)) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:  # this file system has no locks, so no process will sweep the folder
        return lock
    if os.fstat(lock).st_nlink:  # the file was not removed meanwhile
        return lock
    os.close(lock)
    return None


def _finish_swap(aside: Path) -> None:
    """Complete a `swap_in` that was interrupted between its renames, or undo it.

    Otherwise the only copy of results would be removed with the temporary folder.
    """
    with suppress(OSError):
        for old in (aside / OLD).iterdir():
            target, fresh = aside.parent / old.name, aside / old.name
            if not os.path.lexists(target):
                os.rename(fresh if fresh.exists() else old, target)
