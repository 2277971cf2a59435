"""Keys of rows that were seen: a hash table in two arrays, which grow with them."""

import numpy as np

_FIRST_SLOTS = 1 << 12


class SeenKeys:
    """Keys of equal length, each of which is new once.

    A ``set`` of bytes objects takes four times the memory, and more while it grows. The hash is
    Python's, which is drawn for each process, so that nobody can choose files whose keys collide.

    Examples
    --------
    >>> seen = SeenKeys()
    >>> seen.add(b"key"), seen.add(b"key")
    (True, False)
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._count = 0
        # The place of a key, from 1; at most half of the table is used.
        self._places = np.zeros(_FIRST_SLOTS, np.int32)

    def add(self, key: bytes) -> bool:
        """Add a key; return whether it is new."""
        slot = self._find(key)
        if self._places[slot]:
            return False
        self._keys += key
        self._count += 1
        self._places[slot] = self._count
        if 2 * self._count > len(self._places):
            self._grow(len(key))
        return True

    def _find(self, key: bytes) -> int:
        """Return the slot that has the key, or else the one that it would have."""
        last, width = len(self._places) - 1, len(key)
        slot = hash(key) & last
        while place := int(self._places[slot]):
            if self._keys[(place - 1) * width : place * width] == key:
                break
            slot = (slot + 1) & last
        return slot

    def _grow(self, width: int) -> None:
        self._places = np.zeros(2 * len(self._places), np.int32)
        for place in range(self._count):
            key = bytes(self._keys[place * width : (place + 1) * width])
            self._places[self._find(key)] = place + 1
