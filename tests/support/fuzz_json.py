"""Mutated JSON in files with valid digests: each is read, or refused with a BrainfeatError.

``python -m support.fuzz_json --cases 20000`` tries 20,000 mutations.
"""

import argparse
import copy
import io
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainfeat import FeatureCache, HeadBundle, evaluate, fit_head
from brainfeat.cache.schema import CACHE_SCHEMA
from brainfeat.cache.storage import Schema, StoredFile
from brainfeat.cache.writing import write_file
from brainfeat.cli.info import command as info
from brainfeat.errors import BrainfeatError
from brainfeat.heads.bundle_schema import BUNDLE_SCHEMA
from support.caches import write_vectors

VALUES = (
    *(None, True, False, 0, -1, 2, 1.5, 1e308, 2**63, 10**400, "", "x", "None", "svm", "dense"),
    *([], {}, [[]], {"": {}}, ["a", "b"], ["a", "a"], [1, 2], {"C": 1}, {"n_jobs": 9}),
    *("\u202e\x1b[2J", "\ud800", "a" * 70_000, [0] * 5000),
)
TEXTS = (
    "NaN",
    "Infinity",
    "-0",
    "1e999",
    "{",
    "]",
    '"',
    ",",
    ":",
    "\\",
    "\0",
    "[" * 4000,
    "é",
    " ",
)


@dataclass
class Sample:
    """A good file in parts, and what reads it."""

    schema: Schema
    arrays: dict[str, Any]
    attributes: dict[str, Any]
    read: Callable[[Path], object]

    @property
    def texts(self) -> list[str]:
        """Names of the attributes that hold JSON."""
        return [name for name, text in self.attributes.items() if str(text)[:1] in ("{", "[")]


def make_samples(folder: Path) -> list[Sample]:
    """Make a cache and heads of three kinds."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 4
    X = rng.normal(size=(48, 4)) + y[:, None]
    features = write_vectors(folder, X, y)

    def read_cache(path: Path) -> None:
        with FeatureCache.open(path) as cache:
            _ = (cache.spec.fingerprint, cache.rejected, cache.augmentation, cache.provenance)
            cache.mask("train")
            evaluate(good, cache, split="all")
        describe(path)

    def read_head(path: Path) -> None:
        bundle = HeadBundle.load(path)
        bundle.predict(X)
        describe(path)
        evaluate(bundle, features)

    heads = []
    for head in ("svm", "knn", "random-forest"):
        bundle = fit_head(features, head=head, params={"n_estimators": 3} if "f" in head else None)
        heads.append(bundle.save(folder / f"{head}.h5"))
    good = HeadBundle.load(heads[0])
    return [
        take_apart(features, CACHE_SCHEMA, read_cache),
        *(take_apart(path, BUNDLE_SCHEMA, read_head) for path in heads),
    ]


def describe(path: Path) -> None:
    """Tell what the file holds, as the command line does."""
    with redirect_stdout(io.StringIO()):
        info.main([str(path)], standalone_mode=False)


def take_apart(path: Path, schema: Schema, read: Callable[[Path], object]) -> Sample:
    """Read the parts that a file is written from."""
    with StoredFile(path, schema) as file:
        arrays = {name: np.asarray(array) for name, array in file.arrays.items()}
        written = {"format", "format_version", "content_sha256"}
        attributes = {key: value for key, value in file.attributes.items() if key not in written}
        schema = file.schema
    return Sample(schema, arrays, attributes, read)


def mutate(text: str, rnd: random.Random) -> str:
    """Change a value of a JSON text, or the text itself."""
    if rnd.random() < 0.7:
        document = json.loads(text)
        for _ in range(rnd.choice((1, 1, 2))):
            document = replace(document, rnd)
        return json.dumps(document)
    place = rnd.randrange(len(text) + 1)
    match rnd.randrange(4):
        case 0:
            return text[:place] + rnd.choice(TEXTS) + text[place:]
        case 1:
            return text[:place] + text[place + rnd.choice((1, 2, 20)) :]
        case 2:
            return text[:-1] + "," + text[1:]
        case _:
            return text.replace(":", f":{rnd.choice(TEXTS)}", 1)


def replace(document: Any, rnd: random.Random) -> Any:
    """Replace, drop or add one value somewhere in a document."""
    inside = isinstance(document, dict | list) and len(document) and rnd.random() < 0.8
    if not inside:
        return copy.deepcopy(rnd.choice(VALUES))
    keys = list(document) if isinstance(document, dict) else range(len(document))
    key = rnd.choice(list(keys))
    if rnd.random() < 0.2:
        del document[key]
    elif isinstance(document, dict) and rnd.random() < 0.1:
        document[rnd.choice(("", "x", "C", "name", "a" * 2000))] = copy.deepcopy(rnd.choice(VALUES))
    else:
        document[key] = replace(document[key], rnd)
    return document


def fuzz(samples: list[Sample], *, folder: Path, cases: int, seed: int = 0) -> Counter[str]:
    """Read so many files; count what came of them. An error of another kind is not caught."""
    rnd = random.Random(seed)
    outcomes: Counter[str] = Counter()
    path = folder / "mutated.h5"
    for _ in range(cases):
        sample = rnd.choice(samples)
        name = rnd.choice(sample.texts)
        changed = mutate(str(sample.attributes[name]), rnd)
        outcomes[attempt(sample, {**sample.attributes, name: changed}, path)] += 1
    return outcomes


def attempt(sample: Sample, attributes: Mapping[str, Any], path: Path) -> str:
    """Write a file and read it."""
    try:
        write_file(path, sample.schema, datasets=sample.arrays, attributes=attributes)
    except BrainfeatError:
        return "not writable"
    try:
        sample.read(path)
    except BrainfeatError:
        return "refused"
    return "read"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Read files with mutated JSON.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = make_samples(folder)
        print(dict(fuzz(samples, folder=folder, cases=chosen.cases, seed=chosen.seed)))


if __name__ == "__main__":
    main()
