"""evaluate, compare and fit-head per group, such as per patient."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn import metrics
from support.caches import draw_signatures, write_vectors

from brainfeat import evaluate, fit_head
from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.compare import command as compare_command
from brainfeat.cli.evaluate import command as evaluate_command
from brainfeat.errors import ParameterError, TableError
from brainfeat.evaluation.bootstrap import find_intervals
from brainfeat.evaluation.comparison import compare
from brainfeat.evaluation.results import Evaluation
from brainfeat.heads.pooling import pool
from brainfeat.prediction.decisions import DecisionRule
from brainfeat.report import to_html, to_markdown, to_text

PATIENTS, WIDTH = 240, 12
CLASSES = ("glioma", "meningioma", "notumor")
SPLITS = np.repeat(["train", "val", "test"], [100, 40, 100])


def draw(sizes, seed=0):
    """Draw slices of patients of three classes: those of one patient have something in common."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    y = of % 3
    X = rng.standard_normal((len(of), WIDTH)) + 0.7 * rng.standard_normal((3, WIDTH))[y]
    X += 0.6 * rng.standard_normal((len(sizes), WIDTH))[of]
    return X.astype(np.float32), y, of


def write(folder, sizes, *, name="features.h5", order=None, **columns):
    X, y, of = draw(sizes)
    order = np.arange(len(X)) if order is None else order
    given = {
        "splits": SPLITS[of],
        "groups": np.array([f"patient-{patient}" for patient in of]),
        "signature": draw_signatures(len(X)),
        "paths": np.array([f"image-{row:05}.png" for row in range(len(X))]),
        **columns,
    }
    chosen = {
        key: value[order].tolist() if key in ("splits", "groups", "paths") else value[order]
        for key, value in given.items()
    }
    return write_vectors(folder, X[order], y[order], name=name, class_names=CLASSES, **chosen)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("patients")


@pytest.fixture(scope="module")
def sizes():
    return np.random.default_rng(3).integers(1, 4, PATIENTS)


@pytest.fixture(scope="module")
def cache(folder, sizes):
    return write(folder, sizes)


@pytest.fixture(scope="module")
def bundle(cache):
    return fit_head(cache, head="lda", cv=5, unit="group")


@pytest.fixture(scope="module")
def found(bundle, cache):
    return evaluate(bundle, cache, unit="group")


@pytest.fixture(scope="module")
def bag_head(cache):
    return fit_head(cache, head="lda", bag="mean")


def pool_plainly(bundle, cache):
    """Pool each test patient in a loop: class, probabilities, prediction set, and flag."""
    with FeatureCache.open(cache) as features:
        rows = np.flatnonzero(features.splits == "test")
        X, y, names = features.X[rows], features.y[rows], features.groups[rows]
    p = bundle.predict_proba(X)
    sets = bundle.conformal.predict_sets(p)
    flagged = bundle.ood_detector.score(X).scores > bundle.ood_detector.threshold()
    for name in dict.fromkeys(names.tolist()):
        own = np.flatnonzero(names == name)
        kept = own[~flagged[own]] if (~flagged[own]).any() else own
        mean = p[kept].mean(axis=0)
        united = bundle.conformal.predict_sets(mean[None])[0]
        for row in own:
            if not flagged[row] and sets[row].sum() == 1 and sets[row, p[row].argmax()]:
                united[p[row].argmax()] = True
        yield y[own[0]], mean, united, flagged[own].all()


