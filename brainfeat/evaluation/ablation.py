"""What changes of a head are worth: variants against the plain head, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.canonical import write_record
from brainfeat.evaluation.paired import PairedDifference, measure_differences

Predicted = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedImages:
    """Images on which variants are compared.

    Attributes
    ----------
    y, groups : ndarray of shape (n,), int
        Class and group of each.
    class_names : tuple of str
    left_out : int
        Images that were left out because train or val has a copy of them.
    """

    y: NDArray[np.int64]
    groups: NDArray[np.intp]
    class_names: tuple[str, ...]
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class AblationImages:
    """Images on which all variants are compared with the plain head.

    Attributes
    ----------
    n, n_groups : int
        Images (groups, of a bag head), and groups that were taken as a whole.
    left_out : int
        Images that were left out because train or val has a copy of them.
    class_names : tuple of str
        Classes that have images; of one class alone, the balanced accuracy is its sensitivity.
    balanced_accuracy : float
        Of the plain head.
    confidence : float or None
        Of the intervals of all differences.
    reason : str or None
        Why there are no intervals.
    """

    n: int
    n_groups: int
    left_out: int
    class_names: tuple[str, ...]
    balanced_accuracy: float
    confidence: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class OtherImages(AblationImages):
    """Images of another data set, on which all variants are compared with the plain head.

    Attributes
    ----------
    n, n_groups, left_out, class_names, balanced_accuracy, confidence, reason
        As in :class:`AblationImages`.
    classes : dict of str to tuple of str, or None
        Classes of the head by class of the images, where these have other names.
    few : dict of str to int
        Classes of fewer than 10 groups, and their images, which were left out as well.
    """

    classes: dict[str, tuple[str, ...]] | None
    few: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class AblatedHead:
    """A variant of the plain head, and how it compares.

    Attributes
    ----------
    name : str
    options : dict
        In what it differs from the plain head; of features, the names of the files.
    error : str or None
        Why it could not be fitted; the other attributes are then None.
    head : str or None
    params : dict or None
        Constructor parameters; None where each fit searched its own, too.
    seconds : float or None
        Of one fit, the mean.
    warnings : tuple of str
    folds, test, elsewhere : PairedDifference or None
        Out of fold, on the test images without copies, and on another data set; None where there
        are no such images.
    elsewhere_error : str or None
        Why it was not measured on the other data set.
    """

    name: str
    options: dict[str, Any]
    error: str | None = None
    head: str | None = None
    params: dict[str, Any] | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    folds: PairedDifference | None = None
    test: PairedDifference | None = None
    elsewhere: PairedDifference | None = None
    elsewhere_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Variants of a head against the plain one, on the same folds and images.

    Attributes
    ----------
    head : str
        Name of the plain head.
    params : dict
        Its constructor parameters.
    seconds : float
        Of one fit, the mean.
    class_names : tuple of str
    group_by : str
        What a group is, as in :class:`brainfeat.heads.record.FitRecord`.
    n_folds : int
    margin : float
        A difference of the balanced accuracy that would not matter.
    random_state : int
    folds : AblationImages
        Train and val, each image scored by the fit of the folds that it is not in.
    test : AblationImages or None
        The test images of which train and val have no copy, scored by a fit on all of train and
        val.
    elsewhere : OtherImages or None
        Those of another data set of which train and val have no copy, by the same fit.
    variants : tuple of AblatedHead
        By descending difference out of fold; those that could not be fitted come last.
    """

    head: str
    params: dict[str, Any]
    seconds: float
    class_names: tuple[str, ...]
    group_by: str
    n_folds: int
    margin: float
    random_state: int
    folds: AblationImages
    test: AblationImages | None
    elsewhere: OtherImages | None
    variants: tuple[AblatedHead, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold; variants are dictionaries."""
        return write_record(self)


def compare_variants(
    plain: Predicted,
    others: Sequence[Predicted | None],
    images: ComparedImages,
    *,
    margin: float,
    random_state: int,
) -> tuple[AblationImages, list[PairedDifference | None]]:
    """Compare what variants predict with what the plain head does.

    Parameters
    ----------
    plain : ndarray of shape (n,), int
        Predicted classes.
    others : sequence of ndarray of shape (n,), int, or None
        Those of each variant; None where it predicts nothing.
    images : ComparedImages
    margin, random_state
        As of :func:`brainfeat.evaluation.paired.measure_differences`.

    Returns
    -------
    images : AblationImages
    differences : list of PairedDifference or None
        Of each variant; None where it predicts nothing.
    """
    found = measure_differences(
        images.y,
        plain,
        [predicted for predicted in others if predicted is not None],
        groups=images.groups,
        class_names=images.class_names,
        margin=margin,
        random_state=random_state,
    )
    heads = iter(found.heads)
    return (
        AblationImages(
            n=found.n,
            n_groups=found.n_groups,
            left_out=images.left_out,
            class_names=tuple(images.class_names[label] for label in np.unique(images.y)),
            balanced_accuracy=found.balanced_accuracy,
            confidence=found.confidence,
            reason=found.reason,
        ),
        [None if predicted is None else next(heads) for predicted in others],
    )


def rank_variants(variants: Sequence[AblatedHead]) -> tuple[AblatedHead, ...]:
    """Rank variants by their difference out of fold; those without one come last.

    Examples
    --------
    >>> first = AblatedHead(name="a", options={}, error="no such file")
    >>> [variant.name for variant in rank_variants([first])]
    ['a']
    """
    return tuple(
        sorted(
            variants,
            key=lambda variant: (
                float("inf") if variant.folds is None else -variant.folds.difference
            ),
        )
    )
