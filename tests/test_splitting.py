"""Splits and folds: no group cut, every row used, stratified within the stated tolerance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.errors import TableError
from brainfeat.leakage.splitting import make_folds, split_rows

# No deadline: a busy machine is no failure.

FRACTIONS = {"val": 0.15, "test": 0.15}

seeds = st.integers(0, 2**31)
class_counts = st.lists(st.integers(5, 60), min_size=1, max_size=4)


@st.composite
def labels(draw):
    """Draw shuffled labels with at least five rows a class."""
    y = np.repeat(np.arange(4), [*draw(class_counts), 0, 0, 0][:4])
    return np.random.default_rng(draw(seeds)).permutation(y)


@st.composite
def patients(draw):
    """Draw labels and groups: each group has one class, each class at least five groups."""
    sizes = draw(
        st.lists(
            st.lists(st.integers(1, 30), min_size=5, max_size=15),
            min_size=1,
            max_size=4,
        )
    )
    y = np.concatenate([np.full(sum(of_class), label) for label, of_class in enumerate(sizes)])
    flat = [size for of_class in sizes for size in of_class]
    groups = np.array([f"p{number}" for number, size in enumerate(flat) for _ in range(size)])
    order = np.random.default_rng(draw(seeds)).permutation(y.size)
    return y[order], groups[order]


def largest_group(y, groups, label):
    return np.unique(groups[y == label], return_counts=True)[1].max()


@given(y=labels(), seed=seeds)
def test_split_without_groups_is_stratified_within_one_row(y, seed):
    parts = split_rows(y, fractions=FRACTIONS, random_state=seed)
    for label in np.unique(y):
        for part, fraction in FRACTIONS.items():
            target = fraction * (y == label).sum()
            assert abs((parts[y == label] == part).sum() - target) <= 1


@given(data=patients(), seed=seeds)
def test_split_with_groups_is_stratified_within_the_largest_group(data, seed):
    y, groups = data
    parts = split_rows(y, fractions=FRACTIONS, groups=groups, random_state=seed)
    for label in np.unique(y):
        for part, fraction in FRACTIONS.items():
            target = fraction * (y == label).sum()
            held_out = (parts[y == label] == part).sum()
            assert abs(held_out - target) <= largest_group(y, groups, label)


@given(data=patients(), seed=seeds)
def test_split_cuts_no_group(data, seed):
    y, groups = data
    parts = split_rows(y, fractions=FRACTIONS, groups=groups, random_state=seed)
    assert all(np.unique(parts[groups == group]).size == 1 for group in np.unique(groups))


@given(data=patients(), seed=seeds)
def test_every_class_is_in_every_part(data, seed):
    y, groups = data
    parts = split_rows(y, fractions=FRACTIONS, groups=groups, random_state=seed)
    assert all(set(parts[y == label]) == {"train", "val", "test"} for label in np.unique(y))


def test_a_class_of_as_few_groups_as_parts_gives_one_to_each():
    y, groups = np.repeat([0, 1], 30), np.arange(60) // 10
    for seed in range(10):
        parts = split_rows(y, fractions=FRACTIONS, groups=groups, random_state=seed)
        assert all(set(parts[y == label]) == {"train", "val", "test"} for label in (0, 1))


@given(y=labels(), seed=seeds, n_groups=st.integers(4, 12))
def test_groups_of_mixed_classes_are_split_whole_or_refused(y, seed, n_groups):
    groups = np.random.default_rng(seed).integers(0, n_groups, y.size)
    try:
        parts = split_rows(y, fractions={"val": 0.3}, groups=groups, random_state=seed)
    except TableError:
        return
    assert all(np.unique(parts[groups == group]).size == 1 for group in np.unique(groups))
    assert all(np.unique(parts[y == label]).size == 2 for label in np.unique(y))


@given(data=patients(), seed=seeds, n_folds=st.integers(2, 5))
def test_folds_use_each_row_once_and_cut_no_group(data, seed, n_folds):
    y, groups = data
    folds = make_folds(y, n_folds=n_folds, groups=groups, random_state=seed)
    tested = np.concatenate([test for _, test in folds])
    assert len(folds) == n_folds
    assert sorted(tested) == list(range(y.size))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(y.size))
        assert not set(groups[train]) & set(groups[test])


@given(data=patients(), seed=seeds, n_folds=st.integers(2, 5))
def test_folds_with_groups_are_stratified_within_the_largest_group(data, seed, n_folds):
    y, groups = data
    for _, test in make_folds(y, n_folds=n_folds, groups=groups, random_state=seed):
        for label in np.unique(y):
            tested, target = (y[test] == label).sum(), (y == label).sum() / n_folds
            assert tested > 0
            assert abs(tested - target) <= largest_group(y, groups, label)


@given(y=labels(), seed=seeds, n_folds=st.integers(2, 5))
def test_folds_without_groups_are_stratified_within_one_row(y, seed, n_folds):
    for _, test in make_folds(y, n_folds=n_folds, random_state=seed):
        counts = np.bincount(y[test], minlength=4) - np.bincount(y, minlength=4) / n_folds
        assert (abs(counts) < 1).all()


@given(data=patients(), seed=seeds)
def test_the_same_random_state_gives_the_same_result(data, seed):
    y, groups = data
    first, second = (
        split_rows(y, fractions=FRACTIONS, groups=groups, random_state=seed) for _ in range(2)
    )
    assert (first == second).all()
    folds, again = (make_folds(y, n_folds=3, groups=groups, random_state=seed) for _ in range(2))
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))


def test_another_random_state_gives_another_split():
    y = np.repeat([0, 1], 50)
    first, second = (split_rows(y, fractions=FRACTIONS, random_state=seed) for seed in (0, 1))
    assert (first != second).any()


def test_group_labels_change_nothing_but_their_meaning():
    y = np.repeat([0, 1, 2], 20)
    numbers = np.arange(60) // 3
    names = np.array([f"patient {number:03d}" for number in numbers])
    by_number, by_name, by_object = (
        split_rows(y, fractions=FRACTIONS, groups=groups)
        for groups in (numbers, names, names.astype(object))
    )
    assert (by_number == by_name).all()
    assert (by_number == by_object).all()


def test_rows_with_an_empty_group_are_not_one_group():
    y = np.repeat([0, 1], 40)
    groups = np.where(np.arange(80) % 2, "", np.char.add("p", (np.arange(80) // 4).astype(str)))
    parts = split_rows(y, fractions={"test": 0.25}, groups=groups)
    assert np.bincount(y[parts == "test"]).tolist() == [10, 10]
    assert set(parts[groups == ""]) == {"train", "test"}


def test_a_part_that_is_not_asked_for_is_empty():
    parts = split_rows(np.repeat([0, 1], 10), fractions={"test": 0.2})
    assert set(parts) == {"train", "test"}


def test_odd_rows_of_the_classes_are_spread_over_the_folds():
    y = np.repeat([0, 1, 2, 3], 7)
    sizes = [len(test) for _, test in make_folds(y, n_folds=5)]
    assert max(sizes) - min(sizes) <= 1


def test_large_groups_are_not_always_in_train():
    y = np.repeat([0, 1], 60)
    groups = np.where(np.arange(120) % 60 < 20, -1 - y, np.arange(120) // 2)
    parts = {
        str(part)
        for seed in range(20)
        for part in split_rows(y, fractions={"test": 0.4}, groups=groups, random_state=seed)[:1]
    }
    assert parts == {"train", "test"}


def test_a_class_with_too_few_images_for_the_split_is_named():
    with pytest.raises(TableError, match=r"class 'glioma' has 2 images; .*needs 3: add images"):
        split_rows([0, 0, 1, 1, 1], fractions=FRACTIONS, class_names=["glioma", "none"])


def test_a_class_with_too_few_groups_for_the_split_is_named():
    with pytest.raises(TableError, match=r"class 1 has images of 1 group of .*needs 2"):
        split_rows([0, 0, 1, 1, 1], fractions={"test": 0.5}, groups=["a", "b", "c", "c", "c"])


def test_fewer_images_of_a_class_than_folds_is_refused():
    with pytest.raises(TableError, match=r"class 'none' has 3 images; 5 folds need 5: ask for"):
        make_folds(np.repeat([0, 1], [9, 3]), n_folds=5, class_names=["glioma", "none"])


def test_fewer_groups_of_a_class_than_folds_is_refused():
    with pytest.raises(TableError, match=r"class 1 has images of 2 groups of .* 3 folds need 3"):
        make_folds(np.repeat([0, 1], 6), n_folds=3, groups=list("abcdefgghhhh"))


def test_groups_that_tie_the_classes_together_are_refused():
    # Three classes, each in two of three groups: whichever group is held out, one class is missing.
    with pytest.raises(TableError, match="every group whole and has every class in every part"):
        split_rows([0, 1, 0, 2, 1, 2], fractions={"test": 0.3}, groups=list("aabbcc"))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({}, "must name"),
        ({"train": 0.5}, "must name"),
        ({"val": 0.0}, "above 0"),
        ({"val": float("nan")}, "above 0"),
        ({"val": 0.5, "test": 0.5}, "sum below 1"),
    ],
)
def test_fractions_that_make_no_split_are_refused(fractions, message):
    with pytest.raises(TableError, match=message):
        split_rows(np.repeat([0, 1], 10), fractions=fractions)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], "non-empty"),
        ([[0, 1]], "shape"),
        ([0.0, 1.0], "dtype"),
        ([0, -1, 1], "unlabelled"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(y, message):
    with pytest.raises(TableError, match=message):
        make_folds(y, n_folds=2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [(["a"], "shape"), ([0.5] * 4, "dtype"), (["a", "b", None, "c"], "dtype")],
)
def test_groups_that_name_no_rows_are_refused(groups, message):
    with pytest.raises(TableError, match=message):
        make_folds([0, 0, 1, 1], n_folds=2, groups=groups)


def test_one_fold_is_refused():
    with pytest.raises(TableError, match="at least 2"):
        make_folds([0, 1], n_folds=1)
