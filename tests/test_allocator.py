"""Stage one gives large arrays back to the system when they are freed."""

import os
import subprocess
import sys

import pytest

# A large array raises the size that glibc keeps in its heap, unless that size is set: the number of
# regions that are mapped by themselves, the fourth of mallinfo2, tells where the next one is.
CODE = """
import ctypes
import numpy as np
from brainfeat.cli.allocator import return_large_arrays

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

look = ctypes.CDLL(None).mallinfo2
look.restype = Info
if {asked}:
    return_large_arrays()
large = np.ones(1 << 20)
del large
before = look().d
kept = np.ones(1 << 18)
print(look().d - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
@pytest.mark.parametrize(
    ("asked", "chosen", "mapped"), [(True, "", 1), (False, "", 0), (True, "33554432", 0)]
)
def test_a_large_array_is_mapped_by_itself_unless_the_user_chose(
    asked: bool, chosen: str, mapped: int
) -> None:
    name = "MALLOC_MMAP_THRESHOLD_"
    env = {key: value for key, value in os.environ.items() if key != name}
    if chosen:
        env[name] = chosen
    printed = subprocess.run(
        [sys.executable, "-c", CODE.format(asked=asked)],
        env=env,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    assert int(printed) == mapped
