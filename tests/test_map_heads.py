"""Heads on maps: weights and scores against the papers' formulas, and how maps are read."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from brainfeat.errors import HeadError
from brainfeat.heads.kinds import ATTENTION_HEADS
from brainfeat.heads.map_head import MapHead
from brainfeat.heads.map_network import build_map_network, read_map_network
from brainfeat.heads.parameters import GATE_SHAPES

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ATTENTION_HEADS
H, W, D, K = 3, 5, 6, 4
SMALL: dict[str, Any] = {
    "attention_units": 4,
    "reduction": 2,
    "hidden_units": (8,),
    "batch_size": 16,
    "epochs": 3,
}


def draw_maps(n: int, seed: int = 1, shape: tuple[int, int, int] = (H, W, D)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float16)


def draw_map_head(kind: str, seed: int = 0, d: int = D) -> MapHead:
    rng = np.random.default_rng(seed)
    sizes = {"d": d, "p": 3}
    gates = [
        rng.standard_normal([sizes.get(str(size), size) for size in shape])
        for shape in GATE_SHAPES[kind].values()
    ]
    layers = [
        (rng.standard_normal((d, 7)), rng.standard_normal(7)),
        (rng.standard_normal((7, K)), rng.standard_normal(K)),
    ]
    return MapHead.from_arrays(
        gates,
        layers,
        mean=rng.standard_normal(d),
        scale=rng.uniform(0.5, 2, d),
        classes=np.arange(K),
        temperature=1.7,
        params={"attention": kind},
    )


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def apply_se(head: MapHead, u: np.ndarray) -> tuple[np.ndarray, None]:
    """Equations 2 to 4 of Hu et al. 2018, channel by channel."""
    w1, w2 = (gate.T.astype(np.float64) for gate in head.gates_)
    h, w, d = u.shape
    z = np.array([sum(u[i, j, c] for i in range(h) for j in range(w)) / (h * w) for c in range(d)])
    s = sigmoid(w2 @ np.maximum(w1 @ z, 0))
    return np.stack([s[c] * u[:, :, c] for c in range(d)], axis=-1), None


def apply_cbam(head: MapHead, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 1 to 3 of Woo et al. 2018, position by position."""
    w0, w1 = (gate.T.astype(np.float64) for gate in head.gates_[:2])
    filters, bias = head.gates_[2].astype(np.float64), float(head.gates_[3][0])
    h, w, _ = f.shape

    def perceive(pooled: np.ndarray) -> np.ndarray:
        return np.asarray(w1 @ np.maximum(w0 @ pooled, 0))

    flat = f.reshape(h * w, -1)
    f = f * sigmoid(perceive(flat.mean(axis=0)) + perceive(flat.max(axis=0)))
    weights = np.empty((h, w))
    for i, j in product(range(h), range(w)):
        total = bias
        for di, dj in product(range(-3, 4), repeat=2):
            if 0 <= i + di < h and 0 <= j + dj < w:
                there = f[i + di, j + dj]
                total += filters[di + 3, dj + 3] @ [there.mean(), there.max()]
        weights[i, j] = sigmoid(total)
    return f * weights[:, :, None], weights


def apply_pooling(head: MapHead, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equation 9 of Ilse et al. 2018; the sum over the positions is the weighted mean."""
    v, u, w = (gate.astype(np.float64) for gate in head.gates_)
    scores = np.array(
        [[w @ (np.tanh(v.T @ x) * sigmoid(u.T @ x)) for x in row] for row in f], np.float64
    )
    weights = np.exp(scores) / np.exp(scores).sum()
    return f * weights[:, :, None] * weights.size, weights


ORACLES = {"attention-pool": apply_pooling, "se": apply_se, "cbam": apply_cbam}


def apply_formula(head: MapHead, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    weighed, weights = ORACLES[head.attention](
        head, (x.astype(np.float64) - head.mean_) / head.scale_
    )
    hidden = weighed.mean(axis=(0, 1))
    (kernel, bias), (last, last_bias) = head.layers_
    return np.maximum(hidden @ kernel + bias, 0) @ last + last_bias, weights


@pytest.mark.parametrize("shape", [(H, W, D), (1, 1, D), (7, 7, 20), (9, 2, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_scores_are_those_of_the_formula(
    kind: str, shape: tuple[int, int, int]
) -> None:
    head, maps = draw_map_head(kind, d=shape[-1]), draw_maps(4, shape=shape)
    expected = [apply_formula(head, x) for x in maps]
    np.testing.assert_allclose(
        head.decision_function(maps), [logits for logits, _ in expected], rtol=1e-9
    )
    p = head.predict_proba(maps)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert head.predict(maps).tolist() == p.argmax(axis=1).tolist()
    if kind == "se":
        with pytest.raises(HeadError, match="weighs channels, and no positions"):
            head.attention_maps(maps)
    else:
        weights = [found for _, found in expected if found is not None]
        np.testing.assert_allclose(head.attention_maps(maps), weights, rtol=1e-9)


@pytest.mark.parametrize("shape", [(H, W, D), (2, 9, 20)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_computes_the_formula(kind: str, shape: tuple[int, int, int]) -> None:
    rng, d = np.random.default_rng(0), shape[-1]
    mean, scale = rng.standard_normal(d), rng.uniform(0.5, 2, d)
    network = build_map_network(
        kind,
        shape,
        K,
        mean=mean,
        scale=scale,
        width=3,
        hidden_units=(7,),
        dropout=0.5,
        rng=rng,
    )
    gates, *layers = read_map_network(kind, network)
    head = MapHead.from_arrays(
        gates,
        layers,
        mean=mean,
        scale=scale,
        classes=np.arange(K),
        params={"attention": kind},
    )
    maps = draw_maps(3, shape=shape)
    found = np.asarray(network(maps.astype(np.float32), training=False))
    np.testing.assert_allclose(found, head.decision_function(maps), atol=1e-5)


def test_squeeze_and_excitation_takes_the_mean_vector_for_the_map() -> None:
    head, maps = draw_map_head("se"), draw_maps(5)
    vectors = maps.astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(
        head.decision_function(vectors), head.decision_function(maps), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_other_maps_do_not_matter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head, maps = draw_map_head(kind), draw_maps(9)
    whole = head.decision_function(maps)
    for positions in (1, 31, 2 * H * W):
        monkeypatch.setattr("brainfeat.heads.maps.BLOCK_POSITIONS", positions)
        np.testing.assert_allclose(head.decision_function(maps), whole, atol=1e-12)
    np.testing.assert_allclose(head.decision_function(maps[4:5]), whole[4:5], atol=1e-12)
    assert head.decision_function(maps[:0]).shape == (0, K)
