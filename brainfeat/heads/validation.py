"""The validation rows of the dense head: which rows are held out, and how an epoch is scored."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import precision_recall_fscore_support

from brainfeat.errors import HeadError
from brainfeat.heads.calibration import fit_temperature
from brainfeat.heads.network import Rows


def hold_out(
    codes: NDArray[np.intp], fraction: float | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose validation rows: the same fraction of each class.

    Parameters
    ----------
    codes : ndarray of shape (n,), int
        Class of each row, from 0 to k − 1.
    fraction : float or None
        Fraction of the rows of each class, rounded to at least one row, but never the only row of
        a class. None holds nothing out.
    rng : numpy.random.Generator
        Source of the choice.

    Returns
    -------
    ndarray of shape (n,), bool
        True for validation rows.

    Raises
    ------
    HeadError
        No class has two rows.

    Examples
    --------
    >>> held = hold_out(np.array([0, 0, 0, 0, 1, 1]), 0.5, np.random.default_rng(0))
    >>> int(held[:4].sum()), int(held[4:].sum())
    (2, 1)
    """
    held = np.zeros(codes.size, dtype=bool)
    if fraction is None:
        return held
    for code in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == code)
        count = min(max(round(fraction * rows.size), 1), rows.size - 1)
        held[rng.choice(rows, count, replace=False)] = True
    if not held.any():
        raise HeadError(
            "no class has a second row, so no row can be held out to stop training early; add "
            "rows, pass validation_data, or set validation_fraction to None"
        )
    return held


def score_epoch(logits: NDArray[np.float64], rows: Rows) -> dict[str, float]:
    """Measure the logits of validation rows after an epoch.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float64
        Of the validation rows, not yet divided by a temperature.
    rows : Rows
        The validation rows, n of them.

    Returns
    -------
    dict of str to float
        ``val_loss``, the cross-entropy at the best temperature, which weighs the classes as in
        training; ``val_accuracy``; and ``val_precision``, ``val_recall`` and ``val_f1``, which are
        means over the classes.
    """
    temperature = fit_temperature(logits, rows.codes, sample_weight=rows.weights)
    likelihoods = log_softmax(logits / temperature, axis=1)
    losses = -likelihoods[np.arange(rows.codes.size), rows.codes]
    predicted = logits.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        rows.codes, predicted, labels=range(logits.shape[1]), average="macro", zero_division=0
    )
    return {
        "val_loss": float(np.mean(rows.weights * losses)),
        "val_accuracy": float(np.mean(predicted == rows.codes)),
        "val_precision": float(precision),
        "val_recall": float(recall),
        "val_f1": float(f1),
    }
