"""Generated features: the generator and its gradients, and that only training rows meet it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from support.caches import draw_groups, write_vectors
from support.modalities import write_modalities

from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.fit_head import command
from brainfeat.cli.info import command as info
from brainfeat.errors import HeadError, ParameterError
from brainfeat.heads import recipe, wgan
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.generation import Generated, check_number, explain_skipped, generate_rows
from brainfeat.heads.record import FitRecord
from brainfeat.report.commands import list_commands
from brainfeat.training import fitting
from brainfeat.training.candidates import make_recipes
from brainfeat.training.fitting import fit_head
from brainfeat.training.learning_curve import learning_curve

NAMES = ("glioma", "meningioma", "notumor")
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture(scope="module", autouse=True)
def _few_steps() -> Iterator[None]:
    """Train generators for a moment; how long they train changes nothing of what is passed on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wgan, "STEPS", 60)
        yield


def draw(n: int = 200, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Draw features like pooled outputs of rectified units, n of each class."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(NAMES)), n)
    centres = rng.normal(0.5, 1, (len(NAMES), d))
    mix = rng.standard_normal((4, d))
    X = centres[y] + rng.standard_normal((len(y), 4)) @ mix + 0.5 * rng.standard_normal((len(y), d))
    return np.maximum(X, 0).astype(np.float32), y.astype(np.int64)


def generate(X: np.ndarray, y: np.ndarray, n: int = 1000, seed: int = 0) -> Any:
    return generate_rows(X, y, per_class=n, class_names=NAMES, random_state=seed)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return draw()


@pytest.fixture(scope="module")
def made(data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, Generated]:
    return generate(*data)


# The gradients, against differences of the losses as the papers write them


def make_networks() -> tuple[wgan.Critic, wgan.Generator, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    m, k, h, b = 3, 2, 5, 4
    shapes = ((m, h), (k, h), (h,))
    critic = wgan.Critic(*map(rng.standard_normal, shapes), w=rng.standard_normal(h))
    generator = wgan.Generator(
        *map(rng.standard_normal, shapes), w=rng.standard_normal((h, m)), a=rng.standard_normal(m)
    )
    rows = {name: rng.standard_normal((b, m)) for name in ("real", "fake", "mixed")}
    return critic, generator, {**rows, "classes": np.eye(k)[[0, 1, 0, 1]]}


def score_rows(critic: wgan.Critic, z: np.ndarray, classes: np.ndarray) -> np.ndarray:
    a = z @ critic.v + classes @ critic.u + critic.b
    return np.where(a > 0, a, 0.2 * a) @ critic.w


def find_slopes(
    loss: Callable[[Any], float], arrays: tuple[np.ndarray, ...], step: float = 1e-5
) -> list[np.ndarray]:
    """Return the differences of a loss over those of each number."""
    found = []
    for place, array in enumerate(arrays):
        slopes = np.empty_like(array)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [other.copy() for other in arrays]
                moved[place][index] += sign * step
                values.append(loss(type(arrays)(*moved)))
            slopes[index] = (values[0] - values[1]) / (2 * step)
        found.append(slopes)
    return found


def test_the_critic_descends_the_loss_of_wgan_gp() -> None:
    critic, _, batch = make_networks()
    real, fake, mixed, classes = batch.values()

    def loss(moved: wgan.Critic) -> float:
        steps = 1e-3 * np.eye(3)
        gradient = np.stack(
            [
                (
                    score_rows(moved, mixed + step, classes)
                    - score_rows(moved, mixed - step, classes)
                )
                / 2e-3
                for step in steps
            ],
            axis=1,
        )
        penalty = np.mean((np.linalg.norm(gradient, axis=1) - 1) ** 2)
        distance = np.mean(score_rows(moved, fake, classes) - score_rows(moved, real, classes))
        return float(distance + 10 * penalty)

    found = wgan.find_critic_gradients(critic, **batch)
    for array, expected in zip(found, find_slopes(loss, critic), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


def test_the_generator_ascends_the_critic() -> None:
    critic, generator, batch = make_networks()
    noise, classes = batch["real"], batch["classes"]

    def loss(moved: wgan.Generator) -> float:
        return float(-score_rows(critic, wgan.generate(moved, noise, classes), classes).mean())

    found = wgan.find_generator_gradients(generator, critic, noise, classes)
    for array, expected in zip(found, find_slopes(loss, generator), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_training_finds_what_a_gaussian_has_not() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 600)
    Z = rng.standard_normal((1200, 8))
    # Of the first class alone, the second component follows the square of the first.
    Z[:600, 1] = (Z[:600, 0] ** 2 - 1) / 2**0.5
    trained = wgan.train_wgan(Z.astype(np.float32), y, n_classes=2, rng=rng, steps=3_000)
    noise = rng.standard_normal((4000, 8)).astype(np.float32)

    def couple(label: int) -> float:
        given = np.eye(2, dtype=np.float32)[np.full(4000, label)]
        found = wgan.generate(trained, noise, given)
        found = (found - found.mean(axis=0)) / found.std(axis=0)
        return float(np.mean(found[:, 0] ** 2 * found[:, 1]))

    # √2 in the training rows of the first class; 0 in those of the second, and at the start.
    assert abs(np.mean(noise[:, 0] ** 2 * noise[:, 1])) < 0.1
    assert couple(0) > 0.7
    assert abs(couple(1)) < 0.3


# What is generated


def test_columns_have_the_means_and_variances_of_their_class(
    data: tuple[np.ndarray, np.ndarray], made: tuple[np.ndarray, np.ndarray, Generated]
) -> None:
    (X, y), (found, labels, _) = data, made
    for label in range(len(NAMES)):
        real, new = X[y == label], found[labels == label]
        deviation = real.std(axis=0)
        assert np.abs(real.mean(axis=0) - new.mean(axis=0)).max() < 0.25 * deviation.max()
        np.testing.assert_allclose(new.std(axis=0), deviation, rtol=0.3, atol=0.02)
    assert found.dtype == np.float32
    assert (found.min(axis=0) >= X.min(axis=0)).all()
    assert (found.max(axis=0) <= X.max(axis=0)).all()
    # Rectified units are exactly 0 as often.
    assert (found == 0).mean() == pytest.approx((X == 0).mean(), abs=0.08)


def test_a_classifier_of_generated_rows_knows_real_ones(
    data: tuple[np.ndarray, np.ndarray], made: tuple[np.ndarray, np.ndarray, Generated]
) -> None:
    (X, y), (found, labels, _) = data, made
    real = LogisticRegression(max_iter=500).fit(X[::2], y[::2]).score(X[1::2], y[1::2])
    assert LogisticRegression(max_iter=500).fit(found, labels).score(X, y) > real - 0.06 > 0.7


def test_the_same_seed_and_rows_give_the_same_rows(
    data: tuple[np.ndarray, np.ndarray], made: tuple[np.ndarray, np.ndarray, Generated]
) -> None:
    np.testing.assert_array_equal(generate(*data)[0], made[0])
    assert not np.array_equal(generate(*data, seed=1)[0], made[0])


def test_classes_with_few_rows_are_skipped(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    chosen = (y != 1) | (np.arange(len(y)) < 209)
    found, labels, generated = generate(X[chosen], y[chosen], 20)
    assert np.bincount(labels, minlength=3).tolist() == [20, 0, 20]
    assert (len(found), generated.skipped) == (40, {"meningioma": 9})
    assert generated.rows == {"glioma": 20, "meningioma": 0, "notumor": 20}
    assert "meningioma (9 training rows)" in explain_skipped(generated.skipped)
    found, labels, generated = generate(X[::30], y[::30], 20)
    assert found.shape == (0, 24)
    assert set(generated.skipped) == set(NAMES)


def test_rows_that_are_all_alike_give_such_rows() -> None:
    X, y = np.full((30, 4), 2, np.float32), np.repeat(np.arange(3), 10)
    found, _, _ = generate(X, y, 5)
    np.testing.assert_array_equal(found, np.full((15, 4), 2))


@pytest.mark.parametrize("value", [-1, 10_001, 2.0, True, "many"])
def test_other_numbers_are_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="generate must be an integer from 0 to 10,000"):
        check_number(value)


# Only training rows meet the generator


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y, groups = draw_groups(240)
    X[:, 0] = np.arange(len(X))
    splits = ["test" if int(group.split()[1]) % 6 < 2 else "" for group in groups]
    splits = [split or "train" for split in splits]
    return write_vectors(tmp_path_factory.mktemp("generation"), X, y, groups=groups, splits=splits)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Watch what the generator is given; column 0 is the row of the cache."""
    calls = []

    def spy(X: np.ndarray, y: np.ndarray, **options: Any) -> Any:
        calls.append((X[:, 0].astype(int), y))
        found = generate_rows(X, y, **options)
        found[0][:, 0] = -1
        return found

    monkeypatch.setattr(recipe, "generate_rows", spy)
    return calls


@pytest.mark.parametrize("head", ["lda", "dense"])
def test_a_generator_sees_the_training_rows_of_its_fit_alone(
    features: Path, seen: list[tuple[np.ndarray, np.ndarray]], head: str
) -> None:
    from brainfeat.cache.cache import FeatureCache

    params = {"epochs": 1} if head == "dense" else {}
    bundle = fit_head(features, head=head, params=params, generate=15, cv=3, n_jobs=1, repeats=2)
    with FeatureCache.open(features) as cache:
        test = set(np.flatnonzero(cache.splits == "test"))
        rows = len(cache)
    assert not any(test & set(X) for X, _ in seen)
    folds = [set(X) for X, _ in seen[:3]]
    assert all(len(fold) < 0.75 * (rows - len(test)) for fold in folds)
    assert set.union(*folds) == set(range(rows)) - test or head == "dense"
    # Three folds, the head (one that val stops is not fitted again), two repeats.
    assert len(seen) == 3 + (1 if head == "dense" else 2) + 2
    split = bundle.training.split
    assert split is not None
    assert split.train + split.val + split.test == rows
    assert bundle.training.calibration is not None
    assert bundle.conformal is not None
    assert len(bundle.conformal.labels) == (
        split.val if head == "dense" else split.train + split.val
    )
    assert bundle.training.generation == Generated(
        per_class=15, rows=dict.fromkeys(CLASSES, 15), skipped={}, folds=({}, {}, {})
    )


def test_a_head_is_fitted_on_generated_rows_too(features: Path) -> None:
    plain = fit_head(features, head="lda", n_jobs=1)
    more = fit_head(features, head="lda", generate=50, n_jobs=1)
    assert plain.training.generation is None
    assert "generation" not in plain.training.to_dict()
    with FeatureCache.open(features) as cache:
        for bundle, words in ((plain, ""), (more, " --generate 50")):
            study = SimpleNamespace(bundle=bundle, cache=cache, command="")
            assert f"--head lda{words} --random-state 0" in list_commands(study)[-1]
    assert not np.allclose(plain.estimator["scaler"].mean_, more.estimator["scaler"].mean_)
    assert int(more.estimator["scaler"].n_samples_seen_) == 200 + int(
        plain.estimator["scaler"].n_samples_seen_
    )


def test_small_classes_are_recorded_for_each_fold_and_candidate(tmp_path: Path) -> None:
    X, y, groups = draw_groups(192)
    chosen = (y != 3) | (np.cumsum(y == 3) <= 16)
    groups = [group for group, keep in zip(groups, chosen, strict=True) if keep]
    path = write_vectors(tmp_path, X[chosen], y[chosen], groups=groups)
    bundle = fit_head(path, head="lda", generate=15, search=True, n_iter=2, cv=2, n_jobs=1)
    generation, search = bundle.training.generation, bundle.training.search
    assert generation is not None
    assert search is not None
    assert [set(fold) for fold in generation.folds] == [{"pituitary"}] * 2
    assert "no rows were generated of pituitary" in search.candidates[0].warnings[0]
    text = json.dumps(bundle.training.to_dict())
    assert FitRecord.from_json(text).generation == generation
    bundle.save(tmp_path / "head.h5")
    assert HeadBundle.load(tmp_path / "head.h5").training.generation == generation


def test_a_learning_curve_generates_for_each_fit(
    features: Path, seen: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    with pytest.warns(UserWarning, match="no rows were generated of glioma"):
        curve = learning_curve(features, head="logistic", generate=10, repeats=1, n_jobs=1)
    assert len(seen) == len(curve.points)


def test_rows_without_a_block_do_not_meet_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def spy(X: np.ndarray, y: np.ndarray, **options: Any) -> Any:
        sizes.append((len(X), set(X[:, -1])))
        return generate_rows(X, y, **options)

    monkeypatch.setattr(recipe, "generate_rows", spy)
    paths = write_modalities(tmp_path, lacks={"pet": slice(5, 37)})
    bundle = fit_head(paths, head="lda", join="groups", generate=12, n_jobs=1)
    assert bundle.training.generation is not None
    # The last column marks the patients without PET.
    assert {marks for _, found in sizes for marks in found} == {0.0}
    whole = 80 - 32 - sum(number // 2 % 5 == 4 for number in (*range(5), *range(37, 80)))
    assert sizes[-1][0] == whole


@pytest.mark.parametrize(
    ("options", "trouble"),
    [
        ({"head": "attention-pool"}, "the attention-pool head takes maps; take a head of vectors"),
        ({"head": "cbam"}, "generate=5 makes vectors, and the cbam head takes maps"),
        ({"bag": "attention"}, 'takes those of all images of a group; pass bag="mean"'),
        ({"head": "vote:lda+svm"}, "generate=5 is not for ensembles such as vote:lda"),
        ({"head": "stack:lda+svm"}, "generate=5 is not for ensembles such as stack:lda"),
        ({"head": "folds:lda"}, "generate=5 is not for ensembles such as folds:lda"),
    ],
)
def test_heads_that_cannot_take_rows_are_refused_before_images_are_compared(
    options: dict[str, Any],
    trouble: str,
    layered_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(fitting, "audit_duplicates")
    with pytest.raises(HeadError, match=trouble):
        fit_head(layered_cache, generate=5, **options)


def test_a_head_of_each_of_several_layers_is_refused(layered_cache: Path) -> None:
    with pytest.raises(HeadError, match="generate=5 is not for ensembles such as vote:lda"):
        fit_head(layered_cache, head="lda", layer="block4_pool+block5_pool", how="vote", generate=5)


@pytest.mark.parametrize("layer", ["block4_pool", "block4_pool+block5_pool"])
def test_vectors_of_one_layer_or_several_take_generated_rows(
    layer: str, layered_cache: Path
) -> None:
    bundle = fit_head(layered_cache, head="lda", layer=layer, generate=5, n_jobs=1)
    assert bundle.training.generation is not None
    assert bundle.training.generation.rows == dict.fromkeys(CLASSES, 5)


def test_a_bag_head_of_one_vector_takes_generated_rows(features: Path) -> None:
    bundle = fit_head(features, head="lda", bag="mean", generate=5, n_jobs=1)
    assert bundle.training.generation is not None
    assert sum(bundle.training.generation.rows.values()) == 20


def test_every_candidate_of_a_search_generates() -> None:
    recipes = make_recipes("all", {}, class_names=NAMES, n_iter=None, random_state=0, generate=7)
    assert {found.generate for found in recipes} == {7}


# The command line


def test_the_command_line_says_what_was_generated_and_skipped(
    tmp_path: Path, features: Path
) -> None:
    X, y, groups = draw_groups(192)
    chosen = (y != 3) | (np.cumsum(y == 3) <= 12)
    groups = [group for group, keep in zip(groups, chosen, strict=True) if keep]
    path = write_vectors(tmp_path, X[chosen], y[chosen], groups=groups)
    options = [str(path), "-o", str(tmp_path / "head.h5"), "--head", "lda", "--generate", "15"]
    result = CliRunner().invoke(command, [*options, "--cv", "2", "--jobs", "1"])
    assert result.exit_code == 0, result.output
    assert "also fitted on" in result.stdout
    assert "(wgan-gp): glioma 15, meningioma 15, notumor 15, pituitary" in result.stdout
    assert "warning: fold 1: no rows were generated of pituitary" in result.stderr
    result = CliRunner().invoke(info, [str(tmp_path / "head.h5"), "--json"])
    assert json.loads(result.stdout)["generation"]["per_class"] == 15
