"""HeadBundle: a saved head comes back; one that was tampered with is refused and never run."""

import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from support.bundles import (
    CLASSES,
    SPEC,
    Marker,
    as_bytes,
    draw,
    make_bundle,
    make_estimator,
    read_archive,
    read_schema,
    refuse,
    repack,
    replace_array,
    run,
)

from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import BundleError, SpecMismatchError
from brainfeat.heads.archive import ALLOWED_TYPES
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.heads.trees import TREE_HEADS

ARCHIVED = [head for head in HEAD_NAMES if head not in ("dense", *TREE_HEADS)]


# What is saved comes back


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("head", HEAD_NAMES)
def test_a_head_comes_back(tmp_path, head, n_classes):
    bundle = make_bundle(head, n_classes)
    back = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    X, _ = draw(n_classes)
    # scikit-learn's threads add up the trees of a forest in any order.
    tolerance = 1e-14 if head in TREE_HEADS else 0
    assert np.allclose(back.predict_proba(X), bundle.predict_proba(X), rtol=0, atol=tolerance)
    assert back.predict(X).tolist() == bundle.predict(X).tolist()
    for field in ("spec", "class_names", "head", "params", "temperature", "training"):
        assert getattr(back, field) == getattr(bundle, field)
    assert np.array_equal(back.probe, bundle.probe)


@pytest.mark.parametrize(
    ("head", "params"),
    [
        ("svm", {"kernel": "linear"}),
        ("svm", {"kernel": "poly", "gamma": 0.1, "degree": 2}),
        ("svm", {"class_weight": {0: 2.0}}),
        ("logistic", {"class_weight": "balanced"}),
        ("logistic", {"fit_intercept": False}),
        ("linear-svm", {"fit_intercept": False}),
        ("knn", {"n_neighbors": 3, "weights": "distance", "metric": "cosine"}),
        ("knn", {"p": 3}),
        ("lda", {"solver": "lsqr", "shrinkage": "auto"}),
        ("lda", {"solver": "eigen"}),
    ],
)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_head_of_other_parameters_comes_back(tmp_path, head, params, n_classes):
    bundle = make_bundle(head, n_classes, estimator=make_estimator(head, n_classes, **params))
    back = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    X, _ = draw(n_classes)
    assert np.array_equal(back.predict_proba(X), bundle.predict_proba(X))


def test_a_file_checked_for_layout_alone_is_the_same(saved):
    X, _ = draw()
    unverified, full = (HeadBundle.load(saved["svm"], verify=verify) for verify in ("off", "full"))
    assert np.array_equal(unverified.predict_proba(X), full.predict_proba(X))


def test_probabilities_are_of_the_scaled_scores():
    bundle = make_bundle("logistic", temperature=2.0)
    X, _ = draw()
    odds = bundle.estimator.decision_function(X).astype(float) / 2.0
    expected = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    assert np.allclose(bundle.predict_proba(X), expected)


def test_predict_names_the_most_probable_class():
    bundle = make_bundle()
    X, _ = draw()
    expected = [CLASSES[column] for column in bundle.predict_proba(X).argmax(axis=1)]
    assert bundle.predict(X).tolist() == expected


