"""check_checkpoint_geometry.py on our files, on foreign ones, and on files that are damaged or mean
harm.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geometry_fusion.errors import InputError
from geometry_fusion.models import inspect as checkpoints
from geometry_fusion.training.checkpoints import save_weights
from tests.conftest import ROOT

MERGED = {
    "merger.proj.weight": torch.ones(4, 3),
    "merger.proj.bias": torch.ones(4),
    "sam_mask_decoder.w": torch.ones(7),
}
PLAIN = {"image_encoder.trunk.w": torch.ones(5), "sam_mask_decoder.w": torch.ones(7)}
BACKBONES = {
    "sam2": {"name": "tiny", "sha256": "aa11"},
    "must3r": {"name": "512", "sha256": "bb22"},
}


def run(file: Path) -> subprocess.CompletedProcess:
    script = str(ROOT / "check_checkpoint_geometry.py")
    return subprocess.run(
        [sys.executable, script, str(file)], capture_output=True, text=True, cwd=ROOT
    )


class Harm:
    """Unpickling this creates a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (os.mkdir, (str(self.file),))


def test_our_checkpoint_names_merger_backbones_and_step(tmp_path):
    file = tmp_path / "ours.safetensors"
    save_weights(
        file,
        MERGED,
        {"backbones": BACKBONES, "step": 1200, "metrics": {"iou": 0.5}, "config": {"a": 1}},
    )
    found = checkpoints.inspect(file)
    assert (found.merger_tensors, found.merger_parameters) == (2, 16)
    assert found.modules == {"merger": 16, "sam_mask_decoder": 7}
    assert found.metadata["backbones"] == BACKBONES and found.metadata["config"] == {"a": 1}
    result = run(file)
    assert result.returncode == 0 and result.stderr == ""
    for said in (
        "merger: 16 parameters in 2 tensors",
        "sam2: tiny (sha256 aa11)",
        "must3r: 512 (sha256 bb22)",
    ):
        assert said in result.stdout
    assert (
        "step: 1200" in result.stdout
        and '"iou": 0.5' in result.stdout
        and "sam_mask_decoder" in result.stdout
    )


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_foreign_pickles_are_unwrapped(tmp_path, wrapper, suffix):
    file = tmp_path / f"foreign{suffix}"
    torch.save({wrapper: MERGED, "epoch": 3} if wrapper else MERGED, file)
    found = checkpoints.inspect(file)
    assert found.merger_parameters == 16 and found.metadata == {}


def test_foreign_merger_has_no_recorded_backbones(tmp_path):
    file = tmp_path / "foreign.pt"
    torch.save(MERGED, file)
    result = run(file)
    assert result.returncode == 0 and "backbones: not recorded" in result.stdout


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt", "backbones": "vit-l", "step": "many"}, {"backbones": "[]"}]
)
def test_foreign_metadata_is_not_taken_for_ours(tmp_path, metadata):
    file = tmp_path / "foreign.safetensors"
    save_file(MERGED, file, metadata=metadata)
    assert "backbones: not recorded" in checkpoints.describe(checkpoints.inspect(file))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_checkpoint_without_merger_exits_1(tmp_path, name):
    file = tmp_path / name
    torch.save({"model": PLAIN}, file) if name.endswith(".pt") else save_file(PLAIN, file)
    result = run(file)
    assert result.returncode == 1 and result.stderr == ""
    assert "merger: none" in result.stdout and "image_encoder" in result.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("merger.proj.weight", True),
        ("module.merger.x", True),
        ("model.feature_merger.0.bias", True),
        ("geometry_merger.gate", True),
        ("geometry_fusion.w", True),
        ("image_encoder.merger", True),
        ("patch_merger.weight", False),
        ("mergers.weight", False),
        ("sam_mask_decoder.w", False),
    ],
)
def test_merger_is_a_whole_part_of_a_name(name, expected):
    assert checkpoints.is_merger(name) is expected


def test_many_modules_are_cut_short(tmp_path):
    file = tmp_path / "flat.safetensors"
    save_file({f"w{i}": torch.ones(i + 1) for i in range(50)}, file)
    text = checkpoints.describe(checkpoints.inspect(file))
    assert "and 30 more" in text and len(text.splitlines()) < 30


def _truncated(file: Path, save) -> None:
    save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


BAD = {
    "missing.pt": lambda file: None,
    "folder.pt": lambda file: file.mkdir(),
    "empty.pt": lambda file: file.touch(),
    "empty.safetensors": lambda file: file.touch(),
    "text.pt": lambda file: file.write_text("hello, this is no checkpoint\n" * 50),
    "text.safetensors": lambda file: file.write_text("hello, this is no checkpoint\n" * 50),
    "notes.txt": lambda file: file.write_text("hello"),
    "cut.pt": lambda file: _truncated(file, lambda f: torch.save(MERGED, f)),
    "cut.safetensors": lambda file: _truncated(file, lambda f: save_file(MERGED, f)),
    "number.pt": lambda file: torch.save(3, file),
    "no_tensors.pt": lambda file: torch.save({"model": {"epoch": 3}}, file),
    "zip_harm.pt": lambda file: torch.save(
        {"model": MERGED, "x": Harm(file.parent / "harmed")}, file
    ),
    "plain_harm.pth": lambda file: file.write_bytes(
        pickle.dumps({"x": Harm(file.parent / "harmed")})
    ),
    "harm.safetensors": lambda file: file.write_bytes(
        pickle.dumps({"x": Harm(file.parent / "harmed")})
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line_and_never_run(tmp_path, name):
    file = tmp_path / name
    BAD[name](file)
    with pytest.raises(InputError, match=name):
        checkpoints.inspect(file)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "name",
    ["missing.pt", "folder.pt", "text.pt", "zip_harm.pt", "plain_harm.pth", "cut.safetensors"],
)
def test_bad_files_exit_with_2_and_one_line(tmp_path, name):
    file = tmp_path / name
    BAD[name](file)
    result = run(file)
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and name in result.stderr
    assert not (tmp_path / "harmed").exists()


def test_the_harmful_file_would_do_harm_if_it_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Harm(tmp_path / "harmed")))
    assert (tmp_path / "harmed").exists()
