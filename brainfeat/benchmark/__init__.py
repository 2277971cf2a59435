"""How fast this machine is: decoding, the base in each precision, and both stages as a whole."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from brainfeat import runtime
from brainfeat.benchmark.peak import find_bf16_peak
from brainfeat.benchmark.results import Benchmark, Computing, Decoding, EndToEnd, Fitting, Spread
from brainfeat.benchmark.stages import StageOne, find_images, measure_heads
from brainfeat.cache.spec import Precision
from brainfeat.errors import ParameterError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.cropping import Crop, check_crop
from brainfeat.extraction.graph import count_flop, read_graph

__all__ = [
    "Benchmark",
    "Computing",
    "Decoding",
    "EndToEnd",
    "Fitting",
    "Spread",
    "find_bf16_peak",
    "run_benchmark",
]

# Enough for several batches: a few seconds on a processor, and not just milliseconds on a GPU.
_NUMBER, _NUMBER_ON_GPU = 64, 2_048


def run_benchmark(
    data: str | os.PathLike[str] | None = None,
    *,
    backbone: str = "vgg16",
    input_size: int = 224,
    crop: Crop = "none",
    precisions: Sequence[Precision] | None = None,
    batch_size: int | None = None,
    number: int | None = None,
    repeats: int = 5,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure how fast each part of the two stages is on this machine.

    Each part is run once before it is measured. Parts that are compared are measured in turn, so
    that other work on the machine slows all of them alike. The base has random weights, which are
    as fast as any.

    Parameters
    ----------
    data : path-like or None
        Images, as in :func:`brainfeat.read_table`; None draws phantoms of 224 × 224 pixels as JPEG
        files.
    backbone : str, default="vgg16"
        As in :func:`brainfeat.extraction.backbones.load_backbone`.
    input_size : int, default=224
        Height and width in pixels of what the base takes.
    crop : {"none", "foreground"}, default="none"
        As in :func:`brainfeat.extract`.
    precisions : sequence of str or None
        Precisions to measure in addition to float32; None takes those for which the processor or
        the GPU has instructions.
    batch_size : int or None
        Images in a batch, at most as many as there are; None takes the batch size that
        :func:`brainfeat.extract` chooses.
    number : int or None
        Number of images, taken evenly from the table; None takes 64, or 2,048 with a GPU.
    repeats : int, default=5
        Number of times that each part is measured.
    n_jobs : int or None
        Threads that decode; None takes all cores.
    random_state : int, default=0
        Seed of the phantoms, the weights and the synthetic features.
    progress : callable or None
        Called with a line of text before each part.

    Returns
    -------
    Benchmark

    Raises
    ------
    ParameterError
        If an option is unknown or out of range.
    TableError, ImageReadError
        If the images cannot be used.

    Examples
    --------
    The images per second of MobileNet in float32 (this takes a minute)::

        result = run_benchmark(backbone="mobilenet", repeats=3)
        result.compute["float32"].images_per_second.median
    """
    started = time.perf_counter()
    _check_options(
        {"batch_size": batch_size, "number": number, "repeats": repeats, "n_jobs": n_jobs}
    )
    check_crop(crop)
    report = progress or (lambda _: None)
    load = partial(
        load_backbone,
        backbone,
        weights="random",
        input_size=input_size,
        random_state=random_state,
    )
    for precision in ("float32", *(precisions or ())):
        load(precision=precision)  # an invalid option is rejected before work begins
    report("starting the backend")
    devices = tuple(runtime.accelerators())
    number = number or (_NUMBER_ON_GPU if devices else _NUMBER)
    bases = {precision: load(precision=precision) for precision in _choose(precisions, devices)}
    with TemporaryDirectory(prefix="brainfeat-bench-") as scratch:
        stage_one = StageOne(
            table=find_images(data, number, random_state, Path(scratch), report),
            bases=bases,
            crop=crop,
            batch_size=batch_size,
            n_jobs=n_jobs or runtime.usable_cores(),
            repeats=repeats,
            scratch=Path(scratch),
            flop=sum(count_flop(read_graph(backbone), input_size).values()),
            peak=find_bf16_peak(devices[0]) if devices else None,
            report=report,
        )
        measured = stage_one.measure()
        stage_two = measure_heads(
            Path(scratch), bases["float32"].spec, repeats, random_state, report
        )
    return Benchmark(
        processor=runtime.processor(),
        versions=runtime.versions(),
        engine=bases["float32"].engine,
        backend=runtime.import_keras().config.backend(),
        devices=devices,
        backbone=backbone,
        input_size=input_size,
        crop=crop,
        repeats=repeats,
        data="phantoms" if data is None else str(data),
        **measured,
        stage_two=stage_two,
        seconds=time.perf_counter() - started,
    )


def _check_options(numbers: Mapping[str, int | None]) -> None:
    for name, value in numbers.items():
        if value is None and name != "repeats":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ParameterError(f"{name} {value!r}; expected an integer of at least 1")


def _choose(precisions: Sequence[Precision] | None, devices: Sequence[str]) -> list[Precision]:
    """Put float32 before the wanted precisions, or before those with instructions."""
    if precisions is None:
        features = set(runtime.processor()["features"])
        native: dict[Precision, set[str]] = {
            "bfloat16": {"avx512_bf16", "amx_bf16"},
            "float16": {"avx512_fp16"},
        }
        precisions = [name for name, needs in native.items() if devices or needs & features]
    return list(dict.fromkeys(["float32", *precisions]))
