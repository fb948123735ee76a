"""Composing configs: Hydra groups, a YAML file by path, and key=value overrides, with errors that
help.

Overrides are Hydra's, but for paths: their values are taken as they are, whatever characters they
hold (`PATHS`), and `null` is no path.

`compose_config` uses Hydra's compose API inside its own context, so it works from any working
directory, inside `@hydra.main`, and beside the `sam2` package, which claims Hydra's global state on
import.
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
from geometry_fusion.limits import RANGES
from geometry_fusion.yaml_file import read_yaml

# Keys whose own keys are names, not settings: what is set replaces them all.
FREE_MAPPINGS = {
    "trainer.trainable": "{module: learning rate} or the name of a preset",
    "data.datasets": "{name: {scenes: DIR, sampling: continuous, ...}}",
}
# Keys whose values are paths.
PATHS = re.compile(
    r"data\.(frames|masks|root|scenes|val_scenes|datasets\.\w+\.scenes)|trainer\.(run_dir|init_from)|fusion_from"
    r"|checkpoints\.\w+|sam2_checkpoint|must3r|geometry_cache|out"
)


@dataclass(frozen=True)
class Override:
    """One key=value of a command line."""

    key: str
    value: object
    add: bool = False  # the key may be new: +key=value, ++key=value


@contextmanager
def _own_hydra(config_dir: Path):
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
    """The config `root` of `config_dir` with groups and values chosen by `yaml_file`, then by
    `overrides`.

    A YAML file may choose groups at its top level (`experiment: tiny_sam2`) and set any existing
    key. Raises InputError for unknown groups, unknown keys and unreadable files; the message lists
    what is known.
    """
    groups = {folder.name for folder in config_dir.iterdir() if folder.is_dir()}
    from_file = _read_yaml(yaml_file, config_dir) if yaml_file else {}
    choices = {
        key: from_file.pop(key)
        for key in list(from_file)
        if key in groups and isinstance(from_file[key], str)
    }
    parsed = [_parsed(word) for word in overrides]
    for override in parsed:
        if override.key in groups and isinstance(override.value, str):
            choices[override.key] = override.value
    for group, choice in choices.items():
        known = sorted(f.stem for f in (config_dir / group).glob("*.yaml"))
        # Where a key names a model, its folder is no group: `auto`, and files elsewhere, are names
        # as well.
        if choice not in known and _is_group(config_dir, root, group):
            raise InputError(
                f"{group}={choice}: looked for {config_dir / group / choice}.yaml; known are: "
                f"{', '.join(known)}"
            )
    try:
        with _own_hydra(config_dir):
            selected = [
                f"{group}={choice}"
                for group, choice in choices.items()
                if _is_group(config_dir, root, group)
            ]
            config = compose(root, overrides=selected)
        OmegaConf.set_struct(config, True)
        plain = [
            (key, choice) for key, choice in choices.items() if not _is_group(config_dir, root, key)
        ]
        for key, value in [*plain, *from_file.items()]:
            _set(config, key, value, yaml_file)
        for override in parsed:
            if not (override.key in choices and _is_group(config_dir, root, override.key)):
                _set(config, override.key, override.value, None, force=override.add)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"config: {one_line(error)[:300]}") from None
    return config


def _is_group(config_dir: Path, root: str, name: str) -> bool:
    defaults = yaml.safe_load((config_dir / f"{root}.yaml").read_text()).get("defaults", [])
    return any(isinstance(entry, dict) and name in entry for entry in defaults)


def _parsed(word: str) -> Override:
    named = re.fullmatch(r"(\+{0,2})([^=+~]+)=(.*)", word, re.DOTALL)
    if named and PATHS.fullmatch(named[2]):
        return Override(
            named[2], None if named[3] == "null" else _literal(named[3]), bool(named[1])
        )
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError) as error:
        hint = "put a value with special characters in quotes" if named else "write KEY=VALUE"
        raise InputError(f"{word}: not key=value ({one_line(error)[:100]}); {hint}") from None
    if not override.key_or_group:
        raise InputError(f"{word}: not key=value; write KEY=VALUE")
    if override.is_delete() or override.is_sweep_override():
        what = "deletes a key" if override.is_delete() else "names several values"
        raise InputError(
            f"{word}: {what}, a run takes one value of each; launch.py --multirun runs several"
        )
    return Override(
        override.key_or_group, override.value(), override.is_add() or override.is_force_add()
    )


def _literal(text: str) -> str:
    """Text that OmegaConf resolves to itself: a path may hold what looks like a reference."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def _set(config: DictConfig, key: str, value, file: Path | None, force: bool = False) -> None:
    where, key = f"{file}: " if file else "", str(key)
    if (
        isinstance(value, dict)
        and OmegaConf.is_dict(OmegaConf.select(config, key))
        and not _free_mapping(key)
    ):
        for inner, inner_value in value.items():
            _set(config, f"{key}.{inner}", inner_value, file)
        return
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not force and not (OmegaConf.is_dict(node) and (leaf in node or _free_mapping(parent))):
        known = _known_keys(config)
        close = difflib.get_close_matches(key, known, n=5, cutoff=0.6)
        near = [k for k in known if k.rpartition(".")[0] == parent] or known
        hint = f"did you mean {', '.join(close)}" if close else f"known are: {', '.join(near)}"
        raise InputError(f"{where}{key}: unknown key; {hint}")
    default = None if force else OmegaConf.select(config, key)
    if _free_mapping(key):
        if not isinstance(value, dict) and not (
            key == "trainer.trainable" and isinstance(value, str)
        ):
            raise InputError(f"{where}{key}: {value!r} is not {FREE_MAPPINGS[key]}")
        default = None
    if OmegaConf.is_dict(default) and not isinstance(value, dict):
        raise InputError(
            f"{where}{key}: {value!r} is a single value, this is a group of settings "
            f"({', '.join(default)})"
        )
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
    OmegaConf.update(config, key, value, force_add=True, merge=False)


def _fits(value, wanted: type) -> bool:
    if wanted is str and value is None:
        return True  # an earlier override may have filled a key whose default is null
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def _free_mapping(key: str) -> bool:
    return key in FREE_MAPPINGS


def _known_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        keys.append(prefix + key)
        if OmegaConf.is_dict(config._get_node(key)):
            keys += _known_keys(config[key], f"{prefix}{key}.")
    return keys


def _read_yaml(file: Path, config_dir: Path) -> dict:
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
