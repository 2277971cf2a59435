"""Images that a program generated: they are trained on, and nothing is measured on them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.bands import Blocks

from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.main import load_command
from brainfeat.errors import CacheError, TableError
from brainfeat.extraction.augmentation import Augmentation
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.style_targets import StyleTargets
from brainfeat.heads.bags import BagRule
from brainfeat.heads.record import FitRecord
from brainfeat.leakage.auditing import audit, audit_duplicates
from brainfeat.leakage.generated import find_memorised
from brainfeat.leakage.matching import match_caches
from brainfeat.readers import read_pixels
from brainfeat.tables.inventory import Inventory
from brainfeat.tables.table import read_table, write_table
from brainfeat.training.fitting import fit_head
from brainfeat.training.partition import Partition

HEADER = "path,label,split,group,source,origin"
CLASSES = ("glioma", "notumor")
# Generated images of each class: of content of their own; the first of a class copies others.
MADE = 6


def paint(path, seed, label):
    """Draw a smooth picture whose brightness tells the class."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 120, (6, 6)).astype(np.float32) + 100 * label
    image = Image.fromarray(coarse.astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    path.parent.mkdir(exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of 36 real images and 12 generated ones, three of them copies, as a CSV."""
    root = tmp_path_factory.mktemp("generated")
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(18):
            split = ("train", "val", "test")[max(0, number // 3 - 3)]
            path = f"real/{name}-{number:02}.png"
            paint(root / path, 100 * label + number, label)
            rows.append(f"{path},{name},{split},,hospital,")
        for number in range(MADE):
            path = f"made/{name}-{number}.png"
            paint(root / path, 5000 + 100 * label + number, label)
            rows.append(f"{path},{name},train,,gan,generated")
    # A file of the test split, one of train mirrored, and one of val brightened.
    (root / "made/glioma-0.png").write_bytes((root / "real/glioma-17.png").read_bytes())
    mirrored = Image.open(root / "real/glioma-00.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(root / "made/glioma-1.png")
    pixels = np.asarray(Image.open(root / "real/notumor-14.png"))
    Image.fromarray((pixels * 0.95 + 5).astype(np.uint8)).save(root / "made/notumor-0.png")
    (root / "table.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def cache_path(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("caches") / "features.h5"
    extract(folder / "table.csv", output, backbone=Blocks(), augment=1)
    return output


@pytest.fixture(scope="module")
def head(cache_path):
    return fit_head(cache_path, head="lda")


@pytest.fixture
def cache(cache_path):
    with FeatureCache.open(cache_path) as cache:
        yield cache


def ask(name, *words):
    """Run a command with --json and read what it prints."""
    result = CliRunner().invoke(load_command(name), [*map(str, words), "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


class TestTable:
    def test_has_the_origin_of_each_image(self, folder, tmp_path):
        table = read_table(folder / "table.csv")
        assert table.origins.count("generated") == 2 * MADE
        assert table.row(18).origin == "generated"
        written = write_table(table, folder / "again.csv", overwrite=True)
        assert read_table(written) == table
        written.unlink()

    def test_has_none_without_the_column(self, folder):
        rows = (folder / "table.csv").read_text().splitlines()
        plain = folder / "plain.csv"
        plain.write_text("\n".join(row.rpartition(",")[0] for row in rows))
        table = read_table(plain)
        plain.unlink()
        assert {*table.origins} == {""}

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("real/glioma-00.png,glioma,train,,,gan", "line 2.*has the origin 'gan'; expected gen"),
            ("real/glioma-00.png,glioma,test,,,generated", "line 2.*is in the split 'test'"),
            ("real/glioma-00.png,glioma,val,,,Generated", "line 2.*is in the split 'val'"),
            ("real/glioma-00.png,glioma,train,p1,,generated", "line 2.*has the group 'p1'"),
        ],
    )
    def test_refuses_other_rows(self, folder, row, message):
        path = folder / "bad.csv"
        path.write_text(f"{HEADER}\n{row}\n")
        with pytest.raises(TableError, match=message):
            read_table(path)
        path.unlink()

    def test_is_counted_apart(self, folder):
        inventory = Inventory.of(read_table(folder / "table.csv"))
        assert inventory.generated == 12
        assert inventory.classes["glioma"] == {"train": 12, "val": 3, "test": 3, "without": 0}
        assert "12 generated images to train on, in no split" in inventory.describe_classes()

    def test_generated_images_are_no_style_targets(self, folder):
        table = read_table(folder / "table.csv")
        with pytest.raises(TableError, match=r"of one source \('hospital'\)"):
            StyleTargets(
                table, Augmentation(style="histogram"), read=read_pixels, crop="", n_jobs=1
            )


class TestCache:
    def test_generated_images_are_in_no_split(self, cache):
        assert cache.origin.sum() == 24  # with a view each
        assert not cache.mask(views=True)[cache.is_generated].any()
        assert cache.mask("train").sum() == 24
        assert cache.is_image.sum() == 36
        assert cache.table["origin"].sum() == 24

    def test_another_table_cannot_measure_on_them(self, cache):
        protocol = dict.fromkeys(cache.paths.tolist(), ("train", ""))
        made, real = "made/glioma-2.png", "real/glioma-00.png"
        for cell in (("test", ""), ("train", "p1")):
            with pytest.raises(CacheError, match="is a generated image, which the table has in"):
                cache.assign({**protocol, made: cell})
        with pytest.raises(CacheError, match=r"real/glioma-00.png is generated in the table and"):
            cache.assign(protocol, generated={real, made})

    def test_a_rerun_computes_nothing(self, folder, cache_path):
        result = extract(folder / "table.csv", cache_path, backbone=Blocks(), augment=1)
        assert (result.computed, result.rows) == (0, 36 + 24 + 24)


class TestCopies:
    def test_are_found_by_content_and_by_pixels(self, cache):
        found = {*cache.paths[find_memorised(cache)].tolist()}
        assert found == {"made/glioma-0.png", "made/glioma-1.png", "made/notumor-0.png"}

    def test_are_told_by_the_audit(self, cache):
        found = audit(cache)
        assert found.images == 36
        assert found.generated is not None
        counts = vars(found.generated)
        assert counts == {
            "images": 12,
            "copies": 3,
            "train": 1,
            "val": 1,
            "test": 1,
            "searched": True,
        }
        assert found.findings[0].startswith("generated images are copies of real ones: 3 of 12, 1")
        assert (found.copy_clusters[cache.is_generated] == -1).all()

    def test_are_exact_duplicates_without_signatures(self, folder, tmp_path):
        output = tmp_path / "f.h5"
        extract(folder / "table.csv", output, backbone=Blocks(), signature=False)
        with FeatureCache.open(output) as cache:
            found = audit_duplicates(cache).generated
            assert (found.copies, found.test, found.searched) == (1, 1, False)

    def test_other_caches_are_not_compared_with_them(self, cache, folder, tmp_path):
        extract(folder / "real", tmp_path / "real.h5", backbone=Blocks())
        with FeatureCache.open(tmp_path / "real.h5") as other:
            assert len(match_caches([cache, other]).images[0]) == 36


class TestPartition:
    def test_generated_rows_are_units_of_no_split_and_no_fold(self, cache):
        partition = Partition.read(cache, generated=True)
        assert len(partition.generated) == 2 * 9
        assert {*cache.origin[partition.rows[partition.generated]]} == {1}
        assert len(partition.splits["train"]) == 36
        assert not np.isin(partition.splits["train"], partition.generated).any()
        folded = partition.with_folds(3, random_state=0)
        scored = np.concatenate([test for _, test in folded.folds])
        assert not np.isin(scored, partition.generated).any()

    def test_a_head_is_fitted_on_all_of_them(self, cache):
        partition = Partition.read(cache, generated=True)
        images = partition.splits["train"][:3]
        rows = partition.training_rows(images)
        assert {*rows} == {*partition.rows_of(images), *partition.generated}

    def test_others_read_none(self, cache):
        partition = Partition.read(cache)
        assert not len(partition.generated)
        assert not cache.origin[partition.rows].any()
        np.testing.assert_array_equal(
            partition.training_rows(partition.splits["train"]), np.arange(len(partition.y))
        )

    def test_heads_of_groups_refuse_them(self, cache):
        with pytest.raises(TableError, match="12 generated images, which are in no group"):
            Partition.read(cache, BagRule(pooling="mean"), generated=True)


class TestFit:
    def test_the_record_counts_them(self, head):
        record = head.training
        assert vars(record.generated) == {"images": 9, "rows": 18, "copies": 3, "test_copies": 1}
        assert vars(record.split) == {"train": 24, "val": 6, "test": 6}
        assert FitRecord.from_json(json.dumps(record.to_dict())).generated == record.generated
        assert "generated" not in FitRecord().to_dict()

    def test_the_head_has_seen_them(self, head, cache):
        made = cache.is_generated & (cache.view == 0) & ~find_memorised(cache)
        assert head.fitted_images.find(cache.sha256[made]).all()

    def test_they_change_the_head_and_no_measured_image(self, head, folder, tmp_path):
        rows = (folder / "table.csv").read_text().splitlines()
        plain = folder / "real.csv"
        plain.write_text("\n".join(row for row in rows if not row.endswith("generated")) + "\n")
        output = tmp_path / "f.h5"
        extract(plain, output, backbone=Blocks(), augment=1)
        plain.unlink()
        other = fit_head(output, head="lda")
        assert other.training.generated is None
        assert other.training.test.n == head.training.test.n == 6
        assert not np.array_equal(other.estimator[-1].coef_, head.estimator[-1].coef_)

    def test_without_splits_all_are_trained_on(self, folder, tmp_path):
        rows = (folder / "table.csv").read_text().splitlines()
        path, output = folder / "whole.csv", tmp_path / "f.h5"
        cells = [row.split(",") for row in rows]
        path.write_text("\n".join(",".join([*row[:2], *row[3:]]) for row in cells) + "\n")
        extract(path, output, backbone=Blocks())
        path.unlink()
        record = fit_head(output, head="lda").training
        assert record.generated.images == 9
        assert sum(vars(record.split).values()) == 36


class TestCommands:
    def test_info_counts_them(self, cache_path):
        assert ask("info", cache_path)["generated"] == 12

    def test_split_keeps_them_in_train(self, folder, cache_path, tmp_path):
        for number, source in enumerate((cache_path, folder / "table.csv")):
            output = folder / f"split{number}.csv"
            document = ask("split", source, "-o", output)
            assert sum(document["images"].values()) == 36
            table = read_table(output)
            output.unlink()
            made = {
                split for split, origin in zip(table.splits, table.origins, strict=True) if origin
            }
            assert (made, table.origins.count("generated")) == ({"train"}, 12)

    def test_evaluate_measures_none(self, head, cache_path, tmp_path):
        head.save(tmp_path / "head.h5")
        document = ask("evaluate", tmp_path / "head.h5", cache_path, "--split", "train")
        assert sum(map(sum, document["confusion_matrix"])) == 24
