"""Groups by blocks of consecutive numbers in file names."""

import json

import numpy as np
import pytest
from support.caches import draw_signatures

from brainfeat.cache.signature import orient_signatures
from brainfeat.errors import ParameterError, TableError
from brainfeat.leakage.number_blocks import label_number_blocks, read_block_size
from brainfeat.phantoms import write_phantoms
from brainfeat.tables.csv_rows import read_rows
from brainfeat.training.fitting import fit_head


@pytest.mark.parametrize(
    ("paths", "size", "expected"),
    [
        (["a/x_0.png", "a/x_3.jpg", "a/x_4.png"], 4, [0, 0, 1]),
        (["a/x_1.png", "b/x_1.png", "a/y_1.png", "a/x_2.png"], 4, [0, 1, 2, 0]),
        (["p1-s1.png", "p1-s2.png", "p2-s1.png"], 4, [0, 0, 1]),
        (["x1 (2).png", "x1 (3).png", "none.png", "other.png"], 4, [0, 0, 1, 2]),
        (["IM.0001", "IM.0002", "x.jp2", "x.jpg"], 4, [0, 0, 1, 2]),
        ([f"{'9' * 30}{n}.png" for n in (1, 2, 9)], 5, [0, 0, 1]),
        (["x07.png", "x8.png"], 10, [0, 0]),
        (["²1.png", "²2.png"], 10, [0, 0]),
    ],
)
def test_names_that_differ_only_in_the_last_number_are_a_run(paths, size, expected):
    assert label_number_blocks(paths, size).tolist() == expected


@pytest.mark.parametrize(
    "paths", [["a.png", "b.png"], ["1/x.png", "2/x.png"], ["x1.png", "x99.png"]]
)
def test_names_without_runs_are_refused(paths):
    with pytest.raises(TableError, match="no two files are in one block of 10 numbers"):
        label_number_blocks(paths, 10)


@pytest.mark.parametrize(
    "rule", ["numbers", "numbers:", "numbers:1", "numbers:x", "numbers:٣", "n:4"]
)
def test_rules_that_name_no_block(rule, make_cache):
    assert read_block_size(rule) is None
    y = np.arange(40) % 4
    with pytest.raises(ParameterError, match="numbers:K with a K of 2 or more"):
        fit_head(make_cache(np.eye(40), y), head="lda", group_by=rule)


def draw(rows=160):
    """Draw runs of numbered names, one a class, in blocks of eight slices that look alike."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), rows // 4)
    patients = rng.standard_normal((rows // 8, 16)).repeat(8, axis=0)
    X = 0.5 * rng.standard_normal((4, 16))[y] + patients + 0.1 * rng.standard_normal((rows, 16))
    paths = [f"c{label}/x_{row % (rows // 4):03}.png" for row, label in enumerate(y)]
    return X.astype(np.float32), y, paths


def test_split_divides_no_block_and_says_that_it_is_a_guess(run, make_cache, tmp_path):
    X, y, paths = draw()
    signature = draw_signatures(160)
    signature[0] = orient_signatures(signature[8:9], 1)[0]  # joins two blocks
    path = make_cache(X, y, paths=paths, signature=signature)
    told = run("split", path, "-o", tmp_path / "t.csv", "--group-by", "numbers:8", "--json")
    document = json.loads(told.out)
    assert document["group_by"] == "numbers:8"
    assert document["groups"] == 19
    assert "a guess at patients" in told.err
    rows = read_rows(tmp_path / "t.csv")
    assert rows[0].group == rows[15].group == "numbers-00001"
    for start in range(0, 160, 8):
        assert len({row.split for row in rows[start : start + 8]}) == 1


def test_fit_head_keeps_blocks_together_and_records_it(make_cache):
    X, y, paths = draw()
    path = make_cache(X, y, paths=paths)
    blocks = fit_head(path, head="knn", cv=4, group_by="numbers:8", n_jobs=1).training
    images = fit_head(path, head="knn", cv=4, group_by="none", n_jobs=1).training
    assert blocks.group_by == "numbers:8"
    # Neighbours of one patient are no longer on both sides.
    assert blocks.cv.accuracy.mean < images.cv.accuracy.mean - 0.1


def test_the_groups_of_the_table_are_joined(run, make_cache, tmp_path):
    X, y, paths = draw()
    groups = ["p" if row in (0, 8) else "" for row in range(160)]
    path = make_cache(X, y, paths=paths, groups=groups)
    run("split", path, "-o", tmp_path / "t.csv", "--group-by", "numbers:8")
    assert {row.group for row in read_rows(tmp_path / "t.csv")[:16]} == {"p"}


def test_blocks_that_copies_chain_are_refused(make_cache):
    X, y, paths = draw()
    signature = draw_signatures(160)
    for start in range(8, 80, 8):
        signature[start] = orient_signatures(signature[start - 1 : start], 1)[0]
    path = make_cache(X, y, paths=paths, signature=signature)
    with pytest.raises(TableError, match="copies join 80 of 160 images by one chain of blocks"):
        fit_head(path, head="lda", group_by="numbers:8")


def test_a_folder_is_grouped_by_numbers(run, tmp_path):
    folder = tmp_path / "slices"
    write_phantoms(folder, patients_per_class=6, size=32)
    (folder / "table.csv").unlink()
    told = run("split", folder, "-o", folder / "t.csv", "--group-by", "numbers:40")
    assert told.code == 0
    assert "(numbers:40) is divided" in told.out
