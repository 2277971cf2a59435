"""Fitted heads as the arrays of a file; a skops archive is audited before anything of it is built.

A dense head and the trees are plain arrays. Every other head is a skops archive of a scikit-learn
pipeline. The schema of an archive may name only the types in `ALLOWED_TYPES`, and its members may
only be plain arrays of numbers, so that reading an archive runs no code that the file brings.
"""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.canonical import parse_json
from brainfeat.errors import BundleError
from brainfeat.heads import trees
from brainfeat.heads.bags import ATTENTION
from brainfeat.heads.kinds import ATTENTION_HEADS, TRAINED
from brainfeat.heads.parameters import GATE_SHAPES

Arrays = Mapping[str, NDArray[Any]]

# The loaders of skops that may take part, and every type that each may build. An archive that names
# another one is refused before anything of it is built.
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

# What the parsers of zip, .npy and skops raise on damaged bytes, and scikit-learn on damaged parts;
# MemoryError where an array declares more elements than fit into memory.
REBUILD_ERRORS = (
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
_NODE_KEYS = frozenset({"__class__", "__id__", "__loader__"})
# The header that NumPy writes for an array of numbers. Its own parser takes any Python literal.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '[<|][bfi][1248]', 'fortran_order': (?:True|False), "
    rb"'shape': \((?:(?:0|[1-9]\d{0,11}),?(?: (?:0|[1-9]\d{0,11}))?)?\), \} *\n",
    re.DOTALL,
)


def to_arrays(name: str, estimator: Any) -> dict[str, NDArray[Any]]:
    """Turn a fitted head into the arrays that a head file stores.

    Parameters
    ----------
    name : str
        Name of the head, one of :data:`brainfeat.heads.kinds.HEAD_NAMES`.
    estimator : scikit-learn classifier
        The fitted head.

    Returns
    -------
    dict of str to ndarray
        Datasets of the file by name: ``dense/…``, and ``attention/…``; or ``trees/…``; or
        ``skops``, the bytes of an archive, of shape (n,) and dtype uint8.

    Raises
    ------
    BundleError
        The head holds a type that a reader would refuse.
    HeadError
        A tree has a split that no finite number decides.
    """
    if name in trees.TREE_HEADS:
        return {f"trees/{key}": array for key, array in trees.to_arrays(estimator).items()}
    if name not in TRAINED:
        import skops.io

        archive = skops.io.dumps(estimator)
        _audit_archive(archive)
        return {"skops": np.frombuffer(archive, np.uint8)}
    arrays = {
        "dense/mean": np.asarray(estimator.mean_, "<f8"),
        "dense/scale": np.asarray(estimator.scale_, "<f8"),
    }
    for key, gate in zip(_name_gates(name), getattr(estimator, "gates_", ()), strict=True):
        arrays[key] = np.asarray(gate, "<f4")
    for position, (kernel, bias) in enumerate(estimator.layers_):
        arrays[f"dense/{position}/kernel"] = np.asarray(kernel, "<f4")
        arrays[f"dense/{position}/bias"] = np.asarray(bias, "<f4")
    return arrays


def from_arrays(
    arrays: Arrays,
    *,
    name: str,
    params: dict[str, Any],
    n_features: int,
    n_classes: int,
    temperature: float,
) -> Any:
    """Rebuild a fitted head from the arrays of a file, all of which are checked first.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Datasets by name, as `to_arrays` returns them.
    name : str
        Name of the head, one of :data:`brainfeat.heads.kinds.HEAD_NAMES`.
    params : dict
        Constructor parameters of a head that Keras trains.
    n_features, n_classes : int
        Number of features and of classes.
    temperature : float
        Divides the logits of a head that Keras trains.

    Returns
    -------
    scikit-learn classifier
        The fitted head; its classes are 0…k−1.

    Raises
    ------
    BundleError
        An array is missing, unknown, or not what the prediction needs; or an archive names a type
        that is not allowed.
    """
    try:
        if name in TRAINED:
            return _read_dense(name, arrays, params, n_classes=n_classes, temperature=temperature)
        if name in trees.TREE_HEADS:
            plain = {key.removeprefix("trees/"): array for key, array in arrays.items()}
            return trees.from_arrays(name, plain, n_features=n_features, n_classes=n_classes)
        return _read_archive(name, arrays, n_features=n_features, n_classes=n_classes)
    except REBUILD_ERRORS as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the stored {name} head cannot be rebuilt ({error})") from error


