"""Write ``cache-format-3.h5``: the cache of format 3 that every later version must open.

Run once for each new version of the format, under the new name, and commit what it wrote; never
run it again for a version that was released.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from brainfeat.cache.merging import write_cache
from brainfeat.cache.row_index import RowIndex, Source, row_keys
from brainfeat.cache.schema import SHARD_SCHEMA, Measured
from brainfeat.cache.shards import parts_folder, remove_parts, write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import as_text

ROWS = [
    # path, view, label, split, group, source
    ("Training/glioma/Größe 1.png", 0, 0, "train", "patient-1", "siteA"),
    ("Training/glioma/Größe 1.png", 1, 0, "train", "patient-1", "siteA"),
    ("Training/notumor/2.jpg", 0, 1, "train", "patient-2", "siteB"),
    ("Training/notumor/3.jpg", 0, 1, "val", "patient-3", ""),
    ("Testing/glioma/4.png", 0, 0, "test", "", ""),
    ("5.png", 0, -1, "", "", ""),
]
N_FEATURES, N_OTHERS = 8, 3


def write(path: Path) -> None:
    """Write the cache."""
    spec = FeatureSpec(
        backbone="vgg16",
        layer="block5_pool",
        n_features=N_FEATURES,
        weights_sha256="ab" * 32,
        layers=f"block4_pool:{N_OTHERS},block5_pool:{N_FEATURES}",
        pooling="none",
    )
    features = np.arange(len(ROWS) * N_FEATURES, dtype="<f4").reshape(len(ROWS), -1) / 4
    others = np.arange(len(ROWS) * N_OTHERS, dtype="<f4").reshape(len(ROWS), -1) / 8
    steps = np.array([[-0.5, 0.5], [1.5, -1.5]], "<f4")[None, :, :, None]
    maps = (features[:, None, None] + steps).astype("<f2")
    paths, views, labels, splits, groups, sources = zip(*ROWS, strict=True)
    digests = [hashlib.sha256(name.encode()).digest() for name in paths]
    augmentation = {"random_state": 0, "rotation": 10.0}
    signature = np.arange(len(ROWS) * SIGNATURE_SIZE).reshape(len(ROWS), -1) % 255 - 127
    signature[np.array(views) > 0] = 0
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(
            Path(folder),
            spec=spec,
            augmentation=augmentation,
            features=features,
            others={"layers/block4_pool": others, "maps": maps},
            sha256=digests,
            view=views,
            measured=[
                Measured(width=512 + row, height=256 + row, channels=3, file_bytes=10_000 + row)
                for row in range(len(ROWS))
            ],
            signature=signature.astype(np.int8),
        )
        index = RowIndex([Source(path=shard, schema=SHARD_SCHEMA, views=True)])
        write_cache(
            path,
            index=index,
            keys=row_keys(
                np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32), np.array(views, "<i2")
            ),
            spec=spec,
            columns={
                "label": np.array(labels, "<i2"),
                "path": as_text(paths),
                "split": as_text(splits),
                "group": as_text(groups),
                "source": as_text(sources),
                "origin": np.array([0, 0, 1, 0, 0, 0], "<i2"),
            },
            attributes={
                "class_names": ["glioma", "notumor"],
                "rejected": [{"path": "Training/glioma/broken.png", "reason": "not an image"}],
                "augmentation": augmentation,
                "provenance": {"versions": {"brainfeat": "0.1.0"}},
                "created_at": "2026-01-02T03:04:05+00:00",
            },
            signature=True,
        )
        index.close()
    remove_parts(parts_folder(path))


if __name__ == "__main__":
    write(Path(__file__).with_name("cache-format-3.h5"))