def test_patients_are_measured_by_the_mean_of_their_slices(bundle, cache, found, sizes):
    y, p, sets, flagged = map(np.array, zip(*pool_plainly(bundle, cache), strict=True))
    assert (found.unit, found.pooling) == ("group", "probabilities")
    assert (found.n, found.n_images) == (100, sizes[140:].sum())
    np.testing.assert_allclose(found.predictions.probabilities, p, atol=1e-6)
    assert found.accuracy == metrics.accuracy_score(y, p.argmax(axis=1))
    assert found.roc_auc == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p))
    abstention = found.abstention
    covered = sets[np.arange(100), y]
    answered = (sets.sum(axis=1) == 1) & sets[np.arange(100), p.argmax(axis=1)] & ~flagged
    assert abstention.coverage == covered.mean()
    assert abstention.coverage_by_class["glioma"] == covered[y == 0].mean()
    assert abstention.mean_set_size == sets.sum(axis=1).mean()
    assert abstention.answered == pytest.approx(answered.mean())
    assert abstention.out_of_distribution == flagged.mean()
    assert abstention.accuracy == (p.argmax(axis=1) == y)[answered].mean()
    assert found.calibration.after.ece != found.calibration.before.ece


def test_a_prediction_pools_slices_as_an_evaluation_does(bundle, cache, found):
    rule = DecisionRule(
        bundle=bundle, coverage=0.9, threshold=bundle.ood_detector.threshold(), force=False
    )
    with FeatureCache.open(cache) as features:
        rows = np.flatnonzero(features.splits == "test")
        X, names = features.X[rows], features.groups[rows]
    decisions = []
    for place, name in enumerate(dict.fromkeys(names.tolist())):
        own = X[names == name]
        whole = rule.pool(rule.predict(own, ["volume"] * len(own)))
        decisions.append(whole.decision)
        expected = dict(zip(CLASSES, found.predictions.probabilities[place], strict=True))
        assert whole.probabilities == pytest.approx(expected, abs=1e-6)
    answered = np.mean([decision in CLASSES for decision in decisions])
    assert answered == pytest.approx(found.abstention.answered)
    assert np.mean([d == "uncertain" for d in decisions]) == pytest.approx(
        found.abstention.uncertain
    )


def test_where_each_patient_has_one_image_both_units_have_the_same_results(folder):
    cache = write(folder, np.ones(PATIENTS, np.intp), name="single.h5")
    bundle = fit_head(cache, head="lda")
    options = {"by": "source", "prevalence": {"glioma": 0.1}}
    image, group = (
        evaluate(bundle, cache, unit=unit, **options).to_dict() for unit in ("image", "group")
    )
    for document in (image, group):
        for part in (document, document["copy_free"] or {}):
            part.pop("unit", None)
        del document["pooling"]
    assert image == group
    one, other = (
        compare(bundle, fit_head(cache, head="knn"), cache, unit=unit)
        for unit in ("image", "group")
    )
    assert dataclasses.replace(one, unit="group") == other


def test_the_order_of_rows_changes_nothing(bundle, folder, sizes, found):
    order = np.random.default_rng(5).permutation(sizes.sum())
    other = evaluate(bundle, write(folder, sizes, name="mixed.h5", order=order), unit="group")
    assert other.confusion_matrix == found.confusion_matrix
    assert other.log_loss == pytest.approx(found.log_loss)
    assert other.abstention.coverage == found.abstention.coverage
    assert other.floors.nearest_neighbour == found.floors.nearest_neighbour


def test_a_patient_has_been_seen_if_one_of_the_images_has(bundle, folder, sizes):
    signature = draw_signatures(sizes.sum())
    starts = np.concatenate([[0], np.cumsum(sizes)])
    several = np.flatnonzero(sizes[140:] > 1)[:4] + 140
    signature[starts[several] + 1] = signature[:4]
    # Two patients that have a copy in common are drawn together.
    signature[starts[200]] = signature[starts[203]]
    cache = write(folder, sizes, name="leaky.h5", signature=signature)
    found = evaluate(fit_head(cache, head="lda", group_by="column"), cache, unit="group")
    assert found.subsets.all.n == 100
    assert found.subsets.without_copies.n == 96
    assert found.copy_free.n == 96
    assert found.copy_free.n_images == sizes[140:].sum() - sizes[several].sum()
    assert found.subsets.all.n_groups == 99
    assert found.subsets.without_exact_duplicates.n == 100


