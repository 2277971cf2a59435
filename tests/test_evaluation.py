"""evaluate: which images it measures, the metrics without copies, and those of each part."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn import metrics
from support.caches import draw_signatures, write_vectors

from brainfeat import evaluate, fit_head
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import orient_signatures
from brainfeat.cli import options
from brainfeat.cli.evaluate import command
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError
from brainfeat.evaluation.abstention import measure_abstention
from brainfeat.evaluation.bootstrap import BY_CLASS
from brainfeat.evaluation.class_mapping import choose_task
from brainfeat.evaluation.comparison import compare
from brainfeat.evaluation.results import Evaluation
from brainfeat.evaluation.subsets import select_images
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.pooling import answer
from brainfeat.leakage import auditing, duplicates
from brainfeat.leakage import images as searched
from brainfeat.report import to_markdown, to_text
from brainfeat.text import count_columns

IMAGES, WIDTH, TEST = 600, 32, slice(400, 600)
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def draw(seed=0):
    """Draw images of four classes, the last 200 for the test; the cosine of no two is above 0.9."""
    rng = np.random.default_rng(seed)
    y = np.arange(IMAGES) % 4
    X = rng.standard_normal((IMAGES, WIDTH)) + 0.4 * rng.standard_normal((4, WIDTH))[y]
    return X.astype(np.float32), y, np.repeat(["train", "val", "test"], [350, 50, 200])


def name_files():
    return [f"image-{row:05}.png" for row in range(IMAGES)]


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """A cache whose test has 20 exact duplicates, 30 mirrored copies and 30 near duplicates."""
    X, y, splits = draw()
    contents = name_files()
    for row in range(400, 420):
        contents[row] = contents[row - 400]
        X[row] = X[row - 400]
    X[420:450] = X[20:50] + 0.01
    signature = draw_signatures(IMAGES)
    signature[400:420] = signature[:20]
    signature[430:460] = orient_signatures(signature[100:130], 1)
    folder = tmp_path_factory.mktemp("leaky")
    return write_vectors(folder, X, y, splits=splits, contents=contents, signature=signature)


@pytest.fixture(scope="module")
def bundle(leaky):
    return fit_head(leaky, head="lda", group_by="none")


def test_copies_are_left_out(bundle, leaky):
    subsets = evaluate(bundle, leaky).subsets
    assert {name: subset.n for name, subset in vars(subsets).items()} == {
        "all": 200,
        "without_exact_duplicates": 180,
        "without_copies": 150,
        "without_near_duplicates": 140,
    }


def test_metrics_without_copies_are_those_of_the_images_that_are_left(bundle, leaky):
    evaluation = evaluate(bundle, leaky)
    with FeatureCache.open(leaky) as cache:
        X, y = cache.X[460:600], cache.y[460:600]
    predicted = bundle.predict_proba(X).argmax(axis=1)
    left = evaluation.subsets.without_near_duplicates
    assert left.accuracy == pytest.approx(metrics.accuracy_score(y, predicted))
    assert left.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
    assert left.f1_macro == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    assert evaluation.subsets.all.accuracy == evaluation.accuracy


def test_each_metric_is_in_its_interval(bundle, leaky):
    evaluation = evaluate(bundle, leaky)
    for subset in vars(evaluation.subsets).values():
        for name in ("accuracy", "balanced_accuracy", "f1_macro"):
            low, high = getattr(subset.intervals, name)
            assert low < getattr(subset, name) < high
    for entry in evaluation.per_class:
        assert entry.intervals.binomial == ()
        for name in BY_CLASS:
            low, high = getattr(entry.intervals, name)
            assert low <= getattr(entry, name) <= high


def test_an_image_that_the_head_has_seen_is_a_copy_of_itself(bundle, leaky):
    subsets = evaluate(bundle, leaky, split="train").subsets
    assert subsets.all.n == 350
    for name in ("exact_duplicates", "copies", "near_duplicates"):
        subset = getattr(subsets, f"without_{name}")
        assert (subset.n, subset.accuracy, subset.reason) == (0, None, "there are no images")


def test_groups_of_the_table_are_drawn_as_one(make_cache):
    X, y, splits = draw()
    groups = [f"patient-{row // 8}" for row in range(IMAGES)]
    path = make_cache(X, y, splits=splits, groups=groups)
    subset = evaluate(fit_head(path, head="lda"), path).subsets.all
    assert (subset.n, subset.n_groups) == (200, 25)


def test_few_groups_of_a_class_give_metrics_without_intervals(make_cache):
    X, y, splits = draw()
    groups = [f"patient-{row // 40}" for row in range(IMAGES)]
    path = make_cache(X, y, splits=splits, groups=groups)
    evaluation = evaluate(fit_head(path, head="lda"), path)
    assert evaluation.subsets.all.intervals is None
    reason = "each class needs 10 groups; 'glioma' has 5"
    assert reason in evaluation.subsets.all.reason
    assert evaluation.subsets.all.accuracy == evaluation.accuracy
    assert all(entry.intervals is None for entry in evaluation.per_class)
    assert f"no intervals: {reason}" in " ".join(to_text(evaluation).split())
    assert "95 % interval" not in to_text(evaluation)
    assert json.loads(json.dumps(evaluation.to_dict()))["subsets"]["all"]["intervals"] is None


def test_of_very_many_classes_a_few_are_named(make_cache):
    rng = np.random.default_rng(0)
    y, names = np.arange(240) % 40, [f"class-{label}" for label in range(40)]
    splits = np.repeat(["train", "val", "test"], 80)
    path = make_cache(rng.standard_normal((240, 8)), y, splits=splits, class_names=names)
    evaluation = evaluate(fit_head(path, head="lda"), path)
    assert evaluation.subsets.all.reason.endswith("'class-9' has 2 and 30 more")
    assert len(evaluation.few) == 40
    assert "class-9 (2 images) and 30 more" in " ".join(to_text(evaluation).split())


def test_without_splits_the_head_has_seen_what_it_did_not_hold_out(make_cache):
    X, y, _ = draw()
    path = make_cache(X, y, signature=draw_signatures(IMAGES))
    bundle = fit_head(path, head="lda")
    evaluation = evaluate(bundle, path)
    held = bundle.training.split.test
    assert [subset.n for subset in vars(evaluation.subsets).values()] == [held] * 4
    everything = evaluate(bundle, path, split="all").subsets
    assert [subset.n for subset in vars(everything).values()] == [IMAGES, held, held, held]


def test_copies_are_found_in_another_cache_and_near_duplicates_cannot_be(bundle, make_cache):
    X, y, _ = draw(seed=1)
    signature, seen = draw_signatures(IMAGES, seed=1), draw_signatures(IMAGES)
    signature[:7] = orient_signatures(seen[60:67], 6)
    contents = [f"other-{row}" for row in range(IMAGES)]
    contents[:3] = name_files()[60:63]
    other = make_cache(X, y, name="other.h5", contents=contents, signature=signature)
    evaluation = evaluate(bundle, other, split="all")
    sizes = {name: subset.n for name, subset in vars(evaluation.subsets).items()}
    assert sizes == {
        "all": 600,
        "without_exact_duplicates": 597,
        "without_copies": 593,
        "without_near_duplicates": 0,
    }
    assert evaluation.subsets.without_near_duplicates.reason == (
        "near duplicates are found by features, and the cache does not have 397 images that the "
        "head was fitted on"
    )
    assert evaluation.seen_files == {"train": 3, "val": 0}
    assert evaluation.copy_free.n == 593


def test_a_head_knows_what_it_was_fitted_on_whatever_the_table_says(leaky, tmp_path):
    """A head is fitted on another split than that of the cache, and evaluated on the cache's."""
    rng = np.random.default_rng(0)
    with FeatureCache.open(leaky) as cache:
        splits = rng.permutation(cache.splits)
        moved = tmp_path / "clean.csv"
        lines = [
            f"{path},{cache.class_names[label]},{split}"
            for path, label, split in zip(cache.paths, cache.y, splits, strict=True)
        ]
        moved.write_text("path,label,split\n" + "\n".join(lines))
        digests = [bytes(digest) for digest in cache.sha256]
    with options.open_cache(leaky, table=moved) as relabelled:
        head = fit_head(relabelled, head="lda", group_by="none")
    evaluation = evaluate(head, leaky)
    train, val = (
        {digest for digest, split in zip(digests, splits, strict=True) if split == name}
        for name in ("train", "val")
    )
    test = digests[400:]
    assert evaluation.seen_files == {
        "train": sum(digest in train for digest in test),
        "val": sum(digest in val for digest in test),
    }
    left = sum(digest not in train | val for digest in test)
    assert evaluation.subsets.without_exact_duplicates.n == left < 80
    assert evaluation.subsets.without_copies.n < left
    found = compare(head, head, leaky)
    assert found.n == evaluation.subsets.without_copies.n
    assert (found.left_out, found.left_out_as) == (200 - found.n, "copies")


