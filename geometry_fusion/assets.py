"""Files that belong to the package: configs, the tiny weights and the bundled samples.

In a clone they lie beside the package, where the scripts and the docs name them. A wheel carries
them inside the package, in `assets/`. Weights that are fetched go beside the shipped ones in a
clone; after an installation they go to the user's cache folder (`$XDG_CACHE_HOME/3am`, default
`~/.cache/3am`).

Imports the standard library only: command lines need these paths before torch is loaded.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "assets").is_dir()
ASSETS = PACKAGE / "assets" if INSTALLED else PACKAGE.parent
CONFIGS = ASSETS / "configs"
SAMPLES = ASSETS / "videos/samples"


def shipped(path: str) -> Path:
    """A file that ships with the project, such as checkpoints/sam2_tiny.safetensors."""
    return ASSETS / path


def fetched(path: str) -> Path:
    """Where a file goes that is downloaded, such as checkpoints/sam2.1_hiera_large.pt."""
    if not INSTALLED:
        return ASSETS / path
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "3am" / path


def at_hand(path: str | Path) -> Path:
    """A file that a config names: as it is, or the shipped one where there is none here."""
    path = Path(path)
    if path.exists() or path.is_absolute() or not shipped(str(path)).exists():
        return path
    return shipped(str(path))
