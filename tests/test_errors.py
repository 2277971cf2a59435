"""The exception tree: one root, and the built-in that a caller would catch."""

import ast
import pickle
from pathlib import Path

import pytest

from brainfeat import errors

BASES = {
    "BrainfeatError": {"Exception"},
    "TableError": {"BrainfeatError", "ValueError"},
    "ImageReadError": {"BrainfeatError", "OSError"},
    "WeightsError": {"BrainfeatError", "OSError"},
    "CacheError": {"BrainfeatError", "ValueError"},
    "CacheFormatError": {"CacheError"},
    "CacheCorruptError": {"CacheError"},
    "SpecMismatchError": {"CacheError"},
    "ParameterError": {"BrainfeatError", "ValueError"},
    "HeadError": {"BrainfeatError", "ValueError"},
    "BundleError": {"BrainfeatError", "ValueError"},
    "LeakageError": {"BrainfeatError", "ValueError"},
    "MissingDependencyError": {"BrainfeatError", "ImportError"},
}


def test_the_tree_is_complete():
    defined = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert defined == set(BASES)


@pytest.mark.parametrize("name", BASES)
def test_bases(name):
    assert {base.__name__ for base in getattr(errors, name).__bases__} == BASES[name]


def test_the_module_imports_nothing():
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_an_image_error_has_its_path_and_its_reason():
    error = errors.ImageReadError("a/b.png", "truncated")
    assert (error.path, error.reason, str(error)) == ("a/b.png", "truncated", "a/b.png: truncated")


def test_an_image_error_survives_the_way_to_another_process():
    error = pickle.loads(pickle.dumps(errors.ImageReadError("a/b.png", "truncated")))
    assert type(error) is errors.ImageReadError
    assert (error.path, error.reason, str(error)) == ("a/b.png", "truncated", "a/b.png: truncated")
