"""FitRecord: what a fit records comes back; records of earlier versions are translated."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainfeat.errors import BundleError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.record import FitRecord, History, SplitSizes, Spread

DATA = Path(__file__).parent / "data"
OLD = {name: DATA / f"head-format-1-{name}.h5" for name in ("logistic", "dense")}


def draw():
    """Draw the rows that the kept heads were fitted on."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    return 2 * rng.standard_normal((4, 8))[y] + rng.standard_normal((240, 8)), y


@pytest.fixture(scope="module", params=sorted(OLD))
def old(request):
    return HeadBundle.load(OLD[request.param])


# Heads of format 1 with the names of an earlier version


def test_an_old_head_predicts_as_well_as_it_records(old):
    X, y = draw()
    found = old.predict_proba(X).argmax(axis=1)
    assert (found == y).mean() == pytest.approx(old.training.test.accuracy, abs=0.1)


def test_the_record_of_an_old_head_has_its_values(old):
    record = old.training
    assert record.split == record.rows == SplitSizes(train=168, val=36, test=36)
    assert (len(record.held_out.val), record.held_out.test[0]) == (36, "bdaeafb7b586a4ee")
    assert record.group_by == "exact-duplicates"
    assert record.leakage.images == 240
    assert record.leakage.exact_duplicates.groups == 0
    assert (record.leakage.near_duplicates.chained, record.leakage.near_duplicates.largest) == (
        True,
        37,
    )
    assert record.leakage.label_conflicts == 0
    assert record.leakage.findings[0].startswith("near duplicates cannot be told apart at 0.92")
    assert record.val.n == record.test.n == 36
    assert record.calibration.temperature == old.temperature
    assert (record.random_state, record.class_weight) == (0, None)
    assert record.cache_sha256.startswith("1accbd9a")
    assert record.versions["scikit-learn"] == "1.9.1"


def test_the_search_of_an_old_head_is_translated():
    record = HeadBundle.load(OLD["logistic"]).training
    assert record.ood_examples == 60
    assert record.refitted_on_val
    assert record.history is None
    assert record.cv.n_folds == record.calibration.n_folds == record.search.n_folds == 3
    assert record.cv.accuracy == Spread(mean=0.9950980392156863, std=0.008490445135141526)
    assert record.cv.out_of_fold.confusion_matrix[0][0] == 50
    assert (record.search.metric, record.search.chosen) == ("balanced_accuracy", 1)
    assert [row.params for row in record.search.candidates[:2]] == [{"C": 0.1}, {"C": 0.3}]
    assert record.search.candidates[0].warnings == ()


def test_the_history_of_an_old_head_is_translated():
    record = HeadBundle.load(OLD["dense"]).training
    assert record.search is record.ood_examples is record.calibration.n_folds is None
    assert not record.refitted_on_val
    assert {len(curve) for curve in record.history.curves().values()} == {3}
    assert len(record.history.curves()) == 7
    assert record.history.val_loss[0] == 1.3096312260066598
    assert record.test.per_class[2].precision is None


def test_an_old_head_that_is_saved_again_has_the_new_names(old, tmp_path):
    back = HeadBundle.load(old.save(tmp_path / "head.h5"))
    assert back.training == old.training
    assert np.array_equal(back.predict_proba(old.probe), old.predict_proba(old.probe))
    document = old.training.to_dict()
    assert "strangers" not in document  # codespell:ignore
    assert not {"identical", "near"} & set(document["leakage"])


# Records


def test_a_record_comes_back_from_its_json(old):
    assert FitRecord.from_json(json.dumps(old.training.to_dict())) == old.training


def test_what_a_file_does_not_record_is_none():
    assert FitRecord.from_json("{}") == FitRecord()
    assert set(FitRecord().to_dict().values()) == {None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": {"train": 1, "val": 1}}, "`test`"),
        ({"split": {"train": "many", "val": 1, "test": 1}}, "$.split.train"),
        ({"split": []}, "$.split"),
        ({"held_out": {"val": ["a"], "test": [1]}}, "$.held_out.test[0]"),
        ({"val": {"accuracy": 1.0}}, "per_class"),
        ({"val": [1]}, "$.val"),
        ({"cv": {"n_folds": 3}}, "$.cv"),
        ({"cv": {"n_folds": 3, "out_of_fold": {"n": 1}}}, "per_class"),
        ({"leakage": {"identical": {"groups": 1}}}, "$.leakage"),
        ({"leakage": 3}, "$.leakage"),
        ({"search": {"metric": "accuracy", "n_folds": 3, "candidates": [{}]}}, "candidates[0]"),
        ({"search": "all"}, "$.search"),
        ({"history": {"loss": [1.0], "accuracy": ["x"]}}, "$.history.accuracy[0]"),
        ({"history": {"loss": [1.0, 2.0], "accuracy": [1.0]}}, "one value per epoch"),
        ({"history": {"loss": [], "accuracy": []}}, "one value per epoch"),
        ({"calibration": {"temperature": 1.0}}, "$.calibration"),
        ({"versions": {"numpy": 2}}, "$.versions"),
        ({"class_weight": 3}, "$.class_weight"),
        ({"random_state": 0.5}, "$.random_state"),
    ],
)
def test_a_damaged_record_is_refused_with_the_place(tmp_path, change, words):
    bundle = HeadBundle.load(OLD["logistic"])
    document = {**bundle.training.to_dict(), **change}
    with pytest.raises(BundleError) as caught:
        FitRecord.from_json(json.dumps(document))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_curves_of_other_lengths_are_refused():
    with pytest.raises(BundleError, match=r"one value per epoch; got \[2, 3\]"):
        History(loss=(1.0, 0.5, 0.4), accuracy=(0.5, 0.6, 0.7), val_loss=(1.0, 0.6))


def test_keys_of_a_later_version_are_passed_over():
    document = replace(FitRecord(), seconds=2.0).to_dict() | {"energy": {"joule": 3}}
    assert FitRecord.from_json(json.dumps(document)) == FitRecord(seconds=2.0)
