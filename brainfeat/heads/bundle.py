"""HeadBundle: the format of a fitted head. Loading one runs no code that the file brings."""

import io
import json
import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import DatasetRule, Schema, StoredFile, Verify
from brainfeat.cache.writing import write_file
from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import BrainfeatError, BundleError, HeadError
from brainfeat.heads import trees
from brainfeat.heads.calibration import softmax
from brainfeat.heads.conformal import CONFORMAL_ARRAYS, Conformal
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.heads.ood import SCOPE_ARRAYS, Scope
from brainfeat.heads.trees import TREE_ARRAYS

# The loaders of skops that may take part, and every type that each may build; a file with another
# is refused before anything of it is built.
ALLOWED_TYPES: Mapping[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "NdArrayNode": frozenset({"numpy.float64", "numpy.int64", "numpy.ndarray"}),
    "ObjectNode": frozenset(
        {
            "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
            "sklearn.linear_model._logistic.LogisticRegression",
            "sklearn.neighbors._classification.KNeighborsClassifier",
            "sklearn.pipeline.Pipeline",
            "sklearn.preprocessing._data.StandardScaler",
            "sklearn.svm._classes.LinearSVC",
            "sklearn.svm._classes.SVC",
        }
    ),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": frozenset({"builtins.int", "builtins.str"}),
}
Part = TypeVar("Part", Scope, Conformal)

_NODE_KEYS = frozenset({"__class__", "__id__", "__loader__"})
TREE_HEADS = ("random-forest", "hist-gradient-boosting")

# What is looked into of how a head was trained: objects, or null.
_TRAINING_PARTS = ("calibration", "cv", "held_out", "leakage", "split", "test", "val", "versions")
_PROBE_TOLERANCE = 1e-4
_PROBE_NAMES = frozenset({"probe/X", "probe/probabilities"})
# What the parsers of zip, .npy and skops raise on bytes that are not theirs, and scikit-learn on
# parts that are not its own; MemoryError where an array declares more than there can be.
_REBUILD_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
# The header that NumPy writes for an array of numbers. Its own parser takes any Python literal.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '[<|][bfi][1248]', 'fortran_order': (?:True|False), "
    rb"'shape': \((?:(?:0|[1-9]\d{0,11}),?(?: (?:0|[1-9]\d{0,11}))?)?\), \} *\n",
    re.DOTALL,
)

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
            for name, (kind, ndim) in SCOPE_ARRAYS.items()
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
    scope : Scope or None
        What tells an image that is like none of those that the head was fitted on.
    conformal : Conformal or None
        What tells which classes cannot be ruled out.
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
    scope: Scope | None = None
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
                **_to_arrays(self.head, self.estimator),
                **_with_prefix("scope", self.scope),
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
        params = _typed(head["params"], dict, "params")
        scope = _take(arrays, "scope", Scope)
        conformal = _take(arrays, "conformal", Conformal)
        if scope is not None:
            scope.check(spec.n_features, len(names))
        if conformal is not None:
            conformal.check(len(names))
        bundle = cls(
            spec=spec,
            class_names=tuple(names),
            head=head["name"],
            params=params,
            estimator=_from_arrays(
                head["name"],
                params,
                arrays,
                n_features=spec.n_features,
                n_classes=len(names),
                temperature=temperature,
            ),
            temperature=temperature,
            training=_read_training(str(stored["training"])),
            probe=arrays["probe/X"],
            scope=scope,
            conformal=conformal,
            content_sha256=file.content_sha256,
        )
        bundle._check_probe(arrays["probe/probabilities"])
        return bundle

    def _check_probe(self, expected: NDArray[np.float64]) -> None:
        try:
            found = self.predict_proba(self.probe)
        except _REBUILD_ERRORS as error:
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


def _with_prefix(prefix: str, part: Scope | Conformal | None) -> dict[str, NDArray[Any]]:
    return {} if part is None else {f"{prefix}/{name}": array for name, array in vars(part).items()}


def _take(arrays: dict[str, NDArray[Any]], prefix: str, kind: type[Part]) -> Part | None:
    """Take the arrays of a part out of all, and make it of them; None where there are none."""
    found = {
        name.removeprefix(f"{prefix}/"): arrays.pop(name)
        for name in list(arrays)
        if name.startswith(f"{prefix}/")
    }
    if not found:
        return None
    wanted = {field.name for field in fields(kind)}
    if set(found) != wanted:
        raise BundleError(
            f"{prefix} has the arrays {', '.join(sorted(found))}; expected "
            f"{', '.join(sorted(wanted))}"
        )
    return kind(**found)


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


