"""Masks that have the names of images: found by their two values beside an image of their size."""

import numpy as np
import pytest
from PIL import Image

from brainfeat.readers import read_image
from brainfeat.tables import two_valued
from brainfeat.tables.inventory import Inventory
from brainfeat.tables.rows import LeftOut
from brainfeat.tables.table import read_table
from brainfeat.tables.two_valued import TWO_VALUED, find_two_valued

SIDE = 64


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def draw(seed, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def draw_mask(seed, side=SIDE):
    y, x = np.mgrid[:side, :side] - np.random.default_rng(seed).integers(20, 40, (2, 1, 1))
    return np.where(y**2 + x**2 < 90, np.uint8(255), np.uint8(0))


def fill(root, folder, make, suffix=".png", number=12, first=0):
    for i in range(first, first + number):
        save(root / folder / f"{i}{suffix}", make(i))
    return root


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".gif"])
@pytest.mark.parametrize("beside", [".png", ".jpg"])
def test_in_a_folder_beside_that_of_the_images(tmp_path, suffix, beside):
    fill(fill(tmp_path, "scans", draw, beside), "labels", draw_mask, suffix)
    table = read_table(tmp_path)
    assert table.class_names == ("scans",)
    assert table.left_out == {LeftOut(TWO_VALUED, "labels"): 12}
    (warning,) = Inventory.of(table).warnings
    assert warning == (
        "12 images left out for having two values only, as masks have, beside images of the same"
        " size; if that is wrong, pass keep_masks=True"
    )
    assert read_table(tmp_path, keep_masks=True).class_names == ("labels", "scans")


def test_in_the_folder_of_the_images(tmp_path):
    fill(fill(tmp_path, "yes", draw), "yes", draw_mask, first=12)
    fill(tmp_path, "no", draw)
    assert read_table(tmp_path).left_out == {LeftOut(TWO_VALUED, "yes"): 12}


def test_in_folders_whose_paths_differ_in_the_middle(tmp_path):
    for split in ("train", "test"):
        fill(fill(tmp_path, f"{split}/scan/a", draw), f"{split}/roi/a", draw_mask)
    found = find_two_valued(tmp_path, [p.relative_to(tmp_path).parts for p in list_files(tmp_path)])
    assert {parts[:2] for parts in found} == {("train", "roi"), ("test", "roi")}


def list_files(root):
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "pixels",
    [
        draw_mask(0) // 255,  # 0 and 1
        draw_mask(0).astype(np.uint16) * 257,
        np.dstack([draw_mask(0)] * 3),
        np.dstack([draw_mask(0), np.zeros((SIDE, SIDE), np.uint8), draw_mask(0)]),
        draw_mask(0) > 0,
        np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), np.uint8) * 255,
    ],
)
def test_whatever_the_two_values_are(tmp_path, pixels):
    save(tmp_path / "a/1.png", draw(0))
    save(tmp_path / "b/1.png", pixels)
    assert find_two_valued(tmp_path, [("a", "1.png"), ("b", "1.png")]) == {("b", "1.png")}


