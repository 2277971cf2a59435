"""Evaluations of heads of several caches, and the commands that fit and evaluate them."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.modalities import write_modalities

from brainfeat import compare, evaluate
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joining import join_caches
from brainfeat.cli.main import group as command_line
from brainfeat.errors import CacheError, ParameterError, SpecMismatchError
from brainfeat.evaluation.block_caches import join_blocks
from brainfeat.heads.bundle import HeadBundle
from brainfeat.training.fitting import fit_head

LACKS = {"pet": slice(5, 37)}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_modalities(tmp_path_factory.mktemp("modalities"), lacks=LACKS)


@pytest.fixture(scope="module")
def bundle(paths: list[Path]) -> HeadBundle:
    bundle = fit_head(paths, head="lda", join="groups")
    bundle.save(paths[0].with_name("head.h5"))
    return bundle


def pool_test(path: Path) -> np.ndarray:
    """Return the mean vector of each of the 16 test patients, NaN where it has none."""
    with FeatureCache.open(path) as cache:
        patients = [f"patient {row:03}" for row in range(80) if row // 2 % 5 == 4]
        rows = [np.flatnonzero(cache.groups == name) for name in patients]
        width = cache.spec.n_features
        return np.array([cache.X[r].mean(0) if len(r) else [np.nan] * width for r in rows])


def test_the_caches_of_a_head_are_one_set(paths: list[Path], bundle: HeadBundle) -> None:
    found = evaluate(bundle, paths[::-1])
    assert (found.n, found.unit) == (16, "group")
    X = np.hstack([pool_test(path) for path in paths])
    right = bundle.predict(X) == np.array(["glioma", "notumor"] * 8)
    assert found.accuracy == pytest.approx(right.mean())
    assert bundle.training.test is not None
    assert found.accuracy == bundle.training.test.accuracy
    assert found.floors.nearest_neighbour.reason is not None
    with join_caches(paths) as joined:
        assert evaluate(bundle, joined).accuracy == found.accuracy
        assert compare(bundle, bundle, joined).accuracy.difference == 0


@pytest.mark.parametrize("which", [slice(None), slice(1)])
def test_numbers_that_are_not_finite_are_no_missing_block(
    paths: list[Path], bundle: HeadBundle, which: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FeatureCache.X

    def damage(cache: FeatureCache) -> np.ndarray:
        X = read.__get__(cache)[:]
        if cache.path.stem == "t1":
            X[cache.groups == "patient 008", which] = np.nan
        return X

    monkeypatch.setattr(FeatureCache, "X", property(damage))
    with pytest.raises(CacheError, match=r"t1\.h5 has features that are not finite in [1-9]"):
        evaluate(bundle, paths)


def test_caches_are_recognised_by_name_or_by_spec(
    paths: list[Path], bundle: HeadBundle, tmp_path: Path
) -> None:
    renamed = [path.rename(tmp_path / f"{number}.h5") for number, path in enumerate(paths)]
    assert bundle.blocks is not None
    for given in (renamed, renamed[::-1]):
        with join_blocks(bundle.blocks, given) as joined:
            assert [cache.path.name for cache in joined.caches] == ["0.h5", "1.h5", "2.h5"]
    for path, old in zip(renamed, paths, strict=True):
        path.rename(old)


def test_caches_that_nothing_tells_apart_need_names(tmp_path: Path) -> None:
    same = {"backbone": "same"}
    pair = [
        *write_modalities(tmp_path, widths={"a": 3}, **same),
        *write_modalities(tmp_path, widths={"b": 3}, noise=1.0, **same),
    ]
    bundle = fit_head(pair, head="lda", join="groups", names=["t1", "flair"])
    with pytest.raises(ParameterError, match=r"not known which .* such as t1=PATH"):
        evaluate(bundle, pair)
    assert bundle.blocks is not None
    with join_blocks(bundle.blocks, pair[::-1], names=["flair", "t1"]) as joined:
        assert evaluate(bundle, joined).n == 16


def test_other_caches_are_refused(paths: list[Path], bundle: HeadBundle) -> None:
    with pytest.raises(ParameterError, match="the blocks t1, flair, pet, got 2"):
        evaluate(bundle, paths[:2])
    with pytest.raises(SpecMismatchError, match="takes features of 3 caches, got one"):
        evaluate(bundle, paths[0])
    alone = fit_head(paths[0], head="lda")
    with join_caches(paths) as joined, pytest.raises(SpecMismatchError, match="got several"):
        evaluate(alone, joined)


def run(*words: object) -> Result:
    return CliRunner().invoke(command_line, [str(word) for word in words])


def test_commands_fit_and_evaluate_named_caches(paths: list[Path], tmp_path: Path) -> None:
    named = [f"m{number}={path}" for number, path in enumerate(paths[:2])]
    head = tmp_path / "head.h5"
    words = ("--join", "groups", "--ablate-blocks", "--head", "lda", "-o", head, "--jobs", 1)
    done = run("fit-head", *named, *words)
    assert done.exit_code == 0, done.output
    assert "80 groups, of which 80 have all" in " ".join(done.output.split())
    assert "m1 alone" in done.output
    done = run("evaluate", head, *named[::-1], "--report", tmp_path / "report.html")
    assert done.exit_code == 0, done.output
    assert "On all 16 patients" in done.output
    page = (tmp_path / "report.html").read_text()
    assert "What changes a feature of m1" in page
    assert "What each of the joined features is worth" in page
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "classifier: lda on base-0 (m0) and base-1 (m1)" in text
    assert "fit-head m0.h5 m1.h5 -o head.h5 --join groups --bag mean --head lda" in text
    assert "--backbone joined" not in text
    assert "It sees the given images of a patient together" in text
    assert "features of a patient." in text
    assert "m1:" in run("info", head).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{0}", "{1}"), "2 FEATURES without --join"),
        (("t1={0}",), "FEATURES have a name where several are joined"),
        (("{0}", "{1}", "--join", "groups", "--learning-curve"), "leave out --join"),
    ],
)
def test_commands_refuse(
    paths: list[Path], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run("fit-head", *(word.format(*paths) for word in words), "-o", tmp_path / "x.h5")
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())
