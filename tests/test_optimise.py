"""The faster arrangement of SAM2's image encoder: the same answers within rounding."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

import sam2_model
from geometry_fusion.devices import keep_freed_memory
from geometry_fusion.optimise import fold_batch_norms


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
        nn.init.uniform_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 2), nn.init.normal_(norm.weight)
    image = torch.randn(2, 3, 9, 9)
    wanted = block.eval()(image)
    fold_batch_norms(block)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
    torch.testing.assert_close(block(image), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_features_of_the_shipped_weights_differ_by_rounding_only():
    exact, fast = (sam2_model.build_predictor("tiny", device="cpu", exact=e) for e in (True, False))
    image = torch.randn(1, 3, 256, 256)
    for a, b in zip(exact.forward_image(image)["backbone_fpn"], fast.forward_image(image)["backbone_fpn"]):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert fast.objects_at_once > 1 == exact.objects_at_once


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch, others say False")
def test_freed_memory_is_used_again_and_not_taken_from_the_system_anew():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, cwd=sam2_model.ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000  # taken anew: 48,830


def test_other_c_libraries_have_no_switch(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_parts_give_the_same_features():
    plain, compiled = (sam2_model.build_predictor("tiny", device="cpu", compile=c) for c in (False, True))
    image = torch.randn(1, 3, 256, 256)
    for a, b in zip(plain.forward_image(image)["backbone_fpn"], compiled.forward_image(image)["backbone_fpn"]):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
