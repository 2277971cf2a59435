"""The attention head: its weights and scores against the formula, and what padding cannot do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from support.bundles import craft_head, refuse
from support.caches import draw_groups

from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.heads.attention import AttentionHead
from brainfeat.heads.attention_network import BagRows, build_attention, read_attention
from brainfeat.heads.attention_pooling import measure_spread
from brainfeat.heads.bags import BagRule, Bags
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.training.fitting import fit_head

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

D, P, K = 6, 5, 3
SMALL = {"attention_units": 4, "hidden_units": (8,), "epochs": 4}


def draw_head(seed: int = 0, n_classes: int = K) -> AttentionHead:
    rng = np.random.default_rng(seed)
    return AttentionHead.from_arrays(
        [rng.standard_normal((D, P)), rng.standard_normal((D, P)), rng.standard_normal(P)],
        [
            (rng.standard_normal((D, 7)), rng.standard_normal(7)),
            (rng.standard_normal((7, n_classes)), rng.standard_normal(n_classes)),
        ],
        mean=rng.standard_normal(D),
        scale=rng.uniform(0.5, 2, D),
        classes=np.arange(n_classes),
        temperature=1.7,
    )


def draw_bags(*sizes: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, D)).astype(np.float32) for size in sizes]


def apply_formula(head: AttentionHead, bag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute equation 9 of Ilse et al. 2018 vector by vector, and the layers behind it."""
    v, u, w = head.gates_
    vectors = [(vector - head.mean_) / head.scale_ for vector in bag.astype(np.float64)]
    scores = np.array(
        [w @ (np.tanh(v.T @ h) * (1 / (1 + np.exp(-(u.T @ h))))) for h in vectors], np.float64
    )
    weights = np.exp(scores) / np.exp(scores).sum()
    hidden = sum(weight * h for weight, h in zip(weights, vectors, strict=True))
    (kernel, bias), (last, last_bias) = head.layers_
    return weights, np.maximum(hidden @ kernel + bias, 0) @ last + last_bias


def test_weights_and_scores_are_those_of_the_formula() -> None:
    head, bags = draw_head(), draw_bags(1, 3, 300, 2)
    expected = [apply_formula(head, bag) for bag in bags]
    np.testing.assert_allclose(head.decision_function(bags), [logits for _, logits in expected])
    weights = head.attention(bags)
    np.testing.assert_allclose(weights, np.concatenate([found for found, _ in expected]))
    sums = np.add.reduceat(weights, [0, 1, 4, 304])
    np.testing.assert_allclose(sums, 1.0)
    assert weights[0] == 1.0


def test_scores_of_two_classes_are_one_logit() -> None:
    head, bags = draw_head(n_classes=2), draw_bags(2, 4)
    logits = np.array([apply_formula(head, bag)[1] for bag in bags])
    np.testing.assert_allclose(head.decision_function(bags), logits[:, 1] - logits[:, 0])
    p = head.predict_proba(bags)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_allclose(np.log(p[:, 1] / p[:, 0]), (logits[:, 1] - logits[:, 0]) / 1.7)
    assert head.predict(bags).tolist() == logits.argmax(axis=1).tolist()


def test_order_and_other_bags_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    head, bags = draw_head(), draw_bags(5, 40, 1, 7)
    whole = head.decision_function(bags)
    turned = [np.random.default_rng(2).permutation(bag) for bag in bags]
    np.testing.assert_allclose(head.decision_function(turned), whole, atol=1e-12)
    for rows in (1, 6, 46):
        monkeypatch.setattr("brainfeat.heads.attention_pooling._BLOCK_ROWS", rows)
        np.testing.assert_allclose(head.decision_function(bags), whole, atol=1e-12)
    assert head.decision_function([]).shape == (0, K)
    assert head.attention([]).shape == (0,)


def test_scores_of_large_numbers_do_not_overflow() -> None:
    head = draw_head()
    head.gates_[2][:] *= 1e6
    assert np.isfinite(head.decision_function([bag * 1e6 for bag in draw_bags(3, 5)])).all()