@pytest.mark.parametrize("shape", [(8,), (3, 7), (2, 3, 8)])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(BundleError, match=r"this head takes \(n, 8\)"):
        make_bundle().predict_proba(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    with pytest.raises(BundleError, match="not finite"):
        make_bundle().predict_proba(np.full((1, 8), value))


@pytest.mark.parametrize("head", ["dense", "svm"])
def test_without_rows_there_are_no_probabilities(head):
    assert make_bundle(head).predict_proba(np.zeros((0, 8))).shape == (0, 4)


def test_another_spec_is_refused_by_field():
    other = FeatureSpec(
        backbone="vgg16", layer="block4_pool", n_features=8, weights_sha256="0" * 64
    )
    with pytest.raises(SpecMismatchError, match="layer: block5_pool and block4_pool"):
        make_bundle().check_spec(other)


# Where a bundle can be saved


def test_a_head_of_a_type_not_allowed_is_refused_and_nothing_is_written(tmp_path):
    estimator = make_estimator("knn", algorithm="kd_tree")
    with pytest.raises(BundleError, match="KDTree"):
        make_bundle("knn", estimator=estimator).save(tmp_path / "head.h5")
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(BundleError, match="plain numbers"):
        make_bundle(params={"C": np.int64(3)}).save(tmp_path / "head.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_kept_unless_overwritten(tmp_path):
    path = make_bundle("svm").save(tmp_path / "head.h5")
    with pytest.raises(BundleError, match="overwrite=True"):
        make_bundle("lda").save(path)
    assert HeadBundle.load(path).head == "svm"
    make_bundle("lda").save(path, overwrite=True)
    assert HeadBundle.load(path).head == "lda"
    assert os.listdir(tmp_path) == ["head.h5"]


def test_a_folder_is_never_overwritten(tmp_path):
    with pytest.raises(BundleError, match="is not a regular file"):
        make_bundle().save(tmp_path, overwrite=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BundleError, match="there is no folder"):
        make_bundle().save(tmp_path / "missing" / "head.h5")


# Files that are not bundles


def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist" in refuse(tmp_path / "missing.h5")


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", pickle.dumps({"a": 1}), b"PK\3\4"])
def test_a_file_of_another_format_is_refused(tmp_path, data):
    path = tmp_path / "head.h5"
    path.write_bytes(data)
    assert "not a file that brainfeat wrote" in refuse(path)


def test_a_cache_is_refused_as_a_bundle(make_cache):
    X, y = draw()
    assert "not a brainfeat-head file" in refuse(make_cache(X, y))


@pytest.mark.parametrize("head", ["dense", "svm"])
def test_one_changed_bit_is_refused(saved, tmp_path, head):
    good = saved[head].read_bytes()
    path = tmp_path / "flipped.h5"
    rng = np.random.default_rng(5)
    for place in rng.integers(0, len(good), 50):
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        refuse(path)


def test_a_truncated_file_is_refused(saved, tmp_path):
    good = saved["svm"].read_bytes()
    path = tmp_path / "truncated.h5"
    for size in np.linspace(0, len(good) - 1, 20).astype(int):
        path.write_bytes(good[:size])
        refuse(path)


# Attributes that lie


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("head", "[" * 100_000, "JSON"),
        ("head", '{"name":"svm","name":"svm","params":{}}', "repeats a key"),
        ("head", '{"name":"svm","params":{"C":NaN}}', "NaN"),
        ("head", '{"name":"svm"}', "unknown head"),
        ("head", '{"name":["svm"],"params":{}}', "unknown head"),
        ("head", '{"name":"random-forest","params":{}}', "missing or unknown"),
        ("head", '{"name":"svm","params":[]}', "params"),
        ("head", '"svm"', "head must be"),
        ("training", "[]", "training: expected a JSON object"),
        ("training", '{"a":1e999}', "finite"),
        ("class_names", "{}", "class_names must be"),
        ("class_names", '["a","b","c",4]', "different texts"),
        ("class_names", '[["a"],["b"],["c"],["d"]]', "different texts"),
        ("class_names", '["a","b","c","c"]', "different texts"),
        ("class_names", '["a"]', "different texts"),
        ("class_names", '["a","b","c"]', "classes_"),
        ("class_names", '["a","b","c","d","e"]', "classes_"),
        ("temperature", 0.0, "temperature"),
        ("temperature", -1.0, "temperature"),
        ("temperature", np.inf, "temperature"),
        ("temperature", np.nan, "temperature"),
        ("temperature", "1.0", "temperature"),
        ("temperature", 7.0, "probabilities stored with it"),
        ("spec", "[]", "spec"),
        ("spec", "{}", "spec"),
        ("spec", "\ud7ff" * 3, "JSON"),
        ("format_version", 4, "format version 4"),
        ("signature_version", 2, "signatures of version 2, but this brainfeat reads version 1"),
    ],
)
def test_an_attribute_that_lies_is_refused(craft, attribute, value, message):
    assert message in refuse(craft(**{attribute: value}))


