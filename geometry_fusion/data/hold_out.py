"""Which annotated frames of one video are kept from training, to validate on.

Recipe:
* an object is prompted on the first annotated frame that shows it; these frames stay in training;
* every other annotated frame has a state for each object: `VIEW`, in view and never absent since the prompt; `AWAY`,
  absent; `BACK`, in view after an absence. Between two annotated frames nothing is known;
* consecutive frames of the same states are cut into short blocks. Whole blocks are held out, since the frames beside a
  trained one look alike. An object that is back only once has that time cut in two;
* first a block after an absence is held out for every object, then one in view, then, where there are frames enough,
  one of absence, each the middle one of its kind; the rest are blocks that show an object, spread over the video: as
  far from what is held out already and from the prompts as can be; blocks that show none come last;
* of every state of every object about half of the blocks stay in training where there are enough frames, and at least
  one. The only block after an absence is held out.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

VIEW, AWAY, BACK = "in view", "away", "back"
ENOUGH = 6  # held-out frames, of which one may be of absence, which says least


def states_of(
    present: np.ndarray,  # [N] bool, whether annotated frames show an object
    prompt: int,  # the one that prompts it
) -> list[str]:
    """VIEW, AWAY or BACK of every annotated frame; before the prompt, as tracking backwards meets them."""
    states = []
    for row, here in enumerate(present):
        between = present[min(row, prompt) : max(row, prompt) + 1]
        states.append(AWAY if not here else VIEW if between.all() else BACK)
    return states


def hold_out(
    present: np.ndarray,  # [N, O] bool
    prompts: Sequence[int],  # of every object the frame that prompts it
    count: int,  # how many frames to hold out
) -> list[int]:
    """Annotated frames to validate on, sorted; fewer than `count` where prompts and absences leave no more."""
    states = [states_of(column, prompt) for column, prompt in zip(present.T, prompts)]
    blocks = blocks_of(states, set(prompts), max(1, int(count**0.5)))
    # What a block can say: the states of the objects.
    facts = {block: {(i, of[block[0]]) for i, of in enumerate(states)} for block in blocks}
    totals = Counter(fact for block in blocks for fact in facts[block])
    chosen: list[tuple[int, ...]] = []

    def allowed(generous: bool, ignored: str = "") -> list[tuple[int, ...]]:
        """Blocks that may be held out as well; `generous` where that takes more than half of what there is. ignored: a
        state that is no reason to keep a block in training."""
        taken = Counter(fact for block in chosen for fact in facts[block])
        limit = lambda fact: at_most(fact[1], totals[fact], generous)  # noqa: E731
        fits = lambda block: all(taken[f] < limit(f) for f in facts[block] if f[1] != ignored)  # noqa: E731
        return [block for block in blocks if block not in chosen and fits(block)]

    for state in (BACK, VIEW, AWAY) if count >= ENOUGH else (BACK, VIEW):
        # The rarest first: others have more to choose from.
        for fact in sorted((fact for fact in totals if fact[1] == state), key=lambda fact: (totals[fact], fact[0])):
            found = [block for block in allowed(False, AWAY if state == BACK else "") if fact in facts[block]]
            if found and not any(fact in facts[block] for block in chosen):
                chosen.append(found[len(found) // 2])
    for generous in (False, True):
        while sum(map(len, chosen)) < count and (found := allowed(generous)):
            chosen.append(most_telling(found, present, [*prompts, *(row for block in chosen for row in block)]))
    return sorted([row for block in chosen for row in block][:count])


def most_telling(blocks: list[tuple[int, ...]], present: np.ndarray, known: list[int]) -> tuple[int, ...]:
    """The block farthest from the frames `known`; one that shows an object if there is one."""

    def rank(block: tuple[int, ...]) -> tuple[bool, int, int]:
        return bool(present[block[0]].any()), min(abs(block[0] - row) for row in known), block[0]

    return max(blocks, key=rank)


def at_most(state: str, blocks: int, generous: bool) -> int:
    """How many of the blocks of one state of one object may be held out."""
    if state == VIEW and generous:  # the prompted frame stays
        return blocks
    kept = 1 if generous else max(1, blocks // 2)
    return max(blocks - kept, 0 if state == AWAY else 1)


def blocks_of(states: list[list[str]], kept: set[int], length: int) -> list[tuple[int, ...]]:
    """Consecutive annotated frames of the same states, at most `length` of them, without those in `kept`."""
    rows = range(len(states[0]))
    runs: list[tuple[int, ...]] = []
    for key, run in groupby(rows, lambda row: (row in kept, [of[row] for of in states])):
        if not key[0]:
            runs.append(tuple(run))
    back = [[run for run in runs if of[run[0]] == BACK] for of in states]
    only = {found[0] for found in back if len(found) == 1}
    blocks = []
    for run in runs:
        step = min(length, (len(run) + 1) // 2) if run in only else length
        blocks += [run[start : start + step] for start in range(0, len(run), step)]
    return blocks
