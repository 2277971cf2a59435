"""The documentation agrees with the code: its examples run and its tables match."""

import ast
import doctest
import importlib
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FunctionType

import click
import numpy as np
import pytest

import brainfeat
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.schema import CACHE_SCHEMA, CHUNK_ROWS, SHARD_SCHEMA
from brainfeat.cache.storage import Schema
from brainfeat.cli.main import COMMANDS, SECTIONS, group
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.heads.bundle_schema import BUNDLE_SCHEMA
from brainfeat.heads.classical import CLASSIFIERS
from brainfeat.heads.kinds import HEAD_NAMES

# TensorFlow's variables under NumPy 2, where Keras reads them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
KEPT_CACHE = ROOT / "tests" / "data" / "cache-format-1.h5"
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")] if "_build" not in path.parts
)
FENCE = re.compile(r"^(`{3,}|:{3,})(.*?)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its info string and its text."""

    kind: str
    text: str


def read(page: str | Path) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str | Path) -> list[Block]:
    return [Block(info.strip(), text) for _, info, text in FENCE.findall(read(page))]


def prose(page: Path) -> str:
    return FENCE.sub("", read(page))


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``brainfeat`` call in a piece of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words and words[0].rsplit("/", 1)[-1] == "brainfeat":
                yield words[1:]