# A width of 7 is below a column that is used, and one below 1 is refused before any head is read.
WIDTHS = [
    *((head, 9) for head in HEAD_NAMES),
    *((head, 7) for head in ("dense", "svm", *TREE_HEADS)),
    *(("svm", width) for width in (10**9, 0, -1)),
]


@pytest.mark.parametrize(("head", "width"), WIDTHS)
def test_a_spec_of_another_width_is_refused(craft, head, width):
    fields = {**json.loads(SPEC.to_json()), "n_features": width}
    refuse(craft(head, spec=json.dumps(fields)))


@pytest.mark.parametrize("claimed", HEAD_NAMES)
def test_a_head_of_another_name_is_refused(craft, claimed):
    stored = "logistic" if claimed == "svm" else "svm"
    refuse(craft(stored, head=json.dumps({"name": claimed, "params": {}})))


@pytest.mark.parametrize(
    "params",
    [{"dropout": 3}, {"dropout": 10**400}, {"depth": 1}, {"epochs": "many"}, {"verbose": [1]}],
)
def test_bad_parameters_of_a_dense_head_are_refused(craft, params):
    refuse(craft("dense", head=json.dumps({"name": "dense", "params": params})))


# Arrays that lie


@pytest.mark.parametrize("name", ["probe/X", "probe/probabilities"])
def test_a_missing_probe_is_refused(craft, name):
    assert "probe vectors are missing" in refuse(craft(remove=[name]))


@pytest.mark.parametrize(
    "arrays",
    [
        {"probe/X": np.zeros((0, 8), "<f4"), "probe/probabilities": np.zeros((0, 4))},
        {"probe/X": np.zeros((16, 8), "<f4")},
        {"probe/X": np.full((16, 8), np.nan, "<f4")},
        {"probe/X": np.zeros((16, 7), "<f4")},
        {"probe/probabilities": np.full((16, 4), 0.25)},
        {"probe/probabilities": np.full((16, 4), np.nan)},
        {"probe/probabilities": np.full((1, 4), 0.25)},
        {"probe/probabilities": np.full((16, 1), 0.25)},
    ],
)
def test_a_wrong_probe_is_refused(craft, arrays):
    refuse(craft(arrays=arrays))


@pytest.mark.parametrize(
    "arrays",
    [
        {"dense/0/kernel": np.zeros((7, 6), "<f4")},
        {"dense/0/kernel": np.full((8, 6), np.nan, "<f4")},
        {"dense/0/kernel": np.zeros((0, 0), "<f4")},
        {"dense/0/bias": np.zeros(5, "<f4")},
        {"dense/1/bias": np.full(4, np.inf, "<f4")},
        {"dense/1/kernel": np.zeros((6, 3), "<f4"), "dense/1/bias": np.zeros(3, "<f4")},
        {"dense/mean": np.zeros(7)},
        {"dense/scale": np.zeros(8)},
        {"dense/scale": np.full(8, np.nan)},
        {"dense/3/kernel": np.zeros((4, 4), "<f4"), "dense/3/bias": np.zeros(4, "<f4")},
        {"dense/2/bias": np.zeros(4, "<f4")},
        {"skops": np.zeros(4, np.uint8)},
        {"keras": np.zeros(4, np.uint8)},
    ],
)
def test_wrong_arrays_of_a_dense_head_are_refused(craft, arrays):
    refuse(craft("dense", arrays=arrays))


@pytest.mark.parametrize(
    "name", ["dense/0/kernel", "dense/1/bias", "dense/mean", "dense/scale", "dense"]
)
def test_missing_arrays_of_a_dense_head_are_refused(craft, name):
    refuse(craft("dense", remove=[name]))