def test_of_a_head_that_does_not_record_it_nothing_is_certified(bundle, leaky, make_cache):
    X, y, splits = draw(seed=1)
    old = dataclasses.replace(bundle, fitted_images=None)
    other = make_cache(X, y, splits=splits, name="other.h5", signature=draw_signatures(IMAGES))
    evaluation = evaluate(old, other)
    for name, subset in vars(evaluation.subsets).items():
        assert (subset.accuracy is None) == (name != "all")
    assert evaluation.seen_files is None
    assert "does not record what it was fitted on" in " ".join(to_text(evaluation).split())
    found = compare(old, old, other)
    assert (found.n, found.left_out, found.left_out_as) == (200, 0, None)
    assert "does not record" in found.warning
    # The table of the cache need not be the one that the head was fitted with.
    assert evaluate(old, leaky).subsets.without_copies.accuracy is None


def test_a_head_that_does_not_record_its_images_may_record_what_it_held_out(make_cache, tmp_path):
    """Also where the cache gets other splits from a table later."""
    X, y, splits = draw()
    path = make_cache(X, y, signature=draw_signatures(IMAGES))
    fitted = fit_head(path, head="lda")
    old = dataclasses.replace(fitted, fitted_images=None)
    assert evaluate(old, path).subsets.without_copies.n == fitted.training.split.test
    table = tmp_path / "table.csv"
    lines = [
        f"{name},{CLASSES[label]},{split}"
        for name, label, split in zip(name_files(), y, splits, strict=True)
    ]
    table.write_text("path,label,split\n" + "\n".join(lines))
    with options.open_cache(path, table=table) as divided:
        subsets = [evaluate(head, divided).subsets.without_copies for head in (old, fitted)]
    assert subsets[0] == subsets[1]
    assert subsets[0].n < 60


