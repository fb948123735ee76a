"""Which annotated frames of one video are kept from training, to validate on.

Recipe:
* an object is prompted on the first annotated frame that shows it; these frames stay in training;
* every other annotated frame has a state for each object: `VIEW`, in view and never absent since
  the prompt; `AWAY`, absent; `BACK`, in view after an absence. Between two annotated frames
  nothing is known;
* consecutive frames of the same states are cut into short blocks. Whole blocks are held out, since
  the frames beside a trained one look alike. An object that is back only once has that time cut in
  two;
* first a block after an absence is held out for every object, then one in view, then, where there
  are frames enough, one of absence, each the middle one of its kind;
* the rest are blocks that show an object, spread over the video: as far as can be from what is
  held out already and from the prompts. Blocks that show none come last;
* of every state of every object about half of the blocks stay in training where there are enough
  frames, and at least one. The only block after an absence is held out.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

VIEW, AWAY, BACK = "in view", "away", "back"
ENOUGH = 6  # held-out frames, of which one may be of absence, which says least

Block = tuple[int, ...]  # numbers of consecutive annotated frames
Fact = tuple[int, str]  # an object and its state


def states_of(
    present: np.ndarray,  # [N] bool, whether annotated frames show an object
    prompt: int,  # the one that prompts it
) -> list[str]:
    """VIEW, AWAY or BACK of every annotated frame; before the prompt as tracking backwards goes."""
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
    """Annotated frames to validate on, sorted; fewer than `count` where there are no more."""
    states = [states_of(column, prompt) for column, prompt in zip(present.T, prompts)]
    choice = _Choice(states, blocks_of(states, set(prompts), max(1, int(count**0.5))))
    for state in (BACK, VIEW, AWAY) if count >= ENOUGH else (BACK, VIEW):
        for fact in choice.rarest_first(state):
            choice.cover(fact)
    for generous in (False, True):
        while len(choice.rows) < count and (blocks := choice.allowed(generous)):
            choice.blocks.append(_most_telling(blocks, present, [*prompts, *choice.rows]))
    return sorted(choice.rows[:count])


def blocks_of(states: list[list[str]], kept: set[int], length: int) -> list[Block]:
    """Consecutive annotated frames of the same states, at most `length`, without those in
    `kept`.
    """
    runs: list[Block] = []
    key_of = lambda row: (row in kept, [of[row] for of in states])  # noqa: E731
    for (is_kept, _), run in groupby(range(len(states[0])), key_of):
        if not is_kept:
            runs.append(tuple(run))
    back = [[run for run in runs if of[run[0]] == BACK] for of in states]
    only = {returns[0] for returns in back if len(returns) == 1}
    blocks = []
    for run in runs:
        step = min(length, (len(run) + 1) // 2) if run in only else length
        blocks += [run[start : start + step] for start in range(0, len(run), step)]
    return blocks


class _Choice:
    """The blocks that are held out so far, and those that may be as well."""

    def __init__(self, states: list[list[str]], candidates: list[Block]):
        self.blocks: list[Block] = []
        self._candidates = candidates
        self._facts = {
            block: {(i, of[block[0]]) for i, of in enumerate(states)} for block in candidates
        }
        self._totals = self._count(candidates)

    @property
    def rows(self) -> list[int]:
        return [row for block in self.blocks for row in block]

    def _count(self, blocks: list[Block]) -> Counter[Fact]:
        return Counter(fact for block in blocks for fact in self._facts[block])

    def rarest_first(self, state: str) -> list[Fact]:
        """The objects with that state; those with more blocks of it have more to choose from."""
        facts = [fact for fact in self._totals if fact[1] == state]
        return sorted(facts, key=lambda fact: (self._totals[fact], fact[0]))

    def cover(self, fact: Fact) -> None:
        """Hold out the middle one of the blocks with this fact, unless one is held out already."""
        if any(fact in self._facts[block] for block in self.blocks):
            return
        # An absence of another object is no reason not to validate a return.
        allowed = self.allowed(False, ignored=AWAY if fact[1] == BACK else "")
        blocks = [block for block in allowed if fact in self._facts[block]]
        if blocks:
            self.blocks.append(blocks[len(blocks) // 2])

    def allowed(self, generous: bool, ignored: str = "") -> list[Block]:
        """Blocks that may be held out as well; `generous`: also more than half of what there is.

        ignored: a state that is no reason to keep a block in training.
        """
        taken = self._count(self.blocks)

        def fits(block: Block) -> bool:
            facts = [fact for fact in self._facts[block] if fact[1] != ignored]
            return all(taken[f] < _at_most(f[1], self._totals[f], generous) for f in facts)

        return [block for block in self._candidates if block not in self.blocks and fits(block)]


def _at_most(state: str, blocks: int, generous: bool) -> int:
    """How many of the blocks of one state of one object may be held out."""
    if state == VIEW and generous:  # the prompted frame stays
        return blocks
    kept = 1 if generous else max(1, blocks // 2)
    return max(blocks - kept, 0 if state == AWAY else 1)


def _most_telling(blocks: list[Block], present: np.ndarray, known: list[int]) -> Block:
    """The block farthest from the frames `known`; one that shows an object if there is one."""

    def rank(block: Block) -> tuple[bool, int, int]:
        distance = min(abs(block[0] - row) for row in known)
        return bool(present[block[0]].any()), distance, block[0]

    return max(blocks, key=rank)
