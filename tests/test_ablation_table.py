"""ablate: every variant on the same folds and images, matched by content, and what is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import draw_groups, draw_signatures, write_vectors
from support.layered import write_layered

from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.main import group
from brainfeat.errors import CacheError, ParameterError, SpecMismatchError
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.report.ablation import (
    describe_ablation,
    describe_verdict,
    draw_ablation,
    write_ablation,
    write_ablation_markdown,
)
from brainfeat.training import variant_fits
from brainfeat.training.ablation_table import ablate
from brainfeat.training.fitting import fit_head

CLASSES = ("glioma", "meningioma", "notumor")
N = 300
SPLITS = np.repeat(["train", "val", "test"], (150, 50, 100))
MAPPING = "yes=glioma+meningioma,no=notumor"


def draw_vectors(n=N, *, seed=0, spread=1.6):
    """Draw overlapping clouds of three classes; the images of a class in turn."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).standard_normal((3, 8))
    return centres[np.arange(n) % 3] * 1.5 + spread * rng.standard_normal((n, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a cache, others of the same images, and one of another data set."""
    folder = tmp_path_factory.mktemp("ablation")
    X, y, signature = draw_vectors(), np.arange(N) % 3, draw_signatures(N)
    # 40 test images are copies of training images.
    signature[200:240] = signature[:40]
    shared = {"class_names": CLASSES, "signature": signature}
    write_vectors(folder, X, y, splits=SPLITS, **shared)
    # Another base tells more; its rows are in another order, and its table has no splits.
    order = np.random.default_rng(1).permutation(N)
    paths = [f"image-{row:05}.png" for row in order]
    shared["signature"] = signature[order]
    better = draw_vectors(seed=0, spread=0.4)[order]
    for name, values in (("good.h5", better), ("same.h5", X[order])):
        base = {"backbone": "resnet50", "layer": "avg_pool"} if name == "good.h5" else {}
        write_vectors(folder, values, y[order], name=name, paths=paths, **shared, **base)
    others = {"contents": [f"other {row}" for row in range(N)], "class_names": CLASSES}
    write_vectors(folder, X, y, name="others.h5", **others)
    elsewhere = (np.arange(120) % 3 == 2).astype(int)
    write_vectors(
        folder,
        draw_vectors(120, seed=9),
        elsewhere,
        name="elsewhere.h5",
        class_names=("yes", "no"),
        contents=[f"elsewhere {row}" for row in range(120)],
        signature=draw_signatures(120, seed=1),
    )
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """Compare variants of one head, of which some cannot be fitted."""
    return ablate(
        folder / "features.h5",
        {
            "same": {},
            "other order": {"features": folder / "same.h5"},
            "other base": {"features": folder / "good.h5"},
            "weak": {"params": {"C": 0.001}},
            "other head": {"head": "lda"},
            "other images": {"features": folder / "others.h5"},
            "no such value": {"params": {"C": -1.0}},
            "groups": {"bag": "mean"},
        },
        head="svm",
        params={"C": 1.0},
        on=folder / "elsewhere.h5",
        classes=MAPPING,
        n_jobs=1,
    )


def take(ablation, name):
    return next(variant for variant in ablation.variants if variant.name == name)


def test_each_set_is_measured_as_fit_head_and_evaluate_do(folder, found):
    with FeatureCache(folder / "features.h5") as cache:
        bundle = fit_head(cache, head="svm", params={"C": 1.0}, cv=5)
        other = fit_head(cache, head="lda", cv=5)
    variant = take(found, "other head")
    for head, values in (
        (bundle, [getattr(found, name).balanced_accuracy for name in ("folds", "test")]),
        (other, [variant.folds.balanced_accuracy, variant.test.balanced_accuracy]),
    ):
        cv, new = head.training.cv.out_of_fold, head.training.test_without_copies
        assert values == pytest.approx([cv.balanced_accuracy, new.balanced_accuracy])
    assert (found.folds.n, found.test.n, found.test.left_out) == (200, 60, 40)
    elsewhere = folder / "elsewhere.h5"
    for head, images in ((bundle, found.elsewhere), (other, variant.elsewhere)):
        measured = evaluate(head, elsewhere, split="all", classes=MAPPING)
        assert images.balanced_accuracy == pytest.approx(measured.balanced_accuracy)
    assert found.elsewhere.classes == {"yes": ("glioma", "meningioma"), "no": ("notumor",)}


def test_variants_are_ranked_and_those_without_a_fit_say_why(found):
    names = [variant.name for variant in found.variants]
    assert names[0] == "other base"
    assert set(names[-3:]) == {"other images", "no such value", "groups"}
    assert [variant.folds is None for variant in found.variants] == [False] * 5 + [True] * 3
    assert "predicts groups, and the plain head images" in take(found, "groups").error
    assert "lacks 300 of the 300 images" in take(found, "other images").error
    assert "The 'C' parameter of SVC" in take(found, "no such value").error
    base = take(found, "other base")
    assert (base.folds.verdict, base.elsewhere) == ("better", None)
    assert "none of the caches of other images has the features" in base.elsewhere_error
    assert take(found, "weak").folds.verdict == "worse"
    assert take(found, "same").folds.difference == 0
    assert (take(found, "weak").params, take(found, "other head").params) == ({"C": 0.001}, {})


def test_rows_in_another_order_give_the_same_predictions(found):
    same, other = take(found, "same"), take(found, "other order")
    assert replace(other, name="same", options={}, seconds=same.seconds) == same
    assert other.options == {"features": "same.h5"}


def test_views_of_a_variant_are_fitted_on_and_never_scored(folder, tmp_path):
    X, y = draw_vectors(), np.arange(N) % 3
    # Views that are far from their images: they would be wrong if they were scored.
    write_vectors(
        tmp_path,
        np.vstack([X, X + 100]),
        np.tile(y, 2),
        view=np.repeat([0, 1], N),
        paths=[f"image-{row:05}.png" for row in np.tile(np.arange(N), 2)],
        class_names=CLASSES,
    )
    fitted = []
    original = variant_fits.run_fits

    def run(tasks, **options):
        fitted.extend((len(task.partition.rows_of(task.train)), len(task.train)) for task in tasks)
        return original(tasks, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variant_fits, "run_fits", run)
        ablation = ablate(
            folder / "features.h5",
            {"views": {"features": tmp_path / "features.h5"}},
            head="knn",
            n_jobs=1,
        )
    assert [views / images for views, images in fitted] == [1] * 6 + [2] * 6
    variant = ablation.variants[0].folds
    assert ablation.folds.n == 200
    assert variant.balanced_accuracy > 0.7


def test_a_search_sees_the_training_images_of_its_fold_alone(folder, monkeypatch):
    seen = []
    original = variant_fits.select_head

    def select(recipes, partition, **options):
        seen.append(np.sort(np.concatenate([test for _, test in partition.folds])))
        return original(recipes, partition, **options)

    fitted = []
    run = variant_fits.run_fits
    monkeypatch.setattr(variant_fits, "select_head", select)
    monkeypatch.setattr(
        variant_fits,
        "run_fits",
        lambda tasks, **options: fitted.extend(tasks) or run(tasks, **options),
    )
    ablation = ablate(
        folder / "features.h5",
        {"searched": {"search": True, "n_iter": 2}},
        head="knn",
        n_jobs=1,
    )
    tasks = fitted[6:]
    assert len(seen) == len(tasks) == 6
    for images, task in zip(seen, tasks, strict=True):
        assert np.array_equal(images, np.sort(task.train))
        assert not np.isin(images, task.scored).any()
    assert ablation.variants[0].params is None


def test_groups_are_compared_where_the_plain_head_takes_groups(tmp_path):
    X, y, groups = draw_groups(60)
    path = write_vectors(tmp_path, X, y, groups=groups)
    variants = {"max": {"bag": "max"}, "images": {"bag": "none"}}
    ablation = ablate(path, variants, head="lda", bag="mean", n_jobs=1)
    assert ablation.folds.n == ablation.folds.n_groups < 60
    assert take(ablation, "max").folds is not None
    assert "bag must be" in take(ablation, "images").error


def test_another_data_set_needs_images_of_ten_groups(folder, tmp_path):
    y = np.repeat([0, 1], (30, 12))
    signature = draw_signatures(42, seed=2)
    # Train has copies of all but two images of the class no.
    with FeatureCache(folder / "features.h5") as cache:
        signature[30:40] = cache.signature[:10]
    options = {"class_names": ("yes", "no"), "contents": [f"few {row}" for row in range(42)]}
    path = write_vectors(tmp_path, draw_vectors(42), y, signature=signature, **options)
    given = {"head": "lda", "classes": MAPPING, "n_jobs": 1}
    variants = {"knn": {"head": "knn"}}
    images = ablate(folder / "features.h5", variants, on=path, **given).elsewhere
    assert (images.n, images.left_out, images.few) == (30, 10, {"no": 2})
    assert images.class_names == ("yes",)
    signature[:30] = signature[30:31]
    path = write_vectors(tmp_path, draw_vectors(42), y, name="b.h5", signature=signature, **options)
    with pytest.raises(CacheError, match="no class with 10 groups"):
        ablate(folder / "features.h5", variants, on=path, **given)
    with pytest.raises(SpecMismatchError, match="none of the caches of other images"):
        ablate(folder / "good.h5", variants, on=path, **given)
    with pytest.raises(ParameterError, match="classes are those of another data set"):
        ablate(folder / "features.h5", variants, **given)


def test_text_and_markdown(found):
    text = write_ablation(found)
    assert max(map(len, text.splitlines())) <= 80
    assert f"Out of fold (200 images in {found.folds.n_groups} groups)" in text
    assert "no such value is not fitted: the svm head cannot be fitted" in " ".join(text.split())
    assert "There, yes is glioma or meningioma; no is notumor." in " ".join(text.split())
    markdown = write_ablation_markdown(found)
    assert "| variant | metric | p | verdict |" in markdown
    assert json.loads(json.dumps(found.to_dict()))["variants"][0]["name"] == "other base"


def test_verdicts_in_words(found):
    worse = replace(take(found, "weak").folds, difference=-0.0312, interval=(-0.05, -0.012))
    assert describe_verdict(worse) == "worse by 0.031 (0.012 to 0.050)"
    small = replace(worse, verdict="better", difference=0.004, interval=(0.001, 0.007))
    small = replace(small, within_margin=True)
    assert describe_verdict(small) == "better by 0.004 (0.001 to 0.007), within the margin"
    none = replace(worse, verdict="nothing", interval=(-0.002, 0.004))
    assert describe_verdict(none) == "nothing (-0.002 to +0.004)"
    assert describe_verdict(replace(none, verdict="cannot be told", interval=None)) == (
        "cannot be told (-0.031)"
    )
    assert describe_ablation(found) == (
        "Better than the plain head out of fold: other base. Of these, on another data set: not "
        "measured: other base."
    )
    alone = replace(found, elsewhere=None)
    assert describe_ablation(alone).endswith("Whether this holds on other data was not measured.")
    some = replace(found, variants=found.variants[1:])
    assert describe_ablation(some).startswith("No variant was found to be better")


def test_the_plot_has_a_row_for_each_variant(found, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("brainfeat.report.ablation.save_figure", lambda *_: None)
    original = __import__("brainfeat.report.ablation", fromlist=["make_figure"]).make_figure
    monkeypatch.setattr(
        "brainfeat.report.ablation.make_figure",
        lambda *sizes, **options: drawn.append(original(*sizes, **options)) or drawn[0],
    )
    draw_ablation(found, tmp_path / "a.png")
    axes = drawn[0].axes
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == [variant.name for variant in found.variants]
    verdicts = [label.get_text() for label in axes[2].get_yticklabels()]
    assert verdicts[0].startswith("better by ")
    assert verdicts[-1] == "not fitted"


def run(*words):
    return CliRunner().invoke(group, ["fit-head", *map(str, words)])


def test_the_command_writes_table_and_plot_beside_the_head(folder, tmp_path):
    file, plot = tmp_path / "variants.toml", tmp_path / "a.png"
    relative = f"{'../' * 20}{str(folder).lstrip('/')}/good.h5"
    file.write_text(f'[base]\nfeatures = "{relative}"\n[lda]\nhead = "lda"\n')
    words = (folder / "features.h5", "-o", tmp_path / "head.h5", "--head", "svm", "--jobs", 1)
    more = ("--ablate", file, "--ablate-on", folder / "elsewhere.h5", "--classes", MAPPING)
    done = run(*words, *more, "--ablation-plot", plot, "--margin", 0.02)
    assert done.exit_code == 0, done.output
    assert "Out of fold (200 images" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.write_text("a note")
    again = run(*words, *more, "--ablation-plot", plot, "--overwrite")
    assert "is not a PNG and is not replaced" in str(again.exception)
    file.write_text("[a]\nhaed = 'svm'\n")
    wrong = run(*words, "--ablate", file, "--overwrite")
    assert "did you mean 'head'" in str(wrong.exception)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--generate", 9), {"head": "lda", "generate": 9}),
        (("--layer", "block3_pool+block5_pool", "--how", "vote"), {"head": "vote:lda"}),
    ],
)
def test_the_plain_head_of_the_command_is_the_one_that_is_saved(
    tmp_path, monkeypatch, words, found
):
    fitted = []
    original = variant_fits.run_fits
    monkeypatch.setattr(
        variant_fits,
        "run_fits",
        lambda tasks, **options: fitted.append(tasks[0].recipe) or original(tasks, **options),
    )
    path, file = write_layered(tmp_path), tmp_path / "variants.toml"
    file.write_text('[other]\nhead = "knn"\n[one]\nhow = "features"\n')
    more = ("--head", "lda", "--param", "n_components=1", "--jobs", 1, "--ablate", file)
    done = run(path, "-o", tmp_path / "head.h5", *more, *words)
    assert done.exit_code == 0, done.output
    plain, *variants = fitted
    wanted = {"generate": 0, **found}
    assert {name: getattr(plain, name) for name in wanted} == wanted
    head = wanted["head"]
    assert variants[0].head == head.replace("lda", "knn")
    assert [recipe.head for recipe in variants[1:]] == (["lda"] if ":" in head else [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head", "all", "--ablate", "a.toml"), "leave out --search and --head all"),
        (("--head", "svm", "--margin", 0.1), "need --ablate"),
        (("--ablate", "a.toml", "--classes", MAPPING), "pass --ablate-on as well"),
        (("--ablate", "a.toml", "--ablation-plot", "head.h5"), "name the same file"),
    ],
)
def test_the_command_refuses_what_has_no_ablation(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = run(folder / "features.h5", "-o", "head.h5", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
