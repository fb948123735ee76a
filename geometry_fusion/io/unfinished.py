"""The folder in which an interrupted run leaves its work, for the same command to continue.

FOLDER/identity.json   what the results depend on, as text by name
FOLDER/...             pieces of work
"""

import json
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.parsing import load_json


def open_unfinished(folder: Path, identity: dict[str, str]) -> None:
    """Make the folder, or take it over from a run with the same identity.

    Raises InputError for a folder that a run with another identity left; nothing is changed then.
    """
    about = folder / "identity.json"
    if about.exists():
        _check_same(folder, load_json(about, delete_cure(folder)), identity)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_file(about) as fresh:
        fresh.write_text(json.dumps(identity, indent=1))


def delete_cure(folder: Path) -> str:
    """What to do about unfinished work that cannot be read."""
    return f"delete {folder} to begin again"


def _check_same(folder: Path, earlier: dict, identity: dict[str, str]) -> None:
    differing = [
        key for key in identity.keys() | earlier.keys() if earlier.get(key) != identity.get(key)
    ]
    if differing:
        key = min(differing)
        raise InputError(
            f"{folder}: left by a run with {key} {earlier.get(key)}, not {identity.get(key)}; "
            f"repeat that command to finish it, delete {folder.name}, or choose another --out"
        )
