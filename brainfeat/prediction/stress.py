"""Try a head on altered images: chosen, altered, computed by stage one, and measured."""

import os
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from brainfeat import runtime
from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.formats import has_format
from brainfeat.cache.output import identify
from brainfeat.cache.schema import CACHE_SCHEMA
from brainfeat.errors import CacheError, ParameterError
from brainfeat.evaluation.bootstrap import N_RESAMPLES
from brainfeat.evaluation.stress import measure_stress
from brainfeat.evaluation.stress_results import Stress
from brainfeat.evaluation.units import choose_unit
from brainfeat.extraction.alterations import Alterations
from brainfeat.extraction.cropping import name_crop
from brainfeat.extraction.engines import Engine
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.extraction.task import Progress
from brainfeat.files import check_folder
from brainfeat.heads.base import select_maps
from brainfeat.heads.bundle import HeadBundle, loaded
from brainfeat.heads.kinds import takes_maps
from brainfeat.prediction.predictor import Predictor
from brainfeat.prediction.sampling import Sample, choose_unseen
from brainfeat.tables.origin import find_origin
from brainfeat.tables.table import ImageTable, read_table

# Images that are altered unless another number is given.
N_IMAGES = 200
# Each thread holds all views of an image, some 10 MB as 8-bit pixels of an input of 224.
_MOST_THREADS = 16


