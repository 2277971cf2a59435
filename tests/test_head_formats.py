"""Heads that the first version of format 3 wrote: later ones read them and agree."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import head_scores

DATA = Path(__file__).parent / "data"


def load(name: str) -> HeadBundle:
    return HeadBundle.load(DATA / f"head-format-3-{name}.h5")


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_head_of_bags(pooling: str) -> None:
    head = load(pooling)
    assert (head.bag.pooling, head.bag.label, head.class_names) == (
        pooling,
        "same",
        ("glioma", "meningioma"),
    )
    assert head.training.split.train + head.training.split.val + head.training.split.test == 60
    bags = [np.full((size, 8), value) for size, value in ((1, -1.0), (5, 2.0))]
    probabilities = head.predict_proba(bags)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    # All vectors of a bag are equal, so that neither their number nor their weights matter.
    np.testing.assert_allclose(probabilities, head.predict_proba([bag[:1] for bag in bags]))


def test_a_head_of_joined_caches() -> None:
    head = load("joined")
    assert head.blocks.names == ("t1", "flair")
    vectors = np.zeros((2, 16))
    vectors[1, 8:] = np.nan
    probabilities = head.predict_proba(vectors)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    filled = head.blocks.fill.means[8:]
    whole = np.concatenate([np.zeros(8), filled])[None]
    np.testing.assert_allclose(probabilities[1:], head.predict_proba(whole), rtol=1e-6)


def test_a_head_of_maps() -> None:
    head = load("cbam")
    assert head.spec.pooling == "none"
    assert head.bag is None
    maps = np.zeros((2, 3, 3, 8))
    maps[1, 0, 0] = 5
    probabilities = head.predict_proba(maps)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    weights = head.attention(maps)
    assert weights.shape == (2, 3, 3)
    assert np.ptp(probabilities, axis=0).max() > 1e-6


def test_a_stack() -> None:
    head = load("stack")
    members = head.estimator.members_
    assert [member.name for member in members] == ["dense", "lda", "random-forest"]
    assert head.params == {"dense.epochs": 3, "random-forest.n_estimators": 3}
    kernel, bias = head.estimator.stack_
    X = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    logarithms = [
        log_softmax(head_scores(member.estimator, X) / member.temperature, axis=1)
        for member in members
    ]
    scores = np.concatenate(logarithms, axis=1) @ kernel + bias
    np.testing.assert_allclose(head.predict_proba(X), softmax(scores / head.temperature, axis=1))


def test_a_head_of_two_bases_of_the_same_images() -> None:
    head = load("images")
    assert (head.blocks.names, head.blocks.on, head.bag) == (("a", "b"), "image", None)
    assert [spec.backbone for spec in head.blocks.specs] == ["base-0", "base-1"]
    probabilities = head.predict_proba(np.eye(2, 16))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (head.predict_proba(head.probe).argmax(axis=1) == 0).any()
