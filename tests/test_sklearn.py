"""``cache.X`` is handed whole to scikit-learn, as README says."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import resample

from brainfeat import FeatureCache

HEAD = LogisticRegression(max_iter=300)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    from support.caches import write_vectors

    y = np.arange(80) % 4
    X = np.random.default_rng(0).standard_normal((80, 8)) + y[:, None]
    path = write_vectors(tmp_path_factory.mktemp("sklearn"), X.astype(np.float32), y)
    with FeatureCache(path) as cache:
        yield cache


@pytest.mark.parametrize(
    "use",
    [
        lambda X, y: clone(HEAD).fit(X, y).predict_proba(X),
        lambda X, y: np.concatenate(train_test_split(X, y, random_state=0)[:2]),
        lambda X, y: cross_val_score(HEAD, X, y, cv=3),
        lambda X, y: PCA(2, random_state=0).fit_transform(X),
        lambda X, y: make_pipeline(PCA(2), HEAD).fit(X, y).predict(X),
        lambda X, y: resample(X, random_state=0),
        lambda X, y: np.mean(X, axis=0),
        lambda X, y: np.linalg.norm(X, axis=1),
    ],
)
def test_it_gives_what_the_array_gives(cache, use):
    np.testing.assert_array_equal(use(cache.X, cache.y), use(cache.X[:], cache.y))


@pytest.mark.slow
def test_it_goes_to_other_processes(cache):
    def search(X, n_jobs):
        grid = GridSearchCV(HEAD, {"C": [0.1, 1, 10]}, cv=3, n_jobs=n_jobs)
        return grid.fit(X, cache.y).cv_results_["mean_test_score"]

    np.testing.assert_array_equal(search(cache.X, 2), search(cache.X[:], None))
