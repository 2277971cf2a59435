"""Intervals: exact for each resample, as scipy's for drawn ones, and right in what they cover."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from brainfeat.errors import ParameterError
from brainfeat.evaluation import bootstrap
from brainfeat.evaluation.bootstrap import (
    BY_CLASS,
    count_by_group,
    draw_weights,
    find_intervals,
    score_classes,
    score_overall,
)
from brainfeat.evaluation.prevalence import check_prevalence, predictive_values


def make_case(seed, *, n=150, k=3, group_size=1):
    """Make labels, probabilities with ties, and groups of images that are alike."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // group_size
    y = rng.integers(0, k, groups.max() + 1)[groups]
    p = rng.dirichlet(np.ones(k), groups.max() + 1)[groups] + 0.6 * np.eye(k)[y]
    p = np.round(p + 0.05 * rng.random((n, k)), 2)
    return y, p / p.sum(axis=1, keepdims=True), groups


def score(y, p, k):
    """Compute all scores of some images with scikit-learn."""
    predicted = p.argmax(axis=1)
    present = np.unique(y)
    found = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": metrics.recall_score(
            y, predicted, labels=present, average="macro", zero_division=0
        ),
        "f1_macro": metrics.f1_score(
            y, predicted, labels=present, average="macro", zero_division=0
        ),
    }
    for label in range(k):
        true = y == label
        matrix = metrics.confusion_matrix(true, predicted == label, labels=[False, True])
        (spared, alarms), (missed, hits) = matrix
        with np.errstate(invalid="ignore"):
            found |= {
                f"recall {label}": np.float64(hits) / (hits + missed),
                f"specificity {label}": np.float64(spared) / (spared + alarms),
                f"precision {label}": np.float64(hits) / (hits + alarms),
                f"npv {label}": np.float64(spared) / (spared + missed),
            }
        several = true.any() and not true.all()
        found[f"f1 {label}"] = metrics.f1_score(true, predicted == label) if true.any() else np.nan
        found[f"roc_auc {label}"] = metrics.roc_auc_score(true, p[:, label]) if several else np.nan
        found[f"average_precision {label}"] = (
            metrics.average_precision_score(true, p[:, label]) if true.any() else np.nan
        )
    return found


