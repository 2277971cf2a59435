"""Predictions by heads of several blocks: one for each patient, from all of its modalities."""

import gc
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.arithmetic import default_errors
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import BundleError, ImageReadError
from brainfeat.extraction.feature_extractors import FeatureExtractor, compile_copies
from brainfeat.heads.bags import Bags
from brainfeat.heads.blocks import Blocks
from brainfeat.heads.bundle import HeadBundle, loaded
from brainfeat.prediction.answers import Prediction, Seen
from brainfeat.prediction.bases import load_base
from brainfeat.prediction.cases import (
    ALONE,
    CasePart,
    check_files,
    find_parts,
    match_patients,
    read_parts,
)
from brainfeat.prediction.decisions import make_decision_rule
from brainfeat.prediction.images import (
    ImageCounter,
    InputImage,
    choose_policy,
    compute_features,
    prepare_slices,
    read_images,
)
from brainfeat.prediction.joined_bases import HeadInputs, choose_weights
from brainfeat.prediction.recognition import recognise
from brainfeat.readers.series import Series, read_volume
from brainfeat.readers.volumes import cut_slices
from brainfeat.tables.pseudonyms import check_key, hash_identity
from brainfeat.tables.volume_patients import find_patients

if TYPE_CHECKING:
    from brainfeat.prediction.predictor import Progress
    from brainfeat.readers.held import Given

_BATCH = 32


@dataclass
class _Patient:
    """What was found of a patient in one block."""

    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    # What its volumes identify the patient by, and whether all of it are image files.
    identities: set[str] = field(default_factory=set)
    is_named: bool = True


