"""The interface of memory strategies: the memory of one object since its latest prompt."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from geometry_fusion.tracking.memories.records import (
    Answer,
    Bank,
    Candidates,
    Choice,
    Kept,
    Memory,
    Pointer,
    Reading,
)


class ObjectMemory(ABC):
    """Decides what one object reads, from the prompt at `start` on, while tracking goes one way.

    Per frame it is called in this order: `look`, `read`, `choose`, `add`. `read` changes nothing,
    so that it can be asked again for the latest frame, which a click may correct.

    Prompts are given as time -> object score; the outputs of prompts are never dropped.
    """

    presence = 0.0  # object score above which masks are not blanked
    needs_views = False  # whether `look` is called
    delays = False  # whether later frames may change the masks of earlier ones

    def __init__(self, bank: Bank, start: int):
        self.bank, self.start = bank, start
        self.prunes = True  # whether facts that cannot be read any more are dropped

    def look(self, time: int, view) -> None:  # noqa: B027 - most strategies need no geometry
        """The geometry of the frame that is tracked next; None where it cannot be used."""

    @abstractmethod
    def read(self, time: int, prompts: Mapping[int, float]) -> list[Reading]:
        """What each pathway reads for a frame. Strategies without pathways have exactly one."""

    @abstractmethod
    def choose(self, time: int, decoded: list[Candidates]) -> list[Choice]:
        """The candidates that live on, the best first. decoded: by pathway."""

    @abstractmethod
    def add(self, time: int, answers: list[Answer]) -> list[int]:
        """Take in what was answered, in the order of `choose`. Returns nodes for their outputs;
        none without pathways.
        """

    @abstractmethod
    def kept(self) -> Kept:
        """What reads of the latest frame and of later ones may need."""

    @abstractmethod
    def snapshot(self) -> dict:
        """Everything as plain values and tensors."""

    @abstractmethod
    def restore(self, snapshot: dict) -> None:
        """Take over a `snapshot`."""


@dataclass(frozen=True)
class Seen:
    """The facts of one tracked frame."""

    iou: float
    score: float
    area: int
    motion: float | None = None  # box IoU with the prediction; None: nothing was predicted


class SinglePathway(ObjectMemory):
    """A strategy that follows one mask per frame."""

    def __init__(self, bank: Bank, start: int):
        super().__init__(bank, start)
        self.seen: dict[int, Seen] = {}  # by time, oldest first
        self.newest: int | None = None

    @abstractmethod
    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        """The spatial memories that are read for a frame."""

    def pointers(self, time: int, prompts: Iterable[int]) -> list[Pointer]:
        """The pointers that are read for a frame: SAM2's rule."""
        return sam2_pointers(self.bank, time, prompts, self.seen)

    def pick(self, time: int, candidates: Candidates) -> int:
        """The candidate that becomes the mask."""
        return candidates.best

    def note(self, time: int, answer: Answer) -> Seen:
        """The facts of a frame; strategies with more to remember do it here."""
        return Seen(answer.iou, answer.score, answer.area)

    def restart(self) -> None:
        """Forget what was tracked: tracking went back in time."""
        self.seen.clear()

    @abstractmethod
    def kept_memories(self) -> Iterable[int]:
        """Times whose spatial memories may still be read."""

    def read(self, time: int, prompts: Mapping[int, float]) -> list[Reading]:
        memories = self.memories(time, prompts)
        return [Reading(tuple(memories), tuple(self.pointers(time, prompts)))]

    def choose(self, time: int, decoded: list[Candidates]) -> list[Choice]:
        if self.newest is not None and time <= self.newest:
            self.restart()
        return [Choice(0, self.pick(time, decoded[0]))]

    def add(self, time: int, answers: list[Answer]) -> list[int]:
        self.newest = time
        self.seen[time] = self.note(time, answers[0])
        if self.prunes:
            kept = self.kept()
            facts = kept.memories | kept.pointers
            self.seen = {t: seen for t, seen in self.seen.items() if t in facts}
        return []

    def kept(self) -> Kept:
        if self.newest is None:
            return Kept(frozenset(), frozenset())
        # Reading the latest frame again needs one pointer more than reading the next one.
        oldest = self.newest - self.bank.pointers
        pointers = frozenset(t for t in self.seen if t >= oldest)
        return Kept(frozenset(self.kept_memories()), pointers)

    def before(self, time: int) -> list[int]:
        """Times of tracked frames before a frame, newest first."""
        return sorted((t for t in self.seen if t < time), reverse=True)

    def snapshot(self) -> dict:
        facts = {t: asdict(seen) for t, seen in self.seen.items()}
        return {"seen": facts, "newest": self.newest}

    def restore(self, snapshot: dict) -> None:
        self.seen = {t: Seen(**facts) for t, facts in snapshot["seen"].items()}
        self.newest = snapshot["newest"]


def by_rank(times: Iterable[int]) -> list[Memory]:
    """Memories of tracked frames whose time codes go by rank, the newest frame first in number;
    joined oldest first.
    """
    newest_first = sorted(times, reverse=True)
    return [Memory(time, code) for code, time in enumerate(newest_first)][::-1]


def prompt_memories(bank: Bank, prompts: Iterable[int]) -> list[Memory]:
    """Memories of prompted frames, which share one time code."""
    return [Memory(time, bank.of_prompts) for time in prompts]


def sam2_pointers(
    bank: Bank, time: int, prompts: Iterable[int], tracked: Iterable[int]
) -> list[Pointer]:
    """SAM2's rule: the pointers of prompts, and of up to `bank.pointers` frames before.

    prompts: those that are read; tracked: times that have a pointer.
    """
    known = set(tracked)
    ages = [time - t for t in prompts if t <= time or not bank.past_pointers]
    near = [age for age in range(1, bank.pointers + 1) if time - age in known]
    pointers = [Pointer(time - age, age if bank.signed else abs(age)) for age in ages]
    return pointers + [Pointer(time - age, age) for age in near]
