"""Measurements of the parts of both stages."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.benchmark.results import Computing, Decoding, EndToEnd, Fitting, Spread
from brainfeat.cache.merging import write_cache
from brainfeat.cache.row_index import RowIndex, Source, row_keys
from brainfeat.cache.schema import SHARD_SCHEMA, Measured
from brainfeat.cache.shards import parts_folder, write_shard
from brainfeat.cache.signature import compute_signature
from brainfeat.cache.spec import FeatureSpec, Precision
from brainfeat.cache.writing import as_text
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.cropping import CROPS, Crop, crop_pixels
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.preprocessing import quantize_image, resize_pixels
from brainfeat.phantoms import CLASS_NAMES, LEVELS, write_phantoms
from brainfeat.readers import read_bytes, read_pixels
from brainfeat.tables.table import ImageTable, read_table
from brainfeat.training.fitting import fit_head

Image = NDArray[np.uint8]
Name = TypeVar("Name", bound=Hashable)
# A piece of work; it returns how much was done, such as the number of images.
Work = Callable[[], int]
Report = Callable[[str], None]

HEADS = ("logistic", "dense")
STAGE_TWO_ROWS = 5_708

# Faster work is repeated until this time has passed.
_SHORTEST_SECONDS = 0.5
# Distance between the synthetic classes, in standard deviations of a feature.
_SEPARATION = 0.15


def find_images(
    data: str | os.PathLike[str] | None,
    number: int,
    random_state: int,
    scratch: Path,
    report: Report,
) -> ImageTable:
    """Take images evenly from a table, or draw phantoms.

    Parameters
    ----------
    data : path-like or None
        As in :func:`brainfeat.read_table`; None draws phantoms.
    number : int
        Largest number of images.
    random_state : int
        Seed of the phantoms.
    scratch : Path
        A folder for the phantoms.
    report : callable
        Called with a line of text.

    Returns
    -------
    ImageTable
    """
    if data is None:
        report(f"drawing {number:,} phantoms")
        data = write_phantoms(
            scratch / "slices",
            patients_per_class=math.ceil(number / (len(CLASS_NAMES) * LEVELS)),
            slices_per_patient=LEVELS,
            test_fraction=0.0,
            suffix=".jpg",
            random_state=random_state,
        )
    return _take_evenly(read_table(data), number)


def _take_evenly(table: ImageTable, number: int) -> ImageTable:
    number = min(number, len(table))

    def take(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[place * len(table) // number] for place in range(number))

    labels = take(table.labels)
    return replace(
        table,
        paths=take(table.paths),
        labels=labels,
        splits=take(table.splits),
        groups=take(table.groups),
        sources=take(table.sources),
        origins=take(table.origins),
        class_names=tuple(sorted({*labels} - {""})),
    )


@dataclass(frozen=True, kw_only=True)
class StageOne:
    """Measures the parts of stage one on a table of images.

    Parameters
    ----------
    table : ImageTable
        The images.
    bases : mapping of str to Backbone
        The base in each precision; float32 is one of them.
    crop : {"none", "foreground"}
        As in :func:`brainfeat.extract`.
    batch_size, n_jobs, repeats : int, or None for the first
        As in :func:`brainfeat.benchmark.run_benchmark`.
    scratch : Path
        A folder for caches.
    flop : int
        Operations for one image.
    peak : float or None
        The peak of the card in 10¹² operations per second.
    report : callable
        Called with a line of text before each part.
    """

    table: ImageTable
    bases: Mapping[Precision, Backbone]
    crop: Crop
    batch_size: int | None
    n_jobs: int
    repeats: int
    scratch: Path
    flop: int
    peak: float | None
    report: Report

    def measure(self) -> dict[str, Any]:
        """Measure all parts, and return them as fields of a `Benchmark`."""
        decode = self._measure_decode()
        compute = self._measure_compute()
        fastest = max(compute, key=lambda name: compute[name].images_per_second.median)
        return {
            "images": len(self.table),
            "gflop_per_image": self.flop / 1e9,
            "bf16_peak_tflops": self.peak,
            "decode": decode,
            "compute": compute,
            "end_to_end": {
                name: self._measure_end_to_end(name) for name in dict.fromkeys(["float32", fastest])
            },
        }

    @cached_property
    def _files(self) -> list[Path]:
        return [self.table.absolute_path(row) for row in range(len(self.table))]

    @cached_property
    def _input_size(self) -> int:
        return self.bases["float32"].input_size

    @cached_property
    def _copies(self) -> dict[Precision, tuple[runtime.Forward, ...]]:
        """By precision, what computes at the same time on one device: a function a stream."""
        return {
            precision: base.compile()[: None if base.engine == "openvino" else 1]
            for precision, base in self.bases.items()
        }

    @cached_property
    def _batches(self) -> dict[Precision, list[Any]]:
        """By precision, a batch for each of these, in the memory of the device."""
        return {
            precision: [self._place_batch(base)] * len(self._copies[precision])
            for precision, base in self.bases.items()
        }

    def _place_batch(self, base: Backbone) -> Any:
        files = self._files[: self.batch_size or base.batch_size]
        images = np.stack([self._load(file) for file in files])
        if base.engine == "openvino":
            return images
        with runtime.on_device(base.devices[0]):
            return runtime.import_keras().ops.convert_to_tensor(images)

    def _decode(self, n_threads: int) -> int:
        with ThreadPoolExecutor(n_threads) as threads:
            return sum(1 for _ in threads.map(self._load, self._files))

    def _load(self, file: Path) -> Image:
        """Do what stage one does with a file before the base computes."""
        data = read_bytes(file)
        hashlib.sha256(data).digest()
        pixels = quantize_image(read_pixels(BytesIO(data), name=str(file)))
        compute_signature(pixels)
        return resize_pixels(crop_pixels(pixels, CROPS[self.crop]), size=self._input_size)

    def _compute(self, precision: Precision) -> int:
        copies, batches = self._copies[precision], self._batches[precision]
        with ThreadPoolExecutor(len(copies)) as threads:
            return sum(map(len, threads.map(_call, copies, batches)))

    def _extract(self, precision: Precision) -> int:
        """Extract as many images as fill whole batches; another batch would be mostly padding."""
        batch_size = len(self._batches[precision][0])
        whole = len(self.table) // batch_size * batch_size
        with TemporaryDirectory(dir=self.scratch) as fresh:
            return extract(
                _take_evenly(self.table, whole),
                Path(fresh, "features.h5"),
                backbone=self.bases[precision],
                batch_size=batch_size,
                n_jobs=self.n_jobs,
                on_error="raise",
                crop=self.crop,
            ).computed

    def _measure_decode(self) -> dict[int, Decoding]:
        self.report(f"decode: {len(self._files):,} files")
        work = {threads: partial(self._decode, threads) for threads in {1, self.n_jobs}}
        rates = _measure(work, self.repeats)
        return {
            threads: Decoding(
                images_per_second=Spread.of(rates[threads]),
                ratio_to_one_thread=Spread.ratio(rates[threads], rates[1]),
            )
            for threads in sorted(rates)
        }

    def _measure_compute(self) -> dict[Precision, Computing]:
        self.report(f"compute: {', '.join(self.bases)}")
        work = {precision: partial(self._compute, precision) for precision in self.bases}
        rates = _measure(work, self.repeats)
        return {
            precision: self._rate_computing(precision, values, rates["float32"])
            for precision, values in rates.items()
        }

    def _rate_computing(
        self, precision: Precision, rates: Sequence[float], baseline: Sequence[float]
    ) -> Computing:
        tflops = self.flop * median(rates) / 1e12
        return Computing(
            batch_size=len(self._batches[precision][0]),
            images_per_second=Spread.of(rates),
            ratio_to_float32=Spread.ratio(rates, baseline),
            tflops=tflops,
            peak_fraction=None if self.peak is None else tflops / self.peak,
        )

    def _measure_end_to_end(self, precision: Precision) -> EndToEnd:
        self.report(f"end to end: {precision}")
        work = {"extract": partial(self._extract, precision)}
        work["compute"] = partial(self._compute, precision)
        rates = _measure(work, self.repeats)
        return EndToEnd(
            images_per_second=Spread.of(rates["extract"]),
            ratio_to_compute=Spread.ratio(rates["extract"], rates["compute"]),
        )


def measure_heads(
    scratch: Path, spec: FeatureSpec, repeats: int, random_state: int, report: Report
) -> dict[str, Fitting]:
    """Measure the fitting of heads on a synthetic cache.

    Parameters
    ----------
    scratch : Path
        A folder for the cache.
    spec : FeatureSpec
        The spec of the synthetic features.
    repeats : int
        Number of times that each head is fitted.
    random_state : int
        Seed of the features and of the heads.
    report : callable
        Called with a line of text.

    Returns
    -------
    dict of str to Fitting
        By head.
    """
    rows, n_features = STAGE_TWO_ROWS, spec.n_features
    report(f"stage two: {', '.join(HEADS)} on {rows:,} × {n_features:,} synthetic features")
    cache = _write_features(scratch / "synthetic.h5", spec, random_state)
    epochs: dict[str, int | None] = {}

    def fit(head: str) -> int:
        history = fit_head(cache, head=head, random_state=random_state).training.history
        epochs[head] = len(history.loss) if history else None
        return 1

    rates = _measure({head: partial(fit, head) for head in HEADS}, repeats)
    return {
        head: Fitting(seconds=Spread.of([1 / rate for rate in rates[head]]), epochs=epochs[head])
        for head in HEADS
    }


def _write_features(path: Path, spec: FeatureSpec, random_state: int) -> Path:
    """Write a training set of four overlapping classes as features of `spec`."""
    rng = np.random.default_rng(random_state)
    y = np.arange(STAGE_TWO_ROWS) % len(CLASS_NAMES)
    centres = rng.standard_normal((len(CLASS_NAMES), spec.n_features), np.float32)
    noise = rng.standard_normal((len(y), spec.n_features), np.float32)
    X = np.maximum(_SEPARATION * centres[y] + noise, 0.0)
    digests = [hashlib.sha256(row.tobytes()).digest() for row in X]
    view = np.zeros(len(y), np.int16)
    shard = write_shard(
        parts_folder(path),
        spec=spec,
        augmentation=None,
        features=X,
        sha256=digests,
        view=view.tolist(),
        measured=[Measured(width=1, height=1, channels=1, file_bytes=1)] * len(y),
    )
    index = RowIndex([Source(path=shard, schema=SHARD_SCHEMA, views=True)])
    texts = {
        "path": [f"{row:05}" for row in range(len(y))],
        "split": ["train"] * len(y),
        "group": [""] * len(y),
        "source": ["synthetic"] * len(y),
    }
    write_cache(
        path,
        index=index,
        keys=row_keys(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32), view),
        spec=spec,
        columns={"label": y, **{name: as_text(values) for name, values in texts.items()}},
        attributes={
            "class_names": CLASS_NAMES,
            "rejected": [],
            "augmentation": None,
            "provenance": {},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    index.close()
    return path


def _measure(work: Mapping[Name, Work], repeats: int) -> dict[Name, list[float]]:
    """Measure pieces of work in turn, after one run of each that does not count.

    Returns
    -------
    dict of list of float
        By piece: how much was done per second, in each repeat.
    """
    for piece in work.values():
        piece()
    rates: dict[Name, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, piece in work.items():
            rates[name].append(_time(piece))
    return rates


def _time(piece: Work) -> float:
    done, seconds, started = 0, 0.0, time.perf_counter()
    while not done or seconds < _SHORTEST_SECONDS:
        done += piece()
        seconds = time.perf_counter() - started
    return done / seconds


def _call(compute: runtime.Forward, images: Any) -> NDArray[np.float32]:
    return compute(images)
