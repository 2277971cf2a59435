"""The exception tree: one root, and the built-in that a caller would catch."""

import ast
import builtins
import pickle
from collections.abc import Iterable, Mapping
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


# What the package raises

# Built-in and private exceptions that another function of the package catches.
CAUGHT_ELSEWHERE = {
    "cache/merging.py: KeyError": "documented by write_cache; the merge is overtaken then",
    "cache/output.py: Overtaken": "the extraction starts again",
    "cache/row_index.py: KeyError": "documented by RowIndex.locate; the merge is overtaken then",
    "cache/row_index.py: OSError": "write_file reports that nothing was written",
    "cache/writing.py: OSError": "write_file reports that nothing was written",
    "canonical.py: _NotStrictError": "parse_json raises the error that it is given",
    "extraction/weight_files.py: _UnfitError": "read_tensors raises a WeightsError",
    "prediction/openvino_export.py: OSError": "export_head reports that nothing was written",
    "cli/options.py: Terminated": "raised by a signal handler; the command ends with a message",
}
# Methods that Python and NumPy call, and that answer with built-in exceptions.
PROTOCOL = {"__array__", "__getattr__", "__getitem__"}


def name_of(node: ast.expr) -> str:
    """Return the last part of a dotted name, or of what is called by it."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def find_other_classes(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of all exceptions that are neither BrainfeatErrors nor click's."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    bases = {n.name: set(map(name_of, n.bases)) for n in nodes if isinstance(n, ast.ClassDef)}
    right = {"BrainfeatError", "ClickException"}
    while more := {name for name, above in bases.items() if above & right} - right:
        right |= more
    built_in = {name for name, kind in vars(builtins).items() if isinstance(kind, type)}
    return (built_in | set(bases)) - right - {"NotImplementedError"}


class Raises(ast.NodeVisitor):
    """Collects which of some exceptions a module raises and does not catch where it does so."""

    def __init__(self, tree: ast.Module, wanted: set[str]) -> None:
        self.found: set[str] = set()
        self._wanted = wanted
        self._returned = {
            node.name: name_of(node.returns)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.returns
        }
        self._caught: list[str] = []
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in PROTOCOL:
            self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        self._caught.append(" ".join(ast.unparse(h.type) for h in node.handlers if h.type))
        for statement in node.body:
            self.visit(statement)
        self._caught.pop()
        for statement in [*node.handlers, *node.orelse, *node.finalbody]:
            self.visit(statement)

    def visit_Raise(self, node: ast.Raise) -> None:
        name = name_of(node.exc) if node.exc else ""
        name = self._returned.get(name, name)
        if name in self._wanted and not any(name in caught for caught in self._caught):
            self.found.add(name)


def find_raised(sources: Mapping[str, str]) -> set[str]:
    """Return the module and the name of each exception that is raised beside the tree."""
    trees = {path: ast.parse(source) for path, source in sources.items()}
    others = find_other_classes(trees.values())
    raised = {path: Raises(tree, others).found for path, tree in trees.items()}
    return {f"{path}: {name}" for path, names in raised.items() for name in names}


def test_every_deliberate_error_is_a_brainfeat_error():
    root = Path(errors.__file__).parent
    sources = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.py"))
    }
    assert find_raised(sources) == set(CAUGHT_ELSEWHERE)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise ValueError('no')", {"a.py: ValueError"}),
        ("def f() -> OSError: ...\ndef g():\n    raise f()", {"a.py: OSError"}),
        ("class Own(ValueError): ...\nraise Own", {"a.py: Own"}),
        ("class Own(ParameterError): ...\nraise Own('no')", set()),
        ("try:\n    raise KeyError\nexcept (KeyError, OSError): ...", set()),
        ("try: ...\nexcept KeyError:\n    raise KeyError from None", {"a.py: KeyError"}),
        ("try: ...\nexcept KeyError as error:\n    raise error", set()),
        ("def __getitem__(self, key):\n    raise IndexError", set()),
        ("def method(self):\n    raise NotImplementedError", set()),
    ],
)
def test_the_search_for_other_errors(source, found):
    tree = Path(errors.__file__).read_text(encoding="utf-8")
    assert find_raised({"errors.py": tree, "a.py": source}) == found
