"""The allocator of the C library: what a command frees goes back to the system."""

import ctypes
import os
import sys

# From this size on, memory is mapped by itself, and unmapped when it is freed.
_MAPPED_BYTES = 1 << 20
# The number of the parameter in malloc.h of glibc.
_M_MMAP_THRESHOLD = -3


def return_large_arrays() -> None:
    """Let this process return each large array to the system when it is freed.

    glibc does so by itself at first, but after each large array that is freed it keeps those of up
    to that size in a heap, where small objects that live longer keep them from being returned.
    Nothing changes under another C library, or where the user has set the variable
    ``MALLOC_MMAP_THRESHOLD_``.
    """
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        set_parameter = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_parameter is not None:
            set_parameter(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