def test_the_nearest_neighbours_of_a_patients_images_vote(bundle, cache, found):
    with FeatureCache.open(cache) as features:
        X, y, names = features.X[:], features.y, features.groups
        seen, test = features.splits != "test", features.splits == "test"
    both = X - X.mean(axis=0)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    nearest = y[seen][(both[test] @ both[seen].T).argmax(axis=1)]
    right = [
        np.bincount(nearest[names[test] == name], minlength=3).argmax() == y[names == name][0]
        for name in dict.fromkeys(names[test].tolist())
    ]
    assert found.floors.nearest_neighbour.all.accuracy == np.mean(right)
    assert found.floors.largest_class.all.n == 100


def test_the_example_of_a_patient_speaks_most_for_what_is_predicted(bundle, cache, found):
    with FeatureCache.open(cache) as features:
        for place in range(0, 100, 9):
            row = found.predictions.rows[place]
            own = np.flatnonzero(features.groups == features.groups[row])
            label = found.predictions.probabilities[place].argmax()
            assert own[bundle.predict_proba(features.X[own])[:, label].argmax()] == row


def test_values_of_a_column_that_differ_within_a_patient_are_one_of_their_own(bundle, cache):
    with FeatureCache.open(cache) as features:
        names, splits = features.groups, features.splits
    values = np.where(np.arange(len(names)) % 2, "a", "b")
    found = evaluate(bundle, cache, unit="group", by=values)
    tested = names[splits == "test"]
    mixed = sum(
        len(set(values[names == name].tolist())) > 1 for name in dict.fromkeys(tested.tolist())
    )
    assert found.by["(several)"].n == mixed
    assert sum(subset.n for subset in found.by.values()) == 100


def test_intervals_per_patient_have_their_coverage():
    """Of 60 draws, about 57 intervals have the accuracy of the population."""
    rng = np.random.default_rng(0)
    inside = 0
    offsets = np.arange(0, 601, 4)
    nothing = np.zeros((600, 2), np.bool_)
    truth = rng.normal(0.35, 0.5, 200_000) + rng.normal(0, 0.5, 200_000)
    for _ in range(60):
        margins = np.repeat(rng.normal(0.35, 0.5, 150), 4) + rng.normal(0, 1, 600)
        p = np.clip(0.5 + margins / 20, 0, 1)
        y = np.arange(150) % 2
        true = np.repeat(y, 4)
        both = np.stack([np.where(true == 0, p, 1 - p), np.where(true == 1, p, 1 - p)], axis=1)
        pooled = pool(both, None, nothing, offsets).probabilities
        low, high = find_intervals(
            y, pooled, groups=range(150), class_names=["a", "b"], each_class=False, n_resamples=1000
        ).overall.accuracy
        inside += low <= (truth > 0).mean() <= high
    assert 52 <= inside <= 60


# Bag heads


def test_a_bag_head_is_measured_per_patient_and_never_per_image(bag_head, cache):
    found = evaluate(bag_head, cache)
    with FeatureCache.open(cache) as features:
        rows = np.flatnonzero(features.splits == "test")
        X, names, y = features.X[rows], features.groups[rows], features.y[rows]
    order = list(dict.fromkeys(names.tolist()))
    p = bag_head.predict_proba([X[names == name] for name in order])
    np.testing.assert_allclose(found.predictions.probabilities, p, rtol=1e-6)
    assert (found.unit, found.pooling, found.n, found.n_images) == ("group", "bag", 100, len(rows))
    true = [y[names == name][0] for name in order]
    covered = bag_head.conformal.predict_sets(p)[np.arange(100), true]
    assert found.abstention.coverage == covered.mean()
    assert "takes the images of a patient together" in " ".join(to_text(found).split())
    with pytest.raises(ParameterError, match=r'a bag head answers for groups .* pass unit="group"'):
        evaluate(bag_head, cache, unit="image")


def test_a_bag_head_and_a_head_of_images_are_compared_per_patient(bag_head, bundle, cache, found):
    compared = compare(bundle, bag_head, cache)
    assert (compared.unit, compared.n, compared.n_images) == ("group", 100, found.n_images)
    assert compared.accuracy.first == found.accuracy
    assert compared.accuracy.second == evaluate(bag_head, cache).accuracy


