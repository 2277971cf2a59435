"""The audit: each finding is planted and found; a clean set has none."""

import csv
import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import draw_signatures

from brainfeat import FeatureCache, read_table
from brainfeat.cache.signature import (
    ORIENTATIONS,
    SIGNATURE_SIZE,
    compute_signature,
    orient_signatures,
)
from brainfeat.cli.audit import command
from brainfeat.errors import CacheError, ParameterError
from brainfeat.leakage import copy_groups
from brainfeat.leakage.auditing import audit, audit_duplicates
from brainfeat.leakage.copies import find_copies
from brainfeat.leakage.overlap import find_overlap
from brainfeat.leakage.pairs import list_pairs
from brainfeat.leakage.results import Audit, AuditSummary, LabelConflict
from brainfeat.phantoms import draw_slice

IMAGES, WIDTH = 400, 64
NAMES = [f"image-{row:03}.png" for row in range(IMAGES)]


def draw(seed=0):
    """Draw images of four classes that are all different, the last 100 of them for the test."""
    rng = np.random.default_rng(seed)
    y = np.arange(IMAGES) % 4
    X = rng.standard_normal((IMAGES, WIDTH)) + 0.3 * rng.standard_normal((4, WIDTH))[y]
    return X.astype(np.float32), y, np.repeat(["train", "val", "test"], [250, 50, 100])


@pytest.fixture
def examine(make_cache):
    """Give a function that audits a cache of vectors."""

    def examine(X, y, *, how=audit, options=(), **columns):
        with FeatureCache.open(make_cache(X, y, **columns)) as cache:
            return how(cache, **dict(options))

    return examine


def test_a_clean_set_has_no_findings(examine):
    X, y, splits = draw()
    found = examine(X, y, splits=splits)
    assert found.findings == []
    assert found.images == IMAGES
    assert vars(found.exact_duplicates) == {
        "groups": 0,
        "files": 0,
        "cross_split_groups": 0,
        "test_files": 0,
    }
    assert found.near_duplicates.clusters == found.near_duplicates.test_files == 0
    assert (found.near_duplicates.largest, found.near_duplicates.sizes) == (1, (1,))
    assert found.label_conflicts == ()
    assert found.shortcut.accuracy == pytest.approx(found.shortcut.chance, abs=0.05)
    assert found.permutation.accuracy == pytest.approx(found.permutation.chance, abs=0.01)


def test_exact_duplicates_are_counted(examine):
    X, y, splits = draw()
    contents = NAMES.copy()
    # Two within train; three over train and test, two of them in test; one over val and test.
    for copy, original in ((1, 0), (398, 2), (399, 2), (397, 260), (12, 11)):
        contents[copy], X[copy], y[copy] = contents[original], X[original], y[original]
    found = examine(X, y, splits=splits, contents=contents)
    assert vars(found.exact_duplicates) == {
        "groups": 4,
        "files": 9,
        "cross_split_groups": 2,
        "test_files": 3,
    }
    assert found.near_duplicates.clusters == 4
    assert found.findings[0] == (
        "exact duplicates are in several splits: 2 groups, 3 test images with a copy in train or "
        "val"
    )
    assert not any("labels" in finding for finding in found.findings[:2])


def test_copies_are_counted_by_orientation_whatever_their_features(examine):
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    # Two test images are mirrored copies of one training image, one is upside down, and one train
    # image is a copy of another.
    for copy, original, turn in ((396, 0, 1), (392, 0, 1), (397, 257, 2), (5, 1, 0)):
        signature[copy] = orient_signatures(signature[original], turn)
    found = examine(X, y, splits=splits, signature=signature)
    copies = found.copies
    assert (copies.groups, copies.images, copies.cross_split_groups) == (3, 7, 2)
    assert copies.test_files == 3
    assert copies.by_orientation == {"flip_left_right": 2, "flip_top_bottom": 1}
    assert found.exact_duplicates.groups == found.near_duplicates.clusters == 0
    [finding] = found.findings
    assert finding == (
        "copies are in several splits: 2 groups, 3 test images with a copy in train or val, 3 of "
        "them mirrored or turned"
    )


