"""Rules that the tests themselves keep."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.depth import thin

TESTS = Path(__file__).parent
IMPORTS_A_TEST = re.compile(
    r"^\s*(?:from\s+(?:tests\.)?(?:test_\w+|conftest)\s+import|import\s+.*\b(?:test_\w+|conftest)\b)",
    re.MULTILINE,
)


def test_no_module_imports_a_test() -> None:
    """What two modules need is in ``tests/support``; this holds for code in strings, too."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    found = {name: IMPORTS_A_TEST.findall(text) for name, text in texts.items()}
    assert {name: imports for name, imports in found.items() if imports} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from test_cache import merge",
        "import test_cache",
        "    import json, test_cache",
        "from conftest import write_vectors",
        "from tests.test_cache import merge",
    ],
)
def test_an_import_of_a_test_is_found(line: str) -> None:
    assert IMPORTS_A_TEST.search(f"import json\n{line}\n")


# What is left to --deep


def test_contributing_names_each_module_that_leaves_cases_to_deep() -> None:
    page = TESTS.parent / "docs" / "contributing.md"
    _, _, section = page.read_text(encoding="utf-8").partition(
        "### What is left to `pytest --deep`"
    )
    named = re.findall(r"^\| `(test_\w+\.py)` \|", section, re.MULTILINE)
    marks = re.compile(r"\bmark\.deep\b|@one_in\(")
    leaving = [path.name for path in TESTS.glob("test_*.py") if marks.search(path.read_text())]
    assert sorted(named) == sorted({*leaving} - {Path(__file__).name})


@pytest.mark.slow
def test_deep_cases_are_left_out_and_counted_or_run_alone(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(
        "import pytest\nfrom hypothesis import given, strategies\n"
        "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.deep)])\n"
        "def test_number(n): assert n\n"
        "@given(strategies.booleans())\n"
        "def test_property(value): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = deep\n")

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout

    for printed in (run(), run("-n", "1")):
        assert "2 passed" in printed
        assert "cases left to --deep: 1" in printed
        assert "    1 test_some.py::test_number\n" in printed
    assert "2 passed, 1 deselected" in run("--deep", "-m", "deep")


@pytest.mark.parametrize(
    ("every", "kept"),
    [(1, "abbbbbcb"), (3, "abbcb"), (100, "abcb")],
)
def test_a_sample_has_the_first_of_each_kind_and_the_last(every: int, kept: str) -> None:
    assert "".join(thin("abbbbbcb", every, kind=str)) == kept


def test_a_sample_of_nothing_is_empty() -> None:
    assert thin([], 3) == []
