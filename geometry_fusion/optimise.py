"""The same SAM2, arranged for speed: what a trained network does not need any more is folded away.

Results differ from SAM2's own by rounding (tests/test_optimise.py); `build_predictor(exact=True)` leaves all as it is.
What each step is worth: docs/performance.md.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geometry_fusion.devices import keep_freed_memory


def optimise(predictor: nn.Module, compile: bool = False) -> nn.Module:
    """Fold batch norms into the convolutions before them and store convolutions channels-last; returns `predictor`.

    On a CPU, also let the process keep the memory it frees (`devices.keep_freed_memory`).

    For inference only, after all weights are loaded into the image encoder. compile: torch.compile the image encoder
    and the memory encoder, whose shapes are fixed: one frame or a full batch of them, and a number of objects. It needs
    a C++ compiler.
    """
    if predictor.device.type == "cpu":
        keep_freed_memory()
    fold_batch_norms(predictor.image_encoder)
    predictor.image_encoder.to(memory_format=torch.channels_last)
    if compile:
        predictor.fill_batches = True
        for module in (predictor.image_encoder, predictor.memory_encoder):
            module.compile(dynamic=False)
    return predictor


def fold_batch_norms(module: nn.Module) -> None:
    """In place: every convolution that a batch norm follows as the next child takes over its scale and shift."""
    for child in module.children():
        fold_batch_norms(child)
    for name, following in pairwise(list(module._modules)):
        convolution, norm = module._modules[name], module._modules[following]
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            module._modules[name] = fuse_conv_bn_eval(convolution, norm)
            module._modules[following] = nn.Identity()
