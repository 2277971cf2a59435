"""Heads on small features: good files, and what an attacker makes of them."""

import io
import json
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from brainfeat.cache import writing
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import BundleError
from brainfeat.heads.attention import AttentionHead
from brainfeat.heads.bags import BagRule, Bags
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.dense import DenseHead
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.heads.kinds import HEAD_NAMES, make_head
from brainfeat.heads.record import FitRecord

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SPEC = FeatureSpec(backbone="vgg16", layer="block5_pool", n_features=8, weights_sha256="0" * 64)


def draw(n_classes=4):
    rng = np.random.default_rng(0)
    y = np.arange(80) % n_classes
    centres = 1.5 * rng.standard_normal((4, 8))
    return (centres[y] + rng.standard_normal((80, 8))).astype(np.float32), y


def draw_fitted_images(seed=0):
    """Draw digests and signatures of two images of train, one of val and one of test."""
    rng = np.random.default_rng(seed)
    sizes = {"train": 2, "val": 1, "test": 1}
    return FittedImages.collect(
        {name: rng.integers(0, 256, (n, 32)).astype(np.uint8) for name, n in sizes.items()},
        {
            name: rng.integers(-127, 128, (n, SIGNATURE_SIZE)).astype(np.int8)
            for name, n in sizes.items()
        },
    )


def make_estimator(head, n_classes=4, **params):
    """Fit a head; the dense one is made of arrays, so that nothing here needs Keras."""
    if head != "dense":
        small = {"random-forest": {"n_estimators": 7}, "hist-gradient-boosting": {"max_iter": 4}}
        params = {**small.get(head, {}), **params}
        return make_head(head, random_state=0, **params).fit(*draw(n_classes))
    rng = np.random.default_rng(1)
    layers = [
        (rng.standard_normal((8, 6)), rng.standard_normal(6)),
        (rng.standard_normal((6, n_classes)), rng.standard_normal(n_classes)),
    ]
    return DenseHead.from_arrays(
        layers, mean=np.zeros(8), scale=np.ones(8), classes=np.arange(n_classes)
    )


def make_bundle(head="svm", n_classes=4, **fields):
    estimator = fields.pop("estimator", None) or make_estimator(head, n_classes)
    return HeadBundle(
        **{
            "spec": SPEC,
            "class_names": CLASSES[:n_classes],
            "head": head,
            "params": {"epochs": 3} if head == "dense" else {},
            "estimator": estimator,
            "temperature": 1.3,
            "training": FitRecord(seconds=1.5),
            "probe": draw(n_classes)[0][:16] + np.float32(0.1),
            "fitted_images": draw_fitted_images(),
            **fields,
        }
    )


def weigh_by_attention(bundle, seed=0):
    """Put gated attention of drawn numbers in the place of a head; nothing needs Keras."""
    rng, d, k = np.random.default_rng(seed), bundle.spec.n_features, len(bundle.class_names)
    estimator = AttentionHead.from_arrays(
        [rng.standard_normal((d, 3)), rng.standard_normal((d, 3)), rng.standard_normal(3)],
        [(rng.standard_normal((d, k)), np.zeros(k))],
        mean=np.zeros(d),
        scale=np.ones(d),
        classes=np.arange(k),
        temperature=bundle.temperature,
    )
    values = bundle.probe.values if isinstance(bundle.probe, Bags) else bundle.probe
    probe = Bags(values=values, offsets=np.array([0, 1, len(values)]))
    rule = BagRule(pooling="attention")
    return replace(bundle, head="attention", params={}, estimator=estimator, probe=probe, bag=rule)


def save_heads(folder):
    """Save one head of each kind; return the files by the name of the head."""
    return {head: make_bundle(head).save(folder / f"{head}.h5") for head in HEAD_NAMES}


def craft_head(saved, path, stored="svm", /, *, arrays=None, remove=(), **attributes):
    """Copy a saved head, change it, and seal it again, as an attacker would."""
    shutil.copy(saved[stored], path)
    with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
        for name in (*remove, *(arrays or {})):
            if name in file:
                del file[name]
        for name, array in (arrays or {}).items():
            file[name] = array
        for name, value in attributes.items():
            del file.attrs[name]
            writing._write_attribute(file, name, value)
    writing.seal(path)
    return path


def refuse(path):
    """Return the one-line message with which a file is refused, by that very type of error."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        HeadBundle.load(path)
    assert caught.type is BundleError, repr(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def read_archive(path):
    with h5py.File(path) as file:
        return file["skops"][()].tobytes()


def as_bytes(archive):
    return {"skops": np.frombuffer(archive, np.uint8)}


def repack(archive, *, schema=None, compression=zipfile.ZIP_STORED, **members):
    """Write a skops archive anew with another schema or other members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json" and schema is not None:
                data = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
            new.writestr(name, members.pop(name, data), compress_type=compression)
        for name, data in members.items():
            new.writestr(name, data, compress_type=compression)
    return buffer.getvalue()


def read_schema(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return json.loads(file.read("schema.json"))


def replace_array(archive, data):
    """Put other bytes in the place of the archive's first array."""
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    return repack(archive, **{next(name for name in names if "npy" in name): data})


class Marker:
    """Unpickles to a file on the disk."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def run(script):
    """Run a script in another interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
