"""The HTML page and the model card: their content, and that no name and no file breaks them."""

import dataclasses
import hashlib
import html
import itertools
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from importlib import resources
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from support.studies import NAMES, SCRIPT, draw_study, with_history

from brainfeat.cli import reporting
from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.evaluation.results import Subset
from brainfeat.heads.calibration import Calibration, CalibrationScores
from brainfeat.leakage.auditing import audit
from brainfeat.metrics import measure
from brainfeat.report import charts, checklists, to_card, to_html
from brainfeat.report.blocks import show
from brainfeat.report.html import make_environment
from brainfeat.report.results import summarise
from brainfeat.report.study import make_study
from brainfeat.training.fitting import fit_head

VOID = {"meta", "link", "img", "br", "line", "path", "use", "rect", "col", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, and that every one is closed where it was opened."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("report")
    found = with_history(draw_study(lambda *args, **rest: write_vectors(folder, *args, **rest)))
    yield found
    found.cache.close()


@pytest.fixture(scope="module")
def page(study):
    return Page(render(study))


def render(study, **options):
    options = {"audit": study.audit, "command": "brainfeat evaluate a b", **options}
    return to_html(study.evaluation, bundle=study.bundle, cache=study.cache, **options)


def write_card(study, **options):
    options = {"audit": study.audit, **options}
    return to_card(study.evaluation, bundle=study.bundle, cache=study.cache, **options)


def summary(study, **changes):
    return summarise(dataclasses.replace(study.evaluation, **changes))


# The summary


def test_the_first_sentence_is_the_accuracy_on_new_images_with_its_interval(study, page):
    near = study.evaluation.subsets.without_near_duplicates
    low, high = near.intervals.accuracy
    first = summary(study)[0]
    assert f"{near.accuracy:.3f} (95 % interval {low:.3f}–{high:.3f})" in first
    assert f"{near.n} images" in first
    _, _, after = page.text.partition("Summary")
    assert page.text.index(first) < page.text.index("all images")
    assert after


def test_the_accuracy_on_all_images_and_the_difference_follow(study):
    everything = study.evaluation.subsets.all
    new = study.evaluation.subsets.without_copies
    second = summary(study)[1]
    assert show(everything.accuracy, everything.intervals.accuracy) in second
    assert f"{abs(everything.accuracy - new.accuracy):.3f} " in second
    assert f"a copy of {everything.n - new.n} of them" in second
    files = study.evaluation.seen_files
    assert f"{files['train']} in the train split of its fit, {files['val']} in val" in second


@pytest.mark.parametrize(("excess", "word"), [(0.05, "higher"), (-0.05, "lower")])
def test_the_difference_has_its_direction(study, excess, word):
    subsets = study.evaluation.subsets
    new = dataclasses.replace(subsets.without_copies, accuracy=subsets.all.accuracy - excess)
    subsets = dataclasses.replace(subsets, without_copies=new)
    assert f"0.050 {word}" in summary(study, subsets=subsets)[1]


UNKNOWN = Subset(n=0, n_groups=0, reason="they were not looked for")


def test_near_duplicates_stand_in_for_copies_that_were_not_looked_for(study):
    subsets = dataclasses.replace(study.evaluation.subsets, without_copies=UNKNOWN)
    first, _, third, *_ = summary(study, subsets=subsets)
    assert "of which the head has seen no near duplicate, accuracy is" in first
    assert third == "Copies were not looked for: they were not looked for."


def test_an_unknown_accuracy_on_new_images_is_explained(study):
    names = ("without_exact_duplicates", "without_copies", "without_near_duplicates")
    subsets = dataclasses.replace(study.evaluation.subsets, **dict.fromkeys(names, UNKNOWN))
    first, second, *_ = summary(study, subsets=subsets)
    assert first.startswith("On all 160 images (the test split), accuracy is 0.")
    assert second == (
        "How much of this is due to images that the head has seen is not known: they were not "
        "looked for."
    )


def test_a_missing_interval_is_explained(study):
    subsets = study.evaluation.subsets
    new = dataclasses.replace(subsets.without_copies, intervals=None, reason="too few groups")
    subsets = dataclasses.replace(subsets, without_copies=new)
    assert "no interval: too few groups" in summary(study, subsets=subsets)[0]


# The page


def test_the_page_loads_nothing(page):
    policy = [meta["content"] for meta in page.find("meta") if "http-equiv" in meta]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not page.find("script")
    assert not page.find("iframe")
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]
    assert [value for value in addresses if not value.startswith(("#", "data:"))] == []