def test_an_archive_beside_dense_arrays_is_refused(craft):
    assert "archive alone" in refuse(craft(arrays={"dense/mean": np.zeros(8)}))


# Archives that would run, fill or crash


@pytest.mark.parametrize("where", ["archive", "member", "schema"])
def test_a_pickle_is_never_loaded(craft, saved, tmp_path, where):
    trace = tmp_path / "trace"
    bad = pickle.dumps(Marker(trace))
    archive = read_archive(saved["svm"])
    member = next(name for name in zipfile.ZipFile(io.BytesIO(archive)).namelist())
    crafted = {
        "archive": bad,
        "member": repack(archive, **{member: bad}),
        "schema": repack(archive, schema=bad),
    }
    refuse(craft(arrays=as_bytes(crafted[where])))
    assert not trace.exists()


@pytest.mark.parametrize(
    "estimator",
    [
        Pipeline([("scaler", FunctionTransformer(os.system)), ("classifier", SVC())]),
        Pipeline([("scaler", StandardScaler()), ("classifier", RandomForestClassifier())]),
        SVC(kernel=os.system),
        {"a": os.system},
        [os.system],
    ],
)
def test_a_type_that_is_not_allowed_is_refused(craft, estimator):
    message = refuse(craft(arrays=as_bytes(skops.io.dumps(estimator))))
    assert "not one of the allowed types" in message


@pytest.mark.parametrize(
    "node",
    [
        {"__loader__": "OperatorFuncNode", "__module__": "operator", "__class__": "attrgetter"},
        {"__loader__": "MethodNode", "__module__": "builtins", "__class__": "str"},
        {"__loader__": "PartialNode", "__module__": "functools", "__class__": "partial"},
        {"__loader__": "FunctionNode", "__module__": "builtins", "__class__": "str"},
        {"__loader__": "CachedNode", "__module__": "builtins", "__class__": "str", "__id__": 1},
        {"__loader__": "ObjectNode", "__module__": "builtins", "__class__": "dict"},
        {"__loader__": "ListNode", "__module__": "numpy", "__class__": "ndarray", "content": []},
        {"__loader__": "TypeNode", "__module__": "sklearn.svm._classes", "__class__": "SVC"},
        {"__loader__": ["JsonNode"], "__module__": "builtins", "__class__": "str"},
        {"__loader__": "ObjectNode", "__module__": "builtins", "__class__": "two\nlines"},
        {"__loader__": "JsonNode"},
        {"__module__": "builtins", "__class__": "str"},
    ],
)
def test_a_loader_that_is_not_allowed_is_refused(craft, saved, node):
    archive = read_archive(saved["svm"])
    schema = read_schema(archive)
    schema["content"]["content"]["memory"] = {"content": {}, **node}
    message = refuse(craft(arrays=as_bytes(repack(archive, schema=schema))))
    assert "not one of the allowed types" in message


def test_every_allowed_type_is_needed(saved):
    """Fails where the list has a type that no head is made of."""
    needed = set()
    for head in ARCHIVED:
        waiting = [read_schema(read_archive(saved[head]))]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "__class__" in value:
                    needed.add(f"{value['__module__']}.{value['__class__']}")
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)
    # A class_weight by label has integer keys; a scaler of samples all weighing 1 may count in int.
    allowed = frozenset().union(*ALLOWED_TYPES.values())
    assert allowed - needed == {"builtins.int", "numpy.int64"}


def as_list(identity, *content):
    names = {"__loader__": "ListNode", "__module__": "builtins", "__class__": "list"}
    return {**names, "__id__": identity, "content": list(content)}


