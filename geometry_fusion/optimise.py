"""The same SAM2, arranged for speed: what a trained network does not need any more is folded away.

Results differ from SAM2's own by rounding (tests/test_optimise.py); `build_predictor(exact=True)`
leaves all as it is. What each step is worth: docs/performance.md.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geometry_fusion.devices import keep_freed_memory

PACKED_ROWS = 256  # tokens that the packed layout is chosen for; others work as well
PACKED_WEIGHTS = (
    2**20
)  # numbers in a weight: larger ones meet many tokens, and a second copy of them costs memory


def optimise(predictor: nn.Module, compile: bool = False) -> nn.Module:
    """Fold batch norms into the convolutions before them and store convolutions channels-last;
    returns `predictor`.

    On a CPU, also pack linear layers (`pack_linears`) and let the process keep the memory it frees
    (`devices.keep_freed_memory`).

    For inference only, after all weights are loaded into the image encoder. compile: torch.compile
    the image encoder and the memory encoder, whose shapes are fixed: one frame or a full batch of
    them, and a number of objects. It needs a C++ compiler.
    """
    if predictor.device.type == "cpu":
        keep_freed_memory()
        pack_linears(predictor)
    fold_batch_norms(predictor.image_encoder)
    predictor.image_encoder.to(memory_format=torch.channels_last)
    if compile:
        predictor.fill_batches = True
        for module in (predictor.image_encoder, predictor.memory_encoder):
            module.compile(dynamic=False)
    return predictor


def fold_batch_norms(module: nn.Module) -> None:
    """In place: every convolution that a batch norm follows as the next child takes over its scale
    and shift.
    """
    for child in module.children():
        fold_batch_norms(child)
    for name, following in pairwise(list(module._modules)):
        convolution, norm = module._modules[name], module._modules[following]
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            module._modules[name] = fuse_conv_bn_eval(convolution, norm)
            module._modules[following] = nn.Identity()


def pack_linears(module: nn.Module) -> nn.Module:
    """In place: let oneDNN compute the linear layers of a network that is only applied; returns
    `module`.

    torch gives fp32 matrix products to MKL, which keeps to AVX2 on processors that are not Intel's;
    oneDNN, which torch brings as well and convolves with, uses what is there. Nothing happens on
    CPUs without AVX-512, to layers that somebody hooked into, and to `module` itself where it is a
    single layer.
    """
    if onednn_is_faster():
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.Linear and not (
                    child._forward_hooks or child._forward_pre_hooks
                ):
                    setattr(parent, name, PackedLinear(child))
    return module


def onednn_is_faster() -> bool:
    """Whether the operator behind `PackedLinear` is there, and a CPU on which it was measured to
    help.
    """
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and "AVX512" in torch.backends.cpu.get_cpu_capability()


class PackedLinear(nn.Linear):
    """As the nn.Linear it is made of, whose parameters it shares; without gradients, fp32 on a CPU
    goes to oneDNN.

    The weight is kept a second time in oneDNN's own layout, made anew when the parameter was
    changed or replaced (but not when its numbers were changed behind torch's back, by `.data` or in
    inference mode).
    """

    def __init__(self, original: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self.weight, self.bias = original.weight, original.bias
        self.train(original.training)
        self._packed: tuple[Tensor, int | None, Tensor] | None = (
            None  # of which weight, its version, the layout
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self._goes_to_onednn(x):
            return linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), self._layout(), self.bias, "none", [], ""
        )

    def _goes_to_onednn(self, x: Tensor) -> bool:
        plain = (
            x.dtype == self.weight.dtype == torch.float32
            and x.device.type == self.weight.device.type == "cpu"
        )
        if (
            not plain
            or not x.numel()
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
        ):
            return False
        return not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))

    def _layout(self) -> Tensor:
        weight = self.weight.detach()
        if weight.numel() > PACKED_WEIGHTS:
            return weight
        version = None if weight.is_inference() else weight._version
        # The weight that was packed is held: nothing else can come to lie at its address.
        known = self._packed and (self._packed[0].data_ptr(), self._packed[1])
        if known != (weight.data_ptr(), version):
            self._packed = (
                weight,
                version,
                torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS),
            )
        return self._packed[2]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_packed": None}  # oneDNN's layouts cannot be copied or stored
