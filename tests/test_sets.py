"""evaluate on several caches: a row for each, differences to the test part, and what they share."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn import metrics
from support.caches import draw_signatures, write_vectors

from brainfeat import FeatureCache, evaluate, extract, fit_head, read_table
from brainfeat.cache.signature import orient_signatures
from brainfeat.cli.evaluate import command
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError
from brainfeat.evaluation import sample
from brainfeat.evaluation.binomial import bound_fraction
from brainfeat.evaluation.set_results import SetsEvaluation
from brainfeat.evaluation.unpaired import Side, find_set_difference
from brainfeat.report import to_card, to_html, to_markdown, to_text
from brainfeat.text import count_columns

IMAGES, WIDTH = 500, 32
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
CENTRES = 0.6 * np.random.default_rng(7).standard_normal((4, WIDTH))


def draw(n, *, seed, shift=0.0):
    """Draw images of four classes; a shift makes a class look like its neighbour."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 4
    X = (1 - shift) * CENTRES[y] + shift * CENTRES[(y + 1) % 4]
    return (X + rng.standard_normal((n, WIDTH))).astype(np.float32), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def own(folder):
    """The cache of the fit, whose test part has 12 mirrored copies of train."""
    X, y = draw(IMAGES, seed=0)
    signature = draw_signatures(IMAGES)
    signature[320:332] = orient_signatures(signature[:12], 1)
    splits = np.repeat(["train", "val", "test"], [260, 60, 180])
    return write_vectors(folder, X, y, splits=splits, signature=signature, name="own.h5")


@pytest.fixture(scope="module")
def bundle(own):
    return fit_head(own, head="lda", group_by="none", n_jobs=1)


@pytest.fixture(scope="module")
def near(folder):
    """A set like that of the fit, without splits, which has five images of its test part."""
    X, y = draw(160, seed=1)
    signature = draw_signatures(160, seed=1)
    signature[:5] = orient_signatures(draw_signatures(IMAGES)[400:405], 2)
    paths = [f"near-{row}.png" for row in range(160)]
    return write_vectors(folder, X, y, paths=paths, signature=signature, name="near.h5")


@pytest.fixture(scope="module")
def far(folder):
    """A set on which the head is often wrong, and of which it has seen 20 images."""
    X, y = draw(200, seed=2, shift=0.7)
    signature = draw_signatures(200, seed=2)
    signature[:20] = draw_signatures(IMAGES)[:20]
    paths = [f"far-{row}.png" for row in range(200)]
    return write_vectors(folder, X, y, paths=paths, signature=signature, name="far.h5")


@pytest.fixture(scope="module")
def found(bundle, own, near, far):
    return evaluate(bundle, [own, near, far])


# Rows


def test_each_set_is_measured_as_it_is_alone(bundle, own, near, far, found):
    alone = [evaluate(bundle, cache) for cache in (own, near, far)]
    assert [entry.evaluation for entry in found.sets] == alone
    assert [entry.cache for entry in found.sets] == [str(own), str(near), str(far)]


def test_a_row_is_of_the_images_that_are_new_to_the_head(found):
    row = found.sets[2].row
    assert (row.images, row.n, row.left_out) == ("without_copies", 180, 20)
    new = found.sets[2].evaluation.copy_free
    assert row.accuracy == new.accuracy
    assert row.calibration_error == new.calibration.after.ece
    assert row.answered == new.abstention.answered
    y, p = new.predictions.y, new.predictions.probabilities
    wrong = p.argmax(axis=1) != y
    assert row.wrong == wrong.sum()
    assert row.confident_errors == (wrong & (p.max(axis=1) > row.confident_above)).sum()


def test_without_signatures_a_row_is_of_all_images_and_says_so(bundle, folder):
    X, y = draw(80, seed=3)
    paths = [f"bare-{row}.png" for row in range(80)]
    bare = write_vectors(folder, X, y, paths=paths, name="bare.h5")
    [entry] = evaluate(bundle, [bare]).sets
    assert (entry.row.images, entry.row.n) == ("all", 80)
    assert "not known of which images the head has seen a copy" in entry.findings[0]


def test_a_set_that_the_head_has_seen_has_no_metrics(bundle, own):
    row = evaluate(bundle, [own], split="train").sets[0].row
    assert (row.n, row.left_out, row.accuracy, row.coverage) == (0, 260, None, None)


# Coverage and confidence


