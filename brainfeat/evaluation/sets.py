"""Measure a head on several sets of images, and compare each with the head's own test part."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BrainfeatError, ParameterError
from brainfeat.evaluation.block_caches import select_features
from brainfeat.evaluation.class_mapping import (
    Classes,
    ClassesArgument,
    ClassTask,
    check_mappings,
    require_used,
)
from brainfeat.evaluation.prevalence import check_prevalence
from brainfeat.evaluation.results import Evaluation, Results
from brainfeat.evaluation.sample import Protocol, measure_images
from brainfeat.evaluation.set_results import (
    Reference,
    SetEvaluation,
    SetOverlap,
    SetRow,
    SetsEvaluation,
)
from brainfeat.evaluation.subsets import Cache, Head, Plan, plan_images, read_column
from brainfeat.evaluation.units import GROUP, IMAGE, choose_unit
from brainfeat.evaluation.unpaired import SetDifference, Side, find_set_difference

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.metrics import Metrics

Flags = NDArray[np.bool_]

# Place of the test part among the splits of a head's images.
_TEST = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Set:
    """A set that is open, and what of it is measured."""

    cache: "FeatureCache"
    plan: Plan
    # Which images or groups are of the head's own test part; None where it is not here as a whole.
    test_part: Flags | None

    @property
    def name(self) -> str:
        return str(self.cache.path)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Predicted:
    """The own test part: true classes, and probabilities, or predicted classes alone."""

    y: NDArray[np.intp]
    outputs: NDArray[np.float64]
    groups: NDArray[np.intp]

    def translate(self, task: ClassTask) -> Side:
        """Say what was predicted of the classes of a task."""
        return Side(
            y=task.translate(self.y),
            predicted=task.add_up(self.outputs).argmax(axis=1),
            groups=self.groups,
        )


def evaluate_sets(
    bundle: Head,
    caches: Sequence[Cache],
    *,
    classes: ClassesArgument,
    protocol: Protocol,
) -> SetsEvaluation:
    """Measure a head on several caches; what cannot be measured is refused before any is.

    Parameters
    ----------
    bundle : HeadBundle or path-like
    caches : sequence of FeatureCache or path-like
    classes : mapping, str, sequence of these, or None
        As in :func:`brainfeat.evaluate`, as is what is raised.
    protocol : Protocol

    Returns
    -------
    SetsEvaluation
    """
    from brainfeat.cache.cache import opened
    from brainfeat.heads.bundle import loaded
    from brainfeat.leakage.matching import require_different

    if not caches:
        raise ParameterError("no caches; expected one or more")
    if protocol.audit is not None:
        raise ParameterError("an audit is that of one cache, got several; pass audit=None")
    head = loaded(bundle)
    mappings = check_mappings(classes, head.class_names)
    with ExitStack() as stack:
        features = [stack.enter_context(opened(cache)) for cache in caches]
        require_different(features)
        sets = [_plan_set(head, cache, protocol, mappings) for cache in features]
        require_used(mappings, [entry.plan.mapping for entry in sets])
        found = [_measure_set(head, entry, protocol) for entry in sets]
        overlaps, unsigned = _find_overlaps(sets)
    own, reference = _find_reference(head, sets, found)
    return SetsEvaluation(
        sets=tuple(
            _describe_set(entry, evaluation, own, protocol)
            for entry, evaluation in zip(sets, found, strict=True)
        ),
        reference=reference,
        overlaps=overlaps,
        unsigned=unsigned,
    )


@contextmanager
def _naming(cache: "FeatureCache") -> Iterator[None]:
    """Name the cache that an error is about."""
    try:
        yield
    except BrainfeatError as error:
        raise type(error)(f"{cache.path}: {error}") from error


def _plan_set(
    head: "HeadBundle",
    cache: "FeatureCache",
    protocol: Protocol,
    mappings: Sequence[Classes],
) -> _Set:
    with _naming(cache):
        cache = select_features(head, cache)
        rule = choose_unit(protocol.unit, protocol.group_label, [head])
        plan = plan_images(head, cache, protocol.split, mappings, rule=rule)
        check_prevalence(protocol.prevalence, plan.task.names)
        if protocol.by is not None:
            if not isinstance(protocol.by, str):
                raise ParameterError("by has the values of one cache; name a column for several")
            read_column(cache, protocol.by)
        return _Set(cache=cache, plan=plan, test_part=_find_test_part(head, cache, plan))


def _measure_set(head: "HeadBundle", entry: _Set, protocol: Protocol) -> Evaluation:
    with _naming(entry.cache):
        return measure_images(head, entry.cache, entry.plan, protocol)


def _find_test_part(head: "HeadBundle", cache: "FeatureCache", plan: Plan) -> Flags | None:
    """Find the images that the fit of a head held out for the test, by their content."""
    images = head.fitted_images
    if images is None:
        is_same = head.training.cache_sha256 == cache.content_sha256 and plan.split == "test"
        return np.ones(len(plan.y), np.bool_) if is_same else None
    held_out = _as_keys(images.sha256[images.split == _TEST])
    found = np.isin(_as_keys(cache.sha256[plan.rows]), held_out)
    digests = np.unique(_as_keys(cache.sha256[plan.rows[found]]))
    return plan.all(found) if len(held_out) and len(digests) == len(held_out) else None


def _as_keys(sha256: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(sha256).view("V32").reshape(-1)


def _find_overlaps(sets: Sequence[_Set]) -> tuple[tuple[SetOverlap, ...], tuple[str, ...]]:
    """Find copies between the measured images of each two sets, where these have signatures."""
    from brainfeat.leakage.cross_audit import describe_matching
    from brainfeat.leakage.matching import match_caches

    signed = [entry for entry in sets if entry.cache.signature is not None]
    unsigned = tuple(entry.name for entry in sets if entry.cache.signature is None)
    if len(signed) < 2:
        return (), unsigned if len(sets) > 1 else ()
    audit = describe_matching(
        match_caches([entry.cache for entry in signed], [entry.plan.rows for entry in signed])
    )
    return tuple(
        SetOverlap(
            first=overlap.first.cache,
            second=overlap.second.cache,
            copies_first=overlap.first.copies,
            copies_second=overlap.second.copies,
        )
        for overlap in audit.overlaps
        if overlap.first.copies
    ), unsigned


def _find_reference(
    head: "HeadBundle", sets: Sequence[_Set], found: Sequence[Evaluation]
) -> tuple[_Predicted | None, Reference | None]:
    """Find what the head predicts for its own test part: in a set, or else in its record."""
    for entry, evaluation in zip(sets, found, strict=True):
        predictions = evaluation.predictions
        if entry.test_part is None or entry.plan.task.mapping is not None or predictions is None:
            continue
        images, kept = "all", entry.test_part
        if predictions.copies is not None:
            images, kept = "without_copies", kept & ~predictions.copies
        chosen = predictions.select(kept)
        own = _Predicted(y=chosen.y, outputs=chosen.probabilities, groups=chosen.groups)
        return _name_reference(own, origin="set", cache=entry.name, images=images)
    recorded = _choose_recorded(head)
    if recorded is None or sets[0].plan.unit != (IMAGE if head.bag is None else GROUP):
        # The record of a head of images has nothing on groups.
        return None, None
    metrics, images = recorded
    own = _expand(metrics, head.class_names)
    return _name_reference(own, origin="record", cache=None, images=images)


def _choose_recorded(head: "HeadBundle") -> "tuple[Metrics, str] | None":
    """Choose the metrics of the test part in the record of a head: those without copies."""
    record = head.training
    if record.test_without_copies is not None:
        return record.test_without_copies, "without_copies"
    copies = None if record.leakage is None else record.leakage.copies
    if record.test is None or (copies is not None and copies.test_files):
        # There is none, or each of its images is a copy.
        return None
    return record.test, "all" if copies is None else "without_copies"


def _name_reference(
    own: _Predicted, *, origin: str, cache: str | None, images: str
) -> tuple[_Predicted | None, Reference | None]:
    if not len(own.y):
        return None, None
    right = own.outputs.argmax(axis=1) == own.y
    recalls = [right[own.y == label].mean() for label in np.unique(own.y)]
    return own, Reference(
        origin=origin,
        cache=cache,
        images=images,
        n=len(own.y),
        accuracy=float(right.mean()),
        balanced_accuracy=float(np.mean(recalls)),
    )


def _expand(metrics: "Metrics", class_names: Sequence[str]) -> _Predicted:
    """List the images of a confusion matrix, each as a group of its own."""
    matrix = np.array(metrics.confusion_matrix, np.intp)
    place = np.array([class_names.index(name) for name in metrics.class_names])
    y, predicted = (
        np.repeat(labels, matrix.ravel()) for labels in np.indices(matrix.shape).reshape(2, -1)
    )
    return _Predicted(
        y=place[y],
        outputs=np.eye(len(class_names))[place[predicted]],
        groups=np.arange(len(y)),
    )


def _describe_set(
    entry: _Set, evaluation: Evaluation, own: _Predicted | None, protocol: Protocol
) -> SetEvaluation:
    row = _make_row(evaluation)
    difference = None
    if own is not None and entry.test_part is None and row.n:
        difference = _compare(entry.plan.task, evaluation, own, protocol)
    return SetEvaluation(
        cache=entry.name,
        is_test_part=bool(entry.test_part is not None and entry.test_part.all()),
        row=row,
        difference=difference,
        evaluation=evaluation,
    )


def _compare(
    task: ClassTask, evaluation: Evaluation, own: _Predicted, protocol: Protocol
) -> SetDifference | None:
    predictions = evaluation.predictions
    if predictions is None:
        return None
    if predictions.copies is not None:
        predictions = predictions.select(~predictions.copies)
    there = Side(
        y=predictions.y,
        predicted=predictions.probabilities.argmax(axis=1),
        groups=predictions.groups,
    )
    return find_set_difference(
        own.translate(task),
        there,
        class_names=task.names,
        n_resamples=protocol.bootstrap.n_resamples,
        random_state=protocol.bootstrap.random_state,
    )


def _make_row(evaluation: Evaluation) -> SetRow:
    """Sum up the images of which the head has seen no copy; all, where these are not known."""
    predictions, subsets = evaluation.predictions, evaluation.subsets
    known = predictions is not None and predictions.copies is not None
    subset = subsets.without_copies if known else subsets.all
    results = evaluation if subset.n == evaluation.n else evaluation.copy_free
    return SetRow(
        images="without_copies" if known else "all",
        n=subset.n,
        n_groups=subset.n_groups,
        left_out=evaluation.n - subset.n,
        accuracy=subset.accuracy,
        balanced_accuracy=subset.balanced_accuracy,
        accuracy_interval=subset.intervals.accuracy if subset.intervals else None,
        balanced_accuracy_interval=(
            subset.intervals.balanced_accuracy if subset.intervals else None
        ),
        **({} if results is None or not subset.n else dict(_list_trust(results))),
    )


def _list_trust(results: Results) -> Iterator[tuple[str, Any]]:
    """Yield what answers and probabilities are worth."""
    yield "calibration_error", results.calibration.after.ece
    if (errors := results.confident_errors) is not None:
        yield "wrong", errors.wrong
        yield "confident_errors", errors.both
        yield "confident_above", errors.threshold
    if (found := results.abstention) is not None:
        yield "answered_accuracy", found.accuracy
        for name in ("answered", "target_coverage", "coverage", "coverage_interval"):
            yield name, getattr(found, name)
        yield "broken_coverage", found.broken_coverage