# Each list holds the one before it twice: n of them take 2 to the power of n steps to walk through.
@pytest.mark.parametrize("again", [as_list, lambda identity: {"__id__": identity}])
def test_lists_within_lists_without_end_are_refused(craft, saved, again):
    archive = read_archive(saved["svm"])
    schema = read_schema(archive)
    doubled = [as_list(1)]
    doubled += [as_list(n, again(n - 1), again(n - 1)) for n in range(2, 16)]
    schema["content"]["content"]["transform_input"] = as_list(10**6, *doubled)
    refuse(craft(arrays=as_bytes(repack(archive, schema=schema))))


def test_a_list_within_itself_is_refused(craft, saved):
    archive = read_archive(saved["svm"])
    schema = read_schema(archive)
    schema["content"]["content"]["transform_input"] = as_list(1, as_list(1))
    message = refuse(craft(arrays=as_bytes(repack(archive, schema=schema))))
    assert "identity of its own" in message


def nest(depth):
    return b'{"__loader__":"ListNode","content":[' * depth + b"]}" * depth


@pytest.mark.parametrize(
    "schema",
    [
        b"[" * 100_000,
        b'{"content":' * 400 + b"1" + b"}" * 400,
        nest(300),
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b"\xff\xfe",
        b"[]",
        b"1",
        b"{}",
        b"",
    ],
)
def test_a_malformed_schema_is_refused(craft, saved, schema):
    archive = repack(read_archive(saved["svm"]), schema=schema)
    refuse(craft(arrays=as_bytes(archive)))


@pytest.mark.parametrize("protocol", [-1, 99, "2", None, True, [2]])
def test_another_protocol_of_skops_is_refused(craft, saved, protocol):
    archive = read_archive(saved["svm"])
    schema = {**read_schema(archive), "protocol": protocol}
    refuse(craft(arrays=as_bytes(repack(archive, schema=schema))))


def test_a_zip_bomb_is_refused_unread(craft, saved):
    bomb = repack(
        read_archive(saved["svm"]), compression=zipfile.ZIP_DEFLATED, bomb=bytes(64 << 20)
    )
    assert "compressed" in refuse(craft(arrays=as_bytes(bomb)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_is_refused_even_where_nothing_grows(craft, saved, compression):
    archive = read_archive(saved["svm"])
    packed = repack(archive, compression=compression) + bytes(len(archive))
    assert "compressed" in refuse(craft(arrays=as_bytes(packed)))


def test_an_array_that_declares_more_than_it_holds_is_refused(craft, saved):
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 39,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    archive = replace_array(read_archive(saved["svm"]), buffer.getvalue())
    refuse(craft(arrays=as_bytes(archive)))


@pytest.mark.parametrize(
    "header",
    [
        b"-" * 5000 + b"1",
        b"(" * 5000,
        b"{'descr': '''",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (8,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (8,), 'more': 1, }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (08,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000,), }",
    ],
)
def test_a_header_that_numpy_does_not_write_is_never_parsed(craft, saved, header):
    data = b"\x93NUMPY\x01\0" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + bytes(64)
    archive = replace_array(read_archive(saved["svm"]), data)
    assert "not an array of numbers" in refuse(craft(arrays=as_bytes(archive)))


def test_a_nested_zip_is_not_an_array(craft, saved):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(8))
    archive = replace_array(read_archive(saved["svm"]), buffer.getvalue())
    assert "not an array of numbers" in refuse(craft(arrays=as_bytes(archive)))


def test_another_version_of_scikit_learn_is_left_to_the_probe(craft, saved):
    archive = read_archive(saved["svm"])
    schema = json.dumps(read_schema(archive))
    version = json.dumps(json.dumps(sklearn.__version__))
    assert version in schema
    older = schema.replace(version, json.dumps(json.dumps("1.0.0"))).encode()
    path = craft(arrays=as_bytes(repack(archive, schema=older)))
    X, _ = draw()
    assert np.array_equal(HeadBundle.load(path).predict_proba(X), make_bundle().predict_proba(X))


