"""What the functions of the package take, where several take the same kinds of things."""

import numpy as np
import pytest

from brainfeat import FeatureCache, HeadBundle, audit, compare, evaluate, fit_head, predict
from brainfeat.errors import BundleError, CacheError

NO_HEAD = "not a brainfeat-head file, but a feature cache"
NO_CACHE = "not a brainfeat-features file, but a head"
ORDER = "; where both are taken, the head comes before the cache$"


@pytest.fixture
def cache(make_cache):
    y = np.arange(80) % 4
    X = np.random.default_rng(0).standard_normal((80, 8)) + y[:, None]
    return make_cache(X.astype(np.float32), y)


@pytest.fixture
def head(cache, tmp_path):
    return fit_head(cache, head="knn", n_jobs=1).save(tmp_path / "head.h5")


def test_a_cache_in_place_of_a_head_is_named_with_the_order(cache, head):
    for call in (
        lambda: evaluate(cache, head),
        lambda: compare(head, cache, head),
        lambda: predict(cache, []),
        lambda: HeadBundle.load(cache),
    ):
        with pytest.raises(BundleError, match=NO_HEAD + ORDER):
            call()


def test_a_head_in_place_of_a_cache_is_named_with_the_order(head):
    for call in (lambda: evaluate(head, head), lambda: audit(head), lambda: FeatureCache(head)):
        with pytest.raises(CacheError, match=NO_CACHE + ORDER):
            call()


def test_open_ones_in_the_wrong_order_are_named(cache, head):
    bundle = HeadBundle.load(head)
    with FeatureCache(cache) as opened:
        with pytest.raises(BundleError, match="^a FeatureCache in place of a head.*" + ORDER):
            evaluate(opened, bundle)
        with pytest.raises(CacheError, match="^a HeadBundle in place of a feature cache.*" + ORDER):
            evaluate(bundle, bundle)


def test_the_commands_name_the_order(run, cache, head):
    found = run("evaluate", cache, head)
    assert (found.code, found.out) == (1, "")
    assert "but a feature cache; where both are taken, the head comes before" in found.err
