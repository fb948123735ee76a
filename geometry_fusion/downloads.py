"""Fetching weight files: progress, resuming where a download broke off, a checksum before a file
gets its name.
"""

import hashlib
import logging
import os
from pathlib import Path

from huggingface_hub.file_download import http_get

from geometry_fusion.errors import InputError, one_line

# What http_get says about each of its own retries goes to the progress bar's place; the last word
# is ours.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, read in pieces."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def check_digest(file: Path, digest: str | None) -> None:
    """Raise InputError when `digest` ("sha256:HEX" or "md5:HEX") does not fit the file; None checks
    nothing.
    """
    if digest:
        algorithm, _, expected = digest.partition(":")
        found = file_digest(file, algorithm)
        if found != expected.lower():
            raise InputError(
                f"{file}: {algorithm} is {found}, expected {expected}; delete it and fetch it again"
            )


def fetch(url: str, file: Path, digest: str | None = None) -> Path:
    """Download `url` to `file`; an existing file is only checked. Raises InputError with the cure
    on any failure.

    The bytes go to FILE.part, which a later call continues; the file gets its name when it is
    complete and its digest fits. Servers that break off or fall silent are asked again for the
    rest, up to five times without a new byte.
    """
    if file.exists():
        check_digest(file, digest)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    try:
        with open(part, "ab") as handle:
            http_get(url, handle, resume_size=handle.tell(), displayed_filename=file.name)
    except (
        Exception
    ) as error:  # the errors of the HTTP library below are of many kinds and change with it
        # 416, nothing after what we have: the part was complete.
        if not (_status(error) == 416 and part.stat().st_size):
            if not part.stat().st_size:
                part.unlink()
            reason = one_line(error)[:200]
            raise InputError(
                f"{url}: could not be fetched ({reason}); try again, it continues, or download "
                f"it to {file}"
            ) from None
    try:
        check_digest(part, digest)
    except InputError:
        part.unlink()  # continuing damaged bytes could never succeed
        raise InputError(
            f"{url}: arrived damaged (other checksum than {digest}); it was deleted, fetch it again"
        ) from None
    os.replace(part, file)
    return file


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