def test_a_file_does_not_decide_how_many_threads_start(craft):
    head, archive = _tamper("knn", {"n_jobs": 10**6})
    assert HeadBundle.load(craft(head, arrays=as_bytes(archive))).estimator[-1].n_jobs is None


def test_an_archive_without_its_arrays_is_refused(craft, saved):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("schema.json", json.dumps(read_schema(read_archive(saved["svm"]))))
    refuse(craft(arrays=as_bytes(buffer.getvalue())))


@pytest.mark.parametrize(
    "estimator",
    [
        SVC(),
        {"a": 1},
        Pipeline([]),
        Pipeline([("scaler", StandardScaler()), ("classifier", SVC())]),
        Pipeline([("scaler", StandardScaler()), ("classifier", LogisticRegression())]),
        Pipeline([("classifier", SVC()), ("scaler", StandardScaler())]),
    ],
)
def test_an_archive_of_another_estimator_is_refused(craft, estimator):
    refuse(craft(arrays=as_bytes(skops.io.dumps(estimator))))


# Estimators whose arrays would make compiled code read out of bounds


def _tamper(part, values):
    """Dump an SVM or nearest-neighbours head with some attributes of a part replaced."""
    head = "knn" if part == "knn" else "svm"
    estimator = make_estimator(head)
    target = estimator["scaler" if part == "scaler" else "classifier"]
    target.__dict__.update(values)
    return head, skops.io.dumps(estimator)


TAMPERED = [
    ("svm", {"support_": np.zeros(1, np.int32)}),
    ("svm", {"support_": np.zeros(0, np.int32)}),
    ("svm", {"support_vectors_": np.zeros((2, 8))}),
    ("svm", {"support_vectors_": np.zeros((40, 1))}),
    ("svm", {"_n_support": np.array([10**6, 5, 5, 5], np.int32)}),
    ("svm", {"_n_support": np.array([10**6, -(10**6), 5, 5], np.int32)}),
    ("svm", {"_n_support": np.arange(200, dtype=np.int32)}),
    ("svm", {"_dual_coef_": np.zeros((1, 2))}),
    ("svm", {"_intercept_": np.zeros(1)}),
    ("svm", {"_intercept_": np.full(6, np.nan)}),
    ("svm", {"_probA": np.zeros(1), "_probB": np.zeros(1)}),
    ("svm", {"_probA": np.zeros(6), "_probB": np.zeros(6)}),
    ("svm", {"kernel": "precomputed"}),
    ("svm", {"decision_function_shape": "mine"}),
    ("svm", {"_sparse": True}),
    ("svm", {"_impl": "one_class"}),
    ("svm", {"decision_function": "mine"}),
    ("svm", {"classes_": np.arange(3)}),
    ("svm", {"classes_": np.array([0, 1, 2, 9])}),
    ("svm", {"_gamma": "x"}),
    ("scaler", {"mean_": np.zeros(7)}),
    ("scaler", {"scale_": np.zeros(8)}),
    ("scaler", {"feature_names_in_": np.array(["a"] * 8)}),
    ("scaler", {"scale_": np.full(8, np.nan)}),
    ("knn", {"_y": np.full(80, 10**9)}),
    ("knn", {"_y": np.full(80, -5)}),
    ("knn", {"_y": np.zeros(3, int)}),
    ("knn", {"_fit_X": np.zeros((80, 7), np.float32)}),
    ("knn", {"_fit_X": np.zeros((0, 8), np.float32)}),
    ("knn", {"n_neighbors": 10**9}),
    ("knn", {"n_neighbors": 81, "n_samples_fit_": 100}),
    ("knn", {"metric": "precomputed", "effective_metric_": "precomputed"}),
]


@pytest.mark.parametrize(("part", "values"), TAMPERED)
def test_arrays_that_compiled_code_would_trust_are_checked_first(craft, monkeypatch, part, values):
    head, archive = _tamper(part, values)
    path = craft(head, arrays=as_bytes(archive))
    asked = []
    monkeypatch.setattr(HeadBundle, "predict_proba", lambda self, X: asked.append(X))
    refuse(path)
    assert not asked


