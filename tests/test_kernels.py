"""A support vector machine that is fitted on a whole kernel is the one that is fitted by pairs."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from brainfeat.errors import HeadError
from brainfeat.heads import kernels
from brainfeat.heads.kernels import fit_svc, score_svc, takes_kernel
from brainfeat.heads.kinds import head_scores
from brainfeat.heads.recipe import FittedHead, HeadRecipe


def draw(n_classes: int = 4, rows: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    y = np.arange(rows) % n_classes
    X = rng.standard_normal((rows, 20)) + rng.standard_normal((n_classes, 20))[y]
    return X.astype(np.float32), y


def fit(X: np.ndarray, y: np.ndarray, head: str = "svm", **params: Any) -> Any:
    names = tuple(f"class {label}" for label in range(y.max() + 1))
    recipe = HeadRecipe(head=head, params=params, class_names=names, random_state=0)
    return recipe.fit(X, y, rows=np.arange(len(X)))


PARAMS: list[dict[str, Any]] = [
    {},
    {"C": 0.1},
    {"C": 1e3, "gamma": 0.3},
    {"gamma": 1},
    {"class_weight": "balanced", "tol": 1e-5},
    {"class_weight": {"class 1": 5.0}, "shrinking": False},
]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("params", PARAMS)
def test_every_attribute_is_that_of_the_ordinary_fit(
    n_classes: int, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = draw(n_classes)
    found = fit(X, y, **params)["classifier"]
    monkeypatch.setattr(kernels, "KERNEL_ROWS", len(X) - 1)
    expected = fit(X, y, **params)["classifier"]
    assert type(found) is SVC
    assert found.get_params() == expected.get_params()
    assert list(vars(found)) == list(vars(expected))
    for name, value in vars(expected).items():
        if name in ("dual_coef_", "_dual_coef_", "intercept_", "_intercept_"):
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-6, atol=1e-9)
        else:
            np.testing.assert_array_equal(getattr(found, name), value)
    Z = np.random.default_rng(0).standard_normal((50, 20))
    np.testing.assert_array_equal(found.predict(Z), expected.predict(Z))


@pytest.mark.parametrize(("limit", "columns"), [(150, 150), (149, 20)])
def test_more_rows_than_the_limit_are_never_held_as_a_kernel(
    limit: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, ordinary = [], SVC.fit

    def watch(classifier: SVC, X: np.ndarray, y: np.ndarray) -> SVC:
        seen.append(X.shape[1])
        return ordinary(classifier, X, y)

    monkeypatch.setattr(SVC, "fit", watch)
    monkeypatch.setattr(kernels, "KERNEL_ROWS", limit)
    fit(*draw())
    assert seen == [columns]


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_are_those_of_the_bundle(n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_BLOCK_ROWS", 7)
    X, y = draw(n_classes)
    head = fit(X, y, C=10.0)
    before = dict(vars(head["classifier"]))
    unseen, _ = draw(n_classes, rows=61)
    expected = head_scores(head, unseen)
    np.testing.assert_allclose(score_svc(head, unseen), expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(FittedHead(head).scores(unseen), score_svc(head, unseen))
    assert vars(head["classifier"]).keys() == before.keys()
    assert all(vars(head["classifier"])[name] is before[name] for name in before)


@pytest.mark.parametrize(
    "params", [{"kernel": "linear"}, {"kernel": "poly"}, {"gamma": "auto"}, {"gamma": 0}]
)
def test_other_kernels_are_left_to_scikit_learn(params: dict[str, Any]) -> None:
    assert not takes_kernel(SVC(**params), 10)
    X, y = draw()
    ordinary = SVC(C=10.0, decision_function_shape="ovo", **params)
    expected = head_scores(make_pipeline(StandardScaler(), ordinary).fit(X, y), X)
    scores = FittedHead(fit(X, y, **params)).scores(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_features_that_do_not_vary_have_a_gamma_of_one() -> None:
    X, y = np.zeros((8, 3)), np.arange(8) % 2
    assert fit_svc(SVC(), X, y)._gamma == SVC().fit(X, y)._gamma == 1.0


@pytest.mark.parametrize("params", [{"C": -1.0}, {"gamma": -1.0}, {"gamma": "wide"}, {"tol": 0}])
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(HeadError, match=f"the svm head cannot be fitted: .*{next(iter(params))}"):
        fit(*draw(), **params)


def test_a_warning_of_the_solver_is_passed_on() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(*draw(), max_iter=1)
    assert "Solver terminated early" in str(caught[0].message)
