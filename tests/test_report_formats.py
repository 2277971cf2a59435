"""Text, Markdown, the HTML page and the model card have the same names and the same numbers."""

import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from support.caches import write_vectors
from support.studies import draw_study

from brainfeat.evaluation.evaluator import evaluate
from brainfeat.report import to_card, to_html, to_markdown, to_text
from brainfeat.report.blocks import Matrix, Table, flatten
from brainfeat.report.outline import list_results
from brainfeat.report.results import summarise

DOCUMENTS = ("markdown", "card", "page")


class Facts:
    """What one output has, by section: its words, and the numbers of each row of its tables."""

    def __init__(self):
        self.sections = []
        self.words = defaultdict(str)
        self.rows = defaultdict(lambda: defaultdict(set))

    def open(self, title):
        self.sections.append(title)

    def add(self, text):
        words = f"{self.words[self.sections[-1]]} {text}".replace("\N{NO-BREAK SPACE}", " ")
        self.words[self.sections[-1]] = " ".join(words.split())

    def add_row(self, name, text):
        self.rows[self.sections[-1]][name] |= set(re.findall(r"\b\d[\d,]*(?:\.\d+)?", text))


class Page(HTMLParser):
    """Collect the facts of a page."""

    def __init__(self, facts):
        super().__init__(convert_charrefs=True)
        self.facts, self.tag, self.name = facts, "", ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        if tag == "tr":
            self.name = ""

    def handle_endtag(self, tag):
        if tag in {"h2", "th", "svg"}:
            self.tag = ""

    def handle_data(self, data):
        if self.tag == "h2":
            self.facts.open(data)
        elif self.facts.sections and data.strip():
            self.facts.add(data)
            if self.tag == "th":
                self.name = data
            elif self.name:
                self.facts.add_row(self.name, data)


def read_text(text):
    facts, name = Facts(), ""
    lines = text.split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(below) == {"="}:
            facts.open(line)
        elif line and set(line) != {"="}:
            facts.add(line)
            if found := re.match(r"(\S.*?)  +(.*\d.*)$", line):
                name = found[1]
                facts.add_row(*found.groups())
            elif line[0] == " ":
                facts.add_row(name, line)
    return facts


def read_markdown(text):
    facts = Facts()
    for line in text.split("\n"):
        if line.startswith("## "):
            facts.open(line[3:])
        elif facts.sections:
            plain = re.sub(r"\\(.)", r"\1", line.replace("**", ""))
            facts.add(plain)
            if plain.startswith("| "):
                name, _, cells = plain[2:].partition(" | ")
                facts.add_row(name, cells)
    return facts


def read_page(text):
    facts = Facts()
    Page(facts).feed(text)
    return facts


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("formats")
    study = draw_study(
        lambda *args, **rest: write_vectors(folder, *args, **rest),
        class_names=("glioma", "meningioma", "notumor", "pituitary"),
    )
    evaluation = evaluate(
        study.bundle,
        study.cache,
        by=[f"site-{row % 2}" for row in range(len(study.cache))],
        prevalence={"glioma": 0.01},
    )
    given = {"bundle": study.bundle, "cache": study.cache, "audit": study.audit}
    found = SimpleNamespace(
        evaluation=evaluation,
        text=read_text(to_text(evaluation)),
        markdown=read_markdown(to_markdown(evaluation)),
        card=read_markdown(to_card(evaluation, **given)),
        page=read_page(to_html(evaluation, **given)),
    )
    study.cache.close()
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_sections_of_the_text_have_the_same_titles_and_order(outputs, name):
    others = getattr(outputs, name).sections
    assert [title for title in others if title in outputs.text.sections] == outputs.text.sections


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_number_of_a_table_has_the_same_name_and_digits(outputs, name):
    other = getattr(outputs, name)
    checked = 0
    for title, rows in outputs.text.rows.items():
        for row, numbers in rows.items():
            assert numbers <= other.rows[title][row], (title, row)
            checked += len(numbers)
    assert checked > 100


@pytest.mark.parametrize("name", DOCUMENTS)
def test_titles_of_tables_and_sentences_are_the_same(outputs, name):
    other = getattr(outputs, name)
    for section in list_results(outputs.evaluation):
        for block in flatten(section.blocks):
            texts = [block] if isinstance(block, str) else []
            if isinstance(block, Table | Matrix):
                texts.append(block.title)
            for text in texts:
                assert text in other.words[section.title]
                assert not section.brief or text in outputs.text.words[section.title]


@pytest.mark.parametrize("name", ["text", *DOCUMENTS])
def test_metrics_have_three_decimals(outputs, name):
    overall = getattr(outputs, name).rows["Overall metrics"]
    for row in ("accuracy", "macro ROC AUC", "log loss", "Brier score"):
        assert {len(number.partition(".")[2]) for number in overall[row]} == {3}


@pytest.mark.parametrize("name", ["text", *DOCUMENTS])
def test_new_images_come_before_all_images(outputs, name):
    words = getattr(outputs, name).words
    new = outputs.evaluation.subsets.without_copies
    everything = outputs.evaluation.subsets.all
    assert new.accuracy != everything.accuracy
    summary = words["Summary"]
    assert summary.index(f"{new.accuracy:.3f}") < summary.index(f"{everything.accuracy:.3f}")
    for section, title in (
        ("Metrics by class", "Confusion matrix"),
        ("Metrics by class", "Each class against the rest"),
        ("Metrics by class", "Predictive values at another prevalence"),
        ("Answers and abstention", "What brainfeat predict would do"),
        ("Calibration", "Calibration"),
    ):
        if section in words:
            first = words[section].index(f"{title}, without copies")
            assert first < words[section].index(f"{title}, all images")


@pytest.mark.parametrize("name", ["text", *DOCUMENTS])
def test_the_risk_of_confident_predictions_is_beside_the_calibration_error(outputs, name):
    found = outputs.evaluation.copy_free
    risk = next(entry.risk for entry in found.abstention.risk_coverage if entry.fraction == 0.8)
    words = getattr(outputs, name).words
    sentence = f"Of the most confident 80 % of the images, {100 * risk:.1f} % are wrong"
    for section in ("Answers and abstention", "Calibration"):
        if section in words:
            assert sentence in words[section]
            assert f"{found.calibration.after.ece:.3f}" in words[section]


def test_classes_of_too_few_groups_are_not_in_the_range_of_sensitivities(tmp_path):
    """It does not say "in every class" of classes of which it says nothing."""
    study = draw_study(lambda *args, **rest: write_vectors(tmp_path, *args, **rest))
    with study.cache:
        part = study.evaluation.copy_free
        first, *others = part.per_class
        perfect = [replace(entry, recall=1.0) for entry in others]
        few = replace(part, per_class=(replace(first, recall=0.5), *perfect), few={first.name: 2})
        found = " ".join(summarise(replace(study.evaluation, copy_free=few)))
    assert "Sensitivity without copies is 1.000 in every other class." in found
    assert "ranges from" not in found
