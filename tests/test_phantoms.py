"""Synthetic slices depend on nothing but their arguments and show the pathology of their label."""

import csv
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from brainfeat.errors import ParameterError, TableError
from brainfeat.phantoms import CLASS_NAMES, LEVELS, draw_mask, draw_slice, write_phantoms
from brainfeat.phantoms.anatomy import cut_plane, make_patient
from brainfeat.phantoms.drawing import scan_slice

TUMOURS = ("glioma", "meningioma", "pituitary")
PATIENTS = range(8)


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    return write_phantoms(
        folder, patients_per_class=4, slices_per_patient=3, test_fraction=0.25, size=48
    )


class TestDrawSlice:
    @pytest.mark.parametrize("class_name", CLASS_NAMES)
    def test_same_arguments_give_same_pixels(self, class_name):
        first = draw_slice(class_name, patient=2, level=5, size=64, random_state=7)
        draw_slice(class_name, patient=3, level=5, size=64, random_state=7)
        second = draw_slice(class_name, patient=2, level=5, size=64, random_state=7)
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize(
        "changed",
        [{"patient": 3}, {"level": 6}, {"random_state": 8}, {"class_name": "notumor"}],
        ids=str,
    )
    def test_each_argument_changes_the_slice(self, changed):
        arguments = {"class_name": "glioma", "patient": 2, "level": 5, "random_state": 7}
        one, other = (
            draw_slice(options.pop("class_name"), **options, size=64)
            for options in (dict(arguments), arguments | changed)
        )
        assert (one != other).mean() > 0.3

    @pytest.mark.parametrize("size", [32, 101, 224])
    def test_returns_grey_bytes_of_the_given_size(self, size):
        image = draw_slice("pituitary", patient=0, level=0, size=size)
        assert image.shape == (size, size)
        assert image.dtype == np.uint8

    @pytest.mark.parametrize("class_name", CLASS_NAMES)
    def test_air_is_dark_and_scalp_is_bright(self, class_name):
        for patient in PATIENTS:
            image = draw_slice(class_name, patient=patient, level=8, size=96)
            corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
            assert corners.max() < 40
            assert np.quantile(image, 0.97) > 130
            assert (image == 255).mean() < 0.1

    def test_size_changes_the_resolution_not_the_anatomy(self):
        fine = draw_slice("meningioma", patient=1, level=4, size=224).astype(float)
        coarse = draw_slice("meningioma", patient=1, level=4, size=112).astype(float)
        shrunk = fine.reshape(112, 2, 112, 2).mean(axis=(1, 3))
        other = draw_slice("meningioma", patient=2, level=4, size=112).astype(float)
        assert np.abs(shrunk - coarse).mean() < 0.4 * np.abs(shrunk - other).mean()

    @pytest.mark.parametrize("class_name", CLASS_NAMES)
    def test_slices_of_a_patient_are_more_alike_than_patients(self, class_name):
        def distance(one, other):
            return np.abs(one.astype(float) - other).mean()

        images = [
            [draw_slice(class_name, patient=patient, level=level, size=64) for level in (6, 9)]
            for patient in PATIENTS
        ]
        within = np.mean([distance(*pair) for pair in images])
        between = np.mean([distance(a[0], b[0]) for a, b in pairwise(images)])
        assert within < 0.6 * between

    @pytest.mark.parametrize("draw", [draw_slice, draw_mask])
    def test_unknown_class_is_named_with_the_known_ones(self, draw):
        with pytest.raises(TableError, match=r"'Glioma'; expected one of glioma, .*pituitary"):
            draw("Glioma", patient=0, level=0)

    @pytest.mark.parametrize("draw", [draw_slice, draw_mask])
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"patient": -1}, "patient -1; expected at least 0"),
            ({"level": -1}, "level -1; expected 0 to 15"),
            ({"level": LEVELS}, "level 16; expected 0 to 15"),
            ({"size": 31}, "size 31; expected at least 32 pixels"),
            ({"random_state": -1}, "random_state -1; expected at least 0"),
        ],
    )
    def test_number_out_of_range_is_refused(self, draw, changed, message):
        with pytest.raises(ParameterError, match=message):
            draw("glioma", **{"patient": 0, "level": 0} | changed)


