"""The feature cache: its format, the shards it is merged from, and the files it refuses."""

import dataclasses
import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.shards import (
    ATTRIBUTES,
    AUGMENTATION,
    COLUMNS,
    FEATURES,
    N_ROWS,
    SPEC,
    VIEWS,
    as_bytes,
    digests,
    draw_signatures,
    index_of,
    merge,
    shard,
    write_example,
)

from brainfeat.cache import row_index as module
from brainfeat.cache import writing
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.merging import write_cache
from brainfeat.cache.row_index import RowIndex, Source, row_keys
from brainfeat.cache.schema import CACHE_SCHEMA, SHARD_SCHEMA, Rejected
from brainfeat.cache.shards import list_shards, parts_folder, remove_parts
from brainfeat.cache.storage import StoredFile
from brainfeat.cache.stored_array import StoredArray
from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError, ParameterError

FORMAT_1 = CACHE_SCHEMA.select(1)
FORMAT_1_FINGERPRINT = "7cd391324a60414da700cba0445ab0ce1014b4873a19c049bba5e354a01ea94e"
FORMAT_3_FINGERPRINT = "64cb22d848acb61c1b502936dcdd84511cb1f3f2c0484a9da2dc72b7a9ac3955"

DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A cache that tests read and do not change."""
    return write_example(tmp_path_factory.mktemp("cache") / "features.h5")


@pytest.fixture(scope="module")
def cache(example):
    with FeatureCache.open(example) as cache:
        yield cache


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """The same with signatures."""
    return write_example(tmp_path_factory.mktemp("cache") / "signed.h5", signature=True)


@pytest.fixture
def change(example, tmp_path):
    """A function that changes a copy of a cache by h5py and gives it the digest of what it is."""

    def changed(edit, cache=example):
        path = tmp_path / "changed.h5"
        shutil.copy(cache, path)
        with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
            edit(file)
        writing.seal(path)
        return path

    return changed


def gather(index, keys, name="features"):
    return index.read([name], index.locate(keys))[name]


def spread_maps(X):
    """Give maps of 2 × 2 positions whose means are vectors, by halves that float16 holds."""
    steps = np.array([[-0.5, 0.5], [1.5, -1.5]], "f4")[None, :, :, None]
    return (X[:, None, None] + steps).astype("f2")


def replace_dataset(name, values):
    def edit(file):
        del file[name]
        file.create_dataset(name, data=values)

    return edit


def replace_attribute(name, value):
    def edit(file):
        del file.attrs[name]
        text = value if isinstance(value, str) else json.dumps(value)
        writing._write_attribute(file, name, text)

    return edit


class TestProperties:
    def test_features(self, cache):
        np.testing.assert_array_equal(np.asarray(cache.X), FEATURES)
        assert cache.X.dtype == np.float32

    def test_labels(self, cache):
        assert cache.y.tolist() == COLUMNS["label"]
        assert cache.y.dtype == np.int64

    @pytest.mark.parametrize(
        ("name", "column"),
        [("paths", "path"), ("splits", "split"), ("groups", "group"), ("sources", "source")],
    )
    def test_texts(self, cache, name, column):
        assert getattr(cache, name).tolist() == COLUMNS[column]
        assert getattr(cache, name).dtype.kind == "U"

    def test_texts_of_ascii_alone_are_decoded_as_others(self, change):
        values = np.array([b"a", b"bc", b"", b"d", b"e", b"f"], h5py.string_dtype("utf-8", 2))
        with FeatureCache.open(change(replace_dataset("group", values))) as cache:
            assert cache.groups.tolist() == ["a", "bc", "", "d", "e", "f"]
            assert cache.groups.dtype.kind == "U"

    def test_texts_are_decoded_block_by_block(self, example, monkeypatch):
        monkeypatch.setattr("brainfeat.cache.cache_table._TEXT_ROWS", 2)
        with FeatureCache.open(example) as cache:
            assert cache.paths.tolist() == COLUMNS["path"]

    def test_identity(self, cache):
        assert [bytes(row) for row in cache.sha256] == digests(COLUMNS["path"])
        assert cache.view.tolist() == VIEWS

    def test_meaning(self, cache):
        assert cache.spec == SPEC
        assert cache.fingerprint == SPEC.fingerprint
        assert cache.class_names == ("glioma", "Größe")
        assert cache.augmentation == AUGMENTATION

    def test_history(self, cache):
        reason = Rejected(path="train/glioma/broken.png", reason="not an image")
        assert cache.rejected == (reason,)
        assert cache.provenance == ATTRIBUTES["provenance"]
        assert cache.created_at == ATTRIBUTES["created_at"]

    def test_no_augmentation(self, change):
        with FeatureCache.open(change(replace_attribute("augmentation", {}))) as cache:
            assert cache.augmentation is None

    def test_the_identity_is_the_digest_of_the_content(self, cache, example):
        with StoredFile(example, CACHE_SCHEMA) as file:
            assert cache.content_sha256 == file.digest()

    def test_length_and_repr(self, cache, example):
        assert len(cache) == N_ROWS
        assert repr(cache) == f"<FeatureCache {example}: {N_ROWS} rows of 4 features>"

    def test_table(self, cache):
        table = cache.table
        assert list(table) == [
            *("path", "view", "label", "split", "group", "source"),
            *("width", "height", "channels", "file_bytes"),
        ]
        assert table["label"].tolist() == ["glioma", "glioma", "Größe", "Größe", "glioma", ""]
        assert table["width"].tolist() == [100 + row for row in range(N_ROWS)]
        assert table["file_bytes"].tolist() == [(1 << 40) + row for row in range(N_ROWS)]
        assert table["group"].tolist() == COLUMNS["group"]


class TestMask:
    @pytest.mark.parametrize(
        ("options", "rows"),
        [
            ({}, [0, 2, 3, 4]),
            ({"views": True}, [0, 1, 2, 3, 4]),
            ({"split": "train"}, [0, 2]),
            ({"split": "train", "views": True}, [0, 1, 2]),
            ({"split": "val"}, [3]),
            ({"split": "test"}, [4]),
        ],
    )
    def test_rows(self, cache, options, rows):
        mask = cache.mask(**options)
        assert mask.dtype == bool
        assert np.flatnonzero(mask).tolist() == rows

    def test_it_selects_features(self, cache):
        np.testing.assert_array_equal(cache.X[cache.mask("train")], FEATURES[[0, 2]])

    @pytest.mark.parametrize("split", ["Test", "all", ""])
    def test_an_unknown_split_is_refused(self, cache, split):
        with pytest.raises(ParameterError, match=f"'{split}'; expected one of train, val, test"):
            cache.mask(split)

    def test_it_does_not_change_the_cache(self, cache):
        cache.mask("train")[:] = True
        assert np.flatnonzero(cache.mask("train")).tolist() == [0, 2]


class TestOpening:
    def test_a_path_is_opened(self, example):
        with FeatureCache(str(example)) as cache, FeatureCache.open(example) as same:
            assert len(cache) == N_ROWS
            assert cache.content_sha256 == same.content_sha256

    def test_a_damaged_file_is_refused_by_both_ways(self, example, tmp_path):
        damaged = tmp_path / "damaged.h5"
        damaged.write_bytes(example.read_bytes()[:-1])
        for make in (FeatureCache, FeatureCache.open):
            with pytest.raises(CacheCorruptError):
                make(damaged)
            with pytest.raises(ParameterError, match="verify"):
                make(damaged, verify="no")

    def test_features_stay_on_disk(self, tmp_path):
        """A cache of 16 MiB opens with a few kilobytes read."""
        features = np.zeros((1 << 10, 1 << 12), np.float32)
        spec = dataclasses.replace(SPEC, n_features=1 << 12)
        path = shard(tmp_path, features, spec=spec)
        columns = {name: ["train"] * len(features) for name in COLUMNS}
        index = index_of(path)
        keys = row_keys(as_bytes(digests(map(str, range(1 << 10)))), np.zeros(1 << 10))
        merged = merge(
            tmp_path / "features.h5",
            index,
            keys,
            {**columns, "label": np.zeros(len(features))},
            spec,
        )
        index.close()
        before = bytes_read()
        with FeatureCache.open(merged, verify="off") as cache:
            assert isinstance(cache.X, StoredArray)
            cache.table, cache.mask("train")
        assert bytes_read() - before < 1 << 20

    def test_a_closed_cache_says_so(self, example):
        with FeatureCache.open(example) as cache:
            pass
        with pytest.raises(CacheError, match="the file is closed"):
            cache.X[0]

    def test_opened_closes_what_it_opened_and_nothing_else(self, example):
        with opened(example) as found:
            pass
        with pytest.raises(CacheError, match="closed"):
            found.X[:]
        with FeatureCache.open(example) as cache:
            with opened(cache) as found:
                assert found is cache
            assert len(cache.X[:]) == len(cache)

    def test_what_was_read_stays_after_closing(self, example):
        cache = FeatureCache.open(example)
        labels = cache.y
        cache.close()
        assert cache.y is labels

    @pytest.mark.parametrize("verify", ["full", "off"])
    def test_damage(self, example, tmp_path, verify):
        data = bytearray(example.read_bytes())
        place = data.index(FEATURES.tobytes())
        data[place] ^= 1
        (tmp_path / "damaged.h5").write_bytes(data)
        with (
            pytest.raises(CacheCorruptError, match=r"damaged.h5: damaged .*extract again with"),
            FeatureCache.open(tmp_path / "damaged.h5", verify=verify) as cache,
        ):
            cache.X[:]

    def test_a_shard_is_no_cache(self, tmp_path):
        with pytest.raises(CacheFormatError, match="not a brainfeat-features file"):
            FeatureCache.open(shard(tmp_path))

    @pytest.mark.parametrize("name", FORMAT_1.datasets)
    def test_a_missing_dataset_is_named(self, change, name):
        path = change(lambda file: file.__delitem__(name))
        with pytest.raises(CacheFormatError, match=f"datasets are missing: {name}"):
            FeatureCache.open(path)

    @pytest.mark.parametrize("name", sorted(FORMAT_1.attributes))
    def test_a_missing_attribute_is_named(self, change, name):
        path = change(lambda file: file.attrs.__delitem__(name))
        with pytest.raises(CacheFormatError, match=f"missing or unknown: '{name}'"):
            FeatureCache.open(path)

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            (replace_attribute("spec", "{"), "not valid JSON"),
            (replace_attribute("spec", "[" * 100_000), "not valid JSON"),
            (replace_attribute("spec", {"backbone": "vgg16"}), "missing or unknown fields"),
            (replace_attribute("fingerprint", "0" * 64), "does not belong to the spec"),
            (replace_attribute("class_names", {"a": 1}), "class_names must be a JSON list"),
            (replace_attribute("class_names", ["a", 1]), "must be a JSON list of texts"),
            (replace_attribute("class_names", ["a"]), "a label is not an index into class_names"),
            (replace_attribute("class_names", '["a", NaN]'), "must not hold NaN"),
            (replace_attribute("rejected", ["a"]), "rejected must be"),
            (replace_attribute("rejected", [{"path": "a"}]), "rejected must be"),
            (replace_attribute("rejected", [{"path": "a", "reason": 1}]), "rejected must be"),
            (replace_attribute("augmentation", []), "augmentation must be a JSON dict"),
            (replace_attribute("provenance", '{"a": 1, "a": 2}'), "repeats a key"),
            (replace_dataset("label", np.full(N_ROWS, -2, "<i2")), "a label is not an index"),
            (replace_dataset("label", np.full(N_ROWS, 2, "<i2")), "a label is not an index"),
            (replace_dataset("label", np.zeros(N_ROWS - 1, "<i2")), "different numbers of rows"),
            (
                replace_dataset("features", FEATURES[:, :3]),
                "not have the length that",
            ),
            (replace_dataset("sha256", np.zeros((N_ROWS, 33), "u1")), "must have 32 columns"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, change, edit, reason):
        path = change(edit)
        with pytest.raises(CacheFormatError, match=reason) as caught:
            FeatureCache.open(path)
        assert str(caught.value).count(str(path)) == 1

    @pytest.mark.parametrize("name", ["path", "split", "group", "source"])
    def test_a_text_that_is_no_utf8(self, change, name):
        path = change(
            replace_dataset(name, np.array([b"\xff"] * N_ROWS, h5py.string_dtype("utf-8", 1)))
        )
        with (
            FeatureCache.open(path) as cache,
            pytest.raises(CacheFormatError, match=rf"changed.h5: {name} is not UTF-8"),
        ):
            dict(cache.table)

    def test_a_refused_file_is_closed(self, change):
        path = change(replace_attribute("fingerprint", "0" * 64))
        with pytest.raises(CacheFormatError) as caught:
            FeatureCache.open(path)
        # HDF5 opens no file for writing that it has open for reading.
        h5py.File(path, "r+").close()
        del caught


class TestSignature:
    """Format 2 has signatures, and format 1 has none."""

    def test_rows_have_that_of_their_image(self, signed):
        with FeatureCache.open(signed) as cache:
            assert isinstance(cache.signature, StoredArray)
            assert (cache.signature.shape, cache.signature.dtype) == ((N_ROWS, 1936), np.int8)
            np.testing.assert_array_equal(cache.signature[:], draw_signatures(range(N_ROWS), VIEWS))
            assert not cache.signature[1].any()

    def test_everything_else_is_as_in_format_1(self, cache, signed):
        with FeatureCache.open(signed) as other:
            np.testing.assert_array_equal(other.X[:], cache.X[:])
            assert other.fingerprint == cache.fingerprint
            for name, values in cache.table.items():
                np.testing.assert_array_equal(other.table[name], values)

    def test_format_1_has_none(self, cache):
        assert cache.signature is None

    def test_how_it_is_stored(self, signed, example):
        with h5py.File(signed) as file, h5py.File(example) as other:
            assert file.attrs["format_version"] == 2
            assert file.attrs["signature_version"] == 1
            assert file["signature"].dtype.str == "|i1"
            assert file["signature"].chunks == (N_ROWS, 1936)
            assert file["signature"].fletcher32
            assert set(file) - set(other) == {"signature"}
            assert set(file.attrs) - set(other.attrs) == {"signature_version"}

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            (lambda file: file.__delitem__("signature"), "datasets are missing: signature"),
            (
                lambda file: file.attrs.__delitem__("signature_version"),
                "missing or unknown: 'signature_version'",
            ),
            (
                lambda file: file.attrs.__setitem__("signature_version", 2),
                "signatures of version 2, but this brainfeat reads version 1; .*overwrite=True",
            ),
            (lambda file: file.attrs.__setitem__("format_version", 1), "unknown dataset"),
            (
                lambda file: file.attrs.__setitem__("format_version", 4),
                "format version 4, but this brainfeat reads versions 1, 2 and 3",
            ),
            (
                replace_dataset("signature", np.zeros((N_ROWS, 1935), "i1")),
                "signature must have 1,936 columns",
            ),
            (
                replace_dataset("signature", np.zeros((N_ROWS - 1, 1936), "i1")),
                "different numbers of rows",
            ),
            (
                replace_dataset("signature", np.zeros((N_ROWS, 1936), "u1")),
                "'signature' is uint8 of 2 dimensions, expected .i1 of 2",
            ),
            (
                replace_dataset("signature", np.zeros((N_ROWS, 1936), "<f4")),
                "'signature' is float32",
            ),
            (replace_dataset("signature", np.zeros(N_ROWS, "i1")), "int8 of 1 dimensions"),
        ],
    )
    def test_what_contradicts_the_format_is_refused(self, change, signed, edit, reason):
        path = change(edit, signed)
        with pytest.raises(CacheFormatError, match=reason) as caught:
            FeatureCache.open(path)
        assert str(caught.value).count(str(path)) == 1

    @pytest.mark.parametrize("name", ["signature", "attributes/signature_version"])
    def test_a_file_of_format_1_cannot_hide_one(self, change, name):
        with pytest.raises(CacheFormatError, match="unknown"):
            FeatureCache.open(
                change(lambda file: file.create_dataset(name, data=np.zeros(6, "u1")))
            )


def bytes_read():
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        pytest.skip("this system does not count what a process reads")
    return int(text.split()[1])


class TestLayout:
    """What docs/reference/cache-format.md promises to readers that use h5py alone."""

    ROWS = 2500

    @pytest.fixture(scope="class")
    @staticmethod
    def file(tmp_path_factory):
        folder = tmp_path_factory.mktemp("layout")
        rows = TestLayout.ROWS
        features = np.arange(rows * 4, dtype="<f4").reshape(rows, 4)
        sha256 = digests(map(str, range(rows)))
        index = index_of(shard(folder, features, sha256))
        columns = {name: ["Größe"] * rows for name in COLUMNS}
        path = merge(
            folder / "features.h5",
            index,
            row_keys(as_bytes(sha256), np.zeros(rows)),
            {**columns, "label": [0] * rows},
        )
        index.close()
        with h5py.File(path) as file:
            yield file

    def test_the_datasets(self, file):
        rows = self.ROWS
        assert {name: (data.shape, data.dtype.str) for name, data in file.items()} == {
            "features": ((rows, 4), "<f4"),
            "sha256": ((rows, 32), "|u1"),
            "view": ((rows,), "<i2"),
            "label": ((rows,), "<i2"),
            "path": ((rows,), "|S7"),
            "split": ((rows,), "|S7"),
            "group": ((rows,), "|S7"),
            "source": ((rows,), "|S7"),
            "width": ((rows,), "<i4"),
            "height": ((rows,), "<i4"),
            "channels": ((rows,), "<i4"),
            "file_bytes": ((rows,), "<i8"),
        }

    def test_features_have_chunks_of_1024_rows_with_checksums_and_nothing_else_has(self, file):
        assert {name: data.chunks for name, data in file.items() if data.chunks} == {
            "features": (1024, 4)
        }
        assert file["features"].fletcher32
        assert file["features"].compression is None

    @pytest.mark.parametrize("name", ["path", "split", "group", "source"])
    def test_texts_are_utf8_of_a_fixed_length(self, file, name):
        assert h5py.check_string_dtype(file[name].dtype) == ("utf-8", 7)
        assert file[name].asstr()[0] == "Größe"

    def test_the_root_attributes(self, file):
        assert set(file.attrs) == {
            *("format", "format_version", "content_sha256", "spec", "fingerprint", "class_names"),
            *("rejected", "augmentation", "provenance", "created_at"),
        }
        assert file.attrs["format"].decode() == "brainfeat-features"
        assert file.attrs["format_version"] == 1
        assert file.attrs["spec"].decode() == SPEC.to_json()
        assert file.attrs["fingerprint"].decode() == SPEC.fingerprint
        assert json.loads(file.attrs["class_names"]) == ATTRIBUTES["class_names"]
        assert json.loads(file.attrs["rejected"]) == ATTRIBUTES["rejected"]
        assert json.loads(file.attrs["provenance"]) == ATTRIBUTES["provenance"]
        assert len(file.attrs["content_sha256"].decode()) == 64

    def test_the_values(self, file):
        assert file["features"][2499].tolist() == [9996, 9997, 9998, 9999]
        assert bytes(file["sha256"][7]) == hashlib.sha256(b"7").digest()


class TestPastVersions:
    """Files that were written by every version of the format are read for ever."""

    def test_every_one_opens(self):
        paths = sorted(DATA.glob("cache-format-*.h5"))
        versions = [int(path.stem.removeprefix("cache-format-")) for path in paths]
        assert versions == list(range(1, CACHE_SCHEMA.version + 1))
        for path in paths:
            FeatureCache.open(path).close()

    def test_format_1(self):
        with FeatureCache.open(DATA / "cache-format-1.h5") as cache:
            assert cache._file.digest() == cache.content_sha256
            assert cache.X[:].tolist() == (np.arange(48).reshape(6, 8) / 4).tolist()
            assert cache.y.tolist() == [0, 0, 1, 1, 0, -1]
            assert cache.view.tolist() == [0, 1, 0, 0, 0, 0]
            assert cache.paths[0] == "Training/glioma/Größe 1.png"
            assert bytes(cache.sha256[0]) == hashlib.sha256(cache.paths[0].encode()).digest()
            assert cache.splits.tolist() == ["train", "train", "train", "val", "test", ""]
            assert cache.groups.tolist()[1:4] == ["patient-1", "patient-2", "patient-3"]
            assert cache.sources.tolist()[1:4] == ["siteA", "siteB", ""]
            assert cache.table["width"].tolist() == [512, 513, 514, 515, 516, 517]
            assert cache.table["file_bytes"][5] == 10_005
            assert cache.class_names == ("glioma", "notumor")
            assert cache.augmentation == {"random_state": 0, "rotation": 10.0}
            assert [r.reason for r in cache.rejected] == ["not an image"]
            assert cache.created_at == "2026-01-02T03:04:05+00:00"
            assert cache.fingerprint == FORMAT_1_FINGERPRINT

    def test_format_2(self):
        with (
            FeatureCache.open(DATA / "cache-format-2.h5") as cache,
            FeatureCache.open(DATA / "cache-format-1.h5") as first,
        ):
            assert cache._file.digest() == cache.content_sha256
            assert cache.X[:].tobytes() == first.X[:].tobytes()
            assert cache.fingerprint == FORMAT_1_FINGERPRINT
            for name, values in first.table.items():
                np.testing.assert_array_equal(cache.table[name], values)
            signature = np.arange(6 * 1936).reshape(6, -1) % 255 - 127
            signature[1] = 0
            np.testing.assert_array_equal(cache.signature[:], signature)

    def test_format_3(self):
        with (
            FeatureCache.open(DATA / "cache-format-3.h5") as cache,
            FeatureCache.open(DATA / "cache-format-2.h5") as second,
        ):
            assert cache._file.digest() == cache.content_sha256
            assert cache.layers == ("block4_pool", "block5_pool")
            assert cache.X[:].tobytes() == second.X[:].tobytes()
            assert cache.fingerprint == FORMAT_1_FINGERPRINT
            assert cache.stored_spec.fingerprint == FORMAT_3_FINGERPRINT
            block4 = np.arange(18, dtype="f4").reshape(6, 3) / 8
            assert cache.features("block4_pool")[:].tolist() == block4.tolist()
            assert cache.maps[:].tolist() == spread_maps(cache.X[:]).tolist()
            assert cache.origin.tolist() == [0, 0, 1, 0, 0, 0]
            np.testing.assert_array_equal(cache.signature[:], second.signature[:])
            for name, values in second.table.items():
                np.testing.assert_array_equal(cache.table[name], values)

    def test_format_1_is_still_written(self, tmp_path):
        """A run without signatures writes what it always wrote."""
        with FeatureCache.open(DATA / "cache-format-1.h5") as kept:
            source = shard(
                tmp_path,
                kept.X[:],
                [row.tobytes() for row in kept.sha256],
                kept.view.tolist(),
                spec=kept.spec,
                augmentation=kept.augmentation,
            )
            with h5py.File(source, "r+", libver=("earliest", "v108")) as file:
                for name in ("width", "height", "channels", "file_bytes"):
                    file[name][:] = kept.column(name)
            writing.seal(source)
            index = index_of(source)
            path = merge(
                tmp_path / "features.h5",
                index,
                row_keys(kept.sha256, kept.view),
                {
                    "path": kept.paths.tolist(),
                    "label": kept.y,
                    "split": kept.splits.tolist(),
                    "group": kept.groups.tolist(),
                    "source": kept.sources.tolist(),
                },
                kept.spec,
                class_names=list(kept.class_names),
                rejected=[dataclasses.asdict(rejected) for rejected in kept.rejected],
                provenance=kept.provenance,
                created_at=kept.created_at,
            )
            index.close()
            with FeatureCache.open(path) as cache:
                assert cache.content_sha256 == kept.content_sha256


class TestRowKeys:
    def test_a_key_is_the_digest_and_the_view(self):
        (sha256,) = digests("a")
        (key,) = row_keys(as_bytes([sha256]), np.array([258]))
        assert key == sha256 + b"\x01\x02"

    def test_keys_are_34_bytes_whatever_they_end_with(self):
        keys = row_keys(as_bytes([bytes(32), b"\1" * 32]), np.array([0, 256]))
        assert keys.dtype == np.dtype("S34")
        assert keys.tobytes() == bytes(34) + b"\1" * 33 + b"\0"

    def test_no_rows(self):
        assert row_keys(np.empty((0, 32), np.uint8), np.empty(0, np.int16)).shape == (0,)


# Digests that end in NUL bytes, which NumPy's bytes do not keep.
NUL_DIGESTS = [bytes(32), b"\1" + bytes(31), b"\1" * 31 + b"\0", b"\1" * 32]


class TestRowIndex:
    @pytest.fixture
    def index(self, tmp_path):
        paths = [
            shard(tmp_path, FEATURES[:3], digests("abc")),
            shard(tmp_path, FEATURES[3:], digests("de") + digests("a"), [0, 0, 1]),
        ]
        index = index_of(*paths)
        yield index
        index.close()

    def test_it_contains_the_rows_of_all_sources(self, index):
        for digest in digests("abcde"):
            assert digest + b"\0\0" in index
        assert digests("a")[0] + b"\0\1" in index

    def test_it_contains_no_other(self, index):
        assert digests("f")[0] + b"\0\0" not in index
        assert digests("b")[0] + b"\0\1" not in index
        assert b"\0" * 34 not in index
        assert b"\xff" * 34 not in index

    def test_rows_are_gathered_in_the_order_of_the_keys(self, index):
        keys = row_keys(as_bytes(digests("dabaa")), np.array([0, 0, 0, 1, 0]))
        np.testing.assert_array_equal(gather(index, keys), FEATURES[[3, 0, 1, 5, 0]])
        assert gather(index, keys, "width").tolist() == [100, 100, 101, 102, 100]

    def test_no_keys_gather_no_rows(self, index):
        assert gather(index, np.empty(0, "S34")).shape == (0, 4)

    @pytest.mark.parametrize("name", ["f", "zz", "g"])
    def test_a_row_that_does_not_exist_is_not_replaced_by_another(self, index, name):
        with pytest.raises(KeyError):
            gather(index, row_keys(as_bytes(digests([name])), np.zeros(1)))

    def test_keys_that_end_in_nul_bytes(self, tmp_path):
        path = shard(tmp_path, FEATURES[:4], NUL_DIGESTS, [0, 0, 0, 256])
        index = index_of(path)
        keys = row_keys(as_bytes(NUL_DIGESTS), np.array([0, 0, 0, 256]))
        np.testing.assert_array_equal(gather(index, keys), FEATURES[:4])
        for digest, view in zip(NUL_DIGESTS, [b"\0\0", b"\0\0", b"\0\0", b"\1\0"], strict=True):
            assert digest + view in index
        assert NUL_DIGESTS[3] + b"\0\0" not in index
        assert NUL_DIGESTS[0] + b"\0\1" not in index
        index.close()

    def test_nothing_is_in_no_sources(self):
        assert b"\0" * 34 not in RowIndex([])

    def test_augmented_views_count_only_where_they_are_wanted(self, tmp_path):
        path = shard(tmp_path, FEATURES[:3], digests("aab"), [0, 1, 1])
        index = index_of(path, views=False)
        assert digests("a")[0] + b"\0\0" in index
        assert digests("a")[0] + b"\0\1" not in index
        assert digests("b")[0] + b"\0\1" not in index
        np.testing.assert_array_equal(
            gather(index, row_keys(as_bytes(digests("a")), np.zeros(1))), FEATURES[:1]
        )
        index.close()

    def test_the_first_source_of_a_row_wins(self, tmp_path):
        first = shard(tmp_path, FEATURES[:1], digests("a"))
        second = shard(tmp_path, FEATURES[1:2], digests("a"))
        for paths, row in (((first, second), 0), ((second, first), 1)):
            index = index_of(*paths)
            keys = row_keys(as_bytes(digests("a")), np.zeros(1))
            np.testing.assert_array_equal(gather(index, keys), FEATURES[[row]])
            index.close()

    def test_many_sources_are_read_with_few_open_at_a_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_OPEN_FILES", 3)
        names = "abcdefghijkl"
        paths = [
            shard(tmp_path, np.full((2, 4), number), digests([name, name]), [0, 1])
            for number, name in enumerate(names)
        ]
        index = index_of(*paths)
        order = np.random.default_rng(0).permutation(len(names))
        keys = row_keys(as_bytes(digests(names[row] for row in order)), np.ones(len(names)))
        np.testing.assert_array_equal(gather(index, keys)[:, 0], order)
        assert len(index._open) == 3
        index.close()
        assert not index._open

    def test_a_source_may_lack_a_dataset(self, tmp_path):
        """Its rows are zeros then, and are known."""
        signatures = draw_signatures([7, 8])
        index = index_of(
            shard(tmp_path, FEATURES[:2], digests("ab"), signature=signatures),
            shard(tmp_path, FEATURES[2:4], digests("bc")),
        )
        keys = row_keys(as_bytes(digests("cab")), np.zeros(3))
        places = index.locate(keys)
        assert index.lack("signature", places).tolist() == [True, False, False]
        np.testing.assert_array_equal(
            index.read(["signature"], places)["signature"],
            np.concatenate([np.zeros((1, 1936)), signatures]),
        )
        assert [index.has(key + b"\0\0", "signature") for key in digests("abcd")] == [
            *(True, True, False, False)
        ]
        assert index.has(digests("c")[0] + b"\0\0", "features")
        index.close()

    def test_a_cache_is_a_source_too(self, example):
        index = RowIndex([Source(path=example, schema=CACHE_SCHEMA, views=True)])
        keys = row_keys(as_bytes(digests(COLUMNS["path"])), np.array(VIEWS))
        np.testing.assert_array_equal(gather(index, keys[::-1]), FEATURES[::-1])
        index.close()


class TestShards:
    def test_a_shard_is_named_by_its_content(self, tmp_path):
        path = shard(tmp_path / "parts")
        with StoredFile(path, SHARD_SCHEMA) as file:
            assert path == tmp_path / "parts" / f"{file.digest()}.h5"

    def test_the_same_rows_are_the_same_shard(self, tmp_path):
        assert shard(tmp_path) == shard(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1

    def test_other_rows_are_another_shard(self, tmp_path):
        assert shard(tmp_path) != shard(tmp_path, FEATURES + 1)
        assert shard(tmp_path) != shard(tmp_path, view=[1] * N_ROWS)
        assert shard(tmp_path) != shard(tmp_path, augmentation=AUGMENTATION)
        assert shard(tmp_path) != shard(tmp_path, spec=dataclasses.replace(SPEC, scaling="unit"))

    def test_a_shard_with_signatures_is_of_format_2(self, tmp_path):
        signatures = draw_signatures(range(N_ROWS))
        paths = {shard(tmp_path): 1, shard(tmp_path, signature=signatures): 2}
        for path, version in paths.items():
            with StoredFile(path, SHARD_SCHEMA) as file:
                assert file.schema.version == file.attributes["format_version"] == version
        listed = {shard.path: shard.has_signatures for shard in list_shards(tmp_path)}
        assert listed == {path: version == 2 for path, version in paths.items()}

    def test_shards_are_listed_with_what_they_mean(self, tmp_path):
        other = dataclasses.replace(SPEC, scaling="unit")
        paths = {
            shard(tmp_path): (SPEC, None),
            shard(tmp_path, augmentation=AUGMENTATION, spec=other): (other, AUGMENTATION),
        }
        listed = {shard.path: (shard.spec, shard.augmentation) for shard in list_shards(tmp_path)}
        assert listed == paths

    def test_a_folder_that_is_not_there_has_no_shards(self, tmp_path):
        assert list_shards(tmp_path / "missing") == []

    def test_other_files_are_not_shards(self, tmp_path):
        others = ["notes.txt", "x.h5", f".{'0' * 16}.tmp", f"{'0' * 64}.damaged"]
        for name in others:
            (tmp_path / name).write_bytes(b"?")
        assert list_shards(tmp_path) == []
        assert {path.name for path in tmp_path.iterdir()} == set(others)

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "parts").touch()
        with pytest.raises(CacheError, match="parts: cannot be created"):
            shard(tmp_path / "parts")


class TestSetAside:
    """A shard that is not what its name says does not count, and is kept under another name."""

    @pytest.fixture
    def good(self, tmp_path):
        return shard(tmp_path)

    @staticmethod
    def counted(folder):
        return [shard.path for shard in list_shards(folder)]

    def test_a_damaged_one(self, tmp_path, good):
        other = shard(tmp_path, FEATURES + 1)
        data = bytearray(good.read_bytes())
        data[len(data) // 2] ^= 1
        good.write_bytes(data)
        assert self.counted(tmp_path) == [other]
        assert good.with_suffix(".damaged").read_bytes() == data
        assert not good.exists()

    def test_a_truncated_one(self, tmp_path, good):
        good.write_bytes(good.read_bytes()[:1000])
        assert self.counted(tmp_path) == []
        assert good.with_suffix(".damaged").exists()

    def test_an_empty_one(self, tmp_path, good):
        good.write_bytes(b"")
        assert self.counted(tmp_path) == []
        assert good.with_suffix(".damaged").exists()

    def test_a_renamed_one(self, tmp_path, good):
        renamed = good.rename(tmp_path / f"{'0' * 64}.h5")
        assert self.counted(tmp_path) == []
        assert renamed.with_suffix(".damaged").exists()

    def test_swapped_ones(self, tmp_path, good):
        other = shard(tmp_path, FEATURES + 1)
        good.rename(tmp_path / "between")
        other.rename(good)
        (tmp_path / "between").rename(other)
        assert self.counted(tmp_path) == []
        assert {path.suffix for path in tmp_path.iterdir()} == {".damaged"}

    def test_a_file_of_another_format(self, tmp_path, example):
        shutil.copy(example, tmp_path / f"{'0' * 64}.h5")
        assert self.counted(tmp_path) == []

    @pytest.mark.parametrize(
        "edit",
        [
            lambda file: file.__delitem__("signature"),
            lambda file: file.attrs.__setitem__("signature_version", 2),
            replace_dataset("signature", np.zeros((N_ROWS, 1000), "i1")),
            replace_dataset("signature", np.zeros((N_ROWS - 1, 1936), "i1")),
        ],
    )
    def test_one_whose_signatures_contradict_the_format(self, tmp_path, edit):
        path = shard(tmp_path, signature=draw_signatures(range(N_ROWS)))
        with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
            edit(file)
        writing.seal(path)
        assert self.counted(tmp_path) == []
        assert path.with_suffix(".damaged").exists()

    @pytest.mark.parametrize(
        "edit",
        [
            replace_dataset("features", FEATURES[:, :3]),
            replace_dataset("view", np.zeros(3, "<i2")),
            lambda file: file.__delitem__("width"),
            replace_attribute("spec", "{}"),
            replace_attribute("augmentation", "[]"),
        ],
    )
    def test_one_that_contradicts_itself(self, tmp_path, good, edit):
        with h5py.File(good, "r+", libver=("earliest", "v108")) as file:
            edit(file)
        writing.seal(good)
        assert self.counted(tmp_path) == []
        assert good.with_suffix(".damaged").exists()


class TestRemoveParts:
    def test_it_removes_what_brainfeat_wrote(self, tmp_path):
        parts = tmp_path / "features.h5.parts"
        path = shard(parts)
        shutil.copy(path, parts / f"{'0' * 64}.h5")
        list_shards(parts)
        (parts / f".{'0' * 16}.tmp").touch()
        remove_parts(parts)
        assert not parts.exists()

    def test_it_removes_nothing_of_strangers(self, tmp_path):
        shard(tmp_path)
        names = {"notes.txt", "notes.damaged", ".notes.tmp", "features.h5", "sub"}
        for name in names - {"sub"}:
            (tmp_path / name).touch()
        (tmp_path / "sub").mkdir()
        remove_parts(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == names

    def test_a_folder_that_is_not_there(self, tmp_path):
        remove_parts(tmp_path / "missing")
        assert not (tmp_path / "missing").exists()

    def test_the_folder_is_beside_its_output(self):
        assert parts_folder(Path("a/features.h5")) == Path("a/features.h5.parts")


class TestMerge:
    ROWS = 2200

    @pytest.fixture
    def shards(self, tmp_path):
        names = [str(row) for row in range(self.ROWS)]
        features = np.arange(self.ROWS * 4, dtype="<f4").reshape(-1, 4)
        paths = [
            shard(tmp_path / "shards", features[start::3], digests(names[start::3]))
            for start in range(3)
        ]
        return index_of(*paths), row_keys(as_bytes(digests(names)), np.zeros(self.ROWS)), features

    def test_rows_are_in_the_order_of_the_keys(self, tmp_path, shards):
        index, keys, features = shards
        order = np.random.default_rng(0).permutation(self.ROWS)
        columns = {name: [str(row) for row in order] for name in COLUMNS}
        path = merge(tmp_path / "features.h5", index, keys[order], {**columns, "label": order % 2})
        index.close()
        with FeatureCache.open(path) as cache:
            np.testing.assert_array_equal(cache.X[:], features[order])
            np.testing.assert_array_equal(row_keys(cache.sha256, cache.view), keys[order])
            np.testing.assert_array_equal(cache.paths.astype(int), order)
            np.testing.assert_array_equal(cache.y, order % 2)
            np.testing.assert_array_equal(cache.table["width"] - 100, order // 3)

    def test_signatures_are_in_the_order_of_the_keys(self, tmp_path):
        names = [str(row) for row in range(self.ROWS)]
        parts = [list(range(start, self.ROWS, 3)) for start in range(3)]
        paths = [
            shard(
                tmp_path / "shards",
                np.full((len(part), 4), part[0]),
                digests(names[row] for row in part),
                signature=draw_signatures(part),
            )
            for part in parts
        ]
        order = np.random.default_rng(0).permutation(self.ROWS)
        keys = row_keys(as_bytes(digests(names)), np.zeros(self.ROWS))[order]
        columns = {name: [""] * self.ROWS for name in COLUMNS} | {"label": [0] * self.ROWS}
        index = index_of(*paths)
        path = merge(tmp_path / "features.h5", index, keys, columns, signature=True)
        index.close()
        with FeatureCache.open(path) as cache:
            np.testing.assert_array_equal(cache.signature[:], draw_signatures(order))

    def test_an_image_without_a_signature_ends_it(self, tmp_path):
        paths = [
            shard(tmp_path, FEATURES[:1], digests("a"), signature=draw_signatures([1])),
            shard(tmp_path, FEATURES[:1], digests("b")),
        ]
        columns = {**{name: ["a", "b"] for name in COLUMNS}, "label": [0, 0]}
        for view, allowed in (([0, 0], False), ([0, 1], True)):
            index = index_of(*paths, shard(tmp_path, FEATURES[:1], digests("b"), [1]))
            keys = row_keys(as_bytes(digests("ab")), np.array(view))
            if allowed:
                merge(tmp_path / "features.h5", index, keys, columns, signature=True)
            else:
                with pytest.raises(KeyError, match="signature"):
                    merge(tmp_path / "features.h5", index, keys, columns, signature=True)
            index.close()
            assert (tmp_path / "features.h5").exists() == allowed

    def test_a_row_may_come_twice(self, tmp_path, shards):
        index, keys, features = shards
        columns = {**{name: ["a", "b", "c"] for name in COLUMNS}, "label": [0, 0, 1]}
        path = merge(tmp_path / "features.h5", index, keys[[5, 5, 1]], columns)
        index.close()
        with FeatureCache.open(path) as cache:
            np.testing.assert_array_equal(cache.X[:], features[[5, 5, 1]])

    def test_views_above_127_are_stored(self, tmp_path):
        view = [0, 1, 127, 128, 255, 32767]
        index = index_of(shard(tmp_path, sha256=digests("aaaaaa"), view=view))
        keys = row_keys(as_bytes(digests("aaaaaa")), np.array(view))
        path = merge(tmp_path / "features.h5", index, keys)
        index.close()
        with FeatureCache.open(path) as cache:
            assert cache.view.tolist() == view

    def test_a_cache_that_is_a_source_can_be_replaced(self, tmp_path):
        """So are labels changed: nothing is computed, and the features come from the old file."""
        path = write_example(tmp_path / "features.h5")
        index = RowIndex([Source(path=path, schema=CACHE_SCHEMA, views=True)])
        keys = row_keys(as_bytes(digests(COLUMNS["path"])), np.array(VIEWS))
        merge(path, index, keys, {**COLUMNS, "label": [1] * N_ROWS})
        index.close()
        with FeatureCache.open(path) as cache:
            np.testing.assert_array_equal(cache.X[:], FEATURES)
            assert cache.y.tolist() == [1] * N_ROWS

    def test_a_source_that_is_damaged_ends_it_and_the_cache_is_as_it_was(self, tmp_path):
        path = write_example(tmp_path / "features.h5")
        before = path.read_bytes()
        source = shard(tmp_path / "shards", sha256=digests(COLUMNS["path"]), view=VIEWS)
        data = source.read_bytes()
        index = index_of(source)
        place = data.index(FEATURES.tobytes())
        source.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        keys = row_keys(as_bytes(digests(COLUMNS["path"])), np.array(VIEWS))
        with pytest.raises(CacheCorruptError, match=source.name):
            merge(path, index, keys)
        index.close()
        assert path.read_bytes() == before
        assert not list(parts_folder(path).iterdir())

    def test_the_temporary_file_is_among_the_parts(self, tmp_path, monkeypatch):
        sealed = []
        seal = writing.seal
        monkeypatch.setattr(writing, "seal", lambda path: (sealed.append(path), seal(path)))
        write_example(tmp_path / "features.h5")
        assert {path.parent.name for path in sealed} == {"features.h5.parts"}


def test_a_merge_takes_few_bytes_a_row(tmp_path, monkeypatch):
    """Five million rows of 512 features stay below 1 GB: examples/benchmark_merge.py."""
    monkeypatch.setattr("brainfeat.cache.row_index._BLOCK_ROWS", 1000)
    monkeypatch.setattr("brainfeat.cache.stored_array._BLOCK_BYTES", 64 << 10)
    rows, width = 40_000, 4
    sha256 = [number.to_bytes(32, "big") for number in range(rows)]
    paths = [
        shard(tmp_path, np.zeros((8000, width)), sha256[start : start + 8000], [0] * 8000)
        for start in range(0, rows, 8000)
    ]
    keys = row_keys(as_bytes(sha256), np.zeros(rows))
    columns = {name: np.full(rows, b"x" * 40) for name in ("path", "split", "group", "source")}
    columns["label"] = np.zeros(rows, np.int16)
    tracemalloc.start()
    try:
        index = index_of(*paths)
        write_cache(
            tmp_path / "features.h5",
            index=index,
            keys=keys,
            spec=SPEC,
            columns=columns,
            attributes=ATTRIBUTES,
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        index.close()
    assert peak < 120 * rows