def test_the_styles_load_nothing(study):
    text = render(study)
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert re.findall(r"\son\w+=", text) == []


def test_every_id_is_used_once_and_every_reference_leads_to_one(page):
    assert len(page.ids) == len(set(page.ids))
    references = {
        word
        for _, attributes in page.elements
        for name in ("aria-labelledby", "aria-describedby")
        for word in attributes.get(name, "").split()
    }
    references |= {link["href"][1:] for link in page.find("a")}
    references |= {use["href"][1:] for use in page.find("use")}
    assert references <= set(page.ids)


def test_headings_are_in_order(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_chart_has_a_title_and_describes_its_numbers(study, page):
    charts_of_page = [svg for svg in page.find("svg") if svg.get("role") == "img"]
    # Overall; then intervals by class, curves, reliability and risk, without copies and with them.
    assert len(charts_of_page) == 3 + 2 * 6
    for part in (study.evaluation.copy_free, study.evaluation):
        for entry in part.per_class:
            assert f"AUC {show(entry.roc_auc, entry.intervals.roc_auc)}" in page.text


def test_no_id_is_on_the_page_twice(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20


def test_hostile_class_names_are_shown_as_they_are(page):
    for name in NAMES:
        assert name in page.text


@pytest.mark.slow
def test_no_markup_of_a_class_name_is_in_the_page(study):
    assert SCRIPT not in render(study)
    assert html.escape(SCRIPT) in render(study)


def test_characters_that_reverse_the_text_are_written_as_escapes(make_cache):
    names = ("a\u202eb", "c\x1b[2J", "d", "e")
    found = draw_study(make_cache, class_names=names)
    text = render(found)
    found.cache.close()
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert r"a\u202eb" in text


@pytest.mark.slow
def test_equal_evaluations_give_equal_pages(study):
    assert render(study) == render(study)


def test_no_path_is_in_the_page(study):
    assert "image-00" not in render(study)


def test_the_page_warns_first_that_this_is_not_a_medical_device(page):
    assert page.text.index("Not a medical device") < page.text.index("Summary")


def test_the_confusion_matrices_have_the_counts(study, page):
    for row in study.evaluation.confusion_matrix:
        total = sum(row)
        for number in row:
            assert f"{number} {100 * number / total:.1f} %" in page.text
    new = ~study.evaluation.predictions.copies
    assert 0 < new.sum() < len(new)
    assert "Confusion matrix, without copies" in page.text


def test_the_training_curves_name_the_epoch_that_was_kept(page):
    assert "The vertical line is the epoch that was kept, 3." in page.text


def test_dropout_is_mentioned_only_where_there_is_some(study, page):
    assert "Dropout makes the curve of train look worse." in page.text
    bundle = dataclasses.replace(study.bundle, params={"dropout": 0})
    assert "Dropout" not in to_html(study.evaluation, bundle=bundle, cache=study.cache)


def test_what_the_fit_measured_without_copies_is_shown_beside_the_test(study):
    training = study.bundle.training
    found = dataclasses.replace(training.test, accuracy=0.1234)
    training = dataclasses.replace(training, test_without_copies=found)
    bundle = dataclasses.replace(study.bundle, training=training)
    text = Page(to_html(study.evaluation, bundle=bundle, cache=study.cache)).text
    assert "test without copies" in text
    assert "0.123" in text


def test_cross_validated_metrics_are_shown(make_cache):
    found = draw_study(make_cache, cv=4)
    text = Page(render(found)).text
    found.cache.close()
    accuracy = found.bundle.training.cv.accuracy
    assert "4-fold cross-validation" in text
    assert f"{accuracy.mean:.3f} ± {accuracy.std:.3f}" in text


def test_the_limits_say_that_a_head_can_abstain_only_where_it_can(study, page):
    assert "It can abstain, but not reliably" in page.text
    bundle = dataclasses.replace(study.bundle, ood_detector=None, conformal=None)
    evaluation = evaluate(bundle, study.cache)
    text = Page(to_html(evaluation, bundle=bundle, cache=study.cache)).text
    assert "It cannot abstain" in text
    assert "Answers and abstention" not in text


def test_a_head_without_epochs_has_no_training_curves(make_cache):
    found = draw_study(make_cache)
    text = render(found)
    found.cache.close()
    assert "there are no training curves" in text


def test_exclusions_are_counted_by_reason_without_their_paths(study):
    from brainfeat.cache.schema import Rejected

    before = study.cache.rejected
    study.cache.rejected = tuple(
        Rejected(path=f"patient-{place}.png", reason=reason)
        for place, reason in enumerate(["empty file", "<b>odd</b>", "empty file"])
    )
    page = Page(render(study))
    study.cache.rejected = before
    assert "empty file 2" in page.text
    assert "<b>odd</b> 1" in page.text
    assert "patient-" not in page.text


def test_copies_by_pixels_are_on_the_page(study, page):
    row = study.audit.copies
    assert row.test_files == 20
    numbers = f"{row.groups} {row.images} {row.cross_split_groups} {row.test_files}"
    assert f"copies, in any orientation {numbers}" in page.text
    assert "were not searched for" not in page.text


def test_it_is_said_that_copies_by_pixels_were_not_searched_for(study):
    bare = dataclasses.replace(study.audit, copies=None)
    text = Page(render(study, audit=bare)).text
    assert "Mirrored and turned copies were not searched for" in text


@pytest.mark.slow
def test_a_full_audit_has_its_controls_on_the_page(study):
    found = audit(study.cache)
    text = Page(render(study, audit=found)).text
    assert f"{found.permutation.accuracy:.3f} ± {found.permutation.std:.3f}" in text


@pytest.mark.slow
def test_without_an_audit_copies_are_looked_for(study):
    assert render(study, audit=None) == render(study)


@pytest.mark.slow
def test_parts_and_prevalence_are_shown(study):
    evaluation = evaluate(
        study.bundle,
        study.cache,
        by=[f"site-{row % 2}" for row in range(len(study.cache))],
        prevalence={"glioma": 0.01},
    )
    text = Page(to_html(evaluation, bundle=study.bundle, cache=study.cache)).text
    assert "site-0" in text
    assert show(evaluation.prevalence["glioma"].ppv) in text


def test_where_the_temperature_was_fitted_is_shown(study):
    fitted = Calibration(
        n=77,
        n_folds=5,
        temperature=1.5,
        before=CalibrationScores(log_loss=0.6, brier=0.3, ece=0.1234),
        after=CalibrationScores(log_loss=0.6, brier=0.3, ece=0.0567),
    )
    training = dataclasses.replace(study.bundle.training, calibration=fitted)
    bundle = dataclasses.replace(study.bundle, training=training)
    text = Page(to_html(study.evaluation, bundle=bundle, cache=study.cache)).text
    assert "77 images out of fold in 5 folds." in text
    assert "0.057 0.123" in text


def test_a_scaled_head_is_drawn_before_and_after(study):
    bundle = dataclasses.replace(study.bundle, temperature=2.0)
    evaluation = evaluate(bundle, study.cache)
    page = Page(to_html(evaluation, bundle=bundle, cache=study.cache, audit=study.audit))
    assert "Scores are divided by a temperature of 2.000" in page.text
    after, before = evaluation.calibration.after.ece, evaluation.calibration.before.ece
    assert f"{after:.3f} {before:.3f}" in page.text


@pytest.mark.parametrize("split", ["train", "all"])
def test_the_accuracy_on_seen_images_is_not_taken_for_that_on_new_ones(study, split):
    evaluation = evaluate(study.bundle, study.cache, split=split)
    text = Page(to_html(evaluation, bundle=study.bundle, cache=study.cache)).text
    if split == "train":
        assert "The head has seen a copy of every image: how it does on new ones is not" in text
    else:
        assert "On all 400 images (all labelled images), it is" in text


def test_two_classes_and_few_images_make_a_page(make_cache):
    found = draw_study(make_cache, class_names=("no", "yes"), rows=24, copies=0)
    text = Page(render(found)).text
    found.cache.close()
    assert "no interval" in text
    assert "Overall metrics with 95 % intervals" not in text
    assert "Each class: sensitivity" not in text
    assert "the head has seen a copy of none of them" in text


@pytest.mark.slow
def test_twelve_classes_make_a_page(make_cache):
    found = draw_study(make_cache, class_names=[f"class {n}" for n in range(12)], rows=600)
    page = Page(render(found))
    found.cache.close()
    assert len(page.ids) == len(set(page.ids))
    assert "12 class 11" in page.text
    assert "Columns are numbered as rows." in page.text


def test_another_cache_than_that_of_the_fit_is_named(study, make_cache):
    other = draw_study(make_cache, seed=1)
    evaluation = evaluate(study.bundle, other.cache)
    text = Page(to_html(evaluation, bundle=study.bundle, cache=other.cache)).text
    other.cache.close()
    assert "fitted on another feature file" in text


def test_bare_probabilities_make_no_report(study):
    bare = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["no", "yes"])
    with pytest.raises(ParameterError, match="Metrics without predictions"):
        to_html(bare, bundle=study.bundle, cache=study.cache)


def test_without_jinja_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"brainfeat\[report\]"):
        make_environment()