class TestDrawMask:
    def test_no_tumour_has_an_empty_mask(self):
        assert not any(draw_mask("notumor", patient=p, level=8, size=64).any() for p in PATIENTS)

    @pytest.mark.parametrize("class_name", TUMOURS)
    @pytest.mark.parametrize("level", [0, LEVELS - 1])
    def test_every_level_cuts_the_tumour(self, class_name, level):
        for patient in range(40):
            mask = draw_mask(class_name, patient=patient, level=level, size=96)
            assert 0.001 < mask.mean() < 0.15

    @pytest.mark.parametrize("class_name", TUMOURS)
    def test_tumour_changes_pixels_within_the_mask(self, class_name):
        for number in PATIENTS:
            patient = make_patient(class_name, number, 0)
            diseased = scan_slice(patient, 8, 96).astype(float)
            healthy = scan_slice(replace(patient, tumour=None), 8, 96)
            mask = draw_mask(class_name, patient=number, level=8, size=96)
            change = np.abs(diseased - healthy)
            assert change[mask].mean() > 20
            assert change[~binary_dilation(mask, iterations=20)].mean() < 2

    def test_pituitary_tumour_is_small_and_in_the_midline(self):
        for patient in range(20):
            mask = draw_mask("pituitary", patient=patient, level=8, size=128)
            assert mask.mean() < 0.04
            assert abs(np.nonzero(mask)[1].mean() - 64) < 12

    def test_meningioma_is_more_homogeneous_than_glioma(self):
        def spread(class_name):
            ratios = []
            for patient in range(20):
                image = draw_slice(class_name, patient=patient, level=8, size=128)
                inside = image[draw_mask(class_name, patient=patient, level=8, size=128)]
                ratios.append(inside.std() / inside.mean())
            return np.array(ratios)

        assert spread("meningioma").max() < np.median(spread("glioma"))

    def test_meningioma_at_the_convexity_reaches_the_skull_and_glioma_does_not(self):
        def reaches(class_name):
            edges = []
            for patient in range(20):
                _, plane = cut_plane(make_patient(class_name, patient, 0), 8, 96)
                edges.append(plane.r[plane.extent > 0].max())
            return np.array(edges)

        assert (reaches("meningioma") > 0.97).mean() > 0.7
        assert reaches("glioma").max() < 0.97


