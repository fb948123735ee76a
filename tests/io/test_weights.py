"""Weight files that must not be used: numbers that are not finite, and descriptions that are
damaged or mean harm.
"""

import json
import os
import resource
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ab_iou
import check_checkpoint_geometry
import evaluate
import must3r_loader
import sam2_model
from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.io.weights import read_weights
from geometry_fusion.models import inspect as checkpoints
from geometry_fusion.models.checkpoint import read_spec
from geometry_fusion.training.checkpoints import load_resume, save_resume
from tests.conftest import ROOT

SHIPPED = ROOT / "checkpoints/fusion_tiny.safetensors"


@pytest.fixture(scope="module")
def shipped():
    """Tensors and metadata of a fusion checkpoint."""
    with safe_open(SHIPPED, "pt") as handle:
        metadata = handle.metadata()
    return load_file(SHIPPED), metadata


def spoiled(source, file, number=float("nan")):
    """A copy of a safetensors file with one number replaced in its last tensor; returns that
    tensor's name.
    """
    with safe_open(source, "pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(source)
    name = [n for n, t in tensors.items() if t.is_floating_point()][-1]
    tensors[name].view(-1)[-1] = number
    save_file(tensors, file, metadata)
    return name


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_are_not_finite_are_refused_by_tensor_and_file(tmp_path, suffix, number):
    file = tmp_path / f"broken{suffix}"
    tensors = {
        "a.weight": torch.ones(3),
        "b.bias": torch.tensor([0.0, number]).half(),
        "steps": torch.tensor(3),
    }
    save_file(tensors, file) if suffix == ".safetensors" else torch.save({"model": tensors}, file)
    with pytest.raises(
        InputError, match=rf"broken\{suffix}: tensor b.bias holds numbers that are not finite"
    ):
        read_weights(file)


def test_sam2_merger_and_must3r_that_are_not_finite_never_run(refuse, tmp_path, monkeypatch):
    files = {name: tmp_path / f"{name}.safetensors" for name in ("sam2", "fusion", "must3r")}
    names = {
        "sam2": spoiled(sam2_model.model_files("tiny")[1], files["sam2"]),
        "fusion": spoiled(SHIPPED, files["fusion"]),
        "must3r": spoiled(must3r_loader.model_file("tiny"), files["must3r"]),
    }
    run = ["--sample", "walk", "--device", "cpu", "--out", tmp_path / "out"]
    for flag, role in (("--sam2-checkpoint", "sam2"), ("--checkpoint", "fusion")):
        line = refuse(ab_iou, *run, flag, files[role])
        assert files[role].name in line and f"tensor {names[role]} holds" in line
    with pytest.raises(InputError, match=f"must3r.safetensors: tensor {names['must3r']} holds"):
        must3r_loader.load_must3r(files["must3r"])
    line = refuse(
        evaluate, "arms=[sam2]", f"sam2_checkpoint={files['sam2']}", f"out={tmp_path / 'evaluated'}"
    )
    assert "not finite" in line
    assert not (tmp_path / "out").exists()


def test_official_must3r_files_are_looked_at_as_well(tmp_path):
    golden = load_file(ROOT / "tests/data/golden_tiny.safetensors")
    content = {
        part: {k.removeprefix(f"{part}."): v for k, v in golden.items() if k.startswith(f"{part}.")}
        for part in ("encoder", "decoder")
    }
    content["decoder"]["norm_dec.bias"][0] = float("inf")
    encoder = "Dust3rEncoder(img_size=(64, 64), embed_dim=48, depth=2, num_heads=3)"
    decoder = "MUSt3R(img_size=(64, 64), enc_embed_dim=48, embed_dim=32, depth=3, num_heads=2)"
    torch.save(
        {**content, "args": Namespace(encoder=encoder, decoder=decoder)}, tmp_path / "MUSt3R.pth"
    )
    with pytest.raises(InputError, match=r"MUSt3R.pth: tensor decoder.norm_dec.bias holds"):
        must3r_loader.load_must3r(tmp_path / "MUSt3R.pth")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"model": {"w": torch.tensor([1.0, float("nan")])}},
            "tensor model.w holds numbers that are not finite",
        ),
        (
            {"optimizer": {"state": {0: {"exp_avg": torch.tensor(float("inf"))}}}},
            "tensor optimizer.state.0.exp_avg",
        ),
    ],
)
def test_states_that_are_not_finite_are_not_resumed(tmp_path, state, said):
    save_resume(tmp_path / "resume.pt", state)
    with pytest.raises(InputError, match=f"resume.pt: {said}"):
        load_resume(tmp_path / "resume.pt")


