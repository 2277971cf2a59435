"""Hostile bundles: a pickle in every slot, and malformed types, trees, archives and numbers.

Each is refused; and while all of them are opened in one process, an audit hook sees no code
compiled or run, nothing imported, no socket, no process, and no file opened but the bundles.
"""

import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from support import bundles, trees
from support.bundles import (
    Marker,
    as_bytes,
    read_archive,
    read_schema,
    refuse,
    repack,
    replace_array,
    run,
)

from brainfeat.heads.bundle_schema import FORMAT_2
from brainfeat.heads.ood import OODDetector
from brainfeat.heads.trees import to_arrays

DEEP = "[" * 50_000 + "]" * 50_000


def pickled(folder):
    return pickle.dumps(Marker(folder / "trace"), protocol=0)


def archives(good, folder):
    """Return archives of an SVM that were tampered with, by name."""
    schema = read_schema(good)
    names = zipfile.ZipFile(io.BytesIO(good)).namelist()
    (array, *_) = [name for name in names if name.endswith(".npy")]

    def with_node(**node):
        changed = json.loads(json.dumps(schema))
        changed["content"]["content"]["extra"] = {"__id__": 1, "content": {}, **node}
        return repack(good, schema=changed)

    def node(loader, module, kind, **more):
        return with_node(__loader__=loader, __module__=module, __class__=kind, **more)

    pipeline = Pipeline([("scaler", FunctionTransformer(os.system)), ("classifier", SVC())])
    return {
        "a pickle for an archive": pickled(folder),
        "a pickle for a member": replace_array(good, pickled(folder)),
        "a pickle for the schema": repack(good, schema=pickled(folder)),
        "a pickle as one more member": repack(good, **{"more.npy": pickled(folder)}),
        "a pickled array": replace_array(good, b"\x93NUMPY\x01\x00v\x00{'descr': '|O', "),
        "a function of the system": skops.io.dumps(pipeline),
        "a type": node("TypeNode", "os", "system"),
        "a function": node("FunctionNode", "os", "system"),
        "a method": node("MethodNode", "os", "system"),
        "a partial": node("PartialNode", "functools", "partial"),
        "an operator": node("OperatorFuncNode", "operator", "methodcaller", attrs={}),
        "a reduction": node("ReduceNode", "builtins", "eval", __reduce__={"args": ["1"]}),
        "a ufunc": node("UFuncNode", "numpy", "add"),
        "an object of another class": node("ObjectNode", "subprocess", "Popen"),
        "a generator": node("RandomGeneratorNode", "numpy.random", "Generator"),
        "a cache": node("CachedNode", "builtins", "dict"),
        "a type under another loader": node("ObjectNode", "builtins", "dict"),
        "no loader": with_node(__module__="builtins", __class__="dict"),
        "a loader that is a list": node(["ObjectNode"], "builtins", "dict"),
        "a schema without end": repack(good, schema=DEEP.encode()),
        "a schema that repeats a key": repack(good, schema=b'{"a": 1, "a": 2}'),
        "a schema with NaN": repack(good, schema=b'{"a": NaN}'),
        "a schema that is no JSON": repack(good, schema=b"import os"),
        "a schema that is not UTF-8": repack(good, schema=b"\xff\xfe"),
        "no schema": repack(good, schema=b""),
        "a compressed bomb": repack(
            good, compression=zipfile.ZIP_DEFLATED, **{array: bytes(50_000_000)}
        ),
        "a path out of the archive": repack(good, **{"../../trace": b"x"}),
        "a zip in a zip": replace_array(good, good),
        "an archive cut short": good[: len(good) // 2],
        "an archive with bytes before it": b"MZ" + good[:100],
        "nothing": b"",
        "an array of text": replace_array(good, b"\x93NUMPY\x01\x00v\x00{'descr': '<U9', "),
    }


def fields():
    """Return false attributes, by name."""
    spec = json.loads(bundles.SPEC.to_json())
    return {
        "deep JSON": {"training": DEEP},
        "long deep JSON": {"class_names": DEEP * 20},
        "a number of a million digits": {"training": '{"a": ' + "9" * 1_000_000 + "}"},
        "a repeated key": {"head": '{"name": "svm", "name": "svm", "params": {}}'},
        "NaN in JSON": {"training": '{"a": NaN}'},
        "infinity in JSON": {"training": '{"a": 1e999}'},
        "no JSON": {"spec": "__import__('os')"},
        "a spec with one more field": {"spec": json.dumps({**spec, "loader": "os"})},
        "a spec without a field": {"spec": json.dumps({k: spec[k] for k in spec if k != "fit"})},
        "a spec of other types": {"spec": json.dumps({**spec, "n_features": "8"})},
        "a spec that is wider": {"spec": json.dumps({**spec, "n_features": 10**12})},
        "classes that are numbers": {"class_names": "[1, 2, 3, 4]"},
        "classes that are one": {"class_names": '["a", "a", "a", "a"]'},
        "one class": {"class_names": '["a"]'},
        "a class too many": {"class_names": '["a", "b", "c", "d", "e"]'},
        "an unknown head": {"head": '{"name": "os.system", "params": {}}'},
        "a head without parameters": {"head": '{"name": "svm"}'},
        "parameters in a list": {"head": '{"name": "svm", "params": []}'},
        "a temperature of zero": {"temperature": 0.0},
        "a negative temperature": {"temperature": -1.0},
        "a temperature that is text": {"temperature": "1.0"},
        "a whole temperature": {"temperature": 1},
        "another temperature": {"temperature": 1e300},
        "training in a list": {"training": "[]"},
    }


def arrays():
    """Return false arrays, by head and name."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(16, 8)).astype("<f4")
    return {
        ("svm", "a probe of NaN"): {"probe/X": np.full((16, 8), np.nan, "<f4")},
        ("svm", "a probe without rows"): {
            "probe/X": X[:0],
            "probe/probabilities": np.ones((0, 4)),
        },
        ("svm", "a probe of another width"): {"probe/X": X[:, :5]},
        ("svm", "a probe of another answer"): {"probe/probabilities": np.full((16, 4), 0.25)},
        ("svm", "an answer of NaN"): {"probe/probabilities": np.full((16, 4), np.nan)},
        ("svm", "an answer of two classes"): {"probe/probabilities": np.full((16, 2), 0.5)},
        ("svm", "an array that is not its own"): {"dense/mean": np.zeros(8)},
        ("dense", "a kernel of NaN"): {"dense/0/kernel": np.full((8, 6), np.nan, "<f4")},
        ("dense", "a kernel without end"): {"dense/1/bias": np.full(4, np.inf, "<f4")},
        ("dense", "a kernel of another shape"): {"dense/0/kernel": np.ones((6, 8), "<f4")},
        ("dense", "a scale of zero"): {"dense/scale": np.zeros(8)},
        ("dense", "a mean of NaN"): {"dense/mean": np.full(8, np.nan)},
        ("dense", "a layer that is missing"): {"dense/3/kernel": np.ones((4, 4), "<f4")},
        ("dense", "trees beside it"): {"trees/left": np.zeros(3, "<i4")},
        ("svm", "a part of a scope"): {"scope/mean": np.zeros(8, "<f4")},
        ("dense", "a scope of other features"): scope(mean=np.zeros(9, "<f4")),
        ("svm", "a scope of NaN"): scope(projection=np.full((8, 8), np.nan, "<f4")),
        ("svm", "a scope with a scale of zero"): scope(scale=np.zeros(8, "<f4")),
        ("svm", "a scope of an unknown class"): scope(labels=np.full(40, 4)),
        ("svm", "a scope of a negative class"): scope(labels=np.full(40, -1)),
        ("svm", "a scope without references"): scope(
            references=np.zeros((0, 8), "<f4"), labels=np.zeros(0, np.int64)
        ),
        ("svm", "a scope whose thresholds fall"): scope(held_out=np.array([2.0, 1.0])),
        ("svm", "a scope that divides by zero"): scope(units=np.zeros((4, 2))),
        ("svm", "half of the conformal scores"): {"conformal/scores": np.full(4, 0.5)},
        ("svm", "conformal scores above one"): {
            "conformal/scores": np.full(4, 1.5),
            "conformal/labels": np.zeros(4, np.int64),
        },
        ("svm", "conformal scores of an unknown class"): {
            "conformal/scores": np.full(4, 0.5),
            "conformal/labels": np.full(4, 9),
        },
        ("svm", "conformal scores of NaN"): {
            "conformal/scores": np.full(4, np.nan),
            "conformal/labels": np.zeros(4, np.int64),
        },
    }


def scope(**lies):
    """Return the arrays of an out-of-distribution detector, some of them false."""
    X, y = bundles.draw(4)
    fitted = OODDetector.fit(X[:40], y[:40], held_out=X[40:], n_classes=4)
    return {f"scope/{name}": array for name, array in {**fitted.to_arrays(), **lies}.items()}


@pytest.fixture
def crafted(craft, saved, tmp_path):
    """Return the path of each hostile bundle, by name."""
    found = {}

    def add(name, path):
        found[name] = shutil.move(path, tmp_path / f"{len(found):03}.h5")

    good = read_archive(saved["svm"])
    for name, archive in archives(good, tmp_path).items():
        add(name, craft(arrays=as_bytes(archive)))
    for name, values in fields().items():
        add(name, craft(**values))
    for (head, name), values in arrays().items():
        add(name, craft(head, arrays=values))
    for name in FORMAT_2.attributes - {"temperature"}:
        add(f"a pickle for {name}", craft(**{name: pickled(tmp_path).decode("ascii")}))
    data = np.frombuffer(pickled(tmp_path), np.uint8)
    for head in ("dense", "random-forest"):
        for name in _dataset_names(saved[head]):
            add(f"a pickle for {name} of {head}", craft(head, remove=[name], arrays={name: data}))
    plain = to_arrays(trees.fit("random-forest"))
    for name, (change, _) in {**trees.HOSTILE, **trees.FOREST}.items():
        values = {key: array.copy() for key, array in plain.items()}
        change(values)
        named = {f"trees/{key}": array for key, array in values.items()}
        missing = [f"trees/{key}" for key in plain.keys() - values.keys()]
        add(f"trees: {name}", craft("random-forest", remove=missing, arrays=named))
    return found


def _dataset_names(path):
    import h5py

    names = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    return names


def test_every_one_is_refused_in_one_line(crafted, tmp_path):
    assert len(crafted) > 100
    for path in crafted.values():
        refuse(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_nothing_runs_while_they_are_refused(crafted, saved, tmp_path):
    paths = list(map(str, crafted.values()))
    script = f"""
        import resource, sys
        from brainfeat.heads.bundle import HeadBundle
        from brainfeat.errors import BundleError

        good, bad = {list(map(str, saved.values()))!r}, {paths!r}
        for path in good:
            HeadBundle.load(path)
        resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
                event = "open a bundle" if args[0] in good + bad and args[1] == "r" else str(args)
            if event == "compile" and args[0].startswith(b"{{'descr': '<"):
                event = "numpy header"
            print(event)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print("grown", grown < 300_000)
    """
    events = run(script).splitlines()
    assert events.count("refused") == len(paths)
    assert events.pop() == "grown True"
    harmless = {"refused", "open a bundle", "numpy header", "builtins.id", "object.__getattr__"}
    assert set(events) <= harmless
    assert not (tmp_path / "trace").exists()
