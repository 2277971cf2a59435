"""Heads of several bases of the same images, against one cache of all features."""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.bundles import craft_head, refuse
from support.caches import draw_signatures, write_vectors

from brainfeat import compare, evaluate
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joining import join_caches
from brainfeat.cli.main import group as command_line
from brainfeat.errors import BrainfeatError, CacheError, ParameterError, SpecMismatchError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.training.fitting import fit_head

N = 160
SPLITS = ["train", "train", "train", "val", "test"]


def write(folder: Path, *, order: np.ndarray | None = None, **changes: Any) -> dict[str, Path]:
    """Write caches of two bases of the same images, and one that has all of their features."""
    rng = np.random.default_rng(3)
    y = np.arange(N) // 4 % 2
    X = {"a": rng.normal(size=(N, 5)) + y[:, None], "b": 40 * rng.normal(size=(N, 3)) - y[:, None]}
    X["whole"] = np.hstack([X["a"], X["b"]])
    paths, signatures = {}, draw_signatures(N)
    for number, (name, values) in enumerate(X.items()):
        rows = np.arange(N) if order is None or name != "b" else order
        given: dict[str, Any] = {
            "class_names": ("glioma", "notumor"),
            "paths": [f"{row}.png" for row in rows],
            "groups": [f"patient {row // 4}" for row in rows],
            "splits": [SPLITS[row // 4 % 5] for row in rows],
            "backbone": f"base-{number}",
            "signature": signatures[rows],
            **changes,
        }
        paths[name] = write_vectors(folder, values[rows], y[rows], name=f"{name}.h5", **given)
    return paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    order = np.random.default_rng(1).permutation(N)
    return write(tmp_path_factory.mktemp("images"), order=order)


@pytest.fixture(scope="module")
def pair(paths: dict[str, Path]) -> list[Path]:
    return [paths["a"], paths["b"]]


@pytest.fixture(scope="module")
def bundle(paths: dict[str, Path], pair: list[Path]) -> HeadBundle:
    bundle = fit_head(pair, head="logistic", join="images", ablate_blocks=True)
    bundle.save(paths["a"].with_name("head.h5"))
    return bundle


def test_a_join_fits_as_one_cache_of_all_features(
    paths: dict[str, Path], pair: list[Path], bundle: HeadBundle
) -> None:
    whole = fit_head(paths["whole"], head="logistic")
    with FeatureCache.open(paths["whole"]) as cache:
        X = cache.X[:]
    np.testing.assert_allclose(bundle.predict_proba(X), whole.predict_proba(X), rtol=1e-6)
    assert bundle.training.split == whole.training.split
    assert bundle.training.test == whole.training.test
    assert bundle.ood_detector is not None
    assert whole.ood_detector is not None
    scores = [head.ood_detector.score(X).scores for head in (bundle, whole)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    found = evaluate(bundle, pair[::-1])
    assert found.accuracy == evaluate(whole, paths["whole"]).accuracy
    assert found.floors.nearest_neighbour.all is not None


def test_a_file_names_its_blocks_and_what_they_were_joined_on(
    bundle: HeadBundle, tmp_path: Path
) -> None:
    loaded = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    assert loaded.blocks is not None
    assert (loaded.blocks.names, loaded.blocks.on, loaded.bag) == (("a", "b"), "image", None)
    assert loaded.blocks.is_one_set
    assert loaded.blocks.specs == bundle.blocks.specs
    assert loaded.training == bundle.training
    np.testing.assert_array_equal(loaded.scores(bundle.probe), bundle.scores(bundle.probe))
    with h5py.File(tmp_path / "head.h5") as file:
        assert file.attrs["format_version"] == 3
        assert "blocks" not in file


@pytest.mark.parametrize("field", ["volumes", "value_range"])
def test_stored_blocks_read_images_in_one_way(
    bundle: HeadBundle, tmp_path: Path, field: str
) -> None:
    saved = {"svm": bundle.save(tmp_path / "head.h5")}
    document = bundle.blocks.to_document()
    spec = json.loads(document[0]["spec"]) | {field: "unit"}
    document[0]["spec"] = json.dumps(spec)
    odd = craft_head(saved, tmp_path / "odd.h5", blocks=json.dumps(document))
    assert "must read these in one way" in refuse(odd)


def test_an_ablation_has_each_base_alone(paths: dict[str, Path], bundle: HeadBundle) -> None:
    record = bundle.training.join
    assert (record.on, record.groups, record.complete) == ("image", N, N)
    assert [(block.name, block.n_features, block.images) for block in record.blocks] == [
        ("a", 5, N),
        ("b", 3, N),
    ]
    found = record.ablation
    assert [(entry.part, entry.block) for entry in found.variants] == [
        ("all", None),
        ("alone", "a"),
        ("alone", "b"),
    ]
    assert found.n == N * 4 // 5
    alone = fit_head(paths["a"], head="logistic", cv=5)
    out_of_fold = alone.training.cv.out_of_fold.balanced_accuracy
    assert found.variants[1].balanced_accuracy == pytest.approx(out_of_fold)


@pytest.mark.parametrize("bag", ["mean", "attention"])
def test_bags_of_joined_vectors(paths: dict[str, Path], pair: list[Path], bag: str) -> None:
    options: dict[str, Any] = {"bag": bag, "random_state": 1}
    options |= {"params": {"epochs": 2}} if bag == "attention" else {"head": "lda"}
    joined = fit_head(pair, join="images", ablate_blocks=True, **options)
    whole = fit_head(paths["whole"], **options)
    with FeatureCache.open(paths["whole"]) as cache:
        bags = cache.X[:].reshape(-1, 4, 8)
    np.testing.assert_allclose(joined.predict_proba(bags), whole.predict_proba(bags), atol=1e-5)
    assert joined.training.join.ablation.n == N // 4 * 4 // 5
    loaded = HeadBundle.load(joined.save(paths["a"].with_name(f"{bag}.h5"), overwrite=True))
    assert (loaded.bag.pooling, loaded.blocks.on) == (bag, "image")
    assert evaluate(loaded, pair, unit="group").n == N // 4 // 5


def test_examples_of_all_bases(
    tmp_path: Path, paths: dict[str, Path], pair: list[Path], bundle: HeadBundle
) -> None:
    odd = write(tmp_path, order=np.arange(N)[::-1])
    found = fit_head(pair, head="lda", join="images", ood_examples=[odd["b"], odd["a"]])
    assert found.training.ood_examples == N
    with pytest.raises(SpecMismatchError, match="examples has features as those of b"):
        fit_head(pair, head="lda", join="images", ood_examples=odd["a"])


def test_heads_of_one_base_and_of_both_are_compared_on_the_same_images(
    paths: dict[str, Path], pair: list[Path], bundle: HeadBundle
) -> None:
    alone = fit_head(paths["b"], head="logistic")
    with join_caches(pair[::-1], on="image") as joined:
        found = compare(bundle, alone, joined)
    accuracies = [evaluate(bundle, pair).accuracy, evaluate(alone, paths["b"]).accuracy]
    assert [found.accuracy.first, found.accuracy.second] == pytest.approx(accuracies)
    with pytest.raises(SpecMismatchError, match="no cache has the features of a; pass a cache of"):
        compare(bundle, alone, paths["b"])


def run(*words: object) -> Result:
    return CliRunner().invoke(command_line, [str(word) for word in words])


def test_commands_fit_evaluate_and_compare(
    paths: dict[str, Path], pair: list[Path], tmp_path: Path
) -> None:
    head, alone = tmp_path / "head.h5", tmp_path / "alone.h5"
    curve = ("--learning-curve", "--curve-repeats", 1)
    words = ("--join", "images", "--ablate-blocks", "--head", "lda", "--jobs", 1, *curve)
    done = run("fit-head", *pair, "-o", head, *words)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "8 features of 160 images." in text
    assert "a alone" in text
    done = run("evaluate", head, *pair[::-1], "--report", tmp_path / "report.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "fit-head a.h5 b.h5 -o head.h5 --join images --head lda" in text
    assert "What changes a feature of b" in text
    done = run("info", head)
    assert "one pass of base-0 (a) and one of base-1 (b) for each image" in done.output
    assert run("fit-head", paths["a"], "--head", "lda", "-o", alone).exit_code == 0
    done = run("compare", head, alone, *pair)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"join": None}, ParameterError, 'and join="images" where they have features of the same'),
        ({"changes": {"value_range": "unit"}}, SpecMismatchError, "read images in different ways"),
        ({"changes": {"splits": ["train"] * N}}, BrainfeatError, "another split"),
        ({"changes": {"contents": [str(row) for row in range(N)]}}, CacheError, "lacks 160 of"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    pair: list[Path],
    given: dict[str, Any],
    error: type[BrainfeatError],
    message: str,
) -> None:
    chosen = list(pair)
    if changes := given.get("changes"):
        chosen[1] = write(tmp_path, **changes)["b"]
    with pytest.raises(error, match=message):
        fit_head(chosen, head="lda", join=given.get("join", "images"))


def test_other_images_are_refused_on_the_command_line(tmp_path: Path, pair: list[Path]) -> None:
    other = write(tmp_path, contents=[str(row) for row in range(N)])["b"]
    done = run("fit-head", pair[0], other, "--join", "images", "-o", tmp_path / "head.h5")
    assert done.exit_code != 0
    assert "lacks 160 of the 160 images and views" in str(done.exception)


def test_a_cache_that_is_no_block_is_named(paths: dict[str, Path], bundle: HeadBundle) -> None:
    with pytest.raises(ParameterError, match=r"whole\.h5 has features of no block"):
        evaluate(bundle, [*paths.values()])
    with pytest.raises(SpecMismatchError, match=r"the block b of the head and .*whole"):
        evaluate(bundle, [paths["a"], paths["whole"]])
