"""Which annotated frames of one video are kept from training, to validate on.

Recipe:
* An object is prompted on the first annotated frame that shows it. These frames stay in training.
* Every other annotated frame has a state for each object: `VIEW`, in view and never absent since
  the prompt; `AWAY`, absent; `BACK`, in view after an absence. Between two annotated frames nothing
  is assumed.
* Consecutive frames of the same states are cut into short blocks. Whole blocks are held out,
  because the frames beside a trained one look like it. If an object is back only once, that span is
  cut in two.
* First, for every object, a block after an absence is held out, then one in view, then, if there
  are enough frames, one of absence; each time the middle one of its kind.
* The rest are blocks that show an object, spread over the video: as far as possible from the
  prompts and from what is held out already. Blocks that show no object come last.
* Of every state of every object about half of the blocks stay in training if there are enough
  frames, and at least one. The only block after an absence is held out.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

VIEW, AWAY, BACK = "in view", "away", "back"
ENOUGH = 6  # held-out frames from which on one may show absence, the least informative state

Block = tuple[int, ...]  # consecutive positions in the list of annotated frames
Fact = tuple[int, str]  # position of an object, and one of its states


def states_of(
    present: np.ndarray,  # [N] bool, whether the annotated frames show the object
    prompt: int,  # position of the frame that prompts it
) -> list[str]:
    """VIEW, AWAY or BACK of every annotated frame.

    Frames before the prompt are seen as tracking sees them: backwards from it.
    """
    states = []
    for row, here in enumerate(present):
        since_prompt = present[min(row, prompt) : max(row, prompt) + 1]
        if not here:
            states.append(AWAY)
        else:
            states.append(VIEW if since_prompt.all() else BACK)
    return states


def hold_out(
    present: np.ndarray,  # [N, O] bool, whether annotated frames show objects
    prompts: Sequence[int],  # position of the frame that prompts each object, [O]
    count: int,  # how many frames to hold out
) -> list[int]:
    """Positions of the annotated frames to validate on, sorted.

    Fewer than `count` if the recipe allows no more.
    """
    states = [states_of(column, prompt) for column, prompt in zip(present.T, prompts)]
    block_length = max(1, int(count**0.5))
    choice = _Choice(states, blocks_of(states, set(prompts), block_length))
    for state in (BACK, VIEW, AWAY) if count >= ENOUGH else (BACK, VIEW):
        for fact in choice.rarest_first(state):
            choice.cover(fact)
    for generous in (False, True):
        while len(choice.rows) < count and (blocks := choice.allowed(generous)):
            choice.blocks.append(_farthest(blocks, present, [*prompts, *choice.rows]))
    return sorted(choice.rows[:count])


def blocks_of(
    states: list[list[str]],  # of each object, of every annotated frame
    kept: set[int],  # positions of frames that stay in training
    length: int,  # of a block, at most
) -> list[Block]:
    """Consecutive annotated frames of the same states, cut to `length`, without those `kept`."""

    def states_at(row: int) -> tuple:
        return row in kept, [object_states[row] for object_states in states]

    runs: list[Block] = []
    for (is_kept, _), run in groupby(range(len(states[0])), states_at):
        if not is_kept:
            runs.append(tuple(run))
    only_returns = set()  # runs in which an object is back for the only time
    for object_states in states:
        returns = [run for run in runs if object_states[run[0]] == BACK]
        if len(returns) == 1:
            only_returns.add(returns[0])
    blocks = []
    for run in runs:
        step = min(length, (len(run) + 1) // 2) if run in only_returns else length
        blocks += [run[start : start + step] for start in range(0, len(run), step)]
    return blocks


class _Choice:
    """The blocks that are held out so far, and the rules for further ones."""

    def __init__(self, states: list[list[str]], candidates: list[Block]):
        self.blocks: list[Block] = []
        self._candidates = candidates
        self._facts = {
            block: {(i, object_states[block[0]]) for i, object_states in enumerate(states)}
            for block in candidates
        }
        self._totals = self._count(candidates)

    @property
    def rows(self) -> list[int]:
        """Positions of the held-out frames."""
        return [row for block in self.blocks for row in block]

    def _count(self, blocks: list[Block]) -> Counter[Fact]:
        return Counter(fact for block in blocks for fact in self._facts[block])

    def rarest_first(self, state: str) -> list[Fact]:
        """The objects that have `state`, those with the fewest blocks of it first.

        Objects with more blocks have more to choose from, so they can wait.
        """
        facts = [fact for fact in self._totals if fact[1] == state]
        return sorted(facts, key=lambda fact: (self._totals[fact], fact[0]))

    def cover(self, fact: Fact) -> None:
        """Hold out the middle one of the blocks with this fact, unless one is held out already."""
        if any(fact in self._facts[block] for block in self.blocks):
            return
        # Returns matter most: they may use up blocks in which another object is absent.
        allowed = self.allowed(False, ignored=AWAY if fact[1] == BACK else "")
        blocks = [block for block in allowed if fact in self._facts[block]]
        if blocks:
            self.blocks.append(blocks[len(blocks) // 2])

    def allowed(self, generous: bool, ignored: str = "") -> list[Block]:
        """Blocks that may be held out in addition.

        generous: also more than half of the blocks of a state. ignored: a state whose limit does
        not apply.
        """
        taken = self._count(self.blocks)

        def fits(block: Block) -> bool:
            facts = [fact for fact in self._facts[block] if fact[1] != ignored]
            return all(taken[fact] < self._limit(fact, generous) for fact in facts)

        return [block for block in self._candidates if block not in self.blocks and fits(block)]

    def _limit(self, fact: Fact, generous: bool) -> int:
        """How many of the blocks with this fact may be held out."""
        state, total = fact[1], self._totals[fact]
        if state == VIEW and generous:  # the prompted frame shows it too, and stays
            return total
        kept = 1 if generous else max(1, total // 2)
        return max(total - kept, 0 if state == AWAY else 1)


def _farthest(blocks: list[Block], present: np.ndarray, taken: list[int]) -> Block:
    """The block farthest from the frames `taken`, of those that show an object if any does."""

    def rank(block: Block) -> tuple[bool, int, int]:
        distance = min(abs(block[0] - row) for row in taken)
        return bool(present[block[0]].any()), distance, block[0]

    return max(blocks, key=rank)
