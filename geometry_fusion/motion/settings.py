"""The numbers of the motion decision, in one record."""

from dataclasses import dataclass, fields
from pathlib import Path

from geometry_fusion.assets import CONFIGS
from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import is_number, is_whole
from geometry_fusion.io.yaml_file import read_yaml

EGO = ("fit", "pose")
SHARES = ("continuity", "min_confidence", "depth_tolerance", "share", "part_share")


@dataclass(frozen=True)
class MotionSettings:
    """Settings of pairs, residuals and votes; sizes are at the working size of the frames."""

    side: int = 256  # pixels of the long side at which frames are compared; larger ones are shrunk
    gaps: tuple[int, ...] = (1, 4, 12)  # frames between the two of a pair
    most_positions: int = 60  # first frames of pairs over the clip; more are thinned out evenly
    min_pixels: int = 64  # of an object's mask, and of its pixels with a usable flow
    continuity: float = 0.5  # IoU of the first mask, moved by the flow, with the second
    min_confidence: float = 0.0  # of geometry, 0..1, above which a pixel counts
    ego: str = (
        "fit"  # camera motion between two frames: "fit" to the flow, or of the poses ("pose")
    )
    depth_tolerance: float = 0.0  # share by which a depth may be wrong without being motion
    occluded: float = 1.1  # expected depth over seen depth above which a pixel is hidden
    flow_error_px: float = 0.5  # what flow alone adds to the spread of the surroundings
    z: float = 3.0  # motion over spread from which a pair is dynamic
    rho: float = 0.05  # motion in object sizes from which a pair is dynamic
    share: float = 0.3  # of a gap's pairs that must be dynamic
    part_share: float = 0.6  # likewise, by the part that moves most
    part_percentile: float = 80.0  # of an object's pixels; stands for that part
    far_rho: float = 0.5  # motion in object sizes of which `far_pairs` suffice
    far_pairs: int = 5
    min_pairs: int = 5  # of a gap; gaps with fewer do not vote
    bad_background_px: float = 3.0  # median residual of the background: geometry is not used


def read_settings(file: Path | None = None) -> MotionSettings:
    """The settings of a YAML file; without one, those of configs/motion.yaml.

    Keys that the file leaves out have the defaults above. Raises InputError, naming file and key,
    for unknown keys and for values that cannot be used.
    """
    file = file or CONFIGS / "motion.yaml"
    values = read_yaml(file)
    known = {field.name: field.default for field in fields(MotionSettings)}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{file}: {key}: unknown key; known are: {', '.join(known)}")
        if not _fits(key, value, known[key]):
            raise InputError(f"{file}: {key}={value}: cannot be used; the default is {known[key]}")
    if "gaps" in values:
        values["gaps"] = tuple(values["gaps"])
    return MotionSettings(**values)


def _fits(key: str, value: object, default: object) -> bool:
    """Whether a value of a file has the type and range that a setting needs."""
    if key == "ego":
        return value in EGO
    if key == "gaps":
        return isinstance(value, list) and bool(value) and all(is_whole(v) and v > 0 for v in value)
    if isinstance(default, int):
        return is_whole(value) and value > 0
    if not is_number(value) or not 0 <= value < float("inf"):
        return False
    most = 1 if key in SHARES else 100 if key == "part_percentile" else float("inf")
    return value <= most and (value > 0 or key in ("min_confidence", "depth_tolerance"))