def test_a_set_is_compared_with_the_test_part_per_patient(bundle, bag_head, cache, folder, sizes):
    X, y, of = draw(sizes, seed=8)
    other = write_vectors(
        folder,
        X,
        y,
        name="other.h5",
        class_names=CLASSES,
        groups=[f"other-{patient}" for patient in of],
        paths=[f"other-{row}.png" for row in range(len(X))],
        signature=draw_signatures(len(X), seed=1),
    )
    both = evaluate(bundle, [cache, other], unit="group", n_resamples=1000)
    assert [entry.row.n for entry in both.sets] == [100, PATIENTS]
    assert both.reference.n == 100
    assert "Metrics on patients that are new to the head" in to_text(both)
    assert both.sets[0].is_test_part
    assert both.sets[1].difference.n_second == PATIENTS
    # The record of a head of images has no patients; that of a bag head does.
    alone = evaluate(bundle, [other], unit="group", n_resamples=1000)
    assert alone.reference is None
    assert "has no patients that are known to be new" in alone.findings[-1]
    assert evaluate(bag_head, [other], n_resamples=1000).reference.n == 100


# Which groups


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"groups": None}, "has no groups, such as patients"),
        ({"y": 0}, "have images of several classes .first: 'patient-0'"),
        ({"splits": 1}, "have images in several splits"),
    ],
)
def test_what_is_no_group_is_refused(bundle, folder, sizes, columns, message):
    X, y, of = draw(sizes)
    groups, splits = [f"patient-{patient // 2}" for patient in of], SPLITS[of]
    if "splits" in columns:
        y = of // 2 % 3
        splits = np.where(of == 201, "train", SPLITS[of])
    groups = None if "groups" in columns else groups
    cache = write_vectors(
        folder, X, y, name="bad.h5", class_names=CLASSES, splits=splits.tolist(), groups=groups
    )
    with pytest.raises(TableError, match=message):
        evaluate(bundle, cache, unit="group", split="all" if "y" in columns else "test")


def test_any_image_of_a_class_may_decide(bundle, folder, sizes):
    X, y, of = draw(sizes)
    groups = [f"patient-{patient // 2}" for patient in of]
    cache = write_vectors(
        folder,
        X,
        y,
        name="pairs.h5",
        class_names=CLASSES,
        splits=SPLITS[of].tolist(),
        groups=groups,
    )
    with pytest.raises(TableError, match="several classes"):
        evaluate(bundle, cache, unit="group", group_label="any:glioma")
    chosen = np.isin(y, (0, 2))
    rest = write_vectors(
        folder,
        X[chosen],
        y[chosen],
        name="rest.h5",
        class_names=CLASSES,
        splits=SPLITS[of][chosen].tolist(),
        groups=np.array(groups)[chosen].tolist(),
    )
    found = evaluate(bundle, rest, unit="group", group_label="any:glioma")
    with_glioma = {
        group
        for group, label, patient in zip(groups, y, of, strict=True)
        if label == 0 and patient >= 140
    }
    assert found.per_class[0].support == len(with_glioma)
    with pytest.raises(ParameterError, match='images are measured; pass unit="group"'):
        evaluate(bundle, cache, group_label="any:glioma")
    with pytest.raises(ParameterError, match="unit must be image or group, got 'patient'"):
        evaluate(bundle, cache, unit="patient")


def test_a_group_that_the_fit_divided_is_refused(folder, sizes):
    cache = write(folder, sizes, name="whole.h5", splits=np.full(sizes.sum(), ""))
    bundle = fit_head(cache, head="lda", group_by="none")
    with pytest.raises(TableError, match=r"the fit of this head divided .* among splits"):
        evaluate(bundle, cache, unit="group")
    kept = fit_head(cache, head="lda")
    assert evaluate(kept, cache, unit="group").n > 30


# Folds