def test_a_test_image_counts_by_its_most_similar_copy(examine):
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    signature[399] = orient_signatures(signature[3], 1)
    signature[7] = signature[399]
    signature[3, :60] //= 2
    found = examine(X, y, splits=splits, signature=signature)
    assert found.copies.by_orientation == {"upright": 1}


def test_copies_of_different_labels_are_named_with_their_orientation(examine):
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    signature[399] = orient_signatures(signature[0], ORIENTATIONS.index("rotate_90"))
    found = examine(X, y, splits=splits, signature=signature)
    assert found.label_conflicts == (
        LabelConflict(
            kind="copies",
            paths=("image-00000.png", "image-00399.png"),
            labels=("glioma", "pituitary"),
            orientation="rotate_270",
        ),
    )
    assert found.findings[0] == "copies have different labels: 1 pair"
    assert Audit.from_json(json.dumps(found.to_dict())) == found
    summary = found.summary()
    assert AuditSummary.from_dict(summary.to_dict()) == summary


def test_a_conflict_is_found_by_the_labelled_file_of_a_content(examine):
    """Image 0 has no label; its exact duplicate 4 has, and image 399 is a mirrored copy of both."""
    X, y, splits = draw()
    signature, contents = draw_signatures(IMAGES), NAMES.copy()
    X[4], contents[4], signature[4] = X[0], contents[0], signature[0]
    signature[399] = orient_signatures(signature[0], 1)
    y[0] = -1
    found = examine(X, y, splits=splits, signature=signature, contents=contents)
    assert [conflict.paths for conflict in found.label_conflicts] == [
        ("image-00004.png", "image-00399.png")
    ]


def test_a_mirrored_pair_of_two_labels_is_named_as_copies_also_where_its_features_are_alike(
    examine,
):
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    signature[399], X[399] = orient_signatures(signature[0], 1), X[0] + 1e-4
    found = examine(X, y, splits=splits, signature=signature)
    assert found.near_duplicates.clusters == 1
    assert [(c.kind, c.orientation) for c in found.label_conflicts] == [
        ("copies", "flip_left_right")
    ]


def test_exact_duplicates_are_no_further_conflicts_of_copies(examine):
    X, y, splits = draw()
    signature, contents = draw_signatures(IMAGES), NAMES.copy()
    for copy in (1, 2):
        X[copy], contents[copy], signature[copy] = X[0], contents[0], signature[0]
    found = examine(X, y, splits=splits, signature=signature, contents=contents)
    assert [conflict.kind for conflict in found.label_conflicts] == ["exact-duplicates"]
    assert (found.copies.groups, found.copies.images) == (1, 3)


def test_a_test_image_that_only_a_chain_connects_with_train_has_no_copy_there(examine):
    X, y, splits = draw()
    signature, rng = draw_signatures(IMAGES), np.random.default_rng(1)
    link = rng.normal(size=(3, SIGNATURE_SIZE))
    for row in (1, 2):  # 0 and 1, and 1 and 2, have a cosine of 0.955; 0 and 2 of its square, 0.912
        link[row] = 0.955 * link[row - 1] + np.sqrt(1 - 0.955**2) * link[row]
    signature[[0, 398, 399]] = (30 * link).round().clip(-127, 127)
    found = examine(X, y, splits=splits, signature=signature).copies
    assert (found.groups, found.images) == (1, 3)
    assert found.test_files == 1
    assert found.by_orientation == {"upright": 1}


def test_blank_images_are_copies_of_nothing(examine):
    X, y, splits = draw()
    signature, contents = draw_signatures(IMAGES), NAMES.copy()
    signature[[0, 398, 399]] = 0
    X[399], contents[399], y[399] = X[398], contents[398], y[398]
    found = examine(X, y, splits=splits, signature=signature, contents=contents)
    assert found.exact_duplicates.groups == 1
    assert (found.copies.groups, found.copies.test_files) == (0, 0)


