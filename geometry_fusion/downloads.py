"""Fetching weight files: progress, resuming where a download broke off, a checksum before a file gets its name."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from geometry_fusion.errors import InputError

CHUNK = 1 << 20
TIMEOUT_S = 30


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, read in pieces."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def check_digest(file: Path, digest: str | None) -> None:
    """Raise InputError when `digest` ("sha256:HEX" or "md5:HEX") does not fit the file; None checks nothing."""
    if digest:
        algorithm, _, expected = digest.partition(":")
        found = file_digest(file, algorithm)
        if found != expected.lower():
            raise InputError(f"{file}: {algorithm} is {found}, expected {expected}; delete it and fetch it again")


def fetch(url: str, file: Path, digest: str | None = None) -> Path:
    """Download `url` to `file`; an existing file is only checked. Raises InputError with the cure on any failure.

    The bytes go to FILE.part, which a later call continues; the file gets its name when it is complete and its digest
    fits.
    """
    if file.exists():
        check_digest(file, digest)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    try:
        _download(url, part)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"{url}: could not be fetched ({reason}); try again, it continues, or download it to {file}"
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


def _download(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing after what we have: it is complete
            return
        raise
    with response:
        if response.status != 206:
            done = 0  # the server does not continue downloads
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=part.stem)
        with open(part, "ab" if done else "wb") as handle, bar:
            while piece := response.read(CHUNK):
                handle.write(piece)
                bar.update(len(piece))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"broke off after {part.stat().st_size:,} of {total:,} bytes")