def test_the_network_computes_the_formula_whatever_the_padding() -> None:
    bags = Bags.collect(draw_bags(1, 4, 2))
    network = build_attention(
        D, K, attention_units=P, hidden_units=(7,), dropout=0.5, rng=np.random.default_rng(0)
    )
    gates, *layers = read_attention(network)
    head = AttentionHead.from_arrays(
        gates, layers, mean=np.zeros(D), scale=np.ones(D), classes=np.arange(K)
    )
    expected = head.decision_function(bags)
    rows = BagRows(
        bags,
        np.zeros(3, np.intp),
        np.ones(3),
        mean=np.zeros(D, np.float32),
        scale=np.ones(D, np.float32),
        max_instances=4,
    )
    vectors, present = rows.draw(np.arange(3), (0,))
    assert present[..., 0].sum(axis=1).tolist() == [1, 4, 2]
    for fill, more in ((0.0, 0), (1e3, 0), (-7.0, 9)):
        padded = np.where(present, vectors, np.float32(fill))
        padded = np.pad(padded, ((0, 0), (0, more), (0, 0)), constant_values=fill)
        mask = np.pad(present, ((0, 0), (0, more), (0, 0)))
        found = np.asarray(network([padded, mask], training=False))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_epoch_draws_some_vectors_of_a_large_bag_without_replacement() -> None:
    bags = Bags.collect(draw_bags(50, 3))
    mean, scale = measure_spread(bags)
    rows = BagRows(
        bags,
        np.zeros(2, np.intp),
        np.ones(2),
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        max_instances=10,
    )
    seen = set()
    for epoch in range(30):
        vectors, present = rows.draw(np.array([1, 0]), (0, epoch))
        assert vectors.shape == (2, 10, D)
        assert present[..., 0].sum(axis=1).tolist() == [3, 10]
        assert not vectors[0, 3:].any()
        drawn = vectors[1] * scale + mean
        places = np.abs(bags.values[:50, None] - drawn).max(axis=2).argmin(axis=0)
        assert len(set(places.tolist())) == 10
        seen.update(places.tolist())
        again, _ = rows.draw(np.array([1, 0]), (0, epoch))
        np.testing.assert_array_equal(again, vectors)
    assert len(seen) > 45
    empty, none = rows.draw(np.empty(0, np.intp), (0, 0))
    assert (len(empty), len(none)) == (0, 0)


