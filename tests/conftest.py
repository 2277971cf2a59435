"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


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