class JoinedPredictor:
    """A head of several blocks, whose bases are loaded one after another.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        A head that was fitted on joined caches.
    weights : str, path-like, or mapping of str to these
        As of :class:`brainfeat.Predictor`; or those of each block, by its name.
    patient_key : bytes or None
        Key that patients are hashed with.
    coverage, false_alarm_rate, force
        As of :class:`brainfeat.Predictor`.
    slices, window, orientation, volume, allow_burned_in
        As of :class:`brainfeat.Predictor`; None takes what each block was fitted on.
    **base
        ``precision``, ``device`` and ``engine``, as of :class:`brainfeat.Predictor`.

    Raises
    ------
    BundleError
        The bundle cannot be read, has no blocks, or a class has the name of an abstention.
    ParameterError
        An argument is out of range.
    """

    def __init__(
        self,
        bundle: HeadBundle | str | os.PathLike[str],
        *,
        weights: Any = "imagenet",
        patient_key: bytes | None = None,
        coverage: float | None = None,
        false_alarm_rate: float | None = None,
        force: bool = False,
        slices: str | None = None,
        window: str | None = None,
        orientation: str | None = None,
        volume: int | None = None,
        allow_burned_in: bool = False,
        **base: Any,
    ) -> None:
        check_key(patient_key)
        self.bundle = loaded(bundle)
        if (
            self.bundle.blocks is None
            or self.bundle.bag is None
            or not self.bundle.takes_modalities
        ):
            raise BundleError(
                "the head takes images of one kind; give them without the name of a modality"
            )
        self.blocks: Blocks = self.bundle.blocks
        self._pooling = self.bundle.bag.pooling
        self._rule = make_decision_rule(
            self.bundle, coverage=coverage, false_alarm_rate=false_alarm_rate, force=force
        )
        given = {"slices": slices, "window": window, "orientation": orientation, "volume": volume}
        self._policies = {
            name: choose_policy(spec, **given)  # type: ignore[arg-type]
            for name, spec in zip(self.blocks.names, self.blocks.specs, strict=True)
        }
        self._weights, self._base = weights, base
        self._key, self._allow_burned_in = patient_key, allow_burned_in
        fitted = self.bundle.fitted_images
        self._signs = fitted is not None and fitted.signature is not None

    @property
    def precision(self) -> str:
        """The precision of the convolutions; of several, in the order of the blocks."""
        specs = [spec.precision for spec in self.blocks.specs]
        chosen = [self._base.get("precision") or precision for precision in specs]
        return ", ".join(dict.fromkeys(chosen))

    @property
    def engine(self) -> str:
        """What was asked to compute the features."""
        return str(self._base.get("engine", "auto"))

    def predict(
        self,
        inputs: "Mapping[str, Given | Iterable[Given]] | str | os.PathLike[str]",
        *,
        keep_masks: bool = False,
        n_jobs: int | None = None,
        progress: "Progress | None" = None,
    ) -> list[Prediction]:
        """Predict patients.

        Parameters
        ----------
        inputs : mapping of str to path-like, PIL.Image.Image, ndarray, or iterable of these
            By the name of the block, a file, a folder of one patient, or one with a folder for
            each patient, named alike in all blocks; or the path of a CSV table with the columns
            ``path``, ``modality`` and ``group``.
        keep_masks, n_jobs, progress
            As of :meth:`brainfeat.Predictor.predict`.

        Returns
        -------
        list of Prediction
            One for each patient, in the order in which they are found; then for each file that
            cannot be read.

        Raises
        ------
        ParameterError
            A block is not one of the head, has no images, or shares no patient with the others; or
            a file is given as two blocks.
        TableError
            The table cannot be read.
        """
        names = self.blocks.names
        if isinstance(inputs, Mapping):
            parts = find_parts(inputs, names, keep_masks=keep_masks)
        else:
            parts = read_parts(Path(inputs), names, keep_masks=keep_masks)
        return self.predict_parts(parts, n_jobs=n_jobs, progress=progress)

    @default_errors
    def predict_parts(
        self,
        parts: Sequence[CasePart],
        *,
        n_jobs: int | None = None,
        progress: "Progress | None" = None,
    ) -> list[Prediction]:
        """Predict patients from parts, as :func:`brainfeat.prediction.cases.find_parts` finds them.

        Parameters
        ----------
        parts : sequence of CasePart
        n_jobs, progress
            As of :meth:`brainfeat.Predictor.predict`.

        Returns
        -------
        list of Prediction
            As of :meth:`predict`.
        """
        check_files(parts)
        counter = ImageCounter(progress, total=sum(len(part.inputs.images) for part in parts))
        found: dict[str, dict[str, _Patient]] = {}
        failed: list[Prediction] = []
        for name, spec in zip(self.blocks.names, self.blocks.specs, strict=True):
            own = [part for part in parts if part.block == name]
            if own:
                reader = _BlockReader(self, name, spec, failed, n_jobs or runtime.usable_cores())
                found[name] = reader.read(own, counter)
        if any(part.patient is not None for part in parts):
            shared = {name: {key: key for key in patients} for name, patients in found.items()}
        else:
            shared = match_patients(found)
        return [*self._answer(found, shared), *failed]

    def _answer(
        self, found: dict[str, dict[str, _Patient]], shared: dict[str, dict[str, str]]
    ) -> list[Prediction]:
        cases: defaultdict[str, dict[str, _Patient]] = defaultdict(dict)
        for block, patients in found.items():
            for key, patient in patients.items():
                if patient.vectors:
                    cases[shared[block][key]][block] = patient
        if not cases:
            return []
        X = np.full((len(cases), sum(self.blocks.widths)), np.nan, np.float32)
        starts = np.cumsum([0, *self.blocks.widths])
        for row, case in zip(X, cases.values(), strict=True):
            for place, block in enumerate(self.blocks.names):
                if block in case:
                    values = np.stack(case[block].vectors)
                    bag = Bags(values=values, offsets=np.array([0, len(values)]))
                    row[starts[place] : starts[place + 1]] = bag.pool(self._pooling)[0]
        labels = [_name(key, case, number) for number, (key, case) in enumerate(cases.items(), 1)]
        answers = self._rule.predict(X, labels)
        return [self._complete(*pair) for pair in zip(answers, cases.values(), strict=True)]

    def _complete(self, answer: Prediction, case: dict[str, _Patient]) -> Prediction:
        """Say what is missing of a patient, and what has been seen."""
        identities = set().union(*(patient.identities for patient in case.values()))
        if len({name for name in identities if name.startswith("patient\0")}) > 1:
            reason = "its files are of several patients, as they say themselves"
            return Prediction(path=answer.path, error=reason)
        kinds = {how for patient in case.values() for how in patient.seen}
        seen: Seen | None = "exact-duplicate" if "exact-duplicate" in kinds else None
        group = None
        if self._key is not None and len(identities) == 1:
            group = hash_identity(self._key, "patient", *identities)
        return replace(
            answer,
            group=group,
            missing=tuple(name for name in self.blocks.names if name not in case),
            seen=seen or ("copy" if kinds else None),
        )


