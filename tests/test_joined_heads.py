"""Heads of several caches: against scikit-learn on plain arrays, what they record and refuse."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from support.bundles import craft_head, refuse
from support.caches import draw_signatures
from support.modalities import WIDTHS, write_modalities

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joined import GroupJoin
from brainfeat.cache.joining import join_caches
from brainfeat.errors import BrainfeatError, BundleError, ParameterError, TableError
from brainfeat.heads.bags import BagRule
from brainfeat.heads.bundle import HeadBundle
from brainfeat.training.fitting import fit_head

# PET lacks patients of all splits, FLAIR some of the test alone.
LACKS = {"pet": slice(5, 37), "flair": slice(8, 10)}


def pool(path: Path, patients: int = 80) -> np.ndarray:
    """Return the mean vector of each patient of a cache, NaN where it has none."""
    with FeatureCache.open(path) as cache:
        number = np.array([int(group.split()[1]) for group in cache.groups])
        X, pooled = cache.X[:], np.full((patients, cache.spec.n_features), np.nan)
    for patient in np.unique(number):
        pooled[patient] = X[number == patient].mean(axis=0)
    return pooled


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_modalities(tmp_path_factory.mktemp("modalities"), lacks=LACKS)


@pytest.fixture(scope="module")
def bundle(paths: list[Path]) -> HeadBundle:
    return fit_head(paths, head="svm", join="groups", ablate_blocks=True)


def test_scores_are_those_of_scikit_learn_on_filled_arrays(
    paths: list[Path], bundle: HeadBundle
) -> None:
    blocks = [pool(path) for path in paths]
    patients = np.arange(80)
    fitted = patients // 2 % 5 < 4
    filled = np.hstack(
        [np.where(np.isnan(X), np.nanmean(X[fitted], axis=0, keepdims=True), X) for X in blocks]
    )
    missing = np.isnan(blocks[2][:, :1]).astype(float)
    filled = np.hstack([filled, missing])
    scaler = StandardScaler().fit(filled[fitted])
    params = bundle.estimator["classifier"].get_params()
    oracle = SVC(**params).fit(scaler.transform(filled[fitted]), patients[fitted] % 2)
    expected = oracle.decision_function(scaler.transform(filled))
    X = np.hstack(blocks)
    np.testing.assert_allclose(bundle.scores(X)[:, 1], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bundle.vectors(X), filled, atol=1e-5)
    assert bundle.ood_detector is not None
    assert bundle.ood_detector.mean.shape == (14,)
    assert np.isfinite(bundle.ood_detector.score(bundle.vectors(X)).scores).all()


def test_a_missing_block_is_marked_only_where_train_lacks_it(bundle: HeadBundle) -> None:
    assert bundle.blocks is not None
    assert bundle.blocks.names == ("t1", "flair", "pet")
    assert bundle.blocks.widths == tuple(WIDTHS.values())
    assert bundle.blocks.fill.marked.tolist() == [False, False, True]
    assert bundle.bag == BagRule(pooling="mean")
    assert bundle.spec.backbone == "joined"


def test_what_is_recorded_of_each_block(paths: list[Path], bundle: HeadBundle) -> None:
    record = bundle.training.join
    assert record is not None
    assert (record.on, record.groups, record.complete) == ("group", 80, 80 - 32)
    for path, counts in zip(paths, record.blocks, strict=True):
        there = ~np.isnan(pool(path)[:, 0])
        part = np.arange(80) // 2 % 5
        assert counts.name == path.stem
        assert counts.train == (there & (part < 3)).sum()
        assert counts.val == (there & (part == 3)).sum()
        assert counts.test == (there & (part == 4)).sum()
        assert counts.missing == (~there).sum()
        assert counts.unlabelled == 0
        with FeatureCache.open(path) as cache:
            assert counts.images == len(cache)
    assert [counts.is_marked for counts in record.blocks] == [False, False, True]
    assert bundle.training.split is not None
    assert bundle.training.split.train == 48
    fitted = bundle.fitted_images
    assert fitted is not None
    assert len(fitted.split) == sum(counts.images for counts in record.blocks)


def test_an_ablation_compares_parts_in_the_same_folds(bundle: HeadBundle) -> None:
    assert bundle.training.join is not None
    found = bundle.training.join.ablation
    assert found is not None
    assert (found.n_folds, found.n) == (5, 64)
    kinds = [(variant.part, variant.block) for variant in found.variants]
    alone = [("alone", name) for name in WIDTHS]
    assert kinds == [("all", None), *alone, *(("without", name) for name in WIDTHS)]
    everything, t1, *_, without_pet = found.variants
    assert everything.difference is None
    for variant in found.variants[1:]:
        assert variant.difference == pytest.approx(
            variant.balanced_accuracy - everything.balanced_accuracy
        )
        assert variant.interval is not None
        low, high = variant.interval
        assert low <= variant.balanced_accuracy <= high
    assert t1.missing == without_pet.missing == 0
    assert found.variants[3].missing == (np.arange(5, 37) // 2 % 5 < 4).sum()


def test_an_ablation_of_two_blocks_has_each_alone(tmp_path: Path) -> None:
    pair = write_modalities(tmp_path, widths={"a": 3, "b": 3}, patients=60)
    found = fit_head(pair, head="lda", join="groups", ablate_blocks=True, random_state=3)
    ablation = found.training.join.ablation
    assert [(entry.part, entry.block) for entry in ablation.variants] == [
        ("all", None),
        ("alone", "a"),
        ("alone", "b"),
    ]


def test_a_file_keeps_blocks_and_record(bundle: HeadBundle, tmp_path: Path) -> None:
    loaded = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    assert loaded.blocks is not None
    assert bundle.blocks is not None
    assert loaded.blocks.specs == bundle.blocks.specs
    np.testing.assert_array_equal(loaded.blocks.fill.means, bundle.blocks.fill.means)
    assert loaded.training == bundle.training
    assert loaded.bag == bundle.bag
    np.testing.assert_array_equal(loaded.scores(bundle.probe), bundle.scores(bundle.probe))
    assert np.isnan(loaded.probe).any(axis=1).sum() > 8
    with h5py.File(tmp_path / "head.h5") as file:
        assert file.attrs["format_version"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": "[]"}, "arrays without names"),
        ({"blocks": '[{"name":"t1"}]'}, "JSON list of two or more"),
        ({"arrays": {"blocks/means": np.zeros(12, np.float32)}}, "blocks/means has shape (12,)"),
        ({"arrays": {"blocks/means": np.full(13, np.nan, np.float32)}}, "must be finite"),
        ({"arrays": {"blocks/marked": np.array([0, 0, 2], np.uint8)}}, "blocks/marked 0 or 1"),
        ({"arrays": {"blocks/marked": np.array([1, 1, 1], np.uint8)}}, "have shape (16,)"),
        ({"remove": ("blocks/means",)}, "blocks has the arrays"),
        ({"bag": "{}"}, "no bag says how it is made"),
    ],
)
def test_damaged_blocks_are_refused(
    bundle: HeadBundle, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved = {"svm": bundle.save(tmp_path / "head.h5")}
    assert message in refuse(craft_head(saved, tmp_path / "odd.h5", **changes))


@pytest.mark.parametrize("name", ["../t1", "flair", "t1\n", ""])
def test_odd_names_of_stored_blocks_are_refused(
    bundle: HeadBundle, tmp_path: Path, name: str
) -> None:
    saved = {"svm": bundle.save(tmp_path / "head.h5")}
    document = bundle.blocks.to_document()
    document[0]["name"] = name
    odd = craft_head(saved, tmp_path / "odd.h5", blocks=json.dumps(document))
    assert "different names of letters, digits" in refuse(odd)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 12)), r"takes \(n, 13\), which are 6 of t1 \+ 4 of flair \+ 3 of pet"),
        (np.full((2, 13), np.inf), "not finite"),
        (np.full((1, 13), np.nan), "none of the blocks t1, flair, pet"),
        (np.where(np.arange(13) == 2, np.nan, 0.0)[None], "all of its features are NaN"),
        (np.where(np.arange(13) == 6, np.nan, 0.0)[None], "all of its features are NaN"),
    ],
)
def test_other_vectors_are_refused(bundle: HeadBundle, X: np.ndarray, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        bundle.scores(X)


def test_a_join_can_be_passed(paths: list[Path], bundle: HeadBundle) -> None:
    with join_caches(paths) as joined:
        assert isinstance(joined, GroupJoin)
        again = fit_head(joined, head="svm")
    np.testing.assert_array_equal(again.scores(bundle.probe), bundle.scores(bundle.probe))


@pytest.mark.parametrize("head", ["dense", "random-forest", "logistic", "knn"])
def test_heads_of_each_kind_take_joined_vectors(
    tmp_path: Path, head: str, paths: list[Path]
) -> None:
    params = {"epochs": 3} if head == "dense" else {}
    found = fit_head(paths[:2], head=head, params=params, join="groups", bag="max")
    loaded = HeadBundle.load(found.save(tmp_path / "head.h5"))
    X = np.full((1, 10), np.nan)
    X[:, :6] = 1.0
    np.testing.assert_allclose(loaded.predict_proba(X).sum(), 1)


def test_repeats_and_search_take_joins(paths: list[Path]) -> None:
    found = fit_head(
        paths[:2], head="logistic", join="groups", search=True, n_iter=2, repeats=2, cv=3
    )
    assert found.training.search is not None
    assert found.training.repeats is not None


def test_copies_in_any_cache_join_patients(tmp_path: Path) -> None:
    signatures = draw_signatures(400)
    pair = []
    for number, name in enumerate(("a", "b")):
        rows = slice(200 * number, 200 * number + 79)
        own = signatures[rows].copy()
        if name == "b":
            own[40] = own[0]
        pair += write_modalities(
            tmp_path, widths={name: 3}, patients=40, split=False, signature=own
        )
    found = fit_head(pair, head="lda", join="groups")
    assert found.training.group_by == "copies"
    assert found.training.leakage is not None
    assert found.training.leakage.copies is not None
    assert found.training.leakage.copies.groups == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"cache": 1}, ParameterError, "one cache alone is no join"),
        ({"cache": [0]}, ParameterError, "one cache alone is no join"),
        ({"join": None}, ParameterError, 'pass join="groups" where'),
        ({"join": "image"}, ParameterError, "join must be groups or images, got 'image'"),
        (
            {"bag": "attention", "head": "dense"},
            ParameterError,
            "attention weighs many; pass another bag",
        ),
        ({"ood_examples": 0}, ParameterError, "out-of-distribution examples are of one cache"),
        ({"names": ["a", "b"]}, ParameterError, "2 names for 3 caches"),
        ({"cache": 1, "join": None, "ablate_blocks": True}, ParameterError, "ablate_blocks=True"),
        ({"cache": 1, "join": None, "names": ["a"]}, ParameterError, "one cache alone"),
    ],
)
def test_what_is_refused(
    paths: list[Path], given: dict[str, Any], error: type[BrainfeatError], message: str
) -> None:
    options: dict[str, Any] = {"join": "groups", "head": "lda", **given}
    caches = options.pop("cache", [0, 1, 2])
    chosen = paths[caches] if isinstance(caches, int) else [paths[place] for place in caches]
    if "ood_examples" in options:
        options["ood_examples"] = paths[0]
    with pytest.raises(error, match=message):
        fit_head(chosen, **options)


def test_a_block_without_training_patients_is_named(tmp_path: Path) -> None:
    lacks = np.flatnonzero(np.arange(80) // 2 % 5 < 3)
    paths = write_modalities(tmp_path, widths={"a": 3, "b": 3}, lacks={"b": lacks})
    with pytest.raises(TableError, match=r"no group in train has images in .*b\.h5"):
        fit_head(paths, head="lda", join="groups")
