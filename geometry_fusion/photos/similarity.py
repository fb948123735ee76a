"""Which photos look alike, by the tokens of an image encoder. No retrieval weights are needed."""

from collections.abc import Sequence

import numpy as np

GEM_POWER = 3  # generalised mean pooling (Radenovic et al., arXiv 1711.02512)
WHITEN_FROM = 32  # photos
SHORTLIST = 20  # pairs of each photo that are refined
SAME = 0.98  # similarity above which two photos are near-duplicates
MATCH_TOKENS = 256  # of each photo, at most, that are matched
RANDOM_PAIRS = 4096  # of tokens, whose cosines say what is no match
MATCH_PERCENTILE = 95


def descriptor(tokens: np.ndarray) -> np.ndarray:
    """Encoder tokens [N, D] -> one vector [D] of length 1."""
    pooled = np.clip(tokens.astype(np.float64), 1e-6, None) ** GEM_POWER
    return normalised(pooled.mean(0) ** (1 / GEM_POWER))


def whitened(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors [n, D] with equal variance along their n // 4 main directions, [n, n // 4].

    Whitening by all directions would make n <= D photos equally unlike each other, whatever they
    show. Fewer than `WHITEN_FROM` photos are left as they are.
    """
    count = len(descriptors)
    if count < WHITEN_FROM:
        return descriptors
    centred = descriptors - descriptors.mean(0)
    u, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    kept = lengths[: count // 4] > 1e-9 * max(lengths[0], 1e-12)
    return normalised(u[:, : count // 4][:, kept]) if kept.any() else descriptors


def thinned(tokens: np.ndarray) -> np.ndarray:
    """At most `MATCH_TOKENS` tokens [N, D], evenly spread and of length 1, in half precision."""
    if len(tokens) > MATCH_TOKENS:
        tokens = tokens[np.linspace(0, len(tokens) - 1, MATCH_TOKENS).astype(int)]
    return normalised(tokens).astype(np.float16)


def least_match(tokens: Sequence[np.ndarray]) -> float:
    """The cosine that tokens of different photos exceed by chance in 5% of cases.

    tokens: of each photo [N, D] of length 1, in an order that does not depend on names.
    """
    if len(tokens) < 2:
        return 0.0
    draw = np.random.default_rng(0)
    cosines = []
    for _ in range(RANDOM_PAIRS):
        one, other = draw.choice(len(tokens), 2, replace=False)
        a = tokens[one][draw.integers(len(tokens[one]))].astype(np.float32)
        b = tokens[other][draw.integers(len(tokens[other]))].astype(np.float32)
        cosines.append(float(a @ b))
    return float(np.percentile(cosines, MATCH_PERCENTILE))


def mutual_share(a: np.ndarray, b: np.ndarray, least: float) -> float:
    """The share of tokens [N, D] and [M, D] of length 1 that are each other's nearest, with a
    cosine above `least`; of the smaller number. 0..1, the same in both directions.
    """
    cosines = a.astype(np.float32) @ b.astype(np.float32).T
    forth, back = cosines.argmax(1), cosines.argmax(0)
    rows = np.arange(len(a))
    mutual = (back[forth] == rows) & (cosines[rows, forth] > least)
    return float(mutual.sum() / min(cosines.shape))


def shortlists(cosines: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i < j) in which one is among the `SHORTLIST` nearest of the other."""
    count = len(cosines)
    apart = cosines - 4 * np.eye(count)  # a photo is not its own neighbour
    nearest = np.argsort(-apart, axis=1, kind="stable")[:, : min(SHORTLIST, count - 1)]
    return sorted({(min(i, int(j)), max(i, int(j))) for i in range(count) for j in nearest[i]})


def similarities(descriptors: np.ndarray, tokens: Sequence[np.ndarray]) -> np.ndarray:
    """S [n, n], 0..1 and symmetric: the mean of the descriptors' cosine and the share of matched
    tokens, which is computed for the pairs of `shortlists` and is 0 for others.

    descriptors: [n, D] of `descriptor`; tokens: of `thinned`.
    """
    vectors = whitened(descriptors)
    cosines = vectors @ vectors.T
    shares = np.eye(len(vectors))
    least = least_match(tokens)
    for i, j in shortlists(cosines):
        shares[i, j] = shares[j, i] = mutual_share(tokens[i], tokens[j], least)
    similarity = (np.clip(cosines, 0, 1) + shares) / 2
    np.fill_diagonal(similarity, 1)
    return similarity


def nodes(similarity: np.ndarray, first: Sequence[int]) -> list[int]:
    """The photo that stands for each: the first one, of those that stand for themselves, that is a
    near-duplicate. `first` (prompted photos) always stand for themselves.
    """
    heads = list(first)
    standing = list(range(len(similarity)))
    for photo in range(len(similarity)):
        if photo in first:
            continue
        alike = [head for head in heads if similarity[photo, head] > SAME]
        if alike:
            standing[photo] = alike[0]
        else:
            heads.append(photo)
    return standing


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., D] of length 1."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
