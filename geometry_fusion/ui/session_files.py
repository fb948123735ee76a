"""Files of a session."""

import os
from pathlib import Path


def mask_file(folder: Path, arm: str, index: int) -> Path:
    """Where a session keeps the mask of a frame."""
    return folder / arm / f"{index:06d}.png"


def write_aside(file: Path, content: bytes) -> None:
    """Write a file that is never seen half written."""
    aside = file.with_name(f".{file.name}.new")
    aside.write_bytes(content)
    os.replace(aside, file)
