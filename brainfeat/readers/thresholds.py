"""The grey level that separates an image into dark and bright."""

import numpy as np
import numpy.typing as npt


def find_otsu_threshold(counts: npt.NDArray[np.int64]) -> int:
    """Find the level that separates a histogram best (Otsu 1979, IEEE Trans. SMC 9:62–66).

    Parameters
    ----------
    counts : ndarray of shape (k,), int64
        Number of pixels of each level.

    Returns
    -------
    int
        The level with the largest variance between the pixels up to it and those above it, the
        lowest of several; 0 where all pixels have one level.

    Examples
    --------
    >>> find_otsu_threshold(np.bincount([10, 12, 200, 201], minlength=256))
    12
    """
    levels = np.arange(len(counts))
    below = np.cumsum(counts, dtype=np.float64)
    above = below[-1] - below
    total = np.cumsum(counts * levels, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = total / below - (total[-1] - total) / above
        variance = below * above * distance**2
    return int(np.argmax(np.nan_to_num(variance)))
