"""Simulated power cuts: a process's calls, replayed on a disk that loses unsynchronised data."""

import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = (
    "create",
    "write",
    "truncate",
    "allocate",
    "sync",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "link",
    "close",
    "mark",
)


def files_in(folder: Path) -> dict[str, bytes]:
    """Give the bytes of all files below a folder, and of the empty folders, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"<folder>"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


@dataclasses.dataclass(frozen=True)
class Call:
    """One call that changed what is below the folder, or a mark."""

    kind: str
    path: str
    other: str
    flags: int
    offset: int
    data: bytes

    def marks(self, what: str) -> list[bytes]:
        """Give what was marked here as acknowledged or computed."""
        words = self.path.split(" ") if self.kind == "mark" else [""]
        return [bytes.fromhex(word) for word in words[1:]] if words[0] == what else []


_RECORD = np.dtype(
    [("kind", "i4"), ("flags", "i4"), ("offset", "i8"), ("length", "i8"), ("names", "i4", 2)]
)


def read_trace(path: Path) -> Iterator[Call]:
    """Read the calls that a child made; the last may be torn by a kill."""
    data, place = path.read_bytes(), 0
    while place + _RECORD.itemsize <= len(data):
        record = np.frombuffer(data, _RECORD, 1, place)[0]
        place += _RECORD.itemsize
        kind = KINDS[record["kind"]]
        lengths = [*record["names"], record["length"] if kind == "write" else 0]
        fields = []
        for length in map(int, lengths):
            fields.append(data[place : place + length])
            place += length
        yield Call(
            kind,
            fields[0].decode(),
            fields[1].decode(),
            int(record["flags"]),
            int(record["offset"]),
            fields[2],
        )


class Disk:
    """A disk below a folder that loses everything that was not synchronised in a power cut.

    A file has what was written and what was synchronised; a folder has its entries and those that
    were synchronised. A rename is two entries that become durable each with its folder, but never
    the loss of both: file systems write a rename within one folder in one piece.
    """

    def __init__(self, folder: Path, start: Path | None) -> None:
        self.root = str(folder)
        self.entries: dict[str, dict[str, Any]] = {self.root: {}}
        self.durable: dict[str, dict[str, Any]] = {self.root: {}}
        self.pending: dict[str, list[tuple[str, Any]]] = {self.root: []}
        for name, data in files_in(start).items() if start else ():
            path = str(folder / name)
            parent = os.path.dirname(path)
            if parent not in self.entries:
                self._make(parent)
            self._set(parent, os.path.basename(path), File(bytearray(data), bytes(data)))
        for path in self.entries:
            self._sync_folder(path)

    def _set(self, folder: str, name: str, what: Any) -> None:
        if what is None:
            self.entries[folder].pop(name, None)
        else:
            self.entries[folder][name] = what
        self.pending[folder].append((name, what))

    def _sync_folder(self, folder: str) -> None:
        self.durable[folder] = dict(self.entries[folder])
        self.pending[folder] = []

    def apply(self, call: Call) -> None:
        """Do what a call did."""
        folder, name = os.path.split(call.path)
        if call.kind == "mkdir":
            self._make(call.path)
        elif call.kind in ("unlink", "rmdir"):
            self._set(folder, name, None)
        elif call.kind == "rename":
            self._set(*os.path.split(call.other), self.entries[folder][name])
            self._set(folder, name, None)
        elif call.kind == "sync" and call.path in self.entries:
            self._sync_folder(call.path)
        elif call.kind == "create" and name not in self.entries[folder]:
            self._set(folder, name, File(bytearray(), b""))
        elif call.kind != "mark":
            self.entries[folder][name].apply(call)

    def _make(self, folder: str) -> None:
        self._set(*os.path.split(folder), "folder")
        self.entries[folder], self.durable[folder], self.pending[folder] = {}, {}, []

    def cut_power(self, target: Path, how: str, rng: random.Random) -> None:
        """Write what is there after the power was cut.

        ``"least"``: only what was synchronised. ``"names"``: all entries, but of the data only what
        was synchronised. ``"all"``: everything. ``"some"``: in each folder the first few of the
        changes of entries that wait; of each file some of the writes that wait.
        """
        self._write(self.root, target, how, rng)

    def _write(self, folder: str, target: Path, how: str, rng: random.Random) -> None:
        target.mkdir()
        for name, what in self._survivors(folder, how, rng).items():
            if what == "folder":
                self._write(os.path.join(folder, name), target / name, how, rng)
            else:
                (target / name).write_bytes(what.survivor(how, rng))

    def _survivors(self, folder: str, how: str, rng: random.Random) -> dict[str, Any]:
        if how in ("names", "all"):
            return self.entries[folder]
        found = dict(self.durable[folder])
        pending = self.pending[folder]
        for name, what in pending[: rng.randint(0, len(pending)) if how == "some" else 0]:
            if what is None:
                found.pop(name, None)
            else:
                found[name] = what
        return found


class File:
    """The bytes of a file, and those that were synchronised."""

    def __init__(self, data: bytearray, durable: bytes) -> None:
        self.data, self.durable = data, durable
        self.waiting: list[tuple[int, bytes | None]] = []

    def apply(self, call: Call) -> None:
        """Do what a call did."""
        if call.kind == "sync":
            self.durable, self.waiting = bytes(self.data), []
        elif call.kind == "write":
            self._put(call.offset, call.data)
        elif call.kind == "truncate" or (call.kind == "create" and call.flags):
            self._put(call.offset, None)
        elif call.kind == "allocate":
            self._put(max(call.offset, len(self.data)), None)
        elif call.kind != "create":
            raise AssertionError(f"a disk that knows no {call.kind}")

    def _put(self, offset: int, data: bytes | None) -> None:
        _put(self.data, offset, data)
        self.waiting.append((offset, data))

    def survivor(self, how: str, rng: random.Random) -> bytes:
        if how == "all":
            return bytes(self.data)
        if how != "some":
            return self.durable
        found = bytearray(self.durable)
        for offset, data in self.waiting:
            if rng.random() < 0.5:
                _put(found, offset, data)
        return bytes(found)


def _put(file: bytearray, offset: int, data: bytes | None) -> None:
    """Write bytes at a place; None makes the file end there."""
    if len(file) < offset:
        file.extend(bytes(offset - len(file)))
    if data is None:
        del file[offset:]
    else:
        file[offset : offset + len(data)] = data
