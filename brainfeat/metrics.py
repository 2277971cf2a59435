"""Figures of probabilities against true classes, as frozen numbers: scikit-learn computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import BundleError, TableError

# What rows of probabilities may miss 1 by: float32 softmaxes of many classes stay far below it.
_SUM_TOLERANCE = 1e-4
# What an evaluation has only of images of a cache.
_OF_A_CACHE = ("split", "subsets", "bootstrap", "by", "prevalence", "calibration", "abstention")

Interval = tuple[float, float]


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
    specificity : float or None
        Share of the images of other classes that were not called so; None if all are of this class.
    npv : float or None
        Negative predictive value: share of the images not called so that are of other classes; None
        if all were called so.
    roc_auc, average_precision : float or None
        Of the probability of this class; None if there is no image of it, or of another.
    intervals : dict or None
        Low and high end of ``sensitivity`` (the recall), ``specificity``, ``ppv`` (the precision),
        ``npv``, ``f1``, ``roc_auc`` and ``average_precision``; None where there are no intervals.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    specificity: float | None = None
    npv: float | None = None
    roc_auc: float | None = None
    average_precision: float | None = None
    intervals: Mapping[str, Interval] | None = None


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
class Subset:
    """Figures of some images, and how far they may be off.

    Attributes
    ----------
    n, n_groups : int
        Number of images, and of the groups that they form.
    accuracy, balanced_accuracy, f1_macro : float or None
        None if there are no images, or too few to judge.
    intervals : dict or None
        Low and high end of the 95 % interval of each of the three.
    reason : str or None
        Why there are no intervals, or no figures.
    """

    n: int
    n_groups: int
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    f1_macro: float | None = None
    intervals: Mapping[str, Interval] | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What was measured, image by image.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Row of each image in the cache.
    y : ndarray of shape (n,), int
        True class.
    probabilities : ndarray of shape (n, k), float64
    groups : ndarray of shape (n,), int
        What the bootstrap draws as one.
    identical, near : ndarray of shape (n,), bool, or None
        Whether the head has seen an identical file, or a near duplicate; None where that was not
        looked for.
    """

    rows: npt.NDArray[np.intp]
    y: npt.NDArray[np.intp]
    probabilities: npt.NDArray[np.float64]
    groups: npt.NDArray[np.intp]
    identical: npt.NDArray[np.bool_]
    near: npt.NDArray[np.bool_] | None


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
    split : str or None
        Which images of a cache they are. This and what follows is None, or without an entry, where
        bare probabilities were measured.
    subsets : dict of str to Subset
        ``all`` images; ``without_identical``: without those of which the head has seen an identical
        file; ``without_near``: without those of which it has seen a near duplicate.
    bootstrap : dict
        How intervals were found: ``method``, ``confidence``, ``n_resamples``, ``random_state``.
    by : dict of str to Subset
        Parts of the images by value of a column.
    prevalence : dict of str to dict
        For a class, a ``prevalence``, and the predictive values ``ppv`` and ``npv`` at it.
    calibration : dict or None
        ``temperature``; and ``before`` and ``after`` it divides the scores the ``log_loss``,
        ``brier``, ``ece`` and ``bins`` of :func:`brainfeat.heads.calibration.reliability`.
    abstention : dict or None
        What the head would answer and leave open, as
        :func:`brainfeat.evaluation.abstention.measure_abstention` gives it.
    predictions : Predictions or None
        What was measured; it is not part of `to_dict`.
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
    split: str | None = None
    subsets: Mapping[str, Subset] = field(default_factory=dict)
    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    by: Mapping[str, Subset] = field(default_factory=dict)
    prevalence: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    abstention: Mapping[str, Any] | None = None
    predictions: Predictions | None = field(default=None, repr=False, compare=False)

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
        >>> evaluation.to_dict()["per_class"]["glioma"]["recall"]
        1.0
        """
        document = asdict(replace(self, predictions=None))
        del document["predictions"]
        if self.split is None:
            for name in _OF_A_CACHE:
                del document[name]
            for entry in document["per_class"]:
                del entry["intervals"]
        document["per_class"] = {entry.pop("name"): entry for entry in document["per_class"]}
        plain: dict[str, Any] = _to_lists(document)
        return plain


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
    per_class = _score_classes(labels, p, matrix, names)
    # Class by class: scikit-learn's multi_class="ovr" gives NaN where one has no image.
    areas = [entry.roc_auc for entry in per_class if entry.roc_auc is not None]
    several = present.size > 1
    return Evaluation(
        n=labels.size,
        class_names=names,
        accuracy=float(metrics.accuracy_score(labels, called)),
        balanced_accuracy=macro.recall,
        per_class=per_class,
        macro=macro,
        weighted=_average_scores(labels, called, present, "weighted"),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        roc_auc=float(np.mean(areas)) if areas else None,
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
    labels: npt.NDArray[np.intp],
    p: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.int64],
    names: tuple[str, ...],
) -> tuple[ClassScores, ...]:
    from sklearn import metrics

    called = p.argmax(axis=1)
    columns = metrics.precision_recall_fscore_support(
        labels, called, labels=np.arange(len(names)), zero_division=np.nan
    )
    scores = []
    for label, (precision, recall, f1, support) in enumerate(zip(*columns, strict=True)):
        true, ranked = labels == label, 0 < support < labels.size
        called_so = int(matrix[:, label].sum())
        spared = labels.size - support - called_so + matrix[label, label]
        scores.append(
            ClassScores(
                name=names[label],
                precision=None if np.isnan(precision) else float(precision),
                recall=float(recall) if support else None,
                f1=float(f1) if support else None,
                support=int(support),
                specificity=_divide(spared, labels.size - support),
                npv=_divide(spared, labels.size - called_so),
                roc_auc=float(metrics.roc_auc_score(true, p[:, label])) if ranked else None,
                average_precision=(
                    float(metrics.average_precision_score(true, p[:, label])) if ranked else None
                ),
            )
        )
    return tuple(scores)


def _divide(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


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


def _to_lists(value: Any) -> Any:
    """Make lists of tuples, all the way down."""
    if isinstance(value, dict):
        return {key: _to_lists(entry) for key, entry in value.items()}
    return [_to_lists(entry) for entry in value] if isinstance(value, tuple | list) else value
