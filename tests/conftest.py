"""Fixtures shared by all tests."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.register_assert_rewrite("support")


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
