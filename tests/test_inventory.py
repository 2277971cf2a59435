"""Tests of what is said of a table: its classes, what it leaves out, and what is doubtful."""

import shutil
from pathlib import Path

import pytest

from brainfeat.errors import TableError
from brainfeat.tables.inventory import Inventory
from brainfeat.tables.rows import LeftOut
from brainfeat.tables.table import read_table


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def make_classes(root: Path, number: int = 12, *names: str) -> Path:
    return make_files(root, *(f"{name}/{i}.png" for name in names for i in range(number)))


def take(root: Path) -> Inventory:
    return Inventory.of(read_table(root))


def warn(root: Path) -> str:
    """Return the one warning of a table."""
    (warning,) = take(root).warnings
    return warning


class TestClasses:
    def test_images_are_counted_by_class_and_split(self, tmp_path):
        make_classes(tmp_path, 12, "Training/a", "Training/b", "Testing/b")
        inventory = take(tmp_path)
        nothing = dict.fromkeys(("train", "val", "test", "without"), 0)
        assert inventory.classes == {
            "a": {**nothing, "train": 12},
            "b": {**nothing, "train": 12, "test": 12},
        }
        assert inventory.describe_classes() == [
            "class  train  test",
            "a         12     0",
            "b         12    12",
        ]

    def test_images_without_splits_or_classes(self, tmp_path):
        make_files(tmp_path, "1.png", "2.png", "3.png")
        assert take(tmp_path).describe_classes() == ["3 images without a class"]
        (tmp_path / "table.csv").write_text("path,label\n1.png,a\n2.png,a\n3.png,\n")
        assert take(tmp_path / "table.csv").describe_classes() == [
            "class  images",
            "a           2",
            "1 image without a class",
        ]

    def test_very_many_classes_are_not_all_listed(self, tmp_path):
        rows = "".join(f"{i}.png,c{i:03}\n" for i in range(100))
        make_files(tmp_path, *(f"{i}.png" for i in range(100)))
        (tmp_path / "table.csv").write_text(f"path,label\n{rows}")
        lines = take(tmp_path / "table.csv").describe_classes()
        assert (len(lines), lines[-1]) == (32, "and 70 more classes")

    def test_real_data(self, real_data):
        inventory = take(real_data / "data" / "brain-mri")
        assert inventory.describe_classes() == [
            "class       train  test",
            "glioma      1,321   300",
            "meningioma  1,339   306",
            "notumor     1,591   405",
            "pituitary   1,457   300",
        ]
        assert (inventory.left_out, inventory.warnings) == ({}, [])


class TestLeftOut:
    def test_by_reason_class_folder_and_suffix(self, tmp_path):
        make_classes(tmp_path, 12, "train/a", "train/b", "test/a", "test/b")
        make_files(
            tmp_path, "train/a/1.mha", "train/a/2.MHA", "test/b/x/scan.nii.gz", "train/1.png"
        )
        make_files(tmp_path, "train/a/.DS_Store", "train/b/readme")
        inventory = take(tmp_path)
        assert inventory.left_out == {
            LeftOut("not an image", "train/a", ".mha"): 2,
            LeftOut("not an image", "test/b", ".nii.gz"): 1,
            LeftOut("not an image", "train/b"): 1,
            LeftOut("outside the class folders"): 1,
            LeftOut("hidden", "train/a"): 1,
        }
        assert inventory.describe_left_out() == [
            "skipped 1 file: hidden (1 in 'train/a')",
            (
                "skipped 4 files: not an image"
                " (2 .mha in 'train/a', 1 .nii.gz in 'test/b', 1 in 'train/b')"
            ),
            "skipped 1 file: outside the class folders",
        ]
        assert sum(inventory.left_out.values()) == sum(read_table(tmp_path).skipped.values())

    def test_the_most_frequent_kinds_are_named(self, tmp_path):
        make_classes(tmp_path, 12, "a")
        make_files(tmp_path, *(f"a/1.s{i}" for i in range(8)), "a/2.s3")
        (line,) = take(tmp_path).describe_left_out()
        assert line.startswith("skipped 9 files: not an image (2 .s3 in 'a', 1 .s0 in 'a'")
        assert line.endswith(" and 3 more)")


