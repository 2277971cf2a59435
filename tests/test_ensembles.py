"""The estimator of ensembles: scikit-learn as the oracle, and folds that divide no group."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from brainfeat.errors import HeadError
from brainfeat.heads.ensembles import EnsembleHead
from brainfeat.heads.kinds import accepted_names, head_scores, make_head, parse_ensemble

NAMES = ("logistic", "svm", "knn")


def make_data(n_classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw images of 60 patients of two images each, of one class each."""
    X, y = make_classification(
        60, 8, n_informative=6, n_classes=n_classes, n_clusters_per_class=1, random_state=0
    )
    rows, groups = np.repeat(X, 2, axis=0), np.repeat(np.arange(60), 2)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    return rows + noise, np.repeat(y, 2), groups


def members() -> list[tuple[str, object]]:
    return [(name, make_head(name, random_state=0)) for name in NAMES]


class Scaled(ClassifierMixin, BaseEstimator):
    """A head at a given temperature, with the interface that scikit-learn combines."""

    def __init__(self, head, temperature):
        self.head = head
        self.temperature = temperature

    def fit(self, X, y):
        self.head_ = clone(self.head).fit(X, y)
        self.classes_ = self.head_.classes_
        return self

    def predict_proba(self, X):
        return softmax(head_scores(self.head_, X) / self.temperature, axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Remember(ClassifierMixin, BaseEstimator):
    """A head that keeps what it was fitted on, and stops by validation rows."""

    seen: list = []

    def __init__(self, validation_fraction=0.25):
        self.validation_fraction = validation_fraction

    def fit(self, X, y, *, validation_data=None):
        self.classes_ = np.unique(y)
        self.seen.append((X[:, 0], validation_data[0][:, 0]))
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def scaled(head: EnsembleHead) -> list[tuple[str, Scaled]]:
    temperatures = [member.temperature for member in head.members_]
    return [
        (name, Scaled(estimator, temperature))
        for (name, estimator), temperature in zip(members(), temperatures, strict=True)
    ]


def test_a_vote_is_that_of_scikit_learn() -> None:
    X, y, groups = make_data()
    head = EnsembleHead(members()).fit(X, y, groups=groups)
    expected = VotingClassifier(scaled(head), voting="soft").fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
    np.testing.assert_array_equal(head.predict(X), expected.predict(X))


def test_a_stack_is_that_of_scikit_learn_on_the_same_folds() -> None:
    X, y, groups = make_data()
    head = EnsembleHead(members(), how="stack").fit(X, y, groups=groups)
    regression = LogisticRegression(tol=1e-8, max_iter=10_000)
    final = make_pipeline(FunctionTransformer(np.log), regression)
    expected = StackingClassifier(scaled(head), final, cv=head.folds_).fit(X, y)
    found = expected.final_estimator_[-1]
    np.testing.assert_allclose(head.stack_[0], found.coef_.T, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(head.predict_proba(X), expected.predict_proba(X), rtol=1e-3)
    others = StackingClassifier(scaled(head), final, cv=5).fit(X, y)
    assert abs(head.predict_proba(X) - others.predict_proba(X)).max() > 1e-3


def test_the_models_of_the_folds_vote() -> None:
    X, y, groups = make_data()
    head = EnsembleHead(members()[:1], how="folds").fit(X, y, groups=groups)
    assert head.n_fits_ == len(head.members_) == head.n_folds_ == 5
    temperature = head.members_[0].temperature
    models = [Scaled(members()[0][1], temperature).fit(X[rows], y[rows]) for rows, _ in head.folds_]
    expected = np.mean([model.predict_proba(X) for model in models], axis=0)
    np.testing.assert_allclose(head.predict_proba(X), expected, rtol=1e-9)


@pytest.mark.parametrize("how", ["vote", "stack"])
def test_two_classes_and_labels_of_text(how: str) -> None:
    X, y, groups = make_data(2)
    head = EnsembleHead(members(), how=how).fit(X, np.array(["b", "a"])[y], groups=groups)
    scores = head.decision_function(X)
    assert scores.shape == (120,)
    np.testing.assert_allclose(head.predict_proba(X), softmax(head_scores(head, X), axis=1))
    assert head.classes_.tolist() == ["a", "b"]
    assert (head.predict(X) == np.where(scores > 0, "b", "a")).all()
    assert head.score(X, np.array(["b", "a"])[y]) > 0.8


def test_no_fold_divides_a_group_nor_do_validation_rows(monkeypatch) -> None:
    X, y, groups = make_data()
    X = np.column_stack([groups, X])
    monkeypatch.setattr(Remember, "seen", [])
    head = EnsembleHead([("a", Remember()), ("b", Remember())]).fit(X, y, groups=groups)
    for train, test in head.folds_:
        assert not set(groups[train]) & set(groups[test])
    assert len(Remember.seen) == head.n_fits_ == 12
    for train, val in Remember.seen:
        assert not set(train) & set(val)
        assert 0.15 < len(val) / (len(train) + len(val)) < 0.35
    without = EnsembleHead([("a", Remember()), ("b", Remember())]).fit(X, y)
    assert any(set(groups[train]) & set(groups[test]) for train, test in without.folds_)


def test_views_and_generated_rows_are_only_trained_on(monkeypatch) -> None:
    X, y, groups = make_data()
    # The second row of a patient is a view of the first; the last ten patients are generated.
    scored = (np.arange(120) % 2 == 0) & (groups < 50)
    X = np.column_stack([np.arange(120), X])
    monkeypatch.setattr(Remember, "seen", [])
    head = EnsembleHead([("a", Remember()), ("b", Remember())], how="stack")
    head.fit(X, y, groups=groups, scored=scored)
    assert np.sort(np.concatenate([test for _, test in head.folds_])).tolist() == [
        *np.flatnonzero(scored)
    ]
    for train, test in head.folds_:
        assert set(train) == set(np.flatnonzero(~np.isin(groups, groups[test])))
        assert set(train) >= set(np.flatnonzero(groups >= 50))
    for train, val in Remember.seen:
        held_out = val.astype(int)
        assert scored[held_out].all()
        assert not set(groups[train.astype(int)]) & set(groups[held_out])
        assert np.isin(np.flatnonzero(groups >= 50), train).all()


def test_a_member_takes_its_columns() -> None:
    X, y, groups = make_data()
    pair, columns = members()[:2], [(0, 3), (3, 8)]
    head = EnsembleHead(pair, columns=columns).fit(X, y, groups=groups)
    assert [member.estimator.n_features_in_ for member in head.members_] == [3, 5]
    parts = [
        softmax(head_scores(member.estimator, X[:, a:b]) / member.temperature, axis=1)
        for member, (a, b) in zip(head.members_, columns, strict=True)
    ]
    np.testing.assert_allclose(head.predict_proba(X), np.mean(parts, axis=0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"how": "blend"}, "how must be one of vote, stack, folds; got 'blend'"),
        ({"how": "folds"}, "the ensemble folds takes one member, got 3"),
        ({"members": members()[:1]}, "the ensemble vote takes 2 to 20 members, got 1"),
        ({"n_folds": 1}, "n_folds must be an integer from 2 to 20; got 1"),
        ({"columns": [(0, 8)]}, "columns must be a range of 0 to 8 for each member"),
        ({"columns": [(0, 8), (0, 9), (0, 8)]}, "columns must be a range of 0 to 8"),
    ],
)
def test_parameters_out_of_range(changed: dict, message: str) -> None:
    X, y, groups = make_data()
    head = EnsembleHead(members()).set_params(**changed)
    with pytest.raises(HeadError, match=message):
        head.fit(X, y, groups=groups)


