"""The faster arrangement of SAM2's image encoder: the same answers within rounding."""

import copy
import pickle
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

import sam2_model
from geometry_fusion.devices import keep_freed_memory
from geometry_fusion.models.optimise import (
    PACKED_WEIGHTS,
    PackedLinear,
    fold_batch_norms,
    onednn_is_faster,
    pack_linears,
)
from tests.conftest import ROOT


@torch.no_grad()
def test_folding_changes_nothing_but_rounding_and_leaves_no_batch_norm():
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)),
    )
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        (
            nn.init.uniform_(norm.running_mean),
            nn.init.uniform_(norm.running_var, 0.5, 2),
            nn.init.normal_(norm.weight),
        )
    image = torch.randn(2, 3, 9, 9)
    wanted = block.eval()(image)
    fold_batch_norms(block)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
    torch.testing.assert_close(block(image), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_features_of_the_shipped_weights_differ_by_rounding_only():
    exact, fast = (sam2_model.build_predictor("tiny", device="cpu", exact=e) for e in (True, False))
    image = torch.randn(1, 3, 256, 256)
    for a, b in zip(
        exact.forward_image(image)["backbone_fpn"], fast.forward_image(image)["backbone_fpn"]
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert fast.objects_at_once > 1 == exact.objects_at_once


@pytest.mark.parametrize("shape", [(1, 24), (300, 24), (2, 7, 24), (2, 3, 5, 24), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_packed_layer_differs_by_rounding_only(shape, bias):
    original = nn.Linear(24, 40, bias=bias)
    x = torch.randn(shape)
    wanted = original.double()(x.double()).float()
    torch.testing.assert_close(PackedLinear(original.float())(x), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_packed_layer_reads_what_lies_apart_in_memory():
    layer = nn.Linear(16, 16)
    x = torch.randn(8, 3, 40)[:, 1, 4:20]
    torch.testing.assert_close(PackedLinear(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_packed_layer_notices_other_weights():
    layer, other, x = nn.Linear(8, 8), nn.Linear(8, 8), torch.randn(5, 8)
    packed = PackedLinear(layer)
    packed(x)
    packed.load_state_dict(other.state_dict())  # copied into the parameter
    torch.testing.assert_close(packed(x), other(x), rtol=1e-5, atol=1e-5)
    for factor in (-1, 2, 3):  # another parameter, which may come to lie where one was before
        packed.weight = nn.Parameter(torch.zeros_like(other.weight))
        packed.weight = nn.Parameter(factor * other.weight)
        torch.testing.assert_close(
            packed(x), factor * x @ other.weight.T + other.bias, rtol=1e-5, atol=1e-5
        )


def test_a_packed_layer_can_be_made_in_inference_mode_and_be_copied_after_use():
    with torch.inference_mode():
        layer = nn.Linear(8, 8)
        packed = PackedLinear(layer)
        x = torch.randn(5, 8)
        wanted = packed(x)
        torch.testing.assert_close(wanted, layer(x), rtol=1e-5, atol=1e-5)
        for copied in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
            assert torch.equal(copied(x), wanted)


@torch.no_grad()
def test_layers_with_hooks_are_left_alone():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[0].register_forward_hook(lambda *_: torch.ones(4))
    assert not isinstance(pack_linears(net)[0], PackedLinear)


def test_a_packed_layer_still_learns():
    layer, x = nn.Linear(8, 8), torch.randn(5, 8)
    layer(x).square().sum().backward()
    wanted = layer.weight.grad.clone()
    layer.weight.grad = None
    PackedLinear(layer)(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, wanted)


@torch.no_grad()
def test_a_packed_layer_computes_in_bf16_where_that_is_asked_for():
    with torch.autocast("cpu", torch.bfloat16):
        assert PackedLinear(nn.Linear(8, 8))(torch.randn(5, 8)).dtype == torch.bfloat16


@torch.no_grad()
def test_large_weights_are_not_copied():
    layer = PackedLinear(nn.Linear(2048, PACKED_WEIGHTS // 2048 + 1))
    x = torch.randn(3, 2048)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias, rtol=1e-4, atol=1e-4)
    assert layer._packed is None


def test_packing_keeps_the_names_of_all_weights():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    before = {name: id(p) for name, p in net.named_parameters()}
    pack_linears(net)
    assert {name: id(p) for name, p in net.named_parameters()} == before
    assert isinstance(net[1][1], PackedLinear) == onednn_is_faster()


FAULTS = """
import resource, torch
from geometry_fusion.devices import keep_freed_memory
assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(60):
    if turn == 50:
        before = faults()
    torch.ones(5_000_000)  # 20 MB, 4883 pages
print(faults() - before)
"""


GIVEN_BACK = """
import psutil, torch
from geometry_fusion.devices import give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
megabytes = lambda: psutil.Process().memory_info().rss >> 20
blocks = [torch.ones(250_000) for _ in range(200)]  # 200 MB
del blocks
before = megabytes()
give_back_freed_memory(torch.device("cpu"))
print(before - megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these switches")
def test_kept_memory_is_given_back_when_told():
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has the switch, others say False"
)
def test_freed_memory_is_used_again_and_not_taken_from_the_system_anew():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000  # taken anew: 48,830


def test_other_c_libraries_have_no_switch(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_parts_give_the_same_features():
    plain, compiled = (
        sam2_model.build_predictor("tiny", device="cpu", compile=c) for c in (False, True)
    )
    image = torch.randn(1, 3, 256, 256)
    for a, b in zip(
        plain.forward_image(image)["backbone_fpn"], compiled.forward_image(image)["backbone_fpn"]
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