class TestWritePhantoms:
    def test_table_lists_every_slice_once(self, written):
        rows = read_rows(written)
        assert written.name == "table.csv"
        assert list(rows[0]) == ["path", "label", "split", "group", "source"]
        found = {p.relative_to(written.parent).as_posix() for p in written.parent.rglob("*.png")}
        assert {row["path"] for row in rows} == found
        assert len(rows) == len(found) == 4 * 4 * 3

    def test_folder_names_split_and_label(self, written):
        sides = {"train": "Training", "test": "Testing"}
        for row in read_rows(written):
            assert row["path"].split("/")[:2] == [sides[row["split"]], row["label"]]
            assert row["label"] in CLASS_NAMES
            assert row["source"] == "phantom"

    def test_whole_patients_lie_on_one_side(self, written):
        splits: dict[str, set[str]] = {}
        for row in read_rows(written):
            splits.setdefault(row["group"], set()).add(row["split"])
        assert all(len(sides) == 1 for sides in splits.values())
        for class_name in CLASS_NAMES:
            sides = [splits[f"{class_name}-{patient:03d}"] for patient in range(4)]
            assert sides == [{"train"}, {"train"}, {"train"}, {"test"}]

    def test_files_hold_what_draw_slice_draws(self, written):
        row = read_rows(written)[4]
        assert row["path"] == "Training/glioma/glioma-001-08.png"
        with Image.open(written.parent / row["path"]) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(
                np.asarray(image), draw_slice("glioma", patient=1, level=8, size=48)
            )

    def test_same_random_state_writes_same_bytes(self, written, tmp_path):
        options = {"patients_per_class": 4, "slices_per_patient": 3, "test_fraction": 0.25}
        same = write_phantoms(tmp_path / "same", **options, size=48)
        other = write_phantoms(tmp_path / "other", **options, size=48, random_state=1)
        assert same.read_bytes() == written.read_bytes()
        for row in read_rows(written):
            before = (written.parent / row["path"]).read_bytes()
            assert (same.parent / row["path"]).read_bytes() == before
            assert (other.parent / row["path"]).read_bytes() != before

    def test_jpg_suffix_writes_jpeg(self, tmp_path):
        table = write_phantoms(
            tmp_path, patients_per_class=2, slices_per_patient=1, size=32, suffix=".jpg"
        )
        for row in read_rows(table):
            assert row["path"].endswith(".jpg")
            with Image.open(tmp_path / row["path"]) as image:
                assert (image.format, image.size) == ("JPEG", (32, 32))

    def test_no_test_fraction_leaves_no_test_side(self, tmp_path):
        table = write_phantoms(
            tmp_path, patients_per_class=1, slices_per_patient=1, test_fraction=0, size=32
        )
        assert {row["split"] for row in read_rows(table)} == {"train"}
        assert not (tmp_path / "Testing").exists()

    @pytest.mark.parametrize(
        ("patients", "fraction", "n_test"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.2, 2), (5, 0.5, 2)]
    )
    def test_each_side_has_a_patient_of_each_class(self, tmp_path, patients, fraction, n_test):
        table = write_phantoms(
            tmp_path,
            patients_per_class=patients,
            slices_per_patient=1,
            test_fraction=fraction,
            size=32,
        )
        held_out = [row["label"] for row in read_rows(table) if row["split"] == "test"]
        assert held_out == [name for name in CLASS_NAMES for _ in range(n_test)]

    @pytest.mark.parametrize("slices", [1, 5, LEVELS])
    def test_slices_of_a_patient_have_different_levels(self, tmp_path, slices):
        table = write_phantoms(
            tmp_path, patients_per_class=2, slices_per_patient=slices, test_fraction=0.5, size=32
        )
        rows = read_rows(table)
        assert len({row["path"] for row in rows}) == len(rows) == 4 * 2 * slices

    def test_folder_that_is_not_empty_is_refused_and_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(TableError, match="is not empty; name a folder that is new or empty"):
            write_phantoms(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_file_in_place_of_the_folder_is_refused(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("mine", encoding="utf-8")
        with pytest.raises(TableError, match="is a file"):
            write_phantoms(path)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"patients_per_class": 0}, "patients_per_class 0; expected at least 1"),
            (
                {"patients_per_class": 1},
                "patients_per_class 1; expected at least 2.*test_fraction=0",
            ),
            ({"slices_per_patient": 0}, "slices_per_patient 0; expected 1 to 16"),
            ({"slices_per_patient": 17}, "slices_per_patient 17; expected 1 to 16"),
            ({"test_fraction": 1.0}, r"test_fraction 1\.0; expected at least 0 and below 1"),
            ({"test_fraction": -0.1}, r"test_fraction -0\.1; expected at least 0"),
            ({"test_fraction": float("nan")}, "test_fraction nan; expected at least 0"),
            ({"size": 16}, "size 16; expected at least 32 pixels"),
            ({"suffix": ".tiff"}, r"suffix '\.tiff'; expected one of \.png, \.jpg"),
            ({"random_state": -1}, "random_state -1; expected at least 0"),
        ],
    )
    def test_bad_argument_is_refused_before_anything_is_written(self, tmp_path, changed, message):
        with pytest.raises(ParameterError, match=message):
            write_phantoms(tmp_path / "set", **changed)
        assert not (tmp_path / "set").exists()


def test_import_is_light():
    code = "import sys, brainfeat.phantoms; print(*{'scipy', 'PIL'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
