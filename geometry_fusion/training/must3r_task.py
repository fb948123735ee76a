"""Training MUSt3R on posed clips, through the calls that inference makes.

The first two frames of a clip are decoded together, every later one reads the memory and extends
it: what an image
attends to is gathered by the memory itself, nothing is masked. Losses:
* confidence-weighted regression of `pts3d` and `pts3d_local` (MUSt3R, arXiv 2503.01661, section 3;
DUSt3R's loss):
  C |x / s - X / S| - alpha log C, on a random subset of pixels. Prediction and truth are each
  divided by their own mean
  distance to the reference camera over the clip, the same s for both maps of a clip;
* two auxiliary losses on correspondence, between tokens that see the same point: InfoNCE over
encoder tokens of
  consecutive frames, through a projection that is not shipped, and the same over the attention to
  memory of a few heads
  in the middle of the decoder. Without the latter the network settled on the identity pose for
  2,400 steps: with much
  overlap that is nearly right, and matching in order to copy places does not start by itself.

Queries and keys of the decoder's cross-attentions start with shared weights: attention begins as
similarity.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R, camera_to_world, pointmaps
from geometry_fusion.must3r.layers import split_heads
from geometry_fusion.must3r.postprocess import Pointmaps
from geometry_fusion.training.posed_clips import (
    PosedBatch,
    PosedClips,
    clip,
    move,
    project,
    to_batch,
)


class StreamedClips(nn.Module):
    """Encoder and decoder run over clips as a stream would, plus the matching head that only
    training needs.

    guided_layers, guided_heads: whose attention to memory is reported, for the loss on
    correspondence.
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
        queries, keys, _ = args
        q = split_heads(module.projq(queries), module.num_heads)[:, : self._guided_heads]
        k = split_heads(keys, module.num_heads)[:, : self._guided_heads]
        self._attention[number].append(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """[B, T, 3, H, W] -> raw maps [B, T, H, W, 7], matching descriptors [B, T, N, match_dim] of
        length 1, and per frame the logits of guided attention [B, layers * heads, N, M]; M are the
        tokens of `frames_read(t)`.
        """
        self._attention = [[] for _ in range(self._num_guided)]
        batch, frames = images.shape[:2]
        tokens, positions = self.encoder(images.flatten(0, 1))
        descriptors = normalize(self.matcher(tokens), dim=-1).unflatten(0, (batch, frames))
        tokens, positions = (
            tokens.unflatten(0, (batch, frames)),
            positions.unflatten(0, (batch, frames)),
        )
        shape = torch.tensor(images.shape[-2:], device=images.device).expand(batch, frames, 2)
        memory, maps = None, []
        for call in (slice(0, 2), *(slice(i, i + 1) for i in range(2, frames))):
            memory, raw = self.decoder(tokens[:, call], positions[:, call], shape[:, call], memory)
            maps.append(raw)
        attention = [torch.cat(layers, 1) for layers in zip(*self._attention)]
        return torch.cat(maps, 1), descriptors, attention


def frames_read(t: int) -> list[int]:
    """The frames whose tokens frame t of a clip attends to, in the order of memory."""
    return [1] if t == 0 else list(range(t))


def start_weights(model: StreamedClips) -> None:
    """ViT initialisation, and a head that starts with points one to two units ahead and low
    confidence.
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


def scale_of(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance to the reference camera of [B, ..., 3] where valid: [B]."""
    distance = points.norm(dim=-1) * valid
    return (distance.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)).clamp(min=1e-6)


