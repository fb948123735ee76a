"""Checksums of files."""

import hashlib
from pathlib import Path

from geometry_fusion.errors import InputError


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
        digest_here = file_digest(file, algorithm)
        if digest_here != expected.lower():
            raise InputError(
                f"{file}: {algorithm} is {digest_here}, expected {expected}; "
                "delete it and fetch it again"
            )
