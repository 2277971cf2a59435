"""STAGE ONE: a table and a backbone become a feature cache; resumable and incremental."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.arithmetic import default_errors
from brainfeat.cache.locks import lock_folder
from brainfeat.cache.output import Output, Overtaken, identify
from brainfeat.cache.schema import Rejected
from brainfeat.cache.shards import make_folder, parts_folder
from brainfeat.cache.spec import Pooling, Scaling
from brainfeat.errors import CacheError, ParameterError, TableError
from brainfeat.extraction.alterations import Alterations
from brainfeat.extraction.augmentation import VIEW_LIMIT, Augmentation
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.cropping import Crop, check_crop
from brainfeat.extraction.engines import Engine
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.extraction.int8_calibration import ChosenPrecision, load_calibrated
from brainfeat.extraction.run import Run
from brainfeat.extraction.style_targets import add_targets
from brainfeat.extraction.task import Progress, Task
from brainfeat.readers import read_pixels
from brainfeat.readers.ranges import DTYPE, check_range
from brainfeat.tables.opening import open_table
from brainfeat.tables.origin import Origin, find_origin
from brainfeat.tables.table import ImageTable
from brainfeat.tables.volume_table import VolumeTable

# How often other runs may write the output first, on a file system without locks.
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The result of one run of stage one.

    Attributes
    ----------
    rows : int
        Rows of the cache: images × views.
    computed, reused : int
        Rows whose features were computed by this run, and all other rows: those of earlier runs,
        and those of exact duplicates of another file.
    signatures : int
        Signatures that were computed: of new images, and of those whose rows had none.
    rejected : tuple of Rejected
        Images and volumes that could not be read, with reasons. Volumes are named by number.
    seconds : float
        Duration of the run.
    images_per_second : float
        Computed rows per second of the run.
    precision : str
        What the features were computed in.
    engine : str
        What computed them: ``"keras"``, ``"openvino"``, or ``""`` for a callable.
    fingerprint : str
        Fingerprint of the spec that the cache states, 64 hexadecimal digits.
    output : Path
        The cache.
    uncropped : int
        Images that this run read and did not crop, because their foreground could not be told or
        was the whole image; 0 without a crop.
    warnings : tuple of str
        What is probably a mistake in the images or volumes that this run read, each with its
        remedy.
    """

    rows: int
    computed: int
    reused: int
    signatures: int
    rejected: tuple[Rejected, ...]
    seconds: float
    images_per_second: float
    precision: str
    engine: str
    fingerprint: str
    output: Path
    uncropped: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            **asdict(self),
            "rejected": list(map(asdict, self.rejected)),
            "output": str(self.output),
            "warnings": list(self.warnings),
        }