def test_a_content_is_searched_once_however_many_files_have_it(examine, monkeypatch):
    sizes = []

    def count(signatures, **options):
        sizes.append(len(signatures))
        return find_copies(signatures, **options)

    monkeypatch.setattr(copy_groups, "find_copies", count)
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    contents = [NAMES[0]] * 300 + NAMES[300:]
    signature[:300], X[:300], y[:300] = signature[0], X[0], y[0]
    found = examine(X, y, splits=splits, signature=signature, contents=contents)
    assert sizes == [101]
    assert (found.copies.groups, found.copies.images) == (1, 300)


def test_without_signatures_copies_are_not_looked_for(examine):
    X, y, splits = draw()
    assert examine(X, y, splits=splits).copies is None
    signature = draw_signatures(IMAGES)
    few = {"signature": signature, "how": lambda cache: audit_duplicates(cache, limit=IMAGES - 1)}
    assert examine(X, y, splits=splits, **few).copies is None
    assert examine(X, y, splits=splits, signature=signature, how=audit_duplicates).copies


def test_near_duplicates_are_clustered(examine):
    X, y, splits = draw()
    rng = np.random.default_rng(1)
    for copy, original in ((399, 0), (398, 0), (20, 21), (19, 20)):
        X[copy] = X[original] + 0.05 * rng.standard_normal(WIDTH)
        y[copy] = y[original]
    found = examine(X, y, splits=splits)
    near = found.near_duplicates
    assert (near.clusters, near.images, near.sizes) == (2, 6, (3, 3))
    assert (near.cross_split_clusters, near.test_files, near.chained) == (1, 2, False)
    assert found.exact_duplicates.groups == 0
    assert found.clusters[0] == found.clusters[398] == found.clusters[399]
    assert "near duplicates are in several splits: 1 cluster, 2 test images" in found.findings[0]


def test_labels_that_contradict_each_other_are_named(examine):
    X, y, splits = draw()
    contents = NAMES.copy()
    contents[1], X[1], y[0], y[1] = contents[0], X[0], 2, 3
    X[6], y[5], y[6] = X[5] * 1.001, 0, 1
    X[8], y[8] = X[7] * 1.001, -1  # a label that is not known contradicts none
    found = examine(X, y, splits=splits, contents=contents)
    assert found.label_conflicts == (
        LabelConflict(
            kind="exact-duplicates",
            paths=("image-00000.png", "image-00001.png"),
            labels=("notumor", "pituitary"),
        ),
        LabelConflict(
            kind="near-duplicates",
            paths=("image-00005.png", "image-00006.png"),
            labels=("glioma", "meningioma"),
        ),
    )
    assert found.findings == [
        "exact duplicates have different labels: 1 group",
        "near duplicates have different labels: 1 cluster",
    ]


def test_an_audit_comes_back_from_json(examine):
    X, y, splits = draw()
    X[399], y[399], y[0] = X[0] * 1.001, 1, 2
    found = examine(X, y, splits=splits)
    assert len(found.label_conflicts) == 1
    text = json.dumps(found.to_dict(), allow_nan=False)
    read = Audit.from_json(text)
    assert read == found
    assert read.findings == found.findings == json.loads(text)["findings"]
    with pytest.raises(ParameterError, match="kind"):
        Audit.from_json(text.replace('"near-duplicates"', '"triplets"'))


def test_an_audit_read_from_json_is_of_no_cache(make_cache):
    X, y, splits = draw()
    with FeatureCache.open(make_cache(X, y, splits=splits)) as cache:
        read = Audit.from_json(json.dumps(audit_duplicates(cache).to_dict()))
        with pytest.raises(ParameterError, match="the audit is not that of"):
            find_overlap(cache, np.arange(10), np.arange(10), audit=read)


