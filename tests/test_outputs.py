"""Every command that writes: no output replaces an input, nor a file of another kind.

Each refusal is one line, comes at once, and leaves everything as it was.
"""

import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.caches import write_vectors
from support.dicoms import draw_volume, write_series
from support.halves import Blocks, draw

from brainfeat import extract, fit_head, read_table
from brainfeat.cli.main import COMMANDS, load_command
from brainfeat.errors import BrainfeatError
from brainfeat.files import check_output

SECONDS = 30

# Of each option that names an output: the command line, with OUT for the output, and its inputs.
WRITERS = {
    "extract": ("extract images -o OUT", ["images/glioma/0.png", "weights.h5"]),
    "extract a CSV": ("extract table.csv -o OUT --weights weights.h5", ["table.csv", "weights.h5"]),
    "slices": ("slices volumes -o OUT --labels patients.csv", ["volumes", "patients.csv"]),
    "split a cache": ("split features.h5 -o OUT", ["features.h5"]),
    "split a folder": (
        "split images -o OUT --labels patients.csv",
        ["images/glioma/0.png", "patients.csv"],
    ),
    "split a CSV": ("split table.csv -o OUT", ["table.csv"]),
    "fit-head": (
        "fit-head features.h5 -o OUT --head lda --table table.csv --ood-examples odd.h5",
        ["features.h5", "table.csv", "odd.h5"],
    ),
    "evaluate --report": (
        "evaluate head.h5 features.h5 --table table.csv --report OUT",
        ["head.h5", "features.h5", "table.csv"],
    ),
    "evaluate --card": (
        "evaluate head.h5 features.h5 --card OUT",
        ["head.h5", "features.h5"],
    ),
    "audit --pairs": (
        "audit features.h5 --table table.csv --pairs OUT",
        ["features.h5", "table.csv"],
    ),
    "audit --labels": (
        "audit features.h5 --table table.csv --labels OUT",
        ["features.h5", "table.csv"],
    ),
    "audit --map": ("audit features.h5 --table table.csv --map OUT", ["features.h5", "table.csv"]),
    "audit --pairs of two": (
        "audit features.h5 second.h5 --pairs OUT",
        ["features.h5", "second.h5"],
    ),
    "link": (
        "link features.h5 second.h5 --take label -o OUT",
        ["features.h5", "second.h5"],
    ),
    "predict": ("predict head.h5 images -o OUT", ["head.h5", "images/glioma/0.png"]),
    "predict --heatmap": ("predict head.h5 images --heatmap OUT", ["images", "images/glioma"]),
    "predict --sr": ("predict head.h5 volumes/IM0001 --sr OUT", ["head.h5", "volumes/IM0001"]),
    "predict --secondary-capture": (
        "predict head.h5 volumes/IM0001 --secondary-capture OUT",
        ["head.h5", "volumes/IM0001"],
    ),
    "stress": ("stress head.h5 images -o OUT", ["head.h5", "images/glioma/0.png"]),
    "stress --report": ("stress head.h5 table.csv --report OUT", ["head.h5", "table.csv"]),
    "fit-head --curve-plot": (
        "fit-head features.h5 -o a.h5 --head lda --learning-curve --curve-plot OUT",
        ["features.h5"],
    ),
    "fit-head --ablation-plot": (
        "fit-head features.h5 -o a.h5 --ablate a.toml --ablate-on odd.h5 --ablation-plot OUT",
        ["features.h5", "a.toml", "odd.h5"],
    ),
    "export": (
        "export head.h5 -o OUT.keras --weights weights.h5",
        ["head.h5", "weights.h5"],
    ),
    "demo": ("demo -o OUT", ["images"]),
}
FOLDERS = {"slices", "predict --heatmap", "demo"}

