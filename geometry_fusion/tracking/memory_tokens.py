"""Memory attention on what a strategy reads: outputs in, one feature out.

As the second half of SAM2Base._prepare_memory_conditioned_features (sam2 1.1.0), where the first
half chooses what is read. Here that choice is given, each item of a batch may read other frames,
and keys have weights.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor


@dataclass(frozen=True)
class ReadOutputs:
    """What one item of a batch reads, in the order in which it is joined."""

    memories: tuple[tuple[dict, int, float], ...]  # SAM2's output, number of its time code, weight
    pointers: tuple[tuple[dict, int], ...]  # SAM2's output, age in frames

    @property
    def shape(self) -> tuple[int, int]:
        """Items of equal shapes can share a batch."""
        return len(self.memories), len(self.pointers)


def conditioned(
    model: SAM2Base,
    readings: list[ReadOutputs],  # B of one shape
    features: list[Tensor],  # the top level: [hw, B, C]
    positions: list[Tensor],  # the same
    grids: list[tuple[int, int]],  # h, w of each level
    num_frames: int,  # of the video, by which SAM2 scales the age of pointers
) -> Tensor:
    """The frame's feature [B, C, h, w] after memory attention."""
    device = features[-1].device
    tokens, codes = [], []
    for at in range(len(readings[0].memories)):
        token, code = _spatial(model, [reading.memories[at] for reading in readings], device)
        tokens.append(token)
        codes.append(code)
    num_pointer_tokens = 0
    if model.use_obj_ptrs_in_encoder and readings[0].pointers:
        token, code = _pointers(model, readings, num_frames, device)
        tokens.append(token)
        codes.append(code)
        num_pointer_tokens = len(token)
    attended = model.memory_attention(
        curr=features[-1:],
        curr_pos=positions[-1:],
        memory=torch.cat(tokens, dim=0),
        memory_pos=torch.cat(codes, dim=0),
        num_obj_ptr_tokens=num_pointer_tokens,
    )
    return attended.permute(1, 2, 0).view(len(readings), model.hidden_dim, *grids[-1])


def _spatial(
    model: SAM2Base, read: list[tuple[dict, int, float]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """One spatial memory per item -> tokens and position codes, both [hw, B, C]."""
    features = _batch([output["maskmem_features"].to(device) for output, _, _ in read])
    places = _batch([output["maskmem_pos_enc"][-1].to(device) for output, _, _ in read])
    tokens, codes = (t.flatten(2).permute(2, 0, 1) for t in (features, places))
    times = [model.maskmem_tpos_enc[number] for _, number, _ in read]
    codes = codes + (times[0] if len(times) == 1 else torch.cat(times, dim=1))
    weights = [weight for _, _, weight in read]
    if any(weight != 1 for weight in weights):
        # Attention adds codes to the keys alone: so the values keep their weight.
        extra = torch.tensor(weights, device=device)[None, :, None] - 1
        codes = codes + extra * tokens.to(codes.dtype)
    return tokens, codes


def _pointers(
    model: SAM2Base, readings: list[ReadOutputs], num_frames: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The object pointers of all items -> tokens and codes of their age, both [R, B, C]."""
    batch, width = len(readings), model.hidden_dim
    count = len(readings[0].pointers)
    pointers = torch.stack(
        [
            _batch([reading.pointers[at][0]["obj_ptr"] for reading in readings])
            for at in range(count)
        ]
    )
    if model.add_tpos_enc_to_obj_ptrs:
        ages = [reading.pointers[at][1] for at in range(count) for reading in readings]
        longest = min(num_frames, model.max_obj_ptrs_in_encoder) - 1
        dim = width if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        code = get_1d_sine_pe(torch.tensor(ages).to(device) / longest, dim=dim)
        codes = model.obj_ptr_tpos_proj(code).view(count, batch, model.mem_dim)
    else:
        codes = pointers.new_zeros(count, batch, model.mem_dim)
    if model.mem_dim < width:  # a pointer is split into several tokens
        parts = width // model.mem_dim
        pointers = pointers.reshape(-1, batch, parts, model.mem_dim)
        pointers = pointers.permute(0, 2, 1, 3).flatten(0, 1)
        codes = codes.repeat_interleave(parts, dim=0)
    return pointers, codes


def _batch(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
