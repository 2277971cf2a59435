"""Positions of images on a plane, by t-SNE of the first principal components of their features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import CacheError

# Fewer images have no neighbourhoods to draw.
LEAST_IMAGES = 10
# The customary numbers; fewer images have a third of their number as perplexity.
_COMPONENTS = 50
_PERPLEXITY = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding:
    """Positions of some images of a cache on a plane.

    Attributes
    ----------
    rows : ndarray of shape (m,), int
        Rows of the cache, in order.
    positions : ndarray of shape (m, 2), float64
        Their positions; only what is near to what has a meaning.
    images : int
        Images that there are; more than m where some were drawn.
    components : int
        Number of principal components.
    variance : float
        Fraction of the variance of the standardised features that they hold.
    perplexity : float
        Number of neighbours that t-SNE looks at.
    """

    rows: NDArray[np.intp]
    positions: NDArray[np.float64]
    images: int
    components: int
    variance: float
    perplexity: float


def check_images(cache: FeatureCache) -> int:
    """Count the images of a cache, and refuse one that no map can be made of.

    Raises
    ------
    CacheError
        It holds fewer than ten images.
    """
    images = int(cache.is_image.sum())
    if images < LEAST_IMAGES:
        raise CacheError(
            f"{cache.path} has {images} images; a map needs {LEAST_IMAGES} or more, so that t-SNE "
            "has neighbours to look at"
        )
    return images


def embed_images(cache: FeatureCache, *, max_images: int, random_state: int) -> Embedding:
    """Embed the images of a cache in a plane.

    Features are standardised and reduced to 50 principal components, then t-SNE (van der Maaten
    and Hinton 2008, Journal of Machine Learning Research 9:2579) places them.

    Parameters
    ----------
    cache : FeatureCache
        Pooled features.
    max_images : int
        Of more images, as many are drawn, from each class and split in proportion.
    random_state : int
        Seed.

    Returns
    -------
    Embedding
        The same for the same seed and number of threads.

    Raises
    ------
    CacheError
        As in :func:`check_images`; or the features are not finite, or the same in all images.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    images = check_images(cache)
    rows = _draw(cache, max_images, random_state=random_state)
    X = cache.X[rows]
    if not np.isfinite(X).all():
        raise CacheError(f"{cache.path} has features that are not finite; extract them again")
    if (X[0] == X).all():
        raise CacheError(f"{cache.path} has the same features in all images; a map has no places")
    standardised = StandardScaler().fit_transform(X)
    pca = PCA(min(_COMPONENTS, *standardised.shape), random_state=random_state)
    reduced = pca.fit_transform(standardised)
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity,
        init="pca" if reduced.shape[1] > 1 else "random",
        random_state=random_state,
    )
    return Embedding(
        rows=rows,
        positions=tsne.fit_transform(reduced).astype(np.float64),
        images=images,
        components=reduced.shape[1],
        variance=float(pca.explained_variance_ratio_.sum()),
        perplexity=float(perplexity),
    )


def _draw(cache: FeatureCache, max_images: int, *, random_state: int) -> NDArray[np.intp]:
    """Draw at most so many images, evenly from those in the order of class and split."""
    rows = np.flatnonzero(cache.is_image)
    if len(rows) <= max_images:
        return rows
    rows = np.random.default_rng(random_state).permutation(rows)
    rows = rows[np.lexsort((cache.splits[rows], cache.y[rows]))]
    places = np.arange(max_images) * len(rows) // max_images
    drawn: NDArray[np.intp] = np.sort(rows[places])
    return drawn