def test_copies_are_drawn_as_one_also_where_what_the_head_has_seen_is_not_known(bundle, make_cache):
    X, y, _ = draw(seed=1)
    signature = draw_signatures(IMAGES, seed=1)
    signature[300:] = orient_signatures(signature[:300], 2)
    paths = [f"other-{row}.png" for row in range(IMAGES)]
    other = make_cache(X, y, paths=paths, signature=signature)
    images = dataclasses.replace(bundle.fitted_images, signature=None)
    for known in (None, images, bundle.fitted_images):
        head = dataclasses.replace(bundle, fitted_images=known)
        assert evaluate(head, other, split="all").subsets.all.n_groups == 300


def test_groups_of_the_table_and_copies_are_drawn_together(bundle, make_cache):
    """Two test images of different patients are copies, and so are two of which one has none."""
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    signature[500:502] = orient_signatures(signature[400:402], 1)
    groups = ["", *(f"patient-{row}" for row in range(1, IMAGES))]
    groups[401] = ""
    path = make_cache(X, y, splits=splits, groups=groups, signature=signature)
    units = evaluate(bundle, path).predictions.groups
    assert units[0] == units[100]
    assert units[1] == units[101]
    assert len(set(units)) == 198


def test_without_signatures_of_its_own_a_head_uses_those_of_the_cache(bundle, leaky, make_cache):
    images = dataclasses.replace(bundle.fitted_images, signature=None)
    bare = dataclasses.replace(bundle, fitted_images=images)
    assert evaluate(bare, leaky).subsets.without_copies.n == 150
    X, y, splits = draw(seed=1)
    paths = [f"other-{row}.png" for row in range(IMAGES)]
    other = make_cache(X, y, splits=splits, paths=paths, signature=draw_signatures(IMAGES))
    left = evaluate(bare, other).subsets.without_copies
    assert left.reason == (
        "the head keeps no signatures of 400 images that it was fitted on and that the cache does "
        "not have"
    )
    unsigned = make_cache(X, y, splits=splits, paths=paths, name="unsigned.h5")
    reason = evaluate(bundle, unsigned).subsets.without_copies.reason
    assert reason == "the cache has no signatures; run extract again to add them"


