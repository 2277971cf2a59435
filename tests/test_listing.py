"""Links are followed by one rule everywhere: each real folder once, and no loop."""

from pathlib import Path

import pytest
from support.dicoms import draw_volume, write_series

from brainfeat.readers.listing import walk_folders
from brainfeat.readers.series import find_inputs, find_series
from brainfeat.tables.slicing import write_slices
from brainfeat.tables.table import read_table


def fail(folder: Path, error: OSError) -> None:
    pytest.fail(f"{folder}: {error}")


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """Make a folder with a real class, a linked one, links to both of them again, and loops."""
    for name in ("data/a/1.png", "store/2.png", "store/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = tmp_path / "data"
    for link, target in {
        "b": tmp_path / "store",
        "a/again": tmp_path / "store/deep",
        "a/itself": data / "a",
        "a/up": tmp_path,
        "0": data / "a",
    }.items():
        (data / link).symlink_to(target)
    (tmp_path / "store/back").symlink_to(data)
    (data / "a/circle").symlink_to("circle")
    return data


def test_each_real_folder_is_listed_once(farm):
    walk = walk_folders(farm, fail)
    assert [listing.parts for listing in walk.listings] == [(), ("a",), ("b",), ("b", "deep")]
    assert sorted("/".join(parts) for parts in walk.repeated) == [
        *("0", "a/again", "a/itself", "a/up"),
        "b/back",
    ]
    assert [[entry.name for entry in listing.files] for listing in walk.listings] == [
        *([], ["1.png", "circle"]),
        *(["2.png"], ["3.png"]),
    ]


def test_a_table_and_a_prediction_have_the_same_images(farm):
    found = find_inputs([farm]).images
    assert tuple(path.relative_to(farm).as_posix() for path in found) == read_table(farm).paths
    assert len(found) == 3


class TestVolumes:
    def test_a_patient_whose_folder_is_a_link_is_found(self, tmp_path):
        write_series(tmp_path / "in/p1", draw_volume(2, seed=1), PatientID="1")
        write_series(tmp_path / "disk/p2", draw_volume(3, seed=2), PatientID="2")
        (tmp_path / "in/p2").symlink_to(tmp_path / "disk/p2")
        (tmp_path / "in/p2/loop").symlink_to(tmp_path / "in")
        (tmp_path / "in/p3").symlink_to(tmp_path / "in/p1")
        found = write_slices([tmp_path / "in"], tmp_path / "out")
        assert (found.patients, found.volumes, found.slices) == (2, 2, 5)

    def test_a_slice_that_is_linked_again_is_no_further_slice(self, tmp_path):
        folder = tmp_path / "in"
        real = write_series(folder, draw_volume(2))
        for name in ("0-link.dcm", "z-link.dcm"):
            (folder / name).symlink_to(real[0])
        (series,), unreadable = find_series([folder])
        assert (sorted(series.paths), unreadable) == (sorted(real), [])

    def test_a_file_that_only_links_lead_to_is_read_once(self, tmp_path):
        (real,) = write_series(tmp_path / "store", draw_volume(1))
        (tmp_path / "in").mkdir()
        for name in ("a.dcm", "b.dcm"):
            (tmp_path / "in" / name).symlink_to(real)
        (series,), _ = find_series([tmp_path / "in"])
        assert series.paths == (tmp_path / "in/a.dcm",)