def regression(
    found: Pointmaps, points: Tensor, local: Tensor, valid: Tensor, alpha: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weighted losses, and the plain errors relative to the clip's mean distance, of [B, T, P]
    pixels.
    """
    expand = (slice(None), None, None, None)
    own, true = scale_of(found.points, valid), scale_of(points, valid)
    count = valid.sum().clamp(min=1)
    losses, errors = {}, {}
    for name, a, b in (("points", found.points, points), ("local", found.local, local)):
        error = (a / own[expand] - b / true[expand]).norm(dim=-1)
        losses[name] = (
            (found.confidence * error - alpha * found.confidence.log()) * valid
        ).sum() / count
        errors[f"{name}_error"] = (error * valid).sum().detach() / count
    return losses, errors


def matching_loss(
    descriptors: Tensor, batch: PosedBatch, points: Tensor, patch: int, temperature: float
) -> Tensor:
    """InfoNCE of tokens over consecutive frames, both ways. points: [B, T, S, S, 3] in the
    world.
    """
    middle = points[:, :, patch // 2 :: patch, patch // 2 :: patch].flatten(2, 3)  # [B, T, N, 3]
    columns = points.shape[3] // patch
    logits, targets = [], []
    for a, b in ((slice(0, -1), slice(1, None)), (slice(1, None), slice(0, -1))):
        pixels, seen = project(
            middle[:, a].flatten(0, 1),
            batch.depth[:, b].flatten(0, 1),
            batch.camera_to_world[:, b].flatten(0, 1),
            batch.intrinsics[:, b].flatten(0, 1),
        )
        cell = ((pixels + 0.5) / patch).long()
        similarity = descriptors[:, a].flatten(0, 1) @ descriptors[:, b].flatten(0, 1).transpose(
            1, 2
        )
        logits.append(similarity[seen] / temperature)
        targets.append((cell[..., 1] * columns + cell[..., 0])[seen])
    logits, targets = torch.cat(logits), torch.cat(targets)
    return cross_entropy(logits, targets) if len(targets) else descriptors.sum() * 0


def attention_loss(
    attention: list[Tensor], batch: PosedBatch, points: Tensor, patch: int
) -> Tensor:
    """How little of the guided attention goes to memory tokens that see the same point: mean of
    -log(share).

    attention: per frame [B, heads, N, M]. points: [B, T, H, W, 3] in the world. Tokens without a
    match do not count.
    """
    middle = points[:, :, patch // 2 :: patch, patch // 2 :: patch]
    rows, columns = middle.shape[2:4]
    middle = middle.flatten(2, 3)  # [B, T, N, 3]
    losses = []
    for t, logits in enumerate(attention):
        matches = []
        for s in frames_read(t):
            pixels, seen = project(
                middle[:, t], batch.depth[:, s], batch.camera_to_world[:, s], batch.intrinsics[:, s]
            )
            cell = ((pixels + 0.5) / patch).long().clamp(min=0)
            target = cell[..., 1].clamp(max=rows - 1) * columns + cell[..., 0].clamp(
                max=columns - 1
            )
            matches.append(one_hot(target, rows * columns).bool() & seen[..., None])
        matches = torch.cat(matches, -1)[:, None]  # [B, 1, N, M]
        found = logits.float().masked_fill(~matches, -torch.inf).logsumexp(-1)
        share = logits.float().logsumexp(-1) - found
        losses.append(share[matches.any(-1).expand_as(share)])
    losses = torch.cat(losses)
    return losses.mean() if len(losses) else points.sum() * 0


class Must3rTask:
    """Trains `StreamedClips` on scenes with depth; see geometry_fusion.training.loop.Task for the
    interface.

    kinds: name -> keyword arguments of `PosedClips.batch`; stages: in order, each lasts until a
    share of `max_steps` and draws a kind of batch per step by weight.
    """

    def __init__(
        self,
        model: StreamedClips,
        train_scenes: list[Scene],
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
        self._clips = PosedClips(train_scenes, size)
        self._kinds = {name: dict(arguments) for name, arguments in kinds.items()}
        self._stages = [(stage["until"] * max_steps, dict(stage["weights"])) for stage in stages]
        self._pixels, self._alpha = pixels, alpha
        self._match_weight, self._match_temperature = match_weight, match_temperature
        self._attention_weight, self._constructors = attention_weight, constructors
        # Frames that follow each other on the walk, as a stream meets them.
        self._val = list(validation_clips(PosedClips(val_scenes, size), val_clips, val_frames))
        self._pictures: dict[str, np.ndarray] = {}

    def batch(self, rng: np.random.Generator, step: int) -> PosedBatch:
        weights = next((w for until, w in self._stages if step < until), self._stages[-1][1])
        shares = np.array(list(weights.values())) / sum(weights.values())
        return self._clips.batch(rng, **self._kinds[str(rng.choice(list(weights), p=shares))])

    def losses(
        self, model: nn.Module, batch: PosedBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        raw, descriptors, attention = model(batch.images)
        local = batch.local_points()
        world = move(batch.camera_to_world, local)
        points = move(batch.reference_from_camera(), local)
        chosen = torch.from_numpy(
            rng.choice(local.shape[2] * local.shape[3], self._pixels, replace=False)
        )
        chosen = chosen.to(raw.device)
        some = [t.flatten(2, 3)[:, :, chosen] for t in (raw, points, local)]
        valid = batch.depth.flatten(2)[:, :, chosen] > 0
        losses, errors = regression(pointmaps(some[0]), some[1], some[2], valid, self._alpha)
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
        """Errors relative to the clip's mean distance, pose errors; `score` is minus the global
        error.
        """
        model = self.model.eval()
        device = next(model.parameters()).device
        rows = []
        for batch in self._val:
            batch = batch.to(device)
            raw = model(batch.images)[0]
            rows.append(clip_errors(pointmaps(raw), batch))
        self._pictures = {"val_depth": _depths(pointmaps(raw), batch)}
        result = {name: float(torch.cat([row[name] for row in rows]).mean()) for name in rows[0]}
        return {"score": -result["points_error"], **result}

    def pictures(self) -> dict[str, np.ndarray]:
        """Of the last validation clips: images, depth and true depth, RGB uint8."""
        return self._pictures

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def metadata(self) -> dict:
        return {
            "model": "must3r",
            "trained": "all parameters, from random weights",
            **self._constructors,
        }


def clip_errors(found: Pointmaps, batch: PosedBatch) -> dict[str, Tensor]:
    """Per frame [B, T]: errors of points and local points relative to the clip's mean distance,
    pose errors.

    Prediction and truth are divided by their own mean distance. `rotation_error` is in degrees,
    `centre_error` in mean distances of the clip.
    """
    local = batch.local_points()
    poses = batch.reference_from_camera()
    points, valid = move(poses, local), batch.depth > 0
    own, true = scale_of(found.points, valid), scale_of(points, valid)
    count = valid.flatten(2).sum(2).clamp(min=1)
    wide = (slice(None), None, None, None, None)
    result = {}
    compared = (
        ("points_error", found.points, points),
        ("local_error", found.local, local),
        ("identity_error", found.local, points),  # of a network that ignores how the camera moved
    )
    for name, a, b in compared:
        error = (a / own[wide] - b / true[wide]).norm(dim=-1) * valid
        result[name] = error.flatten(2).sum(2) / count
    estimated = camera_to_world(found.local, found.points, found.confidence)
    relative = estimated[..., :3, :3].transpose(-2, -1) @ poses[..., :3, :3]
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    result["rotation_error"] = torch.rad2deg(cosine.clamp(-1, 1).acos())
    centres = estimated[..., :3, 3] / own[:, None, None] - poses[..., :3, 3] / true[:, None, None]
    result["centre_error"] = centres.norm(dim=-1)
    return result


def validation_clips(
    clips: PosedClips, count: int, frames: int, per_batch: int = 8
) -> Iterable[PosedBatch]:
    """`count` clips, evenly over scenes, of `frames` frames that follow each other on the walk,
    unaugmented.
    """
    numbers = np.unique(
        np.linspace(0, len(clips.scenes) - 1, min(count, len(clips.scenes))).astype(int)
    )
    repeats = -(-count // len(numbers))
    drawn = []
    for repeat in range(repeats):
        for number in numbers:
            scene = clips.loaded(int(number))
            if len(scene.images) < frames:
                raise InputError(
                    f"{clips.scenes[number].folder}: has {len(scene.images)} frames, fewer than "
                    f"validation.val_frames={frames}; lower it"
                )
            start = repeat * (len(scene.images) - frames) // max(repeats - 1, 1)
            indices = list(range(start, start + frames))
            drawn.append(
                (clip(scene, indices), f"{clips.scenes[number].folder.name} frames {indices}")
            )
    drawn = drawn[:count]
    for start in range(0, len(drawn), per_batch):
        part = drawn[start : start + per_batch]
        yield to_batch([arrays for arrays, _ in part], [source for _, source in part])


def _depths(found: Pointmaps, batch: PosedBatch, rows: int = 3) -> np.ndarray:
    lines = []
    for b in range(min(rows, len(batch.images))):
        images = ((batch.images[b].permute(0, 2, 3, 1) + 1) * 127.5).byte()
        truth = batch.depth[b] / batch.depth[b].max()
        depth = found.local[b, ..., 2] / found.local[b, ..., 2].max().clamp(min=1e-6)
        for picture in (
            images,
            *(
                (d.clamp(0, 1) * 255).byte()[..., None].expand(-1, -1, -1, 3)
                for d in (truth, depth)
            ),
        ):
            lines.append(torch.cat(list(picture), 1))
    return torch.cat(lines).cpu().numpy()