def test_copy_free_images_are_measured_in_all_respects(bundle, leaky):
    values = np.arange(IMAGES) // 500
    evaluation = evaluate(bundle, leaky, by=values, prevalence={"glioma": 0.1})
    part = evaluation.copy_free
    with FeatureCache.open(leaky) as cache:
        rows = np.r_[420:430, 460:600]
        X, y = cache.X[rows], cache.y[rows]
    p = bundle.predict_proba(X)
    assert part.confusion_matrix == tuple(
        map(tuple, metrics.confusion_matrix(y, p.argmax(axis=1)).tolist())
    )
    assert part.log_loss == pytest.approx(metrics.log_loss(y, p))
    assert part.calibration.after.log_loss == pytest.approx(part.log_loss)
    assert {value: subset.n for value, subset in part.by.items()} == {"0": 50, "1": 100}
    assert part.few == {}
    assert sum(entry.n for entry in part.calibration.after.bins) == part.n == 150
    np.testing.assert_array_equal(part.predictions.rows, rows)


def test_classes_with_few_images_left_are_named(make_cache):
    """Where nearly all images of a class are copies, its scores on the rest say little."""
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    copies = np.flatnonzero((y == 2) & (np.arange(IMAGES) >= 400))[2:]
    signature[copies] = orient_signatures(signature[: len(copies)], 3)
    path = make_cache(X, y, splits=splits, signature=signature)
    evaluation = evaluate(fit_head(path, head="lda", group_by="none"), path)
    assert evaluation.few == {}
    assert evaluation.copy_free.few == {"notumor": 2}
    left = evaluation.subsets.without_copies
    assert left.intervals.balanced_accuracy is None
    assert left.intervals.accuracy[0] < left.accuracy < left.intervals.accuracy[1]
    assert evaluation.copy_free.per_class[2].intervals is None
    assert evaluation.copy_free.per_class[0].intervals is not None
    text = " ".join(to_text(evaluation).split())
    assert "Without copies, too few images are left of notumor (2) to say anything" in text
    assert (
        "Fewer than 10 groups: notumor (2 images); such scores, and means over the classes, say"
        in text
    )


def test_a_chain_is_not_taken_for_copies(make_cache):
    X, y, splits = draw()
    X[:] = 0.3 * X + 10 * np.linspace(0, 1, IMAGES)[:, None] * np.ones(WIDTH)
    path = make_cache(X, y, splits=splits)
    evaluation = evaluate(fit_head(path, head="lda"), path)
    left = evaluation.subsets.without_near_duplicates
    assert (left.n, left.accuracy) == (0, None)
    assert "one chain joins" in left.reason
    assert "ithout near duplicates: no metrics: near duplicates cannot be told" in " ".join(
        to_text(evaluation).split()
    )


def test_near_duplicates_of_many_images_are_looked_for_where_asked(bundle, leaky, monkeypatch):
    monkeypatch.setattr("brainfeat.leakage.duplicates.NEAR_SEARCH_LIMIT", 599)
    left = evaluate(bundle, leaky).subsets.without_near_duplicates
    assert left.accuracy is None
    assert "up to 599 images, got 600" in left.reason
    assert evaluate(bundle, leaky, threshold=0.92).subsets.without_near_duplicates.n == 140


def test_the_threshold_decides_what_is_near(bundle, leaky):
    assert evaluate(bundle, leaky, threshold=0.99999999).subsets.without_near_duplicates.n == 150
    with pytest.raises(ParameterError, match="threshold"):
        evaluate(bundle, leaky, threshold=1.5)


# Parts, prevalence, calibration


def test_parts_by_a_column(make_cache):
    X, y, splits = draw()
    sources = np.array(["here"] * 300 + ["there"] * 293 + ["far"] * 7)
    path = make_cache(X, y, splits=splits, sources=sources)
    evaluation = evaluate(fit_head(path, head="lda"), path, by="source")
    assert {value: part.n for value, part in evaluation.by.items()} == {"far": 7, "there": 193}
    assert evaluation.by["far"].accuracy is None
    assert evaluation.by["far"].reason == "too few groups: 7, and 10 are needed"
    there = evaluation.predictions.rows < 593
    predicted = evaluation.predictions.probabilities.argmax(axis=1)
    right = (predicted == evaluation.predictions.y)[there]
    assert evaluation.by["there"].accuracy == pytest.approx(right.mean())
    assert "Values with fewer than 10 groups have no metrics." in to_text(evaluation)
    assert "| there | 193 |" in to_markdown(evaluation)


