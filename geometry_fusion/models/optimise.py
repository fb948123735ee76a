"""Makes a trained SAM2 faster: folded batch norms, channels-last convolutions, packed linears.

Results differ from SAM2's by rounding (tests/models/test_optimise.py);
`build_predictor(exact=True)` skips all of it. docs/performance.md shows the gain of each step.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geometry_fusion.devices import keep_freed_memory

PACKED_ROWS = 256  # number of tokens for which oneDNN chooses the layout; others work as well
# Numbers in a weight up to which it is packed. Larger ones are applied to many tokens at once,
# where packing gains little, and the second copy costs memory.
PACKED_WEIGHTS = 2**20


def optimise(predictor: nn.Module, compile: bool = False) -> nn.Module:
    """Prepare a predictor for fast inference, in place; returns it.

    Batch norms are folded into the convolutions before them, and convolutions stored channels-last.
    On a CPU, linear layers are packed too (`pack_linears`), and the process keeps the memory that
    it frees (`devices.keep_freed_memory`). Call it after all weights of the image encoder are
    loaded.

    compile: torch.compile the image encoder and the memory encoder, whose shapes are fixed: one
    frame or a full batch of them, and a number of objects. It needs a C++ compiler.
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
    """Fold each batch norm into the convolution that is the child before it, in place."""
    for child in module.children():
        fold_batch_norms(child)
    for name, following in pairwise(list(module._modules)):
        convolution, norm = module._modules[name], module._modules[following]
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            module._modules[name] = fuse_conv_bn_eval(convolution, norm)
            module._modules[following] = nn.Identity()


def pack_linears(module: nn.Module) -> nn.Module:
    """Let oneDNN compute the linear layers of a network for inference, in place; returns `module`.

    torch computes fp32 matrix products by MKL, which uses AVX2 only on processors that are not
    Intel's. oneDNN, which torch also contains and uses for convolutions, takes AVX-512 as well.
    Nothing changes on CPUs without AVX-512, for layers with hooks, and for `module` itself if it is
    a single layer.
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
    """Whether the operator of `PackedLinear` exists, on a CPU where it is faster (measured)."""
    exists = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return exists and "AVX512" in torch.backends.cpu.get_cpu_capability()


class PackedLinear(nn.Linear):
    """As the nn.Linear that it is made of, plus: fp32 on a CPU without gradients uses oneDNN.

    It shares the parameters of the original. A copy of the weight in oneDNN's layout is made again
    when the parameter is changed or replaced, except for changes that torch does not count, by
    `.data` or in inference mode.
    """

    def __init__(self, original: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self.weight, self.bias = original.weight, original.bias
        self.train(original.training)
        # The weight that was packed, its version, and its copy in oneDNN's layout.
        self._packed: tuple[Tensor, int | None, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if not self._goes_to_onednn(x):
            return linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), self._layout(), self.bias, "none", [], ""
        )

    def _goes_to_onednn(self, x: Tensor) -> bool:
        if not x.dtype == self.weight.dtype == torch.float32:
            return False
        if not x.device.type == self.weight.device.type == "cpu":
            return False
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not x.numel():
            return False
        return not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))

    def _layout(self) -> Tensor:
        weight = self.weight.detach()
        if weight.numel() > PACKED_WEIGHTS:
            return weight
        version = None if weight.is_inference() else weight._version
        # `_packed` holds the weight itself, so that no other tensor can get its address.
        packed_key = self._packed and (self._packed[0].data_ptr(), self._packed[1])
        if packed_key != (weight.data_ptr(), version):
            layout = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
            self._packed = (weight, version, layout)
        return self._packed[2]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_packed": None}  # oneDNN's layouts cannot be copied or stored
