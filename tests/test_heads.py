"""Tests that every head passes, and tests of how a head is made."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import make_classification

from brainfeat.errors import HeadError
from brainfeat.heads.kinds import HEAD_NAMES, head_scores, make_head, needs_validation

SMALL = {
    "dense": {"epochs": 3},
    "random-forest": {"n_estimators": 10},
    "hist-gradient-boosting": {"max_iter": 5},
}


def make_data(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        120, 10, n_informative=5, n_classes=n_classes, n_clusters_per_class=1, random_state=0
    )
    return X.astype(np.float32), y


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", HEAD_NAMES)
class TestEveryHead:
    """Properties that training, bundle and evaluation rely on."""

    def test_scores_have_one_column_a_class(self, name: str, n_classes: int) -> None:
        X, y = make_data(n_classes)
        head = make_head(name, random_state=0, **SMALL.get(name, {})).fit(X, y)
        scores = head_scores(head, X)
        assert scores.shape == (120, n_classes)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(head.classes_, np.arange(n_classes))

    def test_softmax_of_the_scores_are_its_probabilities(self, name: str, n_classes: int) -> None:
        X, y = make_data(n_classes)
        head = make_head(name, random_state=0, **SMALL.get(name, {})).fit(X, y)
        found = softmax(head_scores(head, X) / getattr(head, "temperature_", 1.0), axis=1)
        if name in ("svm", "linear-svm"):
            agreement = (found.argmax(axis=1) == head.predict(X)).mean()
            assert agreement > 0.97
        else:
            np.testing.assert_allclose(found, head.predict_proba(X), atol=1e-6)

    def test_same_random_state_same_scores(self, name: str, n_classes: int) -> None:
        X, y = make_data(n_classes)
        head = make_head(name, random_state=0, **SMALL.get(name, {}))
        first = head_scores(clone(head).fit(X, y), X)
        np.testing.assert_array_equal(first, head_scores(clone(head).fit(X, y), X))

    def test_labels_may_be_text_and_features_float64(self, name: str, n_classes: int) -> None:
        X, y = make_data(n_classes)
        names = np.array(["pituitary", "glioma", "notumor", "meningioma"])[:n_classes]
        head = make_head(name, random_state=0, **SMALL.get(name, {})).fit(X.astype(float), names[y])
        assert head.classes_.tolist() == sorted(names)
        winners = head.classes_[head_scores(head, X).argmax(axis=1)]
        assert (winners == head.predict(X)).mean() > 0.97


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_an_unknown_parameter_is_named_with_those_accepted(name: str) -> None:
    with pytest.raises(HeadError, match=r"no parameter 'nonsense'; it accepts \w+"):
        make_head(name, nonsense=1)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("logistic", {"C": 3.0}),
        ("linear-svm", {"C": 3.0}),
        ("svm", {"kernel": "linear"}),
        ("knn", {"n_neighbors": 3}),
        ("lda", {"solver": "lsqr"}),
        ("random-forest", {"n_estimators": 7}),
        ("hist-gradient-boosting", {"max_iter": 7}),
        ("dense", {"dropout": 0.25}),
    ],
)
def test_parameters_reach_the_classifier(name: str, params: dict[str, object]) -> None:
    head = make_head(name, **params)
    classifier = head["classifier"] if hasattr(head, "steps") else head
    assert params.items() <= classifier.get_params().items()


def test_the_svm_has_the_method_of_the_reference() -> None:
    params = make_head("svm")["classifier"].get_params()
    assert (params["C"], params["kernel"]) == (10.0, "rbf")


def test_an_unknown_head_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(HeadError, match="unknown head 'resnet'; there are dense, logistic"):
        make_head("resnet")


def test_only_the_dense_head_needs_validation_images() -> None:
    assert [name for name in HEAD_NAMES if needs_validation(name)] == ["dense"]


def test_a_classical_head_never_imports_tensorflow() -> None:
    code = (
        "import sys, numpy as np; from brainfeat.heads.kinds import make_head, head_scores\n"
        "X, y = np.eye(6), [0, 0, 0, 1, 1, 1]\n"
        "head_scores(make_head('logistic').fit(X, y), X)\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["logistic", "linear-svm", "svm", "random-forest"])
def test_balanced_class_weights_find_more_of_a_rare_class(name: str) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(200, 4)), rng.normal(0.8, 1, size=(10, 4))])
    y = np.repeat([0, 1], [200, 10])
    trees = {"n_estimators": 20, "max_depth": 3} if name == "random-forest" else {}
    plain, balanced = (
        make_head(name, random_state=0, class_weight=weight, **trees).fit(X, y).predict(X).sum()
        for weight in (None, "balanced")
    )
    assert balanced > plain


def test_importing_the_heads_is_light() -> None:
    code = (
        "import sys, brainfeat.heads.kinds; "
        "sys.exit(bool({'tensorflow', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
