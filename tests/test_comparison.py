"""compare: two heads on the same images, against scipy, by hand, and what is refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn import metrics

from brainfeat import compare, fit_head
from brainfeat.cli.compare import command
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError
from brainfeat.evaluation.bootstrap import find_differences
from brainfeat.evaluation.comparison import Comparison, mcnemar_p_value
from brainfeat.heads.bundle import HeadBundle

IMAGES, WIDTH = 600, 32
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def draw(seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(IMAGES) % 4
    X = rng.standard_normal((IMAGES, WIDTH)) + 0.5 * rng.standard_normal((4, WIDTH))[y]
    return X.astype(np.float32), y, np.repeat(["train", "val", "test"], [250, 50, 300])


@pytest.fixture
def cache(make_cache):
    X, y, splits = draw()
    return make_cache(X, y, splits=splits)


def fit(cache, head, **options):
    return fit_head(cache, head=head, group_by="none", n_jobs=1, **options)


def predict(bundle, X):
    return bundle.predict_proba(X).argmax(axis=1)


def test_metrics_and_differences_are_those_of_each_head(cache):
    X, y, _ = draw()
    first, second = fit(cache, "lda"), fit(cache, "knn")
    found = compare(first, second, cache)
    a, b = (predict(bundle, X[300:]) for bundle in (first, second))
    assert found.n == found.n_groups == 300
    assert found.accuracy.first == pytest.approx(metrics.accuracy_score(y[300:], a))
    assert found.accuracy.second == pytest.approx(metrics.accuracy_score(y[300:], b))
    assert found.f1_macro.first == pytest.approx(metrics.f1_score(y[300:], a, average="macro"))
    assert found.balanced_accuracy.difference == pytest.approx(
        metrics.balanced_accuracy_score(y[300:], b) - metrics.balanced_accuracy_score(y[300:], a)
    )
    assert found.first_only == ((a == y[300:]) & (b != y[300:])).sum()
    assert found.second_only == ((a != y[300:]) & (b == y[300:])).sum()


@pytest.mark.parametrize("seed", range(5))
def test_intervals_are_those_of_scipys_paired_bootstrap(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 200)
    first, second = (np.where(rng.random(200) < p, y, rng.integers(0, 3, 200)) for p in (0.8, 0.7))
    found = find_differences(
        y, first, second, groups=range(200), class_names="abc", n_resamples=20_000
    )

    def difference(places):
        places = places.astype(int)
        return (second[places] == y[places]).mean() - (first[places] == y[places]).mean()

    expected = stats.bootstrap(
        (np.arange(200),),
        difference,
        n_resamples=20_000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    assert found.accuracy.interval == pytest.approx(tuple(expected), abs=0.006)


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (1, 8, 0.0390625)])
def test_mcnemars_test_by_hand(first, second, p):
    assert mcnemar_p_value(first, second) == pytest.approx(p)


def test_a_head_does_not_differ_from_itself(cache):
    bundle = fit(cache, "lda")
    found = compare(bundle, bundle, cache)
    assert (found.balanced_accuracy.difference, found.balanced_accuracy.interval) == (0, None)
    assert (found.first_only, found.second_only, found.p_value) == (0, 0, 1)
    assert found.verdict.startswith("No verdict: both heads predict the same")


def test_a_clear_difference_has_a_verdict(cache):
    good, bad = fit(cache, "lda"), fit(cache, "knn", params={"n_neighbors": 1})
    assert compare(good, bad, cache).verdict.startswith("The first head has the better")
    assert compare(bad, good, cache).verdict.startswith("The second head has the better")
    assert compare(good, bad, cache).p_value < 0.001


def test_images_that_the_heads_have_seen_are_left_out(make_cache):
    X, y, splits = draw()
    X[300:350] = X[:50] + 0.01
    path = make_cache(X, y, splits=splits)
    # The nearest neighbour knows the copies by heart.
    first, second = fit(path, "lda"), fit(path, "knn", params={"n_neighbors": 1})
    assert compare(first, second, path).n == 250
    everything = compare(first, second, path, new=False)
    assert everything.n == 300
    gain = everything.accuracy.second - compare(first, second, path).accuracy.second
    assert gain > everything.accuracy.first - compare(first, second, path).accuracy.first


def test_groups_are_drawn_as_one_and_few_give_no_verdict(make_cache):
    X, y, splits = draw()
    path = make_cache(X, y, splits=splits, groups=[f"p{row // 40}" for row in range(IMAGES)])
    found = compare(fit(path, "lda"), fit(path, "knn"), path)
    assert found.n_groups == 8
    assert found.accuracy.interval is None
    assert (
        found.verdict == "No verdict: each class needs 10 groups; 'glioma' has 8, 'meningioma' "
        "has 8, 'notumor' has 8, 'pituitary' has 8."
    )


def test_classes_may_be_in_another_order(cache, make_cache):
    X, y, splits = draw()
    turned = make_cache(X, 3 - y, splits=splits, name="turned.h5", class_names=CLASSES[::-1])
    found = compare(fit(cache, "lda"), fit(turned, "lda"), cache)
    assert found.first_only == found.second_only == 0
    assert found.accuracy.difference == 0


def test_heads_that_cannot_be_compared_are_refused(cache, make_cache):
    X, y, splits = draw()
    first = fit(cache, "lda")
    other = make_cache(X, y, splits=splits, name="o.h5", class_names=(*CLASSES[:3], "schwannoma"))
    with pytest.raises(BundleError, match="heads of the same classes"):
        compare(first, fit(other, "lda"), cache)
    kind = make_cache(X, y, splits=splits, name="k.h5", backbone="vgg19")
    with pytest.raises(SpecMismatchError, match="backbone"):
        compare(first, fit(kind, "lda"), cache)
    with pytest.raises(CacheError, match="no labelled images in split"):
        compare(first, first, make_cache(X, y, splits=["train"] * IMAGES, name="t.h5"))
    with pytest.raises(BundleError, match=r"every image of split 'train'.*new=False"):
        compare(first, first, cache, split="train")
    with pytest.raises(ParameterError, match="n_resamples"):
        compare(first, first, cache, n_resamples=10)


def test_heads_that_held_out_different_images_are_refused(make_cache):
    X, y, _ = draw()
    path = make_cache(X, y)
    first, same, second = (fit(path, "lda", random_state=seed) for seed in (0, 0, 1))
    assert compare(first, same, path).n == 90
    with pytest.raises(BundleError, match="held different images out as 'test', 90 and 90"):
        compare(first, second, path)


def test_what_either_head_has_seen_is_left_out(make_cache):
    X, y, _ = draw()
    cache = make_cache(X, y)
    heads = [fit(cache, "lda", random_state=seed) for seed in (0, 1)]
    held_out = [set(head.training.held_out.test) for head in heads]
    assert held_out[0] != held_out[1]
    assert compare(*heads, cache, split="all").n == len(held_out[0] & held_out[1])


def test_the_command_says_it_in_words_and_in_json(cache, tmp_path):
    for name in ("lda", "knn"):
        fit(cache, name).save(tmp_path / f"{name}.h5")
    arguments = [str(tmp_path / "lda.h5"), str(tmp_path / "knn.h5"), str(cache)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("first   lda, ")
    assert lines[2] == "images  300 in 300 groups"
    document = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert lines[-1] == document["verdict"]
    assert max(map(len, lines[2:-1])) <= 80
    heads = [HeadBundle.load(path) for path in arguments[:2]]
    found = compare(*heads, str(cache))
    assert document == found.to_dict()
    assert Comparison.from_json(json.dumps(document)) == found


def test_heads_that_predict_the_same_have_no_interval_of_no_width():
    """That two heads are right on 80 of 80 images does not show that they are equal."""
    y = np.arange(80) % 2
    found = find_differences(y, y, y, groups=range(80), class_names="ab")
    assert found.accuracy.difference == 0.0
    assert found.accuracy.interval is found.balanced_accuracy.interval is None
    assert found.reason.startswith("both heads predict the same")
    other = np.where(np.arange(80) == 7, 1 - y, y)
    assert find_differences(y, y, other, groups=range(80), class_names="ab").accuracy.interval
