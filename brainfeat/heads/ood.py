"""Out-of-distribution (OOD) detection: how far an image is from those that a head was fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.heads.conformal import find_quantile

# False alarm rate: fraction of images like the held-out ones that are flagged.
FALSE_ALARM_RATE = 0.02
# Training images whose features are kept to find the nearest; 4 KB each for 1,024 features.
N_REFERENCES = 2000
# Nearest training images whose mean distance is taken.
N_NEIGHBOURS = 5
# Images that the covariance is estimated from.
_COVARIANCE_ROWS = 5000
# Fraction of the dimensions that span what training images have in common.
_COMMON_FRACTION = 1 / 6
_BLOCK_ROWS = 1024
# Of 0.001, 0.01 and 0.1, the value with which most turned slices of the public set were flagged.
_OOD_C = 0.01
_MAX_ITER = 2000
# Data type and number of dimensions of each dataset of a head file, below ``scope/``.
OOD_ARRAYS = {
    "mean": ("<f4", 1),
    "scale": ("<f4", 1),
    "projection": ("<f4", 2),
    "centres": ("<f4", 2),
    "common": ("<f4", 2),
    "references": ("<f4", 2),
    "labels": ("<i8", 1),
    "strangers": ("<f8", 1),  # codespell:ignore
    "units": ("<f8", 2),
    "held_out": ("<f8", 1),
}
# Where the name of a dataset of format 1 is not that of the attribute.
_STORED_AS = {"ood_weights": "strangers"}  # codespell:ignore

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class OODScores:
    """How far images are from the training images.

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        Out-of-distribution score: the mean of three distances, each scaled so that 0 is the median
        of the held-out images and 1 their 95th percentile. Where that is larger, the similarity to
        the out-of-distribution examples, scaled in the same way.
    neighbours : ndarray of shape (n, m), int
        Indices into `OODDetector.references` of the nearest training images, nearest first.
    distances : ndarray of shape (n, m), float64
        Cosine distance of each of them: one minus the cosine of the features.
    """

    scores: NDArray[np.float64]
    neighbours: NDArray[np.intp]
    distances: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OODDetector:
    """Detects images that are unlike those that a head was fitted on.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,), float32
        Standardise features.
    projection : ndarray of shape (d, d), float32
        Maps standardised features to coordinates in which the Mahalanobis distance is Euclidean.
    centres : ndarray of shape (k, d), float32
        Means of the classes in these coordinates.
    common : ndarray of shape (d, c), float32
        Orthonormal directions in which standardised features vary most.
    references : ndarray of shape (m, d), float32
        Features of training images, scaled to length 1.
    labels : ndarray of shape (m,), int64
        Their classes.
    ood_weights : ndarray of shape (d + 1,), float64
        Weights of standardised features, and an intercept, of a logistic regression that separates
        out-of-distribution examples from training images; all 0 where there were no examples.
    units : ndarray of shape (4, 2), float64
        Offset and scale of the three distances and of the similarity to the examples.
    held_out : ndarray of shape (h,), float64
        Scores of the held-out images, ascending.
    """

    mean: Floats
    scale: Floats
    projection: Floats
    centres: Floats
    common: Floats
    references: Floats
    labels: NDArray[np.int64]
    ood_weights: NDArray[np.float64]
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
        ood_examples: Floats | None = None,
        random_state: int = 0,
    ) -> Self:
        """Fit three distances on training images, and their scale on held-out images.

        The first distance is the Mahalanobis distance to the nearest class. The classes share one
        covariance around their means (Lee et al. 2018, arXiv:1807.03888, §2.1), which is shrunk
        after Ledoit & Wolf (2004). The second is the mean cosine distance to the nearest training
        images (Sun et al. 2022, arXiv:2204.06507). The third is the fraction of the length of the
        features outside the subspace in which training images vary most (Wang et al. 2022,
        arXiv:2203.10807).

        Parameters
        ----------
        X : ndarray of shape (n, d), float32
            Features of training images.
        y : ndarray of shape (n,), int
            Their classes, from 0 to k − 1.
        held_out : ndarray of shape (h, d), float32
            Features of images that were held out, in whole groups.
        n_classes : int
            Number of classes, k.
        ood_examples : ndarray of shape (s, d), float32, or None
            Features of out-of-distribution examples, which the detector learns to flag.
        random_state : int
            Seed of the choice of training images that are kept.

        Returns
        -------
        OODDetector

        Raises
        ------
        HeadError
            The features do not vary within any class.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(300, 8)).astype(np.float32)
        >>> detector = OODDetector.fit(X[:200], np.arange(200) % 2, held_out=X[200:], n_classes=2)
        >>> bool((detector.score(X[:5] + 9).scores > detector.threshold(0.05)).all())
        True
        """
        from sklearn.covariance import LedoitWolf

        rng = np.random.default_rng(random_state)
        mean = X.mean(axis=0)
        scale = _find_scale(X)
        seen = np.sort(rng.permutation(len(X))[:_COVARIANCE_ROWS])
        _check_spread(X[seen], y[seen])
        z = (X[seen] - mean) / scale
        means = np.stack([_mean(z[y[seen] == label], z) for label in range(n_classes)])
        precision = LedoitWolf(assume_centered=True).fit(z - means[y[seen]]).precision_
        projection = np.linalg.cholesky(precision).astype(np.float32)
        _, vectors = np.linalg.eigh(z.T @ z)
        kept = _choose(y, n_classes, rng)
        detector = cls(
            mean=mean.astype(np.float32),
            scale=scale,
            projection=projection,
            centres=(means @ projection).astype(np.float32),
            common=vectors[:, -max(1, round(_COMMON_FRACTION * X.shape[1])) :].astype(np.float32),
            references=_directions(X[kept]),
            labels=y[kept].astype(np.int64),
            ood_weights=np.zeros(X.shape[1] + 1),
            units=np.tile([0.0, 1.0], (4, 1)),
            held_out=np.zeros(1),
        )
        if ood_examples is not None:
            detector = replace(detector, ood_weights=detector._fit_ood_weights(X, ood_examples))
        distances, _, _ = detector._measure(held_out)
        middle, high = np.percentile(distances, [50, 95], axis=0)
        units = np.column_stack([middle, np.where(high > middle, high - middle, 1.0)])
        detector = replace(detector, units=units)
        return replace(detector, held_out=np.sort(detector._combine(distances)))

    def score(self, X: ArrayLike) -> OODScores:
        """Measure how far images are from the training images.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features, not standardised.

        Returns
        -------
        OODScores
        """
        distances, neighbours, apart = self._measure(np.asarray(X, np.float32))
        return OODScores(scores=self._combine(distances), neighbours=neighbours, distances=apart)

    def threshold(self, false_alarm_rate: float = FALSE_ALARM_RATE) -> float:
        """Return the score above which an image is out of distribution.

        It is the conformal quantile of the held-out scores: an image that is exchangeable with the
        held-out images is flagged with a probability of at most `false_alarm_rate`.

        Parameters
        ----------
        false_alarm_rate : float
            Above 0 and below 1.

        Returns
        -------
        float
            Infinite where there are too few held-out images for this rate.

        Raises
        ------
        ParameterError
            The rate is out of range.
        """
        if not 0 < false_alarm_rate < 1:
            raise ParameterError(
                f"false_alarm_rate must be above 0 and below 1, got {false_alarm_rate}"
            )
        return find_quantile(self.held_out, 1 - false_alarm_rate)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the datasets of a head file by name, those of `OOD_ARRAYS`."""
        return {_STORED_AS.get(name, name): array for name, array in vars(self).items()}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], *, n_features: int, n_classes: int
    ) -> Self:
        """Rebuild a detector from the datasets of a head file.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            As `to_arrays` returns them.
        n_features, n_classes : int
            Number of features and of classes of the head.

        Raises
        ------
        BundleError
            Names the array that is out of range.
        """
        named = {field.name: _STORED_AS.get(field.name, field.name) for field in fields(cls)}
        detector = cls(**{name: arrays[stored] for name, stored in named.items()})
        detector.check(n_features, n_classes)
        return detector

    def _measure(
        self, X: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
        """Return distances and similarity (n, 4), the nearest references and their distances."""
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
            similarity = z @ self.ood_weights[:-1] + self.ood_weights[-1]
            distances[block] = np.column_stack(
                [np.min(gaps, axis=0), apart[block].mean(axis=1), rest / length, similarity]
            )
        return distances, neighbours, apart

    def _combine(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = (distances - self.units[:, 0]) / self.units[:, 1]
        scores: NDArray[np.float64] = scaled[:, :3].mean(axis=1)
        return np.maximum(scores, scaled[:, 3]) if self.ood_weights.any() else scores

    def _fit_ood_weights(self, X: Floats, ood_examples: Floats) -> NDArray[np.float64]:
        from sklearn.linear_model import LogisticRegression

        z = (np.concatenate([X, ood_examples]) - self.mean) / self.scale
        is_ood = np.repeat([0, 1], [len(X), len(ood_examples)])
        model = LogisticRegression(C=_OOD_C, max_iter=_MAX_ITER).fit(z, is_ood)
        return np.append(model.coef_[0], model.intercept_).astype(np.float64)

    def check(self, n_features: int, n_classes: int) -> None:
        """Refuse arrays that do not belong together.

        Parameters
        ----------
        n_features, n_classes : int
            Number of features and of classes of the head.

        Raises
        ------
        BundleError
            Names the array, its shape or range, and what was expected.
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
            "ood_weights": (n_features + 1,),
            "units": (4, 2),
            "held_out": (len(self.held_out),),
        }
        for name, shape in shapes.items():
            array, stored = getattr(self, name), _STORED_AS.get(name, name)
            if array.shape != shape or not array.size:
                raise BundleError(f"scope/{stored} has shape {array.shape}; expected {shape}")
            if not np.isfinite(array).all():
                raise BundleError(f"scope/{stored} holds values that are not finite")
        if (self.scale <= 0).any() or (self.units[:, 1] <= 0).any():
            raise BundleError("scope/scale and the second column of scope/units must be positive")
        if self.labels.min() < 0 or self.labels.max() >= n_classes:
            raise BundleError(f"scope/labels must be from 0 to {n_classes - 1}")
        if (np.diff(self.held_out) < 0).any():
            raise BundleError("scope/held_out must be in ascending order")


def _find_scale(X: Floats) -> Floats:
    """Return the standard deviation of each feature, and 1 for a constant one."""
    deviation = X.std(axis=0)
    # The deviation of a constant can be a rounding error, by which nothing must be divided.
    varies = (X.max(axis=0) > X.min(axis=0)) & (deviation > 0)
    scale: Floats = np.where(varies, deviation, 1).astype(np.float32)
    return scale


def _check_spread(X: Floats, y: NDArray[np.integer]) -> None:
    """Refuse features that do not vary within any class: no covariance can be estimated."""
    if not any((X[y == label] != X[y == label][:1]).any() for label in np.unique(y)):
        raise HeadError(
            f"all training images of a class have the same features, in each class ({len(X):,}"
            " images); check that the images are not blank, and that the weights of the base are"
            " not zeros"
        )


def _mean(rows: NDArray[np.float32], everything: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = (rows if len(rows) else everything).mean(axis=0)
    return mean


def _directions(z: Floats) -> Floats:
    length = np.linalg.norm(z, axis=1, keepdims=True)
    found: Floats = np.asarray(z / np.maximum(length, np.finfo(np.float32).tiny), np.float32)
    return found


def _choose(y: NDArray[np.integer], n_classes: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose the rows of references, as many of each class where there are enough."""
    limit = -(-N_REFERENCES // n_classes)
    rows = [rng.permutation(np.flatnonzero(y == label))[:limit] for label in range(n_classes)]
    return np.sort(np.concatenate(rows))[:N_REFERENCES]
