"""From image files to predictions, with the reasons to abstain."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from brainfeat import runtime
from brainfeat.arithmetic import default_errors
from brainfeat.cache.spec import Precision
from brainfeat.errors import BundleError, ImageReadError
from brainfeat.extraction.engines import Engine
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.heads.bags import Features
from brainfeat.heads.bundle import HeadBundle, loaded
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE
from brainfeat.prediction.answers import Answer, Prediction
from brainfeat.prediction.decisions import make_decision_rule
from brainfeat.prediction.feature_source import FeatureSource
from brainfeat.prediction.images import ImageCounter, InputImage, choose_policy, count_images
from brainfeat.prediction.inputs import take_inputs
from brainfeat.prediction.joined_bases import (
    JoinedBases,
    Weights,
    load_bases,
    require_bases,
)
from brainfeat.prediction.patients import (
    Belonging,
    choose_belonging,
    find_belonging,
    predict_patients,
)
from brainfeat.readers.held import list_given
from brainfeat.readers.series import Inputs, Series
from brainfeat.tables.pseudonyms import Kind, check_key, hash_identity
from brainfeat.tables.volume_patients import Patient, find_patients

if TYPE_CHECKING:
    from brainfeat.readers.held import Given

Progress = Callable[[int, int], None]


class Predictor:
    """A head with its base, or bases, loaded once for many images.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head; its spec determines base, size, scaling and precision.
    weights : {"imagenet", "random"}, path-like, or mapping of str to these
        Where the weights of the base are, as in
        :func:`brainfeat.extraction.backbones.load_backbone`; of a head that was fitted on several
        bases of the same images, by the name of a block of each.
    precision : {"float32", "bfloat16", "float16"} or None
        A higher precision than that of the spec; None takes the spec's.
    coverage : float
        Target coverage of the prediction set, per class: the least fraction of the images of each
        class whose prediction set has to hold the true class.
    false_alarm_rate : float
        Largest fraction of images like the held-out ones that may be flagged as out of
        distribution.
    force : bool
        Whether the most probable class is the decision although the head would abstain.
    device : str
        As in :func:`brainfeat.extraction.backbones.load_backbone`.
    engine : {"auto", "keras", "openvino"}
        As in :func:`brainfeat.extraction.backbones.load_backbone`.
    backbone : callable or None
        Another source of features, with the attribute ``spec``; or those of
        :func:`brainfeat.prediction.joined_bases.load_bases`.
    n_images : int or None
        The largest number of images, if that is known: for few, less is compiled.
    slices, window, orientation : str or None
    volume : int or None
        How volumes become images, as in :class:`brainfeat.SlicePolicy`; None takes what the head
        was fitted on.
    allow_burned_in : bool
        Whether DICOM files that may show a name in their pixels are read.
    patient_key : bytes or None
        Key that patients and volumes are hashed with, as :func:`brainfeat.write_slices` does, so
        that predictions can be joined with its table; None leaves them without hashes.

    Raises
    ------
    BundleError
        The bundle cannot be read, or a class has the name of an abstention.
    SpecMismatchError
        The base is another one than that of the spec, such as one with other weights, or computes
        in a lower precision; or the window or the orientation is another one.
    WeightsError
        The weights are missing or wrong.
    ParameterError
        One of the other arguments is out of range, or the key is too short.
    """

    def __init__(
        self,
        bundle: HeadBundle | str | os.PathLike[str],
        *,
        weights: Weights = "imagenet",
        precision: Precision | None = None,
        coverage: float = COVERAGE,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        force: bool = False,
        device: str = "auto",
        engine: Engine | Literal["auto"] = "auto",
        backbone: FeatureExtractor | JoinedBases | None = None,
        n_images: int | None = None,
        slices: str | None = None,
        window: str | None = None,
        orientation: str | None = None,
        volume: int | None = None,
        allow_burned_in: bool = False,
        patient_key: bytes | None = None,
    ) -> None:
        check_key(patient_key)
        bundle = loaded(bundle)
        if bundle.blocks is not None and bundle.takes_modalities:
            raise BundleError(
                "the head takes several modalities; give the images of each by its name: "
                f"{', '.join(bundle.blocks.names)}"
            )
        self._rule = make_decision_rule(
            bundle, coverage=coverage, false_alarm_rate=false_alarm_rate, force=force
        )
        self.bundle = bundle
        self.policy = choose_policy(
            bundle.specs[0], slices=slices, window=window, orientation=orientation, volume=volume
        )
        self._patient_key = patient_key
        self.coverage, self.false_alarm_rate = coverage, false_alarm_rate
        self.backbone = backbone or load_bases(
            bundle, weights=weights, precision=precision, device=device, engine=engine
        )
        require_bases(bundle, self.backbone)
        self._source = FeatureSource(
            bundle=bundle,
            backbone=self.backbone,
            policy=self.policy,
            allow_burned_in=allow_burned_in,
            n_images=n_images,
        )

    @property
    def precision(self) -> str:
        """The precision of the convolutions; of several bases, those of each, once."""
        if isinstance(self.backbone, JoinedBases):
            return self.backbone.precision
        return self.backbone.spec.precision

    @property
    def engine(self) -> str:
        """What computes the features, or ``""`` for a callable that does not tell."""
        return str(getattr(self.backbone, "engine", ""))

    def predict(
        self,
        images: "Given | Iterable[Given]",
        *,
        keep_masks: bool = False,
        group_level: int | None = None,
        n_jobs: int | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Predict image files, the images in folders, volumes, and images in memory.

        Parameters
        ----------
        images : path-like, PIL.Image.Image, ndarray, or iterable of these
            Files of images and volumes (DICOM, NIfTI, MGH, MATLAB), and folders of them. An array
            is one image, (h, w) or (h, w, 3), either uint8, or of floating point in [0, 1].
        keep_masks : bool
            Whether masks in folders are predicted, which :func:`brainfeat.read_table` leaves out.
        group_level : int or None
            Only for a bag head: which folder below the given ones is the patient, from 1; None
            takes images in one folder, images in memory, and volumes of one patient together.
        n_jobs : int or None
            Threads that read and decode; None takes all cores.
        progress : callable or None
            Called with the number of images that are done, and of all that are known: the slices of
            a volume are counted when it is read.

        Returns
        -------
        list of Prediction
            For the images, in their order; then for files that are no image; then for each volume
            one for itself and one for each slice. What cannot be read has an `error`. A bag head
            gives one for each patient, and one for each image or volume that cannot be read.

        Raises
        ------
        ParameterError
            Something else was given, or an image in memory whose white is not known; or all images
            are masks; or the head takes single images, and `group_level` is given.
        """
        given = list_given(images)
        inputs, _ = take_inputs(given, keep_masks=keep_masks)
        found = self.predict_inputs(
            inputs,
            belonging=choose_belonging(self.bundle, inputs, given, group_level=group_level),
            n_jobs=n_jobs,
            progress=progress,
        )
        return [answer.prediction for answer in found]

    def predict_inputs(
        self,
        inputs: Inputs,
        *,
        belonging: Belonging | None = None,
        keep_images: bool = False,
        n_jobs: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Answer]:
        """Predict images and volumes one after another, each of which is read once.

        Parameters
        ----------
        inputs : Inputs
            As ``brainfeat.readers.series.find_inputs`` returns them.
        belonging : Belonging or None
            Of a bag head, whose the inputs are; None finds it without `group_level`.
        keep_images : bool
            Whether the answers have their images, such as for heat maps; those of a bag head have
            none.
        n_jobs : int or None
            As in :meth:`predict`.
        progress : callable or None
            As in :meth:`predict`.

        Yields
        ------
        Answer
            In the order of :meth:`predict`.
        """
        number, counter = len(inputs.images), ImageCounter(progress, total=len(inputs.images))
        threads = n_jobs or runtime.usable_cores()
        if self.bundle.bag is not None:
            found = predict_patients(
                self._source,
                self._rule,
                inputs,
                belonging=belonging or find_belonging(inputs),
                counter=counter,
                n_jobs=threads,
                hash_name=self._hash,
            )
            yield from (Answer(prediction=prediction) for prediction in found)
            return
        images = self._source.read(inputs, keep_pixels=keep_images, n_jobs=threads)
        yield from self._predict_images(images, number, counter)
        for entry in inputs.unreadable:
            yield Answer(prediction=Prediction(path=entry.name, error=entry.reason))
        for series, patient in zip(inputs.series, find_patients(inputs.series), strict=True):
            yield from self._predict_volume(series, patient, counter, keep_pixels=keep_images)

    def predict_series(self, series: Series) -> list[Prediction]:
        """Predict a volume, and each of its slices; or report why it cannot be read.

        Parameters
        ----------
        series : Series
            As ``brainfeat.readers.series.find_series`` returns it.

        Returns
        -------
        list of Prediction
            For the volume (:func:`brainfeat.prediction.answers.pool_slices`), then for each slice.
            Its patient is found without the names of other files, as those of BraTS.
        """
        inputs = Inputs([], [series], [])
        return [answer.prediction for answer in self.predict_inputs(inputs)]

    @default_errors
    def answer(self, X: Features, paths: Sequence[str]) -> list[Prediction]:
        """Predict from the features of images, or of patients by a bag head.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32, Bags, or MapRows
            Features of the bundle's spec.
        paths : sequence of str
            The name of each image, or patient.

        Returns
        -------
        list of Prediction
            One for each, in their order.
        """
        return self._rule.predict(X, paths)

    def _predict_volume(
        self, series: Series, patient: Patient, counter: ImageCounter, *, keep_pixels: bool
    ) -> Iterator[Answer]:
        volume_hash = self._hash("volume", series.key)
        try:
            cut = self._source.cut(series, counter, keep_pixels=keep_pixels)
        except ImageReadError as error:
            refused = Prediction(path=series.name, volume=volume_hash, error=error.reason)
            yield Answer(prediction=refused, series=series)
            return
        answers = list(self._predict_images(cut.images, cut.number, counter))
        whole = self._rule.pool([answer.prediction for answer in answers])
        group = self._hash("patient", patient.identify(cut.patient))
        for answer in (Answer(prediction=whole), *answers):
            named = replace(answer.prediction, group=group, volume=volume_hash)
            yield replace(answer, prediction=named, series=series)

    def _hash(self, kind: Kind, text: str) -> str | None:
        return None if self._patient_key is None else hash_identity(self._patient_key, kind, text)

    def _predict_images(
        self, images: Iterable[InputImage], number: int, counter: ImageCounter
    ) -> Iterator[Answer]:
        for entries, features, seen in self._source.compute(images, number, counter):
            names = [entry.name for entry in entries if entry.error is None]
            answers = iter(self.answer(features, names) if names else ())
            for entry, how in zip(entries, seen, strict=True):
                if entry.error is not None:
                    yield Answer(prediction=Prediction(path=entry.name, error=entry.error))
                    continue
                answer = replace(next(answers), frame=entry.frame, seen=how)
                yield Answer(prediction=answer, pixels=entry.pixels, image=entry.image)


