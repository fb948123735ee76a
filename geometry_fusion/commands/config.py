"""Composes configs from Hydra groups, a YAML file and key=value overrides; errors name the cure.

Overrides are Hydra's, with one exception: the values of path keys (`PATHS`) are taken literally,
whatever characters they hold; `null` means no path.

`compose_config` uses Hydra's compose API in a Hydra context of its own. So it works from any
working directory, inside `@hydra.main`, and beside the `sam2` package, which claims Hydra's global
state on import.
"""

import difflib
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.yaml_file import read_yaml
from geometry_fusion.limits import RANGES

# Mappings whose keys the user chooses. A new value replaces the whole mapping.
FREE_MAPPINGS = {
    "trainer.trainable": "{module: learning rate} or the name of a preset",
    "data.datasets": "{name: {scenes: DIR, sampling: continuous, ...}}",
}
# Keys whose values are paths.
PATHS = re.compile(
    r"data\.(frames|masks|root|scenes|val_scenes|datasets\.\w+\.scenes)"
    r"|trainer\.(run_dir|init_from)"
    r"|checkpoints\.\w+|fusion_from|sam2_checkpoint|must3r|geometry_cache|out"
)


@dataclass(frozen=True)
class Override:
    """One key=value of a command line."""

    key: str
    value: object
    add: bool = False  # the key may be new: +key=value, ++key=value


@contextmanager
def _own_hydra(config_dir: Path):
    """Hydra's global state on `config_dir`, inside the block."""
    # Whoever initialised Hydra before us (sam2, @hydra.main) gets their state back afterwards.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def compose_config(
    config_dir: Path, root: str, overrides: Sequence[str], yaml_file: Path | None = None
) -> DictConfig:
    """The config `root` of `config_dir`, changed by `yaml_file`, then by `overrides`.

    A YAML file may choose groups at its top level (`experiment: tiny_sam2`) and set any existing
    key. Raises InputError for unknown groups, unknown keys, values of another type and unreadable
    files; the message lists the keys or names that exist.
    """
    settings = _read_yaml(yaml_file, config_dir) if yaml_file else {}
    parsed = [_parsed(word) for word in overrides]
    choices = _take_choices(config_dir, settings, parsed)
    groups = {name: choice for name, choice in choices.items() if _is_group(config_dir, root, name)}
    for group, choice in groups.items():
        _check_choice(config_dir, group, choice)
    # A key that names a model has a folder too, but is no group: `auto` or a path may be its value.
    values = {name: choice for name, choice in choices.items() if name not in groups}
    try:
        with _own_hydra(config_dir):
            config = compose(
                root, overrides=[f"{name}={choice}" for name, choice in groups.items()]
            )
        OmegaConf.set_struct(config, True)
        for key, value in [*values.items(), *settings.items()]:
            _set(config, str(key), value, yaml_file)
        for override in parsed:
            if override.key not in groups:
                _set(config, override.key, override.value, None, add=override.add)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"config: {one_line(error)[:300]}") from None
    return config


def _take_choices(
    config_dir: Path, settings: dict, overrides: Sequence[Override]
) -> dict[str, str]:
    """Folder of `config_dir` -> the file chosen in it, by the YAML file's settings (the choices are
    removed from them) or by overrides, which count more.
    """
    folders = {folder.name for folder in config_dir.iterdir() if folder.is_dir()}
    choices = {
        key: settings.pop(key)
        for key in list(settings)
        if key in folders and isinstance(settings[key], str)
    }
    for override in overrides:
        if override.key in folders and isinstance(override.value, str):
            choices[override.key] = override.value
    return choices


def _check_choice(config_dir: Path, group: str, choice: str) -> None:
    """Raise InputError unless the group has a config of this name."""
    names = sorted(file.stem for file in (config_dir / group).glob("*.yaml"))
    if choice not in names:
        raise InputError(
            f"{group}={choice}: looked for {config_dir / group / choice}.yaml; known are: "
            f"{', '.join(names)}"
        )


def _is_group(config_dir: Path, root: str, name: str) -> bool:
    """Whether the defaults list of the root config chooses from this folder."""
    defaults = yaml.safe_load((config_dir / f"{root}.yaml").read_text()).get("defaults", [])
    return any(isinstance(entry, dict) and name in entry for entry in defaults)


