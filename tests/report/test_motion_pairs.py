"""Pictures of the pairs of frames that show that an object moves."""

import base64
import io

import numpy as np
from PIL import Image

from geometry_fusion.io.mask_writer import PALETTE
from geometry_fusion.motion import Decision
from geometry_fusion.motion.pairs import PairEvidence
from geometry_fusion.report.motion_pairs import HEIGHT, pair_pictures


class Frames(list):
    stems = [f"{index:02d}" for index in range(6)]
    size = (120, 80)


def ids_of(index: int) -> np.ndarray:
    """Object 2 slides to the right by 10 pixels a frame; object 1 stands still."""
    ids = np.zeros((80, 120), np.uint8)
    ids[5:15, 100:115] = 1
    ids[30:50, 10 + 10 * index : 30 + 10 * index] = 2
    return ids


def test_only_what_moves_is_shown_with_both_outlines():
    frames = Frames(np.full((80, 120, 3), 90, np.uint8) for _ in range(6))
    pair = PairEvidence(1, 4, 5.0, 1.5, 0.0, 0.0, "rigid", 0.1)
    decisions = {
        1: Decision(1, False, 0.1, "static", (pair,), 9),
        2: Decision(2, True, 2.0, "dynamic", (pair, pair), 9),
    }
    pictures = pair_pictures(decisions, frames, ids_of)
    assert [(p.object_id, p.frames, p.rho, p.z) for p in pictures] == [(2, (1, 4), 1.5, 5.0)] * 2
    kind, _, content = pictures[0].picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)
    assert picture.shape[0] == HEIGHT
    first, second = picture[:, : picture.shape[1] // 2 - 4], picture[:, picture.shape[1] // 2 + 4 :]

    def like(panel: np.ndarray, colour) -> np.ndarray:
        return (np.abs(panel - np.asarray(colour)).max(2) < 60).nonzero()[1]

    colour, white = PALETTE[2], (255, 255, 255)
    assert len(like(first, colour)) > 50 and len(like(second, colour)) > 50
    # Left in the first frame, right in the second; white is where it was.
    assert like(first, colour).mean() < like(second, colour).mean()
    assert len(like(first, white)) == 0 and len(like(second, white)) > 30
    assert abs(like(second, white).mean() - like(first, colour).mean()) < 20