def test_a_summary_names_no_image(examine):
    X, y, splits = draw()
    X[399], y[399], y[0] = X[0] * 1.001, 1, 2
    found = examine(X, y, splits=splits)
    summary = found.summary()
    assert summary.label_conflicts == 1
    assert summary.findings == tuple(found.findings)
    assert "image-" not in json.dumps(summary.to_dict())
    assert AuditSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary


def test_a_patient_on_both_sides_is_found(examine):
    X, y, splits = draw()
    groups = [f"p{row // 2}" for row in range(IMAGES)]
    groups[0] = groups[399] = "px"
    groups[1] = groups[398] = ""
    found = examine(X, y, splits=splits, groups=groups)
    assert found.groups_across_splits == 1
    assert found.findings == ["groups of the table are in several splits: 1"]


@pytest.mark.parametrize("column", ["file_bytes", "sources"])
def test_a_shortcut_is_found(examine, column):
    X, y, splits = draw()
    noise = np.random.default_rng(0).integers(0, 2, IMAGES) * (np.arange(IMAGES) % 5 == 0)
    values = {"file_bytes": 1000 * (y + noise), "sources": [f"site {label}" for label in y]}
    found = examine(X, y, splits=splits, **{column: values[column]})
    assert found.shortcut.accuracy > 0.8
    assert found.findings[0].startswith("the class can be predicted without the pixels: width")


def test_shuffled_labels_are_predicted_through_copies(examine):
    """Half of the test images are copies: a quarter of the others is right by chance."""
    X, y, splits = draw()
    X[300:350], y[300:350] = X[:50] * 1.001, y[:50]
    found = examine(X, y, splits=splits)
    assert found.permutation.accuracy == pytest.approx(0.5 + 0.5 / 4, abs=0.03)
    assert "shuffled labels are predicted" in found.findings[-1]


def test_without_splits_nothing_is_across_them(examine):
    X, y, _ = draw()
    contents = NAMES.copy()
    contents[1], X[1], y[1] = contents[0], X[0], y[0]
    found = examine(X, y, contents=contents)
    assert vars(found.exact_duplicates) == {
        "groups": 1,
        "files": 2,
        "cross_split_groups": 0,
        "test_files": 0,
    }
    assert found.permutation.protocol == "each of 5 grouped folds, by the others"
    assert found.findings == []


def test_one_chain_of_many_is_no_set_of_copies(examine):
    X, y, splits = draw()
    X[:200] = X[0] + 0.01 * X[:200]
    found = examine(X, y, splits=splits)
    assert found.near_duplicates.chained
    assert "one chain joins 200 of 400 images" in found.findings[0]


def test_few_images_of_a_class_have_no_controls(examine):
    X, y, splits = draw()
    y[:] = np.where(np.arange(IMAGES) < 3, 1, 0)
    found = examine(X, y)
    assert found.shortcut is found.permutation is None
    assert examine(X, np.zeros(IMAGES, int), splits=splits).permutation is None


def test_views_are_no_images(examine):
    X, y, splits = draw()
    both = {"paths": [*NAMES, *NAMES], "view": np.repeat([0, 1], IMAGES)}
    found = examine(np.concatenate([X, X]), np.tile(y, 2), splits=np.tile(splits, 2), **both)
    assert (found.images, found.exact_duplicates.groups, found.near_duplicates.clusters) == (
        IMAGES,
        0,
        0,
    )
    assert set(found.clusters[IMAGES:]) == {-1}


def test_an_audit_of_duplicates_has_no_controls(examine):
    X, y, splits = draw()
    fast = examine(X, y, splits=splits, how=audit_duplicates)
    whole = examine(X, y, splits=splits)
    assert fast.shortcut is fast.permutation is None
    assert fast.near_duplicates == whole.near_duplicates
    large = examine(X, y, splits=splits, how=audit_duplicates, options={"limit": IMAGES - 1})
    assert large.near_duplicates is None
    assert large.findings == []


