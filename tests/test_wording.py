"""Messages name arguments in Python and options on the command line."""

import ast
import logging
import re
from pathlib import Path

import pytest

import brainfeat
from brainfeat.cli.wording import _ARGUMENT, find_option, log_to_stderr, translate
from brainfeat.errors import BrainfeatError, CacheError
from brainfeat.files import check_output

ROOT = Path(brainfeat.__file__).parent
# What writes CSS, or command lines into reports and cards, not a message.
WRITERS = {
    "report/commands.py",
    "report/charts.py",
    "report/robustness.py",
    "report/chai_card.py",
}


def find_texts():
    """Yield each text of the library, with the fields of its f-strings left out."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("cli/") or name in WRITERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield name, node.value


def test_the_library_names_no_options():
    assert [found for found in find_texts() if re.search(r"(?<!\S)\(?--[a-z]", found[1])] == []


def test_each_argument_that_a_message_names_has_an_option():
    # Docstrings have several lines, HTML has attributes, and patterns have backslashes.
    messages = [text for _, text in find_texts() if not {*"\n<\\"} & {*text}]
    named = {found[1] for text in messages for found in _ARGUMENT.finditer(text)}
    assert named >= {"overwrite", "weights", "signature", "precision", "n_jobs", "group_by"}
    assert {name for name in named if find_option(name) is None} == set()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("exists; pass overwrite=True", "exists; pass --overwrite"),
        ("(overwrite=True replaces it)", "(--overwrite replaces it)"),
        ("nevertheless (new=False)", "nevertheless (--all-images)"),
        ("leave out signature=False", "leave out --no-signature"),
        ('weights=PATH, or weights="random" to', "--weights PATH, or --weights random to"),
        ("a smaller n_jobs=N, and", "a smaller --jobs N, and"),
        ("data/overwrite=True/a.png", "data/overwrite=True/a.png"),
        ("overwrite=True.png: damaged", "overwrite=True.png: damaged"),
        ("with learning_rate=0.1", "with learning_rate=0.1"),
    ],
)
def test_options_stand_for_arguments(message, expected):
    assert translate(message) == expected


def test_one_message_is_in_the_words_of_each(tmp_path, run, make_cache):
    output = tmp_path / "head.h5"
    output.touch()
    with pytest.raises(BrainfeatError, match=r"exists; .* pass overwrite=True$"):
        check_output(output, overwrite=False, kind="a head", recognise=bool, error=CacheError)
    found = run("fit-head", "features.h5", "-o", output)
    assert found.err.endswith("exists; name another output or pass --overwrite\n")


def test_warnings_of_a_command_are_in_its_words(capsys):
    with log_to_stderr():
        logging.getLogger("brainfeat.cache.output").warning("%s (signature=False …)", "a.h5")
    assert capsys.readouterr().err == "a.h5 (--no-signature …)\n"
