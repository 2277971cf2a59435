"""The index of rows: what it reads, in which order, and how much memory it takes."""

import dataclasses
import errno
import gc
import os
import tracemalloc
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
import pytest
from support.shards import ATTRIBUTES, COLUMNS, SPEC, as_bytes, digests, index_of, merge, shard

from brainfeat.cache import row_index as module
from brainfeat.cache.merging import write_cache
from brainfeat.cache.output import Output
from brainfeat.cache.row_index import RowIndex, row_keys
from brainfeat.cache.schema import TEXTS
from brainfeat.errors import CacheError

ROWS, PIECE = 3072, 128


class TestReadingInBlocks:
    """Rows of 24 shards, in the order of the files and in others."""

    @pytest.fixture
    def index(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_PIECE_ROWS", PIECE)
        names = digests(map(str, range(ROWS)))
        features = np.arange(ROWS * 4).reshape(ROWS, 4)
        parts = [slice(start, start + PIECE) for start in range(0, ROWS, PIECE)]
        index = index_of(*(shard(tmp_path / "s", features[part], names[part]) for part in parts))
        yield index
        index.close()

    @pytest.fixture
    def scratch(self, tmp_path):
        (tmp_path / "scratch").mkdir()
        return tmp_path / "scratch"

    @pytest.fixture
    def pieces(self, index, monkeypatch):
        """The pieces that are read, one after the other."""
        pieces = []
        read = RowIndex._read

        def note(self, name, places):
            pieces.append(int(places[0]) >> 32)
            return read(self, name, places)

        monkeypatch.setattr(RowIndex, "_read", note)
        return pieces

    @staticmethod
    def check(index, order, scratch):
        keys = row_keys(as_bytes(digests(map(str, order))), np.zeros(len(order)))
        blocks = list(index.read_blocks("features", index.locate(keys), folder=scratch))
        np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], 4 * np.asarray(order))
        assert not list(scratch.iterdir())
        return [len(block) for block in blocks]

    def test_rows_in_the_order_of_the_files_are_not_sorted(self, index, scratch, monkeypatch):
        monkeypatch.setattr(module, "_Buckets", None)
        sizes = self.check(index, range(ROWS), scratch)
        assert sizes == [PIECE] * (ROWS // PIECE)

    def test_a_few_scattered_rows_are_sorted_in_memory(self, index, pieces, scratch, monkeypatch):
        monkeypatch.setattr(module, "_Buckets", None)
        order = np.random.default_rng(0).permutation(ROWS)
        assert self.check(index, order, scratch) == [ROWS]
        assert sorted(pieces) == list(range(ROWS // PIECE))

    @pytest.mark.parametrize("rows_of_a_bucket", [PIECE, 700, ROWS - 1])
    def test_many_are_sorted_on_disk(self, index, pieces, scratch, monkeypatch, rows_of_a_bucket):
        monkeypatch.setattr(module, "_BUCKET_BYTES", 16 * rows_of_a_bucket)
        order = np.random.default_rng(0).permutation(ROWS)
        sizes = self.check(index, order, scratch)
        assert max(sizes) == rows_of_a_bucket
        # One look at each piece, after which the writer may stop.
        assert sorted(pieces) == list(range(ROWS // PIECE))
        assert sizes[: len(pieces)] == [0] * len(pieces)

    def test_rows_that_repeat_and_others_that_are_left_out(self, index, scratch, monkeypatch):
        monkeypatch.setattr(module, "_BUCKET_BYTES", 16 * 700)
        order = np.random.default_rng(0).integers(0, ROWS, 2 * ROWS)
        assert sum(self.check(index, order, scratch)) == 2 * ROWS

    def test_the_room_on_disk_is_given_back(self, index, scratch, monkeypatch):
        monkeypatch.setattr(module, "_BUCKET_BYTES", 16 * 700)
        sizes = []
        take = module._Buckets.take

        def measure(self, bucket):
            data = take(self, bucket)
            sizes.append(os.fstat(self._file.fileno()).st_size)
            return data

        monkeypatch.setattr(module._Buckets, "take", measure)
        self.check(index, np.random.default_rng(0).permutation(ROWS), scratch)
        assert sizes == [16 * 700 * left for left in (4, 3, 2, 1, 0)]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
            (None, "what was read back is not what was written"),
        ],
    )
    def test_a_disk_that_fails_ends_the_merge(self, index, tmp_path, monkeypatch, error, reason):
        monkeypatch.setattr(module, "_BUCKET_BYTES", 16 * 700)
        append = module._Buckets.append

        def fail(self, bucket, values):
            if error is not None:
                raise error
            append(self, bucket, values)
            self._file.seek(self._starts[bucket])
            self._file.write(b"\xff")

        monkeypatch.setattr(module._Buckets, "append", fail)
        order = np.random.default_rng(0).permutation(ROWS)
        keys = row_keys(as_bytes(digests(map(str, order))), np.zeros(ROWS))
        columns = dict.fromkeys(COLUMNS, [""] * ROWS) | {"label": [0] * ROWS}
        with pytest.raises(CacheError, match=rf"features.h5: cannot be written \({reason}\)"):
            merge(tmp_path / "features.h5", index, keys, columns)
        assert not (tmp_path / "features.h5").exists()
        assert not list((tmp_path / "features.h5.parts").iterdir())


def traced(work):
    """Return what a piece of work holds at most, in bytes, beside what there was."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("many", [20_000, pytest.param(80_000, marks=pytest.mark.deep)])
class TestMemory:
    """What a row costs: the difference between many rows and a fourth of them."""

    TEXT = 40

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        monkeypatch.setattr("brainfeat.cache.stored_array._BLOCK_BYTES", 64 << 10)
        monkeypatch.setattr(module, "_BLOCK_ROWS", 1024)

    @staticmethod
    def prepare(folder, rows, *, signature=False):
        rng = np.random.default_rng(rows)
        names = [rng.bytes(32) for _ in range(rows)]
        path = shard(
            folder,
            np.zeros((rows, 1)),
            names,
            spec=dataclasses.replace(SPEC, n_features=1),
            signature=np.zeros((rows, 1936), np.int8) if signature else None,
        )
        return path, row_keys(as_bytes(names), np.zeros(rows))

    @staticmethod
    def cost(measure, many):
        few = many // 4
        return (measure(many) - measure(few)) / (many - few)

    def test_of_the_index(self, tmp_path, many):
        def measure(rows):
            path, _ = self.prepare(tmp_path, rows)
            peak, index = traced(lambda: index_of(path))
            index.close()
            return peak

        # 34 of the key and 8 of its place.
        assert self.cost(measure, many) < 46

    @pytest.mark.parametrize("signature", [False, True])
    @pytest.mark.parametrize("order", ["of the shards", "shuffled"])
    def test_of_a_merge(self, tmp_path, order, signature, many, monkeypatch):
        monkeypatch.setattr(module, "_BUCKET_BYTES", 1 << 20)

        def measure(rows):
            path, keys = self.prepare(tmp_path / "parts", rows, signature=signature)
            if order == "shuffled":
                np.random.default_rng(0).shuffle(keys)
            columns = {name: np.zeros(rows, f"S{self.TEXT}") for name in TEXTS}
            columns["label"] = np.zeros(rows, np.int16)
            spec = dataclasses.replace(SPEC, n_features=1)
            work = partial(write_cache, keys=keys, spec=spec, columns=columns, signature=signature)

            def write():
                with closing(index_of(path)) as index:
                    work(tmp_path / f"{rows}.h5", index=index, attributes=ATTRIBUTES)

            return traced(write)[0]

        # Once the rows are found, their keys give way to what was measured of the files, 20, and to
        # places and their orders, 8 each.
        assert self.cost(measure, many) < 20 + 5 * 8 + 10

    def test_of_finding_that_nothing_changed(self, tmp_path, many):
        def measure(rows):
            output = tmp_path / f"{rows}.h5"
            path, keys = self.prepare(tmp_path / "parts", rows)
            columns = {name: np.full(rows, "x" * self.TEXT, f"S{self.TEXT}") for name in TEXTS}
            columns["label"] = np.zeros(rows, np.int16)
            spec = dataclasses.replace(SPEC, n_features=1)
            index = index_of(path)
            attributes = {**ATTRIBUTES, "augmentation": None}
            write_cache(
                output, index=index, keys=keys, spec=spec, columns=columns, attributes=attributes
            )
            index.close()

            def look():
                with ExitStack() as stack:
                    found = Output(output, stack, overwrite=False)
                    found.check_dropped(keys)
                    names = ("class_names", "rejected")
                    found.merge(
                        keys,
                        spec=spec,
                        augmentation=None,
                        columns=columns,
                        attributes={name: ATTRIBUTES[name] for name in names},
                        provenance={},
                        signature=False,
                        alone=True,
                    )

            before = output.stat()
            peak, _ = traced(look)
            assert output.stat().st_ino == before.st_ino
            return peak

        # One column of texts as it is stored, and what compares it.
        assert self.cost(measure, many) < self.TEXT + 20
