"""`main.py weights`: list, fetch and verify weights."""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geometry_fusion.commands.arguments import command_line, program
from geometry_fusion.errors import InputError
from geometry_fusion.io.digests import check_digest, file_digest
from geometry_fusion.models.downloads import fetch
from geometry_fusion.models.must3r import load_must3r, model_file
from geometry_fusion.models.names import MUST3R_MODELS, OWN_MODELS, SAM2_MODELS
from geometry_fusion.models.sam2 import build_sam2, model_files

_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_MUST3R_URL = "https://download.europe.naverlabs.com/ComputerVision/MUSt3R/"
# MD5 sums that the authors of MUSt3R publish (docs/must3r_spec.md, section 5).
MUST3R_DIGESTS = {
    "224": "md5:ac176abd2b2c3bc5f2aea664d82e9ffa",
    "512": "md5:8854f948a8674fb1740258c1872f80dc",
}
SAM2_LICENCE = "Apache-2.0"
MUST3R_LICENCE = "MUSt3R Non-Commercial License"
MUST3R_TERMS = (
    f"{MUST3R_LICENCE} (parts CC BY-NC-SA 4.0): no commercial use; the NOTICE of "
    "https://github.com/naver/must3r restricts further, by the terms of the data that MUSt3R was "
    "trained on"
)
# Listed for the tiny models, in place of the licence of the published ones.
_TINY_LICENCE = "trained here, Apache-2.0"


def run(args: argparse.Namespace) -> None:
    """Fetch and verify the named weights; without a name, list all.

    Raises InputError for options that do not fit together, downloads that fail, files that do not
    load, and a licence that is not accepted.
    """
    if (args.url is not None or args.sha256 is not None) and bool(args.sam2) == bool(args.must3r):
        raise InputError(
            "--url and --sha256 describe one file: name it with either --sam2 or --must3r"
        )
    if args.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", args.sha256):
        raise InputError(f"--sha256 {args.sha256!r}: not a SHA-256 sum; give 64 hexadecimal digits")
    digest = f"sha256:{args.sha256}" if args.sha256 else None
    if args.sam2:
        fetch_sam2(args.sam2, args.url, digest)
    if args.must3r:
        fetch_must3r(args.must3r, args.url, digest, args.accept_licence)
    if not (args.sam2 or args.must3r):
        list_weights()


def list_weights() -> None:
    """Print one line per model: file, licence, and its size or the command that fetches it."""
    sam2_files = {name: file for name, (_, file) in SAM2_MODELS.items()}
    for role, files, upstream_licence in (
        ("sam2", sam2_files, SAM2_LICENCE),
        ("must3r", MUST3R_MODELS, MUST3R_LICENCE),
    ):
        for name, file in files.items():
            licence = _TINY_LICENCE if name in OWN_MODELS else upstream_licence
            state = f"get: {command_line(program('weights'))} --{role} {name}"
            if file.exists():
                state = f"{file.stat().st_size / 2**20:.1f} MB"
            print(f"{role:<6} {name:<5} {file.name:<30} {licence:<30} {state}")


def fetch_sam2(name: str, url: str | None, digest: str | None) -> None:
    """Fetch a SAM2 checkpoint if it is missing, and load it as a check.

    url: in place of the publisher's; digest: "sha256:..." to check. Raises InputError where it
    cannot be fetched or does not load.
    """
    _, file = model_files(name)
    was_here = file.exists()
    if name in OWN_MODELS and not (was_here or url):
        raise InputError(
            f"{file}: ships with the repository but is missing; restore it with: git checkout -- "
            f"checkpoints/{file.name}"
        )
    fetch(url or _SAM2_URL + file.name, file, digest)
    with forgetting(file, unless=was_here):
        build_sam2(name)  # strict: proves that the file is complete and of this model
    # Meta publishes no checksums: print the one of this file, so that machines can be compared.
    print(f"{file}: loads as SAM2 '{name}', sha256 {file_digest(file)}")


def fetch_must3r(name: str, url: str | None, digest: str | None, accepted: bool) -> None:
    """As `fetch_sam2`, for MUSt3R weights, after consent to their licence.

    accepted: the user agreed on the command line. Raises InputError without consent as well.
    """
    file = MUST3R_MODELS[name]
    digest = digest or MUST3R_DIGESTS.get(name)
    was_here = file.exists()
    if not was_here:
        if name == "tiny" and not url:
            model_file(name)  # raises InputError: this file ships with the repository
        elif name != "tiny" and not (accepted or consents()):
            raise InputError(
                f"{file.name} needs your consent to the {MUST3R_TERMS}; agree with --accept-licence"
            )
        fetch(url or _MUST3R_URL + file.name, file, digest)
    check_digest(file, digest)
    with forgetting(file, unless=was_here):
        load_must3r(file)  # strict: proves that the file is complete
    print(f"{file}: loads as MUSt3R '{name}', {digest or 'sha256 ' + file_digest(file)}")


@contextmanager
def forgetting(file: Path, unless: bool) -> Iterator[None]:
    """Delete a fetched file that does not load, so that the next call fetches it again.

    unless: the file was here before, and is the user's to delete.
    """
    try:
        yield
    except InputError:
        if not unless:
            file.unlink(missing_ok=True)
        raise


def consents() -> bool:
    """Ask for consent to MUSt3R's licence at the terminal; False where there is none."""
    # stdin is None where the shell has closed it.
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return False
    print(f"MUSt3R's weights: {MUST3R_TERMS}.")
    try:
        return input("Do you agree? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
