"""Names of the arms of an evaluation, and the settings of those with places."""

from dataclasses import fields

from omegaconf import DictConfig

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
    """An arm's name as arm and control: places_true -> (places, true), 3am -> (3am, "").

    Raises InputError for unknown names.
    """
    if not is_arm(arm):
        raise InputError(
            f"arms: {arm} is unknown; choose among {', '.join(ARMS)}, places_true, and places, 3am "
            "and both with _zero, _shuffled, _fallback or _switch"
        )
    base, _, control = arm.partition("_")
    return base, control


def is_arm(name: object) -> bool:
    """Whether this is the name of an arm."""
    base, underscore, control = str(name).partition("_")
    # A merger reads MUSt3R's features with its points: its arm with true geometry is the oracle.
    ends = {"places": CONTROLS, "3am": CONTROLS[1:], "both": CONTROLS[1:]}
    allowed = (*ends[base], *SWITCHES) if base in ends else ()
    return base in ARMS and (control in allowed if underscore else True)
