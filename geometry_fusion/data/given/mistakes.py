"""Which classic mistake explains geometry that contradicts itself.

Each mistake is undone as a trial, and the test of `consistency` is made again. The one that makes
nearly all contradictions go away is the one that was made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from geometry_fusion.data.given.consistency import TOLERANCE, Agreement, Probe, agreement

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: y up and z backwards
# Share of contradictions from which a mistake is looked for. True depth has none, depth with 5% of
# noise 2%.
SUSPICIOUS = 0.03
SUSPICIOUS_MISS = 0.01  # likewise: mean relative difference of depths that agree
FEWER = 1 / 3  # part of either that geometry may keep when its mistake is undone
# Another scale is also right where it has this share of agreement and so many times more points
# that agree: with far too small depth, frames just look past each other.
CLEAR, MORE = 0.98, 1.3
SCALES = np.geomspace(1e-4, 1e4, 47)  # factors on depth that are tried first
LARGER = (3.0, 10.0, 100.0)  # factors on depth that show whether it is far too small
FINER = (1.2, 1.05, 1.015)  # steps of further trials around the best one
TRIAL_POINTS = 60  # of a frame, while factors are tried
TRIAL_PAIRS = 40  # of frames


@dataclass(frozen=True)
class Mistake:
    """A mistake whose undoing makes geometry agree."""

    reading: str  # how the geometry agrees: "with its poses inverted"
    cure: str
    reached: Agreement  # when read in this way


@dataclass(frozen=True)
class Trial:
    """The geometry, read in another way."""

    reading: str
    cure: str
    probes: Sequence[Probe]
    poses: Sequence[np.ndarray]
    depth_scale: float = 1.0


def find_mistake(
    probes: Sequence[Probe],
    poses: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    given: Agreement,
    neighbours: Callable[[int], list[np.ndarray] | None],
) -> Mistake | None:
    """The mistake that explains the contradictions; None where there is none to explain, or none.

    neighbours: the poses of the frames so many places later than those of the probes, or None where
    some do not exist; at 0 places those in reversed order.
    """
    is_suspicious = 1 - given.share >= SUSPICIOUS or given.miss >= SUSPICIOUS_MISS
    if given.is_judged and not is_suspicious and not _looks_past(probes, poses, pairs, given):
        return None
    trials = [*_of_poses(probes, poses), *_of_depth(probes, poses)]
    trials += _of_order(probes, neighbours)
    trials += _of_scale(probes, poses, pairs)
    trials += _of_inverse_depth(probes, poses, pairs)
    best: Mistake | None = None
    for trial in trials:
        reached = agreement(trial.probes, trial.poses, pairs, trial.depth_scale)
        if _explains(reached, given) and (best is None or reached.worth > best.reached.worth):
            best = Mistake(trial.reading, trial.cure, reached)
    return best


def _looks_past(
    probes: Sequence[Probe],
    poses: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    given: Agreement,
) -> bool:
    """Whether frames would see far more in common if depth were larger."""
    tried = (agreement(probes, poses, pairs, factor) for factor in LARGER)
    return any(reached.agreeing > MORE * given.agreeing for reached in tried)


def _explains(reached: Agreement, given: Agreement) -> bool:
    """Whether a reading agrees so much better than the given one that it must be the right one."""
    if not reached.is_judged:
        return False
    if not given.is_judged:  # wrong poses may look past each other
        return reached.share > 0.95 and reached.landed > 0.2 * reached.tried
    if reached.share > CLEAR and reached.agreeing > MORE * given.agreeing:
        return True
    if reached.agreeing < 0.9 * given.agreeing:
        return False
    contradicts, contradicted = 1 - reached.share, 1 - given.share
    fewer = contradicted >= SUSPICIOUS and contradicts <= FEWER * contradicted
    nearer = given.miss >= SUSPICIOUS_MISS and reached.miss <= FEWER * given.miss
    return fewer or (nearer and contradicts <= contradicted)


def _of_poses(probes: Sequence[Probe], poses: Sequence[np.ndarray]) -> Iterator[Trial]:
    inverted = [np.linalg.inv(pose) for pose in poses]
    inverse_cure = (
        "they are world-to-camera: store their inverses (in .npz: name the array extrinsics)"
    )
    yield Trial("with its poses inverted", inverse_cure, probes, inverted)
    axes = "the camera axes are OpenGL's (y up, z backwards)"
    turned = [pose @ OPENGL for pose in poses]
    cure = f"{axes}: negate columns 2 and 3 of camera-to-world"
    yield Trial("with OpenGL's camera axes", cure, probes, turned)
    turned = [pose @ OPENGL for pose in inverted]
    cure = f"they are world-to-camera and {axes}: invert them, then negate columns 2 and 3"
    yield Trial("with its poses inverted and OpenGL's camera axes", cure, probes, turned)


def _of_order(
    probes: Sequence[Probe], neighbours: Callable[[int], list[np.ndarray] | None]
) -> Iterator[Trial]:
    for places in (1, -1, 2, -2, 0):
        poses = neighbours(places)
        if poses is None:
            continue
        later = (
            f"{abs(places)} frame{'s' * (abs(places) > 1)} {'later' if places > 0 else 'earlier'}"
        )
        reading = f"with the poses of {later}" if places else "with its poses in reversed order"
        cure = "depth maps and poses are of other frames; sort both by frame number"
        yield Trial(reading, cure, probes, poses)


def _of_depth(probes: Sequence[Probe], poses: Sequence[np.ndarray]) -> Iterator[Trial]:
    def along_z(probe: Probe) -> Probe:
        height, width = probe.view.depth.shape
        u, v = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
        lengths = np.linalg.norm(probe.view.lens.directions(u, v), axis=0)
        edged = np.pad(np.nan_to_num(lengths, nan=1.0), 1, mode="edge")
        around = np.stack(
            [edged[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        )
        own = np.linalg.norm(probe.directions, axis=0)
        return replace(probe, depths=probe.depths / own, around=probe.around / around)

    cure = "divide it by the length of the pixel's ray with z = 1"
    reading = "with its depth taken as distance along the ray"
    yield Trial(reading, f"depth is along z here: {cure}", [along_z(p) for p in probes], poses)


def _of_scale(
    probes: Sequence[Probe], poses: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]]
) -> Iterator[Trial]:
    factor = _best_factor(probes, poses, pairs)
    cure = f"depth and poses are in two units: multiply depth by about {factor:.2g}"
    yield Trial(f"with its depth times {factor:.2g}", cure, probes, poses, factor)


def _of_inverse_depth(
    probes: Sequence[Probe], poses: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]]
) -> Iterator[Trial]:
    inverted = [_inverted(probe) for probe in probes]
    factor = _best_factor(inverted, poses, pairs)
    cure = f"it holds 1/depth (disparity): store about {factor:.2g} / value"
    yield Trial(f"with {factor:.2g} / its depth", cure, inverted, poses, factor)


def _inverted(probe: Probe) -> Probe:
    known = probe.around > 0
    around = np.where(known, 1 / np.where(known, probe.around, 1), 0)
    return replace(probe, depths=1 / probe.depths, around=around)


def _best_factor(
    probes: Sequence[Probe], poses: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]]
) -> float:
    """The factor on depth by which frames agree best."""
    small = [
        replace(p, directions=p.directions[:, :TRIAL_POINTS], depths=p.depths[:TRIAL_POINTS])
        for p in probes
    ]

    chosen = np.random.default_rng(0).permutation(len(pairs))[:TRIAL_PAIRS]
    some = [pairs[index] for index in chosen]

    def agreement_at(factor: float) -> Agreement:
        return agreement(small, poses, some, factor)

    best = max(SCALES.tolist(), key=lambda factor: agreement_at(factor).worth)
    for step in FINER:
        near = [best * step**power for power in range(-3, 4)]
        # Near the right one, the factor that is most exact: others may let more points land.
        best = max(
            near,
            key=lambda factor: agreement_at(factor).share - agreement_at(factor).miss / TOLERANCE,
        )
    return best
