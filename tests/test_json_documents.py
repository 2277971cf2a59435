"""The JSON documents of all commands: what they hold is what docs/reference/cli.md says."""

import json
import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import weigh_by_attention
from support.caches import draw_groups, write_vectors
from support.dicoms import draw_volume, write_series
from support.halves import Blocks, draw
from support.layered import write_layered
from support.modalities import write_modalities

from brainfeat.benchmark import stages
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import SIGNATURE_SIZE, orient_signatures
from brainfeat.cli.main import COMMANDS, load_command
from brainfeat.heads import wgan
from brainfeat.heads.bundle import HeadBundle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
IMAGES = 400
CLASSES = ("glioma", "notumor")

Steps = tuple[str, ...]


# The page


def read_tables() -> dict[str, list[tuple[Steps, str | None]]]:
    """Read the tables below "JSON documents": by heading, each key and the table it refers to."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition("## JSON documents\n")
    tables: dict[str, list[tuple[Steps, str | None]]] = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        rows = [line for line in body.splitlines() if line.startswith("| `")]
        whole = re.findall(r"^It has the keys of \[.*?\]\(#([\w-]+)\)", body, re.MULTILINE)
        name = heading.lower().replace(" ", "-").replace("`", "")
        assert name not in tables, f"two tables have the heading {heading!r}"
        tables[name] = [
            *(((), reference) for reference in whole),
            *(
                (tuple(key.split(".")), reference)
                for row in rows
                for reference in (find_reference(row),)
                for key in re.findall(r"`([^`]+)`", row.split("|")[1])
            ),
        ]
    return tables


def find_reference(row: str) -> str | None:
    found = re.search(r"\]\(#([\w-]+)\)", row.split("|")[2])
    return found[1] if found else None


def expand(name: str, *, but: Collection[str] = ()) -> Iterator[Steps]:
    """Yield the keys of a table with those of the tables that it refers to, but for some."""
    for steps, reference in TABLES[name]:
        if steps:
            yield steps
        if reference and reference not in but:
            for further in expand(reference, but=but):
                yield (*steps, *further)


# The documents


def list_keys(document: Any, steps: Steps = ()) -> Iterator[Steps]:
    """Yield the path of each key of a document; the entries of a list share theirs."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*steps, key)
            yield from list_keys(value, (*steps, key))
    elif isinstance(document, list):
        for entry in document:
            yield from list_keys(entry, steps)


def matches(steps: Steps, pattern: Steps) -> bool:
    return len(steps) == len(pattern) and all(
        expected in {"*", step} for step, expected in zip(steps, pattern, strict=True)
    )


