"""Feature caches of vectors, without images or a backbone."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainfeat.cache.merging import write_cache
from brainfeat.cache.row_index import RowIndex, Source, row_keys
from brainfeat.cache.schema import SHARD_SCHEMA, Measured
from brainfeat.cache.shards import parts_folder, remove_parts, write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import as_text


def draw_signatures(rows: int, seed: int = 0) -> np.ndarray:
    """Draw signatures of images that are copies of nothing."""
    rng = np.random.default_rng(seed)
    return rng.integers(-127, 128, (rows, SIGNATURE_SIZE)).astype(np.int8)


def draw_groups(n: int = 48, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw vectors of n groups of 1 to 4 images, with noise of each group; classes in turn."""
    rng = np.random.default_rng(seed)
    sizes = 1 + np.arange(n) % 4
    group = rng.permutation(np.repeat(np.arange(n), sizes))
    centres = 2 * rng.standard_normal((4, 8)) + rng.standard_normal((n, 8))[:, None].repeat(4, 1)
    y = group % 4
    X = centres[group, y] + rng.standard_normal((len(group), 8))
    return X.astype(np.float32), y, [f"patient {number}" for number in group]


def write_vectors(
    folder: Path,
    X: np.ndarray,
    y: np.ndarray,
    *,
    name: str = "features.h5",
    class_names: Sequence[str] = ("glioma", "meningioma", "notumor", "pituitary"),
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    paths: Sequence[str] | None = None,
    contents: Sequence[str] | None = None,
    digests: Sequence[bytes] | None = None,
    sources: Sequence[str] | None = None,
    file_bytes: Sequence[int] | None = None,
    view: Sequence[int] | None = None,
    signature: np.ndarray | None = None,
    layers: Mapping[str, np.ndarray] | None = None,
    maps: np.ndarray | None = None,
    origin: Sequence[int] | None = None,
    **spec: object,
) -> Path:
    """Write a cache with one row a vector; its identity is the digest of its content, or path.

    `layers` are those before the one that X is of.
    """
    rows = len(X)
    paths = paths or [f"image-{row:05}.png" for row in range(rows)]
    views = np.zeros(rows, np.int16) if view is None else np.asarray(view, np.int16)
    digests = digests or [hashlib.sha256(text.encode()).digest() for text in contents or paths]
    spec = {"layer": "block5_pool", **spec}
    if layers:
        vectors = {**layers, spec["layer"]: X}
        listed = ",".join(f"{layer}:{values.shape[1]}" for layer, values in vectors.items())
        spec = {"layers": listed, **spec}
    if maps is not None:
        spec = {"pooling": "none", **spec}
    meaning = FeatureSpec(
        **{"backbone": "vgg16", "n_features": X.shape[1], "weights_sha256": "0" * 64, **spec}
    )
    others = {f"layers/{layer}": values for layer, values in (layers or {}).items()}
    path = folder / name
    shard = write_shard(
        parts_folder(path),
        spec=meaning,
        augmentation=None,
        features=np.asarray(X, np.float32),
        sha256=digests,
        view=views,
        measured=[
            Measured(width=8, height=8, channels=1, file_bytes=int(size))
            for size in (file_bytes if file_bytes is not None else [64] * rows)
        ],
        signature=signature,
        others=others if maps is None else {**others, "maps": maps},
    )
    index = RowIndex([Source(path=shard, schema=SHARD_SCHEMA, views=True)])
    empty = [""] * rows
    write_cache(
        path,
        index=index,
        keys=row_keys(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32), views),
        spec=meaning,
        columns={
            "label": np.asarray(y, np.int16),
            "path": as_text(paths),
            "split": as_text(splits if splits is not None else empty),
            "group": as_text(groups if groups is not None else empty),
            "source": as_text(sources if sources is not None else empty),
            **({} if origin is None else {"origin": np.asarray(origin, np.int16)}),
        },
        attributes={
            "class_names": list(class_names),
            "rejected": [],
            "augmentation": None,
            "provenance": {},
            "created_at": "2026-01-01T00:00:00+00:00",
        },
        signature=signature is not None,
    )
    index.close()
    remove_parts(parts_folder(path))
    return path
