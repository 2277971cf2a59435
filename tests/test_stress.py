"""A head on altered images: the sample, the cache, the metrics, and what is refused."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.halves import CLASSES, Blocks, draw

import brainfeat.prediction.bases
from brainfeat import FeatureCache, evaluate, extract, fit_head, read_table, stress
from brainfeat.errors import BundleError, CacheError, ParameterError, SpecMismatchError, TableError
from brainfeat.evaluation.stress import measure_stress
from brainfeat.evaluation.units import UnitRule
from brainfeat.extraction.alterations import Alterations
from brainfeat.prediction.sampling import choose_unseen
from brainfeat.report.stress import list_stress
from brainfeat.report.text import write_sections as to_text

KINDS = ("crop", "inverted", "noise")
N_VIEWS = 1 + 5 + 1 + 5
N_TRAIN, N_TEST = 25, 15
OPTIONS = {"number": None, "kinds": KINDS, "n_jobs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Draw slices of two classes, one of which is hard to tell, and a mirrored copy of train."""
    folder, rng = tmp_path_factory.mktemp("stress") / "slices", np.random.default_rng(0)
    for split, number in (("train", N_TRAIN), ("test", N_TEST)):
        for place, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                path = folder / split / name / f"{index:02}.png"
                draw(rng, bright=bool(place), doubtful=index % 8 == 7).save(path)
    seen = Image.open(folder / "train" / "glioma" / "03.png")
    seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test" / "glioma" / "99.png")
    (folder / "test" / "notumor" / "bad.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def cache(data):
    return extract(data, data.with_name("plain.h5"), backbone=Blocks(), n_jobs=1).output


@pytest.fixture(scope="module")
def head(cache):
    return fit_head(cache, head="lda", group_by="none", n_jobs=1)


@pytest.fixture(scope="module")
def altered(data):
    return data.with_name("altered.h5")


@pytest.fixture(scope="module")
def found(head, data, altered):
    return stress(head, data, altered, backbone=Blocks(), **OPTIONS)


@pytest.fixture
def base(monkeypatch):
    """Let a base that takes no time stand in for the one that the command loads."""
    base = Blocks()
    monkeypatch.setattr(brainfeat.prediction.bases, "load_backbone", lambda *_, **__: base)
    return base


# The metrics


def test_the_images_as_they_are_come_as_evaluate_measures_them(found, head, cache):
    evaluation = evaluate(head, cache)
    expected = evaluation.subsets.without_copies
    assert found.n == expected.n == 2 * N_TEST
    assert found.classes == dict.fromkeys(CLASSES, N_TEST)
    assert found.reference.accuracy == expected.accuracy
    assert found.reference.accuracy_interval == pytest.approx(expected.intervals.accuracy)
    abstention = evaluation.copy_free.abstention
    assert found.reference.answered == abstention.answered
    assert found.reference.out_of_distribution == abstention.out_of_distribution
    assert (found.reference.kind, found.reference.flips, found.reference.change) == ("none", 0, 0)


def test_an_alteration_is_measured_on_its_views(found, head, altered):
    entry = next(one for one in found.altered if (one.kind, one.strength) == ("noise", 7))
    view = next(
        view
        for view, one in Alterations().listed.items()
        if vars(one).items() <= vars(entry).items()
    )
    with FeatureCache.open(altered) as cache:
        plain, rows = np.flatnonzero(cache.view == 0), np.flatnonzero(cache.view == view)
        p, y = head.predict_proba(cache.X[rows]), cache.y[rows]
        before = head.predict_proba(cache.X[plain]).argmax(axis=1)
    predicted = p.argmax(axis=1)
    wrong = predicted != y
    assert wrong.any()
    assert entry.accuracy == pytest.approx(1 - wrong.mean())
    assert entry.flips == pytest.approx((predicted != before).mean())
    assert entry.change == pytest.approx((before != y).mean() - wrong.mean())
    assert entry.confident_errors == pytest.approx((p.max(axis=1)[wrong] > 0.9).mean())
    low, high = entry.change_interval
    assert low <= entry.change <= high


def test_alterations_are_ranked_by_what_they_cost(found):
    assert len(found.altered) == N_VIEWS - 1
    changes = [entry.change for entry in found.altered]
    assert changes == sorted(changes)
    assert changes[0] < -0.2
    assert [summary.kind for summary in found.kinds] != list(KINDS)
    for summary in found.kinds:
        entries = [entry for entry in found.altered if entry.kind == summary.kind]
        assert summary.mean_change == pytest.approx(np.mean([entry.change for entry in entries]))
        assert summary.least_accuracy == min(entry.accuracy for entry in entries)
    means = [summary.mean_change for summary in found.kinds]
    assert means == sorted(means)


def test_what_the_head_cannot_say_is_none(head, altered, found):
    bare = measure_stress(replace(head, ood_detector=None), altered)
    assert bare.reference.answered is None
    assert bare.reference.out_of_distribution is None
    assert all(entry.answered_errors is None for entry in bare.altered)
    assert bare.reference.accuracy == found.reference.accuracy


def test_few_groups_have_no_intervals(head, data):
    few = stress(head, data, backbone=Blocks(), kinds=["inverted"], number=6, n_jobs=1)
    assert few.n == 6
    assert few.reason == "too few groups: 6, and 10 are needed"
    assert few.reference.accuracy_interval is few.altered[0].change_interval is None


def test_a_summary_names_no_kinds_where_none_costs_anything_on_average(found):
    kinds = tuple(replace(summary, mean_change=0.1) for summary in found.kinds)
    text = to_text(list_stress(replace(found, kinds=kinds)))
    assert "at the lowest" in text
    assert "cost most" not in text


# The sample


def test_what_the_head_has_seen_is_left_out(found, head, data):
    assert found.left_out == {
        "seen by the head, or a copy of such an image": 1,
        "not readable": 1,
    }
    whole = choose_unseen(head, read_table(data), number=None, split="all")
    assert {path.split("/")[0] for path in whole.table.paths} == {"test"}
    with pytest.raises(TableError, match=r"none of the 50 images is left \(50 seen by the head"):
        choose_unseen(head, read_table(data), number=None, split="train")


def test_a_sample_has_each_class_by_its_share_and_grows(head, data):
    table = read_table(data)
    small, large = (choose_unseen(head, table, number=number) for number in (6, 20))
    assert [small.table.labels.count(name) for name in CLASSES] == [3, 3]
    assert {*small.table.paths} < {*large.table.paths}
    assert small.digests < large.digests
    backwards = replace(
        table,
        **{name: getattr(table, name)[::-1]
           for name in ("paths", "labels", "splits", "groups", "sources")},
    )  # fmt: skip
    assert {*choose_unseen(head, backwards, number=6).table.paths} == {*small.table.paths}
    other = choose_unseen(head, table, number=6, random_state=1)
    assert {*other.table.paths} != {*small.table.paths}


def test_a_class_of_which_too_little_is_left_is_named(head, data, tmp_path):
    folder = tmp_path / "few"
    for name, split in zip(CLASSES, ("test", "train"), strict=True):
        (folder / name).mkdir(parents=True)
        for file in ("00.png", "01.png"):
            shutil.copy(data / split / name / file, folder / name / file)
    found = stress(head, folder, backbone=Blocks(), kinds=["inverted"], number=4, n_jobs=1)
    assert found.n == 2
    assert found.notes[0] == "The class notumor has 0 of 2 wanted images left."
    assert "All images are of the class glioma" in found.notes[1]


# The cache


def test_a_second_run_computes_nothing_and_a_head_can_be_tried_again(found, head, data, altered):
    base = Blocks()
    assert stress(head, data, altered, backbone=base, **OPTIONS) == found
    assert base.shapes == []
    assert measure_stress(head, altered).altered == found.altered


def test_an_interrupted_run_goes_on_where_it_stopped(found, head, data, tmp_path):
    class Stops(Blocks):
        def __call__(self, images):
            if len(self.shapes) == 4:
                raise KeyboardInterrupt
            return super().__call__(images)

    output, batch = tmp_path / "altered.h5", 32
    with pytest.raises(KeyboardInterrupt):
        stress(head, data, output, backbone=Stops(), batch_size=batch, **OPTIONS)
    assert not output.exists()
    base = Blocks()
    again = stress(head, data, output, backbone=base, batch_size=batch, **OPTIONS)
    missing = 2 * N_TEST * N_VIEWS - 4 * batch
    assert len(base.shapes) == -(-missing // batch)
    assert again == found


def test_altered_rows_are_never_taken_for_images(found, head, cache, altered):
    with pytest.raises(TableError, match=r"altered\.h5 holds altered views of images, on which"):
        fit_head(altered, head="lda")
    evaluation = evaluate(head, altered)
    assert evaluation.n == 2 * N_TEST
    assert evaluation.accuracy == found.reference.accuracy
    with pytest.raises(CacheError, match=r"plain\.h5 has no altered views; name a cache that"):
        measure_stress(head, cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_state": 1}, "alterations of another seed"),
        ({"kinds": ["noise"]}, "kinds of alterations that were not chosen"),
        ({"number": 6}, "images that are not in this sample"),
    ],
)
def test_what_a_run_would_drop_is_said_before_any_work(found, head, data, altered, change, message):
    before, base = altered.read_bytes(), Blocks()
    with pytest.raises(CacheError, match=message):
        stress(head, data, altered, backbone=base, **{**OPTIONS, **change})
    assert base.shapes == []
    assert altered.read_bytes() == before


def test_overwrite_keeps_the_rows_that_are_wanted(found, head, data, altered, tmp_path):
    output, base = tmp_path / "altered.h5", Blocks()
    output.write_bytes(altered.read_bytes())
    smaller = {**OPTIONS, "number": 12, "overwrite": True}
    few = stress(head, data, output, backbone=base, **smaller)
    assert (few.n, base.shapes) == (12, [])


def test_an_output_of_another_kind_is_kept(head, data, cache, tmp_path):
    other = tmp_path / "notes.h5"
    other.write_text("mine", encoding="utf-8")
    for path in (cache, other):
        before = path.read_bytes()
        with pytest.raises(CacheError, match="is not a cache of altered images and is not repl"):
            stress(head, data, path, backbone=Blocks(), overwrite=True, **OPTIONS)
        assert path.read_bytes() == before


# What is refused


def test_views_are_altered_or_augmented(data, tmp_path):
    with pytest.raises(ParameterError, match="augment and alterations exclude each other"):
        extract(data, tmp_path / "a.h5", backbone=Blocks(), augment=1, alterations=Alterations())


def test_images_that_do_not_fit_the_head_are_refused(head, data, tmp_path):
    table = read_table(data)
    other = replace(
        table,
        labels=tuple("tumour" if label == "glioma" else label for label in table.labels),
        class_names=("notumor", "tumour"),
    )
    with pytest.raises(BundleError, match=r"the images have the class 'tumour'; expected one of"):
        stress(head, other, backbone=Blocks(), **OPTIONS)
    unlabelled = replace(table, labels=("",) * len(table), class_names=())
    with pytest.raises(TableError, match="the table has no labelled images; name one"):
        stress(head, unlabelled, backbone=Blocks(), **OPTIONS)
    with pytest.raises(TableError, match=r"no labelled images in split 'val'; it has test \(32\)"):
        stress(head, data, backbone=Blocks(), split="val", **OPTIONS)
    with pytest.raises(SpecMismatchError):
        stress(head, data, backbone=Blocks(weights="1" * 64), **OPTIONS)
    with pytest.raises(ParameterError, match="number 0; expected 1 or more"):
        stress(head, data, backbone=Blocks(), number=0)


# Patients


@pytest.fixture(scope="module")
def patients(data):
    """The same images, four of a patient; one has the copy of an image of train."""
    table = read_table(data)
    names = [path.rsplit("/", 1) for path in table.paths]
    numbers = [int(name[:2]) // 4 % 24 if name[:2].isdigit() else 0 for _, name in names]
    groups = [f"{folder}/{n}" for (folder, _), n in zip(names, numbers, strict=True)]
    return replace(table, groups=tuple(groups))


def test_alterations_are_pooled_over_the_images_of_a_patient(head, patients, tmp_path):
    output = tmp_path / "patients.h5"
    found = stress(head, patients, output, backbone=Blocks(), unit="group", **OPTIONS)
    assert (found.unit, found.n, found.n_images) == ("group", 7, 26)
    assert found.left_out["of patients of whom the head has seen an image, or a copy"] == 5
    with FeatureCache.open(output) as cache:
        plain = np.flatnonzero(cache.view == 0)
        names, y = cache.groups[plain], cache.y[plain]
        for entry in found.altered:
            [view] = [
                view
                for view, one in Alterations().listed.items()
                if vars(one).items() <= vars(entry).items()
            ]
            X = cache.X[np.flatnonzero(cache.view == view)]
            p, scores = head.predict_proba(X), head.ood_detector.score(X).scores
            strange = scores > head.ood_detector.threshold()
            right = []
            for name in np.unique(names):
                own = names == name
                kept = own & ~strange if (own & ~strange).any() else own
                right.append(p[kept].mean(axis=0).argmax() == y[own][0])
            assert entry.accuracy == pytest.approx(np.mean(right))
    assert measure_stress(head, output).n == 26
    assert "On 7 patients in 7 groups" in to_text(list_stress(found)[:1])


def test_a_sample_has_whole_patients(head, patients):
    rule = UnitRule(unit="group")
    small, large = (choose_unseen(head, patients, number=n, rule=rule) for n in (2, 4))
    assert {*small.table.groups} < {*large.table.groups}
    assert len({*small.table.groups}) == 2
    for group in large.table.groups:
        whole = [
            path
            for path, name in zip(patients.paths, patients.groups, strict=True)
            if name == group and "bad" not in path
        ]
        assert {*whole} <= {*large.table.paths}
    mixed = replace(patients, groups=("one",) * len(patients))
    with pytest.raises(TableError, match="have images of several classes"):
        choose_unseen(head, mixed, number=2, split="all", rule=rule)


# The command


def test_the_command_prints_tables_and_writes_a_page(run, base, found, head, data, tmp_path):
    head.save(tmp_path / "head.h5")
    words = ("stress", tmp_path / "head.h5", data, "--number", 0, "--kinds", ",".join(KINDS))
    page = tmp_path / "stress.html"
    result = run(*words, "--report", page, "--jobs", 1)
    assert result.code == 0, result.err
    assert "as they are" in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 1
    assert "Stress test of a brain MRI classifier" in text
    assert not {"<script", "http:", "https:", str(data)} & {*text.split('"')}
    assert (
        run(*words, "--report", page).err.count("exists; name another output or pass --over") == 1
    )
    assert run(*words, "--report", page, "--overwrite", "--jobs", 1).code == 0
    assert page.read_text(encoding="utf-8") == text
    rows = run(*words, "--markdown").out.splitlines()
    names = [row.split("|")[1].strip() for row in rows if row.startswith("| ")]
    assert names.count("as they are") == 1
    assert "noise 7 %" in names
    document = json.loads(run(*words, "--json").out)
    assert document == json.loads(json.dumps(found.to_dict()))


def test_the_command_says_in_one_line_what_is_wrong(run, base, head, data, tmp_path):
    head.save(tmp_path / "head.h5")
    (tmp_path / "note.html").write_text("mine", encoding="utf-8")
    with (data / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), ("test/glioma/00.png", "")])
    words = ("stress", tmp_path / "head.h5")
    for arguments, message in (
        ((data, "--kinds", "smear"), "unknown kind of alteration 'smear'"),
        ((data, "--unit", "group"), "has no groups, such as patients"),
        ((data / "table.csv",), "no labelled images"),
        ((data, "--report", tmp_path / "note.html", "--overwrite"), "is not a report on altered"),
        ((data, "-o", tmp_path / "none" / "a.h5"), "there is no folder"),
    ):
        result = run(*words, *arguments)
        assert result.code == 1
        assert message in result.err
        assert result.err.count("\n") == 1
    (data / "table.csv").unlink()
    assert run(*words, data, "--markdown", "--json").code == 2
    assert "names no kind" in run(*words, data, "--kinds", " ,").err
    same = (tmp_path / "a.h5", "--report", tmp_path / "none" / ".." / "a.h5")
    assert "name the same file" in run(*words, data, "-o", *same).err


def test_an_interrupted_command_says_what_is_kept(run, head, data, tmp_path, monkeypatch):
    class Stops(Blocks):
        def __call__(self, images):
            if self.shapes:
                raise KeyboardInterrupt
            return super().__call__(images)

    monkeypatch.setattr(brainfeat.prediction.bases, "load_backbone", lambda *_, **__: Stops())
    head.save(tmp_path / "head.h5")
    result = run("stress", tmp_path / "head.h5", data, "-o", tmp_path / "a.h5", "--jobs", 1)
    assert result.code == 130
    assert "finished rows kept in" in result.err
    assert "run the same command again to go on" in result.err
