"""The schema of a fusion checkpoint's metadata, checked before anything is built from it.

    {"arm": "3am",
     "merger": {"_target_": ..., "channels": 128, "level_dims": [192, ...], "dim": 128, ...},
     "geometry": {"levels": [0, 2, 4, 5], "max_keyframes": 16, "rule": {"threshold": 0.1, ...}},
     "backbones": {"sam2": {"name": "tiny", "sha256": "..."}, "must3r": {...}}}

Each of the four is JSON text in the metadata. Files may come from anywhere. So every field has a
type and a range, unknown fields are refused, and nothing that a file names is ever called.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import is_number, is_whole, parse_json
from geometry_fusion.merger import GRIDS, VARIANTS

MERGER_CLASS = "geometry_fusion.merger.FeatureMerger"
# arm -> (geometry source, the origin of the merger's levels)
ARMS = {
    "3am": ("must3r", "geometry"),
    "control": ("none", "appearance"),
    "oracle": ("depth", "appearance"),
}
PARTS = ("merger", "backbones", "geometry", "arm")
MOST_CHANNELS, MOST_LEVELS, MOST_KEYFRAMES = 1 << 14, 64, 1_000_000

Check = Callable[[object], bool]


# The functions below check one value, or make such a check.


def _whole(low: int, high: int) -> Check:
    return lambda value: is_whole(value) and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: is_number(value) and low <= value <= high


def _list_of(check: Check) -> Check:
    return lambda value: (
        isinstance(value, list) and 1 <= len(value) <= MOST_LEVELS and all(map(check, value))
    )


def _one_of(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _digest(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _position_code(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"RoPE[1-9]\d{0,5}", value))


CHANNELS = _whole(1, MOST_CHANNELS)
# field -> (check, description of allowed values for messages, whether the field is required)
MERGER = {
    "_target_": (_one_of(MERGER_CLASS), MERGER_CLASS, True),
    "channels": (CHANNELS, f"1..{MOST_CHANNELS}", True),
    "level_dims": (_list_of(CHANNELS), f"a list of numbers in 1..{MOST_CHANNELS}", True),
    "dim": (CHANNELS, f"1..{MOST_CHANNELS}", True),
    "num_heads": (_whole(1, 256), "1..256", True),
    "grid": (_one_of(*GRIDS), " or ".join(GRIDS), False),
    "subsamples": (_whole(1, 16), "1..16", False),
    "levels_from": (_one_of("geometry", "appearance"), "geometry or appearance", True),
    "variant": (_one_of(*VARIANTS), " or ".join(VARIANTS), False),
    "pos_embed": (_position_code, "RoPE and a number, such as RoPE100", False),
}
GEOMETRY = {
    "levels": (_list_of(_whole(0, 256)), "a list of whole numbers in 0..256", True),
    "max_keyframes": (_whole(2, MOST_KEYFRAMES), f"2..{MOST_KEYFRAMES}", False),
    "num_init_frames": (_whole(1, 16), "1..16", False),
    "rule": (lambda value: isinstance(value, dict), "numbers by name", False),
}
RULE = {
    "threshold": (_number(0, 1e6), "a number from 0", False),
    "min_confidence": (_number(0, 1e6), "a number from 0", False),
    "percentile": (_number(0, 100), "0..100", False),
    "subsample": (_whole(1, 64), "1..64", False),
    "relative": (_flag, "true or false", False),
    "angular_bins": (_whole(1, 64), "1..64", False),
}
BACKBONE = {
    "name": (lambda value: isinstance(value, str), "text", True),
    "sha256": (_digest, "64 hexadecimal digits", True),
}


def read_facts(metadata: Mapping[str, str], where: Path) -> dict:
    """The decoded and checked metadata of a checkpoint, by `PARTS`.

    Raises InputError naming field, value and file.
    """
    if missing := [part for part in PARTS if part not in metadata]:
        raise InputError(f"{where}: does not record its {missing[0]}; train it with train.py")
    facts = {
        part: parse_json(metadata[part], f"{where}: {part}", "train it again") for part in PARTS
    }
    try:
        return check_facts(facts)
    except InputError as error:
        raise InputError(
            f"{where}: metadata {error}; train it again, or choose another checkpoint"
        ) from None


def check_facts(facts: dict) -> dict:
    """Return `facts` if they match the schema. Raises InputError naming field and value."""
    arm, merger, geometry = facts["arm"], facts["merger"], facts["geometry"]
    if not (isinstance(arm, str) and arm in ARMS):
        raise InputError(f"arm {_short(arm)}: must be {', '.join(ARMS)}")
    if isinstance(merger, dict) and merger.get("_target_") != MERGER_CLASS:
        raise InputError(
            f"merger {_short(merger.get('_target_'))}: unknown class; known is {MERGER_CLASS}"
        )
    # The fields one by one first; the checks below compare fields with each other.
    _check(merger, "merger", MERGER)
    _check(geometry, "geometry", GEOMETRY)
    _check(geometry.get("rule", {}), "geometry.rule", RULE)
    if len(geometry["levels"]) != len(merger["level_dims"]):
        raise InputError(
            f"geometry.levels {_short(geometry['levels'])}: {len(merger['level_dims'])} levels are "
            "expected, one for each of merger.level_dims"
        )
    if geometry.get("max_keyframes", MOST_KEYFRAMES) < geometry.get("num_init_frames", 2):
        raise InputError(
            f"geometry.max_keyframes {geometry['max_keyframes']}: less than num_init_frames"
        )
    if merger["levels_from"] != ARMS[arm][1]:
        raise InputError(
            f"merger.levels_from {_short(merger['levels_from'])}: arm {arm} reads {ARMS[arm][1]}"
        )
    _check_backbones(facts["backbones"], arm)
    return facts


def _check_backbones(backbones: object, arm: str) -> None:
    """Raise InputError unless the backbones are those that the arm needs."""
    if not isinstance(backbones, dict):
        raise InputError(f"backbones {_short(backbones)}: must be networks by role")
    needed = ("sam2", "must3r") if ARMS[arm][0] == "must3r" else ("sam2",)
    for role in needed:
        if role not in backbones:
            raise InputError(f"backbones: {role} is missing")
    for role, backbone in backbones.items():
        if role not in ("sam2", "must3r"):
            raise InputError(f"backbones.{role}: unknown role; known are sam2, must3r")
        _check(backbone, f"backbones.{role}", BACKBONE)


def _check(values: object, where: str, fields: dict[str, tuple[Check, str, bool]]) -> None:
    """Raise InputError unless `values` match the fields of a schema. where: their name."""
    if not isinstance(values, dict):
        raise InputError(f"{where} {_short(values)}: must be values by name")
    for name, (_, _, is_required) in fields.items():
        if is_required and name not in values:
            raise InputError(f"{where}.{name}: is missing")
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"{where}.{name}: unknown; known are {', '.join(fields)}")
        check, allowed, _ = fields[name]
        if not check(value):
            raise InputError(f"{where}.{name} {_short(value)}: must be {allowed}")


def _short(value: object) -> str:
    """A value for messages, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
