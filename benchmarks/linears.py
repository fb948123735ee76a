"""What smaller numbers would gain in the linear layers of the tiny models, on one core.

    python benchmarks/linears.py

Times layers of the shapes that MUSt3R, the merger and SAM2's memory attention have: in fp32 as the
models compute them (models/optimise.py), in bf16 with and without the conversions around a layer,
and in int8 by torch's dynamic quantization. Prints microseconds, the best of several rounds, and
writes benchmarks/out/linears.json.
"""

import json
import time
import warnings

import torch
from common import OUT
from torch.ao.quantization import quantize_dynamic

from geometry_fusion.models.optimise import pack_linears

# Name -> rows, inputs, outputs. MUSt3R sees four frames of 64 tokens at once.
SHAPES = {
    "MUSt3R, first of an MLP": (256, 192, 768),
    "MUSt3R, second of an MLP": (256, 768, 192),
    "merger, first of an MLP": (256, 128, 512),
    "memory attention, keys of 7 frames": (1808, 32, 128),
}
ROUNDS, CALLS = 8, 40


def microseconds(call) -> float:
    """Of one call; the best of several rounds, because other programs can only slow it down."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter() - began) / CALLS)
    return round(1e6 * best, 1)


@torch.inference_mode()
def measure(rows: int, inputs: int, outputs: int) -> dict[str, float]:
    """Microseconds of one layer by kind of number."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(inputs, outputs)).eval()
    x = torch.randn(rows, inputs)
    half = torch.nn.Linear(inputs, outputs).bfloat16()
    x_half = x.bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated
        whole = quantize_dynamic(layer, {torch.nn.Linear}, dtype=torch.qint8)
    packed = pack_linears(layer)
    return {
        "fp32": microseconds(lambda: packed(x)),
        "bf16": microseconds(lambda: half(x_half)),
        "bf16, fp32 around it": microseconds(lambda: half(x.bfloat16()).float()),
        "int8": microseconds(lambda: whole(x)),
    }


def main() -> None:
    """Measure all shapes, print the table and write it."""
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "onednn"
    results = {name: measure(*shape) for name, shape in SHAPES.items()}
    kinds = list(next(iter(results.values())))
    print(f"{'microseconds':<38}" + "".join(f"{kind:>22}" for kind in kinds))
    for name, times in results.items():
        print(f"{name:<38}" + "".join(f"{times[kind]:>22}" for kind in kinds))
    OUT.mkdir(exist_ok=True)
    capability = torch.backends.cpu.get_cpu_capability()
    facts = {"torch": torch.__version__, "cpu_capability": capability}
    results = {"microseconds": results, "measured_on": facts}
    (OUT / "linears.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