def test_a_palette_of_two_colours(tmp_path):
    image = Image.fromarray(draw_mask(0) // 255)
    image.putpalette([0, 0, 0, 200, 0, 0])
    save(tmp_path / "a/1.png", draw(0))
    (tmp_path / "b").mkdir()
    image.save(tmp_path / "b/1.png")
    assert find_two_valued(tmp_path, [("a", "1.png"), ("b", "1.png")]) == {("b", "1.png")}


def test_drawings_without_other_images_stay(tmp_path):
    fill(fill(tmp_path, "circle", draw_mask), "disc", draw_mask)
    assert read_table(tmp_path).skipped == {}


@pytest.mark.parametrize("images", [lambda i: draw(i, 65), lambda i: draw(i, 32)])
def test_drawings_beside_images_of_another_size_stay(tmp_path, images):
    fill(fill(tmp_path, "scan", images), "drawing", draw_mask)
    assert read_table(tmp_path).skipped == {}


def test_drawings_with_other_names_in_other_folders_stay(tmp_path):
    fill(fill(tmp_path, "scan", draw), "drawing", draw_mask, first=50)
    assert read_table(tmp_path).skipped == {}


def test_blank_slices_stay(tmp_path):
    def blank(_):
        return np.zeros((SIDE, SIDE), np.uint8)

    fill(fill(fill(tmp_path, "yes", draw), "no", draw), "no", blank, first=50)
    assert read_table(tmp_path).skipped == {}


def test_blank_masks_go_with_the_others_of_their_folder(tmp_path):
    fill(fill(tmp_path, "scan", draw), "roi", draw_mask)
    save(tmp_path / "roi/3.png", np.zeros((SIDE, SIDE), np.uint8))
    assert read_table(tmp_path).left_out == {LeftOut(TWO_VALUED, "roi"): 12}


def test_blank_masks_of_another_class_go_with_those_of_the_same_name(tmp_path):
    for name, make in (("yes", draw_mask), ("no", lambda seed: np.zeros((SIDE, SIDE), np.uint8))):
        fill(fill(tmp_path, f"{name}/images", draw), f"{name}/labels", make)
    fill(tmp_path, "other/blank", lambda seed: np.zeros((SIDE, SIDE), np.uint8))
    table = read_table(tmp_path)
    assert table.left_out == {LeftOut(TWO_VALUED, "no"): 12, LeftOut(TWO_VALUED, "yes"): 12}
    assert sum(path.startswith("other/blank") for path in table.paths) == 12


def test_files_that_cannot_be_read_stay(tmp_path):
    fill(fill(tmp_path, "scan", draw), "roi", draw_mask)
    (tmp_path / "roi/3.png").write_bytes(b"damaged")
    (tmp_path / "scan/3.png").write_bytes(b"damaged")
    assert {"roi/3.png", "scan/3.png"} <= set(read_table(tmp_path).paths)


class TestCost:
    """Few files are opened, whatever their number."""

    @pytest.fixture
    def opened(self, monkeypatch):
        opened, decoded = [], []

        def read(path, **options):
            opened.append(path)
            return two_valued_read(path, **options)

        def decode(file):
            decoded.append(file)
            return read_image(file)

        two_valued_read = two_valued.read_bytes
        monkeypatch.setattr(two_valued, "read_bytes", read)
        monkeypatch.setattr(two_valued, "read_image", decode)
        return opened, decoded

    def test_no_jpeg_is_opened(self, tmp_path, opened):
        fill(fill(tmp_path, "yes", draw, ".jpg"), "no", draw, ".jpg")
        read_table(tmp_path)
        assert opened == ([], [])

    def test_few_files_of_a_folder_are_opened_and_none_with_many_bytes_decoded(
        self, tmp_path, opened
    ):
        fill(fill(tmp_path, "yes", lambda i: draw(i, 192), number=50), "no", draw_mask, number=3)
        read_table(tmp_path)
        paths, decoded = opened
        assert len(paths) == len(set(paths)) == 32 + 3
        assert len(decoded) == 3

    def test_the_same_files_each_time(self, tmp_path, opened):
        fill(tmp_path, "yes", lambda i: draw(i, 192), number=50)
        read_table(tmp_path)
        first = list(opened[0])
        read_table(tmp_path)
        assert opened[0] == first * 2

    def test_few_folders(self, tmp_path, opened, monkeypatch):
        monkeypatch.setattr(two_valued, "_FOLDERS", 3)
        for patient in range(6):
            fill(tmp_path, f"a/{patient}", lambda i: draw(i, 192), number=2)
        read_table(tmp_path)
        assert len(opened[0]) == 6

    @pytest.mark.parametrize("limit", ["_PIXELS", "_BYTES"])
    def test_large_files_are_not_decoded(self, tmp_path, opened, monkeypatch, limit):
        monkeypatch.setattr(two_valued, limit, 100)
        fill(fill(tmp_path, "scan", draw), "roi", draw_mask)
        assert read_table(tmp_path).skipped == {}
        assert opened[1] == []