def test_each_bag_counts_the_same_in_the_standardisation() -> None:
    bags = draw_bags(30, 1, 4)
    mean, scale = measure_spread(Bags.collect(bags))
    expected = np.mean([bag.mean(axis=0) for bag in bags], axis=0)
    spread = np.mean([((bag - expected) ** 2).mean(axis=0) for bag in bags], axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    np.testing.assert_allclose(scale, np.sqrt(spread), rtol=1e-5)
    flat = [np.full((2, 1), 0.1, np.float32), np.full((3, 1), 0.1, np.float32)]
    assert measure_spread(Bags.collect(flat))[1].tolist() == [1.0]


def draw_needles(n: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw bags of 12 vectors, of which a single one tells the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    bags = [0.5 * rng.standard_normal((12, D)).astype(np.float32) for _ in range(n)]
    for bag, label in zip(bags, y, strict=True):
        bag[rng.integers(12), :2] += (6.0, 6.0 if label else -6.0)
    return bags, y


@pytest.fixture(scope="module")
def fitted() -> tuple[AttentionHead, AttentionHead]:
    bags, y = draw_needles(120)
    make = clone(
        AttentionHead(attention_units=8, hidden_units=(), learning_rate=0.02, epochs=60)
    ).set_params(random_state=3, max_instances=12)
    return make.fit(bags, y), clone(make).fit(bags, y)


def test_it_learns_which_vector_counts(fitted: tuple[AttentionHead, AttentionHead]) -> None:
    head, _ = fitted
    bags, y = draw_needles(60, seed=9)
    assert (head.predict(bags) == y).mean() > 0.9
    weights = head.attention(bags).reshape(60, 12)
    needle = np.array([bag[:, 0].argmax() for bag in bags])
    found = weights[np.arange(60), needle]
    # It is enough for it to find those of one class.
    assert max(found[y == label].mean() for label in (0, 1)) > 0.8
    assert head.n_iter_ == len(head.history_["val_loss"])
    assert head.best_epoch_ == int(np.argmin(head.history_["val_loss"]))


def test_a_seed_gives_the_same_head_bit_for_bit(
    fitted: tuple[AttentionHead, AttentionHead],
) -> None:
    first, second = ([*head.gates_, *sum(head.layers_, ())] for head in fitted)
    assert all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({"attention_units": 0}, [0, 1], "'attention_units' parameter of the attention head must"),
        ({"max_instances": True}, [0, 1], "'max_instances' parameter of the attention head must"),
        ({"dropout": 1.0}, [0, 1], "'dropout' parameter of the attention head must be"),
        ({}, [0, 0], "only one class"),
        ({}, [0], "expected one label for each"),
        ({"class_weight": {2: 1.0}}, [0, 1], "class_weight has labels"),
    ],
)
def test_fits_that_are_refused(params: dict[str, Any], y: list[int], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        AttentionHead(**params).fit(draw_bags(2, 3), y)


def test_validation_bags_that_are_refused() -> None:
    head = AttentionHead(**SMALL)
    with pytest.raises(HeadError, match="has labels"):
        head.fit(draw_bags(2, 3), [0, 1], validation_data=(draw_bags(2), [7]))
    with pytest.raises(ParameterError, match="bag 0 has shape"):
        head.fit(draw_bags(2, 3), [0, 1], validation_data=([np.zeros((2, 1))], [0]))
    with pytest.raises(ParameterError, match="bag 1 is empty"):
        head.fit([np.zeros((2, 1)), np.zeros((0, 1))], [0, 1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[HeadBundle, Path]:
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("attention")
    X, y, groups = draw_groups(40)
    cache = write_vectors(folder, X, y, groups=groups)
    bundle = fit_head(cache, bag="attention", params=SMALL)
    return bundle, bundle.save(folder / "head.h5")


def test_a_fit_by_attention_is_saved_and_scored(stored: tuple[HeadBundle, Path]) -> None:
    bundle, path = stored
    assert bundle.bag == BagRule(pooling="attention", label="same")
    assert bundle.head == "attention"
    assert bundle.training.history is not None
    assert bundle.training.refitted_on_val is False
    assert bundle.ood_detector is not None
    back = HeadBundle.load(path)
    parts = [np.ones((2, 8)), np.eye(8)]
    np.testing.assert_array_equal(back.predict_proba(parts), bundle.predict_proba(parts))
    np.testing.assert_array_equal(back.attention(parts), bundle.attention(parts))
    np.testing.assert_allclose(back.vectors(parts), [np.ones(8), np.full(8, 1 / 8)])
    assert isinstance(back.probe, Bags)


def test_crafted_attention_heads_are_refused(
    stored: tuple[HeadBundle, Path], tmp_path: Path
) -> None:
    def craft(**changes: Any) -> str:
        return refuse(craft_head({"svm": stored[1]}, tmp_path / "bad.h5", **changes))

    for name in ("V", "U", "w"):
        assert "missing or unknown" in craft(remove=[f"attention/{name}"])
    narrow, shapes = np.zeros((8, 3), "<f4"), "V of shape (8, p), U of shape (8, p), w of shape (p)"
    assert shapes in craft(arrays={"attention/V": narrow})
    assert shapes in craft(arrays={"attention/U": narrow})
    assert shapes in craft(arrays={"attention/w": np.zeros(3, "<f4")})
    assert "finite" in craft(arrays={"attention/w": np.full(4, np.nan, "<f4")})
    assert "unknown head" in craft(bag='{"pooling":"mean","label":"same"}')
    assert "unknown head" in craft(head='{"name":"dense","params":{}}')
    assert "max_instances" in craft(head='{"name":"attention","params":{"max_instances":0}}')
    assert "params" in craft(head='{"name":"attention","params":{"C":1}}')


def test_only_attention_heads_have_weights_of_images(make_cache: Callable[..., Path]) -> None:
    X, y, groups = draw_groups(40)
    path = make_cache(X, y, groups=groups)
    for bag, how in ((None, "takes single images"), ("max", "pools by max")):
        bundle = fit_head(path, head="lda", bag=bag)
        with pytest.raises(BundleError, match=f'this head {how}, .* fit one with bag="attention"'):
            bundle.attention(X if bag is None else [X])
    with pytest.raises(ParameterError, match=r"and no 'svm'; leave the head out"):
        fit_head(path, head="svm", bag="attention")
    with pytest.raises(ParameterError, match="the head attention takes bags; ask for it with bag="):
        fit_head(path, head="attention")


def test_a_head_of_vectors_takes_no_bags() -> None:
    bags = Bags.collect(draw_bags(2, 3))
    recipe = HeadRecipe(head="lda", params={}, class_names=("a", "b"), random_state=0)
    with pytest.raises(HeadError, match="takes vectors, and bags were given; pool"):
        recipe.fit(bags, np.array([0, 1]), rows=np.array([0, 1]))
