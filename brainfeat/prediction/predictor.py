"""From image files to answers that a careful person can use, or to an honest refusal."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import FeatureSpec, Precision
from brainfeat.errors import BundleError, ImageReadError, SpecMismatchError
from brainfeat.extraction.backbones import FeatureExtractor, compile_copies, load_backbone
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.files import is_so
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE, OODScores
from brainfeat.prediction.answers import (
    OUT_OF_SCOPE,
    UNCERTAIN,
    Prediction,
    average_slices,
    decide,
    pool_slices,
    tell_unreadable,
)
from brainfeat.readers import read_image
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.series import Series, detect_format, find_series, read_volume
from brainfeat.readers.volumes import Slice, SlicePolicy, cut_slices, grey_image

_PRECISION_BITS = {"float16": 11, "bfloat16": 8, "float32": 24}
# Images that are decoded ahead of the base.
_AHEAD = 16

Image = NDArray[np.float32]


class Predictor:
    """A head with its base, loaded once for many images.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head; its spec decides base, size, scaling and precision.
    weights : {"imagenet", "random"} or path-like
        Where the weights of the base are, as in
        :func:`brainfeat.extraction.backbones.load_backbone`.
    precision : {"float32", "bfloat16", "float16"} or None
        A higher precision than that of the spec; None takes the spec's.
    coverage : float
        Share of the images of each class whose class shall be in the set.
    false_refusals : float
        Share of images like the held-out ones that are refused.
    force : bool
        Whether a class is named though there is reason for none.
    device : str
        As in :func:`brainfeat.extraction.backbones.load_backbone`.
    backbone : callable or None
        Something else that gives features, with the attribute ``spec``.
    n_images : int or None
        How many images there are at most, if that is known: for few, less is compiled.
    slices, window : str or None
        Which slices of a volume are looked at, and how they are shown, as in
        :class:`brainfeat.SlicePolicy`; None takes what the head was fitted on.
    allow_burned_in : bool
        Whether slices that may show a name are read.

    Raises
    ------
    BundleError
        The bundle cannot be read, or has a class that is called as an abstention.
    SpecMismatchError
        The base is another one than that of the spec, such as one with other weights, or computes
        in a lower precision; or the window is another one.
    WeightsError
        The weights are missing or wrong.
    ParameterError
        One of the other arguments is out of range.
    """

    def __init__(
        self,
        bundle: HeadBundle | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] = "imagenet",
        precision: Precision | None = None,
        coverage: float = COVERAGE,
        false_refusals: float = FALSE_ALARM_RATE,
        force: bool = False,
        device: str = "auto",
        backbone: FeatureExtractor | None = None,
        n_images: int | None = None,
        slices: str | None = None,
        window: str | None = None,
        allow_burned_in: bool = False,
    ) -> None:
        if not isinstance(bundle, HeadBundle):
            bundle = HeadBundle.load(bundle)
        if taken := {UNCERTAIN, OUT_OF_SCOPE} & {*bundle.class_names}:
            raise BundleError(
                f"a class is called {', '.join(sorted(taken))}, which is what an abstention is "
                "called; fit the head on a table with another name for it"
            )
        self.bundle = bundle
        self._force = force
        spec = bundle.spec
        self.policy = choose_policy(spec, slices=slices, window=window)
        self._allow_burned_in = allow_burned_in
        self._threshold = (
            None if bundle.ood_detector is None else bundle.ood_detector.threshold(false_refusals)
        )
        self._coverage = coverage
        if bundle.conformal is not None:
            bundle.conformal.quantiles(len(bundle.class_names), coverage=coverage)
        self.backbone = backbone or load_backbone(
            spec.backbone,
            weights=weights,
            scaling=spec.scaling,
            input_size=spec.input_size,
            precision=precision or spec.precision,
            device=device,
        )
        self._n_images = n_images
        require_base(spec, self.backbone.spec)

    @property
    def precision(self) -> Precision:
        """What the convolutions compute in."""
        return self.backbone.spec.precision

    def predict(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        n_jobs: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Predict image files.

        Parameters
        ----------
        paths : sequence of path-like
            JPEG and PNG files.
        n_jobs : int or None
            Threads that read and decode; None takes all cores.
        progress : callable or None
            Called with the number of images done and of all.

        Returns
        -------
        list of Prediction
            One for each path, in their order; one that cannot be read has an `error`.
        """
        names: list[tuple[str, int | None]] = [(os.fspath(path), None) for path in paths]
        jobs = n_jobs or runtime.usable_cores()
        images = map_ahead(
            lambda place: self._read(paths[place]), len(paths), n_jobs=jobs, ahead=_AHEAD
        )
        return self._predict(names, images, progress)

    def predict_series(self, series: Series) -> list[Prediction]:
        """Predict a volume: the answer for it, and those for its slices; or why there is none."""
        try:
            slices = self.cut(series)
        except ImageReadError as error:
            return [tell_unreadable(series.name, error.reason)]
        return self.predict_slices(slices, name=series.name)

    def cut(self, series: Series) -> list[Slice]:
        """Read a volume and cut it as the head's spec says.

        Raises
        ------
        ImageReadError
            It cannot be read.
        """
        volume = read_volume(series, allow_burned_in=self._allow_burned_in)
        return list(cut_slices(volume, self.policy))

    def predict_slices(
        self,
        slices: Sequence[Slice],
        *,
        name: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Predict the slices of a volume, and from them the volume.

        Parameters
        ----------
        slices : sequence of Slice
            What :meth:`cut` gives.
        name : str
            What the volume is called.
        progress : callable or None
            Called with the number of slices done and of all.

        Returns
        -------
        list of Prediction
            That of the volume (:func:`brainfeat.prediction.answers.pool_slices`), and one for each
            slice.
        """
        spec = self.bundle.spec
        images = (
            preprocess_image(grey_image(entry.pixels), size=spec.input_size, fit=spec.fit)
            for entry in slices
        )
        answers = self._predict([(name, entry.frame) for entry in slices], images, progress)
        return [self._pool(answers), *answers]

    def _pool(self, answers: Sequence[Prediction]) -> Prediction:
        names = self.bundle.class_names
        kept = None
        if self.bundle.conformal is not None:
            p = average_slices(answers, names)
            found = self.bundle.conformal.predict_sets(p[None], coverage=self._coverage)[0]
            kept = [name for name, is_kept in zip(names, found, strict=True) if is_kept]
        return pool_slices(answers, names, kept=kept, force=self._force)

    def _predict(
        self,
        names: Sequence[tuple[str, int | None]],
        images: Iterable[Image | ImageReadError],
        progress: Callable[[int, int], None] | None,
    ) -> list[Prediction]:
        found: list[Prediction] = [
            Prediction(path=path, frame=frame, probabilities={}, nearest=[])
            for path, frame in names
        ]
        readable: list[int] = []
        blocks: list[Image] = []

        def receive(places: list[int], features: Image) -> None:
            readable.extend(places)
            blocks.append(np.array(features))
            if progress is not None:
                progress(len(readable), len(names))

        computer = self._make_computer(len(names), receive)
        try:
            for place, image in enumerate(images):
                if isinstance(image, ImageReadError):
                    found[place] = replace(found[place], error=image.reason)
                else:
                    computer.add(place, image)
            computer.finish()
        finally:
            computer.close()
        if blocks:
            answers = self.answer(np.concatenate(blocks), [found[place].path for place in readable])
            for place, answer in zip(readable, answers, strict=True):
                found[place] = replace(answer, frame=found[place].frame)
        return found

    def answer(self, X: NDArray[np.float32], paths: Sequence[str]) -> list[Prediction]:
        """Answer for features (n, d) of images with these paths."""
        names = self.bundle.class_names
        probabilities = self.bundle.predict_proba(X)
        sets = None
        if self.bundle.conformal is not None:
            sets = self.bundle.conformal.predict_sets(probabilities, coverage=self._coverage)
        near = None if self.bundle.ood_detector is None else self.bundle.ood_detector.score(X)
        answers = []
        for row, path in enumerate(paths):
            p = probabilities[row]
            order = np.argsort(-p, kind="stable")
            kept = None if sets is None else [names[label] for label in order if sets[row, label]]
            scope = self._judge_scope(near, row)
            decision = decide(names[order[0]], kept, scope)
            forced = self._force and decision in (UNCERTAIN, OUT_OF_SCOPE)
            answers.append(
                Prediction(
                    path=path,
                    decision=names[order[0]] if forced else decision,
                    probabilities={
                        name: float(share) for name, share in zip(names, p, strict=True)
                    },
                    set=kept,
                    out_of_scope=scope,
                    forced=forced,
                    nearest=self._name_nearest(near, row),
                )
            )
        return answers

    def _judge_scope(self, near: OODScores | None, row: int) -> dict[str, Any] | None:
        if near is None or self._threshold is None:
            return None
        score = float(near.scores[row])
        return {
            "score": score,
            "threshold": self._threshold if np.isfinite(self._threshold) else None,
            "refused": score > self._threshold,
        }

    def _name_nearest(self, near: OODScores | None, row: int) -> list[dict[str, Any]]:
        if near is None or self.bundle.ood_detector is None:
            return []
        labels = self.bundle.ood_detector.labels[near.neighbours[row]]
        return [
            {"label": self.bundle.class_names[label], "distance": float(distance)}
            for label, distance in zip(labels, near.distances[row], strict=True)
        ]

    def _read(self, path: str | os.PathLike[str]) -> Image | ImageReadError:
        try:
            image = read_image(path)
        except ImageReadError as error:
            return error
        spec = self.bundle.spec
        return preprocess_image(image, size=spec.input_size, fit=spec.fit)

    def _make_computer(
        self, number: int, receive: Callable[[list[int], Image], None]
    ) -> BatchComputer[int]:
        copies, preferred = compile_copies(self.backbone, n_images=self._n_images)
        size = self.bundle.spec.input_size
        return BatchComputer(
            copies,
            batch_size=max(1, min(preferred, number)),
            image_shape=(size, size, 3),
            n_features=self.bundle.spec.n_features,
            receive=receive,
        )


def predict(
    bundle: HeadBundle | str | os.PathLike[str],
    paths: Iterable[str | os.PathLike[str]],
    **options: Any,
) -> list[Prediction]:
    """Predict image files, the images in folders, and volumes.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    paths : iterable of path-like
        JPEG, PNG, DICOM and NIfTI files, and folders, of which all such files are taken.
    **options
        As :class:`Predictor` takes them.

    Returns
    -------
    list of Prediction
        Of the image files, then of each volume: its own, and those of its slices.

    Raises
    ------
    BrainfeatError
        As in :class:`Predictor`.
    """
    paths = list(paths)
    files = list_images(paths)
    series, unreadable = find_series(paths)
    few = None if series else len(files)
    predictor = Predictor(bundle, **{"n_images": few, **options})
    found = predictor.predict(files)
    found += [tell_unreadable(entry.name, entry.reason) for entry in unreadable]
    for entry in series:
        found += predictor.predict_series(entry)
    return found


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List files as they are, and the images below folders by name, but no hidden ones.

    Volumes are not among them.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not is_so(path.is_dir):
            files += [path] if detect_format(path) is None else []
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            files += [
                Path(folder, name)
                for name in sorted(names)
                if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
            ]
    return files


def choose_policy(
    spec: FeatureSpec, *, slices: str | None = None, window: str | None = None
) -> SlicePolicy:
    """Choose how volumes become images for a head: as those that it was fitted on.

    Other slices may be looked at. Another window gives other pixels, and is refused where the head
    was fitted on slices of volumes.

    Raises
    ------
    SpecMismatchError
        The window is another one.
    ParameterError
        One of them is none.
    """
    fitted = SlicePolicy.parse(spec.volumes) if spec.volumes else SlicePolicy()
    policy = SlicePolicy(slices=slices or fitted.slices, window=window or fitted.window)
    if spec.volumes and policy.window != fitted.window:
        raise SpecMismatchError(
            f"the head was fitted on slices in the window {fitted.window}, and this would show "
            f"them in {policy.window}; leave the window out"
        )
    return policy


def require_base(wanted: FeatureSpec, found: FeatureSpec) -> None:
    """Refuse another base than that of a head's spec; a higher precision is none.

    Raises
    ------
    SpecMismatchError
        Names what differs.
    """
    if _PRECISION_BITS[found.precision] < _PRECISION_BITS[wanted.precision]:
        raise SpecMismatchError(
            f"the head was fitted on features in {wanted.precision}, and this would compute in "
            f"{found.precision}, which is lower"
        )
    wanted.require(
        replace(found, precision=wanted.precision, volumes=wanted.volumes),
        here="the head",
        there="the base",
        remedy="pass the weights that the head was fitted with",
    )
