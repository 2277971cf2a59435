"""Stage one: which rows are computed, and what an interrupted run leaves."""

import dataclasses
import errno
import fcntl
import hashlib
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from support.bands import N_FEATURES, ROWS, SIZE, SPEC, Blocks, block_means, describe, draw

from brainfeat.cache import output as output_module
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.schema import Rejected
from brainfeat.cache.shards import list_shards, parts_folder
from brainfeat.cache.signature import compute_signature
from brainfeat.errors import (
    CacheCorruptError,
    CacheError,
    CacheFormatError,
    ImageReadError,
    ParameterError,
    SpecMismatchError,
    TableError,
)
from brainfeat.extraction.augmentation import Augmentation, augment_pixels
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.preprocessing import preprocess_image, resize_pixels, scale_pixels
from brainfeat.extraction.run import Run
from brainfeat.readers import raster, read_image, read_pixels


def expected_feature(path):
    image = preprocess_image(read_image(path), size=SIZE)
    return block_means(image[None])[0]


def contents(path):
    """Return the columns of a cache as bytes, and the attributes that describe its origin."""
    with FeatureCache.open(path) as cache:
        columns = {name: values.tobytes() for name, values in cache.table.items()}
        return {
            **columns,
            "X": cache.X[:].tobytes(),
            "signature": None if cache.signature is None else cache.signature[:].tobytes(),
            "sha256": cache.sha256.tobytes(),
            "y": cache.y.tobytes(),
            "class_names": cache.class_names,
            "rejected": cache.rejected,
            "augmentation": cache.augmentation,
            "spec": cache.spec,
        }


def state(path):
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for seed, row in enumerate(ROWS):
        draw(root / row.split(",")[0], seed)
    return root


@pytest.fixture
def table(images):
    return describe(images)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "features.h5"


@pytest.fixture
def finished(table, output):
    """Return a cache of the six images."""
    extract(table, output, backbone=Blocks())
    return output


def run(table, output, *, fail_at=None, error=RuntimeError, **options):
    """Extract with a fresh backbone and give the run's result and the backbone."""
    backbone = Blocks(fail_at=fail_at, error=error)
    return extract(table, output, backbone=backbone, **options), backbone


