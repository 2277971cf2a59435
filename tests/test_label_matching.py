"""Tests of which label belongs to which name."""

import pytest

from brainfeat.errors import TableError
from brainfeat.tables.label_matching import match_labels
from brainfeat.tables.labels import Labels


def match(classes, *names, **options):
    labels = Labels("labels.csv", classes, **options)
    return match_labels(labels, [(name,) for name in names], noun="patient", named=True)


CASES = {
    "equal": ({"p1": "a"}, ["p1"], ["a"]),
    "padded name": ({"2": "a", "11": "b"}, ["00002", "00011"], ["a", "b"]),
    "padded key": ({"00002": "a"}, ["2"], ["a"]),
    "zero": ({"0": "a"}, ["000"], ["a"]),
    "equal before the same number": ({"2": "a", "02": "b"}, ["02", "2"], ["b", "a"]),
    "two keys of one number": ({"2": "a", "002": "b", "p": "c"}, ["02", "p"], ["", "c"]),
    "two names of one number": ({"2": "a", "p": "c"}, ["02", "002", "p"], ["", "", "c"]),
    "an equal name takes the number": ({"2": "a"}, ["2", "002"], ["a", ""]),
    "start": ({"TCGA_CS_4941": "a"}, ["TCGA_CS_4941_19960909"], ["a"]),
    "longest start": ({"p": "a", "p_1": "b"}, ["p_1_x", "p_2"], ["b", "a"]),
    "a start ends at a separator": ({"p1": "a", "p10": "b"}, ["p10-x", "p1.x"], ["b", "a"]),
    "no start within a word": ({"p1": "a", "q": "b"}, ["p11", "q"], ["", "b"]),
    "unknown class": ({"p1": "", "p2": "a"}, ["p1", "p2"], ["", "a"]),
    "case counts": ({"P1": "a", "q": "b"}, ["p1", "q"], ["", "b"]),
    "not paths": ({"../../etc/passwd": "a", "q": "b"}, ["passwd", "q"], ["", "b"]),
    "other digits": ({"２": "a", "q": "b"}, ["2", "q"], ["", "b"]),
}


@pytest.mark.parametrize("what", CASES)
def test_matches(what):
    classes, names, expected = CASES[what]
    assert match(classes, *names).classes == expected


def test_every_mismatch_is_described_once_a_patient():
    found = match(
        {"1": "a", "2": "b", "p": "c", "q": "", "gone": "a"},
        *("0001", "0001", "2", "p_x", "q", "new", "new"),
        repeated=3,
    )
    assert list(found.describe(named=True)) == [
        "1 patient of 5 without a row in 'labels.csv', such as 'new'; no label is known",
        "1 row of 'labels.csv' without a label",
        "no patient matches 1 row of 'labels.csv', such as 'gone'",
        "1 patient matched with 'labels.csv' as numbers, such as '0001' by '1'",
        "1 patient matched with 'labels.csv' by the start of their names, such as 'p_x' by 'p'",
        "3 rows of 'labels.csv' repeated",
    ]
    for sentence in found.describe(named=False):
        assert not any(name in sentence for name in ("new", "gone", "0001", "p_x"))


def test_what_matches_by_name_needs_no_words():
    assert list(match({"p1": "a"}, "p1", "p1").describe(named=True)) == []


@pytest.mark.parametrize("named", [True, False])
def test_keys_that_match_nothing_are_refused(named):
    labels = Labels("labels.csv", {"a-1": "x"})
    with pytest.raises(TableError, match=r"no key of 'labels.csv' is the name of a patient") as it:
        match_labels(labels, [("p1",), ()], noun="patient", named=named)
    assert ("as 'a-1' and 'p1'" in str(it.value)) == named
    assert "group_level=N" in str(it.value)
    with pytest.raises(TableError, match="no key"):
        match_labels(labels, [(), ()], noun="patient", named=named)


def test_a_first_line_that_is_a_patient_is_refused():
    with pytest.raises(TableError, match="has a patient in its first line"):
        match({"p2": "a"}, "p1", "p2", header="p1")


def test_the_first_of_several_names_counts():
    labels = Labels("labels.csv", {"1.png": "a", "1": "b"})
    names = [("a/1.png", "a/1", "1.png", "1"), ("1",)]
    assert match_labels(labels, names, noun="image", named=True).classes == ["a", "b"]


def test_what_has_no_name_is_described():
    found = match_labels(Labels("l.csv", {"p1": "a"}), [("p1",), ()], noun="patient", named=False)
    (sentence,) = found.describe(named=False)
    assert sentence == "some patients have no name that 'l.csv' could list; no label is known"
    assert found.classes == ["a", ""]