@default_errors
def extract(
    table: ImageTable | VolumeTable | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    backbone: str | FeatureExtractor = "vgg16",
    weights: str | os.PathLike[str] = "imagenet",
    scaling: Scaling = "weights",
    input_size: int = 224,
    precision: ChosenPrecision = "auto",
    device: str = "auto",
    engine: Engine | Literal["auto"] = "auto",
    layers: Sequence[str] = (),
    pooling: Pooling = "mean",
    augment: int = 0,
    augmentation: Augmentation | None = None,
    alterations: Alterations | None = None,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    overwrite: bool = False,
    signature: bool = True,
    value_range: str = DTYPE,
    crop: Crop = "none",
    random_state: int = 0,
    force: bool = False,
    read: Callable[..., NDArray[Any]] = read_pixels,
    progress: Progress | None = None,
) -> Extraction:
    """Run a frozen base over every image of a table once and cache its pooled features.

    Rows are identified by the content of the image files or slices: a row that an earlier run
    computed, whether or not that run finished, is not computed again. The cache then has the images
    of the table, in the order of the table.

    Volumes are decoded one after another and cut in memory. Their rows are those of the folder that
    :func:`brainfeat.write_slices` makes of them.

    Parameters
    ----------
    table : ImageTable, VolumeTable or path-like
        The images; or the volumes, which :func:`brainfeat.read_volumes` finds; or the folder or CSV
        file that either function reads them from.
    output : path-like
        The cache to write or to update. Rows of an unfinished run are kept in ``OUTPUT.parts``.
    backbone : str or FeatureExtractor, default="vgg16"
        Name of a base, to which the options `weights` to `pooling` belong; or a callable from
        float32 images (n, h, w, 3) to float32 features (n, d) with the attributes ``spec`` and
        ``recipe`` (:class:`brainfeat.extraction.feature_extractors.FeatureExtractor`).
    weights : {"imagenet", "random"} or path-like, default="imagenet"
        Weights of a base that is given by name.
    scaling : {"weights", "unit"}, default="weights"
        Whether such a base gets the values that its weights were trained with, or 0 to 1.
    input_size : int, default=224
        Height and width in pixels of what such a base sees.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Number format of the convolutions; pooling is in float32. ``"int8"`` needs OpenVINO; it is
        calibrated on 300 training images, and refused for a base whose features it changes.
        ``"auto"`` continues in the precision of an existing output, finished or not; for a new one
        it chooses as :func:`brainfeat.extraction.backbones.load_backbone` does.
    device : str, default="auto"
        Where such a base is computed, as in
        :func:`brainfeat.extraction.backbones.load_backbone`.
    engine : {"auto", "keras", "openvino"}, default="auto"
        What computes such a base, as in
        :func:`brainfeat.extraction.backbones.load_backbone`; the features are the same to rounding.
    layers : sequence of str, default=()
        Names in Keras of the layers of such a base whose features are kept, all in one pass; none
        takes the last. A head is fitted on the deepest, unless another is selected.
    pooling : {"mean", "max", "none"}, default="mean"
        How the map of a layer becomes a vector: by its mean or its largest value in each channel.
        ``"none"`` takes the means, and keeps the maps of the deepest layer in float16 beside them.
    augment : int, default=0
        Augmented views to add to each image of the train split, or to every labelled image if the
        table has no splits.
    augmentation : Augmentation or None
        Ranges, seed and style of the views; None takes the defaults with `random_state`.
    alterations : Alterations or None
        Altered views to add to each image, with `augment` 0: those that a head is tried on by
        :func:`brainfeat.stress`, and none is fitted on.
    batch_size : int or None
        Images in a batch, at most as many as the table gives; None takes what suits the device and
        the size of the images.
    n_jobs : int or None
        Threads that read and decode; None takes all cores.
    on_error : {"skip", "raise"}, default="skip"
        Whether an image that cannot be read is listed in the cache or ends the run.
    overwrite : bool, default=False
        Whether an output may be replaced that is damaged, has another spec, or has images that are
        not in the table or signatures that are not wanted.
    signature : bool, default=True
        Whether to store the signature of each image, by which its copies are found in any
        orientation (``brainfeat.cache.signature``). A signature is as personal as a small
        picture of the image. An output without signatures gets them: its images are decoded again,
        but no features are computed.
    value_range : str, default="dtype"
        What images of more than 8 bits are divided by to become [0, 1]: ``"dtype"``, the largest
        value of their type; ``"image"``, the largest value of each image; ``"bits:N"``, 2^N − 1.
        It is part of the spec, so that heads of these features read images the same way.
    crop : {"none", "foreground"}, default="none"
        What an image is cropped to before it is resized: with ``"foreground"``, to the largest
        bright region and a margin (:func:`brainfeat.extraction.cropping.find_box`). An image
        without such a region stays whole. It is part of the spec, so that heads of these features
        crop images the same way. Signatures are those of whole images.
    random_state : int, default=0
        Seed of ``weights="random"``, of the views, and of the images that int8 is calibrated on.
    force : bool, default=False
        Whether int8 is accepted for a base whose features it changes by more than
        :data:`brainfeat.extraction.int8_calibration.LEAST_COSINE` allows.
    read : callable
        From a binary file object, a `name` for errors and, unless it is ``"dtype"``, a
        `value_range`, to an image (h, w, 3), float32 in [0, 1] or uint8.
    progress : callable or None
        Called with the number of finished images or volumes, their total, and the precision with
        the engine.

    Returns
    -------
    Extraction
        What was computed, what was reused, and where it is.

    Raises
    ------
    CacheError
        If the output cannot be used or written. It is left as it was.
    TableError
        If the table cannot be read or is empty, or its images were made of volumes in several ways.
    ImageReadError
        If no image can be read, or if one cannot and `on_error` is ``"raise"``.
    ParameterError
        If an option is unknown or out of range.
    WeightsError
        If the weights are missing or wrong.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     result = extract(
    ...         write_phantoms(f"{folder}/slices", patients_per_class=2, size=48),
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    >>> result.rows, result.computed
    (32, 32)
    """
    started = time.perf_counter()
    output = Path(output)
    identify(output)
    _check_options(batch_size=batch_size, augment=augment, n_jobs=n_jobs, on_error=on_error)
    if augment and alterations is not None:
        raise ParameterError("augment and alterations exclude each other; pass one of them")
    check_range(value_range)
    cropped_to = check_crop(crop)
    if not isinstance(table, ImageTable | VolumeTable):
        table = open_table(table)
    if not len(table):
        raise TableError("the table has no images; expected at least one")
    if isinstance(table, VolumeTable):
        _check_unused(value_range=value_range, read=read)
        origin: Origin | None = table.origin
    else:
        origin = find_origin(table.root, table.paths)
    if value_range != DTYPE:
        read = partial(read, value_range=value_range)
    task = Task(
        table=table,
        origin=origin,
        parts=parts_folder(output),
        augment=augment,
        augmentation=augmentation or Augmentation(random_state=random_state),
        alterations=alterations,
        batch_size=batch_size,
        n_jobs=n_jobs or runtime.usable_cores(),
        on_error=on_error,
        signature=signature,
        value_range=value_range,
        crop=cropped_to,
        read=read,
        random_state=random_state,
        progress=progress,
    )
    task = add_targets(task, backbone, input_size=input_size)
    load = partial(
        load_backbone,
        weights=weights,
        scaling=scaling,
        input_size=input_size,
        random_state=random_state,
        device=device,
        engine=engine,
        layers=tuple(layers),
        pooling=pooling,
    )
    loaded: Backbone | None = None
    computed = signatures = 0
    with lock_folder(task.parts) as alone:
        for _ in range(_ATTEMPTS):
            with suppress(Overtaken), ExitStack() as stack:
                found = Output(output, stack, overwrite=overwrite)
                if found.cache is None:
                    make_folder(task.parts)  # what cannot be written is said before any work
                if isinstance(backbone, str):
                    loading = partial(load, backbone)
                    loaded = load_calibrated(loading, found.spec, task, precision, force=force)
                    backbone = loaded
                run = Run(task, backbone, found)
                try:
                    run.compute()
                finally:
                    computed += run.computed
                    signatures += run.signatures
                if loaded is not None:
                    loaded.release()  # the merge takes memory of its own
                run.merge(alone=alone)
                break
        else:
            raise CacheError(
                f"{output} was written by other runs {_ATTEMPTS} times while this one was at work; "
                "its finished rows are kept; run it again when the others have ended"
            )
    return _summarize(run, computed, signatures, output=output, started=started)