def _name(key: str, case: dict[str, _Patient], number: int) -> str:
    """Name a patient: by its folder or group where only image files are given, else by number."""
    if key != ALONE and all(patient.is_named for patient in case.values()):
        return key
    return f"patient {number}"


class _BlockReader:
    """Computes the vectors of all images of one block."""

    def __init__(
        self,
        predictor: JoinedPredictor,
        name: str,
        spec: FeatureSpec,
        failed: list[Prediction],
        n_jobs: int,
    ) -> None:
        self._predictor, self._name, self._spec = predictor, name, spec
        self._inputs = HeadInputs.of([spec])
        self._failed, self._n_jobs = failed, n_jobs
        self._patients: defaultdict[str, _Patient] = defaultdict(_Patient)
        self._keys: list[str] = []

    def read(self, parts: Sequence[CasePart], counter: ImageCounter) -> dict[str, _Patient]:
        """Return what was found of each patient."""
        backbone = self._load()
        copies, preferred = compile_copies(backbone, n_images=None)
        done = 0
        for entries, features in compute_features(
            self._list_images(parts),
            copies,
            batch_size=min(preferred, _BATCH),
            inputs=self._inputs,
            width=self._spec.n_features,
        ):
            keys = self._keys[done : done + len(entries)]
            self._take(entries, features, keys)
            done += len(entries)
            counter.total = max(counter.total, done)
            counter.add(len(entries))
        # The memory of one base is free before the next is loaded.
        del backbone, copies
        gc.collect()
        return self._patients

    def _load(self) -> FeatureExtractor:
        predictor = self._predictor
        place = predictor.blocks.names.index(self._name)
        weights = choose_weights(
            predictor._weights, predictor.blocks.names, [place], n_bases=len(predictor.blocks.bases)
        )
        return load_base(self._spec, weights=weights, **predictor._base)

    def _take(
        self, entries: Sequence[InputImage], features: NDArray[np.float32], keys: Sequence[str]
    ) -> None:
        vectors = iter(features)
        seen = recognise(entries, self._predictor.bundle.fitted_images)
        for entry, key, how in zip(entries, keys, seen, strict=True):
            if entry.error is not None:
                self._fail(entry.name, entry.error)
                continue
            patient = self._patients[key]
            patient.vectors.append(next(vectors))
            if how is not None:
                patient.seen.append(how)

    def _fail(self, name: str, reason: str) -> None:
        self._failed.append(Prediction(path=f"{self._name}: {name}", error=reason))

    def _list_images(self, parts: Sequence[CasePart]) -> Iterator[InputImage]:
        """Yield all images and slices, and note the patient of each in their order."""
        for part in parts:
            images = read_images(
                part.inputs.images,
                self._inputs,
                keep_pixels=False,
                sign=self._predictor._signs,
                n_jobs=self._n_jobs,
            )
            for source, image in zip(part.inputs.images, images, strict=True):
                self._keys.append(part.name_image(source))
                yield image
            for entry in part.inputs.unreadable:
                self._fail(entry.name, entry.reason)
            for series in part.inputs.series:
                yield from self._cut(part, series)

    def _cut(self, part: CasePart, series: Series) -> Iterator[InputImage]:
        policy = self._predictor._policies[self._name]
        try:
            volume = read_volume(
                series, policy=policy, allow_burned_in=self._predictor._allow_burned_in
            )
        except ImageReadError as error:
            self._fail(series.name, error.reason)
            return
        [place] = find_patients([series])
        key = part.name_volume(series, volume.patient)
        patient = self._patients[key]
        patient.identities.add(place.identify(volume.patient))
        patient.is_named = patient.is_named and part.patient is not None
        slices = list(cut_slices(volume, policy))
        for image in prepare_slices(
            slices, self._inputs, name=series.name, keep_pixels=False, sign=self._predictor._signs
        ):
            self._keys.append(key)
            yield image
