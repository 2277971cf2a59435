"""What a head is worth on labelled rows: head and cache in, frozen numbers out."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import BundleError, CacheError, TableError

if TYPE_CHECKING:
    from brainfeat.bundle import HeadBundle
    from brainfeat.cache import FeatureCache

# What rows of probabilities may miss 1 by: float32 softmaxes of many classes stay far below it.
_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class against the rest.

    Attributes
    ----------
    name : str
        The class.
    precision : float or None
        Share of the images called this class that are of it; None if no image was called so.
    recall : float or None
        Share of the images of this class that were called so; None if there is no image of it.
    f1 : float or None
        Harmonic mean of the two; None if there is no image of the class.
    support : int
        Number of images of the class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, kw_only=True)
class MeanScores:
    """Means over the classes that have images; an undefined precision counts as 0.

    Attributes
    ----------
    precision, recall, f1 : float
        Mean of the classes' scores.
    """

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well probabilities fit the true classes of n images.

    An image is called the class of its highest probability, the first one of equals. Figures that
    are not defined for the images at hand are None.

    Attributes
    ----------
    n : int
        Number of images.
    class_names : tuple of str
        The k classes, in the order of `per_class` and `confusion_matrix`.
    accuracy : float
        Share of the images that were called what they are.
    balanced_accuracy : float
        Mean recall of the classes that have images.
    per_class : tuple of ClassScores
        Precision, recall, F1 and support of each class.
    macro, weighted : MeanScores
        Means over the classes that have images, each class counting once or by its support.
    confusion_matrix : tuple of tuple of int, (k, k)
        Numbers of images; rows are true classes, columns what they were called.
    roc_auc : float or None
        Area under the ROC curve of one class against the rest, mean over the classes that have
        images. None if all images are of one class.
    log_loss : float
        Mean of -ln(probability of the true class); a probability of 0 counts as 2.2e-16.
    brier : float
        Mean squared distance of the probabilities from certainty of the true class, summed over the
        classes: 0 to 2. With two classes half of that, 0 to 1, as is the custom and scikit-learn's
        default.
    mcc : float or None
        Matthews correlation coefficient (Gorodkin's R_K beyond two classes); 0 if all images were
        called the same. None if all images are of one class.
    """

    n: int
    class_names: tuple[str, ...]
    accuracy: float
    balanced_accuracy: float
    per_class: tuple[ClassScores, ...]
    macro: MeanScores
    weighted: MeanScores
    confusion_matrix: tuple[tuple[int, ...], ...]
    roc_auc: float | None
    log_loss: float
    brier: float
    mcc: float | None

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as plain lists, dictionaries and numbers, which JSON can hold.

        Returns
        -------
        dict
            The attributes by name; ``per_class`` is a dictionary by class name. Undefined figures
            are None.

        Examples
        --------
        >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
        >>> evaluation.to_dict()["per_class"]["glioma"]
        {'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'support': 1}
        """
        fields = asdict(self)
        scores = {entry.pop("name"): entry for entry in fields["per_class"]}
        return {
            **fields,
            "class_names": list(self.class_names),
            "per_class": scores,
            "confusion_matrix": [list(row) for row in self.confusion_matrix],
        }


def evaluate(
    bundle: "HeadBundle | str | os.PathLike[str]",
    cache: "FeatureCache | str | os.PathLike[str]",
    *,
    split: str = "test",
) -> Evaluation:
    """Measure a head on the images of one split of a feature cache.

    Augmented views and unlabelled images take no part. Classes are matched by name, so that the
    cache and the bundle may order them differently.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    cache : FeatureCache or path-like
        The features and labels.
    split : {"test", "val", "train", "all"}
        Which images; ``"all"`` takes every labelled one. Where the table has no splits, ``"test"``
        and ``"val"`` are the images that the fit of this head held out.

    Returns
    -------
    Evaluation
        Its classes are those of the bundle.

    Raises
    ------
    SpecMismatchError
        If the features are not of the kind the head was fitted on.
    CacheError
        If no labelled image is in the split.
    BundleError
        If images are of a class that the head does not know.

    Examples
    --------
    >>> evaluate("svm.h5", "mri.h5", split="test").accuracy  # doctest: +SKIP
    0.978
    """
    with ExitStack() as stack:
        if isinstance(bundle, str | os.PathLike):
            from brainfeat.bundle import HeadBundle

            bundle = HeadBundle.load(bundle)
        if isinstance(cache, str | os.PathLike):
            from brainfeat.cache import FeatureCache

            cache = stack.enter_context(FeatureCache.open(cache))
        bundle.check_spec(cache.spec)
        mask = _select(bundle, cache, split)
        if not mask.any():
            raise CacheError(_explain_no_rows(cache, split))
        y = _match_classes(cache.y[mask], cache.class_names, bundle.class_names)
        probabilities = bundle.predict_proba(cache.X[mask])
    return measure(y, probabilities, class_names=bundle.class_names)


def _select(bundle: "HeadBundle", cache: "FeatureCache", split: str) -> npt.NDArray[np.bool_]:
    """Mark the images of a split: the table's, or else those that the head's fit held out."""
    labelled = cache.mask()
    if split == "all":
        return labelled
    held_out = (bundle.training.get("held_out") or {}).get(split)
    if held_out is None or cache.splits[labelled].any():
        return cache.mask(split)
    rows = np.flatnonzero(labelled)
    chosen = np.zeros_like(labelled)
    found = rows[np.isin(cache.image_ids(rows), held_out)]
    if 0 < len(found) < len(held_out):
        raise CacheError(
            f"the cache has {len(found)} of the {len(held_out)} images that this head held out as "
            f"{split!r}: files were renamed or removed; fit the head anew"
        )
    chosen[found] = True
    return chosen


def measure(
    y: npt.ArrayLike, probabilities: npt.ArrayLike, *, class_names: Sequence[str]
) -> Evaluation:
    """Measure probabilities against the true classes.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image, an index into `class_names`.
    probabilities : array-like of float, shape (n, k)
        Probability of each class; rows sum to 1 (to 1e-4, and are then scaled to do so exactly).
    class_names : sequence of str
        The k classes, two or more. Not every one needs to be in `y`.

    Returns
    -------
    Evaluation
        The figures; :class:`Evaluation` defines each.

    Raises
    ------
    TableError
        If `y` is empty, holds other values than indices of classes, or `class_names` are fewer than
        two or not distinct.
    BundleError
        If `probabilities` have another shape, are negative or not finite, or do not sum to 1.

    Examples
    --------
    >>> evaluation = measure(
    ...     [0, 0, 1, 1],
    ...     [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]],
    ...     class_names=["none", "glioma"],
    ... )
    >>> evaluation.accuracy, evaluation.confusion_matrix
    (0.75, ((1, 1), (0, 2)))
    """
    from sklearn import metrics

    names = _check_class_names(class_names)
    labels = _check_labels(y, len(names))
    p = _check_probabilities(probabilities, (labels.size, len(names)))
    called = p.argmax(axis=1)
    classes = np.arange(len(names))
    present = np.unique(labels)
    macro = _average_scores(labels, called, present, "macro")
    matrix = metrics.confusion_matrix(labels, called, labels=classes)
    several = present.size > 1
    return Evaluation(
        n=labels.size,
        class_names=names,
        accuracy=float(metrics.accuracy_score(labels, called)),
        balanced_accuracy=macro.recall,
        per_class=_score_classes(labels, called, names),
        macro=macro,
        weighted=_average_scores(labels, called, present, "weighted"),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        roc_auc=_average_roc_auc(labels, p, present) if several else None,
        log_loss=float(metrics.log_loss(labels, p, labels=classes)),
        brier=float(metrics.brier_score_loss(labels, p, labels=classes)),
        mcc=float(metrics.matthews_corrcoef(labels, called)) if several else None,
    )


def _check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(class_names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise TableError(f"class_names must be two or more distinct names, got {list(names)}")
    return names


def _check_labels(y: npt.ArrayLike, n_classes: int) -> npt.NDArray[np.intp]:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.size == 0:
        raise TableError(f"y must be a non-empty array of shape (n,), got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TableError(f"y must hold class indices (int), got dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise TableError(
            f"y must hold indices of the {n_classes} classes, 0 to {n_classes - 1}, "
            f"got {labels.min()} to {labels.max()}: leave unlabelled rows out"
        )
    return labels.astype(np.intp)


def _check_probabilities(
    probabilities: npt.ArrayLike, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != shape:
        raise BundleError(
            f"probabilities must have shape {shape}, one row an image and one column a class, "
            f"got {p.shape}"
        )
    if not np.isfinite(p).all():
        raise BundleError("probabilities hold values that are not finite: check the head's inputs")
    if p.min() < 0:
        raise BundleError(f"probabilities must not be negative, got {p.min():.6g}: apply a softmax")
    sums = p.sum(axis=1, keepdims=True)
    worst = float(sums[abs(sums - 1).argmax(), 0])
    if abs(worst - 1) > _SUM_TOLERANCE:
        raise BundleError(f"each row of probabilities must sum to 1, got {worst:.6g}")
    scaled: npt.NDArray[np.float64] = p / sums
    return scaled


def _score_classes(
    labels: npt.NDArray[np.intp], called: npt.NDArray[np.intp], names: tuple[str, ...]
) -> tuple[ClassScores, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, called, labels=np.arange(len(names)), zero_division=np.nan
    )
    return tuple(
        ClassScores(
            name=name,
            precision=None if np.isnan(precision) else float(precision),
            recall=float(recall) if support else None,
            f1=float(f1) if support else None,
            support=int(support),
        )
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def _average_scores(
    labels: npt.NDArray[np.intp],
    called: npt.NDArray[np.intp],
    present: npt.NDArray[np.intp],
    average: str,
) -> MeanScores:
    from sklearn.metrics import precision_recall_fscore_support

    # Leaving an undefined precision out would reward a head for never naming a hard class.
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, called, labels=present, average=average, zero_division=0
    )
    return MeanScores(precision=float(precision), recall=float(recall), f1=float(f1))


def _average_roc_auc(
    labels: npt.NDArray[np.intp], p: npt.NDArray[np.float64], present: npt.NDArray[np.intp]
) -> float:
    from sklearn.metrics import roc_auc_score

    # Class by class: scikit-learn's multi_class="ovr" gives NaN where a class has no image.
    return float(np.mean([roc_auc_score(labels == label, p[:, label]) for label in present]))


def _match_classes(
    y: npt.NDArray[np.integer], cache_names: Sequence[str], bundle_names: Sequence[str]
) -> npt.NDArray[np.intp]:
    """Translate indices into the cache's classes to indices into the bundle's, by name."""
    known = {name: index for index, name in enumerate(bundle_names)}
    unknown = [cache_names[label] for label in np.unique(y) if cache_names[label] not in known]
    if unknown:
        raise BundleError(
            f"the head does not know the class {', '.join(map(repr, unknown))} of these images, "
            f"only {', '.join(map(repr, bundle_names))}: fit a head on a cache that has it"
        )
    index = np.array([known.get(name, -1) for name in cache_names], dtype=np.intp)
    matched: npt.NDArray[np.intp] = index[y]
    return matched


def _explain_no_rows(cache: "FeatureCache", split: str) -> str:
    names, counts = np.unique(cache.splits[cache.mask(None)], return_counts=True)
    found = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if name]
    if not counts.size:
        return "the cache has no labelled images: extract a table with labels"
    if not found:
        return (
            f"the cache has no splits, and this head held no images of it out as {split!r}: "
            "pass split 'all' where the head has seen none of them, or extract a table that has a "
            "split column"
        )
    return (
        f"the cache has no labelled images in split {split!r}: pass one it has, "
        f"{', '.join(found)}, or 'all'"
    )