# Charts


def test_a_chart_has_no_colour_of_its_own(study):
    predictions = study.evaluation.predictions
    for svg in (
        charts.draw_roc(predictions, [0, 1]),
        charts.draw_precision_recall(predictions, [0, 1]),
        charts.draw_history([[1.0, 2.0]], name="loss", best_epoch=0),
        charts.draw_intervals([("f", [("a", 0.5, (0.4, 0.6))])], name="forest"),
    ):
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {
            "none",
            "currentColor",
            "var(--faint)",
            "var(--grid)",
            *(f"var(--series-{place})" for place in range(charts.N_COLOURS)),
        }
        assert "<style" not in svg
        assert "#" not in re.sub(r"url\(#[^)]*\)|href=\"#[^\"]*\"", "", svg)


def test_labels_of_a_forest_plot_are_text_whatever_they_hold():
    label = '" id="x" #010101'
    svg = charts.draw_intervals([("f", [(label, None, None), ("<i>", 0.5, None)])], name="n")
    assert f">{label}<" in svg
    assert "&lt;i&gt;" in svg
    assert "<i>" not in svg


def contrast(first, second):
    """Give the contrast of two colours by WCAG 2."""

    def light(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("place", range(3), ids=["light", "dark", "print"])
def test_lines_and_text_have_contrast_in_every_scheme(place):
    style = (resources.files("brainfeat.report") / "templates" / "style.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[place]))
    for name in ("ink", "faint", "link"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
        assert contrast(colours[name], colours["panel"]) >= 4.5, name
    assert contrast(colours["warn-ink"], colours["warn"]) >= 4.5
    for number in range(charts.N_COLOURS):
        assert contrast(colours[f"series-{number}"], colours["page"]) >= 3, number


# The model card


def test_the_card_has_the_content_of_the_page(study, page):
    card = write_card(study)
    near = study.evaluation.subsets.without_near_duplicates
    assert show(near.accuracy, near.intervals.accuracy) in card
    assert study.cache.content_sha256 in card
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        text for text in re.findall(r"^## (.*)$", write_card(study), re.M) if text in page.text
    ]


def test_no_class_name_is_markup_in_the_card(study):
    card = write_card(study)
    assert "<script>" not in card
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in card
    assert r"no\|tumour \`\$x\_1\$\`" in card


def test_the_card_needs_no_extra(study, monkeypatch):
    for name in ("jinja2", "matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert write_card(study).startswith("# Evaluation")


def test_a_command_of_several_lines_stays_in_its_block(study):
    card = write_card(study, command="brainfeat evaluate 'a\n# title'")
    assert r"    brainfeat evaluate 'a\n# title'" in card


# Checklists


@pytest.mark.parametrize(
    ("items", "main"), [(checklists.CLAIM_2024, 44), (checklists.TRIPOD_AI, 27)]
)
def test_a_checklist_has_all_items_in_order(items, main):
    numbers = [number for number, _, _ in items]
    assert len(set(numbers)) == len(numbers)
    found = [int(re.match(r"\d+", number)[0]) for number in numbers]
    assert found == sorted(found)
    assert set(found) == set(range(1, main + 1))


def test_tripod_ai_has_its_52_subitems():
    assert len(checklists.TRIPOD_AI) == 52


@pytest.mark.parametrize("name", get_args(checklists.Checklist))
def test_items_are_answered_from_evidence_or_marked(study, name):
    page = Page(render(study, checklist=name))
    assert checklists.UNANSWERED in page.text
    assert "Versions of all libraries in section Provenance." in page.text or name == "tripod-ai"
    keys = {key for items in (checklists.CLAIM_2024, checklists.TRIPOD_AI) for *_, key in items}
    evidence = checklists.collect_evidence(
        make_study(
            study.evaluation,
            bundle=study.bundle,
            cache=study.cache,
            audit=study.audit,
            command=None,
        )
    )
    assert set(evidence) == keys - {None}


def test_an_unknown_checklist_is_refused(study):
    with pytest.raises(ParameterError, match="claim2024, tripod-ai"):
        render(study, checklist="claim")


def test_the_command_line_offers_every_checklist():
    option = next(
        parameter
        for parameter in __import__("brainfeat.cli.evaluate", fromlist=["command"]).command.params
        if parameter.name == "checklist"
    )
    assert tuple(option.type.choices) == get_args(checklists.Checklist)


# Pictures


def test_errors_and_copies_are_shown_where_images_are_included(study):
    asked = []

    def read(path):
        asked.append(path)
        return np.full((40, 300, 3), 0.5, np.float32)

    page = Page(render(study, images=read))
    pictures = page.find("img")
    predictions = study.evaluation.predictions
    predicted = predictions.probabilities.argmax(axis=1)
    n_errors = int((predicted != predictions.y).sum())
    assert len(pictures) == len(asked) == min(12, n_errors) + 2 * 12
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)
    assert all(picture["alt"] for picture in pictures)
    wrong = np.flatnonzero(predicted != predictions.y)
    worst = wrong[predictions.probabilities[wrong, predicted[wrong]].argmax()]
    assert asked[0] == study.cache.paths[predictions.rows[worst]]
    assert "similarity 1.000" in page.text


def test_copies_are_shown_in_one_orientation(study):
    """Every second copy of the study is mirrored: turned, the two pictures of a pair are equal."""
    image = np.linspace(0, 1, 40 * 60, dtype=np.float32).reshape(40, 60)

    def read(path):
        row = int(path.removeprefix("image-").removesuffix(".png"))
        return image[:, ::-1] if row >= 380 and (399 - row) % 2 == 0 else image

    page = Page(render(study, images=read))
    pictures = [picture["src"] for picture in page.find("img")][-24:]
    assert pictures[0::2] == pictures[1::2]
    assert "similarity 1.000, flip left right" in page.text
    assert "similarity 1.000, upright" in page.text


def test_a_picture_is_a_png_of_at_most_200_columns():
    import base64
    import io

    from brainfeat.report.gallery import _make_picture

    picture = _make_picture(np.linspace(0, 1, 300 * 100).reshape(100, 300), "x")
    content = base64.b64decode(picture.source.partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size, image.info) == ("PNG", (200, 67), {})


# The command line


@pytest.fixture
def files(tmp_path, make_cache):
    """Write images, a cache of them with their digests, and a head."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "slices"
    folder.mkdir()
    rows, k = 200, 2
    y = np.arange(rows) % k
    X = rng.standard_normal((k, 16))[y] + rng.standard_normal((rows, 16))
    X[-1] = X[1]
    paths = [f"{row}.png" for row in range(rows)]
    for row in range(rows):
        pixels = rng.integers(0, 255, (12, 12), np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    shutil.copy(folder / "1.png", folder / "199.png")
    cache = make_cache(
        X,
        y,
        class_names=("no", "yes"),
        splits=["train"] * 120 + ["test"] * 80,
        paths=paths,
        digests=[hashlib.sha256((folder / p).read_bytes()).digest() for p in paths],
    )
    head = tmp_path / "head.h5"
    fit_head(cache, head="lda").save(head)
    return SimpleNamespace(folder=folder, cache=cache, head=head, out=tmp_path / "report.html")


@pytest.mark.slow
def test_evaluate_writes_the_page_and_the_card(run, files):
    card = files.out.with_name("card.md")
    line = ["evaluate", files.head, files.cache, "--report", files.out, "--card", card]
    result = run(*line, "--checklist", "claim2024", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["n"] == 80
    page = Page(files.out.read_text(encoding="utf-8"))
    assert "Checklist: CLAIM 2024" in page.text
    assert not page.find("img")
    assert "## Summary" in card.read_text(encoding="utf-8")
    assert sorted(path.name for path in files.out.parent.glob(".*")) == []


@pytest.mark.slow
def test_the_command_is_shown_without_folders(run, files):
    run("evaluate", files.head, files.cache, "--report", files.out, "--prevalence", "yes=0.1")
    text = Page(files.out.read_text(encoding="utf-8")).text
    assert (
        "brainfeat evaluate head.h5 features.h5 --prevalence yes=0.1 --report report.html" in text
    )
    assert str(files.out.parent) not in text


def test_an_existing_report_is_kept_unless_overwrite_is_given(run, files):
    line = ["evaluate", files.head, files.cache, "--report", files.out]
    assert run(*line).code == 0
    before = files.out.read_bytes()
    result = run(*line)
    assert result.code == 1
    assert "exists" in result.err
    assert "--overwrite" in result.err
    assert files.out.read_bytes() == before
    assert run(*line, "--overwrite").code == 0
    assert files.out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--checklist", "claim2024"], "--report or --card"),
        (["--card", "card.xml", "--checklist", "claim2024"], "in Markdown"),
        (["--report", "{out}", "--include-images"], "--images"),
        (["--report", "{out}", "--images", "{folder}"], "--include-images"),
        (["--card", "{out}", "--include-images", "--images", "{folder}"], "--report"),
        (["--report", "{out}", "--card", "{out}"], "same file"),
        (["--report", "{out}", "--checklist", "claim"], "claim2024"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(run, files, options, word):
    words = [option.format(out=files.out, folder=files.folder) for option in options]
    result = run("evaluate", files.head, files.cache, *words)
    assert result.code == 2
    assert word in result.err
    assert not files.out.exists()


def test_a_missing_folder_is_reported_before_anything_is_evaluated(run, files):
    result = run(
        "evaluate", files.head, files.cache, "--report", files.out.parent / "no" / "r.html"
    )
    assert result.code == 1
    assert "there is no folder" in result.err
    assert result.out == ""


@pytest.mark.slow
def test_include_images_shows_the_files_of_the_folder(run, files):
    line = ["evaluate", files.head, files.cache, "--report", files.out, "--include-images"]
    result = run(*line, "--images", files.folder)
    assert result.code == 0, result.err
    page = Page(files.out.read_text(encoding="utf-8"))
    assert len(page.find("img")) >= 4
    assert "199.png" in page.text


def test_another_file_in_place_of_an_image_is_refused(run, files):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(files.folder / "199.png")
    line = ["evaluate", files.head, files.cache, "--report", files.out, "--include-images"]
    result = run(*line, "--images", files.folder)
    assert result.code == 1
    assert "199.png is not the file that was extracted" in result.err
    assert not files.out.exists()


def test_images_must_name_a_folder(run, files):
    line = ["evaluate", files.head, files.cache, "--report", files.out, "--include-images"]
    result = run(*line, "--images", files.cache)
    assert result.code == 1
    assert "features.h5 is not a folder" in result.err
    assert result.out == ""


def test_a_missing_image_is_named(run, files):
    line = ["evaluate", files.head, files.cache, "--report", files.out, "--include-images"]
    result = run(*line, "--images", files.folder.parent)
    assert result.code == 1
    assert "no such file" in result.err


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png"])
def test_a_cache_cannot_lead_out_of_the_folder(path, tmp_path):
    from brainfeat.errors import BrainfeatError

    cache = SimpleNamespace(paths=np.array([path]), sha256=np.zeros((1, 32), np.uint8))
    with pytest.raises(BrainfeatError, match=re.escape(path)):
        reporting._make_reader(tmp_path, cache)(path)
