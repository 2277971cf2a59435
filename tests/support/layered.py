"""A feature cache with three layers and maps, without images or a backbone."""

from pathlib import Path

import numpy as np

from support.caches import draw_groups, draw_signatures, write_vectors

# By layer, in the order of the network.
WIDTHS = {"block3_pool": 4, "block4_pool": 6, "block5_pool": 8}
MAP_SHAPE = (3, 3)


def draw_layers(n: int = 48, *, seed: int = 0) -> tuple[dict, np.ndarray, np.ndarray, list[str]]:
    """Draw vectors by layer, maps whose means are the deepest ones, classes and groups.

    The classes can be told by the mean of a map, and by its centre alone with less noise.
    """
    X, y, groups = draw_groups(n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    maps = X[:, None, None, :] + rng.standard_normal((len(X), *MAP_SHAPE, X.shape[1]))
    maps[:, 1, 1] += 2 * np.eye(4)[y].repeat(2, axis=1)
    maps = maps.astype(np.float16)
    vectors = {
        name: (X @ rng.standard_normal((8, width))).astype(np.float32)
        for name, width in WIDTHS.items()
    }
    vectors["block5_pool"] = maps.mean(axis=(1, 2), dtype=np.float32)
    return vectors, maps, y, groups


def write_layered(
    folder: Path,
    n: int = 48,
    *,
    name: str = "layered.h5",
    maps: bool = True,
    signature: bool = False,
    seed: int = 0,
    **options: object,
) -> Path:
    """Write the cache; groups are in train, val and test by 4 to 1 to 1."""
    vectors, drawn, y, groups = draw_layers(n, seed=seed)
    places = [int(group.split()[1]) % 6 for group in groups]
    return write_vectors(
        folder,
        vectors.pop("block5_pool"),
        y,
        name=name,
        layers=vectors,
        maps=drawn if maps else None,
        splits=[{4: "val", 5: "test"}.get(place, "train") for place in places],
        groups=groups,
        signature=draw_signatures(len(y)) if signature else None,
        **options,
    )