def _to_arrays(head: str, estimator: Any) -> dict[str, NDArray[Any]]:
    if head in TREE_HEADS:
        return {f"trees/{name}": array for name, array in trees.to_arrays(estimator).items()}
    if head != "dense":
        import skops.io

        archive = skops.io.dumps(estimator)
        _audit_archive(archive)
        return {"skops": np.frombuffer(archive, np.uint8)}
    arrays = {
        "dense/mean": np.asarray(estimator.mean_, "<f8"),
        "dense/scale": np.asarray(estimator.scale_, "<f8"),
    }
    for position, (kernel, bias) in enumerate(estimator.layers_):
        arrays[f"dense/{position}/kernel"] = np.asarray(kernel, "<f4")
        arrays[f"dense/{position}/bias"] = np.asarray(bias, "<f4")
    return arrays


def _from_arrays(
    head: str,
    params: dict[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    n_features: int,
    n_classes: int,
    temperature: float,
) -> Any:
    stored = {name: array for name, array in arrays.items() if name not in _PROBE_NAMES}
    if head == "dense":
        return _dense_from_arrays(params, stored, n_classes, temperature)
    if head in TREE_HEADS:
        return _trees_from_arrays(head, stored, n_features, n_classes)
    if set(stored) != {"skops"}:
        raise BundleError(
            f"a {head} head is a skops archive alone; got {', '.join(stored) or 'none'}"
        )
    import skops.io

    from brainfeat.heads.integrity import check_fitted

    archive = stored["skops"].tobytes()
    _audit_archive(archive)
    try:
        estimator = skops.io.loads(
            archive, trusted=sorted(frozenset().union(*ALLOWED_TYPES.values()))
        )
        check_fitted(head, estimator, n_features=n_features, n_classes=n_classes)
    except _REBUILD_ERRORS as error:
        raise BundleError(f"the stored head cannot be rebuilt ({error})") from error
    if head == "knn":
        # A file does not say how many threads its reader starts.
        estimator["classifier"].n_jobs = None
    return estimator


def _dense_from_arrays(
    params: dict[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    n_classes: int,
    temperature: float,
) -> Any:
    from brainfeat.heads.dense import DenseHead

    n_layers = sum(name.endswith("/kernel") for name in arrays)
    if len(arrays) != 2 * n_layers + 2:
        raise BundleError(f"a dense head has arrays missing or too many: {', '.join(arrays)}")
    try:
        layers = [
            (arrays[f"dense/{position}/kernel"], arrays[f"dense/{position}/bias"])
            for position in range(n_layers)
        ]
        return DenseHead.from_arrays(
            layers=layers,
            mean=arrays["dense/mean"],
            scale=arrays["dense/scale"],
            classes=np.arange(n_classes),
            temperature=temperature,
            params=params,
        )
    except _REBUILD_ERRORS as error:
        raise BundleError(f"the stored dense head cannot be rebuilt ({error})") from error


def _trees_from_arrays(
    head: str, arrays: Mapping[str, NDArray[Any]], n_features: int, n_classes: int
) -> Any:
    plain = {name.removeprefix("trees/"): array for name, array in arrays.items()}
    try:
        return trees.from_arrays(head, plain, n_features=n_features, n_classes=n_classes)
    except HeadError as error:
        raise BundleError(f"the stored head cannot be rebuilt ({error})") from error


def _audit_archive(archive: bytes) -> None:
    """Refuse a skops archive that could run, fill or stall what reads it."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            # skops stores without compression here, so that no member can grow when it is read.
            members = file.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(archive):
                raise BundleError("the stored head is compressed, which skops's are not here")
            nodes = list(_nodes(parse_json(file.read("schema.json").decode("utf-8"))))
            _check_types(nodes)
            _check_identities(nodes)
            for member in members:
                if member.filename != "schema.json" and not _is_plain_array(file.read(member)):
                    raise BundleError(f"{member.filename!r} in the head is no array of numbers")
    except _REBUILD_ERRORS as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the stored head is no skops archive ({error})") from error


def _check_types(nodes: list[dict[str, Any]]) -> None:
    """Refuse a type or a loader that is not allowed."""
    for node in nodes:
        kind, loader = f"{node.get('__module__')}.{node.get('__class__')}", node.get("__loader__")
        if not isinstance(loader, str) or kind not in ALLOWED_TYPES.get(loader, ()):
            raise BundleError(
                f"the head holds a {kind} ({loader}), which is not among the types allowed"
            )


def _check_identities(nodes: list[dict[str, Any]]) -> None:
    """Refuse nodes that hold each other, or one another many times over.

    skops takes nodes of one identity for the same object and walks through it anew each time, so a
    few dozen lists of two times the list before would keep it busy for years.
    """
    identities = Counter(str(node.get("__id__")) for node in nodes)
    for node in nodes:
        identity, holds_nodes = node.get("__id__"), isinstance(node.get("content"), dict | list)
        if type(identity) is not int or (holds_nodes and identities[str(identity)] > 1):
            raise BundleError("the stored head holds a part without an identity of its own")


def _is_plain_array(data: bytes) -> bool:
    header = data[: 10 + int.from_bytes(data[8:10], "little")]
    return _NPY_HEADER.fullmatch(header) is not None


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a skops schema, however deep, without recursion."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not value.keys().isdisjoint(_NODE_KEYS):
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
