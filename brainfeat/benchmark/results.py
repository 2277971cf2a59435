"""Results of a benchmark."""

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
        """Summarize one value for each repeat."""
        return cls(median=median(values), min=min(values), max=max(values))

    @classmethod
    def ratio(cls, values: Sequence[float], baseline: Sequence[float]) -> Self:
        """Summarize the ratio of two parts that were measured in turn, repeat by repeat."""
        return cls.of([value / base for value, base in zip(values, baseline, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Speed of reading, hashing, decoding and resizing files, and the gain over one thread."""

    images_per_second: Spread
    ratio_to_one_thread: Spread


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Speed of the base alone on one device, with a batch in its memory for each stream.

    Attributes
    ----------
    batch_size : int
        Images in the batch.
    images_per_second, ratio_to_float32 : Spread
        The ratio is taken within each repeat.
    tflops : float or None
        Achieved 10¹² floating-point operations per second, counted for the direct method even if a
        faster one is used; None if they cannot be counted.
    peak_fraction : float or None
        `tflops` divided by the dense bfloat16 peak of the card; None if no peak is known.
    """

    batch_size: int
    images_per_second: Spread
    ratio_to_float32: Spread
    tflops: float | None
    peak_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Speed of stage one from files to a new cache, on all devices, compared to the base alone.

    It is measured on as many images as fill whole batches.
    """

    images_per_second: Spread
    ratio_to_compute: Spread


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Duration of fitting one head on a synthetic cache, and the epochs of the last fit if any."""

    seconds: Spread
    epochs: int | None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The result of :func:`brainfeat.benchmark.run_benchmark`.

    Attributes
    ----------
    processor, versions : dict
        Name, cores and number formats of the processor; versions of Python and the libraries.
    engine : {"keras", "openvino"}
        What computes the base.
    backend : str
        Backend of Keras.
    devices : tuple of str
        GPUs that the backend can use; empty if it computes on the processor.
    backbone, input_size, crop, repeats
        The options of the benchmark.
    images : int
        Number of image files.
    data : str
        Their source: a path, or ``"phantoms"``.
    gflop_per_image : float
        10⁹ floating-point operations of the base for one image; a multiply-add counts as two.
    bf16_peak_tflops : float or None
        Dense bfloat16 peak of the first device according to its data sheet.
    decode : dict of int to Decoding
        By number of threads.
    compute : dict of str to Computing
        By precision.
    end_to_end : dict of str to EndToEnd
        For float32, and for the fastest precision if that is another one.
    stage_two : dict of str to Fitting
        By head.
    seconds : float
        Duration of the whole benchmark.
    """

    processor: dict[str, Any]
    versions: dict[str, str]
    engine: str
    backend: str
    devices: tuple[str, ...]
    backbone: str
    input_size: int
    crop: str
    repeats: int
    images: int
    data: str
    gflop_per_image: float
    bf16_peak_tflops: float | None
    decode: dict[int, Decoding]
    compute: dict[str, Computing]
    end_to_end: dict[str, EndToEnd]
    stage_two: dict[str, Fitting]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        values = asdict(self)
        values["devices"] = list(self.devices)
        values["decode"] = {str(threads): value for threads, value in values["decode"].items()}
        return values