def test_what_cannot_be_audited_is_refused(examine):
    X, y, _ = draw()
    X[3, 3] = np.nan
    with pytest.raises(CacheError, match="not finite in 1 of 400 rows"):
        examine(X, y)
    with pytest.raises(ParameterError, match=r"threshold 1\.5"):
        examine(*draw()[:2], options={"threshold": 1.5})
    with pytest.raises(CacheError, match="has no images"):
        examine(np.empty((0, 4)), [])


def test_overlap_separates_exact_from_near_duplicates(make_cache):
    X, y, splits = draw()
    contents = NAMES.copy()
    contents[399], X[399] = contents[0], X[0]
    X[398] = X[1] * 1.001
    X[397] = X[396] * 1.001  # alike, but both in test
    with FeatureCache.open(make_cache(X, y, splits=splits, contents=contents)) as cache:
        test, train = np.arange(300, 400), np.arange(300)
        overlap = find_overlap(cache, test, train)
        assert np.flatnonzero(overlap.exact_duplicates).tolist() == [99]
        assert np.flatnonzero(overlap.near_duplicates).tolist() == [98, 99]
        assert overlap.clusters[97] == overlap.clusters[96]
        assert len(set(overlap.clusters)) == 99
        itself = find_overlap(cache, train[:5], train)
        assert itself.exact_duplicates.all()
        nothing = find_overlap(cache, test, np.empty(0, int))
        assert not nothing.near_duplicates.any()


def test_an_image_on_both_sides_counts_once(make_cache):
    X, y, splits = draw()
    X[:200] += 2
    every = np.arange(IMAGES)
    with FeatureCache.open(make_cache(X, y, splits=splits)) as cache:
        alone = find_overlap(cache, every, np.empty(0, int), threshold=0.5)
        twice = find_overlap(cache, every, every[:200], threshold=0.5)
    np.testing.assert_array_equal(twice.clusters, alone.clusters)
    assert twice.chain == alone.chain


def test_the_public_set_has_216_test_images_that_are_in_train(real_data, examine):
    table = read_table(real_data / "data" / "brain-mri")
    contents = [
        hashlib.sha256(table.absolute_path(row).read_bytes()).hexdigest()
        for row in range(len(table))
    ]
    first = {content: row for row, content in reversed(list(enumerate(contents)))}
    X = np.random.default_rng(0).standard_normal((len(table), 64)).astype(np.float32)
    found = examine(
        X[[first[content] for content in contents]],
        table.label_indices,
        how=audit_duplicates,
        splits=table.splits,
        contents=contents,
    )
    assert vars(found.exact_duplicates) == {
        "groups": 300,
        "files": 726,
        "cross_split_groups": 189,
        "test_files": 216,
    }
    assert found.near_duplicates.clusters == 300
    assert found.label_conflicts == ()