def ask(name: str, *arguments: object) -> Any:
    """Run a command with --json and read what it prints."""
    result = CliRunner().invoke(load_command(name), [*map(str, arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 80 images of two classes, one that cannot be read, and a file of another kind."""
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(40):
            draw(rng, bright=bool(place)).save(folder / name / f"{number:03}.png")
    (folder / "glioma" / "broken.png").write_bytes(b"")
    (folder / "glioma" / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a DICOM series, and a NIfTI file that is damaged."""
    folder = tmp_path_factory.mktemp("volumes")
    write_series(folder / "series", draw_volume(2, size=32))
    (folder / "bad.nii").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def blocks() -> Iterator[None]:
    """Let a base that takes no time stand in for those that Keras computes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("extraction.extractor", "prediction.bases"):
            patch.setattr(f"brainfeat.{module}.load_backbone", lambda *_, **__: Blocks())
        yield


@pytest.fixture(scope="module")
def features(slices: Path, blocks: None) -> Path:
    path = slices.parent / "features.h5"
    ask("extract", slices, "-o", path)
    return path


@pytest.fixture(scope="module")
def head(features: Path) -> Path:
    path = features.with_name("head.h5")
    ask("fit-head", features, "-o", path, "--head", "lda", "--group-by", "none", "--jobs", 1)
    return path


@pytest.fixture
def vectors(make_cache: Callable[..., Path]) -> Path:
    """Write a cache with duplicates across its splits, of which two have different labels."""
    rng = np.random.default_rng(0)
    y = np.arange(IMAGES) % 4
    X = rng.standard_normal((IMAGES, 32)) + 0.6 * rng.standard_normal((4, 32))[y]
    contents = [str(row) for row in range(IMAGES)]
    for copy, original in ((396, 0), (397, 2)):
        contents[copy], X[copy] = contents[original], X[original]
    splits = np.repeat(["train", "val", "test"], [200, 60, 140])
    signature = rng.integers(-127, 128, (IMAGES, SIGNATURE_SIZE)).astype(np.int8)
    signature[399] = orient_signatures(signature[0], 1)  # of another class, and mirrored
    signature[[396, 397]] = signature[[0, 2]]
    y[np.flatnonzero(y == 2)[70:]] = 0  # few test images of one class are left
    few = np.flatnonzero(y == 3)[65:98]  # all test images of a class but two
    signature[few] = orient_signatures(signature[few - 200], 2)
    # Nearly all images of one class are of source a.
    sources = ["a" if row % 4 == 3 != row - 8 else "ab"[row // 8 % 2] for row in range(IMAGES)]
    made = np.isin(np.arange(IMAGES), range(150, 158))  # in train, by a program
    columns = {"contents": contents, "splits": splits, "sources": sources, "origin": made}
    return make_cache(X, y, signature=signature, **columns)


@pytest.fixture
def patients(make_cache: Callable[..., Path]) -> Path:
    X, y, groups = draw_groups()
    return make_cache(X, y, groups=groups, name="patients.h5")


Take = Callable[[str], Any]


def run_slices(take: Take, folder: Path) -> Iterator[Any]:
    yield ask("slices", take("volumes"), "-o", folder / "slices")


def run_extract(take: Take, folder: Path) -> Iterator[Any]:
    take("blocks")
    yield ask("extract", take("slices"), "-o", folder / "f.h5")


def run_audit(take: Take, folder: Path) -> Iterator[Any]:
    vectors = take("vectors")
    yield ask("audit", vectors)
    with FeatureCache.open(vectors) as cache:
        X, y = cache.X[:], cache.y
    y[y == 2] = 0
    y[:2] = 2  # too few to be checked
    few = write_vectors(folder, X, y, name="few.h5")
    yield ask("audit", few, "--labels", folder / "suspects.csv")


def write_mirrored(take: Take, folder: Path) -> Path:
    """Write a cache of three images of another set, mirrored, of which one has another class."""
    signature = np.zeros((4, SIGNATURE_SIZE), np.int8)
    with FeatureCache.open(take("vectors")) as cache:
        assert cache.signature is not None
        signature[:3] = orient_signatures(cache.signature[[0, 5, 10]], 1)
    return write_vectors(
        folder,
        np.zeros((4, 4)),
        np.array([1, 1, -1, -1]),
        name="mirrored.h5",
        sources=["a", "b", "", ""],
        signature=signature,
    )


MAPPING = "yes=glioma+meningioma,no=notumor"


def write_renamed(take: Take, folder: Path) -> Path:
    """Write a cache of another set of two classes, of which one image is a test image, mirrored."""
    with FeatureCache.open(take("vectors")) as cache:
        assert cache.signature is not None
        X, signature = cache.X[260:380], np.random.default_rng(1).permuted(cache.signature[260:380])
        signature[0] = orient_signatures(cache.signature[390], 1)
    return write_vectors(
        folder,
        X,
        np.arange(120) % 2,
        name="renamed.h5",
        class_names=("yes", "no"),
        paths=[f"elsewhere-{row}.png" for row in range(120)],
        signature=signature,
    )


def run_audit_on_a_set_of_caches(take: Take, folder: Path) -> Iterator[Any]:
    yield ask("audit", take("vectors"), write_mirrored(take, folder))


def run_link(take: Take, folder: Path) -> Iterator[Any]:
    mirrored, output = write_mirrored(take, folder), folder / "linked.csv"
    yield ask("link", mirrored, take("vectors"), "--take", "source,label", "-o", output)


def run_split(take: Take, folder: Path) -> Iterator[Any]:
    yield ask("split", take("vectors"), "-o", folder / "split.csv")
    left = ("--leave-out", "source=b", "--group-by", "none")
    yield ask("split", take("vectors"), "-o", folder / "left.csv", *left)


def run_fit_head(take: Take, folder: Path) -> Iterator[Any]:
    options = ("--search", "--n-iter", 2, "--param", "n_neighbors=3", "--jobs", 1)
    yield ask("fit-head", take("vectors"), "-o", folder / "a.h5", "--head", "knn", *options)
    sources = ("--cv", "leave-one-source-out", "--repeats", 2, "--group-by", "none", "--jobs", 1)
    yield ask("fit-head", take("vectors"), "-o", folder / "c.h5", "--head", "lda", *sources)
    weight = ("--class-weight", "balanced", "--jobs", 1)
    yield ask("fit-head", take("vectors"), "-o", folder / "b.h5", "--head", "logistic", *weight)
    bag = ("--head", "lda", "--bag", "mean", "--jobs", 1)
    yield ask("fit-head", take("patients"), "-o", folder / "e.h5", *bag)
    folds = ("--head", "lda", "--cv", 3, "--unit", "group", "--jobs", 1)
    yield ask("fit-head", take("patients"), "-o", folder / "f.h5", *folds)
    curve = ("--learning-curve", "--curve-repeats", 2, "--param", "n_neighbors=3")
    yield ask("fit-head", take("vectors"), "-o", folder / "d.h5", "--head", "knn", *curve)
    yield fit_joined(folder, "--ablate-blocks")
    ablate = ("--ablate", write_variants(folder), "--classes", MAPPING, "--param", "n_neighbors=3")
    on = ("--ablate-on", write_few(take, folder), "--jobs", 1)
    yield ask("fit-head", take("vectors"), "-o", folder / "g.h5", "--head", "knn", *ablate, *on)
    yield fit_generated(folder)


def write_variants(folder: Path) -> Path:
    path = folder / "variants.toml"
    path.write_text("[five.params]\nn_neighbors = 5\n[no]\nfeatures = 'no.h5'\n")
    return path


def write_few(take: Take, folder: Path) -> Path:
    """Write a cache of another set of two classes, and a third one of three images."""
    with FeatureCache.open(take("vectors")) as cache:
        X = cache.X[260:380]
    y = np.arange(120) % 2
    y[:3] = 2
    names, contents = ("yes", "no", "pituitary"), [f"few {row}" for row in range(120)]
    return write_vectors(folder, X, y, name="few.h5", class_names=names, contents=contents)


def fit_generated(folder: Path) -> Any:
    """Fit a head on generated rows of all classes but one, which has too few to learn from."""
    X, y, groups = draw_groups()
    chosen = (y != 3) | (np.cumsum(y == 3) <= 8)
    groups = [group for group, keep in zip(groups, chosen, strict=True) if keep]
    path = write_vectors(folder, X[chosen], y[chosen], name="few.h5", groups=groups)
    options = ("--head", "lda", "--generate", 5, "--cv", 2, "--jobs", 1, "--overwrite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wgan, "STEPS", 10)
        return ask("fit-head", path, "-o", folder / "generated.h5", *options)


def fit_joined(folder: Path, *options: str) -> Any:
    """Fit a head on two caches, of which one lacks some patients."""
    caches = write_modalities(folder, widths={"t1": 3, "pet": 2}, lacks={"pet": slice(5, 9)})
    joined = ("--join", "groups", "-o", folder / "joined.h5", "--head", "lda", "--jobs", 1)
    return ask("fit-head", *caches, *joined, *options)


def write_floor(take: Take, folder: Path) -> Path:
    """Write a cache of the same images, of other features."""
    with FeatureCache.open(take("vectors")) as cache:
        digests = [row.tobytes() for row in cache.sha256]
        X, y = np.asarray(cache.X)[:, :5], cache.y
    return write_vectors(folder, X, y, name="floor.h5", digests=digests)


def run_evaluate(take: Take, folder: Path) -> Iterator[Any]:
    vectors, head = take("vectors"), folder / "head.h5"
    ask("fit-head", vectors, "-o", head, "--head", "lda", "--jobs", 1)
    shown = ("--by", "source", "--prevalence", "glioma=0.01", "--floor", write_floor(take, folder))
    yield ask("evaluate", head, vectors, *shown)
    yield ask("evaluate", head, write_renamed(take, folder), "--classes", MAPPING)


def run_evaluate_on_a_set_of_caches(take: Take, folder: Path) -> Iterator[Any]:
    vectors, head = take("vectors"), folder / "head.h5"
    ask("fit-head", vectors, "-o", head, "--head", "lda", "--jobs", 1)
    yield ask("evaluate", head, vectors, write_renamed(take, folder), "--classes", MAPPING)


def run_predict(take: Take, folder: Path) -> Iterator[Any]:
    key = folder / "site.key"
    key.write_text("0123456789abcdef", encoding="ascii")
    yield ask("predict", take("head"), take("slices"), take("volumes"), "--patient-key", key)
    base = Blocks().spec
    same = {name: getattr(base, name) for name in ("backbone", "layer", "weights_sha256")}
    pair = [
        write_modalities(folder, widths={name: base.n_features}, input_size=base.input_size, **same)
        for name in ("t1", "pet")
    ]
    head = folder / "joined.h5"
    ask("fit-head", *chain(*pair), "--join", "groups", "-o", head, "--head", "lda", "--jobs", 1)
    yield ask("predict", head, "--input", f"t1={take('slices') / 'glioma' / '000.png'}")
    bag = weigh_by_attention(HeadBundle.load(take("head"))).save(folder / "bag.h5")
    yield ask("predict", bag, take("slices"), take("volumes"))


def run_compare(take: Take, folder: Path) -> Iterator[Any]:
    vectors, heads = take("vectors"), [folder / f"{name}.h5" for name in ("lda", "knn")]
    for head in heads:
        ask("fit-head", vectors, "-o", head, "--head", head.stem, "--jobs", 1)
    yield ask("compare", *heads, vectors)


def run_stress(take: Take, folder: Path) -> Iterator[Any]:
    options = ("--split", "all", "--kinds", "noise", "--jobs", 1)
    yield ask("stress", take("head"), take("slices"), *options)


def run_info_on_a_feature_cache(take: Take, folder: Path) -> Iterator[Any]:
    take("blocks")
    ask("extract", take("slices"), "-o", folder / "f.h5", "--augment", 1)
    yield ask("info", folder / "f.h5")
    ask("slices", take("volumes"), "-o", folder / "slices", "--label", "glioma")
    ask("extract", folder / "slices", "-o", folder / "v.h5")
    yield ask("info", folder / "v.h5")
    yield ask("info", write_layered(folder))


def run_info_on_a_head(take: Take, folder: Path) -> Iterator[Any]:
    path = folder / "head.h5"
    options = ("--head", "knn", "--param", "n_neighbors=3", "--jobs", 1)
    ask("fit-head", take("vectors"), "-o", path, *options)
    yield ask("info", path)
    bag = ("--head", "knn", "--bag", "max", "--jobs", 1)
    ask("fit-head", take("patients"), "-o", path, "--overwrite", *bag)
    yield ask("info", path)
    voting = ("--head", "vote:lda+knn", "--param", "n_folds=2", "--jobs", 1)
    ask("fit-head", take("vectors"), "-o", path, "--overwrite", *voting)
    yield ask("info", path)
    fit_joined(folder)
    yield ask("info", folder / "joined.h5")
    fit_generated(folder)
    yield ask("info", folder / "generated.h5")


def run_info_on_a_damaged_file(take: Take, folder: Path) -> Iterator[Any]:
    path = take("vectors")
    path.write_bytes(path.read_bytes()[:-100])
    yield ask("info", path, "--verify")


def run_doctor(take: Take, folder: Path) -> Iterator[Any]:
    yield ask("doctor")


SMALL_BASE = ("--backbone", "mobilenet-0.75")


def run_bench(take: Take, folder: Path) -> Iterator[Any]:
    patch = take("monkeypatch")
    patch.setattr(stages, "HEADS", ("logistic",))
    patch.setattr(stages, "STAGE_TWO_ROWS", 80)
    patch.setattr(stages, "_SHORTEST_SECONDS", 0.0)
    options = ("--size", 32, "--batch-size", 4, "--number", 8, "--repeats", 1)
    yield ask("bench", *SMALL_BASE, *options, "--precision", "float32")


def run_demo(take: Take, folder: Path) -> Iterator[Any]:
    yield ask("demo", "-o", folder / "demo", *SMALL_BASE, "--weights", "random", "--patients", 8)


TABLES = read_tables()
RUNS = {
    name.removeprefix("run_").replace("_", "-"): run
    for name, run in list(globals().items())
    if name.startswith("run_")
}
SLOW = {"bench", "demo", "doctor"}


def test_every_command_with_json_is_described() -> None:
    with_json = {
        name
        for name in COMMANDS
        if any("--json" in option.opts for option in load_command(name).params)
    }
    assert {name.split("-on-a-")[0] for name in RUNS} == with_json
    assert set(RUNS) <= set(TABLES)
    referred = {reference for rows in TABLES.values() for _, reference in rows if reference}
    assert set(TABLES) - set(RUNS) == referred - set(RUNS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RUNS],
)
def test_a_document_has_the_keys_of_its_table(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """All keys are described, and all that are described were seen."""
    keys = {
        steps
        for document in RUNS[name](request.getfixturevalue, tmp_path)
        for steps in list_keys(document)
    }
    described = set(expand(name))
    assert not {
        ".".join(steps)
        for steps in keys
        if not any(matches(steps, pattern) for pattern in described)
    }, "not described"
    # What another command prints is seen there.
    assert not {
        ".".join(pattern)
        for pattern in expand(name, but=RUNS)
        if not any(matches(steps, pattern) for steps in keys)
    }, "not in a document"
