"""Text, Markdown, JSON and pictures of metrics, and that no class name breaks them."""

import builtins
import json

import numpy as np
import pytest
from PIL import Image

from brainfeat import fit_head
from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.metrics import measure
from brainfeat.report import pictures, to_json, to_markdown, to_text
from brainfeat.report.blocks import Estimate, Table
from brainfeat.report.text import lay_out
from brainfeat.text import count_columns

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b`c`*d*_e_",
    "clear\x1b[2J\u202escreen",
    "line\nbreak\r\t",
    "$x_1^$",
    "脑膜瘤" * 20,
)


def make_evaluation(class_names, n=300, missing=()):
    """Measure mostly right probabilities; no image is of the `missing` classes."""
    rng = np.random.default_rng(0)
    k = len(class_names)
    y = rng.choice([label for label in range(k) if label not in missing], n)
    p = rng.dirichlet(np.ones(k), n) + 0.5 * np.eye(k)[y]
    return measure(y, p / p.sum(axis=1, keepdims=True), class_names=class_names)


@pytest.fixture(scope="module")
def four():
    return make_evaluation(("glioma", "meningioma", "notumor", "pituitary"))


def split_lines(text):
    return [line.split() for line in text.splitlines()]


def test_text_has_the_overall_metrics(four):
    lines = split_lines(to_text(four))
    for *name, value in (
        ("accuracy", four.accuracy),
        ("balanced", "accuracy", four.balanced_accuracy),
        ("macro", "ROC", "AUC", four.roc_auc),
        ("log", "loss", four.log_loss),
        ("Matthews", "correlation", four.mcc),
    ):
        assert [*name, f"{value:.3f}"] in lines


def test_text_has_a_line_of_scores_for_each_class(four):
    lines = split_lines(to_text(four))
    scores = four.per_class[1]
    first = (scores.recall, scores.specificity, scores.precision)
    second = (scores.npv, scores.f1, scores.roc_auc, scores.average_precision)
    assert ["meningioma", f"{scores.support}", *(f"{value:.3f}" for value in first)] in lines
    assert ["meningioma", *(f"{value:.3f}" for value in second)] in lines


def test_text_has_the_means_over_the_classes(four):
    lines = split_lines(to_text(four))
    mean = four.weighted
    assert ["weighted", "mean", "300", f"{mean.recall:.3f}", "–", f"{mean.precision:.3f}"] in lines
    assert ["macro", "mean", "–", f"{four.macro.f1:.3f}", f"{four.roc_auc:.3f}", "–"] in lines


def test_text_has_the_confusion_matrix_with_true_classes_as_rows(four):
    lines = split_lines(to_text(four))
    assert ["true", "\\", "predicted", *four.class_names] in lines
    assert ["glioma", *map(str, four.confusion_matrix[0])] in lines


def test_text_explains_what_is_not_defined():
    text = to_text(make_evaluation(("glioma", "notumor", "rare"), missing=(2,)))
    assert "n/a: not defined" in text


def test_text_does_not_mention_undefined_metrics_where_there_are_none(four):
    assert "n/a" not in to_text(four)


@pytest.mark.parametrize("k", [2, 4, 12, 40])
@pytest.mark.parametrize(
    "name", ["c{}", "a rather long name of tumour {} of the list", "脑膜瘤{}型"]
)
def test_text_fits_80_columns(k, name):
    text = to_text(make_evaluation([name.format(number) for number in range(k)], n=3000))
    assert max(map(count_columns, text.splitlines())) <= 80


def test_numbered_columns_hold_the_whole_confusion_matrix():
    evaluation = make_evaluation([f"class {number}" for number in range(40)], n=3000)
    text = to_text(evaluation)
    matrix = text[text.index("Confusion matrix") : text.index("Each class")]
    lines = [line for line in matrix.splitlines() if " class " in line]
    assert len(lines) % 40 == 0
    rows = [
        [int(count) for line in lines[row::40] for count in line.split()[3:]] for row in range(40)
    ]
    assert "Columns are numbered as rows." in matrix
    assert np.array_equal(rows, evaluation.confusion_matrix)


def test_long_names_keep_both_ends():
    names = ("oligodendroglioma, IDH-mutant, grade 2", "oligodendroglioma, IDH-mutant, grade 3")
    text = to_text(make_evaluation(names))
    assert "oligodendroglio…utant, grade 2" in text
    assert "oligodendroglio…utant, grade 3" in text


def test_heads_of_columns_are_wrapped_where_that_saves_a_table():
    rows = [("balanced accuracy", *[Estimate(value="0.900", interval="0.800–0.950")] * 3)]
    head = ("metric", "without near duplicates", "without exact duplicates", "all images")
    lines = lay_out(Table(title="", head=head, rows=rows))
    assert len(lines) == 3
    assert lines[-1].count("0.900 (0.800–0.950)") == 3


def test_combining_marks_take_no_column():
    lines = to_text(make_evaluation(("gliome", "me\u0301ningiome"))).splitlines()
    heads = [line for line in lines if line.startswith("class ")]
    rows = [line for line in lines if line.startswith("me\u0301ningiome") and "." in line]
    assert len(rows[0]) == len(heads[0]) + 1


