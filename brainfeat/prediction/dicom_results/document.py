"""The structured report of a study: TID 1500 of DICOM PS3.16, a measurement group per volume."""

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainfeat.prediction import answers
from brainfeat.prediction.answers import Prediction
from brainfeat.prediction.description import describe, describe_caveats
from brainfeat.prediction.dicom_results import codes, objects
from brainfeat.prediction.dicom_results.codes import Code, to_concept
from brainfeat.prediction.dicom_results.study import (
    Study,
    check_head,
    find_study,
    require_highdicom,
)
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.prediction.predictor import Predictor
from brainfeat.readers.dicom.instances import Instance, Place, Places
from brainfeat.text import make_printable

KIND = "a structured report that brainfeat wrote"
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"  # Comprehensive SR
_SERIES_NUMBER = 9001
# SOP class and UID of an instance, and its frames, or None for all of them.
_Source = tuple[str, str, list[int] | None]
_COVERAGE = (
    "The target coverage of the prediction sets holds for single images that are like those of "
    "training, and not for volumes."
)


def write_sr(
    volumes: Sequence[PredictedVolume],
    path: str | os.PathLike[str],
    *,
    predictor: Predictor,
    overwrite: bool = False,
) -> Path:
    """Write the predictions for the DICOM volumes of a study as a structured report.

    It is a Comprehensive SR by TID 1500 (Measurement Report), unverified and preliminary, with a
    measurement group for each volume. Only a class that is predicted without being forced is its
    finding. The file names the patient, as the images do.

    Parameters
    ----------
    volumes : sequence of PredictedVolume
        As :func:`collect_volumes` returns them, of one study.
    path : path-like
        The file to write.
    predictor : Predictor
        What predicted; its head was loaded from a file.
    overwrite : bool, default=False
        Whether an existing report of brainfeat may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        The volumes are not DICOM, or of several patients or studies, or have no valid UIDs, or
        none could be read; or the head has not been saved, or takes bags.
    ImageReadError
        A file changed since it was predicted.
    BrainfeatError
        The file exists, or cannot be written.
    MissingDependencyError
        highdicom is not installed.

    Examples
    --------
    >>> from brainfeat.prediction.dicom_results import collect_volumes, write_sr
    >>> from brainfeat.readers.series import find_inputs
    >>> def report(predictor, folder, path):
    ...     found = collect_volumes(predictor.predict_inputs(find_inputs([folder])))
    ...     return write_sr(found, path, predictor=predictor)
    """
    path = Path(path)
    objects.save({path: encode_sr(volumes, path, predictor=predictor, overwrite=overwrite)})
    return path


def encode_sr(
    volumes: Sequence[PredictedVolume], path: Path, *, predictor: Predictor, overwrite: bool
) -> bytes:
    """Make the content of a file; everything is checked as by `write_sr`."""
    require_highdicom()
    check_head(predictor.bundle)
    objects.check_target(path, volumes, overwrite=overwrite, kind=KIND, sop_classes={_SOP_CLASS})
    objects.require_digest(predictor)
    study = find_study(
        volumes, orientation=predictor.policy.orientation, result="structured report"
    )
    with objects.unnamed():
        report = _make_report(study, predictor)
        return objects.encode(report)


def is_report(path: Path) -> bool:
    """Return whether a file is a structured report that brainfeat wrote."""
    return objects.is_own(path, {_SOP_CLASS})


def _make_report(study: Study, predictor: Predictor) -> Any:
    from highdicom.sr import ComprehensiveSR

    instances = {
        instance.uid: instance for _, places in study.volumes for instance in places.instances
    }
    report = ComprehensiveSR(
        evidence=[objects.make_reference(study, instance) for instance in instances.values()],
        content=_make_content(study, predictor)[0],
        series_instance_uid=objects.make_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=objects.make_uid(),
        instance_number=1,
        is_complete=not study.unread,
        is_final=False,
        is_verified=False,
        **objects.describe_equipment(predictor),
    )
    report.SeriesDate, report.SeriesTime = report.ContentDate, report.ContentTime
    return report


