"""Tracking several objects as one batch, where SAM2 tracks one object after another.

Objects can share a batch if their memories hold the same frames. Outputs stay per object, as in
SAM2, so that objects can be prompted, added and removed at any time. The outputs of a batch are
joined once and kept for later frames; those of its objects are views of them where possible.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from geometry_fusion.choices import OBJECTS_AT_ONCE
from geometry_fusion.errors import InputError

KINDS = ("cond_frame_outputs", "non_cond_frame_outputs")


class ObjectBatches:
    """The batches of one inference state: which objects share one, and their joined outputs.

    limit: most objects in a batch.
    """

    def __init__(self, limit: int = OBJECTS_AT_ONCE):
        self.limit = limit
        # (members, frame) -> (the members' object pointers, their joined outputs). The pointers
        # show whether a member's output was replaced after joining.
        self._joined: dict[tuple[tuple[int, ...], int], tuple[list[Tensor], dict]] = {}

    def clear(self) -> None:
        """Drop all joined outputs."""
        self._joined.clear()

    def groups(
        self, outputs: Mapping[int, dict], readable: Collection[int], alone: bool
    ) -> list[list[int]]:
        """Object indices in batches of at most `limit`.

        Objects share a batch if they have the same prompted frames, and outputs on the same
        `readable` frames. outputs: object index -> its outputs by kind. alone: one per batch.
        """
        together: dict[tuple, list[int]] = {}
        for obj_idx, held in outputs.items():
            recent = held[KINDS[1]]
            # Some frames have only their object pointer left, which is read differently.
            held_frames = tuple(
                (t, "maskmem_features" in recent[t]) for t in readable if t in recent
            )
            key = (tuple(sorted(held[KINDS[0]])), held_frames, obj_idx if alone else None)
            together.setdefault(key, []).append(obj_idx)
        return [
            members[start : start + self.limit]
            for members in together.values()
            for start in range(0, len(members), self.limit)
        ]

    def joined(
        self, outputs: Mapping[int, dict], members: list[int], readable: Iterable[int]
    ) -> dict:
        """The outputs of a batch in the form that SAM2 reads, with one batch item per member.

        The outputs of a single object are returned as they are.
        """
        if len(members) == 1:
            return outputs[members[0]]
        first = outputs[members[0]]
        conditioned = {
            t: self._whole(t, members, [outputs[i][KINDS[0]][t] for i in members])
            for t in first[KINDS[0]]
        }
        recent = {
            t: self._whole(t, members, [outputs[i][KINDS[1]][t] for i in members])
            for t in readable
            if t in first[KINDS[1]]
        }
        return {KINDS[0]: conditioned, KINDS[1]: recent}

    def split(self, frame_idx: int, members: list[int], whole: dict) -> dict[int, dict]:
        """A batch's output on a frame -> by object index, the views of it that SAM2 would keep."""
        if len(members) == 1:
            return {members[0]: whole}
        outputs = [
            {key: item_of(value, i) for key, value in whole.items()} for i in range(len(members))
        ]
        self._remember(members, frame_idx, outputs, whole)
        return dict(zip(members, outputs))

    def halved(self, members: list[int]) -> tuple[list[int], list[int]]:
        """After memory ran out: the two halves of a batch, and smaller batches from now on.

        Raises InputError for a batch of one object.
        """
        if len(members) == 1:
            raise InputError(
                "out of memory while tracking a single object: choose smaller models, or "
                "the device cpu"
            )
        half = len(members) // 2
        self.limit = max(1, half)
        print(
            f"out of memory with {len(members)} objects at once: continuing with at most "
            f"{self.limit}"
        )
        return members[:half], members[half:]

    def drop(self, outputs: Mapping[int, dict]) -> None:
        """Drop joined outputs that the objects no longer hold; reduce those of which they hold only
        the pointer.
        """
        for (members, frame), (pointers, whole) in list(self._joined.items()):
            held = [outputs[i][kind].get(frame) for i in members if i in outputs for kind in KINDS]
            held = [out for out in held if out is not None and "obj_ptr" in out]
            if len(held) < len(members):
                del self._joined[members, frame]
            elif "maskmem_features" not in held[0]:
                self._joined[members, frame] = (pointers, {"obj_ptr": whole["obj_ptr"]})

    def _whole(self, frame: int, members: list[int], outputs: list[dict]) -> dict:
        """The members' outputs on a frame, joined unless they already are."""
        pointers, _ = self._joined.get((tuple(members), frame), ((), {}))
        is_joined = len(pointers) == len(outputs) and all(
            pointer is output["obj_ptr"] for pointer, output in zip(pointers, outputs)
        )
        # A correction replaces an object's output, so that the batch must be joined again.
        if not is_joined:
            whole = {
                name: _join([output[name] for output in outputs])
                for name in outputs[0]
                if name != "pred_masks"
            }
            self._remember(members, frame, outputs, whole)
        return self._joined[tuple(members), frame][1]

    def _remember(self, members: list[int], frame: int, outputs: list[dict], whole: dict) -> None:
        # Tracking does not read masks.
        kept = {name: value for name, value in whole.items() if name != "pred_masks"}
        self._joined[tuple(members), frame] = ([output["obj_ptr"] for output in outputs], kept)


def item_of(value, index: int):
    """One item of a batch, as a batch of one. value: a tensor or a list of tensors; anything else
    is returned as it is.
    """
    if isinstance(value, Tensor):
        return value[index : index + 1]
    return [v[index : index + 1] for v in value] if isinstance(value, list) else value


def _join(values: list):
    """The inverse of `item_of` for the values of all items."""
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], list):
        return [torch.cat(column) for column in zip(*values)]
    return values[0]


class MemoryAttentionOfObjects(MemoryAttention):
    """As MemoryAttention (sam2 1.1.0), plus: the first layer's self-attention is computed once.

    Up to there all objects of a frame have the same features; their memories are read after it. The
    weights are the same.
    """

    def forward(
        self, curr, memory, curr_pos=None, memory_pos=None, num_obj_ptr_tokens: int = 0
    ) -> Tensor:
        """As MemoryAttention.forward. curr: features [N, B, C] or a list of one such tensor.

        B views of one image have stride 0 along B; any other input takes SAM2's way.
        """
        image, position = (curr[0], curr_pos[0]) if isinstance(curr, list) else (curr, curr_pos)
        objects = image.shape[1]
        if objects == 1 or image.stride(1) or not self.batch_first or position is None:
            return super().forward(curr, memory, curr_pos, memory_pos, num_obj_ptr_tokens)
        image, position = (t[:, :1].transpose(0, 1) for t in (image, position))
        memory, memory_pos = memory.transpose(0, 1), memory_pos.transpose(0, 1)
        tokens = image + 0.1 * position if self.pos_enc_at_input else image
        for index, layer in enumerate(self.layers):
            tokens = layer._forward_sa(tokens, position)
            if index == 0:
                tokens = tokens.expand(objects, -1, -1)
            excluded = (
                num_obj_ptr_tokens if isinstance(layer.cross_attn_image, RoPEAttention) else 0
            )
            tokens = layer._forward_ca(tokens, memory, position, memory_pos, excluded)
            hidden = layer.linear2(
                layer.dropout(layer.activation(layer.linear1(layer.norm3(tokens))))
            )
            tokens = tokens + layer.dropout3(hidden)
        return self.norm(tokens).transpose(0, 1)
