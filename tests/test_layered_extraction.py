"""Stage one with several layers and maps: rows, shards, resumption, and what uses such caches."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from support.bands import N_FEATURES, ROWS, Blocks, describe, draw
from support.layered import LayeredBlocks

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.shards import list_shards, parts_folder
from brainfeat.errors import CacheError, SpecMismatchError
from brainfeat.extraction.extractor import extract
from brainfeat.phantoms import write_phantoms
from brainfeat.prediction.export import export_head
from brainfeat.prediction.predictor import Predictor
from brainfeat.training.fitting import fit_head

ROW_BYTES = 4 * (3 + N_FEATURES) + 2 * 2 * 3 * N_FEATURES


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for seed, row in enumerate(ROWS):
        draw(root / row.split(",")[0], seed)
    return root


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features.h5"


def run(table: Path, output: Path, *, fail_at: int | None = None, **options: Any) -> Any:
    return extract(table, output, backbone=LayeredBlocks(fail_at=fail_at), **options)


def contents(path: Path) -> list[Any]:
    with FeatureCache.open(path) as cache:
        arrays = [cache.features(layer)[:] for layer in cache.layers]
        arrays += [cache.maps[:], cache.sha256, cache.view]
        signature = None if cache.signature is None else cache.signature[:].tobytes()
        return [cache.stored_spec, signature, *(array.tobytes() for array in arrays)]


class TestCache:
    def test_it_has_each_layer_and_the_maps(self, images: Path, output: Path) -> None:
        table = describe(images)
        assert run(table, output, augment=1).rows > len(ROWS)
        plain = output.with_name("plain.h5")
        extract(table, plain, backbone=Blocks(), augment=1)
        with FeatureCache.open(output) as cache, FeatureCache.open(plain) as expected:
            X = expected.X[:]
            assert cache.X[:].tobytes() == X.tobytes()
            assert cache.spec == expected.spec
            np.testing.assert_array_equal(cache.features("inner"), X[:, :3] * 2)
            steps = np.array([[-1, 0, 1], [1, 0, -1]], np.float32)[None, :, :, None] / 8
            np.testing.assert_array_equal(cache.maps, (X[:, None, None] + steps).astype(np.float16))
            assert cache.signature is not None
        with h5py.File(output) as file:
            assert file.attrs["format_version"] == 3

    def test_again_nothing_is_done(self, images: Path, output: Path) -> None:
        table = describe(images)
        run(table, output)
        before = output.read_bytes()
        again = run(table, output, fail_at=0)
        assert (again.computed, again.reused) == (0, len(ROWS))
        assert output.read_bytes() == before

    def test_another_spec_is_refused(self, images: Path, output: Path) -> None:
        table = describe(images)
        run(table, output)
        with pytest.raises(SpecMismatchError, match=r"pooling: none and average; layers: inner:3,"):
            extract(table, output, backbone=Blocks())
        assert extract(table, output, backbone=Blocks(), overwrite=True).computed == len(ROWS)

    def test_rows_that_would_be_dropped_are_refused(self, images: Path, output: Path) -> None:
        run(describe(images), output)
        with pytest.raises(CacheError, match="would drop"):
            run(describe(images, ROWS[:-1]), output)


class TestShards:
    def test_they_are_cut_by_bytes(
        self, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = describe(images)
        monkeypatch.setattr("brainfeat.extraction.shard_writer._SHARD_BYTES", 2 * ROW_BYTES)
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=1, fail_at=5)
        shards = list_shards(parts_folder(output))
        assert len(shards) == 3  # of two, two and one rows
        result = run(table, output)
        assert (result.computed, result.reused) == (1, 5)
        whole = output.with_name("whole.h5")
        run(table, whole)
        assert contents(output) == contents(whole)

    def test_a_killed_run_keeps_them(self, images: Path, output: Path) -> None:
        table = describe(images)
        script = f"""
            import os, signal, sys
            sys.path[:0] = {sys.path!r}
            from brainfeat.extraction import shard_writer
            from brainfeat.extraction.extractor import extract
            from brainfeat.tables.table import read_table
            from support.layered import LayeredBlocks

            class Killed(LayeredBlocks):
                def __call__(self, images):
                    if len(self.batches) == 4:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return super().__call__(images)

            shard_writer._SHARD_BYTES = 1
            table = read_table({str(images / "table.csv")!r})
            extract(table, {str(output)!r}, backbone=Killed(), batch_size=1)
        """
        tests = str(Path(__file__).parent)
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        )
        assert ended.returncode == -signal.SIGKILL
        kept = len(list_shards(parts_folder(output)))
        assert kept > 0
        assert run(table, output).reused == kept
        whole = output.with_name("whole.h5")
        run(table, whole)
        assert contents(output) == contents(whole)

    def test_signatures_come_to_them_later(
        self, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = describe(images)
        run(table, output, signature=False)
        with h5py.File(output) as file:
            assert "signature" not in file
        monkeypatch.setattr("brainfeat.extraction.shard_writer._READ_BYTES", 2 * ROW_BYTES)
        result = run(table, output, fail_at=0)
        assert (result.computed, result.signatures) == (0, len(ROWS))
        whole = output.with_name("whole.h5")
        run(table, whole)
        assert contents(output) == contents(whole)

    def test_maps_of_scattered_rows_are_merged_in_the_order_of_the_table(
        self, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = "brainfeat.cache.row_index."
        for name, value in {"_PIECE_BYTES": 200, "_BUCKET_BYTES": 800}.items():
            monkeypatch.setattr(module + name, value)
        run(describe(images), output)
        order = [ROWS[place] for place in (3, 0, 5, 1, 4, 2)]
        assert run(describe(images, order), output, fail_at=0).computed == 0
        monkeypatch.undo()
        whole = output.with_name("whole.h5")
        run(describe(images, order), whole)
        assert contents(output) == contents(whole)


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Give slices, and a cache of two layers of a base of random weights with its maps."""
    folder = tmp_path_factory.mktemp("tapped")
    slices = write_phantoms(folder / "slices", patients_per_class=4, size=48)
    options = {"backbone": "mobilenet-0.75", "weights": "random", "input_size": 32}
    extracted = extract(
        slices,
        folder / "maps.h5",
        layers=["conv_pw_11_relu", "conv_pw_6_relu"],
        pooling="none",
        precision="float32",
        **options,
    )
    return SimpleNamespace(slices=slices, cache=extracted.output, options=options, folder=folder)


