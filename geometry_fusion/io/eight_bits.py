"""Weights as whole numbers of eight bits with a factor per output channel: files of half the size.

A tensor `name` of shape [C, ...] is stored as int8, beside `name.factor` [C] in half precision:
weight = factor * number. Rounding changes a weight by at most 0.4% of its channel's largest one.
"""

from collections.abc import Mapping

from torch import Tensor, int8

FACTOR = ".factor"
LARGEST = 127


def packed(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """The tensors, with the matrices and convolutions of `module` in eight bits.

    module: the start of their names. Vectors, such as biases and norms, stay as they are.
    """
    result = {}
    for name, tensor in tensors.items():
        if not (name.startswith(f"{module}.") and tensor.ndim > 1 and tensor.is_floating_point()):
            result[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        # Rounded to what is stored first, so that numbers and factor belong together.
        factor = (rows.abs().amax(1) / LARGEST).clamp(min=1e-7).half()
        numbers = (rows / factor.float()[:, None]).round().clamp(-LARGEST, LARGEST)
        result[name] = numbers.to(int8).reshape(tensor.shape)
        result[name + FACTOR] = factor
    return result


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with those in eight bits as float32 again.

    Raises ValueError, naming the tensor, for a factor without its numbers or of another length.
    """
    result = {name: tensor for name, tensor in tensors.items() if not name.endswith(FACTOR)}
    for name in tensors.keys() - result.keys():
        numbers, factor = result.get(name.removesuffix(FACTOR)), tensors[name]
        if numbers is None or numbers.dtype != int8 or factor.shape != numbers.shape[:1]:
            raise ValueError(f"tensor {name} does not belong to numbers of eight bits")
        shape = [-1, *[1] * (numbers.ndim - 1)]
        result[name.removesuffix(FACTOR)] = numbers.float() * factor.float().reshape(shape)
    return result
