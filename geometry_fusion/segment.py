"""From prompts to masks: one pass of a SAM2 video predictor over a clip, forwards and backwards.

`track` yields masks frame by frame in tracking order; nothing but SAM2's own state is kept in memory.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from geometry_fusion.devices import autocast
from geometry_fusion.mask_files import overlay, read_ids, write_mask, write_palette_mask
from geometry_fusion.types import Prompt
from geometry_fusion.video import VideoWriter

MASK_SUFFIXES = (".png",)


@torch.inference_mode()
def track(
    predictor,
    frames,  # sequence of RGB [H, W, 3] uint8 with .size (width, height)
    prompts: Sequence[Prompt],
    precision: str = "auto",
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (frame index, ids [H, W] uint8) once for every frame: from the first prompted frame on, then backwards.

    Where masks overlap the most confident object wins. Raises InputError when a prompt does not fit the frames.
    """
    for prompt in prompts:
        prompt.check(frames.size, len(frames))
    with autocast(predictor.device, precision):
        state = predictor.init_state(frames)
        for prompt in prompts:
            _add(predictor, state, prompt)
        first = min(prompt.frame for prompt in prompts)
        for index, ids, logits in predictor.propagate_in_video(state, start_frame_idx=first):
            yield index, id_image(ids, logits)
        if first > 0:
            for index, ids, logits in predictor.propagate_in_video(state, start_frame_idx=first, reverse=True):
                if index != first:
                    yield index, id_image(ids, logits)


def _add(predictor, state, prompt: Prompt) -> None:
    where = {"inference_state": state, "frame_idx": prompt.frame, "obj_id": prompt.object_id}
    if prompt.mask is not None:
        predictor.add_new_mask(**where, mask=prompt.mask)
        return
    points = np.array([*prompt.points, *prompt.negatives], np.float32).reshape(-1, 2)
    labels = np.array([1] * len(prompt.points) + [0] * len(prompt.negatives), np.int32)
    given = {"points": points, "labels": labels} if len(points) else {}
    predictor.add_new_points_or_box(**where, **given, box=prompt.box)


def id_image(object_ids: Sequence[int], logits: torch.Tensor) -> np.ndarray:
    """Mask logits [O, 1, H, W] of `object_ids` -> ids [H, W] uint8, 0 where no object has a positive logit."""
    best, index = logits[:, 0].float().max(0)
    ids = torch.tensor(list(object_ids), dtype=torch.uint8, device=logits.device)[index]
    return torch.where(best > 0, ids, 0).to(torch.uint8).cpu().numpy()


def write_masks_and_video(
    predictor,
    frames,  # sequence of RGB [H, W, 3] uint8 with .size, .stems and .frame_rate
    prompts: Sequence[Prompt],
    masks: Path,  # an existing, empty folder
    video: Path,
    precision: str = "auto",
) -> float:
    """Track `prompts`, write a mask PNG per frame and the overlay video, return the seconds per frame of tracking.

    One object gives 0/255 masks, several give palette PNGs whose index is the object id.
    """
    several = len({prompt.object_id for prompt in prompts}) > 1
    write = write_palette_mask if several else lambda file, ids: write_mask(file, ids > 0)
    began = time.perf_counter()
    for index, ids in track(predictor, frames, prompts, precision):  # SAM2 shows its own progress bar
        write(masks / f"{frames.stems[index]}.png", ids)
    seconds = (time.perf_counter() - began) / len(frames)
    object_id = prompts[0].object_id
    with VideoWriter(video, frames.frame_rate, frames.size) as writer:
        for index, stem in enumerate(frames.stems):
            ids = read_ids(masks / f"{stem}.png")
            # A single object keeps the colour of its id, though its mask says only yes or no.
            writer.write(overlay(frames[index], ids if several else (ids > 0) * object_id))
    return seconds