def test_parts_by_values(bundle, leaky):
    evaluation = evaluate(bundle, leaky, by=np.arange(IMAGES) // 500)
    assert {value: part.n for value, part in evaluation.by.items()} == {"0": 100, "1": 100}


@pytest.mark.parametrize("by", ["label", "nonsense", [1, 2, 3], np.zeros((IMAGES, 2))])
def test_what_is_no_column_is_refused(bundle, leaky, by):
    with pytest.raises(ParameterError, match=r"no column|expected one value"):
        evaluate(bundle, leaky, by=by)


def test_predictive_values_at_a_prevalence(bundle, leaky):
    evaluation = evaluate(bundle, leaky, prevalence={"glioma": 0.01})
    glioma = evaluation.per_class[0]
    found = glioma.recall * 0.01
    alarms = (1 - glioma.specificity) * 0.99
    assert evaluation.prevalence["glioma"].ppv == pytest.approx(found / (found + alarms))
    with pytest.raises(ParameterError, match="'cyst'"):
        evaluate(bundle, leaky, prevalence={"cyst": 0.01})


def test_calibration_compares_scores_before_and_after_the_temperature(bundle, leaky):
    warm = evaluate(dataclasses.replace(bundle, temperature=3.0), leaky)
    plain = evaluate(dataclasses.replace(bundle, temperature=1.0), leaky)
    assert warm.calibration.temperature == 3.0
    assert warm.calibration.before == plain.calibration.after
    assert warm.calibration.after.log_loss == pytest.approx(warm.log_loss)
    assert warm.calibration.after.brier == pytest.approx(warm.brier)
    assert sum(entry.n for entry in warm.calibration.after.bins) == 200


def test_the_seed_decides_the_intervals(bundle, leaky):
    first, again = (evaluate(bundle, leaky, random_state=1).to_dict() for _ in range(2))
    assert first == again
    other = evaluate(bundle, leaky, random_state=2).to_dict()
    assert other["subsets"]["all"]["intervals"] != first["subsets"]["all"]["intervals"]
    assert other["accuracy"] == first["accuracy"]


def test_abstention_is_what_a_prediction_would_do(bundle, leaky):
    found = evaluate(bundle, leaky).abstention
    assert found.answered + found.uncertain + found.out_of_distribution == pytest.approx(1)
    with FeatureCache.open(leaky) as cache:
        X, y = cache.X[400:600], cache.y[400:600]
    p = bundle.predict_proba(X)
    sets = bundle.conformal.predict_sets(p)
    refused = bundle.ood_detector.score(X).scores > bundle.ood_detector.threshold()
    answered = (sets.sum(axis=1) == 1) & sets[np.arange(200), p.argmax(axis=1)] & ~refused
    right = p.argmax(axis=1) == y
    assert found.out_of_distribution == pytest.approx(refused.mean())
    assert found.accuracy == pytest.approx(right[answered].mean())
    assert found.coverage_by_class["glioma"] == pytest.approx(sets[y == 0, 0].mean())
    assert found.risk_coverage[-1].fraction == 1.0
    assert found.risk_coverage[-1].risk == pytest.approx(1 - right.mean())
    most_confident = np.argsort(-p.max(axis=1))[:100]
    half = next(point for point in found.risk_coverage if point.fraction == 0.5)
    assert half.risk == pytest.approx(1 - right[most_confident].mean())
    assert found.mean_set_size == pytest.approx(sets.sum(axis=1).mean())
    pairs = p.max(axis=1)[right][:, None] - p.max(axis=1)[~right]
    assert found.auroc == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)


def test_where_every_prediction_is_right_confidence_has_no_auroc(bundle, leaky):
    with FeatureCache.open(leaky) as cache:
        X = cache.X[400:600]
    answers = answer(bundle, X, bundle.predict_proba(X))
    task, _ = choose_task(bundle.class_names, bundle.class_names, [])
    found = measure_abstention(answers, answers.labels, groups=np.arange(200), task=task)
    assert found.auroc is None


