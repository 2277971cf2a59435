"""HeadBundle: a fitted head and its file format. Loading one runs no code of the file."""

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.formats import has_format
from brainfeat.cache.schema import read_json
from brainfeat.cache.signature import SIGNATURE_VERSION
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import HEAD_FIRST, StoredFile, Verify
from brainfeat.cache.writing import write_file
from brainfeat.canonical import canonical_json
from brainfeat.errors import BrainfeatError, BundleError, SpecMismatchError
from brainfeat.files import check_output
from brainfeat.heads.archive import REBUILD_ERRORS, from_arrays, to_arrays
from brainfeat.heads.bundle_schema import (
    BUNDLE_SCHEMA,
    FORMAT_1,
    check_signature_version,
    take,
    take_all,
    with_prefix,
)
from brainfeat.heads.calibration import softmax
from brainfeat.heads.conformal import CONFORMAL_ARRAYS, Conformal
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.heads.kinds import HEAD_NAMES, head_scores
from brainfeat.heads.ood import OOD_ARRAYS, OODDetector
from brainfeat.heads.record import FitRecord

# Significant bits of a number.
_PRECISION_BITS = {"int8": 7, "bfloat16": 8, "float16": 11, "float32": 24}
_PROBE_TOLERANCE = 1e-4
_PROBE = ("probe/X", "probe/probabilities")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadBundle:
    """A fitted head with everything that a prediction needs.

    Attributes
    ----------
    spec : FeatureSpec
        What the features must be.
    class_names : tuple of str
        The classes, in the order of the columns of :meth:`predict_proba`.
    head : str
        Name of the head, such as ``"svm"``.
    params : dict
        Parameters that the head was made with.
    estimator : scikit-learn classifier
        The fitted head; its classes are 0…k−1.
    temperature : float
        Divides the scores before the softmax.
    training : FitRecord
        How the head was fitted: sizes of the splits, metrics, seed, digest of the cache, versions.
    probe : ndarray of shape (m, d), float32
        Vectors whose probabilities are stored, and compared when the file is loaded.
    ood_detector : OODDetector or None
        Detects images that are unlike those that the head was fitted on.
    conformal : Conformal or None
        Predicts sets of classes that hold the true class at a target coverage.
    fitted_images : FittedImages or None
        The images that it was fitted on, by digest and signature; None in a file of format 1.
    content_sha256 : str
        Digest of the content of the file that it was loaded from; empty if it was not loaded.
    """

    spec: FeatureSpec
    class_names: tuple[str, ...]
    head: str
    params: dict[str, Any]
    estimator: Any
    temperature: float
    training: FitRecord
    probe: NDArray[np.float32]
    ood_detector: OODDetector | None = None
    conformal: Conformal | None = None
    fitted_images: FittedImages | None = None
    content_sha256: str = ""

    def scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute scores; divided by `temperature`, their softmax gives the probabilities.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of this bundle's spec.

        Returns
        -------
        ndarray of shape (n, k), float64
            Columns are in the order of `class_names`.

        Raises
        ------
        BundleError
            X has another shape, or a value that is not finite.
        """
        features = np.asarray(X, np.float32)
        if features.ndim != 2 or features.shape[1] != self.spec.n_features:
            raise BundleError(
                f"features have shape {features.shape}; this head takes (n, {self.spec.n_features})"
            )
        if not np.isfinite(features).all():
            raise BundleError("the features hold values that are not finite")
        if not len(features):
            return np.empty((0, len(self.class_names)))
        return head_scores(self.estimator, features)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the calibrated probability of each class.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of this bundle's spec.

        Returns
        -------
        ndarray of shape (n, k), float64
            Columns are in the order of `class_names`; rows sum to 1.

        Raises
        ------
        BundleError
            X has another shape, or a value that is not finite.
        """
        return softmax(self.scores(X), temperature=self.temperature)

    def predict(self, X: ArrayLike) -> NDArray[np.str_]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of this bundle's spec.

        Returns
        -------
        ndarray of shape (n,), str
            Names of classes.

        Raises
        ------
        BundleError
            X has another shape, or a value that is not finite.
        """
        named: NDArray[np.str_] = np.array(self.class_names)[self.predict_proba(X).argmax(axis=1)]
        return named

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features of another spec.

        Parameters
        ----------
        spec : FeatureSpec
            The spec of the features.

        Raises
        ------
        SpecMismatchError
            The message names each field that differs.
        """
        self.spec.require(spec, here="the head", there="the cache")

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the bundle to one file, atomically.

        Parameters
        ----------
        path : path-like
            The file.
        overwrite : bool
            Whether an existing file is replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        BundleError
            The file exists or cannot be written, or the head has a type or a parameter that a
            reader would refuse.
        """
        path = check_target(path, overwrite=overwrite)
        try:
            head = canonical_json({"name": self.head, "params": self.params})
        except (TypeError, ValueError) as error:
            raise BundleError(
                f"the parameters {self.params} cannot be stored as JSON ({error}); "
                "pass plain numbers, texts, lists or dictionaries"
            ) from error
        known = {} if self.fitted_images is None else {"signature_version": SIGNATURE_VERSION}
        return write_file(
            path,
            BUNDLE_SCHEMA if known else FORMAT_1,
            datasets={
                **to_arrays(self.head, self.estimator),
                **with_prefix("scope", self.ood_detector),
                **with_prefix("conformal", self.conformal),
                **with_prefix("fitted", self.fitted_images),
                "probe/X": self.probe,
                "probe/probabilities": self.predict_proba(self.probe),
            },
            attributes={
                "spec": self.spec.to_json(),
                "class_names": json.dumps(self.class_names),
                "head": head,
                "temperature": float(self.temperature),
                "training": canonical_json(self.training.to_dict()),
                **known,
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: Verify = "full") -> Self:
        """Read a bundle; no code of the file is executed.

        Parameters
        ----------
        path : path-like
            A file that :meth:`save` wrote.
        verify : {"full", "off"}
            ``"full"`` compares the SHA-256 of the file with the one that it was written with.

        Returns
        -------
        HeadBundle

        Raises
        ------
        BundleError
            The file does not exist, is damaged or of another format, holds a type that is not
            allowed, or gives other probabilities than those stored with it.
        """
        with StoredFile(path, BUNDLE_SCHEMA, verify=verify) as file, warnings.catch_warnings():
            # Such as that of another version of scikit-learn: the probe shows whether it matters.
            warnings.simplefilter("ignore")
            try:
                return cls._read(file)
            except BrainfeatError as error:
                reason = " ".join(str(error).split())
                raise BundleError(f"{path}: {reason}") from error

    @classmethod
    def _read(cls, file: StoredFile) -> Self:
        stored = file.attributes
        spec = FeatureSpec.from_json(str(stored["spec"]))
        names, head = _read_names(stored), read_json(stored, "head", dict)
        if set(head) != {"name", "params"} or head["name"] not in HEAD_NAMES:
            raise BundleError(f"unknown head {head.get('name')!r}")
        if not isinstance(head["params"], dict):
            raise BundleError("params must be a JSON dict")
        temperature = stored["temperature"]
        if not isinstance(temperature, float) or not 0 < temperature < np.inf:
            raise BundleError(f"temperature must be a positive number, got {temperature!r}")
        arrays = {name: np.asarray(array) for name, array in file.arrays.items()}
        if not set(arrays).issuperset(_PROBE):
            raise BundleError("the probe vectors are missing")
        probe, expected = map(arrays.pop, _PROBE)
        size: dict[str, Any] = {"n_features": spec.n_features, "n_classes": len(names)}
        scope = take_all(arrays, "scope", OOD_ARRAYS)
        conformal = take_all(arrays, "conformal", CONFORMAL_ARRAYS)
        fitted = take(arrays, "fitted")
        if "signature_version" in stored:
            check_signature_version(stored["signature_version"])
        bundle = cls(
            spec=spec,
            class_names=names,
            head=head["name"],
            params=head["params"],
            estimator=from_arrays(arrays, **head, temperature=temperature, **size),
            temperature=temperature,
            training=_read_training(str(stored["training"])),
            probe=probe,
            ood_detector=OODDetector.from_arrays(scope, **size) if scope else None,
            conformal=Conformal.from_arrays(conformal, n_classes=len(names)) if conformal else None,
            fitted_images=FittedImages.from_arrays(fitted) if fitted else None,
            content_sha256=file.content_sha256,
        )
        bundle._check_probe(expected)
        return bundle

    def _check_probe(self, expected: NDArray[np.float64]) -> None:
        try:
            found = self.predict_proba(self.probe)
        except REBUILD_ERRORS as error:
            raise BundleError(f"the stored head cannot predict ({error})") from error
        same = found.shape == expected.shape == (len(self.probe), len(self.class_names))
        if not same or not len(found) or not np.allclose(found, expected, atol=_PROBE_TOLERANCE):
            raise BundleError("the stored head does not give the probabilities stored with it")


def require_base(wanted: FeatureSpec, found: FeatureSpec, *, any_precision: bool = False) -> None:
    """Refuse another base than that of a head's spec; a higher precision is allowed.

    How images were made of volumes, scaled to [0, 1] and cropped is not compared, as the base does
    not know it.

    Parameters
    ----------
    wanted, found : FeatureSpec
        Of the head, and of the base.
    any_precision : bool
        Whether a lower precision is allowed, too.

    Raises
    ------
    SpecMismatchError
        The message names each field that differs.
    """
    is_lower = _PRECISION_BITS[found.precision] < _PRECISION_BITS[wanted.precision]
    if is_lower and not any_precision:
        raise SpecMismatchError(
            f"the base computes in {found.precision}, which is lower than the {wanted.precision} "
            "that the head was fitted in; take this or a higher precision"
        )
    wanted.require(
        replace(
            found,
            precision=wanted.precision,
            quantization=wanted.quantization,
            volumes=wanted.volumes,
            value_range=wanted.value_range,
            crop=wanted.crop,
        ),
        here="the head",
        there="the base",
        remedy="pass the weights that the head was fitted with",
    )


def loaded(head: HeadBundle | str | os.PathLike[str]) -> HeadBundle:
    """Return a head, which is loaded where a path is given.

    Raises
    ------
    BundleError
        As in :meth:`HeadBundle.load`, or something else was given.
    """
    if isinstance(head, HeadBundle):
        return head
    if not isinstance(head, str | os.PathLike):
        raise BundleError(
            f"a {type(head).__name__} in place of a head; expected a HeadBundle or a path; "
            f"{HEAD_FIRST}"
        )
    return HeadBundle.load(head)


def check_target(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> Path:
    """Refuse a file that a head must not be written to, before anything is fitted.

    Raises
    ------
    BundleError
        As in :func:`brainfeat.files.check_output`.
    """
    return check_output(
        path,
        overwrite=overwrite,
        kind="a head that brainfeat wrote",
        recognise=lambda found: has_format(found, BUNDLE_SCHEMA.format),
        inputs=inputs,
        error=BundleError,
    )


def _read_names(stored: Mapping[str, Any]) -> tuple[str, ...]:
    names = read_json(stored, "class_names", list)
    texts = [name for name in names if isinstance(name, str)]
    if len(names) < 2 or len(set(texts)) != len(names):
        raise BundleError("class_names must be two or more different texts")
    return tuple(texts)


def _read_training(text: str) -> FitRecord:
    try:
        return FitRecord.from_json(text)
    except BundleError as error:
        raise BundleError(f"training: {error}") from error