def test_tensors_that_name_more_numbers_than_they_hold_fill_no_memory(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "view.pt")
    with pytest.raises(InputError, match="tensor w names more numbers than it holds"):
        read_weights(tmp_path / "view.pt")


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = {
    "backbones": [
        ("null", "backbones None: must be networks by role"),
        ("{}", "backbones: sam2 is missing"),
        ('{"sam2": null, "must3r": null}', "backbones.sam2 None: must be values by name"),
        (
            '{"sam2": {"name": 5, "sha256": "aa"}, "must3r": {}}',
            "backbones.sam2.name 5: must be text",
        ),
        (DEEP, "backbones: nested more than"),
    ],
    "geometry": [
        ("{}", "geometry.levels: is missing"),
        ("[]", "geometry .*must be values by name"),
        ('{"levels": "abc"}', "geometry.levels 'abc': must be a list of whole numbers"),
        ('{"levels": [0, -1, 4, 5]}', "geometry.levels"),
        ('{"levels": [0, 2]}', "4 levels are expected"),
        (
            '{"levels": [0, 2, 4, 5], "max_keyframes": "many"}',
            "geometry.max_keyframes 'many': must be 2..",
        ),
        ('{"levels": [0, 2, 4, 5], "max_keyframes": NaN}', "geometry.max_keyframes nan"),
        ('{"levels": [0, 2, 4, 5], "rule": [1]}', "geometry.rule"),
        (
            '{"levels": [0, 2, 4, 5], "rule": {"threshold": "low"}}',
            "geometry.rule.threshold 'low': must be a number",
        ),
        ('{"levels": [0, 2, 4, 5], "rule": {"subsample": 0}}', "geometry.rule.subsample 0"),
        ('{"levels": [0, 2, 4, 5], "side": 10}', "geometry.side: unknown"),
        (DEEP, "geometry: nested more than"),
    ],
    "arm": [
        ("5", "arm 5: must be"),
        ('["3am"]', "arm"),
        ("{}", "arm"),
        ("x", "arm: not valid JSON"),
        (DEEP, "arm: "),
    ],
    "merger": [
        ("null", "merger None: must be values by name"),
        ('"paper"', "merger 'paper': must be values by name"),
        ('{"dim": 1, "dim": 2}', "the key 'dim' is there twice"),
        (DEEP, "merger: nested more than"),
    ],
}
CHANGED = {  # fields of the merger
    "channels": [10**9, -1, 0.5, "128", None, [128], True, 10**30],
    "level_dims": [[], [192, None, 192, 192], 192, [10**9] * 4, [192] * 100, {"a": 1}],
    "dim": [10**9, 127, 0],
    "num_heads": [0, 10**9, 3.5, 5],
    "grid": ["square", 5, None],
    "subsamples": [0, 10**9, "2"],
    "levels_from": ["appearance", "nothing"],
    "variant": ["sum", []],
    "pos_embed": ["RoPE0", "RoPE" + "9" * 400, 5],
    "colour": ["red"],
}


def with_merger(metadata, field, value):
    return {**metadata, "merger": json.dumps({**json.loads(metadata["merger"]), field: value})}


