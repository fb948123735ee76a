"""What a fusion is made of, but for its weights: merger, geometry source and its options."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from geometry_fusion.assets import CONFIGS
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.merger import FeatureMerger
from geometry_fusion.models.fusion_schema import ARMS, MERGER_CLASS
from geometry_fusion.models.must3r import token_widths

MERGERS = CONFIGS / "merger"
PUBLISHED = ("224", "512")  # MUSt3R models that the paper's merger fits


@dataclass(frozen=True)
class FusionSpec:
    """Everything of a fusion but the weights."""

    arm: str  # 3am, control or oracle
    merger: dict  # keyword arguments of FeatureMerger, with its _target_
    geometry: dict  # levels, max_keyframes, rule

    @property
    def source(self) -> str:
        """Name of the geometry source: must3r, depth or none."""
        return ARMS[self.arm][0]

    def build_merger(self) -> FeatureMerger:
        """A merger with fresh weights. Nothing that a file names is ever called. Raises InputError
        for arguments that make no merger.
        """
        arguments = {k: v for k, v in self.merger.items() if k != "_target_"}
        if self.merger.get("_target_") != MERGER_CLASS:
            raise InputError(
                f"merger {self.merger.get('_target_')!r}: unknown class; known is {MERGER_CLASS}"
            )
        try:
            return FeatureMerger(**arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"merger: these arguments make none: {one_line(error)}") from None

    def metadata(self) -> dict:
        """What a checkpoint records of the spec."""
        return {"arm": self.arm, "merger": self.merger, "geometry": self.geometry}


def merger_of(name: str, must3r: str) -> str:
    """Name of the merger config: `name`, or, where it is "auto", the one whose level widths are
    those of a MUSt3R model (a name or a weight file).
    """
    if name != "auto":
        return name
    if must3r in PUBLISHED:  # known without reading a large file, which may not be here
        return "paper"
    widths = token_widths(must3r)
    for candidate in ("tiny", "paper"):
        spec = spec_of(candidate)
        if fits(spec, widths):
            return candidate
    return "paper"  # its level widths are named in the error of `check_levels`


def spec_of(name: str, arm: str = "3am", variant: str = "paper") -> FusionSpec:
    """The spec of configs/merger/NAME.yaml. Raises InputError for unknown names."""
    file = MERGERS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in MERGERS.glob("*.yaml")))
        raise InputError(f"merger={name}: {file} does not exist; known are: {known}")
    if arm not in ARMS:
        raise InputError(f"arm={arm}: unknown; known are: {', '.join(ARMS)}")
    config = OmegaConf.to_container(OmegaConf.load(file))
    merger = {**config["merger"], "levels_from": ARMS[arm][1], "variant": variant}
    return FusionSpec(arm, merger, config["geometry"])


def level_widths(spec: FusionSpec, widths: list[int]) -> list[int | None]:
    """Channels of the spec's levels in a network with these widths; None where it has no such
    level.
    """
    return [
        widths[level] if 0 <= level < len(widths) else None for level in spec.geometry["levels"]
    ]


def fits(spec: FusionSpec, widths: list[int]) -> bool:
    """Whether a MUSt3R with these token widths has the levels that the merger is made for."""
    return level_widths(spec, widths) == list(spec.merger["level_dims"])


def check_levels(spec: FusionSpec, widths: list[int], must3r_file: Path) -> None:
    """Raise InputError unless the merger fits a MUSt3R with these token widths."""
    if not fits(spec, widths):
        raise InputError(
            f"{must3r_file}: its levels {spec.geometry['levels']} have "
            f"{level_widths(spec, widths)} channels, the merger is made for "
            f"{list(spec.merger['level_dims'])}; choose a merger and a MUSt3R that belong together"
        )
