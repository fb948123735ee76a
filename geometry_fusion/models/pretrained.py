"""Trackers as folders and on the Hugging Face hub.

A saved tracker is a folder:

    tracker.json           names and SHA-256 of its weights, and its options
    README.md              a model card, written from the metadata
    fusion.safetensors     merger and tuned parts of SAM2, where the tracker has geometry
    sam2.safetensors, must3r.safetensors      the backbones, where they may be passed on

Only the tiny backbones, which this project trained, are copied: the published ones have licences of
their own, are found by name on the other machine, and are checked by their SHA-256.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from geometry_fusion import __version__
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.atomic import replacing_folder
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.models.identity import Identity, WeightFile
from geometry_fusion.models.model_card import model_card
from geometry_fusion.models.names import MUST3R_MODELS, OWN_MODELS, SAM2_MODELS
from geometry_fusion.models.spec import FusionSpec

CONFIG, CARD = "tracker.json", "README.md"
FORMAT = 1  # of tracker.json; counts up when earlier versions cannot read it
FILES = {
    "sam2": "sam2.safetensors",
    "must3r": "must3r.safetensors",
    "checkpoint": "fusion.safetensors",
}
SUFFIXES = (".json", ".md", ".safetensors")


def save_pretrained(identity: Identity, spec: FusionSpec | None, folder: str | Path) -> Path:
    """Write a tracker, by what it depends on, to a folder, which is replaced as a whole; returns
    the folder. Raises InputError where the folder holds anything but a saved tracker.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    with replacing_folder(folder) as fresh:
        _write(identity, spec, fresh)
    return folder


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    others = [f.name for f in folder.iterdir()] if folder.is_dir() else [folder.name]
    if others and (not folder.is_dir() or CONFIG not in others):
        raise InputError(f"{folder}: holds {min(others)}, no saved tracker; choose another folder")


def _write(identity: Identity, spec: FusionSpec | None, folder: Path) -> None:
    if "geometry" in identity.options:
        raise InputError(
            "this tracker: its geometry was given for one video; save one without --geometry"
        )
    weights = {}
    for role, file in identity.weights.items():
        weights[role] = file.facts()
        if role == "checkpoint" or _is_ours(role, file):
            weights[role]["file"] = FILES[role]
            shutil.copyfile(file.file, folder / FILES[role])
    facts = {
        "format": FORMAT,
        "version": __version__,
        "arm": identity.arm,
        "weights": weights,
        "spec": spec.metadata() if spec else None,
    }
    (folder / CONFIG).write_text(json.dumps(facts, indent=1) + "\n")
    (folder / CARD).write_text(model_card(facts, _packages()), encoding="utf-8")


def _is_ours(role: str, file: WeightFile) -> bool:
    shipped = [MUST3R_MODELS["tiny"]]
    if role == "sam2":
        shipped = [SAM2_MODELS[name][1] for name in OWN_MODELS]
    sums = [WeightFile("", weights).sha256 for weights in shipped]
    return file.file.suffix == ".safetensors" and file.sha256 in sums


def _packages() -> dict[str, str]:
    known = {}
    for name in ("torch", "sam2"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known


def saved_tracker(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> dict:
    """The arguments with which `load` makes a saved tracker: name, geometry, checkpoint,
    sam2_checkpoint.

    name_or_folder: a folder that `save_pretrained` wrote, or a hub id "owner/name"; the others are
    the hub's, as in huggingface_hub. Raises InputError where the tracker cannot be found, or where
    a weight file is not the one that it was saved with.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():

        def file_of(name: str) -> Path:
            return folder / name

    else:
        hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "endpoint": endpoint}

        def file_of(name: str) -> Path:
            return _fetched(str(name_or_folder), name, hub)

    return _arguments(folder, file_of)


def _fetched(repo_id: str, name: str, hub: dict) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, **hub))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"{repo_id}: {name} could not be fetched ({one_line(error)[:200]}); check the id, the "
            "connection and the token"
        ) from None


def _arguments(where: Path, file_of: Callable[[str], Path]) -> dict:
    """file_of: name of a file of the saved tracker -> its path here."""
    config = file_of(CONFIG)
    if not config.is_file():
        raise InputError(f"{where}: holds no {CONFIG}; give a folder that save_pretrained wrote")
    facts = parse_json(config.read_text(), f"{where}/{CONFIG}", "save the tracker again")
    weights = _checked_weights(facts, where)
    files = {}
    for role, facts_of_role in weights.items():
        if "file" in facts_of_role:
            files[role] = file_of(FILES[role])
            _check_sha(files[role], facts_of_role["sha256"], where)
    chosen = {"name": weights["sam2"]["name"], "sam2_checkpoint": files.get("sam2")}
    if "checkpoint" not in weights and "must3r" not in weights:
        return {**chosen, "geometry": "none"}
    must3r = files.get("must3r") or weights.get("must3r", {}).get("name", "tiny")
    chosen["geometry"] = f"must3r:{must3r}"
    if "checkpoint" not in weights:
        return {**chosen, "mode": "places"}
    mode = "both" if facts.get("arm") == "both" else "merger"
    return {**chosen, "mode": mode, "checkpoint": files["checkpoint"]}


def _checked_weights(facts: object, where: Path) -> dict[str, dict]:
    """The weights of a tracker.json by role. Raises InputError where it is none that we read."""
    cure = "save the tracker again with this version"
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        version_ = facts.get("format") if isinstance(facts, dict) else None
        raise InputError(f"{where}/{CONFIG}: format {version_} is not {FORMAT}; {cure}")
    weights = facts.get("weights")
    if not isinstance(weights, dict) or "sam2" not in weights or not weights.keys() <= FILES.keys():
        raise InputError(f"{where}/{CONFIG}: weights: must name sam2, must3r, checkpoint; {cure}")
    for role, file in weights.items():
        is_text = isinstance(file, dict) and all(isinstance(v, str) for v in file.values())
        if not is_text or not {"name", "sha256"} <= file.keys():
            raise InputError(f"{where}/{CONFIG}: weights.{role}: lacks name or sha256; {cure}")
    if "checkpoint" in weights and "file" not in weights["checkpoint"]:
        raise InputError(f"{where}/{CONFIG}: weights.checkpoint: lacks its file; {cure}")
    return weights


def _check_sha(file: Path, expected: str, where: Path) -> None:
    if not file.is_file():
        raise InputError(f"{where}: {file.name} is missing; save or fetch the tracker again")
    if WeightFile("", file).sha256 != expected:
        raise InputError(
            f"{file}: is not the file that was saved with {where}; save or fetch the tracker again"
        )


def push_to_hub(
    identity: Identity,
    spec: FusionSpec | None,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    message: str = "Upload a 3AM tracker",
) -> str:
    """Upload a tracker to the hub, into a repository that is made where it is missing; returns its
    address. Raises InputError where the hub refuses.
    """
    api = HfApi(endpoint=endpoint, token=token)
    with tempfile.TemporaryDirectory(prefix="3am-hub-") as folder:
        _write(identity, spec, Path(folder))
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        except Exception as error:  # HTTP libraries below raise errors of many kinds
            raise InputError(
                f"{repo_id}: could not be uploaded ({one_line(error)[:200]}); check the id, the "
                "connection and the token"
            ) from None
    return str(address)
