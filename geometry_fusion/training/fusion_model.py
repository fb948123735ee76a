"""The model that a fusion trains: SAM2's training class with a merger, and the recognition loss.

The recognition loss guides SAM2's attention to memory: cells on an object should attend to the
memory's cells on the same object.
"""

import torch
from sam2.modeling.position_encoding import apply_rotary_enc
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from geometry_fusion.nn import split_heads
from geometry_fusion.tracking.encoder import put_merged
from geometry_fusion.training.sam2_model import ClickTracker
from geometry_fusion.types import GeometryFrame

GUIDED_CELLS = 64  # cells of a frame and object that the loss looks at, per attention
ON_OBJECT = 0.3  # share of a cell above which it is on the object


class FusionTracker(ClickTracker):
    """As ClickTracker, plus: the merged feature replaces SAM2's top-level image feature, as in the
    predictor.

    In training, `attention_losses` holds the `recognition_loss` of every attention to memory in the
    last forward.
    """

    merger: torch.nn.Module  # set after SAM2's own weights were loaded strictly
    _geometry: list[GeometryFrame]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.attention_losses: list[Tensor] = []
        # Share of each cell of the feature grid that an object covers, 0..1; in training only.
        self._cover: Tensor | None = None  # [T, O, N] of all frames
        self._here: Tensor | None = None  # [O, N] of the frame that attends
        self._remembered: Tensor | None = None  # [O, M] of the memory that it attends to
        for layer in self.memory_attention.layers:
            layer.cross_attn_image.register_forward_pre_hook(
                self._record_attention, with_kwargs=True
            )

    def forward(self, input):
        """As SAM2Train.forward, plus: keep the geometry and the objects' cover of a FusionBatch."""
        self._geometry = input.geometry
        self.attention_losses = []
        self._cover = None
        if self.training:
            side = self.image_size // self.backbone_stride
            self._cover = adaptive_avg_pool2d(input.masks.float(), side).flatten(2)
        return super().forward(input)

    def forward_image(self, img_batch):
        """As SAM2Base.forward_image, plus: merge the geometry into the top-level feature."""
        backbone_out = super().forward_image(img_batch)
        put_merged(backbone_out, self.merger(backbone_out["backbone_fpn"][-1], self._geometry))
        return backbone_out

    def _prepare_memory_conditioned_features(
        self, frame_idx, is_init_cond_frame, *args, output_dict, **kwargs
    ):
        """As SAM2Base's, plus: note which cells of frame and memory the objects cover."""
        if self.training and not is_init_cond_frame:
            # As SAM2 concatenates memories: conditioning frames, then recent ones, oldest first.
            recent = range(frame_idx - self.num_maskmem + 1, frame_idx)
            frames = [*output_dict["cond_frame_outputs"]]
            frames += [t for t in recent if t in output_dict["non_cond_frame_outputs"]]
            self._here = self._cover[frame_idx]
            self._remembered = torch.cat([self._cover[t] for t in frames], 1)
        return super()._prepare_memory_conditioned_features(
            frame_idx, is_init_cond_frame, *args, output_dict=output_dict, **kwargs
        )

    def _record_attention(self, module, args, kwargs):
        """A hook before each cross attention to memory: computes its recognition loss."""
        if not self.training:
            return
        # Object pointers are the last keys; they have no place on the grid.
        pointers = kwargs.get("num_k_exclude_rope", 0)
        tokens = kwargs["k"].shape[1] - pointers
        assert tokens == self._remembered.shape[1], (tokens, self._remembered.shape)
        queries = split_heads(module.q_proj(kwargs["q"]), module.num_heads)
        keys = split_heads(module.k_proj(kwargs["k"][:, :tokens]), module.num_heads)
        queries, keys = apply_rotary_enc(
            queries, keys, module.freqs_cis.to(queries.device), repeat_freqs_k=True
        )
        # A few cells suffice: those on the object first, then random ones beside it.
        beside = (self._here == 0) * torch.rand_like(self._here)
        priority = torch.where(self._here > ON_OBJECT, 2.0, beside)
        cells = priority.topk(min(GUIDED_CELLS, priority.shape[1])).indices
        queries = queries.take_along_dim(cells[:, None, :, None], 2)
        logits = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        here = self._here.take_along_dim(cells, 1)
        self.attention_losses.append(recognition_loss(logits.float(), here, self._remembered))


def recognition_loss(logits: Tensor, here: Tensor, remembered: Tensor) -> Tensor:
    """How badly attention to memory distinguishes an object from everything else; 0 or more.

    Cells on the object should attend where the memory shows it: -log(share of attention there).
    Cells beside it should not: -log(1 - share). The loss is the mean of both means. Cells at the
    outline count for neither. Zero if there is nothing to recognise.

    logits: [O, heads, N, M] before the softmax, spatial memory only. here: [O, N], remembered: [O,
    M], the share of each cell that the object covers, 0..1.
    """
    everything = logits.logsumexp(-1)
    # Cells at the outline may be attended to from both sides without a penalty.
    inside = (remembered > 0.5)[:, None, None]
    touched = (remembered > 0.1)[:, None, None]
    # Not -inf, which would give NaN gradients where all cells are masked.
    floor = torch.finfo(logits.dtype).min / 2
    on = everything - logits.masked_fill(~touched, floor).logsumexp(-1)
    beside = everything - logits.masked_fill(inside, floor).logsumexp(-1)
    means = []
    for values, cells in ((on, here > ON_OBJECT), (beside, here == 0)):
        counts = (touched.any(-1) & cells[:, None]).expand_as(values)
        means.append((values * counts).sum() / counts.sum().clamp(min=1))
    return sum(means) / 2
