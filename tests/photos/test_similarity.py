"""Similarity of photos, on tokens made by hand."""

import numpy as np
import pytest

from geometry_fusion.photos.similarity import (
    SAME,
    descriptor,
    mutual_share,
    nodes,
    normalised,
    similarities,
    thinned,
    whitened,
)


def test_the_descriptor_is_the_generalised_mean_of_length_1():
    tokens = np.array([[1.0, 2.0], [3.0, 2.0]])
    expected = np.array([(28 / 2) ** (1 / 3), 2.0])
    assert descriptor(tokens) == pytest.approx(expected / np.linalg.norm(expected))


def test_tokens_match_where_each_is_the_others_nearest():
    one = np.eye(3)
    other = normalised([[1, 0.1, 0], [1, 0, 0], [0, 0, 1]])
    # Token 0 matches token 1 of the other, token 2 matches token 2. Token 1's nearest is 0 (0.1),
    # whose own nearest is token 0.
    assert mutual_share(one, other, least=0.5) == pytest.approx(2 / 3)
    assert mutual_share(one, other, least=0.9999) == pytest.approx(2 / 3)
    assert mutual_share(one, other[:1], least=0.5) == 1.0
    assert mutual_share(one[1:2], other[:1], least=0.5) == 0.0
    assert mutual_share(other, one, least=0.5) == mutual_share(one, other, least=0.5)


def photo_tokens(seed: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 16))


def similarity_of(tokens: list[np.ndarray]) -> np.ndarray:
    return similarities(np.stack([descriptor(t) for t in tokens]), [thinned(t) for t in tokens])


def test_photos_that_share_tokens_are_more_alike_and_copies_are_the_same():
    one, other = photo_tokens(1), photo_tokens(2)
    shared = np.concatenate([one[:30], photo_tokens(3, 10)])
    similarity = similarity_of([one, other, shared, one.copy()])
    assert np.array_equal(similarity, similarity.T)
    assert similarity[0, 3] > SAME
    assert similarity[0, 2] > similarity[0, 1] + 0.05
    assert (similarity >= 0).all() and (similarity <= 1 + 1e-9).all()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_any_number_of_photos_has_a_similarity(count):
    similarity = similarity_of([photo_tokens(seed) for seed in range(count)])
    assert similarity.shape == (count, count) and np.isfinite(similarity).all()
    assert (np.diag(similarity) == 1).all()


def test_whitening_keeps_groups_of_photos_apart():
    """With all directions, 40 photos would be equally unlike each other."""
    draw = np.random.default_rng(0)
    centres = draw.random((4, 64))
    vectors = normalised(np.repeat(centres, 10, 0) + 0.02 * draw.random((40, 64)))
    white = whitened(vectors)
    cosines = white @ white.T
    same = np.equal.outer(np.arange(40) // 10, np.arange(40) // 10)
    assert white.shape == (40, 10)
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
    assert np.array_equal(whitened(vectors[:31]), vectors[:31])


def test_near_duplicates_share_a_node_and_prompted_photos_stand_for_themselves():
    similarity = np.full((5, 5), 0.5)
    for i, j in [(0, 3), (1, 4), (3, 4)]:
        similarity[i, j] = similarity[j, i] = 0.99
    np.fill_diagonal(similarity, 1)
    assert nodes(similarity, first=[2]) == [0, 1, 2, 0, 1]
    assert nodes(similarity, first=[3]) == [3, 1, 2, 3, 3]
    assert nodes(similarity, first=[0, 3]) == [0, 1, 2, 3, 3]
