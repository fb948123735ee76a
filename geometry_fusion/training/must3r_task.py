"""Training MUSt3R on posed clips, through the calls that inference makes.

The first two frames of a clip are decoded together; every later frame reads the memory and extends
it. The memory itself holds what a frame may attend to, so nothing is masked. Losses:
* Confidence-weighted regression of `pts3d` and `pts3d_local` (MUSt3R, arXiv 2503.01661, section 3;
  DUSt3R's loss): C |x / s - X / S| - alpha log C, on a random subset of pixels. Prediction and
  truth are each divided by their own mean distance from the reference camera over the clip, with
  the same s for both maps of a clip.
* Two auxiliary losses on correspondence, between tokens that see the same point: InfoNCE over
  encoder tokens of consecutive frames, through a projection that is not released, and the same over
  the attention to memory of a few heads in the middle of the decoder. Without the latter the
  network predicted the identity pose for 2,400 steps: with much overlap that is nearly right, and
  it did not start to match places by itself.

Queries and keys of the decoder's cross attentions start with shared weights, so that attention
starts as similarity.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from geometry_fusion.data.scenes import Scene
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R, pointmaps
from geometry_fusion.nn import split_heads
from geometry_fusion.training.generated_clips import GeneratedPosedBatches
from geometry_fusion.training.must3r_losses import attention_loss, matching_loss, regression
from geometry_fusion.training.must3r_validation import clip_errors, depths_of, validation_clips
from geometry_fusion.training.posed_clips import PosedBatch, PosedClips, move
from geometry_fusion.training.schedule import draw_kind, stages_in_steps


class StreamedClips(nn.Module):
    """Encoder and decoder, run over clips as a stream runs them, and the matching head, which only
    training needs.

    guided_layers, guided_heads: the decoder blocks, and the first heads of each, whose attention to
    memory is returned for the loss on correspondence. match_dim: numbers per descriptor.
    """

    def __init__(
        self,
        encoder: Dust3rEncoder,
        decoder: MUSt3R,
        match_dim: int = 64,
        guided_layers: tuple[int, ...] = (1, 2, 3),
        guided_heads: int = 2,
    ):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.matcher = nn.Linear(encoder.embed_dim, match_dim)
        self._guided_heads = guided_heads
        self._attention: list[list[Tensor]] = []
        for number, layer in enumerate(guided_layers):
            if layer < len(decoder.blocks_dec):
                attention = decoder.blocks_dec[layer].cross_attn
                attention.register_forward_pre_hook(
                    lambda module, args, n=number: self._record(n, module, args)
                )
        self._num_guided = sum(layer < len(decoder.blocks_dec) for layer in guided_layers)

    def _record(self, number: int, module: nn.Module, args: tuple) -> None:
        """A hook before a guided attention: keep its logits."""
        queries, keys, _ = args
        q = split_heads(module.projq(queries), module.num_heads)[:, : self._guided_heads]
        k = split_heads(keys, module.num_heads)[:, : self._guided_heads]
        self._attention[number].append(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """[B, T, 3, H, W] in -1..1 -> (raw maps, descriptors, attention).

        Raw maps are [B, T, H, W, 7], descriptors [B, T, N, match_dim] of length 1. Attention
        has, per frame, the guided heads' logits [B, layers * heads, N, M]; M are the tokens of
        `frames_read(t)`.
        """
        self._attention = [[] for _ in range(self._num_guided)]
        batch, frames = images.shape[:2]
        tokens, positions = self.encoder(images.flatten(0, 1))
        descriptors = normalize(self.matcher(tokens), dim=-1).unflatten(0, (batch, frames))
        tokens = tokens.unflatten(0, (batch, frames))
        positions = positions.unflatten(0, (batch, frames))
        shape = torch.tensor(images.shape[-2:], device=images.device).expand(batch, frames, 2)
        memory, maps = None, []
        # As a stream starts: a pair of frames, then one at a time.
        for call in (slice(0, 2), *(slice(i, i + 1) for i in range(2, frames))):
            memory, raw = self.decoder(tokens[:, call], positions[:, call], shape[:, call], memory)
            maps.append(raw)
        attention = [torch.cat(layers, 1) for layers in zip(*self._attention)]
        return torch.cat(maps, 1), descriptors, attention


def start_weights(model: StreamedClips) -> None:
    """Initialise random weights: ViT's scheme, cross attentions that start as similarity, and a
    head that starts with points one to two units ahead of the camera and low confidence.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in model.decoder.blocks_dec:
        block.cross_attn.projk.weight.data.copy_(block.cross_attn.projq.weight)
    embed = model.encoder.patch_embed.proj
    nn.init.xavier_uniform_(embed.weight.view(len(embed.weight), -1))
    head = model.decoder.head_dec["proj"]
    nn.init.normal_(head.weight, std=0.02)
    with torch.no_grad():
        bias = head.bias.view(7, -1)
        bias[2], bias[5], bias[6] = 1.0, 1.0, -1.0


