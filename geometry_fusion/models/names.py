"""Model names and their files. Imports no network code, so that command lines can list them.

`tiny` and `tiny2` were trained in this project and ship with it. The other weights are published
elsewhere and are fetched by the user (`python main.py weights`).
"""

from importlib.util import find_spec
from pathlib import Path

from geometry_fusion.assets import CONFIGS, fetched, shipped

# SAM2's own configs, found without importing the package, which would load torch.
_SAM2_CONFIGS = Path(next(iter(find_spec("sam2").submodule_search_locations))) / "configs/sam2.1"


def _published(size: str, config: str) -> tuple[Path, Path]:
    file = fetched(f"checkpoints/sam2.1_hiera_{size}.pt")
    return _SAM2_CONFIGS / f"sam2.1_hiera_{config}.yaml", file


# name -> (config, default weights)
SAM2_MODELS = {
    "tiny": (CONFIGS / "sam2/tiny.yaml", shipped("checkpoints/sam2_tiny.safetensors")),
    "tiny2": (CONFIGS / "sam2/tiny2.yaml", shipped("checkpoints/sam2_tiny2.safetensors")),
    "t": _published("tiny", "t"),
    "s": _published("small", "s"),
    "b+": _published("base_plus", "b+"),
    "l": _published("large", "l"),
}
OWN_MODELS = ("tiny", "tiny2")  # of SAM2 and MUSt3R: trained here, and shipped
# name -> weights
MUST3R_MODELS = {
    "tiny": shipped("must3r_weights/must3r_tiny.safetensors"),
    "224": fetched("must3r_weights/MUSt3R_224_cvpr.pth"),
    "512": fetched("must3r_weights/MUSt3R_512.pth"),
}
# (SAM2 name, MUSt3R name) -> the fusion checkpoint that is used when none is named
FUSION_CHECKPOINTS = {("tiny", "tiny"): shipped("checkpoints/fusion_tiny.safetensors")}