def _read_dense(
    head: str, arrays: Arrays, params: dict[str, Any], *, n_classes: int, temperature: float
) -> Any:
    from brainfeat.heads.attention import AttentionHead
    from brainfeat.heads.dense import DenseHead
    from brainfeat.heads.map_head import MapHead

    n_layers = sum(name.endswith("/kernel") for name in arrays)
    names = _name_gates(head)
    if len(arrays) != 2 * n_layers + 2 + len(names):
        raise BundleError(
            f"the arrays of the {head} head are missing or unknown: {', '.join(arrays)}"
        )
    layers = [
        (arrays[f"dense/{position}/kernel"], arrays[f"dense/{position}/bias"])
        for position in range(n_layers)
    ]
    parts: dict[str, Any] = {
        "layers": layers,
        "mean": arrays["dense/mean"],
        "scale": arrays["dense/scale"],
        "classes": np.arange(n_classes),
        "temperature": temperature,
        "params": params,
    }
    gates = [arrays[name] for name in names]
    if head == ATTENTION:
        return AttentionHead.from_arrays(gates, **parts)
    if head in ATTENTION_HEADS:
        return MapHead.from_arrays(gates, **{**parts, "params": {**params, "attention": head}})
    return DenseHead.from_arrays(**parts)


def _name_gates(head: str) -> list[str]:
    """Name the arrays of the gates of a head, in the order of its estimator."""
    return [f"attention/{name}" for name in GATE_SHAPES.get(head, ())]


def _read_archive(head: str, arrays: Arrays, *, n_features: int, n_classes: int) -> Any:
    if set(arrays) != {"skops"}:
        raise BundleError(
            f"a {head} head is a skops archive alone; got {', '.join(arrays) or 'no array'}"
        )
    import skops.io

    from brainfeat.heads.integrity import check_fitted

    archive = arrays["skops"].tobytes()
    _audit_archive(archive)
    allowed = sorted(frozenset().union(*ALLOWED_TYPES.values()))
    estimator = skops.io.loads(archive, trusted=allowed)
    check_fitted(head, estimator, n_features=n_features, n_classes=n_classes)
    if head == "knn":
        # A file does not decide how many threads its reader starts.
        estimator["classifier"].n_jobs = None
    return estimator


def _audit_archive(archive: bytes) -> None:
    """Refuse a skops archive that could run code, fill the memory or stall its reader."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            # skops stores members without compression here, so none can grow when it is read.
            members = file.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(archive):
                raise BundleError("the stored head is compressed; skops stores it uncompressed")
            nodes = list(_nodes(parse_json(file.read("schema.json").decode("utf-8"))))
            _check_types(nodes)
            _check_identities(nodes)
            for member in members:
                if member.filename != "schema.json" and not _is_plain_array(file.read(member)):
                    raise BundleError(f"{member.filename!r} in the head is not an array of numbers")
    except REBUILD_ERRORS as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the stored head is not a skops archive ({error})") from error


def _check_types(nodes: list[dict[str, Any]]) -> None:
    """Refuse a type or a loader that is not allowed."""
    for node in nodes:
        kind, loader = f"{node.get('__module__')}.{node.get('__class__')}", node.get("__loader__")
        if not isinstance(loader, str) or kind not in ALLOWED_TYPES.get(loader, ()):
            raise BundleError(
                f"the head holds a {kind} ({loader}), which is not one of the allowed types"
            )


def _check_identities(nodes: list[dict[str, Any]]) -> None:
    """Refuse nodes that contain themselves, or share an identity.

    skops takes nodes of one identity for the same object and walks through it each time. A few
    dozen lists, each of which holds the one before it twice, would keep it busy for years.
    """
    identities = Counter(str(node.get("__id__")) for node in nodes)
    for node in nodes:
        identity, holds_nodes = node.get("__id__"), isinstance(node.get("content"), dict | list)
        if type(identity) is not int or (holds_nodes and identities[str(identity)] > 1):
            raise BundleError("the stored head holds an object without an identity of its own")


def _is_plain_array(data: bytes) -> bool:
    header = data[: 10 + int.from_bytes(data[8:10], "little")]
    return _NPY_HEADER.fullmatch(header) is not None


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a skops schema at any depth, without recursion."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not value.keys().isdisjoint(_NODE_KEYS):
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
