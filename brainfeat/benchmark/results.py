"""What a benchmark finds, as frozen numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, smallest and largest value over the repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise one value a repeat."""
        return cls(median=median(values), min=min(values), max=max(values))

    @classmethod
    def ratio(cls, values: Sequence[float], baseline: Sequence[float]) -> Self:
        """Summarise the ratios of two things that were measured in turn, repeat by repeat."""
        return cls.of([value / base for value, base in zip(values, baseline, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Reading, hashing, decoding and resizing files, and the gain over one thread."""

    images_per_second: Spread
    ratio_to_one_thread: Spread


@dataclass(frozen=True, kw_only=True)
class Computing:
    """The base alone on one device, with a batch that lies in the memory of that device.

    Attributes
    ----------
    batch_size : int
        Images of the batch.
    images_per_second, ratio_to_float32 : Spread
        The ratio is taken within each repeat.
    tflops : float or None
        Achieved 10¹² floating-point operations a second, by the count of the direct method, also
        where a quicker one is used; None where they cannot be counted.
    peak_fraction : float or None
        `tflops` over the card's dense bfloat16 peak; None where there is no card whose peak is
        known.
    """

    batch_size: int
    images_per_second: Spread
    ratio_to_float32: Spread
    tflops: float | None
    peak_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Stage one from files to a new cache, on all devices, and its ratio to the base alone.

    It is run on as many images as fill whole batches.
    """

    images_per_second: Spread
    ratio_to_compute: Spread


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """One head fitted on a synthetic cache; epochs of the last fit, where the head has them."""

    seconds: Spread
    epochs: int | None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What :func:`run_benchmark` measured.

    Attributes
    ----------
    processor, versions : dict
        Name, cores and number formats of the processor, and versions of Python and the libraries.
    backend : str
        Keras's backend.
    devices : tuple of str
        The GPUs that the backend can use; empty where it computes on the processor.
    backbone, input_size, repeats
        What was run.
    images : int
        Number of image files.
    data : str
        Where they came from: a path, or ``"phantoms"``.
    gflop_per_image : float or None
        10⁹ floating-point operations of the base for one image; a multiply-add counts two.
    bf16_peak_tflops : float or None
        Dense bfloat16 peak of the first device by its data sheet.
    decode : dict of int to Decoding
        By number of threads.
    compute : dict of str to Computing
        By precision.
    end_to_end : dict of str to EndToEnd
        For float32, and the quickest precision where that is another.
    stage_two : dict of str to Fitting
        By head.
    seconds : float
        Duration of the whole benchmark.
    """

    processor: dict[str, Any]
    versions: dict[str, str]
    backend: str
    devices: tuple[str, ...]
    backbone: str
    input_size: int
    repeats: int
    images: int
    data: str
    gflop_per_image: float | None
    bf16_peak_tflops: float | None
    decode: dict[int, Decoding]
    compute: dict[str, Computing]
    end_to_end: dict[str, EndToEnd]
    stage_two: dict[str, Fitting]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = asdict(self)
        values["devices"] = list(self.devices)
        values["decode"] = {str(threads): value for threads, value in values["decode"].items()}
        return values