# The classes that extract lists first.
FOUND = re.compile(r"^(class|glioma|notumor)  +[a-z0-9]+$")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one file of each kind."""
    folder, rng = tmp_path_factory.mktemp("template"), np.random.default_rng(0)
    for place, name in enumerate(("glioma", "notumor")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(12):
            draw(rng, bright=bool(place)).save(folder / "images" / name / f"{number}.png")
    extract(read_table(folder / "images"), folder / "features.h5", backbone=Blocks())
    (folder / "second.h5").write_bytes((folder / "features.h5").read_bytes())
    fit_head(folder / "features.h5", head="lda", n_jobs=1).save(folder / "head.h5")
    write_vectors(folder, rng.standard_normal((20, 64)), np.arange(20) % 4, name="odd.h5")
    rows = [f"images/{c}/{n}.png,{c}" for c in ("glioma", "notumor") for n in range(12)]
    (folder / "table.csv").write_text("\n".join(["path,label", *rows, ""]))
    rows = [f"glioma/{n},b" for n in range(12)]
    (folder / "patients.csv").write_text("\n".join(["path,label", *rows, "P1,a", ""]))
    (folder / "weights.h5").write_bytes(b"weights of somebody")
    (folder / "notes.txt").write_text("my notes")
    (folder / "a.toml").write_text("[other]\nhead = 'knn'\n")
    write_series(folder / "volumes", draw_volume(2, size=32))
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with copies of these files."""
    for path in sorted(template.rglob("*")):
        place = tmp_path / path.relative_to(template)
        if path.is_dir():
            place.mkdir()
        else:
            place.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End a command that waits for ever."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def look(folder: Path) -> dict[str, object]:
    """Describe every file below a folder: its kind, place on disk and bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        content = path.read_bytes() if regular else os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, content)
    return found


def refuse(run, here: Path, writer: str, output: object, *, overwrite: bool = True) -> str:
    """Run a writer, see that it refuses in one line and changes nothing, and return the line."""
    words = WRITERS[writer][0].replace("OUT", str(output)).split()
    command = next(iter(words))
    takes = any("--overwrite" in option.opts for option in load_command(command).params)
    before = look(here)
    result = run(*words, *(["--overwrite"] if overwrite and takes else []))
    assert result.code == 1, result
    lines = [line for line in result.err.splitlines() if not FOUND.search(line)]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("brainfeat: error: ")
    assert result.out == ""
    assert look(here) == before
    return lines[0]


INPUTS = [
    pytest.param(writer, given, how, id=f"{writer}, {given}, {how}")
    for writer, (_, inputs) in WRITERS.items()
    for given in inputs
    for how in ("itself", "hard link", "link")
    if how != "hard link" or Path(given).suffix  # a folder has no hard links
]


@pytest.mark.parametrize(("writer", "given", "how"), INPUTS)
def test_an_input_is_not_replaced(run, here, writer, given, how):
    output = Path(given)
    if how != "itself":
        output = Path("other" + ("" if writer in FOLDERS else ".h5"))
        (output.hardlink_to if how == "hard link" else output.symlink_to)(given)
    if writer == "export":
        output.rename("model.keras")
        words = WRITERS[writer][0].replace(given, "model.keras")
        before = look(here)
        result = run(*words.replace("OUT", "model").split(), "--overwrite")
        assert (result.code, look(here)) == (1, before)
        return
    refuse(run, here, writer, output)


OWN = {"features.h5": {"extract"}, "head.h5": {"fit-head"}, "table.csv": {"split", "link"}}
OTHERS = [
    (writer, other)
    for writer in sorted(set(WRITERS) - FOLDERS - {"export"})
    for other in ("notes.txt", "weights.h5", *OWN)
    if WRITERS[writer][0].split()[0] not in OWN.get(other, set())
]


@pytest.mark.parametrize(("writer", "other"), OTHERS)
def test_a_file_of_another_kind_is_not_replaced(run, here, writer, other):
    assert other in refuse(run, here, writer, other)


@pytest.mark.parametrize("writer", sorted(FOLDERS))
@pytest.mark.parametrize("other", ["notes.txt", "images", "volumes"])
def test_a_folder_of_another_kind_is_not_replaced(run, here, writer, other):
    assert other in refuse(run, here, writer, other)


def test_a_model_replaces_no_other_file(run, here):
    Path("notes.keras").write_text("my notes")
    assert "is not a .keras model and is not replaced" in refuse(run, here, "export", "notes")


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_a_link_to_nothing_is_refused(run, here, writer):
    Path("link.keras" if writer == "export" else "link").symlink_to("nothing/at/all")
    assert "link" in refuse(run, here, writer, "link", overwrite=writer in FOLDERS)


PLACES = [
    (writer, place)
    for writer in sorted(WRITERS)
    for place in ("no/folder/x", "notes.txt/x", "/proc/x")
    if place != "no/folder/x" or writer not in {"predict --heatmap", "demo"}  # they make folders
]


@pytest.mark.parametrize(("writer", "place"), PLACES)
def test_a_place_that_cannot_be_written_is_refused(run, here, writer, place):
    refuse(run, here, writer, place, overwrite=False)


def test_a_dangling_link_in_the_place_of_the_shards_is_refused(run, here):
    Path("x.h5.parts").symlink_to("nothing")
    assert "x.h5.parts" in refuse(run, here, "extract", "x.h5")


@pytest.mark.parametrize("writer", sorted(set(WRITERS) - {"demo"}))
def test_a_working_folder_that_vanished_is_one_line(run, here, tmp_path_factory, writer):
    gone = tmp_path_factory.mktemp("gone")
    words = [
        str(here / word) if (here / word).exists() else word
        for word in WRITERS[writer][0].replace("OUT", "x").split()
    ]
    os.chdir(gone)
    gone.rmdir()
    before = look(here)
    result = run(*words)
    assert result.code == 1, result
    assert result.err.count("brainfeat: error: ") == 1
    assert look(here) == before


def test_two_outputs_are_two_files(run, here):
    result = run("evaluate", "head.h5", "features.h5", "--report", "x", "--card", "./x")
    assert result.code == 2
    assert "name the same file" in result.err


def test_every_command_that_writes_is_in_the_table():
    writes = {
        name
        for name in COMMANDS
        for option in load_command(name).params
        if {"-o", "--output", "--report", "--card", "--pairs", "--heatmap"} & set(option.opts)
    }
    assert writes == {words.split()[0] for words, _ in WRITERS.values()}


def test_python_refuses_the_same(here):
    with pytest.raises(BrainfeatError, match="is not a poem and is not replaced"):
        check_output("notes.txt", overwrite=True, kind="a poem", recognise=lambda path: False)
    with pytest.raises(BrainfeatError, match="exists; name another output"):
        check_output("notes.txt", overwrite=False, kind="a poem", recognise=lambda path: True)
    assert check_output("new", overwrite=False, kind="a poem", recognise=lambda path: True)
