"""Which annotated frames are validated on, drawn as text: P in view, A absent; small: held out."""

import numpy as np
import pytest

from geometry_fusion.data.hold_out import AWAY, BACK, VIEW, hold_out, states_of


def table(*objects: str) -> np.ndarray:
    return np.array([[letter == "P" for letter in line] for line in objects]).T


def drawn(count: int, *objects: str) -> list[str]:
    """The objects with held-out frames in small letters; prompted where they are first in view."""
    present = table(*objects)
    rows = hold_out(present, present.argmax(0).tolist(), count)
    return ["".join(c.lower() if i in rows else c for i, c in enumerate(line)) for line in objects]


@pytest.mark.parametrize(
    "count, objects, expected",
    [
        (4, ["PPPPPAAPPPPPPP"], ["PPPppAAPPPPppP"]),  # back once: validated, and trained on as well
        (2, ["PAAP"], ["PAap"]),  # the only frame after the absence is for validation
        (2, ["PAPAP"], ["PAPap"]),  # two returns: one for either part
        (3, ["PPPPPPPPPPPP"], ["PPPpPPpPPPPp"]),  # spread, not the last quarter
        (2, ["AAPPPAAPP"], ["AAPPpAAPp"]),  # absent at first is no absence to come back from
        (3, ["PPPPAAPPPPP", "AAPPPPAPAPP"], ["PPPpAApPPpP", "AAPpPPaPApP"]),
        (2, ["PPAAPP", "PPPPAP"], ["PpAAPp", "PpPPAp"]),
    ],
)
def test_held_out_blocks_say_whether_the_object_is_found_again(count, objects, expected):
    assert drawn(count, *objects) == expected


def test_every_frame_annotated_gives_several_long_blocks():
    line = drawn(15, "P" * 11 + "A" * 26 + "P" * 14 + "A" * 9)[0]
    assert line == "PPPPpPPpppPAAAAAAAAAAAAAAAAAAaaaAAAAApppPPPpppPPPppAAAAAAAAA"


@pytest.mark.parametrize("objects", [1, 3])
def test_whatever_is_annotated_prompts_stay_in_training_and_returns_are_in_both_parts(objects):
    rng = np.random.default_rng(0)
    for _ in range(300):
        frames = int(rng.integers(4, 40))
        present = np.cumsum(rng.random((frames, objects)) < 0.3, 0) % 2 == 0
        present[rng.integers(frames, size=objects), range(objects)] = True
        prompts, count = present.argmax(0).tolist(), max(2, round(frames / 4))
        rows = hold_out(present, prompts, count)
        assert rows == sorted(set(rows) - set(prompts)) and len(rows) <= count
        back = [i for i, state in enumerate(states_of(present[:, 0], prompts[0])) if state == BACK]
        back = [i for i in back if i not in prompts]
        if objects == 1 and back:
            assert set(back) & set(rows), (present[:, 0], rows)
            assert len(back) == 1 or set(back) - set(rows), (present[:, 0], rows)


def test_states_are_told_from_the_prompt_on_both_sides():
    states = states_of(table("PAPPAP")[:, 0], 3)
    assert states == [BACK, AWAY, VIEW, VIEW, AWAY, BACK]
