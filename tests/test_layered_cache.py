"""Caches of format 3: several layers, maps, and where images come from."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.layered import MAP_SHAPE, WIDTHS, draw_layers, write_layered

from brainfeat.cache import writing
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joining import join_caches
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import CacheError, CacheFormatError
from brainfeat.training.fitting import fit_head
from brainfeat.verification import find_problems

SPEC = FeatureSpec(backbone="vgg16", layer="block5_pool", n_features=8, weights_sha256="0" * 64)
STORED = replace(
    SPEC, layers="block3_pool:4,block4_pool:6,block5_pool:8", pooling="none", dtype="float32"
)
Change = Callable[[Callable[[h5py.File], object]], Path]


@pytest.fixture
def change(layered_cache: Path, tmp_path: Path) -> Change:
    """Give a function that changes a copy of the cache and seals it again."""

    def changed(edit: Callable[[h5py.File], object]) -> Path:
        path = tmp_path / "changed.h5"
        shutil.copy(layered_cache, path)
        with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
            edit(file)
        writing.seal(path)
        return path

    return changed


class TestSpec:
    def test_a_layer_has_the_spec_of_a_cache_of_it_alone(self) -> None:
        assert STORED.select() == SPEC
        alone = replace(SPEC, layer="block3_pool", n_features=4)
        assert STORED.select("block3_pool") == alone
        assert alone.select() == alone

    def test_maps_have_a_spec_of_their_own(self) -> None:
        maps = replace(SPEC, pooling="none", dtype="float16")
        assert STORED.select(maps=True) == maps
        assert maps.select(maps=True) == maps
        assert maps.select() == SPEC

    def test_another_pooling_stays(self) -> None:
        largest = replace(SPEC, pooling="max")
        assert replace(largest, layers=STORED.layers).select() == largest

    def test_what_there_is_not_is_refused(self) -> None:
        with pytest.raises(CacheError, match=r"'block2_pool'; expected one of block3_pool, bl.*4_"):
            STORED.select("block2_pool")
        with pytest.raises(CacheError, match="of layer block5_pool alone, and"):
            STORED.select("block3_pool", maps=True)
        with pytest.raises(CacheError, match=r"of no layer, .*extract again with pooling="):
            SPEC.select(maps=True)

    @pytest.mark.parametrize(
        "layers",
        [
            "block5_pool:8",
            "block5_pool:8,block5_pool:8",
            "block3_pool:4,block4_pool:6",
            "block3_pool:4,block5_pool:9",
            "block3_pool:,block5_pool:8",
            "../x:4,block5_pool:8",
            "block3_pool:0,block5_pool:8",
            "block3_pool:4,block5_pool:8,",
        ],
    )
    def test_a_list_of_layers_that_contradicts_itself_is_refused(self, layers: str) -> None:
        with pytest.raises(CacheFormatError, match="expected different names"):
            replace(SPEC, layers=layers).select()


class TestCache:
    def test_each_layer(self, layered_cache: Path) -> None:
        vectors = draw_layers()[0]
        with FeatureCache.open(layered_cache) as cache:
            assert cache.layers == tuple(WIDTHS)
            for layer, expected in vectors.items():
                assert cache.features(layer)[:].tobytes() == expected.tobytes()
            assert cache.X[:].tobytes() == vectors["block5_pool"].tobytes()
            assert cache.features()[:].tobytes() == cache.X[:].tobytes()
            assert (cache.spec, cache.stored_spec) == (SPEC, STORED)
            assert cache.fingerprint == SPEC.fingerprint

    def test_maps_are_read_when_they_are_indexed(self, layered_cache: Path) -> None:
        maps = draw_layers()[1]
        with FeatureCache.open(layered_cache) as cache:
            assert cache.maps.shape == (len(cache), *MAP_SHAPE, 8)
            assert cache.maps.dtype == np.float16
            rows = np.array([5, 2, 2])
            np.testing.assert_array_equal(cache.maps[rows], maps[rows])
            means = cache.maps[:].mean(axis=(1, 2), dtype=np.float32)
            np.testing.assert_array_equal(means, cache.X[:])

    def test_a_selected_layer_is_the_same_cache(self, layered_cache: Path) -> None:
        with FeatureCache.open(layered_cache) as cache:
            selected = cache.select("block3_pool")
            assert selected.spec == STORED.select("block3_pool")
            assert selected.X.shape == (len(cache), 4)
            np.testing.assert_array_equal(selected.features(), cache.features("block3_pool"))
            assert selected.stored_spec == STORED
            assert selected.groups.tolist() == cache.groups.tolist()
            assert cache.X.shape == (len(cache), 8)
            with pytest.raises(CacheError, match=r"layered\.h5: there are no features of layer 'x"):
                cache.select("x")

    def test_a_cache_of_one_layer_has_no_maps(self, make_cache: Callable[..., Path]) -> None:
        with FeatureCache.open(make_cache(np.ones((3, 2)), [0, 1, 0])) as cache:
            assert cache.layers == ("block5_pool",)
            assert cache.stored_spec == cache.spec
            with pytest.raises(CacheError, match="no maps; extract again with pooling="):
                _ = cache.maps

    def test_origin(self, make_cache: Callable[..., Path]) -> None:
        X, y = np.ones((3, 2)), [0, 1, 0]
        with FeatureCache.open(make_cache(X, y)) as cache:
            assert cache.origin.tolist() == [0, 0, 0]
            assert cache.origin.dtype == np.int16
        with FeatureCache.open(make_cache(X, y, name="b.h5", origin=[0, 1, 0])) as cache:
            assert cache.origin.tolist() == [0, 1, 0]
        with pytest.raises(CacheFormatError, match="origin must be 0"):
            make_cache(X, y, name="c.h5", origin=[0, 2, 0])

    def test_a_join_has_none_of_it(self, tmp_path: Path) -> None:
        paths = [write_layered(tmp_path, name=f"{name}.h5", seed=name) for name in (0, 2)]
        with join_caches(paths, on="group") as cache:
            assert cache.layers == ()
            assert cache.origin.tolist() == [0] * len(cache)
            with pytest.raises(CacheError, match="a join has pooled features alone"):
                _ = cache.maps
            with pytest.raises(CacheError, match="a join has no layer 'block3_pool'"):
                cache.select("block3_pool")

    def test_a_head_is_one_of_the_deepest_layer(
        self, layered_cache: Path, tmp_path: Path, make_cache: Callable[..., Path]
    ) -> None:
        with FeatureCache.open(layered_cache) as cache:
            plain = make_cache(
                cache.X[:], cache.y, splits=cache.splits.tolist(), groups=cache.groups.tolist()
            )
        heads = [fit_head(path, head="logistic") for path in (layered_cache, plain)]
        assert heads[0].spec == heads[1].spec == SPEC
        rows = np.zeros((2, 8), np.float32)
        np.testing.assert_array_equal(*(head.predict_proba(rows) for head in heads))


class TestFile:
    def test_how_it_is_stored(self, layered_cache: Path) -> None:
        with h5py.File(layered_cache) as file:
            n = len(file["features"])
            assert file.attrs["format_version"] == 3
            assert file["maps"].chunks == (1, *MAP_SHAPE, 8)
            assert file["maps"].fletcher32
            assert file["maps"].dtype.str == "<f2"
            assert {name: data.shape for name, data in file["layers"].items()} == {
                "block3_pool": (n, 4),
                "block4_pool": (n, 6),
            }
            assert file["layers/block3_pool"].dtype.str == "<f4"
            assert "origin" not in file
            assert "signature" not in file
        assert find_problems(layered_cache) == []

    def test_it_is_written_where_it_is_needed_alone(self, make_cache: Callable[..., Path]) -> None:
        def version(**options: object) -> int:
            path = make_cache(np.ones((3, 2)), [0, 1, 0], name="v.h5", **options)
            with h5py.File(path) as file:
                return int(file.attrs["format_version"])

        signature = np.ones((3, 1936), np.int8)
        assert version(pooling="max", layer="block4_pool") == 1
        assert version(signature=signature) == 2
        assert version(layers={"block4_pool": np.ones((3, 1), np.float32)}) == 3
        assert version(maps=np.ones((3, 1, 1, 2), np.float16)) == 3
        assert version(origin=[0, 0, 1], signature=signature) == 3

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            (lambda file: file.__delitem__("maps"), "^[^;]*: maps: datasets that the spec does no"),
            (lambda file: file.__delitem__("layers/block3_pool"), "layers/block3_pool: datasets"),
            (
                lambda file: file.move("layers/block3_pool", "layers/block2_pool"),
                "layers/block2_pool, layers/block3_pool: datasets",
            ),
            (
                lambda file: file.create_dataset("origin", data=np.full(120, 7, "<i2")),
                "origin must be 0",
            ),
            (
                lambda file: file.create_dataset("origin", data=np.zeros(7, "<i2")),
                "different numbers of rows",
            ),
            (lambda file: file.create_dataset("layers/a b", data=[1.0]), "unknown dataset"),
            (lambda file: file.attrs.__setitem__("format_version", 2), "unknown dataset"),
        ],
    )
    def test_what_contradicts_the_format_is_refused(
        self, change: Change, edit: Callable[[h5py.File], object], reason: str
    ) -> None:
        with pytest.raises(CacheFormatError, match=reason):
            FeatureCache.open(change(edit))

    @pytest.mark.parametrize(
        ("name", "shape", "reason"),
        [
            ("maps", (120, 3, 3, 7), "maps do not have the number of channels"),
            ("maps", (120, 0, 3, 8), "maps have no positions"),
            ("maps", (119, 3, 3, 8), "different numbers of rows"),
            ("layers/block4_pool", (120, 7), "layers/block4_pool do not have the length"),
        ],
    )
    def test_other_shapes_are_refused(
        self, change: Change, name: str, shape: tuple[int, ...], reason: str
    ) -> None:
        def edit(file: h5py.File) -> None:
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, data=np.zeros(shape, dtype))

        with pytest.raises(CacheFormatError, match=reason):
            FeatureCache.open(change(edit))

    def test_a_damaged_map_is_noticed(self, layered_cache: Path, tmp_path: Path) -> None:
        path = tmp_path / "damaged.h5"
        with h5py.File(layered_cache) as file:
            place = 512 + file["maps"].id.get_chunk_info(60).byte_offset
        data = bytearray(layered_cache.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        assert any("maps, rows" in problem for problem in find_problems(path))