def test_folds_are_measured_per_patient_beside_per_image(bundle, cache, sizes, tmp_path):
    cv = bundle.training.cv
    assert (cv.groups.n, cv.out_of_fold.n) == (140, sizes[:140].sum())
    assert cv.groups.accuracy > cv.out_of_fold.accuracy
    path = bundle.save(tmp_path / "head.h5")
    read = type(bundle).load(path).training
    assert read.cv.groups == cv.groups
    # The head itself is the one without.
    assert fit_head(cache, head="lda", cv=5).temperature == bundle.temperature


def test_folds_per_patient_are_the_mean_of_out_of_fold_probabilities(folder):
    cache = write(folder, np.ones(PATIENTS, np.intp), name="once.h5")
    cv = fit_head(cache, head="lda", cv=4, unit="group").training.cv
    assert cv.groups.confusion_matrix == cv.out_of_fold.confusion_matrix
    assert cv.groups.log_loss == pytest.approx(cv.out_of_fold.log_loss)


def test_folds_measure_whole_patients_alone(folder, sizes):
    """Test images of a patient of train are in no fold, and their patient would be in part."""
    splits = np.where(np.arange(sizes.sum()) % 10 == 9, "test", "train")
    cache = write(folder, sizes, name="parts.h5", splits=splits)
    with pytest.raises(TableError, match="have images in several splits"):
        fit_head(cache, head="lda", cv=4, unit="group")


def test_folds_that_divide_patients_are_refused(cache):
    with pytest.raises(TableError, match=r'folds divide .* pass group_by="column"'):
        fit_head(cache, head="lda", cv=4, unit="group", group_by="none")
    with pytest.raises(ParameterError, match="ask for one, such as cv=5"):
        fit_head(cache, head="lda", unit="group")
    with pytest.raises(ParameterError, match="a bag head is measured on groups"):
        fit_head(cache, head="lda", bag="mean", cv=4, unit="image")


# Words


def test_results_are_told_of_patients(bundle, cache, found):
    text = " ".join(to_text(found).split())
    assert f"On all 100 patients with {found.n_images} images (the test split), accuracy" in text
    assert "A patient is a group of the table" in text
    assert "the target coverage holds for images, and not for patients" in text
    assert "metric" in text
    assert "all images" not in text
    assert "all patients" in to_markdown(found)
    asked = []

    def read(path):
        asked.append(path)
        return np.zeros((8, 8))

    with FeatureCache.open(cache) as features:
        page = to_html(found, bundle=bundle, cache=features, images=read)
        wrong = found.predictions.probabilities.argmax(axis=1) != found.predictions.y
        assert {*asked} == {*features.paths[found.predictions.rows[wrong]].tolist()}
    assert "of the images of this patient, the one that speaks most for it" in page
    assert "100 patients (the test split)" in page
    assert "of the patients of which it is" in page
    assert "patients of these" in page


def test_json_of_patients_comes_back_and_that_of_before_is_of_images(found):
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Evaluation.from_dict(document) == dataclasses.replace(found, predictions=None)
    for name in ("unit", "n_images", "pooling"):
        del document[name]
    read = Evaluation.from_dict(document)
    assert (read.unit, read.n_images, read.pooling) == ("image", None, None)


def test_the_commands_take_the_unit(bundle, bag_head, cache, folder, run):
    head, bag = bundle.save(folder / "head.h5"), bag_head.save(folder / "bag.h5")
    result = CliRunner().invoke(
        evaluate_command, [str(head), str(cache), "--unit", "group", "--json"]
    )
    assert json.loads(result.stdout)["n"] == 100
    result = CliRunner().invoke(compare_command, [str(head), str(bag), str(cache)])
    assert "patients  100 in 100 groups" in result.stdout
    told = run("fit-head", cache, "-o", folder / "told.h5", "--head", "lda", "--bag", "mean")
    assert "lda head of 3 classes on patients: train" in told.out
    assert "patients of 1 to" in told.out
    refused = run("evaluate", bag, cache, "--unit", "image")
    assert refused.err.endswith("and not for one; pass --unit group\n")
    refused = run("evaluate", head, cache, "--group-label", "any:glioma")
    assert refused.err.endswith("but images are measured; pass --unit group\n")