class TestCache:
    def test_rows_are_the_images_in_the_order_of_the_table(self, table, finished, images):
        with FeatureCache.open(finished) as cache:
            assert tuple(cache.paths) == table.paths
            expected = [expected_feature(images / path) for path in table.paths]
            np.testing.assert_array_equal(cache.X[:], expected)
            digests = [
                hashlib.sha256((images / path).read_bytes()).digest() for path in table.paths
            ]
            assert [row.tobytes() for row in cache.sha256] == digests

    def test_labels_splits_groups_and_sources_are_those_of_the_table(self, table, finished):
        with FeatureCache.open(finished) as cache:
            assert cache.class_names == ("glioma", "notumor", "pituitary")
            assert tuple(cache.table["label"]) == table.labels
            assert tuple(cache.splits) == table.splits
            assert tuple(cache.groups) == table.groups
            assert tuple(cache.sources) == table.sources
            assert cache.view.tolist() == [0] * 6

    def test_files_are_measured(self, images, output):
        draw(images / "c/3.png", 9, size=(17, 50), mode="L")
        run(describe(images), output)
        with FeatureCache.open(output) as cache:
            row = {name: cache.table[name][0] for name in ("width", "height", "channels")}
            assert row == {"width": 17, "height": 50, "channels": 1}
            assert cache.table["file_bytes"][0] == (images / "c/3.png").stat().st_size

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_path_is_read_as_a_table(self, images, finished, tmp_path, kind):
        extract(kind(images / "table.csv"), tmp_path / "again.h5", backbone=Blocks())
        assert contents(tmp_path / "again.h5") == contents(finished)

    def test_the_spec_is_the_backbones(self, finished):
        with FeatureCache.open(finished) as cache:
            assert cache.spec == SPEC

    def test_the_run_reports_its_result(self, table, output):
        result, _ = run(table, output)
        assert (result.rows, result.computed, result.reused, result.rejected) == (6, 6, 0, ())
        assert result.fingerprint == SPEC.fingerprint
        assert result.output == output
        assert result.signatures == result.to_dict()["signatures"] == 6
        assert result.images_per_second == pytest.approx(6 / result.seconds)
        assert result.to_dict()["output"] == str(output)

    def test_nothing_else_is_left(self, table, output):
        run(table, output)
        assert not parts_folder(output).exists()
        assert {path.name for path in output.parent.iterdir()} == {"images", output.name}

    def test_no_place_of_this_machine_is_in_the_file(self, images, table, output, tmp_path):
        (images / "a/1.png").write_bytes(b"no image")
        (images / "a/2.png").unlink()
        run(table, output)
        assert str(tmp_path).encode() not in output.read_bytes()

    def test_the_backbone_sees_one_shape(self, table, output):
        _, backbone = run(table, output, batch_size=4)
        assert [batch.shape for batch in backbone.batches] == [(4, SIZE, SIZE, 3)] * 2
        assert all(batch.dtype == np.float32 for batch in backbone.batches)

    @pytest.mark.parametrize(("augment", "size"), [(0, 6), (1, 12)])
    def test_a_batch_is_no_larger_than_the_table(self, table, output, augment, size):
        _, backbone = run(table, output, batch_size=10**9, augment=augment)
        assert [len(batch) for batch in backbone.batches] == [size]

    @pytest.mark.parametrize(
        "options",
        [
            {"batch_size": 1},
            {"batch_size": 4, "n_jobs": 1},
            {"batch_size": 5, "n_jobs": 4},
            {"batch_size": 100},
        ],
    )
    def test_batches_and_threads_do_not_change_a_bit(self, table, finished, tmp_path, options):
        other = tmp_path / "other.h5"
        run(table, other, **options)
        assert contents(other) == contents(finished)

    def test_a_backbone_may_give_the_same_buffer_each_time(self, table, finished, tmp_path):
        class Reusing(Blocks):
            buffer = np.empty((2, N_FEATURES), np.float32)

            def __call__(self, images):
                self.buffer[:] = super().__call__(images)
                return self.buffer

        other = tmp_path / "other.h5"
        extract(table, other, backbone=Reusing(), batch_size=2)
        assert contents(other) == contents(finished)

    def test_progress_counts_what_is_computed_and_reaches_the_total(self, table, output):
        calls = []

        class Watched(Blocks):
            def __call__(self, images):
                # Only what came back is done, and nothing has.
                assert all(done <= 2 * len(self.batches) for done, _, _ in calls)
                return super().__call__(images)

        extract(
            table,
            output,
            backbone=Watched(),
            batch_size=2,
            progress=lambda *told: calls.append(told),
        )
        done = [count for count, _, _ in calls]
        assert done == sorted(done)
        assert calls[-1] == (6, 6, "float32")

    def test_many_shards_are_merged(self, table, finished, tmp_path, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.shard_writer._SHARD_SECONDS", -1.0)
        other = tmp_path / "other.h5"
        run(table, other, batch_size=1)
        assert contents(other) == contents(finished)

    def test_a_reader_of_ones_own(self, table, output):
        def read_black(file, *, name):
            return np.zeros((4, 4, 3), np.float32)

        run(table, output, read=read_black)
        with FeatureCache.open(output) as cache:
            assert not cache.X[:].any()

    @pytest.mark.slow
    def test_a_name_is_completed_by_the_options(self, table, output):
        options = {"weights": "random", "input_size": 32, "scaling": "unit", "random_state": 3}
        extract(table, output, backbone="mobilenet-0.75", batch_size=2, **options)
        expected = load_backbone("mobilenet-0.75", precision="auto", **options)
        with FeatureCache.open(output) as cache:
            assert cache.spec == expected.spec
            assert cache.provenance["recipe"] == expected.recipe

    def test_a_base_is_compiled_for_the_number_of_images(self, table, output, monkeypatch):
        asked = []
        compile_copies = Backbone.compile

        def note(self, *, n_images):
            asked.append(n_images)
            return compile_copies(self, n_images=n_images)

        monkeypatch.setattr(Backbone, "compile", note)
        backbone = load_backbone("mobilenet-0.75", weights="random", input_size=32)
        extract(table, output, backbone=backbone, augment=1)
        assert asked == [12]

    @pytest.mark.parametrize("given", [False, True])
    def test_a_base_that_was_loaded_here_is_freed_before_the_merge(
        self, table, output, monkeypatch, given
    ):
        compiled = []

        def note(self, **options):
            compiled.append("_base" in vars(self._backbone))
            return merge(self, **options)

        merge = Run.merge
        monkeypatch.setattr(Run, "merge", note)
        options = {"weights": "random", "input_size": 32, "precision": "float32"}
        backbone = load_backbone("mobilenet-0.75", **options) if given else "mobilenet-0.75"
        extract(table, output, backbone=backbone, **options)
        assert compiled == [given]


class TestAutoPrecision:
    OPTIONS = {"backbone": "mobilenet-0.75", "weights": "random", "input_size": SIZE}

    @pytest.mark.slow
    def test_an_output_that_is_there_goes_on_in_its_precision(
        self, images, table, output, monkeypatch
    ):
        first = extract(table, output, precision="bfloat16", **self.OPTIONS)
        draw(images / "d/7.png", 7)
        more = describe(images, [*ROWS, "d/7.png,glioma,train,,"])
        monkeypatch.setattr("brainfeat.runtime.choose_precision", lambda device: "float32")
        again = extract(more, output, **self.OPTIONS)
        assert (again.precision, again.computed) == ("bfloat16", 1)
        assert again.fingerprint == first.fingerprint

    def test_an_unfinished_run_goes_on_in_its_precision(self, table, output, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.shard_writer.CHUNK_ROWS", 1)
        with pytest.raises(RuntimeError, match="enough"):
            extract(
                table, output, precision="bfloat16", batch_size=2, progress=stop, **self.OPTIONS
            )
        assert len(list_shards(parts_folder(output))) >= 1
        again = extract(table, output, **self.OPTIONS)
        assert again.precision == "bfloat16"
        assert again.reused >= 2

    def test_another_explicit_precision_is_refused(self, table, output):
        extract(table, output, precision="bfloat16", **self.OPTIONS)
        with pytest.raises(SpecMismatchError, match="precision"):
            extract(table, output, precision="float32", **self.OPTIONS)


def stop(done, total, precision):
    """Break a run once an image is done."""
    if done:
        raise RuntimeError("that is enough")


class TestResume:
    """A run that broke loses no more than the batch that it was in."""

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("augment", [0, 1])
    def test_only_what_is_missing_is_computed(self, table, tmp_path, output, error, augment):
        whole = tmp_path / "whole.h5"
        undisturbed, _ = run(table, whole, augment=augment)
        with pytest.raises(error, match="plug"):
            run(table, output, batch_size=2, fail_at=2, error=error, augment=augment)
        assert not output.exists()
        result, _ = run(table, output, batch_size=2, augment=augment)
        assert result.computed == undisturbed.computed - 4
        assert result.reused == 4
        assert contents(output) == contents(whole)
        assert not parts_folder(output).exists()

    def test_a_run_may_break_many_times(self, table, finished, tmp_path):
        output = tmp_path / "other.h5"
        for _ in range(5):
            with pytest.raises(RuntimeError):
                run(table, output, batch_size=1, fail_at=1)
        result, _ = run(table, output, batch_size=1, fail_at=1)
        assert result.computed == 1
        assert contents(output) == contents(finished)

    def test_a_killed_run_keeps_its_shards(self, table, images, finished, tmp_path):
        output = tmp_path / "killed.h5"
        script = f"""
            import os, signal, sys, time
            sys.path[:0] = {sys.path!r}
            from support.bands import Blocks, describe
            from brainfeat.extraction import shard_writer
            from brainfeat.extraction.extractor import extract
            from pathlib import Path

            class Killed(Blocks):
                def __call__(self, images):
                    if len(self.batches) == 2:
                        while len(list(Path({str(parts_folder(output))!r}).glob("*.h5"))) < 2:
                            time.sleep(0.01)
                        os.kill(os.getpid(), signal.SIGKILL)
                    return super().__call__(images)

            shard_writer._SHARD_SECONDS = -1.0
            extract(describe(Path({str(images)!r})), {str(output)!r},
                    backbone=Killed(), batch_size=2)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        assert not output.exists()
        result, _ = run(table, output)
        assert result.computed == 2
        assert contents(output) == contents(finished)

    def test_an_interrupted_update_leaves_the_cache_as_it_was(self, images, finished):
        before = state(finished)
        draw(images / "d/7.png", 7)
        more = describe(images, [*ROWS, "d/7.png,glioma,train,,"])
        with pytest.raises(KeyboardInterrupt):
            run(more, finished, fail_at=0, error=KeyboardInterrupt)
        assert state(finished) == before

    def test_a_damaged_shard_is_set_aside_and_computed_again(self, table, finished, tmp_path):
        output = tmp_path / "other.h5"
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=2)
        (shard,) = list_shards(parts_folder(output))
        data = bytearray(shard.path.read_bytes())
        data[-1] ^= 1
        shard.path.write_bytes(data)
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=0)
        assert shard.path.with_suffix(".damaged").read_bytes() == data
        result, _ = run(table, output)
        assert result.computed == 6
        assert contents(output) == contents(finished)

    def test_unfinished_rows_of_another_spec_are_refused(self, table, output):
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=1)
        other = Blocks(spec=dataclasses.replace(SPEC, scaling="unit"))
        names = {path.name for path in parts_folder(output).iterdir()}
        with pytest.raises(SpecMismatchError, match=r"(?s)features.h5.parts.*overwrite.*scaling"):
            extract(table, output, backbone=other)
        assert not other.batches
        assert {path.name for path in parts_folder(output).iterdir()} == names

    def test_unfinished_rows_of_another_spec_are_discarded_with_overwrite(self, table, output):
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=1)
        other = Blocks(spec=dataclasses.replace(SPEC, scaling="unit"))
        assert extract(table, output, backbone=other, overwrite=True).computed == 6
        assert contents(output)["spec"].scaling == "unit"
        assert not parts_folder(output).exists()


class TestUpdate:
    """Rows are looked up by the content of the files."""

    def test_where_nothing_changed_nothing_is_done(self, table, finished):
        before = state(finished)
        result, backbone = run(table, finished)
        assert state(finished) == before
        assert (result.rows, result.computed, result.reused) == (6, 0, 6)
        assert backbone.batches == []
        assert backbone.specs_asked == 0
        assert not parts_folder(finished).exists()

    def test_a_renamed_file_costs_nothing(self, images, finished):
        before = contents(finished)
        (images / "a/1.png").rename(images / "a/renamed.png")
        result, backbone = run(
            describe(images, [row.replace("a/1", "a/renamed") for row in ROWS]), finished
        )
        after = contents(finished)
        assert result.computed == 0
        assert backbone.specs_asked == 0
        assert {name for name in before if before[name] != after[name]} == {"path"}

    def test_a_changed_label_changes_only_the_metadata(self, images, finished):
        before = contents(finished)
        with FeatureCache.open(finished) as cache:
            provenance = cache.provenance
        rows = [row.replace("a/1.png,glioma", "a/1.png,pituitary") for row in ROWS]
        result, backbone = run(describe(images, rows), finished, batch_size=7)
        after = contents(finished)
        assert result.computed == 0
        assert backbone.specs_asked == 0
        assert {name for name in before if before[name] != after[name]} == {"label", "y"}
        with FeatureCache.open(finished) as cache:
            assert cache.provenance == provenance
            assert cache.table["label"][1] == "pituitary"

    @pytest.mark.parametrize(
        ("old", "new", "column"),
        [
            ("c/3.png,notumor,test", "c/3.png,notumor,val", "split"),
            ("p4", "p5", "group"),
            ("siteA", "siteC", "source"),
        ],
    )
    def test_changed_metadata_is_written(self, images, finished, old, new, column):
        before = contents(finished)
        assert run(describe(images, [row.replace(old, new) for row in ROWS]), finished)[0].rows == 6
        after = contents(finished)
        assert {name for name in before if before[name] != after[name]} == {column}

    def test_another_order_is_written(self, images, finished):
        with FeatureCache.open(finished) as cache:
            X = cache.X[:]
        result, _ = run(describe(images, ROWS[::-1]), finished)
        assert result.computed == 0
        with FeatureCache.open(finished) as cache:
            np.testing.assert_array_equal(cache.X[:], X[::-1])

    def test_a_new_image_costs_itself(self, images, finished, tmp_path):
        draw(images / "d/7.png", 7)
        more = describe(images, [ROWS[0], "d/7.png,glioma,train,p7,", *ROWS[1:]])
        result, backbone = run(more, finished, batch_size=2)
        assert (result.rows, result.computed, result.reused) == (7, 1, 6)
        assert len(backbone.batches) == 1
        whole = tmp_path / "whole.h5"
        run(more, whole)
        assert contents(finished) == contents(whole)

    def test_a_changed_image_is_refused_without_overwrite(self, images, table, finished):
        before = state(finished)
        draw(images / "a/1.png", 99)
        with pytest.raises(CacheError, match=r"1 rows .*a/1.png, view 0.*overwrite=True"):
            run(table, finished)
        assert state(finished) == before

    def test_a_changed_image_is_replaced_with_overwrite(self, images, table, finished, tmp_path):
        draw(images / "a/1.png", 99)
        result, _ = run(table, finished, overwrite=True)
        assert (result.computed, result.reused) == (1, 5)
        whole = tmp_path / "whole.h5"
        run(table, whole)
        assert contents(finished) == contents(whole)

    def test_a_removed_image_is_refused_without_overwrite(self, images, finished):
        before = state(finished)
        with pytest.raises(CacheError, match=r"1 rows .*c/3.png"):
            run(describe(images, ROWS[1:]), finished)
        assert state(finished) == before

    @pytest.mark.parametrize("removed", [0, 4])
    def test_rows_that_would_be_dropped_are_told_before_any_work(self, images, finished, removed):
        """New images are as many as the removed one and more, but none has its size."""
        before = state(finished)
        rows = [row for row in ROWS if row != ROWS[removed]]
        for number in (7, 8):
            draw(images / f"d/{number}.png", number, size=(30, 30))
            rows.append(f"d/{number}.png,glioma,train,,")
        name = ROWS[removed].split(",")[0]
        backbone = Blocks()
        with pytest.raises(CacheError, match=rf"at least 1 rows .*see {name}, view 0.*overwrite="):
            extract(describe(images, rows), finished, backbone=backbone)
        assert (backbone.batches, backbone.specs_asked) == ([], 0)
        assert state(finished) == before
        assert not parts_folder(finished).exists()

    def test_a_file_of_the_size_of_a_removed_one_may_be_that_file(self, images, finished):
        """Only its content tells, so it is read; what was computed until then is kept."""
        before = state(finished)
        draw(images / "d.png", 9)
        assert (images / "d.png").stat().st_size == (images / "c/3.png").stat().st_size
        rows, backbone = [*ROWS[1:], "d.png,glioma,train,,"], Blocks()
        with pytest.raises(CacheError, match=r"holds 1 rows .*first: c/3.png, view 0"):
            extract(describe(images, rows), finished, backbone=backbone)
        assert len(backbone.batches) == 1
        assert state(finished) == before

    def test_a_removed_image_is_dropped_with_overwrite(self, images, finished):
        result, backbone = run(describe(images, ROWS[1:]), finished, overwrite=True)
        assert (result.rows, result.computed) == (5, 0)
        assert backbone.specs_asked == 0
        with FeatureCache.open(finished) as cache:
            assert "c/3.png" not in cache.paths

    def test_an_image_that_became_unreadable_is_not_dropped(self, images, table, finished):
        before = state(finished)
        (images / "a/2.png").unlink()
        with pytest.raises(CacheError, match=r"a/2.png"):
            run(table, finished)
        assert state(finished) == before

    def test_exact_duplicates_are_computed_once(self, images, output):
        (images / "a/2.png").write_bytes((images / "a/1.png").read_bytes())
        result, _ = run(describe(images), output, batch_size=1)
        assert (result.rows, result.computed, result.reused) == (6, 5, 1)
        with FeatureCache.open(output) as cache:
            np.testing.assert_array_equal(cache.X[1], cache.X[2])
            assert cache.paths[1:3].tolist() == ["a/1.png", "a/2.png"]

    def test_another_spec_under_the_same_recipe_ends_the_run(self, images, finished):
        """The base that is loaded for a new image is not the one that the recipe promised."""
        before = state(finished)
        draw(images / "d/7.png", 7)
        more = describe(images, [*ROWS, "d/7.png,glioma,train,,"])
        other = Blocks(spec=dataclasses.replace(SPEC, weights_sha256="f" * 64))
        recipe = property(lambda self: {"blocks": SPEC.fingerprint})
        other.__class__ = type("Lying", (Blocks,), {"recipe": recipe})
        with pytest.raises(SpecMismatchError, match="weights_sha256"):
            extract(more, finished, backbone=other)
        assert state(finished) == before


class TestAugment:
    def test_only_training_images_have_views(self, images, table, output):
        result, _ = run(table, output, augment=2)
        assert result.rows == result.computed == 6 + 2 * 3
        with FeatureCache.open(output) as cache:
            assert list(zip(cache.paths, cache.view, strict=True)) == [
                ("c/3.png", 0),
                *(("a/1.png", view) for view in range(3)),
                *(("a/2.png", view) for view in range(3)),
                ("b/4.png", 0),
                ("b/5.png", 0),
                *(("b/6.png", view) for view in range(3)),
            ]
            assert cache.augmentation == Augmentation().to_dict()

    def test_without_splits_every_labelled_image_has_views(self, images, output):
        rows = ["c/3.png,notumor,,,", "b/5.png,,,,", "a/1.png,glioma,,,"]
        run(describe(images, rows), output, augment=1)
        with FeatureCache.open(output) as cache:
            assert list(zip(cache.paths, cache.view.tolist(), strict=True)) == [
                ("c/3.png", 0),
                ("c/3.png", 1),
                ("b/5.png", 0),
                ("a/1.png", 0),
                ("a/1.png", 1),
            ]

    def test_a_view_is_what_augment_pixels_makes(self, images, table, output):
        augmentation = Augmentation(rotation=40, random_state=5)
        run(table, output, augment=2, augmentation=augmentation)
        path = images / "a/1.png"
        view = augment_pixels(
            resize_pixels(read_pixels(path), size=SIZE),
            sha256=hashlib.sha256(path.read_bytes()).digest(),
            view=2,
            augmentation=augmentation,
        )
        with FeatureCache.open(output) as cache:
            np.testing.assert_array_equal(cache.X[3], block_means(scale_pixels(view)[None])[0])
            assert cache.augmentation == augmentation.to_dict()

    def test_views_depend_on_nothing_but_the_image(self, images, table, output, tmp_path):
        run(table, output, augment=2, batch_size=32)
        other = tmp_path / "other.h5"
        run(describe(images, ROWS[::-1]), other, augment=2, batch_size=5, n_jobs=3)

        def by_row(path):
            with FeatureCache.open(path) as cache:
                keys = zip(cache.paths.tolist(), cache.view.tolist(), strict=True)
                return {key: row.tobytes() for key, row in zip(keys, cache.X[:], strict=True)}

        assert by_row(other) == by_row(output)

    def test_more_views_cost_only_themselves(self, table, finished):
        assert run(table, finished, augment=1)[0].computed == 3
        assert run(table, finished, augment=2)[0].computed == 3

    def test_another_seed_computes_only_the_views_again(self, table, output, tmp_path):
        run(table, output, augment=2, random_state=0)
        before = contents(output)
        result, _ = run(table, output, augment=2, random_state=1)
        assert (result.rows, result.computed, result.reused) == (12, 6, 6)
        after = contents(output)
        assert {name for name in before if before[name] != after[name]} == {"X", "augmentation"}
        whole = tmp_path / "whole.h5"
        run(table, whole, augment=2, random_state=1)
        assert after == contents(whole)

    def test_the_seed_is_nothing_without_views(self, table, finished):
        before = state(finished)
        run(table, finished, random_state=1)
        assert state(finished) == before

    def test_fewer_views_are_refused_without_overwrite(self, table, output):
        run(table, output, augment=2)
        before = state(output)
        backbone = Blocks()
        with pytest.raises(CacheError, match=r"3 rows .*a/1.png, view 2"):
            extract(table, output, backbone=backbone, augment=1)
        assert backbone.batches == []
        assert state(output) == before
        assert run(table, output, augment=1, overwrite=True)[0].rows == 9


class TestSignature:
    """Each image has its signature; a cache without signatures gets them without the base."""

    @pytest.fixture
    def unsigned(self, table, tmp_path):
        path = tmp_path / "unsigned.h5"
        assert run(table, path, signature=False)[0].signatures == 0
        return path

    def test_rows_have_that_of_their_decoded_image(self, images, table, output):
        draw(images / "a/1.png", 1, size=(300, 200))
        draw(images / "b/4.png", 4, size=(50, 90), mode="L")
        run(table, output, augment=1)
        with FeatureCache.open(output) as cache:
            signatures = cache.signature[:]
            for row, (path, view) in enumerate(zip(cache.paths, cache.view, strict=True)):
                pixels = np.asarray(Image.open(images / path).convert("RGB"))
                expected = compute_signature(pixels)
                assert expected.any()
                np.testing.assert_array_equal(signatures[row], expected if view == 0 else 0)

    def test_without_them_the_file_is_of_format_1(self, finished, unsigned):
        before, after = contents(finished), contents(unsigned)
        assert {name for name in before if before[name] != after[name]} == {"signature"}
        with h5py.File(unsigned) as file, h5py.File(finished) as other:
            assert file.attrs["format_version"] == 1
            assert other.attrs["format_version"] == 2

    def test_a_cache_gets_them_without_the_base(self, table, finished, unsigned, caplog):
        result, backbone = run(table, unsigned)
        assert (result.rows, result.computed, result.reused, result.signatures) == (6, 0, 6, 6)
        assert backbone.batches == []
        assert backbone.specs_asked == 0
        assert contents(unsigned) == contents(finished)
        assert f"{unsigned} has no signatures; its images are decoded again" in caplog.text
        assert not parts_folder(unsigned).exists()

    def test_a_cache_that_has_them_does_nothing(self, table, finished, caplog):
        before = state(finished)
        assert run(table, finished)[0].signatures == 0
        assert state(finished) == before
        assert not caplog.text

    def test_a_cache_that_is_to_have_none_does_nothing(self, table, unsigned, caplog):
        before = state(unsigned)
        assert run(table, unsigned, signature=False)[0].signatures == 0
        assert state(unsigned) == before
        assert not caplog.text

    def test_they_are_not_dropped_without_overwrite(self, table, finished):
        before = state(finished)
        with pytest.raises(CacheError, match=r"features.h5 holds signatures .*overwrite=True"):
            run(table, finished, signature=False)
        assert state(finished) == before

    def test_they_are_dropped_with_overwrite_and_the_features_kept(self, table, finished, unsigned):
        assert run(table, finished, signature=False, overwrite=True)[0].computed == 0
        assert contents(finished) == contents(unsigned)

    def test_new_images_and_views_come_with_them(self, images, table, unsigned, tmp_path):
        draw(images / "d/7.png", 7)
        more = describe(images, [*ROWS, "d/7.png,glioma,train,,"])
        result, _ = run(more, unsigned, augment=2)
        assert (result.computed, result.reused, result.signatures) == (1 + 4 * 2, 6, 7)
        whole = tmp_path / "whole.h5"
        run(more, whole, augment=2)
        assert contents(unsigned) == contents(whole)

    def test_rows_of_an_unfinished_run_without_them_are_used(
        self, table, finished, tmp_path, caplog
    ):
        output = tmp_path / "other.h5"
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=2, signature=False)
        result, _ = run(table, output)
        assert (result.computed, result.reused, result.signatures) == (2, 4, 6)
        assert contents(output) == contents(finished)
        assert "other.h5.parts has no signatures" in caplog.text

    def test_rows_of_an_unfinished_run_with_them_serve_one_without(self, table, unsigned, tmp_path):
        output = tmp_path / "other.h5"
        with pytest.raises(RuntimeError):
            run(table, output, batch_size=2, fail_at=2)
        assert run(table, output, signature=False)[0].computed == 2
        assert contents(output) == contents(unsigned)

    def test_a_broken_run_keeps_what_it_computed(self, table, finished, unsigned, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.shard_writer._READ_ROWS", 2)
        before = state(unsigned)

        def read_four(file, *, name):
            if name == "b/5.png":
                raise RuntimeError("the plug was pulled")
            return read_image(file, name=name)

        with pytest.raises(RuntimeError, match="plug"):
            run(table, unsigned, read=read_four, n_jobs=1)
        assert state(unsigned) == before
        assert len(list_shards(parts_folder(unsigned))) == 2
        assert run(table, unsigned)[0].signatures == 2
        assert contents(unsigned) == contents(finished)

    def test_identical_files_are_decoded_for_one(self, images, table, output):
        (images / "a/2.png").write_bytes((images / "a/1.png").read_bytes())
        run(table, output, signature=False)
        assert run(table, output)[0].signatures == 5
        with FeatureCache.open(output) as cache:
            np.testing.assert_array_equal(cache.signature[1], cache.signature[2])
            assert cache.signature[1].any()

    def test_a_cache_that_another_run_replaces_meanwhile(
        self, images, unsigned, monkeypatch, tmp_path
    ):
        """Its rows lie elsewhere then, and must not be taken for those that were indexed."""
        monkeypatch.setattr("brainfeat.extraction.shard_writer._READ_ROWS", 1)
        monkeypatch.setattr(fcntl, "flock", fail_to_lock)
        reads = []

        def read(file, *, name):
            reads.append(name)
            if len(reads) == 3:
                run(describe(images, ROWS[::-1]), unsigned, signature=False)
            return read_image(file, name=name)

        result, _ = run(describe(images), unsigned, read=read, n_jobs=1)
        assert result.rows == 6
        whole = tmp_path / "whole.h5"
        run(describe(images), whole)
        assert contents(unsigned) == contents(whole)


def fail_to_lock(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")


def test_each_image_file_is_read_and_unpacked_once(table, output, monkeypatch):
    unpacked = []

    def unpack(data, *, name):
        unpacked.append(name)
        return raster.unpack_png(data, name=name)

    monkeypatch.setitem(raster._UNPACK, "PNG", unpack)
    extract(table, output, backbone=Blocks(), augment=1)
    assert sorted(unpacked) == sorted(table.paths)


def test_pictures_in_the_alpha_channel_are_told(images, output):
    grey = np.add.outer(np.arange(36), np.arange(40)).astype(np.uint8)
    Image.fromarray(np.dstack([grey * 0, grey])).save(images / "c/3.png")
    result, _ = run(describe(images), output)
    (warning,) = result.warnings
    assert warning.startswith("1 image had one colour and the picture in the alpha channel")
    again, _ = run(describe(images), output)  # nothing is read again
    assert again.warnings == ()


class TestLargeImages:
    def test_are_decoded_one_at_a_time(self, table, output, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.run._LARGE_PIXELS", 40 * 36 - 1)
        assert self.most_at_once(table, output) == 1

    def test_others_are_decoded_together(self, table, output, monkeypatch):
        monkeypatch.setattr("brainfeat.extraction.run._LARGE_PIXELS", 40 * 36)
        assert self.most_at_once(table, output) > 1

    def most_at_once(self, table, output):
        """Return the number of images that were seen at work at the same time."""
        at_work, seen = [], []
        together = threading.Event()

        def read(source, *, name):
            at_work.append(name)
            seen.append(len(at_work))
            if len(at_work) > 1:
                together.set()
            together.wait(0.2)
            at_work.remove(name)
            return read_image(source, name=name)

        run(table, output, read=read, n_jobs=3)
        return max(seen)


class TestUnreadable:
    @pytest.fixture
    def broken(self, images, table):
        """Return the table after one file was destroyed and another vanished."""
        (images / "a/1.png").write_bytes(b"no image")
        (images / "b/5.png").unlink()
        return table

    def test_images_that_cannot_be_read_are_listed_and_skipped(self, broken, output):
        result, _ = run(broken, output)
        assert result.rows == 4
        with FeatureCache.open(output) as cache:
            assert cache.rejected == result.rejected
            assert cache.paths.tolist() == ["c/3.png", "a/2.png", "b/4.png", "b/6.png"]
        assert [rejected.path for rejected in result.rejected] == ["a/1.png", "b/5.png"]
        assert all(rejected.reason for rejected in result.rejected)
        assert result.to_dict()["rejected"][0]["path"] == "a/1.png"

    def test_reasons_do_not_name_folders_of_this_machine(self, broken, output, tmp_path):
        result, _ = run(broken, output)
        assert str(tmp_path) not in "".join(rejected.reason for rejected in result.rejected)

    def test_a_second_run_over_them_does_nothing(self, broken, output):
        run(broken, output)
        before = state(output)
        result, backbone = run(broken, output)
        assert state(output) == before
        assert not backbone.batches
        assert [rejected.path for rejected in result.rejected] == ["a/1.png", "b/5.png"]

    def test_a_repaired_image_is_no_longer_listed(self, images, broken, output):
        run(broken, output)
        draw(images / "a/1.png", 1)
        result, _ = run(broken, output)
        assert (result.computed, len(result.rejected)) == (1, 1)
        with FeatureCache.open(output) as cache:
            assert [rejected.path for rejected in cache.rejected] == ["b/5.png"]

    def test_the_first_ends_the_run_with_on_error_raise(self, broken, output):
        with pytest.raises(ImageReadError) as caught:
            run(broken, output, on_error="raise", batch_size=1)
        assert caught.value.path == "a/1.png"
        assert not output.exists()

    def test_what_came_before_it_is_kept(self, images, broken, output):
        with pytest.raises(ImageReadError):
            run(broken, output, on_error="raise", batch_size=1)
        assert run(broken, output)[0].computed == 3

    def test_where_none_can_be_read_nothing_is_written(self, images, table, output):
        for path in table.paths:
            (images / path).write_bytes(b"no image")
        with pytest.raises(ImageReadError, match=r"none of the 6 images can be read.*c/3.png"):
            run(table, output)
        assert {path.name for path in output.parent.iterdir()} == {"images"}

    def test_a_view_0_that_a_reader_refuses(self, table, output):
        def read_some(file, *, name):
            if name == "a/2.png":
                raise ImageReadError(name, "of no use")
            return read_image(file, name=name)

        result, _ = run(table, output, read=read_some)
        assert result.rejected == (Rejected(path="a/2.png", reason="of no use"),)


class TestOutput:
    """An output that cannot be used is refused as it is; overwrite replaces what is a file."""

    @pytest.fixture
    def other(self, output):
        output.write_bytes(b"somebody's notes")
        return output

    @pytest.fixture
    def corrupt(self, finished):
        data = bytearray(finished.read_bytes())
        data[len(data) // 2] ^= 1
        finished.write_bytes(data)
        return finished

    @pytest.mark.parametrize(
        ("kind", "error"), [("other", CacheFormatError), ("corrupt", CacheCorruptError)]
    )
    def test_no_cache(self, request, table, kind, error):
        path = request.getfixturevalue(kind)
        before = state(path)
        backbone = Blocks()
        with pytest.raises(error, match=r"features\.h5"):
            extract(table, path, backbone=backbone)
        assert state(path) == before
        assert not backbone.batches

    def test_a_damaged_cache_is_replaced_with_overwrite(self, table, tmp_path, corrupt):
        assert run(table, corrupt, overwrite=True)[0].computed == 6
        whole = tmp_path / "whole.h5"
        run(table, whole)
        assert contents(corrupt) == contents(whole)

    def test_another_file_is_not_replaced_even_with_overwrite(self, table, other):
        before = state(other)
        with pytest.raises(CacheFormatError, match="not a file that brainfeat wrote"):
            run(table, other, overwrite=True)
        assert state(other) == before

    def test_another_spec(self, table, finished):
        before = state(finished)
        other = Blocks(spec=dataclasses.replace(SPEC, scaling="unit"))
        with pytest.raises(SpecMismatchError, match=r"overwrite=True.*scaling: weights and unit"):
            extract(table, finished, backbone=other)
        assert state(finished) == before
        assert not other.batches

    def test_another_spec_is_replaced_with_overwrite(self, table, finished):
        other = Blocks(spec=dataclasses.replace(SPEC, scaling="unit"))
        assert extract(table, finished, backbone=other, overwrite=True).computed == 6
        assert contents(finished)["spec"].scaling == "unit"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder(self, table, output, overwrite):
        output.mkdir()
        with pytest.raises(CacheError, match="not a regular file"):
            run(table, output, overwrite=overwrite)

    def test_a_folder_that_may_not_be_entered(self, table, tmp_path, monkeypatch):
        path = tmp_path / "closed" / "features.h5"
        path.parent.mkdir()
        stat = Path.stat

        def refuse(self, **options):
            if self == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return stat(self, **options)

        monkeypatch.setattr(Path, "stat", refuse)
        with pytest.raises(CacheError, match=r"cannot be reached \(Permission denied\)"):
            run(table, path)

    def test_the_name_of_the_parts_is_taken(self, table, output):
        parts_folder(output).write_text("somebody's notes")
        with pytest.raises(CacheError, match=r"features\.h5\.parts: cannot be created"):
            run(table, output)
        assert parts_folder(output).read_text() == "somebody's notes"

    def test_a_folder_that_is_not_there(self, table, tmp_path):
        with pytest.raises(CacheError, match=r"no folder .*missing"):
            run(table, tmp_path / "missing" / "features.h5")
        assert not (tmp_path / "missing").exists()


class TestBackbone:
    @pytest.mark.parametrize("shape", [(2, N_FEATURES + 1), (1, N_FEATURES), (2, 1, N_FEATURES)])
    def test_features_of_a_wrong_shape(self, table, output, shape):
        class Wrong(Blocks):
            def __call__(self, images):
                return np.zeros(shape, np.float32)

        with pytest.raises(CacheError, match=r"expected \(2, 8\)"):
            extract(table, output, backbone=Wrong(), batch_size=2)
        assert not output.exists()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_features_that_are_not_finite(self, table, output, value):
        class Wrong(Blocks):
            def __call__(self, images):
                features = super().__call__(images)
                features[1, 3] = value
                return features

        with pytest.raises(CacheError, match="not finite"):
            extract(table, output, backbone=Wrong(), batch_size=2)
        assert not output.exists()

    def test_padding_need_not_be_finite(self, table, finished, tmp_path):
        class Padding(Blocks):
            def __call__(self, images):
                features = super().__call__(images)
                if len(self.batches) == 2:
                    features[2:] = np.nan
                return features

        other = tmp_path / "other.h5"
        extract(table, other, backbone=Padding(), batch_size=4)
        assert contents(other) == contents(finished)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"augment": -1},
        {"augment": 32_768},
        {"n_jobs": 0},
        {"n_jobs": -1},
        {"on_error": "ignore"},
    ],
)
def test_options_out_of_range(table, output, options):
    (value,) = options.values()
    with pytest.raises(ParameterError, match=str(value)):
        run(table, output, **options)
    assert not output.exists()


def test_a_table_without_images(table, output):
    nothing = dict.fromkeys(("paths", "labels", "splits", "groups", "sources", "class_names"), ())
    with pytest.raises(TableError, match="no images"):
        run(dataclasses.replace(table, **nothing), output)
    assert not output.exists()


class TestTwoRunsAtOnce:
    """One output may get two runs by mistake: both end well, and no row is computed twice."""

    def test_the_second_waits_for_the_first(self, table, finished, tmp_path, caplog):
        output = tmp_path / "other.h5"

        class Slow(Blocks):
            def __call__(self, images):
                time.sleep(0.2)
                return super().__call__(images)

        with ThreadPoolExecutor(2) as threads:
            runs = [
                threads.submit(extract, table, output, backbone=Slow(), batch_size=2)
                for _ in range(2)
            ]
            results = [run.result() for run in runs]
        assert sorted(result.computed for result in results) == [0, 6]
        assert "another run holds" in caplog.text
        assert contents(output) == contents(finished)
        assert not parts_folder(output).exists()

    def test_the_lock_dies_with_its_process(self, table, images, finished, tmp_path):
        output = tmp_path / "other.h5"
        script = f"""
            import sys, time
            sys.path[:0] = {sys.path!r}
            from support.bands import Blocks, describe
            from brainfeat.extraction.extractor import extract
            from pathlib import Path

            class Endless(Blocks):
                def __call__(self, images):
                    print("at work", flush=True)
                    time.sleep(60)

            extract(describe(Path({str(images)!r})), {str(output)!r}, backbone=Endless())
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout.readline() == "at work\n"
            with ThreadPoolExecutor(1) as thread:
                second = thread.submit(extract, table, output, backbone=Blocks())
                with pytest.raises(TimeoutError):
                    second.result(timeout=0.3)
                first.kill()
                assert second.result(timeout=30).computed == 6
        assert contents(output) == contents(finished)


class TestTwoRunsWithoutLocks:
    """A file system may have no locks: work is done twice then, and no row is lost or twice."""

    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch):
        monkeypatch.setattr(fcntl, "flock", fail_to_lock)
        monkeypatch.setattr("brainfeat.extraction.shard_writer._SHARD_SECONDS", -1.0)

    def test_both_end_well(self, table, finished, tmp_path):
        barrier = threading.Barrier(2)

        class Meeting(Blocks):
            def __call__(self, images):
                if len(self.batches) < 3:
                    barrier.wait(timeout=20)
                return super().__call__(images)

        output = tmp_path / "other.h5"
        with ThreadPoolExecutor(2) as threads:
            runs = [
                threads.submit(extract, table, output, backbone=Meeting(), batch_size=2)
                for _ in range(2)
            ]
            assert [run.result().rows for run in runs] == [6, 6]
        assert contents(output) == contents(finished)
        assert not parts_folder(output).exists()

    def test_one_whose_shards_another_has_merged_goes_on(self, table, finished, tmp_path):
        """The other run finishes between this one's last batch and its merge."""
        output = tmp_path / "other.h5"

        class Overtaken(Blocks):
            def __call__(self, images):
                features = super().__call__(images)
                if len(self.batches) == 3:
                    assert extract(table, output, backbone=Blocks()).rows == 6
                return features

        result = extract(table, output, backbone=Overtaken(), batch_size=2)
        assert (result.rows, result.computed, result.reused) == (6, 6, 0)
        assert contents(output) == contents(finished)

    def test_one_keeps_the_shards_of_another_with_more_images(self, images, finished, tmp_path):
        output = tmp_path / "other.h5"
        fewer, all_rows = describe(images, ROWS[:4]), describe(images)

        class Overtaking(Blocks):
            """Its run starts before the other, and ends after it."""

            def __call__(self, images):
                if len(self.batches) == 2:
                    assert extract(fewer, output, backbone=Blocks()).rows == 4
                return super().__call__(images)

        backbone = Overtaking()
        assert extract(all_rows, output, backbone=backbone, batch_size=2).rows == 6
        assert sum(map(len, backbone.batches)) == 6
        assert contents(output) == contents(finished)

    def test_one_with_fewer_images_drops_none_of_another(self, images, finished, tmp_path):
        output = tmp_path / "other.h5"
        fewer, all_rows = describe(images, ROWS[:4]), describe(images)

        class Overtaken(Blocks):
            def __call__(self, images):
                extract(all_rows, output, backbone=Blocks())
                return super().__call__(images)

        with pytest.raises(CacheError, match=r"holds at least 2 rows that this run would drop"):
            extract(fewer, output, backbone=Overtaken())
        assert contents(output) == contents(finished)

    def test_what_another_run_wrote_of_another_spec_is_not_replaced(self, table, output):
        theirs = Blocks(spec=dataclasses.replace(SPEC, scaling="unit"))

        class Overtaken(Blocks):
            def __call__(self, images):
                extract(table, output, backbone=theirs)
                return super().__call__(images)

        with pytest.raises(SpecMismatchError, match=r"overwrite=True replaces it.*scaling"):
            extract(table, output, backbone=Overtaken())
        assert contents(output)["spec"] == theirs.spec

    def test_a_run_that_is_overtaken_for_ever_gives_up(self, table, output):
        looks = itertools.count()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(output_module, "identify", lambda _: next(looks))
            with pytest.raises(CacheError, match="written by other runs 5 times"):
                extract(table, output, backbone=Blocks())
        assert extract(table, output, backbone=Blocks()).computed == 0