@pytest.fixture(scope="module")
def fuse():
    """Load a checkpoint into one tiny predictor, as ab_iou.py and evaluate.py do."""
    return lambda file: load("tiny", checkpoint=file, device="cpu")


@pytest.mark.parametrize(
    ("key", "text", "said"), [(k, *case) for k, cases in HOSTILE.items() for case in cases]
)
def test_hostile_descriptions_are_refused_by_field(tmp_path, shipped, key, text, said):
    _, metadata = shipped
    file = tmp_path / "hostile.safetensors"
    save_file({"merger.w": torch.ones(1)}, file, {**metadata, key: text})
    with pytest.raises(InputError, match=said) as caught:
        read_spec(file)
    assert str(caught.value).startswith(str(file)) and len(str(caught.value)) < 400
    described = checkpoints.describe(checkpoints.inspect(file))
    assert "cannot be used: " in described


@pytest.mark.parametrize(
    ("field", "value"), [(f, value) for f, values in CHANGED.items() for value in values]
)
def test_mergers_that_the_file_cannot_fill_are_never_built(tmp_path, shipped, fuse, field, value):
    tensors, metadata = shipped
    file = tmp_path / "hostile.safetensors"
    save_file(tensors, file, with_merger(metadata, field, value))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"hostile\.safetensors"):
        fuse(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("channels", [256, 16_384])
def test_sizes_in_range_are_checked_against_the_tensors_before_memory_is_taken(
    tmp_path, shipped, fuse, channels
):
    tensors, metadata = shipped
    file = tmp_path / "large.safetensors"
    save_file(tensors, file, with_merger(metadata, "dim", channels))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="does not fit its own description: merger"):
        fuse(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_the_shipped_checkpoints_pass_their_schema(fuse):
    for name in ("fusion_tiny", "fusion_tiny_fine", "fusion_tiny_control", "fusion_tiny_oracle"):
        found = checkpoints.inspect(ROOT / f"checkpoints/{name}.safetensors")
        assert found.faults == ()
    assert fuse(SHIPPED).arm == "3am"


def test_metadata_of_hostile_files_reaches_the_terminal_in_one_line(refuse, tmp_path, shipped):
    tensors, metadata = shipped
    file = tmp_path / "deep.safetensors"
    save_file(tensors, file, {**metadata, "geometry": DEEP})
    assert "nested" in refuse(ab_iou, "--sample", "walk", "--checkpoint", file, "--out", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        "[]",
        "5",
        DEEP,
        '{"depth": 1000000000}',
        '{"embed_dim": 1000000000}',
        '{"img_size": [[128]]}',
    ],
)
def test_must3r_files_that_describe_no_network_are_refused(tmp_path, arguments):
    source = must3r_loader.model_file("tiny")
    with safe_open(source, "pt") as handle:
        metadata = handle.metadata()
    save_file(
        load_file(source), tmp_path / "foreign.safetensors", {**metadata, "decoder": arguments}
    )
    with pytest.raises(InputError, match=r"foreign.safetensors: decoder arguments"):
        must3r_loader.load_must3r(tmp_path / "foreign.safetensors")


def test_tensor_names_cannot_steer_the_terminal(refuse, tmp_path, capsys):
    file = tmp_path / "escape.safetensors"
    save_file({"merger.\x1b[31mred\x07": torch.ones(1), "\x1b]0;title\x07.w": torch.ones(1)}, file)
    assert check_checkpoint_geometry.main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and r"\x1b]0;title" in said
    line = refuse(ab_iou, "--sample", "walk", "--sam2-checkpoint", file, "--out", tmp_path / "o")
    assert "\x1b" not in line and r"\x1b" in line


def test_paths_that_are_not_utf8_are_named_as_such(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(SHIPPED.read_bytes())
    with pytest.raises(InputError, match=r"x\.safetensors: its path is not UTF-8"):
        read_weights(folder / "x.safetensors")
