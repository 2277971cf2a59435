"""Scope: how far an image is from all that a head was fitted on, and where that is too far."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import BundleError, ParameterError
from brainfeat.heads.conformal import find_quantile

# Share of images like the held-out ones that are refused.
FALSE_REFUSALS = 0.02
# Training images whose features a head keeps, to name the nearest; 4 KB each for 1,024 features.
N_REFERENCES = 2000
# Nearest ones whose mean distance counts.
N_NEIGHBOURS = 5
# Images that the covariance is estimated from.
_COVARIANCE_ROWS = 5000
# Share of the dimensions that span what training images have in common.
_COMMON_SHARE = 1 / 6
_BLOCK_ROWS = 1024
# Of 0.001, 0.01 and 0.1 the one that had most turned slices of the public set refused.
_STRANGERS_C = 0.01
_MAX_ITER = 2000
# Type and number of dimensions of each array in a file.
SCOPE_ARRAYS = {
    "mean": ("<f4", 1),
    "scale": ("<f4", 1),
    "projection": ("<f4", 2),
    "centres": ("<f4", 2),
    "common": ("<f4", 2),
    "references": ("<f4", 2),
    "labels": ("<i8", 1),
    "strangers": ("<f8", 1),
    "units": ("<f8", 2),
    "held_out": ("<f8", 1),
}

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearness:
    """How far images are from those of training.

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        The mean of three distances, each scaled so that 0 is the median of held-out images and 1
        their 95th percentile; or, if that is more, how like strangers the image is, scaled alike.
    neighbours : ndarray of shape (n, m), int
        The nearest training images that the head keeps, nearest first.
    distances : ndarray of shape (n, m), float64
        One minus the cosine of the features.
    """

    scores: NDArray[np.float64]
    neighbours: NDArray[np.intp]
    distances: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scope:
    """What a head was fitted on, as three distances see it, and what sets it apart from strangers.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,), float32
        What standardises features.
    projection : ndarray of shape (d, d), float32
        Turns standardised features into coordinates in which the Mahalanobis distance is Euclidean.
    centres : ndarray of shape (k, d), float32
        Means of the classes in these coordinates.
    common : ndarray of shape (d, c), float32
        Orthonormal directions in which standardised features vary most.
    references : ndarray of shape (m, d), float32
        Features of training images, scaled to length 1.
    labels : ndarray of shape (m,), int64
        Their classes.
    strangers : ndarray of shape (d + 1,), float64
        Weights of standardised features, and a constant, that tell strangers from training images;
        all 0 where none were shown.
    units : ndarray of shape (4, 2), float64
        Of each distance, and of the likeness to strangers, what is subtracted, and what it is then
        divided by.
    held_out : ndarray of shape (h,), float64
        Scores of images that were not fitted on, ascending.
    """

    mean: Floats
    scale: Floats
    projection: Floats
    centres: Floats
    common: Floats
    references: Floats
    labels: NDArray[np.int64]
    strangers: NDArray[np.float64]
    units: NDArray[np.float64]
    held_out: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        X: Floats,
        y: NDArray[np.integer],
        *,
        held_out: Floats,
        n_classes: int,
        strangers: Floats | None = None,
        random_state: int = 0,
    ) -> Self:
        """Fit distances on training images, and what is far on others.

        The first is the Mahalanobis distance to the nearest class; the classes share one covariance
        around their means (Lee et al. 2018, arXiv:1807.03888, §2.1), shrunk after Ledoit & Wolf
        (2004). The second is the mean distance in direction to the nearest training images (Sun et
        al. 2022, arXiv:2204.06507). The third is the share of the features outside what training
        images have in common (Wang et al. 2022, arXiv:2203.10807).

        Parameters
        ----------
        X : ndarray of shape (n, d), float32
            Features of training images.
        y : ndarray of shape (n,), int
            Their classes.
        held_out : ndarray of shape (h, d), float32
            Features of images that were held out, groups whole.
        n_classes : int
            k.
        strangers : ndarray of shape (s, d), float32, or None
            Features of images that shall be refused.
        random_state : int
            Seed of which training images are kept.

        Returns
        -------
        Scope
        """
        from sklearn.covariance import LedoitWolf

        rng = np.random.default_rng(random_state)
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1).astype(np.float32)
        seen = np.sort(rng.permutation(len(X))[:_COVARIANCE_ROWS])
        z = (X[seen] - mean) / scale
        means = np.stack([_mean(z[y[seen] == label], z) for label in range(n_classes)])
        precision = LedoitWolf(assume_centered=True).fit(z - means[y[seen]]).precision_
        projection = np.linalg.cholesky(precision).astype(np.float32)
        _, vectors = np.linalg.eigh(z.T @ z)
        kept = _choose(y, n_classes, rng)
        scope = cls(
            mean=mean.astype(np.float32),
            scale=scale,
            projection=projection,
            centres=(means @ projection).astype(np.float32),
            common=vectors[:, -max(1, round(_COMMON_SHARE * X.shape[1])) :].astype(np.float32),
            references=_directions(X[kept]),
            labels=y[kept].astype(np.int64),
            strangers=np.zeros(X.shape[1] + 1),
            units=np.tile([0.0, 1.0], (4, 1)),
            held_out=np.zeros(1),
        )
        if strangers is not None:
            scope = replace(scope, strangers=scope._tell_apart(X, strangers))
        distances, _, _ = scope._measure(held_out)
        middle, high = np.percentile(distances, [50, 95], axis=0)
        units = np.column_stack([middle, np.where(high > middle, high - middle, 1.0)])
        scope = replace(scope, units=units)
        return replace(scope, held_out=np.sort(scope._combine(distances)))

    def look(self, X: ArrayLike) -> Nearness:
        """Measure how far images are from those of training.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        Nearness
        """
        distances, neighbours, apart = self._measure(np.asarray(X, np.float32))
        return Nearness(scores=self._combine(distances), neighbours=neighbours, distances=apart)

    def threshold(self, false_refusals: float = FALSE_REFUSALS) -> float:
        """Return the score above which an image is out of scope.

        It is the conformal quantile of the held-out scores: an image that is exchangeable with
        these is refused with a probability of at most `false_refusals`. Infinite where they are too
        few to say it.

        Raises
        ------
        ParameterError
            The rate is not above 0 and below 1.
        """
        if not 0 < false_refusals < 1:
            raise ParameterError(f"false_refusals {false_refusals}; expected above 0, below 1")
        return find_quantile(self.held_out, 1 - false_refusals)

    def _measure(
        self, X: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
        """Give distances and likeness (n, 4), the nearest references and how far they are."""
        m = min(N_NEIGHBOURS, len(self.references))
        distances = np.empty((len(X), 4))
        neighbours, apart = np.empty((len(X), m), np.intp), np.empty((len(X), m))
        for start in range(0, len(X), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            z = (X[block] - self.mean) / self.scale
            projected = (z @ self.projection).astype(np.float64)
            gaps = [np.linalg.norm(projected - centre, axis=1) for centre in self.centres]
            far = 1 - (_directions(X[block]) @ self.references.T).astype(np.float64)
            near = np.argsort(far, axis=1, kind="stable")[:, :m]
            neighbours[block], apart[block] = near, np.take_along_axis(far, near, axis=1).clip(0)
            rest = np.linalg.norm(z - (z @ self.common) @ self.common.T, axis=1)
            length = np.maximum(np.linalg.norm(z, axis=1), np.finfo(np.float32).tiny)
            likeness = z @ self.strangers[:-1] + self.strangers[-1]
            distances[block] = np.column_stack(
                [np.min(gaps, axis=0), apart[block].mean(axis=1), rest / length, likeness]
            )
        return distances, neighbours, apart

    def _combine(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = (distances - self.units[:, 0]) / self.units[:, 1]
        scores: NDArray[np.float64] = scaled[:, :3].mean(axis=1)
        return np.maximum(scores, scaled[:, 3]) if self.strangers.any() else scores

    def _tell_apart(self, X: Floats, strangers: Floats) -> NDArray[np.float64]:
        from sklearn.linear_model import LogisticRegression

        z = (np.concatenate([X, strangers]) - self.mean) / self.scale
        strange = np.repeat([0, 1], [len(X), len(strangers)])
        found = LogisticRegression(C=_STRANGERS_C, max_iter=_MAX_ITER).fit(z, strange)
        return np.append(found.coef_[0], found.intercept_).astype(np.float64)

    def check(self, n_features: int, n_classes: int) -> None:
        """Refuse arrays that do not belong together.

        Raises
        ------
        BundleError
            Names what is wrong.
        """
        m = len(self.references)
        shapes = {
            "mean": (n_features,),
            "scale": (n_features,),
            "projection": (n_features, n_features),
            "centres": (n_classes, n_features),
            "common": (n_features, self.common.shape[-1]),
            "references": (m, n_features),
            "labels": (m,),
            "strangers": (n_features + 1,),
            "units": (4, 2),
            "held_out": (len(self.held_out),),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not array.size:
                raise BundleError(f"scope/{name} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise BundleError(f"scope/{name} holds values that are not finite")
        if (self.scale <= 0).any() or (self.units[:, 1] <= 0).any():
            raise BundleError("scope/scale and the second column of scope/units must be positive")
        if self.labels.min() < 0 or self.labels.max() >= n_classes:
            raise BundleError(f"scope/labels must be from 0 to {n_classes - 1}")
        if (np.diff(self.held_out) < 0).any():
            raise BundleError("scope/held_out must ascend")


def _mean(rows: NDArray[np.float32], everything: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = (rows if len(rows) else everything).mean(axis=0)
    return mean


def _directions(z: Floats) -> Floats:
    length = np.linalg.norm(z, axis=1, keepdims=True)
    found: Floats = np.asarray(z / np.maximum(length, np.finfo(np.float32).tiny), np.float32)
    return found


def _choose(y: NDArray[np.integer], n_classes: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose rows, the classes alike as far as they go."""
    share = -(-N_REFERENCES // n_classes)
    rows = [rng.permutation(np.flatnonzero(y == label))[:share] for label in range(n_classes)]
    return np.sort(np.concatenate(rows))[:N_REFERENCES]