@default_errors
def stress(
    bundle: HeadBundle | str | os.PathLike[str],
    table: ImageTable | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    kinds: Collection[str] = (),
    number: int | None = N_IMAGES,
    split: str = "test",
    unit: str | None = None,
    group_label: str | None = None,
    weights: str | os.PathLike[str] = "imagenet",
    device: str = "auto",
    engine: Engine | Literal["auto"] = "auto",
    backbone: FeatureExtractor | None = None,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    overwrite: bool = False,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Stress:
    """Measure what alterations of images cost a head: blur, noise, rotation and others.

    A sample of the images that the head has not seen, nor copies of them, is altered in every kind
    and strength, as :class:`brainfeat.extraction.alterations.Alterations` describes them. Stage one
    computes the features of the altered images; those that an earlier run computed for the same
    output, whether or not that run finished, are not computed again.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head; its spec determines base, size, scaling and precision.
    table : ImageTable or path-like
        Labelled images, or the folder or CSV file that :func:`brainfeat.read_table` reads them
        from.
    output : path-like or None
        The cache of the altered images to write or to update. Another head of the same base needs
        seconds with it; no head is fitted on it. None keeps nothing.
    kinds : collection of str
        Kinds of alterations; all without any.
    number : int or None
        Largest number of images, or of groups where these are measured, each class by its share;
        None takes all.
    split : {"test", "val", "train", "all"}
        Which images. Of a table without splits, all are taken for ``"test"``.
    unit : {"image", "group"} or None
        What is chosen and measured, as in :func:`brainfeat.evaluate`. The answers for a group are
        those for its images that were altered in the same way.
    group_label : str or None
        As there.
    weights : {"imagenet", "random"} or path-like
        As in :class:`brainfeat.Predictor`.
    device : str
        As in :class:`brainfeat.Predictor`.
    engine : {"auto", "keras", "openvino"}
        As in :class:`brainfeat.Predictor`.
    backbone : callable or None
        Another source of features, as :func:`brainfeat.extract` takes it.
    batch_size : int or None
        As in :func:`brainfeat.extract`.
    n_jobs : int or None
        Threads that read, decode and alter, of which up to 16 alter; None takes all cores.
    overwrite : bool
        Whether an earlier output may be replaced that has other images, kinds or seeds.
    n_resamples : int
        Of the bootstrap, at least 1,000.
    random_state : int
        Seed of the sample, of what is drawn at random in alterations, and of the bootstrap.
    progress : callable or None
        As in :func:`brainfeat.extract`.

    Returns
    -------
    Stress
        Metrics for each kind and strength, by falling loss of accuracy.

    Raises
    ------
    ParameterError
        A kind is unknown, or another option is out of range.
    TableError
        The table has no labelled images in the split, or the head has seen them all.
    BundleError
        The images are of a class that the head does not have.
    SpecMismatchError
        The base is another one than that of the head, or the images were made of volumes in
        another way.
    CacheError
        The output is not a cache of altered images, or has others.
    ImageReadError, WeightsError
        As in :func:`brainfeat.extract`.

    Examples
    --------
    >>> from brainfeat import fit_head
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=6, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     bundle = fit_head(result.output, head="knn")
    ...     found = stress(bundle, table, kinds=["blur"], number=8, weights="random")
    >>> found.n, found.reference.flips, len(found.altered)
    (8, 0.0, 5)
    """
    if number is not None and number < 1:
        raise ParameterError(f"number {number}; expected 1 or more, or None for all")
    alterations = Alterations(kinds=kinds, random_state=random_state)
    if output is not None:
        _check_kind(Path(output))
        check_folder(Path(output).parent, error=CacheError)
    bundle = loaded(bundle)
    bundle.require_one_block("a stress test")
    if not isinstance(table, ImageTable):
        table = read_table(table)
    base = Predictor(
        bundle, weights=weights, device=device, engine=engine, backbone=backbone
    ).backbone
    origin = find_origin(table.root, table.paths)
    volumes, value_range = origin.policy if origin else "", bundle.spec.value_range
    crop = bundle.spec.crop
    found_spec = select_maps(base.spec) if takes_maps(bundle.head) else base.spec
    bundle.check_spec(replace(found_spec, volumes=volumes, value_range=value_range, crop=crop))
    sample = choose_unseen(
        bundle,
        table,
        number=number,
        split=split,
        rule=choose_unit(unit, group_label, [bundle]),
        random_state=random_state,
        n_jobs=n_jobs,
    )
    with ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(TemporaryDirectory(prefix="brainfeat-")), "stress.h5")
        elif not overwrite:
            _check_content(Path(output), sample, alterations)
        extraction = extract(
            sample.table,
            output,
            backbone=base,
            alterations=alterations,
            batch_size=batch_size,
            n_jobs=min(n_jobs or runtime.usable_cores(), _MOST_THREADS),
            overwrite=overwrite,
            value_range=value_range,
            crop=name_crop(crop),
            progress=progress,
        )
        found = measure_stress(
            bundle,
            output,
            unit=unit,
            group_label=group_label,
            n_resamples=n_resamples,
            random_state=random_state,
        )
    left_out = Counter(sample.left_out) + Counter(found.left_out)
    return replace(
        found, left_out=dict(left_out), notes=(*sample.notes, *found.notes, *extraction.warnings)
    )


def _check_kind(output: Path) -> None:
    """Refuse an existing output of another kind, such as a cache of images as they are."""
    if identify(output) is None:
        return
    try:
        is_cache = output.is_file() and has_format(output, CACHE_SCHEMA.format)
    except OSError as error:
        raise CacheError(f"{output} cannot be read ({error.strerror})") from error
    if is_cache:
        with FeatureCache.open(output, verify="off") as cache:
            is_cache = cache.is_altered
    if not is_cache:
        raise CacheError(
            f"{output} is not a cache of altered images and is not replaced; name another output"
        )


def _check_content(output: Path, sample: Sample, alterations: Alterations) -> None:
    """Refuse, before any work, an output that has what this run would drop."""
    if not output.exists():
        return
    with FeatureCache.open(output) as cache:
        if cache.augmentation != alterations.to_dict():
            reason = "alterations of another seed, or of another version of brainfeat"
        elif {*cache.view.tolist()} - {*alterations.views}:
            reason = "kinds of alterations that were not chosen"
        elif {digest.tobytes() for digest in cache.sha256} - sample.digests:
            reason = "images that are not in this sample"
        else:
            return
    raise CacheError(
        f"{output} has {reason}; name another output, choose the same options as before, or pass "
        "overwrite=True"
    )
