"""WGAN-GP in NumPy: a generator and a critic of one hidden layer each, given the class.

The penalty of Gulrajani et al. (2017, https://arxiv.org/abs/1704.00028) is on the gradient of the
critic with respect to its input, so that training needs the gradient of a gradient. A critic with
one hidden layer of leaky rectified units has both in closed form, because the slopes of its units
are constant almost everywhere. So nothing is traced or compiled, and no network library is
imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of one type: float32 in training; float64 where gradients are checked.
Floats = NDArray[Any]

# As in Gulrajani et al. 2017.
PENALTY = 10.0
CRITIC_STEPS = 5
_BETA1, _BETA2, _EPSILON = 0.5, 0.9, 1e-8

# With a sixth of the steps, what is generated stays as Gaussian as it starts.
STEPS = 3_000
_BATCH = 64
_HIDDEN = 128
_LEARNING_RATE = 1e-3

_LEAK = np.float32(0.2)


class Critic(NamedTuple):
    """Arrays of the critic D(z, c) = wᵀ φ(Vᵀ z + U c + b), where φ is a leaky rectified unit.

    Attributes
    ----------
    v : ndarray of shape (m, h)
    u : ndarray of shape (k, h)
        A row for each class.
    b, w : ndarray of shape (h,)
    """

    v: Floats
    u: Floats
    b: Floats
    w: Floats


class Generator(NamedTuple):
    """Arrays of the generator G(z, c) = z + W φ(Vᵀ z + U c + b) + a, which takes Gaussian noise z.

    W and a start at 0: before its first step, what is generated is Gaussian.

    Attributes
    ----------
    v : ndarray of shape (m, h)
    u : ndarray of shape (k, h)
    b : ndarray of shape (h,)
    w : ndarray of shape (h, m)
    a : ndarray of shape (m,)
    """

    v: Floats
    u: Floats
    b: Floats
    w: Floats
    a: Floats


@dataclass
class _Adam:
    """Adam on arrays that it changes in place (Kingma & Ba 2015), with a rate that falls to 0."""

    arrays: Sequence[Floats]
    n_steps: int

    def __post_init__(self) -> None:
        self._means = [np.zeros_like(array) for array in self.arrays]
        self._squares = [np.zeros_like(array) for array in self.arrays]
        self._step = 0

    def descend(self, gradients: Sequence[Floats]) -> None:
        rate = _LEARNING_RATE * (1 - self._step / self.n_steps)
        self._step += 1
        rate *= (1 - _BETA2**self._step) ** 0.5 / (1 - _BETA1**self._step)
        for array, gradient, mean, square in zip(
            self.arrays, gradients, self._means, self._squares, strict=True
        ):
            mean[...] += (1 - _BETA1) * (gradient - mean)
            square[...] += (1 - _BETA2) * (gradient * gradient - square)
            array[...] -= rate * mean / (np.sqrt(square) + _EPSILON)


def train_wgan(
    Z: Floats, y: NDArray[np.intp], *, n_classes: int, rng: np.random.Generator, steps: int
) -> Generator:
    """Train a generator against a critic.

    Parameters
    ----------
    Z : ndarray of shape (n, m), float32
        Rows, of mean 0 and variance 1 in each column and class.
    y : ndarray of shape (n,), int
        Class of each row, from 0 to k − 1.
    n_classes : int
        k.
    rng : numpy.random.Generator
        Source of everything that is drawn.
    steps : int
        Steps of the generator; the critic takes five for each.

    Returns
    -------
    Generator
    """
    m = Z.shape[1]
    critic = Critic(
        v=_draw_glorot(rng, m, _HIDDEN),
        u=_draw_shifts(rng, n_classes),
        b=np.zeros(_HIDDEN, np.float32),
        w=_draw_glorot(rng, _HIDDEN, 1)[:, 0],
    )
    generator = Generator(
        v=_draw_glorot(rng, m, _HIDDEN),
        u=_draw_shifts(rng, n_classes),
        b=np.zeros(_HIDDEN, np.float32),
        w=np.zeros((_HIDDEN, m), np.float32),
        a=np.zeros(m, np.float32),
    )
    critic_adam, adam = _Adam(critic, steps * CRITIC_STEPS), _Adam(generator, steps)
    one_hot = np.eye(n_classes, dtype=np.float32)
    for _ in range(steps):
        for _ in range(CRITIC_STEPS):
            chosen = rng.integers(len(Z), size=_BATCH)
            real, classes = Z[chosen], one_hot[y[chosen]]
            fake = generate(generator, _draw_noise(rng, m), classes)
            part = rng.random((_BATCH, 1), dtype=np.float32)
            mixed = part * real + (1 - part) * fake
            critic_adam.descend(find_critic_gradients(critic, real, fake, mixed, classes))
        classes = one_hot[y[rng.integers(len(Z), size=_BATCH)]]
        adam.descend(find_generator_gradients(generator, critic, _draw_noise(rng, m), classes))
    return generator


def generate(generator: Generator, noise: Floats, classes: Floats) -> Floats:
    """Return G of noise, (b, m), and classes as ones in a row of zeros, (b, k)."""
    hidden, _ = _leak(noise @ generator.v + classes @ generator.u + generator.b)
    rows: Floats = noise + hidden @ generator.w + generator.a
    return rows


def find_critic_gradients(
    critic: Critic, real: Floats, fake: Floats, mixed: Floats, classes: Floats
) -> Critic:
    """Return the gradients of the critic's loss with respect to its arrays.

    The loss is the mean of D(fake) − D(real) + λ (‖∇D(mixed)‖ − 1)² over the batch, where the
    gradient ∇D(z) = V (w ⊙ φ′) is with respect to z (Gulrajani et al. 2017, equation 3).

    Parameters
    ----------
    critic : Critic
    real, fake, mixed : ndarray of shape (b, m)
        Rows, generated rows, and points between them.
    classes : ndarray of shape (b, k)
        A one for the class of each.

    Returns
    -------
    Critic
        A gradient in the place of each array.
    """
    size = np.float32(len(real))
    inputs, twice = np.concatenate([fake, real]), np.concatenate([classes, classes])
    signs = np.repeat(np.array([1, -1], np.float32) / size, len(real))[:, None]
    hidden, slopes = _leak(inputs @ critic.v + twice @ critic.u + critic.b)
    inner = signs * critic.w * slopes
    _, mixed_slopes = _leak(mixed @ critic.v + classes @ critic.u + critic.b)
    weighted = mixed_slopes * critic.w
    slope = weighted @ critic.v.T
    norm = np.linalg.norm(slope, axis=1, keepdims=True)
    outer = np.float32(2 * PENALTY) / size * (norm - 1) * slope / np.maximum(norm, _EPSILON)
    return Critic(
        v=inputs.T @ inner + outer.T @ weighted,
        u=twice.T @ inner,
        b=inner.sum(axis=0),
        w=(signs * hidden).sum(axis=0) + (outer @ critic.v * mixed_slopes).sum(axis=0),
    )


def find_generator_gradients(
    generator: Generator, critic: Critic, noise: Floats, classes: Floats
) -> Generator:
    """Return the gradients of the generator's loss, the mean of −D(G(noise)) over the batch.

    Parameters
    ----------
    generator : Generator
    critic : Critic
    noise : ndarray of shape (b, m)
    classes : ndarray of shape (b, k)

    Returns
    -------
    Generator
        A gradient in the place of each array.
    """
    hidden, slopes = _leak(noise @ generator.v + classes @ generator.u + generator.b)
    fake = noise + hidden @ generator.w + generator.a
    _, critic_slopes = _leak(fake @ critic.v + classes @ critic.u + critic.b)
    outer = -(critic_slopes * critic.w) @ critic.v.T / np.float32(len(noise))
    inner = outer @ generator.w.T * slopes
    return Generator(
        v=noise.T @ inner,
        u=classes.T @ inner,
        b=inner.sum(axis=0),
        w=hidden.T @ outer,
        a=outer.sum(axis=0),
    )


def _leak(values: Floats) -> tuple[Floats, Floats]:
    """Return the outputs of leaky rectified units, and their slopes."""
    slopes = np.where(values > 0, np.float32(1), _LEAK)
    return values * slopes, slopes


def _draw_glorot(rng: np.random.Generator, n_inputs: int, n_outputs: int) -> Floats:
    """Draw weights (Glorot & Bengio 2010)."""
    limit = (6 / (n_inputs + n_outputs)) ** 0.5
    return rng.uniform(-limit, limit, (n_inputs, n_outputs)).astype(np.float32)


def _draw_shifts(rng: np.random.Generator, n_classes: int) -> Floats:
    """Draw a shift of each unit for each class, so large that classes use different units."""
    return rng.standard_normal((n_classes, _HIDDEN)).astype(np.float32)


def _draw_noise(rng: np.random.Generator, m: int) -> Floats:
    return rng.standard_normal((_BATCH, m), dtype=np.float32)
