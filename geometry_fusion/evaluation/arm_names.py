"""Names of the arms of an evaluation, and the settings of those with places.

A name is an arm, then what replaces its geometry, then its memory policy: `3am`, `3am_zero`,
`places+dam`. Without a policy it is `fifo`.
"""

from collections.abc import Sequence
from dataclasses import fields

from omegaconf import DictConfig

from geometry_fusion.choices import MEMORY_POLICIES
from geometry_fusion.errors import InputError
from geometry_fusion.tracking.places import PlaceSettings

# Arm -> its key in `checkpoints`, and how geometry is used.
ARMS = {
    "sam2": (None, "merger"),
    "control": ("control", "merger"),
    "3am": ("fusion", "merger"),
    "oracle": ("oracle", "merger"),
    "places": (None, "places"),
    "both": ("fusion", "both"),
}
# Arm -> its key in `checkpoints`, of the arms that are a checkpoint.
CHECKPOINTS = {arm: key for arm, (key, mode) in ARMS.items() if key and mode == "merger"}
# Geometry in place of MUSt3R's, as the end of an arm's name: places_true (sources.py).
CONTROLS = ("true", "zero", "shuffled")
# Falling back to SAM2 alone for objects that move, as the end of an arm's name: by the decision of
# geometry_fusion.motion, or by the truth.
SWITCHES = ("fallback", "switch")
GEOMETRY_ARMS = ("3am", "places", "both")  # those that read MUSt3R's geometry
FIFO = MEMORY_POLICIES[0]


def place_settings(config: DictConfig) -> PlaceSettings:
    """The settings of places, with those that the config changes. Raises InputError for unknown
    names and values of another type.
    """
    known = {field.name: type(field.default) for field in fields(PlaceSettings)}
    changed = dict(config.get("places") or {})
    for name, value in changed.items():
        if name not in known:
            raise InputError(f"places.{name}: unknown; choose among {', '.join(known)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, bool) if known[name] is bool else is_number):
            raise InputError(f"places.{name}={value}: must be {known[name].__name__}")
    return PlaceSettings(**changed)


def parts_of(arm: str) -> tuple[str, str]:
    """An arm's name as arm and control: places_true -> (places, true), 3am+dam -> (3am, "").

    Raises InputError for unknown names.
    """
    if not is_arm(arm):
        raise InputError(
            f"arms: {arm} is unknown; choose among {', '.join(ARMS)}, places_true, and places, 3am "
            "and both with _zero, _shuffled, _fallback or _switch; memory policies are added by "
            "memory=[fifo,dam]"
        )
    base, _, control = without_memory(arm).partition("_")
    return base, control


def memory_of(arm: str) -> str:
    """The memory policy of an arm."""
    return arm.partition("+")[2] or FIFO


def without_memory(arm: str) -> str:
    """An arm's name without its memory policy."""
    return arm.partition("+")[0]


def with_memory(arm: str, policy: str) -> str:
    """The name of an arm under a memory policy."""
    return arm if policy == FIFO else f"{arm}+{policy}"


def is_arm(name: object) -> bool:
    """Whether this is the name of an arm."""
    name, plus, policy = str(name).partition("+")
    if plus and policy not in MEMORY_POLICIES[1:]:
        return False
    base, underscore, control = name.partition("_")
    # A merger reads MUSt3R's features with its points: its arm with true geometry is the oracle.
    ends = {"places": CONTROLS, "3am": CONTROLS[1:], "both": CONTROLS[1:]}
    allowed = (*ends[base], *SWITCHES) if base in ends else ()
    return base in ARMS and (control in allowed if underscore else True)


def expanded(arms: Sequence[str], controls: Sequence[str], policies: Sequence[str]) -> list[str]:
    """All arms of an evaluation: those named, each with every policy, and the controls of those
    with MUSt3R's geometry, with the first policy.
    """
    controlled = [f"{arm}_{end}" for arm in arms if arm in GEOMETRY_ARMS for end in controls]
    names = []
    for policy in policies or (FIFO,):
        plain = [*arms, *controlled] if policy == policies[0] else arms
        names += [name if "+" in name else with_memory(name, policy) for name in plain]
    return list(dict.fromkeys(names))
