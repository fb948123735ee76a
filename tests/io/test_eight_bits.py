"""Weights in eight bits: how exact they are, what is stored, what is refused."""

import pytest
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.io.eight_bits import FACTOR, packed, unpacked
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.training.checkpoints import save_weights
from geometry_fusion.training.shrink import main as shrink


def weights() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    # Channels of very different size, as depthwise convolutions have them.
    sizes = torch.tensor([1e-3, 1.0, 50.0, 0.0])[:, None, None, None]
    return {
        "trunk.conv.weight": torch.randn(4, 3, 5, 5, generator=rng) * sizes,
        "trunk.conv.bias": torch.randn(4, generator=rng),
        "trunk.count": torch.tensor([[3, 4]]),
        "head.weight": torch.randn(2, 4, generator=rng),
    }


def test_each_channel_is_rounded_to_steps_of_its_own():
    before = weights()
    stored = packed(before, "trunk")
    assert stored["trunk.conv.weight"].dtype == torch.int8
    assert stored["trunk.conv.weight" + FACTOR].shape == (4,)
    after = unpacked(stored)
    assert after.keys() == before.keys()
    name = "trunk.conv.weight"
    largest = before[name].flatten(1).abs().amax(1)
    error = (after[name] - before[name]).flatten(1).abs().amax(1)
    assert torch.all(error <= largest * 0.0045) and torch.any(error > largest * 0.001)
    for kept in before.keys() - {name}:  # vectors, whole numbers, other modules
        assert torch.equal(after[kept], before[kept]) and after[kept].dtype == before[kept].dtype


def test_packing_what_was_unpacked_changes_nothing_more():
    once = packed(weights(), "trunk")
    again = packed(unpacked(once), "trunk")
    assert torch.equal(unpacked(again)["trunk.conv.weight"], unpacked(once)["trunk.conv.weight"])


@pytest.mark.parametrize(
    "change",
    [
        {"trunk.conv.weight": torch.zeros(4, 3, 5, 5)},  # no eight bits
        {"trunk.conv.weight" + FACTOR: torch.ones(3)},
        {"lost" + FACTOR: torch.ones(3)},
    ],
)
def test_factors_without_their_numbers_are_refused_with_the_file(tmp_path, change):
    file = tmp_path / "weights.safetensors"
    save_weights(file, {**packed(weights(), "trunk"), **change}, {})
    with pytest.raises(InputError, match=r"weights\.safetensors: tensor .*factor does not belong"):
        read_weights(file)


def test_a_released_file_is_shrunk_once_and_keeps_its_metadata(tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    before = {name: value.half() for name, value in weights().items() if "count" not in name}
    before["head.weight"] = torch.randn(200, 300).half()
    save_weights(file, before, {"step": 7})
    size = file.stat().st_size
    shrink([str(file)])
    assert file.stat().st_size < 0.6 * size
    metadata = read_metadata(file)
    assert metadata["step"] == "7" and metadata["eight_bits"] == '["head", "trunk"]'
    after = read_weights(file)
    assert after.keys() == before.keys()
    assert (after["head.weight"] - before["head.weight"].float()).abs().max() < 0.02
    content = file.read_bytes()
    with pytest.raises(InputError, match="in eight bits already"):
        shrink([str(file)])
    assert file.read_bytes() == content