class TestCommand:
    @pytest.fixture
    def leaky(self, make_cache):
        X, y, splits = draw()
        X[398] = X[1] + 0.05 * X[2]
        paths = [f"{'=cmd' if row == 398 else 'x'}/{name}" for row, name in enumerate(NAMES)]
        return make_cache(X, y, splits=splits, paths=paths)

    def run(self, *arguments):
        return CliRunner().invoke(command, list(map(str, arguments)))

    def test_json_has_the_keys_of_the_interface(self, leaky):
        document = json.loads(self.run(leaky, "--json").stdout)
        assert set(document) == {
            "images",
            "exact_duplicates",
            "copies",
            "near_duplicates",
            "groups_across_splits",
            "patient_key",
            "class_sources",
            "label_conflicts",
            "shortcut",
            "permutation",
            "findings",
            "generated",
        }
        assert {"groups", "test_files"} <= set(document["exact_duplicates"])
        assert {"threshold", "clusters"} <= set(document["near_duplicates"])
        assert {"accuracy", "chance"} <= set(document["shortcut"])

    @pytest.mark.slow
    def test_strict_ends_with_3_where_something_is_found(self, leaky, make_cache):
        assert self.run(leaky).exit_code == 0
        assert self.run(leaky, "--strict").exit_code == 3
        assert self.run(leaky, "--strict", "--threshold", "1").exit_code == 0
        X, y, splits = draw()
        clean = self.run(make_cache(X, y, splits=splits), "--strict")
        assert (clean.exit_code, "Nothing was found." in clean.stdout) == (0, True)

    def test_it_says_what_was_found(self, leaky):
        printed = self.run(leaky).stdout
        assert "1 cluster" in printed.split("Found:")[1]
        assert "at a similarity of 0.92; largest: 2" in printed

    def test_it_says_where_altered_copies_were_not_looked_for(self, make_cache, monkeypatch):
        X, y, splits = draw()
        path = make_cache(X, y, splits=splits, signature=draw_signatures(IMAGES))
        words = "not looked for among so many: rotated, cropped or padded ones"
        assert words not in self.run(path).stdout
        monkeypatch.setattr(copy_groups, "ALTERED_SEARCH_LIMIT", IMAGES - 1)
        assert words in self.run(path).stdout

    def test_pairs_go_to_a_csv_that_no_spreadsheet_runs(self, leaky, tmp_path):
        pairs = tmp_path / "pairs.csv"
        assert self.run(leaky, "--pairs", pairs).exit_code == 0
        with pairs.open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert row["first"] == "x/image-001.png"
        assert row["second"] == "'=cmd/image-398.png"
        assert (row["split_first"], row["split_second"]) == ("train", "test")
        assert float(row["similarity"]) > 0.99
        with pytest.raises(Exception, match="overwrite=True"):
            CliRunner().invoke(command, [str(leaky), "--pairs", str(pairs)], catch_exceptions=False)

    def test_another_table_says_the_splits(self, leaky, tmp_path):
        table = tmp_path / "table.csv"
        rows = [f"{'=cmd' if row == 398 else 'x'}/{name}" for row, name in enumerate(NAMES)]
        lines = [f"{path},a,{'train' if row != 5 else 'test'}" for row, path in enumerate(rows)]
        table.write_text("\n".join(["path,label,split", *lines]))
        document = json.loads(self.run(leaky, "--json", "--table", table).stdout)
        assert document["near_duplicates"]["clusters"] == 1
        assert document["near_duplicates"]["cross_split_clusters"] == 0
        table.write_text("\n".join(["path,label,split", *lines[1:]]))
        with pytest.raises(CacheError, match=r"does not list \(first: x/.*begins with x/"):
            CliRunner().invoke(command, [str(leaky), "--table", str(table)], catch_exceptions=False)


def test_pairs_are_listed_once(make_cache):
    X, y, splits = draw()
    X[398] = X[399] = X[1] * 1.001
    with FeatureCache.open(make_cache(X, y, splits=splits)) as cache:
        pairs = [(pair.first, pair.second) for pair in list_pairs(cache)]
    assert len(pairs) == len(set(pairs)) == 3


def test_copies_are_listed_with_their_orientation_beside_near_duplicates(make_cache):
    X, y, splits = draw()
    X[398] = X[1] * 1.001
    signature = draw_signatures(IMAGES)
    signature[399] = orient_signatures(signature[3], ORIENTATIONS.index("rotate_90"))
    slice_ = draw_slice("glioma", patient=0, level=4)
    signature[5], signature[397] = map(compute_signature, (slice_, slice_[10:-10, -10:10:-1]))
    with FeatureCache.open(make_cache(X, y, splits=splits, signature=signature)) as cache:
        copy, altered, near = list_pairs(cache)
    assert (altered.kind, altered.orientation) == ("altered-copies", "flip_left_right")
    assert (altered.first, altered.second) == ("image-00005.png", "image-00397.png")
    assert 0.98 <= altered.similarity < 1
    assert (copy.kind, copy.first, copy.second) == ("copies", "image-00003.png", "image-00399.png")
    assert (copy.orientation, copy.similarity) == ("rotate_270", 1.0)
    assert (copy.split_first, copy.split_second) == ("train", "test")
    assert (near.kind, near.first, near.second) == (
        *("near-duplicates", "image-00001.png", "image-00398.png"),
    )
    assert near.orientation == ""