def test_a_class_of_one_group() -> None:
    X, y, groups = make_data()
    y[:] = groups == 0
    with pytest.raises(HeadError, match=r"two groups or more of each class.*images of 1 group"):
        EnsembleHead(members()).fit(X, y, groups=groups)
    with pytest.raises(HeadError, match="y has only one class"):
        EnsembleHead(members()).fit(X, np.zeros(120, int), groups=groups)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blend:svm+lda", "unknown head 'blend:svm\\+lda'; an ensemble is vote:A\\+B, stack:A\\+B"),
        ("vote:svm+tree", "has the member 'tree'; a member is one of dense, logistic"),
        ("vote:", "has the member ''"),
        ("vote:svm+vote:lda", "has the member 'vote:lda'"),
        ("vote:svm+attention", "has the member 'attention'"),
        ("vote:svm+svm", "has a member twice"),
        ("folds:svm+lda", "has 2 heads, and the models of the folds are of one"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        parse_ensemble(name)


def test_parameters_of_members() -> None:
    head = make_head("vote:svm+knn", **{"svm.C": 3.0, "knn.n_neighbors": 7, "n_folds": 3})
    (_, svm), (_, knn) = head.members
    assert (svm[-1].C, knn[-1].n_neighbors, head.n_folds) == (3.0, 7, 3)
    assert {"svm.C", "knn.n_neighbors", "n_folds"} < set(accepted_names("vote:svm+knn"))
    with pytest.raises(HeadError, match=r"vote:svm\+knn head has no parameter 'svm.n_neighbors'"):
        make_head("vote:svm+knn", **{"svm.n_neighbors": 3})
