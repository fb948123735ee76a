"""The numbers of the instance pipeline, in one record.

Lengths are metres. Geometry without a known unit has its lengths scaled (`with_voxel`).
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from geometry_fusion.assets import CONFIGS
from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import is_number, is_whole
from geometry_fusion.io.yaml_file import read_yaml

LENGTHS = ("voxel", "tolerance", "part_voxel")  # settings in metres
SHARES = (
    "least_confidence",
    "coverage",
    "predicted_iou",
    "stability",
    "box_overlap",
    "least_area",
    "most_area",
    "nested_cover",
    "explained_iou",
    "explained_share",
    "erosion",
    "relative_tolerance",
    "relative_sigma",
    "facing",
    "least_agreement",
    "inside_share",
    "part_share",
    "contained",
    "merge_at",
    "apart_iou",
    "apart_overlap",
    "vote_share",
)
MAY_BE_0 = ("colour_weight", "depth_step")  # beside shares
VOXEL_OF_DIAMETER = 0.005  # of geometry whose unit is not known


@dataclass(frozen=True)
class InstanceSettings:
    """Settings of all steps, in their order. The specification gives no numbers: all are ours."""

    # views, for geometry that is learned; 0 leaves all pixels
    least_confidence: float = 0.0  # 0..1, below which a pixel is unknown
    depth_step: float = 0.0  # of depth, between neighbours, above which a pixel is unknown
    # cloud
    voxel: float = 0.02
    fuse_every: int = 5  # frames between two that make the cloud
    neighbours: int = 16  # points that a normal is fitted to
    # keyframes
    stride: int = 20  # frames between keyframes; 0: by coverage
    coverage: float = 0.6  # a frame that has seen less than this share before is a keyframe
    # proposals; the first four as in sam2's SAM2AutomaticMaskGenerator
    points_per_side: int = 32
    predicted_iou: float = 0.8
    stability: float = 0.95
    box_overlap: float = 0.7
    least_area: float = 0.001  # of the image
    most_area: float = 0.6
    nested_cover: float = 0.8  # of a mask by smaller ones, from which it may be a group of things
    nested_step: float = 3.0  # depth range of the mask over that of its parts
    explained_iou: float = 0.7  # with the mask of a track, from which it opens no new track
    explained_share: float = 0.8  # or precision and recall
    # lifting
    lift_every: int = 2  # frames
    erosion: float = 0.01  # of the root of the mask's area, at least one pixel; 0: none
    tolerance: float = 0.03  # depth difference up to which a point is visible
    relative_tolerance: float = 0.03  # the same as a share of the depth; the larger one counts
    relative_sigma: float = 0.015  # of the reprojection weight, as a share of depth; 0: weight 1
    facing: float = 0.1  # least cosine between normal and direction to the camera
    least_agreement: float = 0.5  # mean weight below which a frame does not count for a track
    # fragments
    inside_share: float = 0.4  # of the weight with which a point was seen
    least_weight: float = 1.0  # two frames of the least agreement
    part_voxel: float = 0.05  # parts are connected over voxels of this size
    part_share: float = 0.1  # of the largest part, from which another part is kept
    least_points: int = 50
    # merging
    use_space: bool = True  # the affinity of clouds
    use_time: bool = True  # the affinity of masks
    contained: float = 0.8  # weight of containment beside IoU
    merge_at: float = 0.5  # least affinity
    use_apart: bool = True  # cannot-link
    apart_iou: float = 0.1  # of two proposals of one keyframe, below which they are two things
    apart_overlap: float = 0.1  # of masks in `apart_frames` frames, below which they are two things
    apart_frames: int = 5
    # superpoints and votes
    superpoints: bool = True
    graph_neighbours: int = 10
    colour_weight: float = 0.2
    graph_scale: float = 0.05  # Felzenszwalb and Huttenlocher's k
    superpoint_points: int = 20  # at least
    vote_share: float = 0.3  # of the weight with which a superpoint was seen

    def with_voxel(self, voxel: float) -> "InstanceSettings":
        """With another voxel size, and all other lengths scaled alike."""
        factor = voxel / self.voxel
        return replace(self, **{name: getattr(self, name) * factor for name in LENGTHS})

    def facts(self) -> dict:
        """All settings by name, for records."""
        return asdict(self)


def read_settings(
    tiny: bool = False, file: Path | None = None, learned: bool = False, **changes
) -> InstanceSettings:
    """The default settings, changed by files and by keywords, the later ones last.

    tiny: with those calibrated for the tiny SAM2 (configs/instances_tiny.yaml). learned: with those
    for MUSt3R's geometry (configs/instances_must3r.yaml). file: a YAML file of the user's. Raises
    InputError, naming file and key, for a file that does not exist, unknown keys and values that
    cannot be used.
    """
    if file is not None and not file.is_file():
        raise InputError(f"settings {file}: no such file; check the path")
    values = {}
    shipped = {"instances_tiny.yaml": tiny, "instances_must3r.yaml": learned}
    sources = [CONFIGS / name for name, applies in shipped.items() if applies]
    for source in sources + ([file] if file else []):
        values |= _checked(read_yaml(source), str(source))
    values |= _checked(changes, "settings")
    return InstanceSettings(**values)


def _checked(values: dict, source: str) -> dict:
    known = {field.name: field.default for field in fields(InstanceSettings)}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{source}: {key}: unknown key; known are: {', '.join(known)}")
        if not _fits(key, value, known[key]):
            raise InputError(
                f"{source}: {key}={value}: cannot be used; the default is {known[key]}"
            )
    return values


def _fits(key: str, value: object, default: object) -> bool:
    """Whether a value has the type and range that a setting needs."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return is_whole(value) and value >= (0 if key == "stride" else 1)
    if not is_number(value) or not 0 <= value < float("inf"):
        return False
    return value <= 1 if key in SHARES else value > 0 or key in MAY_BE_0
