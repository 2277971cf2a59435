"""Sets whose classes have other names than those of the head: coarser, spelled otherwise, fewer."""

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn import metrics
from support.caches import draw_signatures, write_vectors

from brainfeat import compare, evaluate, fit_head
from brainfeat.cache.cache import FeatureCache
from brainfeat.cli import main
from brainfeat.cli.classes import read_classes
from brainfeat.cli.evaluate import command
from brainfeat.errors import BundleError, ParameterError, TableError
from brainfeat.heads.conformal import COVERAGE
from brainfeat.report import to_text

WIDTH = 32
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
TUMOUR = {"yes": ["glioma", "meningioma", "pituitary"], "no": "notumor"}
TEXT = "yes=glioma+meningioma+pituitary,no=notumor"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mapping")


@pytest.fixture(scope="module")
def write(folder):
    """Give a function that writes a set of 200 images of given names of the four classes."""

    def call(names, *, name, chosen=(0, 1, 2, 3)):
        rng, y = np.random.default_rng(0), np.arange(200) % 4
        centres = 0.7 * np.random.default_rng(7).standard_normal((4, WIDTH))
        X, kept = rng.standard_normal((200, WIDTH)) + centres[y], np.isin(y, chosen)
        known = tuple(dict.fromkeys(names))
        labels = np.array([known.index(entry) for entry in names])[y]
        return write_vectors(
            folder,
            X[kept],
            labels[kept],
            class_names=known,
            paths=[f"{name}-{row}.png" for row in np.flatnonzero(kept)],
            signature=draw_signatures(200, seed=len(name))[kept],
            name=f"{name}.h5",
        )

    return call


@pytest.fixture(scope="module")
def heads(write):
    path = write(CLASSES, name="own")
    return [fit_head(path, head=head, group_by="none", n_jobs=1) for head in ("lda", "knn")]


@pytest.fixture(scope="module")
def coarse(write):
    return write(("yes", "yes", "no", "yes"), name="coarse")


@pytest.fixture(scope="module")
def spelled(write):
    return write(("Glioma", "meningioma", "no_tumor", "pituitary"), name="spelled")


# Coarser classes


@pytest.mark.parametrize("classes", [TUMOUR, TEXT, [TEXT]], ids=["mapping", "text", "list"])
def test_probabilities_are_added_and_metrics_are_those_of_the_coarser_classes(
    heads, coarse, classes
):
    found = evaluate(heads[0], coarse, classes=classes)
    with FeatureCache(coarse) as cache:
        p, y = heads[0].predict_proba(cache.X[:]), cache.y
    added = np.stack([p[:, [0, 1, 3]].sum(axis=1), p[:, 2]], axis=1)
    assert found.class_names == ("yes", "no")
    assert found.predictions.probabilities == pytest.approx(added)
    assert found.accuracy == metrics.accuracy_score(y, added.argmax(axis=1))
    expected = metrics.confusion_matrix(y, added.argmax(axis=1))
    assert np.array_equal(found.confusion_matrix, expected)
    assert found.classes == {"yes": ("glioma", "meningioma", "pituitary"), "no": ("notumor",)}


def test_prediction_sets_are_united(heads, coarse):
    found = evaluate(heads[0], coarse, classes=TUMOUR).abstention
    with FeatureCache(coarse) as cache:
        p, y = heads[0].predict_proba(cache.X[:]), cache.y
    sets = heads[0].conformal.predict_sets(p, coverage=COVERAGE)
    united = np.stack([sets[:, [0, 1, 3]].any(axis=1), sets[:, 2]], axis=1)
    assert found.coverage == united[np.arange(len(y)), y].mean()
    assert found.coverage_by_class["yes"] == united[y == 0, 0].mean()


def test_coarser_classes_are_told(heads, coarse):
    words = " ".join(to_text(evaluate(heads[0], coarse, classes=TUMOUR)).split())
    assert (
        "Measured on coarser classes: yes is glioma, meningioma or pituitary; no is notumor."
    ) in words
    assert "2, coarser" in to_text(evaluate(heads[0], [coarse], classes=TUMOUR))


def test_a_mapping_may_leave_classes_to_themselves(heads, spelled):
    mapping = {"Glioma": "glioma", "no_tumor": "notumor"}
    found = evaluate(heads[0], spelled, classes=mapping)
    assert found.class_names == ("Glioma", "no_tumor", "meningioma", "pituitary")
    assert [entry.support for entry in found.per_class] == [50] * 4
    assert found.accuracy > 0.7
    assert "Measured by other names" in to_text(found)


def test_heads_are_compared_on_coarser_classes(heads, coarse):
    found = compare(*heads, coarse, classes=TUMOUR)
    for head, metric in zip(heads, (found.accuracy.first, found.accuracy.second), strict=True):
        assert metric == evaluate(head, coarse, classes=TUMOUR).accuracy


# Several sets


def test_each_set_takes_the_mapping_that_fits_it(heads, coarse, spelled, write):
    own = write(CLASSES, name="fine")
    mappings = [TUMOUR, "no_tumor=notumor,Glioma=glioma"]
    found = evaluate(heads[0], [own, spelled, coarse], classes=mappings)
    names = [entry.evaluation.class_names[:2] for entry in found.sets]
    assert names == [("glioma", "meningioma"), ("no_tumor", "Glioma"), ("yes", "no")]
    difference = found.sets[2].difference
    assert difference.classes == ("yes", "no")
    assert difference.balanced_accuracy.first > found.reference.balanced_accuracy


