"""A feature cache with three layers and maps, and a backbone of two layers with maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from support.bands import N_FEATURES, SPEC, Blocks
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


class LayeredBlocks(Blocks):
    """Blocks with another layer before, and maps of 2 × 3 places whose means are its features."""

    map_shape = (2, 3)

    def __init__(self, **options: Any) -> None:
        layers = f"inner:3,{SPEC.layer}:{N_FEATURES}"
        super().__init__(spec=replace(SPEC, layers=layers, pooling="none"), **options)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        features = super().__call__(images)
        steps = np.array([[-1, 0, 1], [1, 0, -1]], np.float32)[None, :, :, None]
        maps = features[:, None, None] + steps / 8
        inner = features[:, :3] * 2
        return np.concatenate([inner, features, maps.reshape(len(images), -1)], axis=1)
