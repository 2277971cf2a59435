"""Keys of rows that were seen: a hash table in two arrays, for as many images as there are."""

import numpy as np

from brainfeat.cache.row_index import make_key


class SeenKeys:
    """Keys, each of which is new once.

    A ``set`` of bytes objects takes four times the memory, and more while it grows. The hash is
    Python's, which is drawn for each process, so that nobody can choose files whose keys collide.

    Parameters
    ----------
    n : int
        Most keys that are added. Memory is taken as they come.

    Examples
    --------
    >>> seen = SeenKeys(2)
    >>> key = make_key(bytes(32), 0)
    >>> seen.add(key), seen.add(key)
    (True, False)
    """

    def __init__(self, n: int) -> None:
        self._keys = np.zeros((n, len(make_key(bytes(32), 0))), np.uint8)
        # The place of a key in the array, from 1; at most half of the table is used.
        self._places = np.zeros(1 << (2 * n).bit_length(), np.int64 if n >= 2**31 else np.int32)
        self._count = 0

    def add(self, key: bytes) -> bool:
        """Add a key; return whether it is new."""
        last = len(self._places) - 1
        slot = hash(key) & last
        while place := int(self._places[slot]):
            if self._keys[place - 1].tobytes() == key:
                return False
            slot = (slot + 1) & last
        self._keys[self._count] = np.frombuffer(key, np.uint8)
        self._count += 1
        self._places[slot] = self._count
        return True
