"""Files of a session."""

import json
import os
from pathlib import Path

from geometry_fusion.player.scene import SceneCloud


def mask_file(folder: Path, arm: str, index: int) -> Path:
    """Where a session keeps the mask of a frame."""
    return folder / arm / f"{index:06d}.png"


def write_aside(file: Path, content: bytes) -> None:
    """Write a file that is never seen half written."""
    aside = file.with_name(f".{file.name}.new")
    aside.write_bytes(content)
    os.replace(aside, file)


def write_scene(folder: Path, cloud: SceneCloud) -> None:
    """The 3D view's data beside the masks, where there is geometry."""
    packed = cloud.packed()
    if packed is not None:
        write_aside(folder / "scene.json", json.dumps(packed).encode())
