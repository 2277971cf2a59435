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
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return 0
    # From the lowest level to the one below the highest, there are pixels on both sides.
    lowest, highest = int(present[0]), int(present[-1])
    below = np.cumsum(counts[lowest:highest], dtype=np.float64)
    total = np.cumsum(counts[lowest:highest] * np.arange(lowest, highest), dtype=np.float64)
    above = below[-1] + counts[highest] - below
    rest = total[-1] + counts[highest] * highest - total
    variance = below * above * (total / below - rest / above) ** 2
    return lowest + int(variance.argmax())