def test_an_earlier_evaluation_has_no_auroc(bundle, leaky):
    document = evaluate(bundle, leaky).to_dict()
    del document["abstention"]["auroc"], document["abstention"]["mean_set_size"]
    found = Evaluation.from_dict(document)
    assert found.abstention.auroc is None
    assert "with a probability of" not in to_text(found)


def test_an_evaluation_comes_back_from_json(bundle, leaky):
    evaluation = evaluate(bundle, leaky, by="source", prevalence={"glioma": 0.01})
    read = Evaluation.from_json(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert read == evaluation
    assert read.predictions is None
    assert to_text(read) == to_text(dataclasses.replace(evaluation, predictions=None))


def test_a_head_without_detector_has_no_abstention(bundle, leaky):
    evaluation = evaluate(dataclasses.replace(bundle, ood_detector=None), leaky)
    assert evaluation.abstention is None
    assert "Abstention" not in to_text(evaluation)


# Which images


def test_classes_are_matched_by_name(bundle, leaky, make_cache):
    X, y, splits = draw()
    turned = make_cache(X, 3 - y, splits=splits, name="turned.h5", class_names=CLASSES[::-1])
    same = make_cache(X, y, splits=splits, name="same.h5")
    assert evaluate(bundle, turned).confusion_matrix == evaluate(bundle, same).confusion_matrix


def test_augmented_views_and_unlabelled_images_take_no_part(bundle, make_cache):
    X, y, splits = draw()
    y[TEST][:7] = -1
    view = np.zeros(IMAGES, int)
    view[590:] = 1
    path = make_cache(X, y, splits=splits, view=view, name="views.h5")
    assert evaluate(bundle, path).n == 200 - 7 - 10


def test_features_of_another_kind_are_refused(bundle, make_cache):
    X, y, splits = draw()
    other = make_cache(X, y, splits=splits, name="other.h5", backbone="vgg19")
    with pytest.raises(SpecMismatchError, match="backbone"):
        evaluate(bundle, other)


def test_a_class_that_the_head_does_not_know_is_named(bundle, make_cache):
    X, y, splits = draw()
    other = make_cache(
        X, y, splits=splits, name="other.h5", class_names=(*CLASSES[:3], "schwannoma")
    )
    with pytest.raises(BundleError, match=r"'schwannoma'.*head's, 'glioma'"):
        evaluate(bundle, other)


@pytest.mark.parametrize(
    ("splits", "labels", "message"),
    [
        (
            ["train", "test"],
            None,
            r"split 'val'; pass one that it has, test .300., train",
        ),
        (None, None, r"has no splits.*'all'"),
        (["train", "test"], -1, "no labelled images"),
    ],
)
def test_a_split_without_images_is_refused_with_the_remedy(
    bundle, make_cache, splits, labels, message
):
    X, y, _ = draw()
    names = None if splits is None else np.repeat(splits, 300)
    paths = [f"other-{row}.png" for row in range(IMAGES)]
    path = make_cache(
        X, y if labels is None else y * 0 + labels, splits=names, paths=paths, name="other.h5"
    )
    with (
        FeatureCache.open(path) as cache,
        pytest.raises(CacheError, match=message),
    ):
        select_images(bundle, cache, "val")


# An audit that is at hand


@pytest.fixture
def searches(monkeypatch):
    """Count the images of each search for near duplicates."""
    found = []

    def label_near_duplicates(X, **options):
        found.append(X.shape[0])
        return duplicates.label_near_duplicates(X, **options)

    monkeypatch.setattr(searched, "label_near_duplicates", label_near_duplicates)
    return found


@pytest.mark.parametrize("split", ["test", "all"])
def test_an_audit_spares_the_search_and_changes_no_metric(bundle, leaky, split, searches):
    with FeatureCache.open(leaky) as cache:
        audit = auditing.audit_duplicates(cache)
        with_audit = evaluate(bundle, cache, split=split, audit=audit)
        assert searches == [IMAGES]
        without = evaluate(bundle, cache, split=split)
    assert searches == [IMAGES, IMAGES]
    assert with_audit.to_dict() == without.to_dict()
    for name in ("groups", "exact_duplicates", "copies", "near_duplicates"):
        found, expected = (getattr(each.predictions, name) for each in (with_audit, without))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "images"), [({"split": "val"}, 420), ({"threshold": 0.95}, IMAGES)]
)
def test_an_audit_of_other_images_or_another_threshold_spares_nothing(
    bundle, leaky, options, images, searches
):
    with FeatureCache.open(leaky) as cache:
        audit = auditing.audit_duplicates(cache)
        evaluation = evaluate(bundle, cache, audit=audit, **options)
        assert searches == [IMAGES, images]
        assert evaluation.to_dict() == evaluate(bundle, cache, **options).to_dict()