def find_command(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"there is no command {name!r}"
    return command


def option_names(command: click.Command) -> set[str]:
    context = click.Context(command)
    return {
        name
        for parameter in command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def rows_after(text: str, start: str) -> list[list[str]]:
    """Return the cells of the first table after a text, without its header."""
    _, found, rest = text.partition(start)
    assert found, f"{start!r} is not on the page"
    table = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert table, f"no table follows {start!r}"
    rows = table.group().splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def code(cell: str) -> list[str]:
    """Return the code spans of a cell."""
    return [span.replace("\\|", "|") for span in INLINE.findall(cell)]


# The command line


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_options_have_help(name: str) -> None:
    command = find_command(name)
    assert command.help
    assert command.short_help
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_two_examples_that_click_takes(name: str) -> None:
    command = find_command(name)
    text = command.get_help(click.Context(command, info_name=name))
    _, found, examples = text.rpartition("Examples:\n")
    assert found
    calls = list(command_lines(examples))
    assert len(calls) >= 2
    for called, *arguments in calls:
        with find_command(called).make_context(called, arguments) as context:
            assert context.params
    assert [called for called, *_ in calls].count(name) >= 2


def test_reference_lists_the_commands_as_help_does() -> None:
    page, _, _ = read("reference/cli.md").partition("## JSON documents")
    listed: dict[str, list[str]] = {}
    for heading, module, name in re.findall(
        r"^## (.+)$|^\.\. click:: (\S+):command\n   :prog: brainfeat (\S+)$", page, re.MULTILINE
    ):
        if heading:
            listed[heading] = []
        else:
            assert module == COMMANDS[name]
            listed[list(listed)[-1]].append(name)
    assert listed == SECTIONS


SHELL_LINES = [
    (page, arguments)
    for page in PAGES
    for block in blocks(page)
    if block.kind in ("sh", "{code-block} sh")
    for arguments in command_lines(block.text)
]


@pytest.mark.parametrize(
    ("page", "arguments"),
    SHELL_LINES,
    ids=[f"{page.stem}: {' '.join(arguments)}" for page, arguments in SHELL_LINES],
)
def test_command_line_is_one_that_click_takes(page: Path, arguments: list[str]) -> None:
    command = find_command(arguments[0])
    with command.make_context(arguments[0], arguments[1:]) as context:
        assert context.params


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_in_prose_exist(page: Path) -> None:
    every_option = set().union(*(option_names(find_command(name)) for name in COMMANDS))
    for span in INLINE.findall(prose(page)):
        words = span.split()
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        if words[0] == "brainfeat" and re.fullmatch(r"[a-z][a-z-]*", "".join(words[1:2])):
            assert used <= option_names(find_command(words[1])), f"{page.name}: {span}"
        elif words[0].startswith("--"):
            assert used <= every_option, f"{page.name}: {span}"


# Words


def test_codespell_fails_on_a_word_that_the_project_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codespell = pytest.importorskip("codespell_lib")
    words = [line.split("->")[0] for line in read("words.txt").splitlines()]
    assert words == sorted(words)
    page = tmp_path / "page.md"
    page.write_text("\n".join(["teh", *words]), encoding="utf-8")  # codespell:ignore
    with chdir(ROOT):
        assert codespell.main(str(page)) != 0
    found = re.findall(r"^.*page\.md:\d+: (\S+) ==> ", capsys.readouterr().out, re.MULTILINE)
    assert found == ["teh", *words]  # codespell:ignore


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", prose(page))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


# The Python API


@pytest.mark.parametrize("name", brainfeat.__all__)
def test_public_name_is_in_the_reference(name: str) -> None:
    assert re.search(rf"^\.\. auto\w+:: brainfeat\.{name}$", read("reference/api.md"), re.MULTILINE)


def find_object(name: str) -> object:
    """Return the object behind a full name on the API page."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with suppress(ImportError):
            found: object = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part)
            return found
    raise AssertionError(f"{name} cannot be imported")


API_CALLABLES = [
    name for _, name in re.findall(r"\.\. auto(function|class):: (\S+)", read("reference/api.md"))
]


@pytest.mark.parametrize("name", API_CALLABLES)
def test_docstring_describes_what_the_reference_shows(name: str) -> None:
    documented = find_object(name)
    text = inspect.getdoc(documented) or ""
    assert text.strip()
    if inspect.isfunction(documented):
        section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.M | re.S)
        assert section, "no Parameters section"
        entries = re.findall(r"^\*{0,2}(\w[\w, ]*?)(?: :.*)?$", section[1], re.MULTILINE)
        described = {entry for line in entries for entry in line.split(", ")}
        parameters = set(inspect.signature(documented).parameters)
        assert described <= parameters
        assert parameters <= set(re.findall(r"\w+", section[1]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_calls_in_python_blocks_fit_the_signatures(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "python":
            check_calls(ast.parse(block.text))


def check_calls(tree: ast.Module) -> None:
    """Bind the arguments of every call of a public name, without running it."""
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "brainfeat"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        words = ast.unparse(node.func).removeprefix("brainfeat.").split(".")
        if words[0] in imported or ast.unparse(node.func).startswith("brainfeat."):
            called = find_object(".".join(["brainfeat", *words]))
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(called).bind(*node.args, **keywords)


SOURCES = Path(brainfeat.__file__).parent
WITH_EXAMPLES = [
    ".".join(["brainfeat", *path.relative_to(SOURCES).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for path in sorted(SOURCES.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


# The tutorial and the how-to pages


@dataclass(frozen=True)
class Step:
    """A command of the tutorial, the output that the page shows, and the real output."""

    command: str
    shown: str
    printed: str


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs")


@pytest.fixture(scope="module")
def quickstart(workplace: Path) -> list[Step]:
    """Run the quickstart from top to bottom."""
    return run_page("tutorials/quickstart.md", workplace)


def run_page(page: str, folder: Path) -> list[Step]:
    steps: list[Step] = []
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page):
        if block.kind == "text" and steps:
            steps[-1] = Step(steps[-1].command, block.text, steps[-1].printed)
        elif block.kind in ("sh", "python"):
            steps.append(Step(block.text, "", run_block(block, folder, names)))
    return steps


def run_block(block: Block, folder: Path, names: dict[str, object]) -> str:
    with chdir(folder), redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()):
        if block.kind == "python":
            exec(compile(block.text, "<docs>", "exec"), names)
        else:
            for arguments in command_lines(block.text):
                group.main(arguments, prog_name="brainfeat", standalone_mode=False)
    return printed.getvalue()


def without_numbers(text: str) -> list[str]:
    """Return the lines of an output without its numbers, durations, precision and alignment."""
    text = re.sub(r"\bin (?:b?float\d+)\b", "in #", text)
    text = re.sub(r"\b\d+ (?:h \d+ min|min \d+ s|s)\b", "# s", text)
    text = re.sub(r"-?\d[\d.,]*", "#", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


@pytest.mark.slow
def test_quickstart_prints_what_it_shows(quickstart: list[Step]) -> None:
    shown = [step for step in quickstart if step.shown]
    assert len(shown) == 5
    for step in shown:
        assert without_numbers(step.printed) == without_numbers(step.shown), step.command


@pytest.mark.slow
def test_quickstart_counts_what_it_shows(quickstart: list[Step]) -> None:
    first, second = (step for step in quickstart if step.command.startswith("brainfeat extract"))
    assert "128 rows, 128 computed, 0 reused" in first.shown
    assert "128 rows, 128 computed, 0 reused" in first.printed
    assert "0 computed, 128 reused" in second.shown
    assert "0 computed, 128 reused" in second.printed


@pytest.mark.slow
def test_quickstart_in_python_measures_and_predicts(quickstart: list[Step]) -> None:
    measured, predicted = (step.printed for step in quickstart[-2:])
    assert re.fullmatch(r"accuracy \d\.\d\d on 32 images\n", measured)
    lines = predicted.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Testing/glioma/") and "'pituitary': " in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("quickstart")
def test_many_heads_page_runs_on_the_cache_of_the_quickstart(workplace: Path) -> None:
    steps = run_page("how-to/many-heads.md", workplace)
    assert steps[0].printed.count(" written in ") == 3
    searched, compared, python = (step.printed.splitlines() for step in steps[1:])
    assert [line.split()[:2] for line in searched[1:5]] == [
        [str(rank), "svm"] for rank in (1, 2, 3, 4)
    ]
    assert {line.split()[1] for line in compared[1:9]} == set(HEAD_NAMES)
    assert [line.split()[:2] for line in python] == [[str(rank), "knn"] for rank in (1, 2, 3, 4)]
    scores = [float(line.split()[-3]) for line in python]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("quickstart")
def test_report_page_writes_what_it_says(workplace: Path) -> None:
    run_page("how-to/report.md", workplace)
    for name, start in (("report.html", "<!DOCTYPE html>"), ("card.md", "# Evaluation")):
        assert (workplace / name).read_text(encoding="utf-8").startswith(start)


@pytest.mark.slow
def test_link_page_prints_what_it_shows(tmp_path: Path) -> None:
    steps = run_page("how-to/link.md", tmp_path)
    shown = [step for step in steps if step.shown]
    assert len(shown) == 2
    for step in shown:
        assert without_numbers(step.printed) == without_numbers(step.shown), step.command
    assert re.search(r"^group +48 +0 +0 +0 +0$", shown[1].printed, re.MULTILINE)
    assert steps[-1].printed.startswith("LinkedColumn(taken=0, agreed=48,")


@pytest.mark.slow
def test_attention_page_comes_to_a_verdict(tmp_path: Path) -> None:
    *_, fitted = run_page("tutorials/does-attention-help.md", tmp_path)
    assert "Out of fold (104 images in 52 groups)" in fitted.shown
    printed = fitted.printed.splitlines()
    assert "Out of fold (104 images in 52 groups)" in printed
    for name in ("pooling", "squeeze"):
        assert sum(line.startswith(f"{name} ") for line in printed) == 2
    assert (tmp_path / "attention.png").exists()


def test_weights_page_agrees_with_the_table_of_backbones() -> None:
    rows = rows_after(read("how-to/weights.md"), "## Where ImageNet weights come from")
    described = {
        code(name)[0]: (int(features), code(file)[0], *code(md5))
        for name, features, file, md5 in rows
    }
    assert described == {
        name: (row.n_features, row.url.rsplit("/", 1)[1], *([row.md5] if row.md5 else []))
        for name, row in BACKBONES.items()
    }


def test_many_heads_page_lists_every_head() -> None:
    rows = rows_after(read("how-to/many-heads.md"), "## The heads")
    described = {code(name)[0]: code(classifier)[0] for name, classifier in rows}
    assert described == {
        "dense": "brainfeat.DenseHead",
        **{name: path for name, (path, _) in CLASSIFIERS.items()},
    }


# The formats

FORMATS = pytest.mark.parametrize(
    ("page", "name", "schema"),
    [
        ("reference/cache-format.md", "CACHE_SCHEMA", CACHE_SCHEMA),
        ("reference/cache-format.md", "SHARD_SCHEMA", SHARD_SCHEMA),
        ("reference/bundle-format.md", "BUNDLE_SCHEMA", BUNDLE_SCHEMA),
    ],
    ids=["cache", "shard", "bundle"],
)


@FORMATS
def test_format_page_has_the_datasets_of_the_schema(page: str, name: str, schema: Schema) -> None:
    described = {}
    for dataset, dtype, shape, *_ in rows_after(read(page), f"<!-- datasets: {name} -->"):
        n_dimensions = len([part for part in shape.strip("()").split(",") if part.strip()])
        described[code(dataset)[0]] = ("S" if dtype == "text" else code(dtype)[0], n_dimensions)
    # Those of the members of an ensemble are those of single heads, in folders.
    assert described == {
        pattern.replace(r"\d", "i").replace(r"[\w.-]+", "NAME"): (rule.dtype, rule.ndim)
        for pattern, rule in schema.datasets.items()
        if not pattern.startswith(r"members/1?\d/")
    }


@FORMATS
def test_format_page_has_the_attributes_of_the_schema(page: str, name: str, schema: Schema) -> None:
    rows = rows_after(read(page), f"<!-- attributes: {name} -->")
    assert {code(row[0])[0] for row in rows} == schema.attributes


@FORMATS
def test_format_page_states_name_and_version(page: str, name: str, schema: Schema) -> None:
    pattern = rf"`format`( is)? `{schema.format}`(,| and) `format_version`( is)? {schema.version}\b"
    assert re.search(pattern, read(page))


def test_format_page_states_the_chunk() -> None:
    assert f"chunks of {CHUNK_ROWS:,} rows" in read("reference/cache-format.md")


def test_format_page_lists_the_heads_that_can_be_saved() -> None:
    sentence = read("reference/bundle-format.md").split("<!-- names: HEAD_NAMES -->")[1]
    assert tuple(code(sentence.split(";")[0].replace("\n", " "))) == HEAD_NAMES


def test_h5py_alone_reads_a_cache_as_described(tmp_path: Path) -> None:
    shutil.copy(KEPT_CACHE, tmp_path / "features.h5")
    example = next(block for block in blocks("reference/cache-format.md") if block.kind == "python")
    names: dict[str, object] = {}
    printed = run_block(example, tmp_path, names)
    assert "3 training rows of 8 vgg16 features" in printed
    assert "Training/glioma/Größe 1.png: glioma" in printed
    with FeatureCache.open(KEPT_CACHE) as cache:
        np.testing.assert_array_equal(names["X"], cache.X[cache.mask("train", views=True)])


def test_content_digest_is_as_described(tmp_path: Path) -> None:
    example = next(
        block for block in blocks("reference/cache-format.md") if "def content_digest" in block.text
    )
    names: dict[str, object] = {}
    run_block(example, tmp_path, names)
    with FeatureCache.open(KEPT_CACHE) as cache:
        assert names["content_digest"](KEPT_CACHE) == cache.content_sha256


# Parameters that are documented, in their order, with type and description; what is returned or
# yielded, with a description; a first line in the imperative that ends in a full stop.
DOCSTRING_RULES = {
    *("GL08", "PR01", "PR02", "PR03", "PR04", "PR07"),
    *("RT01", "RT03", "YD01", "SS03", "SS05"),
}


def list_public_callables() -> Iterator[str]:
    """Yield the dotted names of public functions, and of the methods of public classes."""
    for name in brainfeat.__all__:
        home = f"brainfeat.{brainfeat._HOMES[name]}.{name}"
        found = getattr(brainfeat, name)
        if not inspect.isclass(found):
            yield home
            continue
        for method, value in vars(found).items():
            if not method.startswith("_") and isinstance(value, FunctionType | classmethod):
                yield f"{home}.{method}"


@pytest.mark.parametrize("name", list(list_public_callables()))
def test_public_docstrings_are_complete(name: str) -> None:
    validate = pytest.importorskip("numpydoc.validate").validate
    found = [error for error in validate(name)["errors"] if error[0] in DOCSTRING_RULES]
    assert not found
