"""HeadBundle: the format of a fitted head. Loading one runs no code that the file brings."""

import json
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import DatasetRule, Schema, StoredFile, Verify
from brainfeat.cache.writing import write_file
from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import BrainfeatError, BundleError
from brainfeat.heads.archive import REBUILD_ERRORS, from_arrays, to_arrays
from brainfeat.heads.calibration import softmax
from brainfeat.heads.conformal import CONFORMAL_ARRAYS, Conformal
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.heads.ood import OOD_ARRAYS, OODDetector
from brainfeat.heads.trees import TREE_ARRAYS

# What is looked into of how a head was trained: objects, or null.
_TRAINING_PARTS = ("calibration", "cv", "held_out", "leakage", "split", "test", "val", "versions")
_PROBE_TOLERANCE = 1e-4
_PROBE_NAMES = frozenset({"probe/X", "probe/probabilities"})

BUNDLE_SCHEMA = Schema(
    format="brainfeat-head",
    version=1,
    datasets={
        r"dense/\d/kernel": DatasetRule(dtype="<f4", ndim=2),
        r"dense/\d/bias": DatasetRule(dtype="<f4"),
        r"dense/mean": DatasetRule(dtype="<f8"),
        r"dense/scale": DatasetRule(dtype="<f8"),
        r"skops": DatasetRule(dtype="|u1"),
        **{
            rf"trees/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in TREE_ARRAYS.items()
        },
        **{
            rf"scope/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in OOD_ARRAYS.items()
        },
        **{
            rf"conformal/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in CONFORMAL_ARRAYS.items()
        },
        r"probe/X": DatasetRule(dtype="<f4", ndim=2),
        r"probe/probabilities": DatasetRule(dtype="<f8", ndim=2),
    },
    attributes=frozenset({"spec", "class_names", "head", "temperature", "training"}),
    error=BundleError,
    format_error=BundleError,
    corrupt_error=BundleError,
    remedy="restore a copy, or fit it anew with brainfeat fit-head",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadBundle:
    """A fitted head with all that a prediction needs to know.

    Attributes
    ----------
    spec : FeatureSpec
        What the features must mean.
    class_names : tuple of str
        The classes, in the order of the columns of :meth:`predict_proba`.
    head : str
        Name of the head, such as ``"svm"``.
    params : dict
        Parameters that the head was made with.
    estimator : scikit-learn classifier
        The fitted head; its classes are 0…k−1.
    temperature : float
        What scores are divided by before the softmax.
    training : dict
        Split sizes, metrics, seeds, digest of the cache, versions.
    probe : ndarray of shape (m, d), float32
        Vectors whose probabilities are stored and compared when the bundle is loaded.
    ood_detector : OODDetector or None
        Detects images that are unlike those that the head was fitted on.
    conformal : Conformal or None
        Predicts the set of classes that holds the true class at a target coverage.
    content_sha256 : str
        Digest of the file that it was read from; empty for a bundle that was not.
    """

    spec: FeatureSpec
    class_names: tuple[str, ...]
    head: str
    params: dict[str, Any]
    estimator: Any
    temperature: float
    training: dict[str, Any]
    probe: NDArray[np.float32]
    ood_detector: OODDetector | None = None
    conformal: Conformal | None = None
    content_sha256: str = ""

    def scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Give the scores whose softmax, divided by `temperature`, are the probabilities.

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
        from brainfeat.heads.kinds import head_scores

        features = np.asarray(X, np.float32)
        if features.ndim != 2 or features.shape[1] != self.spec.n_features:
            raise BundleError(
                f"features of shape {features.shape}; this head takes (n, {self.spec.n_features})"
            )
        if not np.isfinite(features).all():
            raise BundleError("the features hold values that are not finite")
        if not len(features):
            return np.empty((0, len(self.class_names)))
        return head_scores(self.estimator, features)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Give the probability of each class.

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
        """Give the name of the most probable class of each row of X, (n,)."""
        named: NDArray[np.str_] = np.array(self.class_names)[self.predict_proba(X).argmax(axis=1)]
        return named

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features of another spec.

        Raises
        ------
        SpecMismatchError
            The message names each field that differs.
        """
        self.spec.require(spec, here="the head", there="the cache")

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the bundle to one file.

        Parameters
        ----------
        path : path-like
        overwrite : bool
            Whether a file that is there may be replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        BundleError
            The file exists, cannot be written, or the head cannot be stored safely.
        """
        path = check_target(path, overwrite=overwrite)
        try:
            head = canonical_json({"name": self.head, "params": self.params})
        except (TypeError, ValueError) as error:
            raise BundleError(
                f"the parameters {self.params} cannot be stored ({error}); "
                "give plain numbers, texts, lists or dictionaries"
            ) from error
        return write_file(
            path,
            BUNDLE_SCHEMA,
            datasets={
                **to_arrays(self.head, self.estimator),
                **_with_prefix("scope", self.ood_detector),
                **_with_prefix("conformal", self.conformal),
                "probe/X": self.probe,
                "probe/probabilities": self.predict_proba(self.probe),
            },
            attributes={
                "spec": self.spec.to_json(),
                "class_names": json.dumps(self.class_names),
                "head": head,
                "temperature": float(self.temperature),
                "training": canonical_json(self.training),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: Verify = "full") -> Self:
        """Read a bundle; nothing that the file holds is executed.

        Parameters
        ----------
        path : path-like
            A file that :meth:`save` wrote.
        verify : {"full", "off"}
            ``"full"`` compares the file's SHA-256 with the one it was written with.

        Returns
        -------
        HeadBundle

        Raises
        ------
        BundleError
            The file is not there, damaged, of another format, holds a type that is not allowed, or
            gives other probabilities than those stored with it.
        """
        with StoredFile(path, BUNDLE_SCHEMA, verify=verify) as file, warnings.catch_warnings():
            # Such as that of another version of scikit-learn: the probe tells what it comes to.
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
        names = _typed(parse_json(str(stored["class_names"])), list, "class_names")
        head = _typed(parse_json(str(stored["head"])), dict, "head")
        if set(head) != {"name", "params"} or head["name"] not in HEAD_NAMES:
            raise BundleError(f"unknown head {head.get('name')!r}")
        if not all(map(_is_text, names)) or len(set(names)) != len(names) or len(names) < 2:
            raise BundleError("class_names must be two or more different texts")
        temperature = stored["temperature"]
        if not isinstance(temperature, float) or not 0 < temperature < np.inf:
            raise BundleError(f"temperature {temperature!r}; expected a positive number")
        arrays = {name: np.asarray(array) for name, array in file.arrays.items()}
        if not set(arrays) >= _PROBE_NAMES:
            raise BundleError("the probe vectors are missing")
        probe, expected = (arrays.pop(name) for name in ("probe/X", "probe/probabilities"))
        params = _typed(head["params"], dict, "params")
        n_features, n_classes = spec.n_features, len(names)
        scope = _take(arrays, "scope", OOD_ARRAYS)
        conformal = _take(arrays, "conformal", CONFORMAL_ARRAYS)
        bundle = cls(
            spec=spec,
            class_names=tuple(names),
            head=head["name"],
            params=params,
            estimator=from_arrays(
                head["name"],
                params,
                arrays,
                n_features=n_features,
                n_classes=n_classes,
                temperature=temperature,
            ),
            temperature=temperature,
            training=_read_training(str(stored["training"])),
            probe=probe,
            ood_detector=OODDetector.from_arrays(scope, n_features=n_features, n_classes=n_classes)
            if scope
            else None,
            conformal=Conformal.from_arrays(conformal, n_classes=n_classes) if conformal else None,
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


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse a place that cannot be written, before anything is fitted.

    Raises
    ------
    BundleError
        The folder is missing, or the file exists.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise BundleError(f"{path}: there is no folder {path.parent} to write into")
    if path.is_dir() or (path.exists() and not overwrite):
        raise BundleError(f"{path} exists; name another output or pass --overwrite")
    return path


def _with_prefix(prefix: str, part: OODDetector | Conformal | None) -> dict[str, NDArray[Any]]:
    arrays = {} if part is None else part.to_arrays()
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _take(
    arrays: dict[str, NDArray[Any]], prefix: str, names: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Take the arrays of a folder out of all: those of the format, or none."""
    found = [name for name in arrays if name.startswith(f"{prefix}/")]
    taken = {name.removeprefix(f"{prefix}/"): arrays.pop(name) for name in found}
    if taken and set(taken) != set(names):
        raise BundleError(
            f"{prefix} has the arrays {', '.join(sorted(taken))}; expected "
            f"{', '.join(sorted(names))}"
        )
    return taken


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _typed(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise BundleError(f"{name} must be a JSON {kind.__name__}")
    return value


def _read_training(text: str) -> dict[str, Any]:
    """Read how the head was trained, and check the parts that are looked into."""
    training: dict[str, Any] = _typed(parse_json(text), dict, "training")
    for name in _TRAINING_PARTS:
        _typed(training.get(name) or {}, dict, f"training's {name}")
    for ids in (training.get("held_out") or {}).values():
        if not all(map(_is_text, _typed(ids, list, "a part that was held out"))):
            raise BundleError("the images that were held out must be texts")
    return training
