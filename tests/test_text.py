"""Text for people: numbers, tables and lines on a terminal."""

import pytest

from brainfeat.text import align, count_columns, format_metric, wrap


@pytest.mark.parametrize("value", [None, "high", True, float])
def test_what_is_not_a_number_is_not_a_metric(value):
    assert format_metric(value) == "n/a"


def test_the_first_column_is_aligned_to_the_left_and_the_others_to_the_right():
    assert align([("class", "images"), ("a", "5")]) == ["class  images", "a           5"]


def test_columns_of_words_are_aligned_to_the_left():
    rows = [("1", "svm", "C=1"), ("10", "lda", "defaults")]
    assert align(rows, left=(1, 2)) == [" 1  svm  C=1", "10  lda  defaults"]


def test_wide_characters_take_two_columns():
    lines = align([("脑膜瘤", "5"), ("glioma", "10")])
    assert {count_columns(line) for line in lines} == {10}


def test_empty_cells_leave_no_trailing_spaces():
    assert align([("a", "b"), ("", "")]) == ["a  b", ""]


def test_lines_are_broken_at_spaces():
    assert wrap("one two  three", 9) == ["one two", "three"]


def test_a_word_that_is_longer_than_a_line_is_cut():
    assert wrap("a 脑膜瘤脑膜瘤", 5) == ["a", "脑膜", "瘤脑", "膜瘤"]


def test_an_empty_text_is_one_empty_line():
    assert wrap("") == [""]