def flatten(intervals):
    """Return the intervals that the bootstrap found, by name."""
    records = {"": intervals.overall}
    records |= {f" {label}": entry for label, entry in enumerate(intervals.by_class)}
    return {
        f"{name}{label}": ends
        for label, record in records.items()
        for name, ends in vars(record).items()
        if name not in ("binomial", *record.binomial)
    }


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "k", "group_size"), [(0, 2, 1), (1, 3, 1), (2, 4, 3), (3, 3, 5)])
def test_each_resample_has_scikit_learns_scores(monkeypatch, seed, k, group_size):
    """The scores are those of images that are really drawn, image by image."""
    monkeypatch.setattr(bootstrap, "find_percentiles", lambda values: tuple(values[:40]))
    monkeypatch.setattr(bootstrap, "_WEIGHTS", 20_000)
    y, p, groups = make_case(seed, k=k, n=30 * k * group_size, group_size=group_size)
    names = [f"class {label}" for label in range(k)]
    found = flatten(find_intervals(y, p, groups=groups, class_names=names, n_resamples=1000))
    weights = np.concatenate(list(draw_weights(groups.max() + 1, len(y), 1000, 0)))
    resamples = []
    for row in weights[:40].astype(int):
        drawn = np.repeat(np.arange(len(y)), row[groups])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resamples.append(score(y[drawn], p[drawn], k))
    assert len(found) > 0.8 * len(resamples[0])
    for name, interval in found.items():
        values = [resample[name] for resample in resamples]
        assert interval == pytest.approx(values, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("seed", range(12))
def test_intervals_are_scipys(seed):
    """Both draw; the ends may differ by what the draw of 4,000 resamples leaves open."""
    group_size = 1 + seed % 3
    k = 2 + seed % 2
    y, p, groups = make_case(seed, n=120, k=k, group_size=group_size)
    name = ("accuracy", "balanced_accuracy", "f1_macro")[seed % 3]
    found = find_intervals(
        y, p, groups=groups, class_names=list("abc")[:k], n_resamples=4000, random_state=seed
    )
    counts = count_by_group(y, p.argmax(axis=1), groups, k)

    def score(drawn, axis):
        del axis
        matrices = counts[drawn.astype(int)].sum(axis=-2).reshape(-1, k, k)
        return score_overall(matrices)[name].reshape(drawn.shape[:-1])

    expected = stats.bootstrap(
        (np.arange(len(counts)),),
        score,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(seed + 100),
        vectorized=True,
    )
    # Standard error of the 2.5th percentile of 4,000 normal values: sqrt(q (1-q) / n) / density.
    error = expected.standard_error * np.sqrt(0.025 * 0.975 / 4000) / stats.norm.pdf(1.96)
    low, high = getattr(found.overall, name)
    # Five of the errors of two draws, and the step between two values of the metric.
    tolerance = 5 * np.sqrt(2) * error + 1.5 / len(y)
    assert low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert high == pytest.approx(expected.confidence_interval.high, abs=tolerance)


@pytest.mark.slow
def test_groups_cover_the_truth_where_single_images_do_not():
    """Ten images of a patient are all right or all wrong: they are not ten observations."""
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "images": 0}
    trials, truth = 60, 0.8
    for trial in range(trials):
        patients = np.arange(400) // 10
        y = patients % 2
        right = (rng.random(40) < truth)[patients]
        p = np.eye(2)[np.where(right, y, 1 - y)]
        for unit, groups in {"groups": patients, "images": np.arange(400)}.items():
            low, high = find_intervals(
                y, p, groups=groups, class_names=["a", "b"], n_resamples=1000, random_state=trial
            ).overall.accuracy
            covered[unit] += low <= truth <= high
    assert 0.87 <= covered["groups"] / trials <= 1
    assert covered["images"] / trials < 0.6