def _parsed(word: str) -> Override:
    """The override that one word of the command line stands for. Raises InputError for others."""
    match = re.fullmatch(r"(\+{0,2})([^=+~]+)=(.*)", word, re.DOTALL)
    if match and PATHS.fullmatch(match[2]):
        path = None if match[3] == "null" else _literal(match[3])
        return Override(match[2], path, add=bool(match[1]))
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError) as error:
        hint = "put a value with special characters in quotes" if match else "write KEY=VALUE"
        raise InputError(f"{word}: not key=value ({one_line(error)[:100]}); {hint}") from None
    if not override.key_or_group:
        raise InputError(f"{word}: not key=value; write KEY=VALUE")
    if override.is_delete() or override.is_sweep_override():
        what = "deletes a key" if override.is_delete() else "names several values"
        raise InputError(
            f"{word}: {what}, a run takes one value of each; launch.py --multirun runs several"
        )
    is_new = override.is_add() or override.is_force_add()
    return Override(override.key_or_group, override.value(), add=is_new)


def _literal(text: str) -> str:
    """Text that OmegaConf resolves to itself: a path may hold what looks like a reference."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)


def _set(config: DictConfig, key: str, value, file: Path | None, add: bool = False) -> None:
    """Set a key of `config`, or each key below it where `value` is a group of settings.

    file: where the value was read, for messages. add: the key may be new, and then takes any value.
    Raises InputError for unknown keys and values of another type than the default.
    """
    has_settings = OmegaConf.is_dict(OmegaConf.select(config, key)) and key not in FREE_MAPPINGS
    if isinstance(value, dict) and has_settings:
        for inner, inner_value in value.items():
            _set(config, f"{key}.{inner}", inner_value, file)
        return
    where = f"{file}: " if file else ""
    if not add:
        _check_key(config, key, where)
    if key in FREE_MAPPINGS:
        _check_mapping(key, value, where)
    elif not add:
        value = _checked_value(key, value, OmegaConf.select(config, key), where)
    OmegaConf.update(config, key, value, force_add=True, merge=False)


def _check_key(config: DictConfig, key: str, where: str) -> None:
    """Raise InputError, with similar keys, where the config has no such key."""
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if OmegaConf.is_dict(node) and (leaf in node or parent in FREE_MAPPINGS):
        return
    keys = _keys_of(config)
    close = difflib.get_close_matches(key, keys, n=5, cutoff=0.6)
    siblings = [name for name in keys if name.rpartition(".")[0] == parent]
    hint = (
        f"did you mean {', '.join(close)}" if close else f"known are: {', '.join(siblings or keys)}"
    )
    raise InputError(f"{where}{key}: unknown key; {hint}")


def _check_mapping(key: str, value, where: str) -> None:
    """Raise InputError unless the value fits one of `FREE_MAPPINGS`."""
    is_preset = key == "trainer.trainable" and isinstance(value, str)
    if not (isinstance(value, dict) or is_preset):
        raise InputError(f"{where}{key}: {value!r} is not {FREE_MAPPINGS[key]}")


def _checked_value(key: str, value, default, where: str):
    """The value in the type of its default. Raises InputError where it is of another type."""
    if OmegaConf.is_dict(default) and not isinstance(value, dict):
        raise InputError(
            f"{where}{key}: {value!r} is a single value, this is a group of settings "
            f"({', '.join(default)})"
        )
    # The limits of a range say more precisely what the list must be.
    if OmegaConf.is_list(default) and not isinstance(value, (list, tuple)) and key not in RANGES:
        raise InputError(
            f"{where}{key}={value!r}: must be a list such as "
            f"{key}={OmegaConf.to_container(default)}"
        )
    if isinstance(default, str) and type(value) is int:
        value = str(value)  # must3r=512 is a name
    if type(default) in (int, float, str, bool) and not _fits(value, type(default)):
        raise InputError(
            f"{where}{key}: {value!r} is not of type {type(default).__name__}, such as {default!r}"
        )
    return value


def _fits(value, wanted: type) -> bool:
    """Whether a value may replace one of type `wanted`. A whole number is a float, no bool is."""
    if wanted is str and value is None:
        return True  # an earlier override may have filled a key whose default is null
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def _keys_of(config: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of all keys, groups before the keys inside them."""
    keys = []
    for key in config:
        keys.append(prefix + key)
        if OmegaConf.is_dict(config._get_node(key)):
            keys += _keys_of(config[key], f"{prefix}{key}.")
    return keys


def _read_yaml(file: Path, config_dir: Path) -> dict:
    """The settings of --config. Raises InputError, with files to choose from, if it is missing."""
    file = Path(file)
    if not file.is_file():
        here = sorted(p.name for p in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
        experiments = sorted(p.stem for p in (config_dir / "experiment").glob("*.yaml"))
        raise InputError(
            f"--config {file}: looked for the file {file.absolute()}; YAML files in that folder: "
            f"{', '.join(here) or 'none'}; ready experiments (experiment=NAME): "
            f"{', '.join(experiments)}"
        )
    try:
        return read_yaml(file)
    except InputError as error:
        raise InputError(f"--config {error}") from None
