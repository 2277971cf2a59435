"""Fits of attention heads: on the maps of a cache, in the file format, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import craft_head, refuse
from support.layered import write_layered

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import (
    BundleError,
    CacheError,
    HeadError,
    ParameterError,
    SpecMismatchError,
)
from brainfeat.evaluation.comparison import compare
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import ATTENTION_HEADS, accepted_names
from brainfeat.heads.maps import MapRows
from brainfeat.heads.ood import OODDetector
from brainfeat.training.fitting import fit_head
from brainfeat.training.learning_curve import learning_curve

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL: dict[str, Any] = {"hidden_units": (8,), "batch_size": 16, "epochs": 4}
OWN = {"attention-pool": {"attention_units": 4}, "se": {"reduction": 4}, "cbam": {"reduction": 4}}


@pytest.fixture(scope="module")
def fitted(
    layered_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[HeadBundle, Path]]:
    folder = tmp_path_factory.mktemp("maps")
    found = {}
    for head, own in OWN.items():
        bundle = fit_head(layered_cache, head=head, params={**SMALL, **own})
        found[head] = bundle, bundle.save(folder / f"{head}.h5")
    return found


@pytest.mark.parametrize("head", ATTENTION_HEADS)
def test_a_fit_is_saved_loaded_and_evaluated(
    head: str, fitted: dict[str, tuple[HeadBundle, Path]], layered_cache: Path
) -> None:
    bundle, path = fitted[head]
    assert bundle.head == head
    assert bundle.training.history is not None
    assert bundle.training.refitted_on_val is False
    assert isinstance(bundle.ood_detector, OODDetector)
    assert bundle.conformal is not None
    back = HeadBundle.load(path)
    assert back.params == {**SMALL, "hidden_units": [8], **OWN[head]}
    with FeatureCache(layered_cache) as cache:
        X = cache.X[:9] if head == "se" else cache.maps[:9]
        assert back.spec == (cache.spec if head == "se" else cache.stored_spec.select(maps=True))
        np.testing.assert_array_equal(back.predict_proba(X), bundle.predict_proba(X))
        np.testing.assert_allclose(back.vectors(X), cache.X[:9], atol=1e-3)
        n = int(cache.mask("test").sum())
    found = evaluate(back, layered_cache, n_resamples=1000)
    assert found.n == n
    assert bundle.training.test is not None
    assert found.accuracy == bundle.training.test.accuracy


@pytest.mark.parametrize("head", ATTENTION_HEADS)
def test_the_file_is_of_format_3_with_arrays_alone(
    head: str, fitted: dict[str, tuple[HeadBundle, Path]]
) -> None:
    import h5py

    with h5py.File(fitted[head][1]) as file:
        assert file.attrs["format_version"] == 3
        assert "skops" not in file
        assert ("maps" in file["probe"]) == (head != "se")


@pytest.fixture(scope="module")
def cbam(fitted: dict[str, tuple[HeadBundle, Path]]) -> HeadBundle:
    return fitted["cbam"][0]


def test_the_weights_of_positions_are_those_of_the_estimator(
    fitted: dict[str, tuple[HeadBundle, Path]], layered_cache: Path
) -> None:
    with FeatureCache(layered_cache) as cache:
        maps = cache.maps[:5]
    for head in ("attention-pool", "cbam"):
        weights = fitted[head][0].attention(maps)
        assert weights.shape == maps.shape[:3]
        assert (weights > 0).all()
        assert (weights < 1).all()
    np.testing.assert_allclose(
        fitted["attention-pool"][0].attention(maps).sum(axis=(1, 2)), 1.0, rtol=1e-12
    )
    with pytest.raises(BundleError, match="an se head weighs the channels of an image, and no"):
        fitted["se"][0].attention(maps)


def test_maps_and_vectors_are_not_taken_for_each_other(
    fitted: dict[str, tuple[HeadBundle, Path]], cbam: HeadBundle, layered_cache: Path
) -> None:
    with FeatureCache(layered_cache) as cache:
        rows = MapRows.collect(cache.maps)
        with pytest.raises(BundleError, match=r"expected \(n, h, w, 8\); this head takes maps"):
            cbam.scores(cache.maps[:3][..., :5])
        with pytest.raises(BundleError, match="maps of images; this head takes vectors"):
            fitted["se"][0].scores(rows)
        assert cbam.scores(rows[[3, 1]]).shape == (2, len(cbam.class_names))
        vectors = fit_head(layered_cache, head="lda")
        with pytest.raises(SpecMismatchError, match="pooling"):
            vectors.check_spec(cbam.spec)
        with pytest.raises(SpecMismatchError, match="pooling"):
            cbam.check_spec(cache.spec)
    with pytest.raises(BundleError, match="not finite"):
        cbam.scores(np.full((1, 3, 3, 8), np.inf))
    assert cbam.scores(np.empty((0, 3, 3, 8))).shape == (0, len(cbam.class_names))


def test_a_cache_without_maps_says_what_to_extract(
    tmp_path: Path, cbam: HeadBundle, fitted: dict[str, tuple[HeadBundle, Path]]
) -> None:
    pooled = write_layered(tmp_path, maps=False)
    for head in ("attention-pool", "cbam"):
        with pytest.raises(CacheError, match='no maps; extract again with pooling="none"'):
            fit_head(pooled, head=head)
        with pytest.raises(CacheError, match="no maps; extract again"):
            evaluate(fitted[head][0], pooled)
    bundle = fit_head(pooled, head="se", params={**SMALL, "epochs": 1})
    assert bundle.spec.pooling == "average"


def test_maps_of_an_earlier_layer_are_not_those_of_the_deepest(layered_cache: Path) -> None:
    reason = "maps of layer block5_pool alone, and those of block4_pool are needed"
    with pytest.raises(CacheError, match=reason):
        fit_head(layered_cache, head="cbam", layer="block4_pool")
    with FeatureCache(layered_cache) as cache:
        assert cache.select("block5_pool").maps.shape == cache.maps.shape
        with pytest.raises(CacheError, match=reason):
            _ = cache.select("block4_pool").maps


def test_fits_that_are_refused(layered_cache: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"bag": "mean"}, "a head of maps takes single images, and a bag groups of them"),
        ({"params": {"reduction": 0}}, "'reduction' parameter of the cbam head must be a positive"),
        ({"params": {"attention_units": 3}}, "attention_units"),
        ({"params": {"attention": "se"}}, "attention"),
    ):
        with pytest.raises((HeadError, ParameterError), match=message):
            fit_head(layered_cache, head="cbam", **options)
    with pytest.raises(ParameterError, match="several are joined; take a head of vectors"):
        fit_head(
            [layered_cache, write_layered(tmp_path, name="other.h5", seed=1)],
            head="cbam",
            join="groups",
        )
    assert accepted_names("cbam") == accepted_names("se")
    assert set(accepted_names("attention-pool")) - set(accepted_names("se")) == {"attention_units"}


@pytest.mark.slow
def test_folds_in_other_processes_open_the_file_again(layered_cache: Path) -> None:
    found = [
        fit_head(
            layered_cache,
            head="cbam",
            params={**SMALL, "epochs": 1, "reduction": 4},
            cv=2,
            ood_examples=layered_cache,
            n_jobs=n_jobs,
        ).training
        for n_jobs in (1, 2)
    ]
    assert found[0].cv is not None
    assert found[0].cv == found[1].cv
    assert found[0].ood_examples is not None


@pytest.mark.slow
def test_searches_and_repeats_take_maps(layered_cache: Path) -> None:
    options = {"search": True, "n_iter": 2, "cv": 2, "repeats": 2, "n_jobs": 1}
    params = {**SMALL, "epochs": 1}
    record = fit_head(layered_cache, head="cbam", params=params, **options).training
    assert record.repeats is not None
    assert record.search is not None
    assert len(record.search.candidates) == 2


def test_a_learning_curve_reads_maps_while_the_cache_is_open(layered_cache: Path) -> None:
    curve = learning_curve(
        layered_cache, head="attention-pool", params={**SMALL, "epochs": 1}, repeats=1, n_jobs=1
    )
    assert curve.head == "attention-pool"


def test_heads_of_maps_and_of_vectors_are_compared_on_one_cache(
    cbam: HeadBundle, layered_cache: Path
) -> None:
    dense = fit_head(layered_cache, head="lda")
    found = compare(cbam, dense, layered_cache, n_resamples=1000)
    assert found.n + found.left_out == evaluate(cbam, layered_cache, n_resamples=1000).n


def test_crafted_map_heads_are_refused(
    fitted: dict[str, tuple[HeadBundle, Path]], tmp_path: Path
) -> None:
    def craft(kind: str, **changes: Any) -> str:
        good = {"svm": fitted[kind][1]}
        return refuse(craft_head(good, tmp_path / "bad.h5", **changes))

    for name in ("squeeze", "excite", "spatial", "spatial_bias"):
        assert "missing or unknown" in craft("cbam", remove=[f"attention/{name}"])
    shapes = "squeeze of shape (8, p), excite of shape (p, 8), spatial of shape (7, 7, 2)"
    assert shapes in craft("cbam", arrays={"attention/squeeze": np.zeros((8, 3), "<f4")})
    assert shapes in craft("cbam", arrays={"attention/spatial": np.zeros((5, 5, 2), "<f4")})
    assert "finite" in craft("cbam", arrays={"attention/excite": np.full((2, 8), np.inf, "<f4")})
    assert "probe vectors are missing" in craft("cbam", remove=["probe/maps"])
    assert "expected (n, h, w, 8)" in craft(
        "cbam", arrays={"probe/maps": np.zeros((1, 3, 3, 5), "<f2")}
    )
    assert "pooling is 'none'" in craft("cbam", head='{"name":"se","params":{}}')
    assert "pooling is 'none'" in craft("cbam", head='{"name":"dense","params":{}}')
    assert "pooling is 'average'" in craft("se", head='{"name":"cbam","params":{}}')
    assert "no bags" in craft("cbam", bag='{"pooling":"mean","label":"same"}')