class Must3rTask:
    """Trains `StreamedClips` on scenes with depth; the interface is `Task`.

    kinds: name -> keyword arguments of `PosedClips.batch`. stages: in order; each lasts until a
    share of `max_steps` and draws a kind of batch per step by weight. size: pixels of the
    long side of the input. pixels: sampled per frame for the regression, at most all of them.
    alpha: as in `regression`. constructors: arguments of encoder and decoder, for the metadata.
    Raises InputError for scenes without depth or cameras.
    """

    def __init__(
        self,
        model: StreamedClips,
        train_clips: PosedClips | GeneratedPosedBatches,
        val_scenes: list[Scene],
        *,
        max_steps: int,
        size: int,
        kinds: dict[str, dict],
        stages: list[dict],
        pixels: int,
        alpha: float,
        match_weight: float,
        match_temperature: float,
        attention_weight: float,
        val_clips: int,
        val_frames: int,
        constructors: dict,
    ):
        self.model = model
        self._clips = train_clips
        self._kinds = {name: dict(arguments) for name, arguments in kinds.items()}
        self._stages = stages_in_steps(stages, max_steps)
        self._pixels = pixels
        self._alpha = alpha
        self._match_weight = match_weight
        self._match_temperature = match_temperature
        self._attention_weight = attention_weight
        self._constructors = constructors
        self._val = list(validation_clips(PosedClips(val_scenes, size), val_clips, val_frames))
        self._pictures: dict[str, np.ndarray] = {}

    def batch(self, rng: np.random.Generator, step: int) -> PosedBatch:
        """A batch of a kind that the stage of `step` draws."""
        self._clips.at_step(step)
        return self._clips.batch(rng, **self._kinds[draw_kind(rng, self._stages, step)])

    def losses(
        self, model: nn.Module, batch: PosedBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """The losses of the module's description, and the errors of points for the log."""
        raw, descriptors, attention = model(batch.images)
        local = batch.local_points()
        world = move(batch.camera_to_world, local)
        points = move(batch.reference_from_camera(), local)
        num_pixels = local.shape[2] * local.shape[3]
        count = min(self._pixels, num_pixels)  # pictures of scene folders may be thin
        sampled = torch.from_numpy(rng.choice(num_pixels, count, replace=False))
        sampled = sampled.to(raw.device)
        predicted = pointmaps(raw.flatten(2, 3)[:, :, sampled])
        losses, errors = regression(
            predicted,
            points.flatten(2, 3)[:, :, sampled],
            local.flatten(2, 3)[:, :, sampled],
            batch.depth.flatten(2)[:, :, sampled] > 0,
            self._alpha,
        )
        patch = self.model.encoder.patch_size
        match = matching_loss(descriptors.float(), batch, world, patch, self._match_temperature)
        attend = attention_loss(attention, batch, world, patch)
        total = (
            losses["points"]
            + losses["local"]
            + self._match_weight * match
            + self._attention_weight * attend
        )
        return {"total": total, **losses, "match": match, "attention": attend, **errors}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means of `clip_errors` over the validation clips; `score` is -`points_error`."""
        model = self.model.eval()
        device = next(model.parameters()).device
        rows = []
        for batch in self._val:
            batch = batch.to(device)
            raw = model(batch.images)[0]
            rows.append(clip_errors(pointmaps(raw), batch))
        self._pictures = {"val_depth": depths_of(pointmaps(raw), batch)}
        result = {name: float(torch.cat([row[name] for row in rows]).mean()) for name in rows[0]}
        return {"score": -result["points_error"], **result}

    def pictures(self) -> dict[str, np.ndarray]:
        """Images, true and predicted depth of the last batch of the validation, RGB uint8."""
        return self._pictures

    def weights(self) -> dict[str, Tensor]:
        """The whole model, the matching head included; `release --without matcher` removes it."""
        return self.model.state_dict()

    def metadata(self) -> dict:
        """What the model is, and the arguments that construct it."""
        return {
            "model": "must3r",
            "trained": "all parameters",
            **self._constructors,
        }
