"""Releasing a run: weights with their records, and nothing without a checkpoint."""

import json

import pytest
import torch
from safetensors.torch import load_file

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.training.checkpoints import save_weights
from geometry_fusion.training.release import release


def test_release_copies_weights_and_records_and_draws_the_curve(tmp_path):
    run = tmp_path / "run"
    weights = {"layer.weight": torch.arange(6.0).reshape(2, 3)}
    save_weights(
        run / "checkpoints" / "checkpoint_best.safetensors",
        weights,
        {"step": 7, "metrics": {"score": 0.5}},
    )
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "logs").mkdir()
    (run / "logs" / "log.txt").write_text("hello\n")
    records = [{"step": s, "train": {"dice": 1 / s, "mean_iou": s / 50}} for s in range(1, 41)]
    records.append({"step": 40, "val": {"score": 0.5, "click_iou": 0.5}})
    (run / "logs" / "train_stats.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    release(run, tmp_path / "shipped" / "model")
    shipped = tmp_path / "shipped"
    half = read_weights(shipped / "model.safetensors")["layer.weight"]
    assert half.dtype == torch.float16 and torch.equal(half.float(), weights["layer.weight"])
    metadata = read_metadata(shipped / "model.safetensors")
    assert json.loads(metadata["step"]) == 7 and json.loads(metadata["format_version"]) == 1
    assert sorted(p.name for p in (shipped / "model").iterdir()) == [
        "config.yaml",
        "curve.png",
        "log.txt",
        "train_stats.json",
    ]
    assert read_rgb(shipped / "model" / "curve.png").std() > 5  # something is drawn


def test_a_run_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint_best\.safetensors"):
        release(tmp_path, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def finished_run(tmp_path, weights: dict[str, torch.Tensor]):
    """The folder of a run with these weights and short records."""
    run = tmp_path / "run"
    save_weights(run / "checkpoints" / "checkpoint_best.safetensors", weights, {"step": 1})
    (run / "logs").mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "logs" / "log.txt").write_text("hello\n")
    records = [
        {"step": 1, "train": {"total": 1.0, "points_error": 0.5}},
        {"step": 1, "val": {"points_error": 0.4}},
    ]
    (run / "logs" / "train_stats.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    return run


def test_modules_that_only_training_needs_are_left_out(tmp_path):
    weights = {"encoder.weight": torch.ones(2), "matcher.weight": torch.ones(3)}
    run = finished_run(tmp_path, weights)
    release(run, tmp_path / "model", without=["matcher"])
    assert set(read_weights(tmp_path / "model.safetensors")) == {"encoder.weight"}
    for option, name in (("without", "--without"), ("eight_bits", "--eight-bits")):
        with pytest.raises(InputError, match=f"{name} merger: .* has no such module"):
            release(run, tmp_path / "other", **{option: ["merger"]})


def test_modules_can_be_released_in_eight_bits(tmp_path):
    run = finished_run(tmp_path, {"encoder.weight": torch.eye(8), "head.weight": torch.eye(8)})
    release(run, tmp_path / "model", eight_bits=["encoder"])
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["encoder.weight"].dtype == torch.int8
    assert stored["head.weight"].dtype == torch.float16
    weights = read_weights(tmp_path / "model.safetensors")
    assert torch.allclose(weights["encoder.weight"], torch.eye(8), atol=1e-3)
    assert json.loads(read_metadata(tmp_path / "model.safetensors")["eight_bits"]) == ["encoder"]