class TestClassesWithoutImages:
    @pytest.mark.parametrize("suffix", [".mha", ".dcm", ".nii.gz", ".npy", ""])
    def test_a_class_all_of_whose_files_are_passed_over_is_an_error(self, tmp_path, suffix):
        make_classes(tmp_path, 3, "no")
        make_files(tmp_path, f"yes/1{suffix}", f"yes/deep/2{suffix}")
        named = suffix or "without suffix"
        with pytest.raises(TableError, match=rf"yes' has no images .*only 2 {named} \(not an im"):
            read_table(tmp_path)

    def test_in_one_split_too(self, tmp_path):
        make_classes(tmp_path, 3, "train/yes", "train/no", "test/no")
        make_files(tmp_path, "test/yes/1.mha")
        with pytest.raises(
            TableError, match=r"test/yes' has no images that can be read, only 1 .mha"
        ):
            read_table(tmp_path)

    def test_one_of_broken_links_too(self, tmp_path):
        make_classes(tmp_path, 3, "no")
        (tmp_path / "yes").mkdir()
        (tmp_path / "yes/1.png").symlink_to("nowhere")
        with pytest.raises(TableError, match=r"only 1 .png \(broken link\); convert"):
            read_table(tmp_path)

    def test_a_folder_beside_loose_images_too(self, tmp_path):
        make_files(tmp_path, "1.png", "yes/1.mha")
        with pytest.raises(TableError, match=r"yes' has no images that can be read"):
            read_table(tmp_path)

    def test_a_folder_of_documents_is_no_class_and_that_is_said(self, tmp_path):
        make_classes(tmp_path, 12, "yes", "no")
        make_files(tmp_path, "docs/licence.txt", "f.h5.parts/0.h5")
        assert warn(tmp_path).startswith("no images in the class folders 'docs', 'f.h5.parts'; add")

    def test_an_empty_class_folder_is_told(self, tmp_path):
        make_classes(tmp_path, 12, "train/a", "train/b", "test/a")
        (tmp_path / "test/b/deep").mkdir(parents=True)
        assert warn(tmp_path).startswith("no images in the class folder 'test/b'; add")
        assert read_table(tmp_path).skipped == {"class folder without images": 1}


class TestNames:
    @pytest.mark.parametrize("other", ["Glioma", "glioma_", "gli-oma", "GLI OMA"])
    def test_classes_that_differ_in_case_and_separators(self, tmp_path, other):
        make_classes(tmp_path, 12, "glioma", other, "notumor")
        warning = warn(tmp_path)
        assert repr(other) in warning
        assert "'glioma'" in warning
        assert "differ only in case, spaces, '_' or '-'" in warning

    def test_a_class_that_is_spelled_differently_in_each_split(self, tmp_path):
        make_classes(tmp_path, 12, "train/Glioma", "train/no", "test/glioma", "test/no")
        alike, untrained = take(tmp_path).warnings
        assert alike.startswith(
            "the classes 'Glioma' (in train) and 'glioma' (in test) differ only"
        )
        assert untrained.startswith("no images in train of 'glioma', which no head can learn")

    def test_names_that_differ_otherwise_are_no_alike(self, tmp_path):
        make_classes(tmp_path, 12, "grade 2", "grade 3", "glioma")
        assert take(tmp_path).warnings == []

    def test_a_folder_of_images_to_predict(self, tmp_path):
        make_classes(tmp_path, 12, "yes", "no", "pred")
        assert warn(tmp_path).startswith("the class 'pred' is named as a folder of images without")


class TestSmallClasses:
    def test_a_class_of_three_images(self, tmp_path):
        make_classes(make_classes(tmp_path, 3, "rare"), 12, "a", "b")
        assert warn(tmp_path).startswith(
            "few images to fit a head on of 'rare' (3); it takes 10 of each"
        )

    def test_test_images_do_not_count(self, tmp_path):
        make_classes(make_classes(tmp_path, 9, "train/a"), 12, "train/b", "test/a", "test/b")
        assert warn(tmp_path).startswith("few images to fit a head on of 'a' (9);")

    def test_many_such_classes_are_one_warning(self, tmp_path):
        make_classes(tmp_path, 5, *(f"patient-{i}" for i in range(9)))
        assert "'patient-4' (5) and 4 more; it takes" in warn(tmp_path)


