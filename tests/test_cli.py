"""Tests of the command line: what it prints, what it refuses, and with which exit code."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.caches import draw_signatures

from brainfeat import FeatureCache, read_table
from brainfeat.cache.signature import orient_signatures
from brainfeat.cli import main, options
from brainfeat.cli.main import SECTIONS
from brainfeat.phantoms import write_phantoms
from brainfeat.tables.csv_rows import read_rows

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = ["--backbone", "mobilenet-0.75", "--weights", "random", "--size", "32"]
INVENTORY = re.compile(
    r"^(skipped|warning:|class  )|  [\d,]+$|without a class$"
)  # what extract says first
Run = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "slices"
    write_phantoms(folder, patients_per_class=5, slices_per_patient=4, size=48)
    return folder


@pytest.fixture(scope="module")
def features(slices: Path) -> Path:
    path = slices.parent / "features.h5"
    try:
        main(["extract", str(slices / "table.csv"), "-o", str(path), *SMALL])
    except SystemExit as stop:
        pytest.fail(f"extract ended with {stop.code}")
    return path


@pytest.fixture(scope="module")
def svm(features: Path) -> Path:
    path = features.with_name("svm.h5")
    main(["fit-head", str(features), "-o", str(path), "--head", "svm"])
    return path


def refused(result: SimpleNamespace, *words: str, code: int = 1) -> None:
    """Check that a run ended with one line that names the thing and the remedy."""
    assert result.code == code, result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not INVENTORY.search(line)]
    if code == 1:
        assert len(lines) == 1, result.err
    for word in words:
        assert word in result.err


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "dash"), [("latin-1", b"\\u2013"), ("ascii", "–".encode())])
def test_a_terminal_that_lacks_characters_shows_all_lines(
    features: Path, svm: Path, encoding: str, dash: bytes
) -> None:
    # Where the encoding is ASCII, which is taken for a missing locale, click writes UTF-8.
    done = subprocess.run(
        [sys.executable, "-m", "brainfeat", "evaluate", str(svm), str(features)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dash in done.stdout
    assert done.stdout.count(b"\n") > 20


class TestExtract:
    def test_json_has_the_keys_of_the_interface(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "features.h5"
        document = json.loads(run("extract", slices, "-o", output, *SMALL, "--json").out)
        assert document["rows"] == document["computed"] == 80
        assert document["reused"] == 0
        assert document["rejected"] == []
        assert document["output"] == str(output)
        assert document["images_per_second"] > 0
        with FeatureCache.open(output) as cache:
            assert cache.fingerprint == document["fingerprint"]
            assert cache.spec.input_size == 32

    def test_a_second_run_reuses_all(self, run: Run, slices: Path, features: Path) -> None:
        again = run("extract", slices / "table.csv", "-o", features, *SMALL, "--json")
        document = json.loads(again.out)
        assert (document["computed"], document["reused"]) == (0, 80)

    def test_signatures_are_added_to_a_cache_without_them_and_that_is_said(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "features.h5"
        assert run("extract", slices, "-o", output, *SMALL, "--no-signature").code == 0
        command = [sys.executable, "-m", "brainfeat", "extract", slices, "-o", output, *SMALL]
        again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
        document = json.loads(again.stdout)
        assert (document["computed"], document["signatures"]) == (0, 80)
        assert f"{output} has no signatures; its images are decoded again" in again.stderr
        with FeatureCache.open(output) as cache:
            assert cache.signature is not None
        refused(
            run("extract", slices, "-o", output, *SMALL, "--no-signature"),
            *("signatures", "--overwrite", "--no-signature"),
        )

    def test_other_labels_of_the_same_images_cost_nothing(
        self, run: Run, slices: Path, features: Path, tmp_path: Path
    ) -> None:
        output, relabelled = shutil.copy(features, tmp_path / "f.h5"), slices / "relabelled.csv"
        text = (slices / "table.csv").read_text(encoding="utf-8")
        relabelled.write_text(text.replace(",glioma,", ",high grade,", 3), encoding="utf-8")
        try:
            document = json.loads(run("extract", relabelled, "-o", output, *SMALL, "--json").out)
        finally:
            relabelled.unlink()
        with FeatureCache(features) as before, FeatureCache(output) as after:
            assert (document["computed"], document["reused"]) == (0, len(before))
            assert list(after.table["label"]).count("high grade") == 3
            np.testing.assert_array_equal(after.X[:], before.X[:])

    def test_a_rejected_image_is_listed_with_its_reason(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "some"
        shutil.copytree(slices / "Testing", folder)
        (folder / "glioma" / "broken.png").write_bytes(b"")
        (folder / "glioma" / "notes.txt").write_text("no image")
        result = run("extract", folder, "-o", tmp_path / "f.h5", *SMALL)
        assert result.code == 0
        assert "rejected glioma/broken.png: empty file" in result.err
        assert "skipped 1 file: not an image" in result.err
        assert "1 image rejected" in result.out

    def test_what_was_found_is_said_before_the_work(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder, output = tmp_path / "some", tmp_path / "f.h5"
        shutil.copytree(slices / "Testing", folder)
        (folder / "pituitary").rename(folder / "Glioma_")
        (folder / "glioma" / "1.mha").touch()
        result = run("extract", folder, "-o", output, *SMALL)
        assert result.code == 0
        assert "skipped 1 file: not an image (1 .mha in 'glioma')\n" in result.err
        assert "warning: the classes 'Glioma_' and 'glioma' differ only in case" in result.err
        assert re.search(r"^class +images\nGlioma_ +4\nglioma +4\n", result.err, re.MULTILINE)
        document = json.loads(run("extract", folder, "-o", output, *SMALL, "--json").out)
        found = {"reason": "not an image", "folder": "glioma", "suffix": ".mha", "number": 1}
        assert document["left_out"] == [found]
        assert document["classes"]["glioma"] == {"train": 0, "val": 0, "test": 0, "without": 4}
        assert document["warnings"][0].startswith("the classes 'Glioma_' and 'glioma'")

    def test_masks_are_left_out_unless_they_are_to_be_kept(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "some"
        shutil.copytree(slices / "Testing", folder)
        first = min((folder / "glioma").iterdir())
        shutil.copy(first, first.with_stem(f"{first.stem}_mask"))
        for chosen, number in (((), 0), (("--keep-masks",), 1)):
            output = folder / f"{number}.csv"
            split = run("split", folder, "-o", output, "--group-by", "none", *chosen)
            assert ("mask beside images" in split.err) == (not number)
            assert len(read_rows(output)) == 16 + number
            document = json.loads(
                run(
                    "extract", folder, "-o", tmp_path / f"{number}.h5", *SMALL, *chosen, "--json"
                ).out
            )
            assert document["classes"]["glioma"]["without"] == 4 + number

    def test_patients_of_a_list_become_groups_with_classes(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder, output = tmp_path / "scans", tmp_path / "f.h5"
        for number in range(8):
            patient = folder / f"TCGA_CS_{4941 + number}_1996"
            shutil.copytree(slices / "Testing" / ("glioma", "notumor")[number % 2], patient)
            first = min(patient.iterdir())
            shutil.copy(first, first.with_stem(f"{first.stem}_mask"))
        rows = [f"TCGA_CS_{4941 + n},61,{n % 2}" for n in range(7)]
        (folder / "data.csv").write_text("\n".join(["Patient,age,death01", *rows]))
        alone = run("extract", folder, "-o", output, *SMALL)
        assert "named as patients" in alone.err
        assert "pass --group-level 1 and --labels FILE" in alone.err
        chosen = ["--group-level", 1, "--labels", folder / "data.csv"]
        refused(run("extract", folder, "-o", output, *SMALL, *chosen), "--label-columns KEY,LABEL")
        chosen += ["--label-columns", "Patient,death01"]
        result = run("extract", folder, "-o", output, *SMALL, *chosen)
        assert result.code == 0
        assert "warning: 1 patient of 8 without a row" in result.err
        assert re.search(
            r"^class +images\n0 +16\n1 +12\n4 images without", result.err, re.MULTILINE
        )
        assert "8 groups that no split should divide" in result.err
        document = json.loads(run("extract", folder, "-o", output, *SMALL, *chosen, "--json").out)
        assert (document["groups"], document["unlabelled"], document["computed"]) == (8, 4, 0)
        assert json.loads(run("info", output, "--json").out)["groups"] == 8
        split = run(
            "split", folder, "-o", tmp_path / "clean.csv", *chosen, "--val-fraction", 0, "--json"
        )
        assert json.loads(split.out) | {"output": "", "images": {}} == {
            "output": "",
            "images": {},
            "groups": 8,
            "group_by": "column",
            "left_out": None,
        }
        assert "without a row" in split.err
        sides = {(row.group, row.split) for row in read_rows(tmp_path / "clean.csv") if row.label}
        assert len(sides) == 7

    @pytest.mark.parametrize(
        ("words", "code", "found"),
        [
            (["--group-level", 0], 2, "0 is not in the range x>=1"),
            (["--group-level", 1], 1, "are its class folders; expected --group-level 2 or higher"),
            (["--labels", "missing.csv"], 1, "'missing.csv' does not exist"),
            (["--label-columns", "a"], 2, "'a' is not KEY,LABEL"),
            (["--label-columns", "a,b"], 1, "label_columns are given without labels; expected"),
        ],
    )
    def test_options_of_patients_that_cannot_be(
        self, run: Run, slices: Path, tmp_path: Path, words: list[Any], code: int, found: str
    ) -> None:
        result = run("extract", slices / "Testing", "-o", tmp_path / "f.h5", *SMALL, *words)
        assert result.code == code
        assert found in result.err

    def test_a_cache_has_its_patients_already(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        for words in (["--group-level", 1], ["--labels", "x.csv"], ["--label-columns", "a,b"]):
            result = run("split", features, "-o", tmp_path / "clean.csv", *words)
            refused(result, "cannot be used with the cache", "extract the folder with it")

    def test_a_class_that_cannot_be_read_ends_the_run(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "some"
        shutil.copytree(slices / "Testing", folder)
        for image in (folder / "glioma").iterdir():
            image.rename(image.with_suffix(".mha"))
        refused(run("extract", folder, "-o", tmp_path / "f.h5", *SMALL), "glioma", ".mha", "PNG")

    def test_on_error_raise_ends_at_the_first_bad_image(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "some"
        shutil.copytree(slices / "Testing", folder)
        (folder / "glioma" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        output = tmp_path / "f.h5"
        result = run("extract", folder, "-o", output, *SMALL, "--on-error", "raise")
        refused(result, "glioma/0.png")
        assert not output.exists()

    def test_only_bad_images_is_an_error(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.png").write_bytes(b"")
        refused(
            run("extract", tmp_path / "images", "-o", tmp_path / "f.h5", *SMALL),
            "the only image cannot be read",
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]

    def test_no_images(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        refused(run("extract", tmp_path / "empty", "-o", tmp_path / "f.h5", *SMALL), "empty")

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("file,label\na.png,x\n", "path"),
            ("path,label,split\nTesting/a.png,x,later\n", "later"),
            ("path,label\nmissing.png,x\n", "missing.png"),
            ("path,label\n{image},x\n{image},y\n", "x"),
        ],
    )
    def test_bad_csv(self, run: Run, slices: Path, tmp_path: Path, text: str, word: str) -> None:
        image = next((slices / "Testing" / "glioma").iterdir())
        shutil.copy(image, tmp_path / "image.png")
        table = tmp_path / "table.csv"
        table.write_text(text.format(image="image.png"))
        refused(run("extract", table, "-o", tmp_path / "f.h5", *SMALL), word)
        assert not (tmp_path / "f.h5").exists()

    def test_an_output_that_is_no_cache_is_left_alone(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "thesis.txt"
        output.write_text("years of work")
        refused(run("extract", slices, "-o", output, *SMALL), "thesis.txt")
        assert output.read_text() == "years of work"

    def test_a_cache_of_another_fingerprint_is_left_alone(
        self, run: Run, slices: Path, features: Path
    ) -> None:
        before = features.read_bytes()
        result = run("extract", slices, "-o", features, *SMALL[:-1], "33")
        refused(result, "input_size: 32 and 33", "--overwrite")
        assert features.read_bytes() == before

    @pytest.mark.parametrize("damage", ["flip", "truncate"])
    def test_a_damaged_cache_is_refused_by_every_command(
        self, run: Run, slices: Path, features: Path, svm: Path, tmp_path: Path, damage: str
    ) -> None:
        data = bytearray(features.read_bytes())
        data[len(data) // 2] ^= 1
        bad = tmp_path / "bad.h5"
        bad.write_bytes(data if damage == "flip" else data[:-100])
        refused(run("extract", slices, "-o", bad, *SMALL), "damaged", "--overwrite")
        refused(run("fit-head", bad, "-o", tmp_path / "h.h5", "--head", "lda"), "damaged")
        refused(run("evaluate", svm, bad), "damaged")
        refused(run("info", bad), "damaged")

    @pytest.mark.slow
    def test_weights_of_another_architecture(self, run: Run, slices: Path, tmp_path: Path) -> None:
        from brainfeat.extraction.backbones import load_backbone

        weights = tmp_path / "mobilenet.weights.h5"
        load_backbone("mobilenet", weights="random", input_size=32).base.save_weights(weights)
        arguments = ["--backbone", "mobilenet-0.75", "--weights", weights, "--size", "32"]
        result = run("extract", slices, "-o", tmp_path / "f.h5", *arguments)
        refused(result, "the weights of mobilenet, and no weights of mobilenet-0.75")
        assert sorted(path.name for path in tmp_path.iterdir()) == [weights.name]

    def test_missing_weights(self, run: Run, slices: Path, tmp_path: Path) -> None:
        result = run("extract", slices, "-o", tmp_path / "f.h5", "--weights", "no.h5")
        refused(result, "no weights file no.h5", "--weights")

    def test_unknown_backbone(self, run: Run, slices: Path, tmp_path: Path) -> None:
        result = run("extract", slices, "-o", tmp_path / "f.h5", "--backbone", "vgg17")
        refused(result, "vgg17", "vgg16")


class TestFitHead:
    def test_json_has_the_keys_of_the_interface(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "head.h5"
        result = run(
            "fit-head", features, "-o", output, "--head", "logistic", "--cv", "3", "--json"
        )
        document = json.loads(result.out)
        assert document["head"] == "logistic"
        assert document["classes"] == ["glioma", "meningioma", "notumor", "pituitary"]
        assert sum(document["split"].values()) == 80
        assert document["split"]["test"] == 16
        assert 0 <= document["val"]["accuracy"] <= 1
        assert document["test"]["confusion_matrix"]
        assert document["cv"]["n_folds"] == 3
        assert document["output"] == str(output)
        assert output.is_file()

    def test_the_dense_head_is_the_default(self, run: Run, features: Path, tmp_path: Path) -> None:
        result = run("fit-head", features, "-o", tmp_path / "head.h5", "--epochs", "2")
        assert result.out.startswith("dense head of 4 classes")

    def test_an_unknown_parameter_is_refused_by_name(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        result = run("fit-head", features, "-o", tmp_path / "h.h5", "--param", "depth=3")
        refused(result, "'depth'", "epochs")

    def test_a_parameter_without_a_value_is_a_usage_error(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        result = run("fit-head", features, "-o", tmp_path / "h.h5", "--param", "C")
        refused(result, "NAME=VALUE", code=2)

    def test_an_existing_output_is_left_alone(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "head.h5"
        output.write_text("mine")
        refused(run("fit-head", features, "-o", output, "--head", "lda"), "--overwrite")
        assert output.read_text() == "mine"

    def test_a_tree_head_is_saved(self, run: Run, features: Path, tmp_path: Path) -> None:
        path = tmp_path / "h.h5"
        assert run("fit-head", features, "-o", path, "--head", "random-forest").code == 0
        figures = json.loads(run("evaluate", path, features, "--json").out)
        assert figures["n"] == 16

    def test_one_class_only(
        self, run: Run, make_cache: Callable[..., Path], tmp_path: Path
    ) -> None:
        cache = make_cache(np.zeros((6, 4)), np.zeros(6), class_names=["glioma"])
        refused(run("fit-head", cache, "-o", tmp_path / "h.h5"), "glioma", "two or more")

    def test_a_class_in_test_that_is_not_in_train(
        self, run: Run, make_cache: Callable[..., Path], tmp_path: Path
    ) -> None:
        X, y = np.random.default_rng(0).normal(size=(30, 4)), np.repeat([0, 1, 2], 10)
        splits = ["test" if label == 2 else "train" for label in y]
        cache = make_cache(X, y, class_names=["a", "b", "c"], splits=splits)
        result = run("fit-head", cache, "-o", tmp_path / "h.h5")
        refused(result, "'c'", "in test but not in train")

    def test_fewer_images_than_folds(
        self, run: Run, make_cache: Callable[..., Path], tmp_path: Path
    ) -> None:
        X, y = np.random.default_rng(0).normal(size=(24, 4)), np.repeat([0, 1], 12)
        cache = make_cache(X, y, class_names=["a", "b"], splits=["train"] * 24)
        arguments = ["--head", "lda", "--cv", "20"]
        refused(run("fit-head", cache, "-o", tmp_path / "h.h5", *arguments), "20")

    def test_a_file_that_is_no_cache(self, run: Run, svm: Path, tmp_path: Path) -> None:
        refused(run("fit-head", svm, "-o", tmp_path / "h.h5"), "not a brainfeat-features file")


class TestEvaluate:
    def test_json_has_the_keys_of_the_interface(self, run: Run, svm: Path, features: Path) -> None:
        document = json.loads(run("evaluate", svm, features, "--json").out)
        keys = {"n", "accuracy", "balanced_accuracy", "per_class", "confusion_matrix"}
        assert keys | {"roc_auc", "log_loss", "brier", "mcc"} <= set(document)
        assert document["n"] == 16
        assert {"precision", "recall", "f1", "support"} <= set(document["per_class"]["glioma"])
        assert list(document["subsets"]) == [
            "all",
            "without_exact_duplicates",
            "without_copies",
            "without_near_duplicates",
        ]
        assert set(document["subsets"]["all"]) == {
            *("n", "n_groups", "accuracy", "balanced_accuracy", "f1_macro"),
            *("intervals", "reason"),
        }

    def test_it_agrees_with_what_fit_head_stored(self, run: Run, svm: Path, features: Path) -> None:
        from brainfeat import HeadBundle

        document = json.loads(run("evaluate", svm, features, "--json").out)
        stored = HeadBundle.load(svm).training.test.to_dict()
        assert document["accuracy"] == stored["accuracy"]
        assert document["log_loss"] == pytest.approx(stored["log_loss"])

    def test_text_and_markdown(self, run: Run, svm: Path, features: Path) -> None:
        assert "Confusion matrix, all images" in run("evaluate", svm, features).out
        assert "| glioma |" in run("evaluate", svm, features, "--markdown").out

    def test_a_split_that_is_not_there(self, run: Run, svm: Path, features: Path) -> None:
        refused(run("evaluate", svm, features, "--split", "val"), "'val'", "train")

    def test_features_of_another_fingerprint(
        self, run: Run, svm: Path, make_cache: Callable[..., Path]
    ) -> None:
        cache = make_cache(np.zeros((4, 768)), np.arange(4), splits=["test"] * 4)
        refused(run("evaluate", svm, cache), "backbone: mobilenet-0.75 and vgg16")

    def test_a_file_that_is_no_head(self, run: Run, features: Path) -> None:
        refused(run("evaluate", features, features), "not a brainfeat-head file")


class TestSplit:
    def test_of_a_cache_near_duplicates_are_kept_together(
        self, run: Run, make_cache: Any, tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(0)
        y = np.repeat(np.arange(80) % 4, 2)
        X = np.repeat(rng.standard_normal((80, 64)), 2, axis=0)
        cache = make_cache(X + 0.01 * rng.standard_normal(X.shape), y)
        output = tmp_path / "table.csv"
        document = json.loads(run("split", cache, "-o", output, "--json").out)
        assert document == {
            "output": str(output),
            "images": {"train": 112, "val": 24, "test": 24},
            "groups": 80,
            "group_by": "near-duplicates",
            "left_out": None,
        }
        rows = read_rows(output)
        assert [row.split for row in rows[::2]] == [row.split for row in rows[1::2]]
        assert [row.path for row in rows] == [f"image-{row:05}.png" for row in range(160)]
        again = run("split", cache, "-o", output)
        refused(again, "exists")
        run("split", cache, "-o", output, "--overwrite", "--random-state", "1")
        assert read_rows(output) != rows
        run("split", cache, "-o", output, "--overwrite", "--val-fraction", "0")
        assert {row.split for row in read_rows(output)} == {"train", "test"}

    def test_groups_of_the_table_keep_their_names(
        self, run: Run, make_cache: Any, tmp_path: Path
    ) -> None:
        """Images 0 and 4 are of two patients and copies of one another."""
        rng = np.random.default_rng(0)
        X, y, signature = rng.standard_normal((80, 64)), np.arange(80) % 4, draw_signatures(80)
        signature[4] = orient_signatures(signature[0], 1)
        # So is image 8 a copy of image 12, and only the latter has a patient.
        signature[8] = orient_signatures(signature[12], 2)
        groups = [f"patient-{row}" for row in range(80)]
        groups[8], groups[20] = "", "copies-00001"
        cache = make_cache(X, y, groups=groups, signature=signature)
        output = tmp_path / "table.csv"
        assert "(copies) is divided" in run("split", cache, "-o", output).out
        groups[0] = groups[4] = "copies-00002"
        groups[8] = "patient-12"
        assert [row.group for row in read_rows(output)] == groups

    def test_of_a_folder_identical_files_are_kept_together(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(slices, tmp_path / "slices")
        images = sorted(folder.rglob("*.png"))
        for image in images[::2]:
            shutil.copy(image, image.with_stem(f"{image.stem}-copy"))
        (folder / "table.csv").unlink()
        told = run("split", folder, "-o", folder / "table.csv")
        assert f"none of {len(images[::2])} groups (exact-duplicates) is divided" in told.out
        table = read_table(folder / "table.csv")
        split = dict(zip(table.paths, table.splits, strict=True))
        for path in table.paths:
            if path.endswith("-copy.png"):
                assert split[path] == split[path.replace("-copy", "")]
        refused(
            run("split", folder, "-o", folder / "x.csv", "--group-by", "near-duplicates"),
            "split the cache",
        )

    def test_of_a_table_its_groups_are_kept(self, run: Run, slices: Path, tmp_path: Path) -> None:
        document = json.loads(
            run("split", slices / "table.csv", "-o", tmp_path / "t.csv", "--json").out
        )
        assert document["group_by"] == "column"
        groups: dict[str, set[str]] = {}
        for row in read_rows(tmp_path / "t.csv"):
            groups.setdefault(row.group, set()).add(row.split)
        assert {len(parts) for parts in groups.values()} == {1}

    def test_other_commands_take_it_without_a_new_extraction(
        self, run: Run, features: Path, tmp_path: Path
    ) -> None:
        table = tmp_path / "table.csv"
        run("split", features, "-o", table, "--test-fraction", "0.25", "--val-fraction", "0.25")
        head = tmp_path / "head.h5"
        fitted = run("fit-head", features, "-o", head, "--head", "lda", "--table", table, "--json")
        assert json.loads(fitted.out)["split"] == {"train": 48, "val": 16, "test": 16}
        measured = run("evaluate", head, features, "--table", table, "--json")
        assert json.loads(measured.out)["n"] == 16


class TestLeakageIsSaid:
    def test_by_fit_head_in_one_line(self, run: Run, make_cache: Any, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((80, 64)), np.arange(80) % 4
        X[79], y[79] = X[0], y[0]
        splits = np.repeat(["train", "test"], [60, 20])
        cache = make_cache(X, y, splits=splits, signature=draw_signatures(80))
        told = run("fit-head", cache, "-o", tmp_path / "head.h5", "--head", "lda")
        assert told.err == (
            "warning: near duplicates are in several splits: 1 cluster, 1 test image with one in "
            f"train or val; see brainfeat audit {cache}\n"
        )

    def test_classes_with_few_images_to_calibrate_on(self, run: Run, make_cache: Any) -> None:
        X, y = np.random.default_rng(0).standard_normal((24, 64)), np.arange(24) % 4
        cache = make_cache(X, y, splits=np.repeat(["train", "test"], [16, 8]))
        told = run("fit-head", cache, "-o", cache.with_name("head.h5"), "--head", "lda").err
        assert "warning: too few images to calibrate predictions on of 'glioma' (4)" in told

    def test_of_a_clean_set_nothing_is_said(self, run: Run, features: Path, svm: Path) -> None:
        assert run("fit-head", features, "-o", svm, "--head", "svm", "--overwrite").err == ""


class TestOthers:
    def test_info_tells_a_cache(self, run: Run, features: Path) -> None:
        document = json.loads(run("info", features, "--json").out)
        assert document["kind"] == "feature cache"
        assert document["splits"] == {"train": 64, "val": 0, "test": 16, "none": 0}

    def test_info_tells_a_head(self, run: Run, svm: Path) -> None:
        assert json.loads(run("info", svm, "--json").out)["head"] == "svm"

    def test_info_refuses_other_files(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("x")
        refused(run("info", tmp_path / "x"), "not a file that brainfeat wrote")
        refused(run("info", tmp_path / "none"), "does not exist")

    def test_names_cannot_move_the_cursor(self, run: Run, tmp_path: Path, make_cache: Any) -> None:
        names = ("glioma\x1b[2J", "pituitary\n\u202e")
        cache = make_cache(np.eye(4), [0, 1, 0, 1], class_names=names)
        told = run("info", cache)
        assert "glioma\\x1b[2J: 2" in told.out
        assert "pituitary\\n\\u202e: 2" in told.out
        missing = run("info", tmp_path / "\x1b[31mnone")
        refused(missing, "\\x1b[31mnone")
        assert "\x1b" not in told.out + missing.err

    def test_doctor(self, run: Run) -> None:
        document = json.loads(run("doctor", "--json").out)
        assert document["backend"] == "tensorflow"
        assert document["processor"]["cores"] >= 1
        assert "vgg16" in document["weights"]
        assert document["auto_precision"] in ("float32", "bfloat16")
        assert f"auto chooses {document['auto_precision']}" in run("doctor").out

    @pytest.mark.slow
    def test_demo_on_a_read_only_disk_ends_at_once(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("brainfeat.files.TemporaryFile", fail)
        words = (f"{tmp_path}: no file can be written there (Read-only file system)", "another")
        refused(run("demo", "-o", tmp_path), *words)

    def test_demo_leaves_everything_and_can_be_repeated(self, run: Run, tmp_path: Path) -> None:
        arguments = ["demo", "-o", tmp_path / "demo", "--backbone", "mobilenet-0.75"]
        arguments += ["--weights", "random", "--patients", "8"]
        document = json.loads(run(*arguments, "--json").out)
        assert document["test"]["n"] == 32
        written = {path.name for path in (tmp_path / "demo").iterdir()}
        expected = {"features.h5", "head.h5", "metrics.json", "metrics.md", "slices.png"}
        assert expected | {"confusion-matrix.png"} <= written
        again = json.loads(run(*arguments, "--json").out)
        assert again["test"] == document["test"]

    @pytest.mark.slow
    def test_where_nothing_is_missing_no_network_library_is_imported(
        self, run: Run, slices: Path, tmp_path: Path
    ) -> None:
        arguments = ["extract", str(slices), "-o", str(tmp_path / "f.h5"), *SMALL]
        assert run(*arguments).code == 0
        code = (
            "import sys; from brainfeat.cli import main\n"
            f"try: main({[*map(str, arguments), '--json']!r})\n"
            "except SystemExit: pass\n"
            "sys.exit(', '.join({'tensorflow', 'keras', 'jax'} & set(sys.modules)) or 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["computed"] == 0

    def test_the_progress_line_tells_the_precision(
        self, run: Run, slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Eager(options.ProgressLine):
            def __init__(self, label: str, unit: str) -> None:
                super().__init__(label, unit)
                self._interval = 0.0

        monkeypatch.setattr(options, "ProgressLine", Eager)
        arguments = ["extract", slices, "-o", tmp_path / "f.h5", *SMALL]
        result = run(*arguments, "--precision", "bfloat16", "--engine", "keras")
        assert "extracting in bfloat16 by keras: 80 of 80 images (100%)" in result.err
        assert "images/s in bfloat16)" in result.out

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--batch-size", "0", "--batch-size"),
            ("--batch-size", "many", "--batch-size"),
            ("--jobs", "0", "--jobs"),
            ("--precision", "float8", "auto"),
        ],
    )
    def test_odd_options_of_stage_one_are_usage_errors(
        self, run: Run, slices: Path, tmp_path: Path, option: str, value: str, said: str
    ) -> None:
        result = run("extract", slices, "-o", tmp_path / "f.h5", *SMALL, option, value)
        assert result.code == 2
        assert said in result.err
        assert not list(tmp_path.iterdir())

    def test_a_device_that_is_not_there(self, run: Run, slices: Path, tmp_path: Path) -> None:
        result = run("extract", slices, "-o", tmp_path / "f.h5", *SMALL, "--device", "gpu:7")
        refused(result, "no device 'gpu:7'; there are", "cpu:0")
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    @pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_an_interrupt_says_what_was_kept(
        self,
        run: Run,
        slices: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
        sign: signal.Signals,
        code: int,
    ) -> None:
        from brainfeat.extraction.backbones import Backbone

        # A shell ignores it in what it starts in the background.
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
        calls = []
        compile_copies = Backbone.compile

        def compile_interrupted(self: Backbone, *, n_images: int | None) -> tuple[Any, ...]:
            forward, *_ = compile_copies(self, n_images=n_images)

            def interrupted(images: np.ndarray) -> np.ndarray:
                calls.append(len(images))
                if len(calls) == 3:
                    os.kill(os.getpid(), sign)
                return forward(images)

            return (interrupted,)

        monkeypatch.setattr(Backbone, "compile", compile_interrupted)
        arguments = ["extract", slices, "-o", tmp_path / "f.h5", *SMALL, "--batch-size", "16"]
        before = signal.getsignal(signal.SIGTERM)
        result = run(*arguments)
        refused(result, "finished rows kept in", "f.h5.parts", "go on", code=code)
        lines = [line for line in result.err.splitlines() if not INVENTORY.search(line)]
        assert len(lines) == 1
        assert signal.getsignal(signal.SIGTERM) is before
        kept = int(re.search(r"(\d+) finished rows", result.err)[1])
        document = json.loads(run(*arguments, "--json").out)
        assert document["rows"] == 80
        assert document["computed"] == 80 - kept <= 48

    def test_sigterm_before_anything_is_finished(self, slices: Path, tmp_path: Path) -> None:
        script = """
            import os, signal, sys
            from brainfeat.extraction import extractor
            from brainfeat.cli import main
            extractor.load_backbone = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
            main(sys.argv[1:])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), "extract", slices, "-o", "f.h5"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 143
        assert done.stderr.splitlines()[-1] == (
            "brainfeat: error: ended by SIGTERM; no new row was finished; "
            "run the same command again to go on"
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_sigterm_ends_any_command(self, features: Path, tmp_path: Path) -> None:
        script = """
            import os, signal, sys
            from brainfeat.training import fitting
            from brainfeat.cli import main
            fitting.fit_calibrated = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
            main(sys.argv[1:])
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(
            [*command, "fit-head", features, "-o", "h.h5", "--head", "lda"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 143
        assert done.stderr.strip() == "brainfeat: error: ended by SIGTERM"
        assert not list(tmp_path.iterdir())

    def test_help_lists_every_command_under_the_step_that_it_belongs_to(self, run: Run) -> None:
        sections = {
            heading: re.findall(r"^  ([a-z-]+)  +\w", lines, re.MULTILINE)
            for heading, lines in re.findall(r"^(\S.*):\n((?:  .+\n)+)", run("--help").out, re.M)
        }
        assert sections.pop("Options") == ["--version"]
        assert sections == SECTIONS

    def test_version_and_usage(self, run: Run) -> None:
        assert run("--version").out.startswith("brainfeat, version 0.1")
        assert run("extract").code == 2
        assert run("nonsense").code == 2


@pytest.mark.parametrize("command", ["fit-head", "split"])
def test_that_copies_are_not_looked_for_is_said_in_one_line(
    run: Run, features: Path, make_cache: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    rng = np.random.default_rng(0)
    bare = make_cache(rng.standard_normal((80, 8)), np.arange(80) % 4)
    options = {"fit-head": ("--head", "knn", "--jobs", 1), "split": ()}[command]
    line = run(command, bare, "-o", tmp_path / "out.h5", *options).err
    assert line == (
        f"warning: {bare} has no signatures, so copies are not looked for; run extract again to "
        "add them\n"
    )
    assert "signatures" not in run(command, features, "-o", tmp_path / "b.h5", *options).err


@pytest.mark.parametrize(("module", "expected"), [("brainfeat", 700), ("brainfeat.cli", 50_000)])
def test_only_the_command_line_looks_for_garbage_less_often(module: str, expected: int) -> None:
    code = f"import gc; gc.set_threshold(700); import {module}; print(gc.get_threshold()[0])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert int(printed.stdout) == expected


@pytest.mark.parametrize(("given", "expected"), [(None, "10"), ("20", "20")])
def test_idle_threads_of_the_command_line_do_not_spin(given: str | None, expected: str) -> None:
    kept = {name: os.environ[name] for name in os.environ if name != "OPENBLAS_THREAD_TIMEOUT"}
    chosen = {} if given is None else {"OPENBLAS_THREAD_TIMEOUT": given}
    code = "import brainfeat.cli, os; print(os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    printed = subprocess.run(
        [sys.executable, "-c", code], env=kept | chosen, check=True, stdout=subprocess.PIPE
    ).stdout
    assert printed.decode().strip() == expected
