"""Files of a session."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.fit import Size
from geometry_fusion.player.scene import SceneCloud

PHOTOS_JSON = "photos.json"  # beside frames that were photos: the sizes that they had


def mask_file(folder: Path, arm: str, index: int) -> Path:
    """Where a session keeps the mask of a frame."""
    return folder / arm / f"{index:06d}.png"


def photo_page(folder: Path, arm: str) -> Path:
    """Where a session keeps what `main.py segment --photos` writes: masks, order.json, a page."""
    return folder / f"photos_{arm}"


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


def write_photo_sizes(folder: Path, sizes: Sequence[Size]) -> None:
    """Keep the sizes (width, height) of photos beside the frames that they were fitted into."""
    content = json.dumps({"sizes": [list(size) for size in sizes]})
    (folder / PHOTOS_JSON).write_text(content, encoding="utf-8")


def photo_sizes(folder: Path) -> list[Size]:
    """What `write_photo_sizes` wrote, in the order of the frames."""
    content = json.loads((folder / PHOTOS_JSON).read_text(encoding="utf-8"))
    return [(width, height) for width, height in content["sizes"]]
