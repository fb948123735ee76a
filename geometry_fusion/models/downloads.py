"""Downloads of weight files: with progress, resumed after interruptions, verified by checksum."""

import logging
import os
from pathlib import Path

from huggingface_hub.file_download import http_get

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.digests import check_digest

# http_get logs each of its retries in the middle of the progress bar; the final error is ours.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def fetch(url: str, file: Path, digest: str | None = None) -> Path:
    """Download `url` to `file` and return it; an existing file is only checked.

    digest: "sha256:..." or "md5:...". The bytes go to FILE.part, which a later call resumes; it is
    renamed when it is complete and the digest fits. If a server breaks off or stops sending, the
    rest is requested again, up to five times without a new byte. Raises InputError, with the cure,
    on any failure.
    """
    if file.exists():
        check_digest(file, digest)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    try:
        with open(part, "ab") as handle:
            http_get(url, handle, resume_size=handle.tell(), displayed_filename=file.name)
    except Exception as error:
        # Any exception, because the HTTP library below raises many kinds, and others by version.
        # Status 416 means that there is nothing after the bytes we have: the part is complete.
        if not (_status(error) == 416 and part.stat().st_size):
            if not part.stat().st_size:
                part.unlink()
            reason = one_line(error)[:200]
            raise InputError(
                f"{url}: could not be fetched ({reason}); try again, it continues, or download it "
                f"to {file}"
            ) from None
    try:
        check_digest(part, digest)
    except InputError:
        part.unlink()  # resuming a damaged part could never succeed
        raise InputError(
            f"{url}: arrived damaged (other checksum than {digest}); it was deleted, fetch it again"
        ) from None
    os.replace(part, file)
    return file


def _status(error: Exception) -> int | None:
    """The HTTP status of an error; None if the server did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)
