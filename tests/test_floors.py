"""Floors of an evaluation: the largest class, and the nearest neighbour."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from support.caches import draw_signatures

from brainfeat.cache.signature import orient_signatures
from brainfeat.errors import ParameterError
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.evaluation.results import Evaluation
from brainfeat.report.floors import list_floors
from brainfeat.training.fitting import fit_head

SPLITS = np.repeat(["train", "val", "test"], [120, 40, 40])
TEST = slice(160, 200)


def draw(seed=0, width=16):
    """Draw four classes, the first twice as frequent, and 15 test images that are copies."""
    rng = np.random.default_rng(seed)
    y = np.arange(200) * 3 % 5 % 4
    X = 0.8 * rng.standard_normal((4, width))[y] + rng.standard_normal((200, width))
    X[160:175], y[160:175] = X[:15] + 0.01, y[:15]
    signature = draw_signatures(200)
    signature[160:175] = orient_signatures(signature[:15], 1)
    return X.astype(np.float32), y, signature


def find_neighbours(X, y, kept):
    """Return what scikit-learn's nearest neighbour predicts, by the angle of centred features."""
    Z = X - X.mean(axis=0)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    return KNeighborsClassifier(1).fit(Z[:160], y[:160]).predict(Z[TEST][kept])


@pytest.fixture
def leaky(make_cache):
    X, y, signature = draw()
    path = make_cache(X, y, splits=SPLITS, signature=signature)
    return X, y, path, fit_head(path, head="lda", n_jobs=1)


def test_the_floors_are_those_of_scikit_learn_on_the_same_subsets(leaky):
    X, y, path, bundle = leaky
    found = evaluate(bundle, path)
    assert found.subsets.without_copies.n == 25
    for name, kept in (("all", slice(None)), ("without_copies", slice(15, None))):
        true, neighbours = y[TEST][kept], find_neighbours(X, y, kept)
        scores = getattr(found.floors.nearest_neighbour, name)
        assert scores.n == len(true)
        assert scores.accuracy == accuracy_score(true, neighbours)
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, neighbours))
        largest = getattr(found.floors.largest_class, name)
        assert largest.accuracy == np.bincount(true).max() / len(true)
        assert largest.balanced_accuracy == pytest.approx(1 / len(np.unique(true)))
    assert found.floors.random_weights is None


def test_copies_lift_the_floor(leaky):
    *_, path, bundle = leaky
    neighbours = evaluate(bundle, path).floors.nearest_neighbour
    assert neighbours.all.accuracy > neighbours.without_copies.accuracy


def test_a_floor_of_other_features_is_of_the_same_images_in_any_order(leaky, make_cache):
    _, y, path, bundle = leaky
    Z, _, _ = draw(seed=1, width=8)
    order = np.random.default_rng(2).permutation(200)
    names = [f"image-{row:05}.png" for row in order]
    other = make_cache(Z[order], y[order], paths=names, name="random.h5")
    found = evaluate(bundle, path, floor=other).floors.random_weights
    assert found.all.accuracy == accuracy_score(y[TEST], find_neighbours(Z, y, slice(None)))
    assert found.reason is None


def test_what_a_floor_lacks_is_said(leaky, make_cache):
    X, y, path, bundle = leaky
    names = [f"image-{row:05}.png" for row in range(200)]
    for kept, reason in (
        (slice(1, 200), "does not have 1 image that the head was fitted on"),
        (slice(0, 199), "does not have 1 image of those that are measured"),
    ):
        other = make_cache(X[kept, :9], y[kept], paths=names[kept], name=f"floor-{kept.start}.h5")
        found = evaluate(bundle, path, floor=other)
        assert reason in found.floors.random_weights.reason
        assert found.floors.random_weights.all is None
        assert reason in next(list_floors(found)).note


def test_in_another_cache_there_are_no_neighbours(leaky, make_cache):
    X, y, _, bundle = leaky
    other = make_cache(X[TEST], y[TEST], contents=[f"b{row}" for row in range(40)], name="b.h5")
    found = evaluate(bundle, other, split="all").floors
    assert "does not have 160 images that the head was fitted on" in found.nearest_neighbour.reason
    assert found.largest_class.all.n == 40


def test_the_same_features_are_no_floor(leaky):
    *_, path, bundle = leaky
    with pytest.raises(ParameterError, match="a floor needs others"):
        evaluate(bundle, path, floor=path)


def test_floors_come_back_from_json_and_may_be_missing(leaky):
    *_, path, bundle = leaky
    document = evaluate(bundle, path).to_dict()
    assert Evaluation.from_dict(document).floors == evaluate(bundle, path).floors
    del document["floors"]
    assert Evaluation.from_dict(document).floors is None
    assert not list(list_floors(Evaluation.from_dict(document)))


def test_the_head_and_its_floors_are_in_one_table(leaky, run, tmp_path):
    _, _, path, bundle = leaky
    found = evaluate(bundle, path)
    (table,) = list_floors(found)
    assert [row[0] for row in table.rows] == ["this head", "nearest neighbour", "largest class"]
    for subset, cell in (("without_copies", 1), ("all", 3)):
        accuracy = getattr(found.floors.nearest_neighbour, subset).accuracy
        assert table.rows[1][cell].value == f"{accuracy:.3f}"
    told = run("evaluate", bundle.save(tmp_path / "head.h5"), path)
    assert "Floors: what is reached without learning" in told.out
