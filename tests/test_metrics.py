"""Metrics against hand computation and scikit-learn."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

from brainfeat.canonical import canonical_json
from brainfeat.errors import BundleError, ParameterError, TableError
from brainfeat.metrics import ClassScores, Metrics, measure

NAMES = ("glioma", "meningioma", "notumor")

# Three true classes, four images: one glioma is predicted as meningioma.
Y = [0, 0, 1, 2]
P = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]


@pytest.fixture(scope="module")
def small():
    return measure(Y, P, class_names=NAMES)


@pytest.fixture(scope="module")
def random_case():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 200)
    p = rng.dirichlet(np.ones(4), 200) + 0.3 * np.eye(4)[y]
    return y, p / p.sum(axis=1, keepdims=True)


def test_counts_by_hand(small):
    assert small.n == 4
    assert small.confusion_matrix == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    assert small.accuracy == 0.75


def test_class_scores_by_hand(small):
    glioma, meningioma, notumor = small.per_class
    assert glioma == ClassScores(
        name="glioma",
        precision=1.0,
        recall=0.5,
        f1=pytest.approx(2 / 3),
        support=2,
        specificity=1.0,
        npv=pytest.approx(2 / 3),
        roc_auc=glioma.roc_auc,
        average_precision=glioma.average_precision,
    )
    assert (meningioma.precision, meningioma.recall, meningioma.support) == (0.5, 1.0, 1)
    assert notumor.f1 == 1.0


def test_means_by_hand(small):
    assert small.balanced_accuracy == pytest.approx((0.5 + 1 + 1) / 3)
    assert small.macro.precision == pytest.approx((1 + 0.5 + 1) / 3)
    assert small.macro.f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert small.weighted.recall == pytest.approx((2 * 0.5 + 1 + 1) / 4)


def test_probability_scores_by_hand(small):
    assert small.log_loss == pytest.approx(-sum(map(math.log, (0.7, 0.3, 0.8, 0.6))) / 4)
    squares = (0.3**2 + 0.2**2 + 0.1**2, 0.7**2 + 0.6**2 + 0.1**2, 0.06, 0.4**2 + 0.2**2 + 0.2**2)
    assert small.brier == pytest.approx(sum(squares) / 4)


def test_roc_auc_by_hand():
    # Of the four pairs of a yes (0.6, 0.8) and a no (0.1, 0.7) one is in the wrong order.
    yes = np.array([0.1, 0.6, 0.7, 0.8])
    p = np.column_stack([1 - yes, yes])
    assert measure([0, 1, 0, 1], p, class_names=["no", "yes"]).roc_auc == 0.75


def test_mcc_by_hand(small):
    # (correct · n - Σ predicted·true) / √((n² - Σ called²)(n² - Σ true²)), counts 1 2 1 and 2 1 1.
    assert small.mcc == pytest.approx((3 * 4 - 5) / math.sqrt((16 - 6) * (16 - 6)))


def test_metrics_are_those_of_scikit_learn(random_case):
    y, p = random_case
    predicted = p.argmax(axis=1)
    evaluation = measure(y, p, class_names="abcd")
    report = metrics.classification_report(
        y, predicted, target_names=list("abcd"), output_dict=True
    )
    for scores in evaluation.per_class:
        expected = report[scores.name]
        assert scores.precision == pytest.approx(expected["precision"])
        assert scores.recall == pytest.approx(expected["recall"])
        assert scores.f1 == pytest.approx(expected["f1-score"])
        assert scores.support == expected["support"]
        true, predicted_so = y == "abcd".index(scores.name), predicted == "abcd".index(scores.name)
        column = p[:, "abcd".index(scores.name)]
        assert scores.specificity == pytest.approx(
            metrics.recall_score(true, predicted_so, pos_label=False)
        )
        assert scores.npv == pytest.approx(
            metrics.precision_score(true, predicted_so, pos_label=False)
        )
        assert scores.roc_auc == pytest.approx(metrics.roc_auc_score(true, column))
        assert scores.average_precision == pytest.approx(
            metrics.average_precision_score(true, column)
        )
    assert evaluation.macro.f1 == pytest.approx(report["macro avg"]["f1-score"])
    assert evaluation.weighted.f1 == pytest.approx(report["weighted avg"]["f1-score"])
    assert evaluation.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(y, predicted)
    )
    assert evaluation.roc_auc == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert evaluation.brier == pytest.approx(metrics.brier_score_loss(y, p))


def test_two_classes_are_one_against_the_other():
    y, positive = [0, 0, 1, 1], np.array([0.1, 0.6, 0.4, 0.8])
    evaluation = measure(y, np.column_stack([1 - positive, positive]), class_names=["no", "yes"])
    assert evaluation.roc_auc == pytest.approx(metrics.roc_auc_score(y, positive))
    assert evaluation.brier == pytest.approx(metrics.brier_score_loss(y, positive))
    assert evaluation.mcc == 0.0


def test_a_class_without_images_has_no_recall():
    evaluation = measure([0, 0, 1], P[:3], class_names=NAMES)
    absent = evaluation.per_class[2]
    assert (absent.precision, absent.recall, absent.f1, absent.support) == (None, None, None, 0)


def test_a_class_without_images_counts_in_no_mean():
    evaluation = measure([0, 1, 1], [[0.2, 0, 0.8], [0, 1, 0], [0, 1, 0]], class_names=NAMES)
    assert evaluation.per_class[2].precision == 0.0
    assert evaluation.balanced_accuracy == evaluation.macro.recall == 0.5
    assert evaluation.roc_auc == 1.0


def test_a_class_never_predicted_has_no_precision_and_lowers_the_mean():
    evaluation = measure([0, 1], [[0.9, 0.1], [0.8, 0.2]], class_names=["no", "yes"])
    assert evaluation.per_class[1].precision is None
    assert evaluation.per_class[1].f1 == 0.0
    assert evaluation.macro.precision == 0.25
    assert evaluation.mcc == 0.0


def test_images_of_one_class_have_no_ranking_and_no_correlation():
    evaluation = measure([1, 1], [[0.1, 0.9], [0.6, 0.4]], class_names=["no", "yes"])
    assert evaluation.roc_auc is None
    assert evaluation.mcc is None
    assert evaluation.accuracy == evaluation.balanced_accuracy == 0.5


def test_equal_probabilities_predict_the_first_class():
    assert measure([0], [[0.5, 0.5]], class_names=["no", "yes"]).accuracy == 1.0


def test_a_probability_of_zero_gives_a_finite_log_loss():
    evaluation = measure([0], [[0.0, 1.0]], class_names=["no", "yes"])
    assert evaluation.log_loss == pytest.approx(-math.log(np.finfo(float).eps))


def test_single_precision_probabilities_are_accepted(random_case):
    y, p = random_case
    single = measure(y, p.astype(np.float32), class_names="abcd")
    assert single.log_loss == pytest.approx(measure(y, p, class_names="abcd").log_loss, rel=1e-5)


def test_an_evaluation_is_frozen(small):
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.accuracy = 1.0


def test_to_dict_has_the_keys_of_the_command_line(small):
    fields = small.to_dict()
    assert list(fields["per_class"]) == list(NAMES)
    assert list(fields["per_class"]["glioma"]) == [
        *("precision", "recall", "f1", "support", "specificity", "npv"),
        *("roc_auc", "average_precision"),
    ]
    assert set(fields) == {
        *("n", "class_names", "accuracy", "balanced_accuracy", "per_class", "macro", "weighted"),
        *("confusion_matrix", "roc_auc", "log_loss", "brier", "mcc"),
    }


@pytest.mark.parametrize("y", [Y, [0, 0, 0, 0], [0, 0, 1, 1]])
def test_metrics_come_back_from_canonical_json(y):
    found = measure(y, P, class_names=NAMES[::-1])
    assert Metrics.from_json(canonical_json(found.to_dict())) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": "4"}, r"Expected `int`, got `str` - at `\$.n`"),
        ({"class_names": ["glioma", "cyst"]}, "scores of each class"),
        ({"class_names": 3}, "scores of each class"),
        ({"per_class": []}, "scores of each class"),
        ({"per_class": {name: {} for name in NAMES}}, "missing required field"),
    ],
)
def test_what_are_not_metrics_is_refused(small, change, message):
    with pytest.raises(ParameterError, match=message):
        Metrics.from_dict(small.to_dict() | change)


@pytest.mark.parametrize("text", ["{", "[]", "3", "{}"])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(ParameterError):
        Metrics.from_json(text)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], "non-empty"),
        ([[0], [1]], "shape"),
        ([0.0, 1.0], "dtype"),
        ([0, -1], "-1 to 0: leave unlabelled"),
        ([0, 3], "0 to 2, got 0 to 3"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(y, message):
    with pytest.raises(TableError, match=message):
        measure(y, P[: len(y)], class_names=NAMES)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.5], r"shape \(2, 2\).*got \(2,\)"),
        ([[0.5, 0.5]], r"got \(1, 2\)"),
        ([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]], r"got \(2, 3\)"),
        ([[0.5, 0.5], [math.nan, 0.5]], "not finite"),
        ([[0.5, 0.5], [-0.5, 1.5]], "negative, got -0.5"),
        ([[0.5, 0.5], [0.5, 0.6]], "sum to 1, got 1.1"),
        ([[0.5, 0.5], [0.0, 0.0]], "sum to 1, got 0"),
    ],
)
def test_what_is_no_probability_is_refused(p, message):
    with pytest.raises(BundleError, match=message):
        measure([0, 1], p, class_names=["no", "yes"])


@pytest.mark.parametrize("names", [["glioma"], ["glioma", "glioma"]])
def test_class_names_must_tell_classes_apart(names):
    with pytest.raises(TableError, match="two or more distinct"):
        measure([0], np.ones((1, len(names))) / len(names), class_names=names)


def test_the_module_loads_without_scikit_learn():
    code = "import sys, brainfeat.metrics; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
