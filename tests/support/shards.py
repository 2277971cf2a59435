"""A cache of six rows and the shards that it is merged from."""

import hashlib

import numpy as np

from brainfeat.cache.merging import write_cache
from brainfeat.cache.row_index import RowIndex, Source, row_keys
from brainfeat.cache.schema import SHARD_SCHEMA, Measured
from brainfeat.cache.shards import parts_folder, remove_parts, write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import as_text

SPEC = FeatureSpec(backbone="vgg16", layer="block5_pool", n_features=4, weights_sha256="ab" * 32)
AUGMENTATION = {"random_state": 0, "rotation": 10.0}
ATTRIBUTES = {
    "class_names": ["glioma", "Größe"],
    "rejected": [{"path": "train/glioma/broken.png", "reason": "not an image"}],
    "augmentation": AUGMENTATION,
    "provenance": {"versions": {"brainfeat": "0.1.0"}},
    "created_at": "2026-01-02T03:04:05+00:00",
}
COLUMNS = {
    "path": ["train/1.png", "train/1.png", "train/Größe/2.png", "val/3.png", "test/4.png", "5.png"],
    "label": [0, 0, 1, 1, 0, -1],
    "split": ["train", "train", "train", "val", "test", ""],
    "group": ["p1", "p1", "p2", "p3", "", ""],
    "source": ["siteA", "siteA", "siteB", "", "", ""],
}
VIEWS = [0, 1, 0, 0, 0, 0]
N_ROWS = len(VIEWS)
FEATURES = np.arange(N_ROWS * 4, dtype="<f4").reshape(N_ROWS, 4)


def digests(names):
    return [hashlib.sha256(name.encode()).digest() for name in names]


def as_bytes(sha256):
    return np.frombuffer(b"".join(sha256), np.uint8).reshape(-1, 32)


def facts(numbers):
    return [
        Measured(width=100 + n, height=200 + n, channels=3, file_bytes=(1 << 40) + n)
        for n in numbers
    ]


def draw_signatures(numbers, view=None):
    """Give row n a signature that is recognised as that of n, or zeros for an augmented view."""
    signatures = np.array([np.full(SIGNATURE_SIZE, n % 127 + 1) for n in numbers], np.int8)
    signatures[np.asarray(view or [0] * len(signatures)) > 0] = 0
    return signatures


def shard(
    folder,
    features=FEATURES,
    sha256=None,
    view=None,
    *,
    spec=SPEC,
    augmentation=None,
    signature=None,
):
    """Write one shard; row n has the file facts of n."""
    rows = len(features)
    return write_shard(
        folder,
        spec=spec,
        augmentation=augmentation,
        features=np.asarray(features, np.float32),
        sha256=digests(map(str, range(rows))) if sha256 is None else sha256,
        view=[0] * rows if view is None else view,
        measured=facts(range(rows)),
        signature=signature,
    )


def index_of(*paths, views=True):
    return RowIndex([Source(path=path, schema=SHARD_SCHEMA, views=views) for path in paths])


def merge(path, index, keys, columns=COLUMNS, spec=SPEC, *, signature=False, **attributes):
    write_cache(
        path,
        index=index,
        keys=keys,
        spec=spec,
        columns={
            name: np.array(values, "<i2") if name == "label" else as_text(values)
            for name, values in columns.items()
        },
        attributes={**ATTRIBUTES, **attributes},
        signature=signature,
    )
    return path


def write_example(path, *, signature=False):
    sha256 = digests(COLUMNS["path"])
    source = shard(
        parts_folder(path),
        sha256=sha256,
        view=VIEWS,
        augmentation=AUGMENTATION,
        signature=draw_signatures(range(N_ROWS), VIEWS) if signature else None,
    )
    index = index_of(source)
    merge(path, index, row_keys(as_bytes(sha256), np.array(VIEWS)), signature=signature)
    index.close()
    remove_parts(parts_folder(path))
    return path