@pytest.mark.parametrize(
    "values", [{"n_features_in_": 7}, {"scale_": np.full(8, 5e-324)}, {"n_features_in_": "x"}]
)
def test_a_head_that_cannot_predict_is_refused(craft, values):
    head, archive = _tamper("scaler", values)
    refuse(craft(head, arrays=as_bytes(archive)))


@pytest.mark.slow
def test_loading_imports_no_keras(saved):
    script = f"""
        import sys
        from brainfeat.heads.bundle import HeadBundle
        for path in {list(map(str, saved.values()))!r}:
            HeadBundle.load(path)
        print(sorted({{"tensorflow", "keras", "torch", "jax"}} & set(sys.modules)))
    """
    assert run(script) == "[]"


@pytest.mark.slow
def test_loading_runs_imports_starts_and_writes_nothing(saved, craft, tmp_path):
    archive = read_archive(saved["svm"])
    schema = read_schema(archive)
    schema["content"]["content"]["memory"] = {
        "__loader__": "OperatorFuncNode",
        "__module__": "operator",
        "__class__": "methodcaller",
        "__id__": 1,
        "attrs": {},
    }
    system = Pipeline([("scaler", FunctionTransformer(os.system)), ("classifier", SVC())])
    archives = [
        skops.io.dumps(system),
        repack(archive, schema=schema),
        replace_array(archive, pickle.dumps(Marker(tmp_path / "trace"))),
        pickle.dumps(Marker(tmp_path / "trace")),
        _tamper("svm", {"_n_support": np.array([10**6, 5, 5, 5], np.int32)})[1],
        _tamper("svm", {"decision_function": os.getcwd()})[1],
    ]
    bad = [
        shutil.move(craft(arrays=as_bytes(data)), tmp_path / f"{number}.h5")
        for number, data in enumerate(archives)
    ]
    script = f"""
        import sys
        from brainfeat.heads.bundle import HeadBundle
        from brainfeat.errors import BundleError

        good, bad = {list(map(str, saved.values()))!r}, {list(map(str, bad))!r}
        for path in good:
            HeadBundle.load(path)
        events = []
        sys.addaudithook(lambda event, args: events.append((event, args)))
        for path in good:
            HeadBundle.load(path)
        for path in bad:
            try:
                HeadBundle.load(path)
            except BundleError:
                events.append(("refused", (path,)))
        for event, args in list(events):
            if event == "open":
                event = f"open {{args[1].strip('b')}}"
            if event == "compile" and args[0].startswith(b"{{'descr': '<"):
                event = "numpy header"
            print(event)
    """
    events = run(script).splitlines()
    assert events.count("refused") == len(bad)
    harmless = {"refused", "open r", "numpy header", "builtins.id", "object.__getattr__"}
    assert set(events) <= harmless


@pytest.mark.slow
def test_nothing_but_a_bundle_error_comes_of_changed_bits_under_a_new_seal(saved, tmp_path):
    script = f"""
        from pathlib import Path
        import numpy as np
        from brainfeat.cache import writing
        from brainfeat.heads.bundle import HeadBundle
        from brainfeat.errors import BundleError

        rng = np.random.default_rng(0)
        crafted = Path({str(tmp_path / "crafted.h5")!r})
        refused = 0
        for good in map(Path, {[str(saved[head]) for head in ("dense", "svm", "knn")]!r}):
            for _ in range(40):
                data = bytearray(good.read_bytes())
                data[rng.integers(512, len(data))] ^= 1 << int(rng.integers(8))
                crafted.write_bytes(data)
                writing.seal(crafted)
                try:
                    HeadBundle.load(crafted)
                except BundleError:
                    refused += 1
        print(refused)
    """
    assert int(run(script)) > 60  # the others are in bytes that nothing uses
