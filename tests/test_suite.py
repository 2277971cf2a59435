"""Rules that the tests themselves keep."""

import re
from pathlib import Path

import pytest

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