class TestUse:
    def test_a_layer_is_what_it_is_alone(self, tapped: SimpleNamespace) -> None:
        alone = extract(
            tapped.slices,
            tapped.folder / "alone.h5",
            layers=["conv_pw_6_relu"],
            precision="float32",
            **tapped.options,
        )
        with FeatureCache.open(tapped.cache) as cache, FeatureCache.open(alone.output) as other:
            assert cache.select("conv_pw_6_relu").spec == other.spec
            assert other.spec == other.stored_spec
            X = cache.features("conv_pw_6_relu")[:]
            np.testing.assert_allclose(X, other.X[:], rtol=1e-4, atol=1e-5 * X.max())

    @pytest.mark.parametrize("layer", ["conv_pw_6_relu", None])
    def test_a_head_on_a_layer_predicts(self, tapped: SimpleNamespace, layer: str | None) -> None:
        with FeatureCache.open(tapped.cache) as cache:
            chosen = cache.select(layer) if layer else cache
            bundle = fit_head(chosen, head="logistic")
            expected = bundle.predict_proba(chosen.X[:4])
            paths = [tapped.slices.parent / path for path in cache.paths[:4]]
        predictor = Predictor(bundle, weights="random")
        assert predictor.backbone.spec == bundle.spec
        found = [list(answer.probabilities.values()) for answer in predictor.predict(paths)]
        np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_a_head_on_the_largest_values_predicts_and_is_exported(
        self, tapped: SimpleNamespace, tmp_path: Path
    ) -> None:
        largest = extract(
            tapped.slices,
            tmp_path / "max.h5",
            layers=["conv_pw_6_relu"],
            pooling="max",
            precision="float32",
            **tapped.options,
        )
        bundle = fit_head(largest.output, head="logistic")
        assert (bundle.spec.pooling, bundle.spec.layer) == ("max", "conv_pw_6_relu")
        with FeatureCache.open(largest.output) as cache:
            expected = bundle.predict_proba(cache.X[:2])
            paths = [tapped.slices.parent / path for path in cache.paths[:2]]
        answers = Predictor(bundle, weights="random").predict(paths)
        found = [list(answer.probabilities.values()) for answer in answers]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        for suffix in (".onnx", ".xml"):  # each is compared with the bundle
            assert export_head(bundle, tmp_path / f"head{suffix}", weights="random")

    def test_info_audit_and_evaluate_take_it(
        self, tapped: SimpleNamespace, run: Callable[..., SimpleNamespace], tmp_path: Path
    ) -> None:
        shown = run("info", tapped.cache).out
        assert "layers:\n  conv_pw_6_relu:\n    n_features: 384\n" in shown
        assert "maps:\n  layer: conv_pw_11_relu\n  shape: [2, 2, 384]\n" in shown
        assert "bytes_per_image: 3072" in shown
        head = tmp_path / "head.h5"
        assert run("fit-head", tapped.cache, "-o", head, "--head", "lda").code == 0
        assert run("audit", tapped.cache).code == 0
        assert run("evaluate", head, tapped.cache).code == 0

    def test_the_command_takes_names(
        self, tapped: SimpleNamespace, run: Callable[..., SimpleNamespace], tmp_path: Path
    ) -> None:
        base = ("--backbone", "mobilenet-0.75", "--weights", "random", "--size", 32)
        output = tmp_path / "features.h5"
        layers = "conv_pw_11_relu, conv_pw_6_relu"
        assert run("extract", tapped.slices, "-o", output, *base, "--layer", layers).code == 0
        with FeatureCache.open(output) as cache:
            assert cache.layers == ("conv_pw_6_relu", "conv_pw_11_relu")
            assert cache.stored_spec.pooling == "average"
        refused = run("extract", tapped.slices, "-o", tmp_path / "b.h5", *base, "--layer", "a,,b")
        assert refused.code == 2
        assert "has an empty name" in refused.err
        unknown = run(
            "extract", tapped.slices, "-o", tmp_path / "b.h5", *base, "--layer", "conv_pw"
        )
        assert unknown.code == 1
        assert "mobilenet-0.75 has no layer 'conv_pw' with a map; expected" in unknown.err
