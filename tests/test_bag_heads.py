"""Bag heads: fits whose examples are groups, what they record, and what they take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.bundles import craft_head, make_bundle, refuse
from support.caches import draw_groups, draw_signatures

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import BundleError, ParameterError, TableError
from brainfeat.heads.bags import BagRule, Bags
from brainfeat.heads.bundle import HeadBundle
from brainfeat.training.fitting import fit_head
from brainfeat.training.partition import Partition

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MEAN = BagRule(pooling="mean")


@pytest.fixture
def cache(make_cache: Callable[..., Path]) -> Path:
    X, y, groups = draw_groups()
    return make_cache(X, y, groups=groups)


def test_a_row_of_a_partition_is_a_group(cache: Path) -> None:
    X, y, groups = draw_groups()
    with FeatureCache.open(cache) as features:
        found = Partition.read(features, MEAN)
        bags = Partition.read(features, BagRule(pooling="attention")).X
    assert isinstance(bags, Bags)
    assert found.members is not None
    for place, name in enumerate(dict.fromkeys(groups)):
        rows = [row for row, group in enumerate(groups) if group == name]
        np.testing.assert_allclose(found.X[place], X[rows].mean(axis=0), atol=1e-6)
        np.testing.assert_array_equal(bags[[place]].values, X[rows])
        assert found.y[place] == y[rows[0]]
        assert found.list_members(np.array([place])).tolist() == rows


def test_pooling_in_blocks_equals_pooling_at_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureCache.open(cache) as features:
        for pooling in ("mean", "max", "median"):
            whole = Partition.read(features, BagRule(pooling=pooling)).X
            for rows in (1, 3, 50, 119, 120, 121):
                monkeypatch.setattr("brainfeat.training.units._BLOCK_ROWS", rows)
                found = Partition.read(features, BagRule(pooling=pooling)).X
                np.testing.assert_array_equal(found, whole)


def test_a_view_of_a_group_needs_that_view_of_each_of_its_images(
    make_cache: Callable[..., Path],
) -> None:
    X = np.arange(8, dtype=np.float32)[:, None]
    path = make_cache(
        X,
        np.array([0, 0, 0, 0, 1, 1, 1, 0]),
        paths=["a", "a", "b", "b", "c", "c", "d", "a"],
        contents=["a", "a", "b", "b", "c", "c", "d", "a"],
        groups=["p", "p", "p", "p", "q", "q", "q", "p"],
        view=[0, 1, 0, 1, 0, 1, 0, 2],
    )
    with FeatureCache.open(path) as features:
        found = Partition.read(features, MEAN)
    assert found.X.tolist() == [[1.0], [5.0], [2.0]]
    assert found.image.tolist() == [0, 1, 0]
    assert found.y.tolist() == [0, 1, 0]
    assert found.splits["train"].tolist() == [0, 1]
    assert found.rows_of(np.array([0])).tolist() == [0, 2]


@pytest.mark.parametrize("pooling", ["mean", "max", "median"])
def test_fit_on_groups_scores_pooled_vectors(cache: Path, pooling: str) -> None:
    bundle = fit_head(cache, head="logistic", bag=pooling)
    assert bundle.bag == BagRule(pooling=pooling, label="same")
    sizes = bundle.training.split
    assert sizes is not None
    assert sizes.train + sizes.val + sizes.test == 48
    parts = [np.random.default_rng(seed).standard_normal((1 + seed, 8)) for seed in range(3)]
    pooled = np.array([getattr(np, pooling)(part, axis=0) for part in parts], np.float32)
    expected = bundle.estimator.decision_function(pooled)
    np.testing.assert_allclose(bundle.scores(parts), expected, atol=1e-5)
    np.testing.assert_allclose(bundle.vectors(parts), pooled, atol=1e-6)
    same = np.random.default_rng(0).standard_normal((2, 3, 8))
    np.testing.assert_array_equal(bundle.scores(same), bundle.scores(list(same)))
    assert bundle.predict([]).shape == (0,)


def test_what_a_fit_records_are_all_images_of_its_groups(cache: Path) -> None:
    bundle = fit_head(cache, head="logistic", bag="mean")
    record, fitted = bundle.training, bundle.fitted_images
    assert record.held_out is not None
    assert fitted is not None
    with FeatureCache.open(cache) as features:
        ids = np.array(features.image_ids(np.arange(len(features))))
        held = features.groups[np.isin(ids, record.held_out.test)]
        of_test = np.isin(features.groups, held)
        assert set(ids[of_test]) == set(record.held_out.test)
        digests = features.sha256[of_test]
        assert not fitted.find(digests).any()
        assert (fitted.split == 2).sum() == of_test.sum()
        assert len(fitted.sha256) == len(features)


def test_a_group_is_a_copy_if_any_of_its_images_is(make_cache: Callable[..., Path]) -> None:
    X, y, groups = draw_groups(64)
    signature = draw_signatures(len(X))
    splits = ["test" if int(name.split()[1]) < 12 else "train" for name in groups]
    rows = {name: [row for row, group in enumerate(groups) if group == name] for name in groups}
    # One image of three of the four images of a patient of the test split.
    signature[rows["patient 3"][2]] = signature[rows["patient 20"][0]]
    path = make_cache(X, y, groups=groups, splits=splits, signature=signature)
    record = fit_head(path, head="logistic", bag="mean").training
    assert record.test is not None
    assert record.test_without_copies is not None
    assert (record.test.n, record.test_without_copies.n) == (12, 11)


def test_all_of_stage_two_works_on_groups(cache: Path, tmp_path: Path) -> None:
    bundle = fit_head(
        cache, head="svm", bag="mean", search=True, n_iter=2, cv=3, repeats=2, group_by="none"
    )
    record = bundle.training
    assert record.cv is not None
    assert record.split is not None
    assert record.cv.out_of_fold.n == record.split.train + record.split.val
    assert record.repeats is not None
    assert bundle.conformal is not None
    assert len(bundle.conformal.labels) == record.cv.out_of_fold.n
    back = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    parts = [np.ones((2, 8)), np.zeros((1, 8))]
    np.testing.assert_array_equal(back.predict_proba(parts), bundle.predict_proba(parts))
    assert back.bag == bundle.bag
    assert back.training == bundle.training


def test_a_class_can_decide_for_a_group(make_cache: Callable[..., Path]) -> None:
    X, y, groups = draw_groups()
    y = np.where(np.arange(len(y)) % 5 == 0, 2, y)
    path = make_cache(X, y, groups=groups)
    with pytest.raises(TableError, match="have images of several classes"):
        fit_head(path, head="logistic", bag="mean")
    bundle = fit_head(path, head="logistic", bag="mean", group_label="any:notumor")
    assert bundle.bag == BagRule(pooling="mean", label="any:notumor")


def test_too_few_groups_of_a_class_are_named_as_groups(make_cache: Callable[..., Path]) -> None:
    X, y, groups = draw_groups(6)
    for group_by in ("auto", "column", "none"):
        with pytest.raises(TableError, match="has images of 1 group of patients or copies; a spl"):
            fit_head(make_cache(X, y, groups=groups), head="knn", bag="mean", group_by=group_by)


def test_options_that_do_not_fit_are_refused(cache: Path) -> None:
    with pytest.raises(ParameterError, match="bag must be one of mean, max, median, attention"):
        fit_head(cache, bag="sum")
    with pytest.raises(ParameterError, match='ask for groups, such as with bag="mean"'):
        fit_head(cache, group_label="same")
    with pytest.raises(ParameterError, match="expected same, or any:CLASS"):
        fit_head(cache, bag="mean", group_label="any:sarcoma")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((3, 8)), "bag 0 has shape (8,); expected Bags, a list of arrays of shape (m, 8)"),
        (np.zeros((3, 2, 7)), "bag 0 has shape (2, 7)"),
        ([np.zeros((2, 8)), np.zeros((0, 8))], "bag 1 is empty; a bag has one vector or more"),
        ([np.full((2, 8), np.nan)], "the bags hold values that are not finite"),
        ("text", "a str in place of bags"),
        (None, "a NoneType in place of bags"),
        ([[["a"]]], "bags are not arrays of numbers"),
        (Bags(values=np.zeros((2, 7), np.float32), offsets=np.array([0, 2])), "have shape (2, 7)"),
        (Bags(values=np.zeros((2, 8), np.float32), offsets=np.array([0, 3])), "from 0 to their 2"),
        (Bags(values=np.zeros((2, 8), np.float32), offsets=np.array([0, 2, 2])), "bag 1 is empty"),
    ],
)
def test_what_is_not_a_bag_is_refused(X: Any, message: str) -> None:
    bundle = make_bundle("svm", bag=MEAN)
    for call in (bundle.scores, bundle.predict_proba, bundle.predict, bundle.vectors):
        with pytest.raises(BundleError) as error:
            call(X)
        assert message in str(error.value)


def test_a_head_of_images_takes_no_bags() -> None:
    with pytest.raises(BundleError, match=r"bags of vectors; this head takes vectors, \(n, 8\)"):
        make_bundle("svm").scores(Bags(values=np.zeros((2, 8), np.float32), offsets=np.arange(3)))


def test_heads_of_images_keep_their_format(tmp_path: Path) -> None:
    probe = Bags(values=make_bundle().probe, offsets=np.array([0, 1, 4, 16]))
    for fields, version in (
        ({"fitted_images": None}, 1),
        ({}, 2),
        ({"bag": MEAN, "probe": probe}, 3),
        ({"bag": MEAN, "probe": probe, "fitted_images": None}, 3),
    ):
        path = make_bundle(**fields).save(tmp_path / "head.h5", overwrite=True)
        with h5py.File(path) as file:
            assert file.attrs["format_version"] == version
            assert ("bag" in file.attrs) == (version == 3)
            assert ("probe/offsets" in file) == (version == 3)
        assert HeadBundle.load(path).bag == fields.get("bag")


def test_a_stored_bag_head_is_checked(tmp_path: Path) -> None:
    probe = Bags(values=make_bundle().probe, offsets=np.array([0, 1, 4, 16]))
    path = make_bundle(bag=MEAN, probe=probe).save(tmp_path / "good.h5")

    def craft(**changes: Any) -> str:
        return refuse(craft_head({"svm": path}, tmp_path / "bad.h5", **changes))

    other = '{"pooling":"median","label":"same"}'
    assert "does not give the probabilities stored with it" in craft(bag=other)
    assert "bag must be one of" in craft(bag='{"pooling":"sum","label":"same"}')
    assert "BagRule" in craft(bag='{"pooling":1,"label":"same"}')
    assert "any:CLASS" in craft(bag='{"pooling":"mean","label":"any:sarcoma"}')
    assert "bag must be a JSON dict" in craft(bag="[]")
    assert "probe" in craft(remove=["probe/offsets"])
    for offsets in ([0, 1, 4, 17], [1, 4, 16], [0, 4, 4, 16], [0, 8, 4, 16], []):
        assert craft(arrays={"probe/offsets": np.array(offsets, "<i8")})
    # The differences of these wrap around to positive numbers.
    wrapping = np.array([0, 2**63 - 1, -2, 16], "<i8")
    assert "bag 1 is empty" in craft(arrays={"probe/offsets": wrapping})
    # Without the rule it would be a head of images.
    assert craft(bag="{}")


def test_detector_examples_of_a_bag_head_are_groups(
    cache: Path, make_cache: Callable[..., Path]
) -> None:
    X, y, groups = draw_groups(20, seed=1)
    odd = make_cache(X + 5, y, groups=groups, name="odd.h5")
    bundle = fit_head(cache, head="logistic", bag="mean", ood_examples=odd)
    assert bundle.training.ood_examples == 20
    alone = make_cache(X + 5, y, name="alone.h5")
    with pytest.raises(TableError, match="has images without a group, such as a patient; a head"):
        fit_head(cache, head="logistic", bag="mean", ood_examples=alone)


def test_sources_left_out_are_those_of_groups(make_cache: Callable[..., Path]) -> None:
    X, y, groups = draw_groups()
    numbers = [int(name.split()[1]) for name in groups]
    sources = [("north", "south", "west")[number // 4 % 3] for number in numbers]
    path = make_cache(X, y, groups=groups, sources=sources)
    record = fit_head(path, head="logistic", bag="mean", cv="leave-one-source-out").training
    assert record.cv is not None
    assert record.cv.sources is not None
    assert [fold.source for fold in record.cv.sources.folds] == ["north", "south", "west"]
    two = replace_one(sources, groups, "patient 3")
    mixed = make_cache(X, y, groups=groups, sources=two, name="mixed.h5")
    with pytest.raises(TableError, match="1 group of 48 have images of several sources"):
        fit_head(mixed, head="logistic", bag="mean", cv="leave-one-source-out")


def replace_one(sources: list[str], groups: list[str], name: str) -> list[str]:
    changed = list(sources)
    changed[groups.index(name)] = "elsewhere"
    return changed