def test_a_class_of_too_few_groups_has_no_intervals_and_forbids_those_of_means():
    y = np.repeat([0, 1, 2], [40, 18, 30])
    groups = np.concatenate([np.arange(40), 40 + np.arange(18) // 2, 100 + np.arange(30)])
    predicted = np.where(np.arange(88) % 7, y, (y + 1) % 3)
    found = find_intervals(y, np.eye(3)[predicted], groups=groups, class_names=["a", "b", "c"])
    assert found.reason == "each class needs 10 groups; 'b' has 9"
    assert found.n_groups == 79
    assert found.overall.balanced_accuracy is found.overall.f1_macro is None
    low, high = found.overall.accuracy
    assert low < (predicted == y).mean() < high
    assert [entry is None for entry in found.by_class] == [False, True, False]
    more = find_intervals(
        np.append(y, 1),
        np.eye(3)[np.append(predicted, 1)],
        groups=np.append(groups, 999),
        class_names="abc",
    )
    assert more.reason is None
    assert more.by_class[1]


def test_few_groups_have_no_intervals():
    y = np.arange(18) % 2
    found = find_intervals(y, np.eye(2)[y], groups=np.arange(18) // 2, class_names="ab")
    assert found.overall is found.by_class is None
    assert found.reason == "each class needs 10 groups; 'a' has 9, 'b' has 9"


def test_metrics_without_an_error_have_exact_binomial_intervals():
    """37 right predictions of 37 do not show that the head is never wrong."""
    y = np.repeat([0, 1], [37, 20])
    groups = np.append(np.arange(37), 100 + np.arange(20) // 2)
    found = find_intervals(y, np.eye(2)[y], groups=groups, class_names="ab")
    low, high = found.by_class[0].recall
    assert (low, high) == pytest.approx((0.025 ** (1 / 37), 1.0))
    assert found.by_class[1].recall[0] == pytest.approx(0.025 ** (1 / 10))
    assert found.by_class[0].f1[0] == pytest.approx(2 * low / (1 + low))
    assert found.overall.accuracy[0] == pytest.approx(0.025 ** (1 / 47))
    together = [0.0125 ** (1 / n) for n in (37, 10)]
    assert found.overall.balanced_accuracy[0] == pytest.approx(np.mean(together))
    assert found.overall.binomial == ("accuracy", "balanced_accuracy", "f1_macro")
    assert found.by_class[0].roc_auc is found.by_class[0].average_precision is None
    wrong = find_intervals(y, np.eye(2)[1 - y], groups=groups, class_names="ab")
    assert wrong.by_class[0].recall == pytest.approx((0.0, 1 - 0.025 ** (1 / 37)))
    assert wrong.overall.accuracy == pytest.approx((0.0, 1 - 0.025 ** (1 / 47)))


def test_one_error_leaves_the_bootstrap_its_interval():
    y = np.repeat([0, 1], 30)
    predicted = y.copy()
    predicted[0] = 1
    found = find_intervals(y, np.eye(2)[predicted], groups=np.arange(60), class_names="ab")
    assert found.overall.binomial == ()
    assert found.by_class[0].binomial == ("precision", "specificity")
    assert found.by_class[1].binomial == ("recall", "npv")


def test_a_class_without_images_does_not_forbid_intervals():
    y = np.arange(60) % 2
    found = find_intervals(y, np.eye(3)[y], groups=np.arange(60), class_names="abc")
    assert found.overall.accuracy[1] == 1.0
    intervals = found.by_class[2]
    ends = {name for name in BY_CLASS if getattr(intervals, name)}
    assert ends == {"specificity", "npv"}
    assert intervals.specificity == intervals.npv == pytest.approx((0.025 ** (1 / 60), 1.0))


def test_the_seed_decides():
    y, p, groups = make_case(5)
    once, again, other = (
        find_intervals(y, p, groups=groups, class_names="abc", random_state=seed)
        for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other
    assert set(vars(once.by_class[0])) == {*BY_CLASS, "binomial"}


def test_few_resamples_are_refused():
    y, p, groups = make_case(5)
    with pytest.raises(ParameterError, match="n_resamples must be at least 1000, got 100"):
        find_intervals(y, p, groups=groups, class_names="abc", n_resamples=100)


@pytest.mark.parametrize("prevalence", [0.001, 0.2, 0.5, 0.9])
def test_predictive_values_are_those_of_a_set_of_that_mix(prevalence):
    rng = np.random.default_rng(0)
    ill = rng.random(200_000) < prevalence
    predicted = np.where(ill, rng.random(200_000) < 0.8, rng.random(200_000) < 0.1)
    matrix = metrics.confusion_matrix(~ill, ~predicted)[None].astype(float)
    scores = {name: values[0, 0] for name, values in score_classes(matrix).items()}
    ppv, npv = predictive_values(scores["recall"], scores["specificity"], float(ill.mean()))
    assert (ppv, npv) == pytest.approx((scores["precision"], scores["npv"]), abs=1e-12)


def test_predictive_values_of_a_class_that_is_never_predicted():
    assert predictive_values(0.0, 1.0, 0.3) == (None, pytest.approx(0.7))


@pytest.mark.parametrize(
    ("prevalence", "words"),
    [
        ({"x": 0.1}, "prevalence of 'x'; expected one of 'a', 'b'"),
        ({"a": 0}, "is 0"),
        ({"a": 1}, "1"),
    ],
)
def test_bad_prevalences_are_refused(prevalence, words):
    with pytest.raises(ParameterError, match=words):
        check_prevalence(prevalence, ["a", "b"])