def _summarize(
    run: Run, computed: int, signatures: int, *, output: Path, started: float
) -> Extraction:
    rows, seconds = sum(1 for _ in run.list_rows()), time.perf_counter() - started
    return Extraction(
        rows=rows,
        computed=computed,
        reused=max(0, rows - computed),
        signatures=signatures,
        rejected=tuple(run.rejected),
        seconds=seconds,
        images_per_second=computed / seconds,
        precision=run.spec.precision,
        engine=run.engine,
        fingerprint=run.spec.fingerprint,
        output=output,
        uncropped=run.sights.uncropped,
        warnings=run.warnings,
    )


def _check_unused(*, value_range: str, read: Callable[..., NDArray[Any]]) -> None:
    """Refuse for volumes what says how image files are read."""
    if value_range != DTYPE or read is not read_pixels:
        name = "read" if value_range == DTYPE else "value_range"
        raise ParameterError(
            f"{name} is given, which is for image files; leave it out for volumes, whose values"
            " become grey by the window of their policy"
        )


def _check_options(
    *, batch_size: int | None, augment: int, n_jobs: int | None, on_error: str
) -> None:
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size {batch_size}; expected at least 1, or None")
    if not 0 <= augment <= VIEW_LIMIT:
        raise ParameterError(f"{augment} views of each image; expected 0 to {VIEW_LIMIT:,}")
    if n_jobs is not None and n_jobs < 1:
        raise ParameterError(f"{n_jobs} jobs; expected at least 1, or None for all cores")
    if on_error not in ("skip", "raise"):
        raise ParameterError(f"unknown on_error {on_error!r}; expected skip or raise")