def test_a_mapping_that_names_a_class_of_the_head_leaves_its_own_sets_alone(heads, write):
    own = write(CLASSES, name="left")
    other = write(("tumour", "tumour", "notumor", "tumour"), name="other")
    mapping = "tumour=glioma+meningioma+pituitary,notumor=notumor"
    found = evaluate(heads[0], [own, other], classes=mapping)
    assert [len(entry.evaluation.class_names) for entry in found.sets] == [4, 2]


# Fewer classes


def test_a_set_of_some_classes_is_measured_on_these_and_says_so(heads, write):
    path = write(CLASSES, name="some", chosen=(0, 2))
    found = evaluate(heads[0], path)
    assert found.absent == ("meningioma", "pituitary")
    recalls = [entry.recall for entry in found.per_class if entry.support]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    words = " ".join(to_text(found).split())
    assert "Images of 2 of 4 classes; none of meningioma, pituitary, which count as wrong" in words


def test_one_class_alone_has_the_metrics_that_need_no_second(heads, write):
    path = write(("yes",) * 4, name="one", chosen=(0, 1))
    found = evaluate(heads[0], path, classes=TUMOUR)
    assert (found.roc_auc, found.mcc, found.per_class[0].specificity) == (None, None, None)
    assert found.accuracy == found.per_class[0].recall
    assert "all images are of one class, yes" in found.describe_classes()[1]
    assert to_text(evaluate(heads[0], [path], classes=TUMOUR))


# What is refused


def test_spellings_are_offered_and_not_assumed(heads, spelled, tmp_path):
    offered = r'classes="Glioma=glioma,no_tumor=notumor"'
    with pytest.raises(BundleError, match=rf"if they mean the same, pass {offered}"):
        evaluate(heads[0], spelled)
    head = heads[0].save(tmp_path / "head.h5")
    words = [str(head), str(spelled), "--classes", "Glioma=glioma,no_tumor=notumor"]
    assert CliRunner().invoke(command, words).exit_code == 0


def test_an_offered_argument_is_ready_for_a_shell(heads, write, tmp_path, capsys):
    path, head = write((*CLASSES[:2], "No Tumor", "pituitary"), name="shell"), tmp_path / "head.h5"
    heads[0].save(head)
    with pytest.raises(SystemExit):
        main(["evaluate", str(head), str(path)])
    assert "pass --classes 'No Tumor=notumor'" in capsys.readouterr().err


def test_two_spellings_of_one_class_are_not_offered(heads, write):
    path = write(("no_tumor", "meningioma", "notumor", "no-tumor"), name="two")
    with pytest.raises(BundleError, match="no_tumor=CLASS"):
        evaluate(heads[0], path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "is empty"),
        ({"yes": []}, "names no class of the head for 'yes'"),
        ("yes=,no=notumor", "names no class of the head for 'yes'"),
        ({"yes": "tumour"}, "names 'tumour' for 'yes'; expected classes of the head, 'glioma'"),
        ("yes=glioma+meningioma,no=glioma", "names 'glioma' of the head twice"),
        ("yes=glioma,yes=notumor", "names the class 'yes' of the set twice"),
        ("yes", "expected SET=HEAD"),
        ("sick=glioma+meningioma+pituitary,well=notumor", "fits no images|no mapping .* fits"),
        ("yes=glioma+meningioma,no=notumor,ill=pituitary", None),
        ([TUMOUR, TEXT], "2 mappings fit"),
        ([TUMOUR, "sick=glioma"], "mapping of the classes 'sick' fits no images"),
        ("yes=glioma+meningioma+notumor+pituitary", "no mapping .* fits"),
        ("notumor=glioma,yes=pituitary", "not what 'notumor' of the head is"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(heads, coarse, classes, message):
    if message is None:
        assert evaluate(heads[0], coarse, classes=classes).absent == ("ill",)
        return
    with pytest.raises((ParameterError, BundleError), match=message):
        evaluate(heads[0], coarse, classes=classes)


def test_a_mapping_that_makes_one_class_of_all_is_refused(heads, write):
    path = write(("yes",) * 4, name="all")
    with pytest.raises(ParameterError, match="makes one class, 'yes', of all"):
        evaluate(heads[0], path, classes={"yes": CLASSES})


def test_a_mapping_is_read_from_a_csv_file(tmp_path, heads, coarse):
    path = tmp_path / "classes.csv"
    path.write_text('class,head_class\nyes,glioma\nyes,meningioma\n"no",notumor\nyes,pituitary\n')
    assert read_classes(path) == {"yes": ("glioma", "meningioma", "pituitary"), "no": ("notumor",)}
    head = heads[0].save(tmp_path / "head.h5")
    assert (
        CliRunner().invoke(command, [str(head), str(coarse), "--classes", str(path)]).exit_code == 0
    )
    path.write_text("yes,glioma\n")
    with pytest.raises(TableError, match="class,head_class"):
        read_classes(path)
    path.write_text("class,head_class\nyes\n")
    with pytest.raises(TableError, match="line 2"):
        read_classes(path)


def test_a_mapping_may_be_empty_or_longer_than_a_path(tmp_path, heads, coarse):
    head = heads[0].save(tmp_path / "head.h5")
    long = f"{TEXT},{'x' * 5000}=glioma"
    for given, message in (("", "not a part of a mapping"), (long, "'glioma' of the head twice")):
        with pytest.raises((click.UsageError, ParameterError), match=message):
            command.main([str(head), str(coarse), "--classes", given], standalone_mode=False)