def test_an_audit_of_another_cache_is_refused(bundle, leaky, make_cache):
    X, y, splits = draw(seed=1)
    with FeatureCache.open(make_cache(X, y, splits=splits, name="other.h5")) as other:
        audit = auditing.audit_duplicates(other)
    with pytest.raises(ParameterError, match="the audit is not that of"):
        evaluate(bundle, leaky, audit=audit)


# The command


@pytest.fixture
def run(bundle, leaky, tmp_path):
    """Give a function that runs the command on the head and the cache."""
    bundle.save(tmp_path / "head.h5")

    def run(*options):
        return CliRunner().invoke(command, [str(tmp_path / "head.h5"), str(leaky), *options])

    return run


def test_the_command_prints_the_four_side_by_side_and_warns(run):
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    place = lines.index("With and without copies of seen images")
    heads = [lines[place + line].split() for line in (1, 2, 3)]
    assert heads == [
        ["without", "without"],
        ["without", "near", "exact"],
        ["metric", "copies", "duplicates", "duplicates", "all", "images"],
    ]
    assert lines[place + 4].split() == ["images", "150", "140", "180", "200"]
    assert re.fullmatch(r"accuracy( +0\.\d{3}){4}", lines[place + 6])
    assert re.fullmatch(r"( +0\.\d{3}–\d\.\d{3}){4}", lines[place + 7])
    assert max(map(count_columns, lines)) <= 80
    assert "exact duplicates are in several splits" in result.stderr


@pytest.mark.parametrize("options", [(), ("--card",), ("--card", "--threshold", "0.95")])
def test_the_command_looks_for_near_duplicates_once(run, tmp_path, options, searches):
    card = [str(tmp_path / "card.md")] if options else []
    result = run(*options[:1], *card, *options[1:])
    assert result.exit_code == 0, result.output
    assert searches == [IMAGES]


def test_the_command_audits_nothing_that_it_cannot_evaluate(bundle, make_cache, tmp_path, searches):
    X, y, splits = draw()
    other = make_cache(X, y, splits=splits, name="other.h5", input_size=64)
    few = make_cache(X[:400], y[:400], splits=splits[:400], name="few.h5")
    head = str(bundle.save(tmp_path / "head.h5"))
    searches.clear()
    with pytest.raises(SpecMismatchError):
        command.main([head, str(other)], standalone_mode=False)
    with pytest.raises(CacheError, match="no labelled images in split 'test'"):
        command.main([head, str(few)], standalone_mode=False)
    assert searches == []


def test_the_command_takes_prevalences_and_columns_of_a_table(run, tmp_path):
    with (tmp_path / "more.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "Scanner"])
        splits = draw()[2]
        for row, name in enumerate(name_files()):
            writer.writerow([name, "glioma", splits[row], f"{'AB'[row % 2]}"])
    result = run(
        *("--table", str(tmp_path / "more.csv"), "--by", "scanner"),
        *("--prevalence", "glioma=0.02", "--json"),
    )
    document = json.loads(result.stdout)
    assert {value: part["n"] for value, part in document["by"].items()} == {"A": 100, "B": 100}
    assert document["prevalence"]["glioma"]["prevalence"] == 0.02
    missing = run("--table", str(tmp_path / "more.csv"), "--by", "vendor")
    assert "expected one called 'vendor'" in str(missing.exception)


@pytest.mark.parametrize("fraction", ["glioma", "glioma=", "=0.1", "glioma=often"])
def test_the_command_refuses_what_is_no_prevalence(run, fraction):
    result = run("--prevalence", fraction)
    assert result.exit_code == 2
    assert "is not CLASS=FRACTION" in result.stderr


def test_paths_are_opened_and_closed(run, leaky, tmp_path):
    run()
    evaluation = evaluate(tmp_path / "head.h5", str(leaky))
    loaded = HeadBundle.load(tmp_path / "head.h5")
    assert evaluation.to_dict() == evaluate(loaded, leaky).to_dict()
