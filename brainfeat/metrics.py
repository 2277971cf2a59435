"""Metrics of probabilities against true classes; scikit-learn computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import BrainfeatError, BundleError, ParameterError, TableError

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
        Positive predictive value: fraction of the images predicted as this class that are of it;
        None if no image was.
    recall : float or None
        Sensitivity: fraction of the images of this class that were predicted as such; None if there
        are none.
    f1 : float or None
        Harmonic mean of the two; None if there is no image of the class.
    support : int
        Number of images of the class.
    specificity : float or None
        Fraction of the images of other classes that were not predicted as this class; None if all
        images are of this class.
    npv : float or None
        Negative predictive value: fraction of the images not predicted as this class that are of
        other classes; None if all were predicted as this class.
    roc_auc, average_precision : float or None
        Of the probability of this class; None if all images are of it, or none is.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    specificity: float | None
    npv: float | None
    roc_auc: float | None
    average_precision: float | None


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
class Metrics:
    """How well probabilities fit the true classes of n images.

    The predicted class of an image is the one of highest probability, the first of equals. Metrics
    that are not defined for the images at hand are None.

    Attributes
    ----------
    n : int
        Number of images.
    class_names : tuple of str
        The k classes, in the order of `per_class` and `confusion_matrix`.
    accuracy : float
        Fraction of the images whose predicted class is the true one.
    balanced_accuracy : float
        Mean recall of the classes that have images.
    per_class : tuple of ClassScores
        Precision, recall, F1 and support of each class.
    macro, weighted : MeanScores
        Means over the classes that have images, each class counting once or by its support.
    confusion_matrix : tuple of tuple of int, (k, k)
        Numbers of images; rows are true classes, columns predicted ones.
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
        Matthews correlation coefficient (Gorodkin's R_K beyond two classes); 0 if one class was
        predicted for all images. None if all images are of one class.
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
        """Return the metrics as plain lists, dictionaries and numbers, which JSON can hold.

        Returns
        -------
        dict
            The attributes by name; ``per_class`` is a dictionary by class name. Undefined metrics
            are None.

        Examples
        --------
        >>> found = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
        >>> found.to_dict()["per_class"]["glioma"]["recall"]
        1.0
        """
        document = write_record(self)
        document["per_class"] = {entry.pop("name"): entry for entry in document["per_class"]}
        return document

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], *, error: type[BrainfeatError] = ParameterError
    ) -> Self:
        """Read what :meth:`to_dict` returned.

        Parameters
        ----------
        document : mapping
        error : type of BrainfeatError
            What is raised.

        Raises
        ------
        BrainfeatError
            A metric is missing or of another type, or not every class has its scores.

        Examples
        --------
        >>> found = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
        >>> Metrics.from_dict(found.to_dict()) == found
        True
        """
        try:
            # By class_names: canonical JSON sorts the keys of per_class.
            per_class = [
                {**document["per_class"][name], "name": name} for name in document["class_names"]
            ]
        except (KeyError, TypeError) as reason:
            raise error(
                "not metrics: per_class must hold the scores of each class of class_names"
            ) from reason
        return read_record(cls, {**document, "per_class": per_class}, error=error)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or as in :meth:`from_dict`.
        """
        return cls.from_dict(parse_json(text, error=ParameterError))


def measure(
    y: npt.ArrayLike, probabilities: npt.ArrayLike, *, class_names: Sequence[str]
) -> Metrics:
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
    Metrics
        :class:`Metrics` defines each of them.

    Raises
    ------
    TableError
        If `y` is empty, holds other values than indices of classes, or `class_names` are fewer than
        two or not distinct.
    BundleError
        If `probabilities` have another shape, are negative or not finite, or do not sum to 1.

    Examples
    --------
    >>> found = measure(
    ...     [0, 0, 1, 1],
    ...     [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]],
    ...     class_names=["none", "glioma"],
    ... )
    >>> found.accuracy, found.confusion_matrix
    (0.75, ((1, 1), (0, 2)))
    """
    from sklearn import metrics

    names = _check_class_names(class_names)
    labels = _check_labels(y, len(names))
    p = _check_probabilities(probabilities, (labels.size, len(names)))
    predicted = p.argmax(axis=1)
    classes = np.arange(len(names))
    present = np.unique(labels)
    macro = _average_scores(labels, predicted, present, "macro")
    matrix = metrics.confusion_matrix(labels, predicted, labels=classes)
    per_class = _score_classes(labels, p, matrix, names)
    # Class by class: scikit-learn's multi_class="ovr" gives NaN where one has no image.
    areas = [entry.roc_auc for entry in per_class if entry.roc_auc is not None]
    several = present.size > 1
    return Metrics(
        n=labels.size,
        class_names=names,
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        balanced_accuracy=macro.recall,
        per_class=per_class,
        macro=macro,
        weighted=_average_scores(labels, predicted, present, "weighted"),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        roc_auc=float(np.mean(areas)) if areas else None,
        log_loss=float(metrics.log_loss(labels, p, labels=classes)),
        brier=float(metrics.brier_score_loss(labels, p, labels=classes)),
        mcc=float(metrics.matthews_corrcoef(labels, predicted)) if several else None,
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

    predicted = p.argmax(axis=1)
    columns = metrics.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(names)), zero_division=np.nan
    )
    scores = []
    for label, (precision, recall, f1, support) in enumerate(zip(*columns, strict=True)):
        true, ranked = labels == label, 0 < support < labels.size
        n_predicted = int(matrix[:, label].sum())
        true_negatives = labels.size - support - n_predicted + matrix[label, label]
        scores.append(
            ClassScores(
                name=names[label],
                precision=None if np.isnan(precision) else float(precision),
                recall=float(recall) if support else None,
                f1=float(f1) if support else None,
                support=int(support),
                specificity=_divide(true_negatives, labels.size - support),
                npv=_divide(true_negatives, labels.size - n_predicted),
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
    predicted: npt.NDArray[np.intp],
    present: npt.NDArray[np.intp],
    average: str,
) -> MeanScores:
    from sklearn.metrics import precision_recall_fscore_support

    # Leaving an undefined precision out would reward a head for never naming a hard class.
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=present, average=average, zero_division=0
    )
    return MeanScores(precision=float(precision), recall=float(recall), f1=float(f1))
