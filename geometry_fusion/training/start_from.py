"""Starting the second tiny SAM2 from the first one, whose trunk is another.

Everything behind the image encoder is copied. The neck's first layers are fitted, so that the new
trunk's features mean to the rest what the old trunk's meant. Training from there takes far fewer
steps than from random weights.
"""

import torch
from torch import Tensor

from geometry_fusion.errors import InputError

PICTURES_AT_ONCE = 8
RIDGE = 1e-3  # of the least squares, as a share of the features' mean square
TOKEN_NOISE = 0.1  # as a share of the tokens' standard deviation


@torch.no_grad()
def start_from(model: torch.nn.Module, first: torch.nn.Module, pictures: Tensor) -> None:
    """Let `model` start as `first`, a SAM2 of the same sizes with another trunk.

    pictures: [N, 3, S, S], normalised; the neck is fitted on them. Raises InputError where a tensor
    behind the trunk has another shape than in `first`, apart from the neck's first layers.
    """
    fitted = {f"image_encoder.neck.convs.{i}.conv.weight" for i in range(len(_laterals(model)))}
    own, others = model.state_dict(), first.state_dict()
    for name, tensor in own.items():
        if name.startswith("image_encoder.trunk.") or name in fitted:
            continue
        if name not in others or others[name].shape != tensor.shape:
            raise InputError(
                f"start_from: {name} is missing in that model, or has another shape; choose tiny"
            )
        tensor.copy_(others[name])
    _copy_single_mask(model.sam_mask_decoder)
    _fit_neck(model, first, pictures)


def _laterals(model: torch.nn.Module) -> list[torch.nn.Conv2d]:
    """The neck's 1 x 1 convolutions, of the coarsest features first."""
    return [layer.conv for layer in model.image_encoder.neck.convs]


def _copy_single_mask(decoder: torch.nn.Module) -> None:
    """Let the three candidate masks start as the single mask, a little apart from each other.

    The first tiny SAM2 never trained the others.
    """
    tokens = decoder.mask_tokens.weight
    noise = torch.randn_like(tokens[1:]) * tokens[0].std() * TOKEN_NOISE
    tokens[1:] = tokens[0] + noise
    networks = decoder.output_hypernetworks_mlps
    for other in networks[1:]:
        other.load_state_dict(networks[0].state_dict())
    last = decoder.iou_prediction_head.layers[-1]
    last.weight[1:] = last.weight[0]
    last.bias[1:] = last.bias[0]


def _fit_neck(model: torch.nn.Module, first: torch.nn.Module, pictures: Tensor) -> None:
    """Least squares: the neck's layers on the new trunk answer as those on the old trunk do."""
    model.eval()
    first.eval()
    sums: list[tuple[Tensor, Tensor] | None] = [None] * len(_laterals(model))
    device = next(model.parameters()).device
    for chunk in pictures.to(device).split(PICTURES_AT_ONCE):
        features = model.image_encoder.trunk(chunk)[::-1]  # coarsest first, as the neck counts
        wanted = first.image_encoder.trunk(chunk)[::-1]
        for level, (x, y, layer) in enumerate(zip(features, wanted, _laterals(first))):
            x = _with_one(x)
            y = layer(y).movedim(1, -1).flatten(0, 2)
            products = x.T @ x, x.T @ y
            before = sums[level]
            sums[level] = products if before is None else tuple(map(torch.add, before, products))
    for (squares, products), layer in zip(sums, _laterals(model)):
        ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), device=device)
        solution = torch.linalg.solve((squares + ridge).double(), products.double()).float()
        layer.weight.copy_(solution[:-1].T[:, :, None, None])
        layer.bias.copy_(solution[-1])


def _with_one(features: Tensor) -> Tensor:
    """Features [N, C, H, W] as rows [N * H * W, C + 1] that end with 1, for the bias."""
    rows = features.movedim(1, -1).flatten(0, 2)
    return torch.cat((rows, torch.ones_like(rows[:, :1])), 1)
