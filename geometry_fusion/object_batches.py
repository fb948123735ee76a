"""Objects tracked as one batch: what SAM2 does one object after another, in one call for all that
can share it.

Objects belong together when their memories hold the same frames. Outputs stay per object, as in
SAM2, so that objects can be prompted, added and removed at any time; the joined ones are views, or
are joined once and kept for later frames.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from geometry_fusion.errors import InputError

KINDS = ("cond_frame_outputs", "non_cond_frame_outputs")
BATCH_LIMIT = 16  # objects at once: beyond, memory grows and time per object does not shrink


class ObjectBatches:
    """For one inference state: which objects go together, and their joined outputs."""

    def __init__(self, limit: int = BATCH_LIMIT):
        self.limit = limit
        # (members, frame) -> (the members' object pointers, by which outputs are known again;
        # joined outputs)
        self._joined: dict[tuple[tuple[int, ...], int], tuple[list[Tensor], dict]] = {}

    def clear(self) -> None:
        self._joined.clear()

    def groups(
        self, outputs: Mapping[int, dict], readable: Collection[int], alone: bool
    ) -> list[list[int]]:
        """Objects in batches of at most `limit`: together where the same conditioning and
        `readable` frames are held.

        outputs: object index -> its outputs by kind. alone: one object per batch.
        """
        together: dict[tuple, list[int]] = {}
        for obj_idx, held in outputs.items():
            recent = held[KINDS[1]]
            # Of some frames only the pointer is left.
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
        """The outputs of `members` as SAM2 reads them, with a batch dimension of their number.

        A single object's own outputs are handed on as they are.
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
        """A batch's output -> per object the views on it that SAM2 would keep."""
        if len(members) == 1:
            return {members[0]: whole}
        parts = [
            {key: item_of(value, i) for key, value in whole.items()} for i in range(len(members))
        ]
        self._remember(members, frame_idx, parts, whole)
        return dict(zip(members, parts))

    def halved(self, members: list[int]) -> tuple[list[int], list[int]]:
        """After memory ran out: smaller batches from now on. Raises InputError where one object is
        too much.
        """
        if len(members) == 1:
            raise InputError(
                "out of memory while tracking a single object: choose a smaller --sam2 or "
                "--must3r, or --device cpu"
            )
        half = len(members) // 2
        self.limit = max(1, half)
        print(
            f"out of memory with {len(members)} objects at once: going on with at most {self.limit}"
        )
        return members[:half], members[half:]

    def drop(self, outputs: Mapping[int, dict]) -> None:
        """Forget joined outputs of which the objects hold nothing any more, or the pointer only."""
        for (members, frame), (pointers, whole) in list(self._joined.items()):
            held = [outputs[i][kind].get(frame) for i in members if i in outputs for kind in KINDS]
            held = [out for out in held if out is not None and "obj_ptr" in out]
            if len(held) < len(members):
                del self._joined[members, frame]
            elif "maskmem_features" not in held[0]:
                self._joined[members, frame] = (pointers, {"obj_ptr": whole["obj_ptr"]})

    def _whole(self, frame: int, members: list[int], parts: list[dict]) -> dict:
        pointers, _ = self._joined.get((tuple(members), frame), ((), {}))
        # A correction replaces an object's output: then they are joined anew.
        if len(pointers) != len(parts) or any(
            a is not b["obj_ptr"] for a, b in zip(pointers, parts)
        ):
            whole = {
                name: _join([part[name] for part in parts])
                for name in parts[0]
                if name != "pred_masks"
            }
            self._remember(members, frame, parts, whole)
        return self._joined[tuple(members), frame][1]

    def _remember(self, members: list[int], frame: int, parts: list[dict], whole: dict) -> None:
        kept = {
            name: value for name, value in whole.items() if name != "pred_masks"
        }  # tracking does not read masks
        self._joined[tuple(members), frame] = ([part["obj_ptr"] for part in parts], kept)


def item_of(value, index: int):
    """One item of a batch, as a batch of one: of a tensor or a list of tensors; anything else stays
    as it is.
    """
    if isinstance(value, Tensor):
        return value[index : index + 1]
    return [v[index : index + 1] for v in value] if isinstance(value, list) else value


def _join(values: list):
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    return (
        [torch.cat(column) for column in zip(*values)] if isinstance(values[0], list) else values[0]
    )


class MemoryAttentionOfObjects(MemoryAttention):
    """As MemoryAttention (sam2 1.1.0), plus: what is the same for all objects of a frame, up to the
    first layer's reading of their memories, is computed once. The weights are the same."""

    def forward(
        self, curr, memory, curr_pos=None, memory_pos=None, num_obj_ptr_tokens: int = 0
    ) -> Tensor:
        """curr: [N, B, C] or a list of one; B views of one image have stride 0 along B."""
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