class TestCopies:
    """Archives that hold their set a second time, one level deeper."""

    def test_class_folders_beside_their_own_copy(self, tmp_path):
        make_classes(tmp_path / "one", 3, "yes", "no")
        shutil.copytree(tmp_path / "one", tmp_path / "one" / "brain_tumor_dataset")
        with pytest.raises(TableError, match=r"'no', 'yes' twice: there, and below 'brain_t") as e:
            read_table(tmp_path / "one")
        advised = tmp_path / "one" / "brain_tumor_dataset"
        assert str(e.value).endswith(f"move 'brain_tumor_dataset' away, or pass '{advised}'")
        assert read_table(advised).class_names == ("no", "yes")

    def test_split_folders_beside_their_own_copy(self, tmp_path):
        make_classes(tmp_path / "one", 3, "Training/a", "Testing/a")
        shutil.copytree(tmp_path / "one", tmp_path / "one" / "brain-mri")
        with pytest.raises(TableError, match=r"'testing', 'training' twice: .* pass '.*brain-mri'"):
            read_table(tmp_path / "one")

    def test_class_folders_with_other_folders_are_no_copy(self, tmp_path):
        make_classes(tmp_path, 12, "yes/axial", "yes/no", "no/axial")
        assert take(tmp_path).warnings == []

    def test_a_folder_of_splits_without_classes_beside_classes(self, tmp_path):
        """Br35H has its detection set, with splits and annotations, beside its class folders."""
        make_classes(tmp_path, 12, "yes", "no", "pred", "Br35H-Mask-RCNN/TRAIN")
        with pytest.raises(TableError, match=r"in no class folders; move 'Br35H-Mask-RCNN' away$"):
            read_table(tmp_path)
        shutil.rmtree(tmp_path / "Br35H-Mask-RCNN")
        assert read_table(tmp_path).class_names == ("no", "pred", "yes")


class TestMasks:
    """Masks tell a head where a tumour is; names decide."""

    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("1.png", "1_mask.png"),
            ("scan (1).jpg", "scan (1)_mask.png"),
            ("scan (1).jpg", "scan (1)_mask_2.png"),
            ("TCGA_1_19960101_3.png", "TCGA_1_19960101_3_MASK.PNG"),
            ("p_t1ce.png", "p_seg.png"),
            ("1.png", "mask_1.png"),
            ("1.png", "masks/1.png"),
            ("1.png", "Mask/deep/1.png"),
        ],
    )
    def test_are_left_out_beside_their_image(self, tmp_path, image, mask):
        make_files(make_classes(tmp_path, 12, "no"), f"yes/{image}", f"yes/{mask}")
        table = read_table(tmp_path)
        assert [path for path in table.paths if path.startswith("yes")] == [f"yes/{image}"]
        assert table.left_out == {LeftOut("mask beside images", "yes"): 1}
        assert Inventory.of(table).warnings[-1].startswith("1 image left out for having the name")
        kept = read_table(tmp_path, keep_masks=True)
        assert (len(kept), kept.left_out) == (len(table) + 1, {})

    @pytest.mark.parametrize("name", ["unmasked.png", "mask.png", "2_mask.png", "1_masked.png"])
    def test_other_names_are_images(self, tmp_path, name):
        make_files(make_classes(tmp_path, 12, "no"), "yes/1.png", f"yes/{name}")
        assert f"yes/{name}" in read_table(tmp_path).paths

    def test_a_mask_beside_an_image_of_another_folder_is_an_image(self, tmp_path):
        make_files(tmp_path, "no/1.png", "yes/1_mask.png")
        assert read_table(tmp_path).paths == ("no/1.png", "yes/1_mask.png")

    def test_a_folder_of_masks_is_no_class(self, tmp_path):
        make_classes(tmp_path, 12, "yes", "no", "masks")
        table = read_table(tmp_path)
        assert table.class_names == ("no", "yes")
        assert table.skipped == {"mask beside images": 12}
        assert read_table(tmp_path, keep_masks=True).class_names == ("masks", "no", "yes")

    def test_a_class_of_masks_only_is_an_error(self, tmp_path):
        make_files(make_classes(tmp_path, 12, "no"), "yes/masks/1.png")
        with pytest.raises(TableError, match=r"yes' has no images .*1 .png \(mask beside images\)"):
            read_table(tmp_path)

    def test_only_masks_is_an_error_that_names_the_remedy(self, tmp_path):
        make_files(tmp_path, "masks/1.png")
        with pytest.raises(TableError, match=r"only images .*'masks/1.png'; .*keep_masks=True"):
            read_table(tmp_path)

    def test_a_csv_is_read_as_it_is(self, tmp_path):
        make_files(tmp_path, "1.png", "1_mask.png")
        (tmp_path / "table.csv").write_text("path,label\n1.png,a\n1_mask.png,b\n")
        assert len(read_table(tmp_path / "table.csv")) == 2
