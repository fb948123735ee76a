"""Mask prompts that are small at the model's size: something is left of them, and large ones are as
in SAM2.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import sam2_model
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.small_masks import keep_small_parts, resized_mask, small_mask_warnings
from geometry_fusion.types import Prompt
from tests.conftest import pairs


def box_mask(height: int, width: int, rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def test_large_masks_are_resized_as_by_sam2():
    mask = box_mask(480, 640, slice(100, 300), slice(50, 400))
    wanted = (
        interpolate(mask[None, None].float(), size=(256, 256), mode="bilinear", antialias=True)[
            0, 0
        ]
        >= 0.5
    )
    assert torch.equal(resized_mask(mask, 256), wanted)
    square = box_mask(256, 256, slice(0, 1), slice(0, 1))
    assert resized_mask(square, 256) is square


@pytest.mark.parametrize(
    "size, rows, columns",
    [
        ((720, 1280), slice(350, 362), slice(600, 612)),
        ((1080, 1920), slice(20, 44), slice(1890, 1914)),
        ((720, 1280), slice(100, 101), slice(0, 900)),  # a line
        ((2160, 3840), slice(7, 8), slice(9, 10)),  # one pixel
    ],
)
def test_small_masks_keep_their_area_and_place(size, rows, columns):
    mask = box_mask(*size, rows, columns)
    resized = resized_mask(mask, 256)
    area = float(mask.float().mean()) * 256**2
    assert max(1, area / 2) <= int(resized.sum()) <= 4 + 3 * area
    y, x = np.argwhere(resized.numpy()).mean(0)
    centre = np.argwhere(mask.numpy()).mean(0) / size * 256
    assert abs(y - centre[0]) < 1 and abs(x - centre[1]) < 1
    logits = interpolate(
        resized[None, None] * 20.0 - 10.0, size=(64, 64), mode="bilinear", antialias=True
    )
    kept = keep_small_parts(logits, resized[None, None].float())
    assert (kept > 0).sum() * 16 >= resized.sum() / 2


def test_each_mask_of_a_batch_is_judged_alone():
    masks = torch.stack(
        [box_mask(64, 64, slice(8, 40), slice(8, 40)), box_mask(64, 64, slice(5, 6), slice(5, 6))]
    )
    masks = masks[:, None].float()
    logits = interpolate(masks * 20 - 10, size=(16, 16), mode="bilinear", antialias=True)
    kept = keep_small_parts(logits, masks)
    assert torch.equal(kept[0], logits[0])
    assert not (logits[1] > 0).any() and np.argwhere(kept[1, 0].numpy() > 0).tolist() == [[1, 1]]


def test_a_small_mask_reaches_the_memory_and_the_answer():
    mask = box_mask(720, 1280, slice(350, 362), slice(600, 612)).numpy()
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    encoded = []
    predictor.memory_encoder.register_forward_pre_hook(
        lambda module, inputs: encoded.append(inputs[1])
    )
    session = open_session(predictor)
    session.add(Prompt(0, 1, mask=mask))
    answers = [ids for _, ids in pairs(session.track(iter([image])))]
    assert np.array_equal(answers[0] == 1, mask)
    assert (encoded[0] > 0).any()


def test_masks_too_small_to_track_are_named():
    small = box_mask(720, 1280, slice(350, 362), slice(600, 612)).numpy()
    large = box_mask(720, 1280, slice(300, 400), slice(600, 700)).numpy()
    prompts = [
        Prompt(0, 1, mask=large),
        Prompt(0, 3, mask=small, source="--mask m.png"),
        Prompt(0, 4, points=((1, 1),)),
    ]
    (line,) = small_mask_warnings(prompts, 256)
    assert line.startswith("--mask m.png: object 3 covers 10 pixels of the 256x256")
    assert small_mask_warnings(prompts, 1024) == []
