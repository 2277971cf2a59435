"""The walls between the stages: an import over each is caught, and everything stands on one side.

The contracts of setup.cfg are checked on the graph of the package's imports, with one import more.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path

import grimp
import pytest
from importlinter import ContractCheck
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract

import brainfeat

ROOT = Path(brainfeat.__file__).parent.parent
KINDS = {kind.type_name: kind for kind in (ForbiddenContract, LayersContract, ProtectedContract)}

CONFIGURATION = read_configuration(str(ROOT / "setup.cfg"))
OPTIONS = {options["id"]: options for options in CONFIGURATION["contracts_options"]}


def options_of(contract: str, name: str) -> list[str]:
    """Return an option of a contract that is one name or several."""
    value = OPTIONS[contract][name]
    return [value] if isinstance(value, str) else value


STAGE_ONE = options_of("stage-one", "source_modules")
STAGE_TWO = options_of("stage-two", "source_modules")
GROUND = options_of("ground", "source_modules")
BOTH = options_of("both", "forbidden_modules")
WALLS = ("stage-one", "stage-two", "ground", "both")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("brainfeat", include_external_packages=True, cache_dir=None)


def check(name: str, graph: grimp.ImportGraph) -> ContractCheck:
    options = OPTIONS[name]
    contract = KINDS[options["type"]](name, CONFIGURATION["session_options"], options)
    return contract.check(graph, verbose=False)


@contextmanager
def planted(graph: grimp.ImportGraph, importer: str, imported: str) -> Iterator[None]:
    """Let one module import another in the body, at line 1."""
    assert not graph.direct_import_exists(importer=importer, imported=imported)
    graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="import")
    try:
        yield
    finally:
        graph.remove_import(importer=importer, imported=imported)


def find_uncaught(graph: grimp.ImportGraph, wall: str) -> list[tuple[str, str]]:
    """Plant one import from each package in front of a wall to each module behind it."""
    sources = [innermost(graph, package) for package in options_of(wall, "source_modules")]
    behind = options_of(wall, "forbidden_modules")
    modules = {module for package in behind for module in graph.find_descendants(package)}
    pairs = product(sources, sorted({*behind, *modules}))
    return [pair for pair in pairs if not is_caught(graph, wall, *pair)]


def is_caught(graph: grimp.ImportGraph, name: str, importer: str, imported: str) -> bool:
    with planted(graph, importer, imported):
        return not check(name, graph).kept


def innermost(graph: grimp.ImportGraph, package: str) -> str:
    """Return the last module of a package, by name, or the module itself."""
    return max({package} | graph.find_descendants(package))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_contract_holds(graph, name):
    assert check(name, graph).kept


def test_every_folder_and_module_stands_on_exactly_one_side(graph):
    sides = Counter([*STAGE_ONE, *STAGE_TWO, *GROUND, *BOTH])
    assert sides == Counter(graph.find_children("brainfeat"))


def test_each_wall_has_all_of_the_other_side_behind_it():
    sides = {name: set(options_of(name, "forbidden_modules")) for name in OPTIONS if name in WALLS}
    assert sides["stage-one"] == set(STAGE_TWO)
    assert sides["stage-two"] == set(STAGE_ONE)
    assert sides["ground"] == {*STAGE_ONE, *STAGE_TWO}
    assert set(options_of("both", "source_modules")) == {*STAGE_ONE, *STAGE_TWO, *GROUND}


def test_a_folder_that_stands_on_no_side_is_noticed(graph):
    newcomer = "brainfeat.newcomer"
    graph.add_module(newcomer)
    try:
        assert check("layers", graph).metadata["undeclared_modules"] == {newcomer}
    finally:
        graph.remove_module(newcomer)


def test_an_import_up_a_layer_is_caught(graph):
    layers = [layer.split(" | ")[0] for layer in options_of("layers", "layers")]
    pairs = [(f"brainfeat.{lower}", f"brainfeat.{upper}") for upper, lower in pairwise(layers)]
    assert [pair for pair in pairs if not is_caught(graph, "layers", *pair)] == []


@pytest.mark.parametrize("wall", WALLS)
def test_an_import_over_a_wall_is_caught(graph, wall):
    assert find_uncaught(graph, wall) == []


@pytest.mark.parametrize(
    ("wall", "importer"),
    [("stage-one", "brainfeat.extraction.pipeline"), ("stage-two", "brainfeat.heads.recipe")],
)
def test_an_import_from_the_top_of_the_package_is_caught(graph, wall, importer):
    """``from brainfeat import …`` leads to both stages."""
    with planted(graph, importer, "brainfeat"):
        assert not check(wall, graph).kept


@pytest.mark.slow
def test_an_import_in_a_function_is_seen(tmp_path):
    """The whole way: a line of source, and the command that CI runs."""
    shutil.copytree(ROOT / "brainfeat", tmp_path / "brainfeat")
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    with (tmp_path / "brainfeat/extraction/pipeline.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef look() -> None:\n    from brainfeat.heads import ood\n")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "brainfeat.extraction.pipeline -> brainfeat.heads.ood" in done.stdout


OWNED = [
    (name, dependency)
    for name, options in OPTIONS.items()
    if options["type"] == "protected"
    for dependency in options_of(name, "protected_modules")
]


@pytest.mark.parametrize(("name", "dependency"), OWNED)
def test_an_import_of_a_dependency_beside_its_owners_is_caught(graph, name, dependency):
    with planted(graph, "brainfeat.errors", dependency):
        assert not check(name, graph).kept


def test_each_dependency_but_numpy_has_owners(graph):
    found = {
        imported
        for module in graph.modules
        if module.startswith("brainfeat")
        for imported in graph.find_modules_directly_imported_by(module)
        if not imported.startswith("brainfeat")
    }
    found -= {"_typeshed", *sys.stdlib_module_names}
    assert found == {"numpy", *(dependency for _, dependency in OWNED)}
