"""Options, hypothesis profiles and fixtures shared by all tests."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

CORES = sorted(os.sched_getaffinity(0))

# Each worker keeps to its own cores: libraries start as many threads and processes as they see.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    share = CORES[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    os.sched_setaffinity(0, share or CORES)

pytest.register_assert_rewrite("support")

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=250, deadline=None, print_blob=True)

LEFT_OUT = pytest.StashKey[Counter[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what ``-n auto`` means: a worker per core, but each takes up to 3 GB of memory."""
    return min(len(CORES), 8)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--deep``."""
    parser.addoption("--deep", action="store_true", help="run the tests marked deep as well")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the hypothesis profile before test modules are imported."""
    config.stash[LEFT_OUT] = Counter()
    default = "ci" if os.environ.get("CI") else "dev"
    settings.load_profile("deep" if config.getoption("deep") else default)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests marked deep, or with ``--deep`` count hypothesis tests among them."""
    if config.getoption("deep"):
        for item in items:
            if is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker("deep")
        return
    deep = [item for item in items if item.get_closest_marker("deep")]
    items[:] = [item for item in items if not item.get_closest_marker("deep")]
    config.hook.pytest_deselected(items=deep)
    config.stash[LEFT_OUT].update(item.nodeid.partition("[")[0] for item in deep)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller of pytest-xdist what this worker left out."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker left out; each worker collects the same tests."""
    node.config.stash[LEFT_OUT] |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """List the tests of which cases were left to ``--deep``."""
    if left_out := config.stash[LEFT_OUT]:
        terminalreporter.section(f"cases left to --deep: {left_out.total()}")
        for name, cases in sorted(left_out.items()):
            terminalreporter.line(f"{cases:5} {name}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder that holds the real MRI slices and the real weights."""
    folder = os.environ.get("BRAINFEAT_REAL_DATA")
    if not folder:
        pytest.skip("BRAINFEAT_REAL_DATA is not set: no real MRI slices to test on")
    path = Path(folder).resolve()
    if not (path / "data" / "brain-mri").is_dir():
        pytest.fail(f"BRAINFEAT_REAL_DATA={folder} holds no data/brain-mri")
    return path


@pytest.fixture
def make_cache(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a feature cache of vectors, without images or a backbone."""
    from support.caches import write_vectors

    return partial(write_vectors, tmp_path)


@pytest.fixture(scope="session")
def layered_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a cache with three layers, maps, groups and splits, which no test may change."""
    from support.layered import write_layered

    return write_layered(tmp_path_factory.mktemp("layered"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Give a function that runs brainfeat in this process: exit code and what it printed."""
    from brainfeat.cli import main

    def call(*arguments: object) -> SimpleNamespace:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the file of one saved head of each kind, by the name of the head."""
    from support.bundles import save_heads

    return save_heads(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def craft(saved: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Give a function that changes a saved head and seals it again, as an attacker would."""
    from support.bundles import craft_head

    return partial(craft_head, saved, tmp_path / "crafted.h5")