def test_a_coverage_below_the_target_is_told_with_its_interval(found):
    broken = found.sets[2].row.broken_coverage
    assert broken
    abstention = found.sets[2].results.abstention
    for name in CLASSES:
        _, high = abstention.coverage_intervals[name]
        assert (high < 0.9) == (name in broken)
    [sentence] = [text for text in found.sets[2].findings if "promised coverage of 0.9" in text]
    assert f"for {broken[0]}" in sentence
    assert not any("promised coverage" in text for text in found.sets[1].findings)


def test_wrong_answers_that_were_confident_are_counted_in_a_sentence(found):
    row = found.sets[2].row
    assert 0 < row.confident_errors < row.wrong
    assert any(
        text.startswith(f"{row.confident_errors} of {row.wrong} wrong predictions")
        for text in found.sets[2].findings
    )


@pytest.mark.parametrize("k", [0, 1, 13, 20])
def test_the_interval_of_a_fraction_is_clopper_pearsons(k):
    expected = stats.binomtest(k, 20).proportion_ci(0.95, method="exact")
    low, high = bound_fraction(np.arange(20) < k, np.arange(20), confidence=0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_images_of_one_group_count_once_in_the_interval_of_a_fraction():
    flags = np.repeat(np.arange(20) < 13, 5)
    alone = bound_fraction(flags[::5], np.arange(20), confidence=0.95)
    assert bound_fraction(flags, np.arange(100) // 5, confidence=0.95) == pytest.approx(alone)
    assert bound_fraction(flags[:0], np.arange(0), confidence=0.95) is None


# Differences


def test_the_difference_is_to_the_test_part_without_copies(found):
    own, near, far = found.sets
    assert (own.is_test_part, near.is_test_part, own.difference) == (True, False, None)
    reference = found.reference
    assert (reference.origin, reference.cache, reference.n) == ("set", own.cache, 168)
    for entry in (near, far):
        metric = entry.difference.balanced_accuracy
        assert metric.first == own.row.balanced_accuracy == reference.balanced_accuracy
        assert metric.second == pytest.approx(entry.row.balanced_accuracy)
    low, high = far.difference.accuracy.interval
    assert low < far.row.accuracy - own.row.accuracy < high < 0
    low, high = near.difference.accuracy.interval
    assert low < 0 < high


def test_without_the_cache_of_the_fit_its_record_is_compared_with(bundle, far, found):
    alone = evaluate(bundle, [far])
    assert (alone.reference.origin, alone.reference.cache) == ("record", None)
    assert alone.reference.accuracy == bundle.training.test_without_copies.accuracy
    one, other = alone.sets[0].difference, found.sets[2].difference
    assert one.balanced_accuracy.difference == pytest.approx(other.balanced_accuracy.difference)
    assert one.balanced_accuracy.interval == pytest.approx(
        other.balanced_accuracy.interval, abs=0.02
    )
    assert "recorded confusion matrix is resampled" in " ".join(to_text(alone).split())


def test_a_record_without_new_images_is_not_compared_with(bundle, own, far):
    copied = replace(
        bundle.training.leakage, copies=replace(bundle.training.leakage.copies, test_files=180)
    )
    record = replace(bundle.training, test_without_copies=None, leakage=copied)
    found = evaluate(replace(bundle, training=record), [far])
    assert (found.reference, found.sets[0].difference) == (None, None)
    assert found.findings[-1].startswith("no set is compared with the test part of the fit")


def test_all_images_of_the_cache_of_the_fit_have_its_test_part_among_them(bundle, own, far):
    both = evaluate(bundle, [far, own], split="all")
    assert (both.reference.origin, both.reference.n) == ("set", 168)
    assert [entry.is_test_part for entry in both.sets] == [False, False]
    assert both.sets[1].difference is None


def test_the_interval_of_a_difference_is_that_of_two_independent_samples():
    rng = np.random.default_rng(0)
    sides = []
    for n, right in ((400, 0.9), (300, 0.7)):
        y = np.arange(n) % 2
        predicted = np.where(rng.random(n) < right, y, 1 - y)
        sides.append(Side(y=y, predicted=predicted, groups=np.arange(n)))
    found = find_set_difference(*sides, class_names="ab", n_resamples=4000, random_state=0)
    rates = [metrics.accuracy_score(side.y, side.predicted) for side in sides]
    spread = np.sqrt(sum(p * (1 - p) / len(s.y) for p, s in zip(rates, sides, strict=True)))
    low, high = found.accuracy.interval
    assert found.accuracy.difference == pytest.approx(rates[1] - rates[0])
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.06)


@pytest.mark.parametrize("wrong", [(0, 0), (0, 4), (4, 0)])
def test_a_side_without_an_error_is_as_uncertain_as_its_images_are_few(wrong):
    images = np.arange(60)
    sides = [
        Side(y=images % 2, predicted=(images % 2) ^ (images < n), groups=images) for n in wrong
    ]
    found = find_set_difference(*sides, class_names="ab", n_resamples=1000, random_state=0)
    lowest, _ = bound_fraction(images >= 0, images, confidence=0.95)
    for metric in (found.accuracy, found.balanced_accuracy):
        low, high = metric.interval
        assert low < metric.difference < high
        assert high - low > 1 - lowest
    if not any(wrong):
        assert found.accuracy.interval == pytest.approx((lowest - 1, 1 - lowest))


def test_a_difference_is_over_the_classes_that_both_have():
    y = np.arange(90) % 3
    first = Side(y=y, predicted=y, groups=np.arange(90))
    second = Side(y=y[y > 0], predicted=np.ones(60, np.intp), groups=np.arange(60))
    found = find_set_difference(first, second, class_names="abc", n_resamples=1000, random_state=0)
    assert (found.classes, found.n_first, found.n_second) == (("b", "c"), 60, 60)
    assert found.balanced_accuracy.difference == -0.5
    few = second.select(np.arange(60) < 12)
    assert find_set_difference(
        first, few, class_names="abc", n_resamples=1000, random_state=0
    ).reason.endswith("in the set")
    none = Side(y=y[:0], predicted=y[:0], groups=y[:0])
    assert (
        find_set_difference(first, none, class_names="abc", n_resamples=1000, random_state=0)
        is None
    )


# What sets have in common, and what is refused


def test_copies_between_measured_images_are_told(found, own, near, far):
    overlaps = {(entry.first, entry.second): entry for entry in found.overlaps}
    overlap = overlaps[str(own), str(near)]
    assert (overlap.copies_first, overlap.copies_second) == (5, 5)
    assert (str(near), str(far)) not in overlaps
    assert f"{own} and {near} have images in common: 5 of the former are copies of 5" in " ".join(
        found.findings
    )


def test_what_cannot_be_measured_is_refused_before_anything_is(
    bundle, own, far, folder, monkeypatch
):
    monkeypatch.setattr(sample, "find_seen", lambda *_, **__: pytest.fail("measured"))
    X, y = draw(80, seed=3)
    other = write_vectors(folder, X, y, backbone="vgg19", name="other.h5")
    with pytest.raises(SpecMismatchError, match=r"other\.h5: .*backbone: vgg16 and vgg19"):
        evaluate(bundle, [far, other])
    unknown = write_vectors(folder, X, y, class_names=("a", *CLASSES[1:]), name="unknown.h5")
    with pytest.raises(BundleError, match=r"unknown\.h5: the images have the class 'a'"):
        evaluate(bundle, [far, unknown])
    unlabelled = write_vectors(folder, X, y * 0 - 1, name="unlabelled.h5")
    with pytest.raises(CacheError, match=r"unlabelled\.h5: .*no labelled images"):
        evaluate(bundle, [far, unlabelled])
    with pytest.raises(ParameterError, match="same file"):
        evaluate(bundle, [far, own, far])
    with pytest.raises(ParameterError, match="no caches"):
        evaluate(bundle, [])
    with pytest.raises(ParameterError, match="name a column"):
        evaluate(bundle, [own, far], by=np.zeros(500))


def test_a_set_without_splits_is_taken_whole_unless_the_fit_divided_it(bundle, near, folder):
    assert evaluate(bundle, near).split == "all"
    X, y = draw(200, seed=4)
    divided = write_vectors(folder, X, y, signature=draw_signatures(200), name="divided.h5")
    fitted = fit_head(divided, head="lda", group_by="none", n_jobs=1)
    assert evaluate(fitted, divided).split == "test"


# Outputs


def test_json_is_read_back(found):
    assert SetsEvaluation.from_json(json.dumps(found.to_dict())) == found
    with pytest.raises(ParameterError, match="sets"):
        SetsEvaluation.from_json('{"sets": 1}')


def test_the_table_comes_first_and_fits_a_terminal(found):
    text = to_text(found)
    lines = text.splitlines()
    assert lines[0] == "What it is worth on each set"
    rows = [line.split()[0] for line in lines[2:12] if line.startswith(("own", "near", "far"))]
    assert rows[:3] == ["own.h5", "near.h5", "far.h5"]
    assert max(map(count_columns, lines)) <= 80
    assert re.findall(r"^Results on (.+)$", text, re.MULTILINE) == rows[:3]
    assert to_markdown(found).startswith("## What it is worth on each set")


def test_a_difference_over_some_classes_has_both_sides_in_words(bundle, own, tmp_path):
    X, y = draw(160, seed=3)
    paths = [f"two-{row}" for row in range(80)]
    two = write_vectors(tmp_path, X[y < 2], y[y < 2], paths=paths, name="two.h5")
    found = evaluate(bundle, [own, two])
    metric = found.sets[1].difference.balanced_accuracy
    words = " ".join(to_text(found).split())
    assert (
        f"Of glioma, meningioma alone, it is {metric.second:.3f} on two.h5 and "
        f"{metric.first:.3f} on that part."
    ) in words


def test_page_and_card_have_the_table_first_and_no_folder(bundle, own, near, far, folder):
    with FeatureCache(own) as cache, FeatureCache(far) as other:
        found = evaluate(bundle, [cache, near, other])
        given = {"bundle": bundle, "cache": cache, "sets": found}
        main = found.sets[0].evaluation
        pages = [to_card(main, **given, checklist="claim2024"), to_html(main, **given)]
        with pytest.raises(ParameterError, match="one of the sets"):
            to_card(evaluate(bundle, cache), **given)
    assert "2 sets beside the test part of the fit" in pages[0]
    for page, heading in zip(pages, ("## {}\n", ">{}</h2>"), strict=True):
        titles = ("What it is worth on each set", "Summary", "Results on far.h5", "Leakage")
        places = [page.index(heading.format(title)) for title in titles]
        assert places == sorted(places)
        assert str(folder) not in page
        assert "Results on own.h5" not in page


def test_sets_of_one_name_are_numbered(bundle, far, tmp_path):
    X, y = draw(80, seed=5)
    namesake = write_vectors(tmp_path, X, y, paths=[f"t-{row}" for row in range(80)], name="far.h5")
    text = to_text(evaluate(bundle, [far, namesake]))
    assert "Results on far.h5 (1)" in text
    assert "Results on far.h5 (2)" in text


def test_the_command_takes_several_caches_in_order(bundle, own, far, tmp_path):
    head = bundle.save(tmp_path / "head.h5")
    card = tmp_path / "card.md"
    words = [str(head), str(far), str(own), "--json", "--card", str(card)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    sets = json.loads(result.stdout)["sets"]
    assert [entry["cache"] for entry in sets] == [str(far), str(own)]
    assert "evaluate head.h5 far.h5 own.h5" in card.read_text()
    refused = CliRunner().invoke(command, [str(head), str(far), str(own), "--table", "t.csv"])
    assert "--table needs one FEATURES" in refused.output


def test_an_error_names_the_set_that_it_is_about(bundle, own, folder):
    X, y = draw(80, seed=6)
    X[3, 4] = np.nan
    broken = write_vectors(folder, X, y, paths=[f"b-{row}" for row in range(80)], name="broken.h5")
    with pytest.raises(BundleError, match=r"broken\.h5: .* not finite"):
        evaluate(bundle, [own, broken])


@pytest.mark.slow
def test_copies_of_the_fit_are_left_out_of_another_public_set(real_data, tmp_path):
    data = real_data / "data"
    (tmp_path / "train").mkdir()
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir()
        for path in sorted((data / "brain-mri" / "Training" / name).iterdir())[:50]:
            (tmp_path / "train" / name / path.name).symlink_to(path)
    [weights] = (real_data / "weights").glob("mobilenet*.h5")
    options = {"backbone": "mobilenet-0.75", "weights": weights, "input_size": 224}
    caches = []
    for source in (tmp_path / "train", data / "external-253"):
        output = tmp_path / f"{source.name}.h5"
        caches.append(extract(read_table(source), output, **options).output)
    bundle = fit_head(caches[0], head="lda", n_jobs=1)
    mapping = {"yes": ["glioma", "meningioma", "pituitary"], "no": "notumor"}
    own, external = evaluate(bundle, caches, classes=mapping).sets
    assert own.is_test_part
    assert external.evaluation.class_names == ("yes", "no")
    assert external.evaluation.n == 253
    assert external.row.left_out > 0
    assert external.difference.accuracy.difference < 0