def test_text_neutralises_control_characters():
    text = to_text(make_evaluation(HOSTILE))
    assert "clear\\x1b[2J\\u202escreen" in text
    assert all(character.isprintable() for line in text.split("\n") for character in line)


def test_hostile_names_add_no_lines(four):
    hostile = make_evaluation(("glioma\n", "men\u2028ingioma", "not\rumor", "pituitary\x85"))
    tables = [text[text.index("Each class") :] for text in map(to_text, (hostile, four))]
    assert len(tables[0].splitlines()) == len(tables[1].splitlines())


def test_json_is_the_evaluation(four):
    assert json.loads(to_json(four)) == four.to_dict()


def test_json_of_undefined_metrics_is_null():
    evaluation = measure([0], [[0.9, 0.1]], class_names=["no", "yes"])
    document = json.loads(to_json(evaluation))
    assert document["roc_auc"] is None
    assert document["per_class"]["yes"]["recall"] is None


def test_json_of_hostile_names_is_plain_ascii():
    document = to_json(make_evaluation(HOSTILE))
    assert document.isascii()
    assert "\x1b" not in document
    assert list(json.loads(document)["per_class"]) == list(HOSTILE)


def test_markdown_holds_scores_and_confusion_matrix(four):
    lines = to_markdown(four).splitlines()
    assert f"| accuracy | {four.accuracy:.3f} |" in lines
    assert f"| pituitary | {' | '.join(map(str, four.confusion_matrix[3]))} |" in lines
    scores = four.per_class[3]
    assert any(
        line.startswith(f"| pituitary | {scores.support} | {scores.recall:.3f} |") for line in lines
    )


def test_markdown_tables_have_as_many_cells_in_each_row():
    paragraphs = to_markdown(make_evaluation(HOSTILE)).split("\n\n")
    tables = [text for text in paragraphs if text.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        cells = {line.replace("\\|", "").count("|") for line in table.split("\n")}
        assert len(cells) == 1


def test_markdown_escapes_markup():
    text = to_markdown(make_evaluation(HOSTILE))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert r"a\|b\`c\`\*d\*\_e\_" in text
    assert r"line\\nbreak\\r\\t" in text
    assert r"\$x\_1^\$" in text


@pytest.mark.parametrize("k", [2, 4, 12])
def test_confusion_matrix_picture_is_legible(k, tmp_path):
    path = tmp_path / "matrix.png"
    pictures.save_confusion_matrix(
        make_evaluation([f"class {number}" for number in range(k)]), path
    )
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 100 * k


def test_confusion_matrix_picture_takes_any_name(tmp_path):
    path = tmp_path / "matrix.png"
    evaluation = make_evaluation(HOSTILE[:5], missing=(1,))
    pictures.save_confusion_matrix(evaluation, path)
    assert path.stat().st_size > 0


def test_pictures_of_equal_metrics_are_equal_bytes(four, tmp_path):
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for path in paths:
        pictures.save_confusion_matrix(four, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_contact_sheet_takes_grey_and_colour_of_any_size(tmp_path):
    path = tmp_path / "sheet.png"
    images = [np.zeros((8, 8)), np.ones((6, 9, 3)), np.full((8, 8), 200, dtype=np.uint8)]
    pictures.save_contact_sheet(images, path, titles=["grey", "$colour$", "byte"], columns=2)
    with Image.open(path) as picture:
        assert picture.width > 400
        assert picture.height > 400


def test_contact_sheet_shows_full_white_as_white(tmp_path):
    path = tmp_path / "sheet.png"
    images = [np.full((8, 8), 255, dtype=np.uint8), np.full((8, 8), 0.5)]
    pictures.save_contact_sheet(images, path, titles=["", ""])
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    middle = grey[grey.shape[0] // 2]
    assert middle[middle.size // 4] == 255
    assert abs(int(middle[3 * middle.size // 4]) - 128) <= 1


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        ([], [], "at least one"),
        ([np.zeros((4, 4))], ["a", "b"], "got 1 images and 2 titles"),
        ([np.zeros((4, 4, 4))], ["a"], "must have shape"),
        ([np.zeros(4)], ["a"], "must have shape"),
    ],
)
def test_contact_sheet_refuses_what_is_not_an_image(images, titles, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        pictures.save_contact_sheet(images, tmp_path / "sheet.png", titles=titles)


def test_a_missing_matplotlib_names_the_extra(four, tmp_path, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"pip install 'brainfeat\[report\]'"):
        pictures.save_confusion_matrix(four, tmp_path / "matrix.png")


def test_a_crop_is_in_the_card_and_in_its_command(run, make_cache, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = rng.standard_normal((120, 6)) + 3 * np.eye(6)[y]
    splits, card = ["train", "train", "test"] * 40, tmp_path / "card.md"
    cache = make_cache(X, y, splits=splits, crop="foreground threshold=otsu")
    fit_head(cache, head="lda").save(tmp_path / "head.h5")
    words = ["evaluate", tmp_path / "head.h5", cache, "--checklist", "claim2024", "--card", card]
    assert run(*words).code == 0
    text = card.read_text(encoding="utf-8")
    assert "--crop foreground" in text
    assert "made RGB, cropped to its foreground and resized to" in text