def _make_content(study: Study, predictor: Predictor) -> Any:
    """Make the content tree: the report of highdicom, with a library and the notice."""
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=objects.make_device_uid(predictor),
        name="brainfeat",
        manufacturer_name=objects.MANUFACTURER,
        model_name=objects.name_model(predictor),
        serial_number=objects.require_digest(predictor),
    )
    modalities = {places.instances[0].modality for _, places in study.volumes}
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=to_concept(Code("DCM", "121007", "Device")),
                observer_identifying_attributes=device,
            )
        ),
        procedure_reported=[to_concept(codes.PROCEDURES[found]) for found in sorted(modalities)],
        imaging_measurements=[
            _make_group(volume, places, predictor) for volume, places in study.volumes
        ],
    )
    items = report[0].ContentSequence
    # In front of the measurements, which highdicom puts last: what is read first.
    for item in (_make_notes(study), _make_library(study)):
        items.insert(len(items) - 1, item)
    _separate(report[0])
    return report


def _separate(item: Any) -> None:
    """Let readers show the name of each item beside its value, not values as one running text."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", ()):
        _separate(child)


def _make_library(study: Study) -> Any:
    """List the images of each volume (TID 1600)."""
    from highdicom import sr

    def contain(code: Code, entries: Sequence[Any]) -> Any:
        container = sr.ContainerContentItem(name=to_concept(code), relationship_type="CONTAINS")
        container.ContentSequence = sr.ContentSequence(entries)
        return container

    groups = []
    for _, places in study.volumes:
        images = [
            sr.ImageContentItem(
                name=to_concept(codes.SOURCE),
                referenced_sop_class_uid=instance.sop_class,
                referenced_sop_instance_uid=instance.uid,
                relationship_type="CONTAINS",
            )
            for instance in places.instances
        ]
        groups.append(contain(codes.IMAGE_LIBRARY_GROUP, images))
    return contain(codes.IMAGE_LIBRARY, groups)


def _make_notes(study: Study) -> Any:
    """Say what the report is not, and what is not in it."""
    from highdicom import sr

    texts = [f"Not for diagnosis. {answers.NOTICE}", _COVERAGE]
    texts += [
        make_printable(f"Not predicted: {volume.prediction.path} {volume.prediction.error}.")
        for volume in study.unread
    ]
    container = sr.ContainerContentItem(
        name=to_concept(codes.EVALUATIONS), relationship_type="CONTAINS"
    )
    container.ContentSequence = sr.ContentSequence([_make_comment(text) for text in texts])
    return container


def _make_comment(text: str) -> Any:
    from highdicom.sr import TextContentItem

    return TextContentItem(name=to_concept(codes.COMMENT), value=text, relationship_type="CONTAINS")


def _make_group(volume: PredictedVolume, places: Places, predictor: Predictor) -> Any:
    """Make the measurement group of a volume (TID 1501)."""
    from highdicom import sr

    prediction = volume.prediction
    decided = prediction.decision in prediction.probabilities and not prediction.forced
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=objects.make_uid(), identifier=prediction.path
        ),
        finding_type=(to_concept(codes.code_class(str(prediction.decision))) if decided else None),
        algorithm_id=sr.AlgorithmIdentification(
            name="brainfeat",
            version=version("brainfeat"),
            parameters=[make_printable(line) for line in objects.describe_parameters(predictor)],
            manufacturer=objects.MANUFACTURER,
        ),
        measurements=[
            *_measure_probabilities(prediction),
            *_measure_reasons(prediction, predictor),
            *_measure_slices(prediction, places),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name=to_concept(name), value=to_concept(value))
            for name, value in _evaluate(prediction)
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(*source) for source in _list_sources(places)
        ],
    )
    sentences = [f"{prediction.path}: {describe(prediction)}.", *describe_caveats(prediction)]
    group[0].ContentSequence.append(_make_comment(make_printable(" ".join(sentences))))
    return group


def _evaluate(prediction: Prediction) -> Iterator[tuple[Code, Code]]:
    """Name what the head decides, and for which reasons."""
    match prediction.unforced:
        case answers.OUT_OF_DISTRIBUTION:
            yield codes.DECISION, codes.OUT_OF_DISTRIBUTION
        case answers.UNCERTAIN:
            yield codes.DECISION, codes.INDETERMINATE
        case decision:
            yield codes.DECISION, codes.code_class(str(decision))
    if prediction.forced:
        yield codes.FORCED, codes.code_class(str(prediction.decision))
    if prediction.prediction_set is not None:
        for name in prediction.prediction_set:
            yield codes.IN_SET, codes.code_class(name)
        if not prediction.prediction_set:
            yield codes.IN_SET, codes.NONE
    if prediction.out_of_distribution is not None:
        yield codes.IS_ODD, codes.YES if prediction.is_flagged else codes.NO


def _measure_probabilities(prediction: Prediction) -> Iterator[Any]:
    """Measure the probability of each class, with the code of the class beside it."""
    from highdicom.sr import CodeContentItem

    for name, probability in prediction.probabilities.items():
        measured = _measure(codes.code_probability(name), probability)
        of_class = CodeContentItem(
            name=to_concept(codes.FINDING),
            value=to_concept(codes.code_class(name)),
            relationship_type="HAS CONCEPT MOD",
        )
        _append_to(measured, of_class)
        yield measured


def _measure_reasons(prediction: Prediction, predictor: Predictor) -> Iterator[Any]:
    if prediction.prediction_set is not None:
        yield _measure(codes.COVERAGE, predictor.coverage)
    ood = prediction.out_of_distribution
    if ood is not None:
        yield _measure(codes.SCORE, ood.score)
        if ood.threshold is not None:
            yield _measure(codes.THRESHOLD, ood.threshold)


def _measure_slices(prediction: Prediction, places: Places) -> Iterator[Any]:
    """Count the slices with each decision; those of a class are referred to."""
    summary = prediction.slices
    if summary is None:
        return
    yield _measure(codes.SLICES, summary.n, unit=codes.COUNTED)
    own = {
        answers.UNCERTAIN: codes.UNCERTAIN_SLICES,
        answers.OUT_OF_DISTRIBUTION: codes.ODD_SLICES,
    }
    for name, number in summary.decisions.items():
        frames = summary.carried_by.get(name, ())
        carriers = [found for frame in frames if (found := places.find(frame)) is not None]
        code = own.get(name) or codes.code_slices(name)
        yield _measure(code, number, unit=codes.COUNTED, carriers=carriers)
    if summary.seen:
        yield _measure(codes.SEEN, summary.seen, unit=codes.COUNTED)


def _measure(
    code: Code, value: float, *, unit: Code = codes.NO_UNITS, carriers: Sequence[Place] = ()
) -> Any:
    from highdicom import sr

    return sr.Measurement(
        name=to_concept(code),
        value=value,
        unit=to_concept(unit),
        referenced_images=[sr.SourceImageForMeasurement(*source) for source in _merge(carriers)],
    )


def _list_sources(places: Places) -> list[_Source]:
    if places.slices:
        return _merge(places.slices)
    return [(instance.sop_class, instance.uid, None) for instance in places.instances]


def _merge(slices: Iterable[Place]) -> list[_Source]:
    """Refer to each instance once, with the numbers of its frames where some are not meant."""
    instances: dict[str, Instance] = {}
    frames: dict[str, list[int]] = {}
    for instance, frame in slices:
        instances[instance.uid] = instance
        frames.setdefault(instance.uid, []).extend(() if frame is None else (frame,))
    return [
        (
            instance.sop_class,
            uid,
            sorted(frames[uid]) if 0 < len(frames[uid]) < instance.n_frames else None,
        )
        for uid, instance in instances.items()
    ]


def _append_to(measured: Any, item: Any) -> None:
    """Append to the content of a measurement, which has none where nothing was in it."""
    from highdicom.sr import ContentSequence

    number = measured[0]
    if "ContentSequence" not in number:
        number.ContentSequence = ContentSequence()
    number.ContentSequence.append(item)
