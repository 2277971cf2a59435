"""The rows of groups, and bags of their vectors, against plain loops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.groups import GroupRows, list_places, read_groups
from brainfeat.errors import ParameterError, TableError
from brainfeat.heads.bags import POOLINGS, Bags


def open_groups(
    make_cache: Callable[..., Path], groups: list[str], y: list[int], **columns: object
) -> FeatureCache:
    X = np.arange(len(groups), dtype=np.float32)[:, None]
    return FeatureCache.open(make_cache(X, np.array(y), groups=groups, **columns))


def test_rows_of_groups_that_are_not_next_to_each_other(make_cache: Callable[..., Path]) -> None:
    with open_groups(
        make_cache, ["b", "a", "b", "c", "a"], [1, 0, 1, 2, 0], splits=["train"] * 4 + ["train"]
    ) as cache:
        found = read_groups(cache, np.arange(5))
    assert found.names.tolist() == ["b", "a", "c"]
    assert [found.rows_of(np.array([i])).tolist() for i in range(3)] == [[0, 2], [1, 4], [3]]
    assert found.rows_of(np.array([2, 0])).tolist() == [3, 0, 2]
    assert found.y.tolist() == [1, 0, 2]
    assert found.first.tolist() == [0, 1, 3]
    assert found.splits.tolist() == ["train"] * 3
    assert found.place.tolist() == [0, 0, 1, 1, 2]


def test_flags_and_means_of_groups() -> None:
    found = GroupRows(
        names=np.array(["a", "b"]),
        rows=np.array([0, 1, 2]),
        offsets=np.array([0, 2, 3]),
        y=np.array([0, 1]),
        splits=np.array(["", ""]),
    )
    assert found.any(np.array([False, True, False])).tolist() == [True, False]
    assert found.mean(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])).tolist() == [[0.5, 0.5]] * 2


def test_only_chosen_rows_belong_to_a_group(make_cache: Callable[..., Path]) -> None:
    with open_groups(make_cache, ["a", "a", "b"], [0, 1, 1]) as cache:
        found = read_groups(cache, np.array([1, 2]))
    assert found.rows.tolist() == [1, 2]
    assert found.y.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("groups", "y", "splits", "label", "message"),
    [
        (["", ""], [0, 1], None, "same", "has no groups, such as patients"),
        (["a", ""], [0, 1], None, "same", "1 image without a group; expected one for each of 2"),
        (
            ["a", "a", "b"],
            [0, 2, 1],
            None,
            "same",
            "1 group of 2 have images of several classes (first: 'a', 'glioma' and 'notumor')",
        ),
        (
            ["a", "a", "b", "b"],
            [0, 0, 1, 1],
            ["train", "test", "train", "train"],
            "same",
            "1 group of 2 have images in several splits (first: 'a', in 'train' and 'test')",
        ),
        (["a", "a"], [0, 2], None, "any:meningioma", "images of several classes (first: 'a'"),
    ],
)
def test_tables_without_usable_groups_are_refused(
    make_cache: Callable[..., Path],
    groups: list[str],
    y: list[int],
    splits: list[str] | None,
    label: str,
    message: str,
) -> None:
    with (
        open_groups(make_cache, groups, y, splits=splits) as cache,
        pytest.raises(TableError) as error,
    ):
        read_groups(cache, np.arange(len(groups)), label=label)
    assert message in str(error.value)


def test_one_class_can_decide_alone(make_cache: Callable[..., Path]) -> None:
    with open_groups(make_cache, ["a", "a", "b", "b"], [2, 0, 2, 2]) as cache:
        found = read_groups(cache, np.arange(4), label="any:glioma")
        assert found.y.tolist() == [0, 2]
        for rule in ("any:sarcoma", "any:", "all", None):
            with pytest.raises(ParameterError, match="expected same, or any:CLASS"):
                read_groups(cache, np.arange(4), label=rule)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_bags_equal_a_loop_over_them(sizes: list[int], seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((size, 3)).astype(np.float32) for size in sizes]
    bags = Bags(values=np.concatenate(parts), offsets=np.cumsum([0, *sizes]))
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1))
    some = bags[chosen]
    assert len(some) == len(chosen)
    for how, function in zip(POOLINGS, (np.mean, np.max, np.median), strict=True):
        expected = [function(parts[place], axis=0) for place in chosen]
        np.testing.assert_allclose(some.pool(how), expected, atol=1e-6)
    np.testing.assert_array_equal(some.values, np.concatenate([parts[place] for place in chosen]))
    mask = rng.random(len(sizes)) < 0.5
    np.testing.assert_array_equal(bags[mask].sizes, np.array(sizes)[mask])


def test_a_pooling_is_one_of_three() -> None:
    bags = Bags(values=np.zeros((1, 1), np.float32), offsets=np.array([0, 1]))
    with pytest.raises(ParameterError, match="mean, max, median, got 'sum'"):
        bags.pool("sum")


def test_places_of_no_group() -> None:
    assert list_places(np.array([0, 2]), np.empty(0, np.intp)).tolist() == []