def predict(
    bundle: HeadBundle | str | os.PathLike[str],
    images: "Given | Iterable[Given] | Mapping[str, Given | Iterable[Given]]",
    *,
    keep_masks: bool = False,
    group_level: int | None = None,
    **options: Any,
) -> list[Prediction]:
    """Predict image files, the images in folders, volumes, and images in memory.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    images : path-like, PIL.Image.Image, ndarray, iterable of these, or mapping of str to these
        As :meth:`Predictor.predict` takes them; for a head that was fitted on joined caches, those
        of each by its name, as :meth:`brainfeat.prediction.joined.JoinedPredictor.predict` takes
        them.
    keep_masks : bool
        As in :meth:`Predictor.predict`.
    group_level : int or None
        As in :meth:`Predictor.predict`; not for a head that was fitted on joined caches.
    **options
        As :class:`Predictor` takes them.

    Returns
    -------
    list of Prediction
        As :meth:`Predictor.predict` returns them.

    Raises
    ------
    BrainfeatError
        As in :class:`Predictor` and :meth:`Predictor.predict`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, fit_head, read_table
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
    ...     (found,) = predict(bundle, table.absolute_path(0), weights="random")
    >>> list(found.probabilities), found.error
    (['glioma', 'meningioma', 'notumor', 'pituitary'], None)
    """
    if isinstance(images, Mapping):
        from brainfeat.prediction.joined import JoinedPredictor

        return JoinedPredictor(bundle, **options).predict(images, keep_masks=keep_masks)
    given = list_given(images)
    inputs, _ = take_inputs(given, keep_masks=keep_masks)
    predictor = Predictor(bundle, **{"n_images": count_images(inputs), **options})
    belonging = choose_belonging(predictor.bundle, inputs, given, group_level=group_level)
    return [answer.prediction for answer in predictor.predict_inputs(inputs, belonging=belonging)]
