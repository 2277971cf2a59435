"""measure_differences: its p-values, intervals and verdicts, and what they promise together."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from brainfeat.errors import ParameterError
from brainfeat.evaluation.bootstrap import find_differences
from brainfeat.evaluation.paired import ALPHA, adjust_holm, measure_differences

NAMES = ("glioma", "meningioma", "notumor")


def predict(y, right):
    """Return the true class where it is right, else the next one."""
    return np.where(right, y, (y + 1) % 3)


def draw(rng, y, groups, accuracy):
    """Draw what a head predicts that is right or wrong on whole groups."""
    return predict(y, (rng.random(groups.max() + 1) < accuracy)[groups])


def compare(y, plain, others, groups, **options):
    return measure_differences(y, plain, others, groups=groups, class_names=NAMES, **options)


def test_the_p_value_is_that_of_all_signs():
    # 30 groups, of which 9 tell the heads apart: all 512 signs of these can be listed.
    y, groups = np.arange(30) % 3, np.arange(30)
    plain, other = np.ones(30, bool), np.ones(30, bool)
    plain[[0, 1, 2, 3, 4, 5, 6]] = other[[9, 10]] = False
    parts = (other.astype(float) - plain) / 30
    signs = np.array(list(product([-1, 1], repeat=9)))
    flipped = signs @ parts[parts != 0]
    exact = (np.abs(flipped) >= parts.sum() - 1e-12).mean()
    (found,) = compare(y, predict(y, plain), [predict(y, other)], groups, n_flips=99_999).heads
    assert found.difference == pytest.approx(5 / 30)
    assert found.p_value == pytest.approx(exact, abs=0.005)


def test_holm_agrees_with_the_published_example():
    # statsmodels.stats.multitest.multipletests(p, method="holm") gives the same.
    p = [0.01, 0.005, 0.03, 0.04, 0.5]
    assert adjust_holm(p) == pytest.approx([0.04, 0.025, 0.09, 0.09, 0.5])
    assert adjust_holm([0.5, 0.6]).tolist() == [1, 1]
    assert adjust_holm([]).tolist() == []


def test_the_difference_is_that_of_scikit_learn_and_the_interval_near_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(900), 2)
    y = (groups**2) % 7 % 3
    plain, other = draw(rng, y, groups, 0.85), draw(rng, y, groups, 0.87)
    (found,) = compare(y, plain, [other], groups).heads
    expected = balanced_accuracy_score(y, other) - balanced_accuracy_score(y, plain)
    assert found.difference == pytest.approx(expected)
    boot = find_differences(y, plain, other, groups=groups, class_names=NAMES).balanced_accuracy
    assert found.interval == pytest.approx(boot.interval, abs=0.003)
    # Images of one group are right together: taken as independent, they would tell more.
    alone = compare(y, plain, [other], np.arange(1800)).heads[0].interval
    assert np.diff(found.interval) > 1.3 * np.diff(alone)


@pytest.mark.parametrize("seed", range(6))
def test_verdict_interval_and_corrected_p_value_never_contradict(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(150), 2)
    y = groups % 3
    plain = draw(rng, y, groups, 0.8)
    some = [draw(rng, y, groups, accuracy) for accuracy in (0.6, 0.75, 0.8, 0.9, 0.97)]
    almost = plain.copy()
    almost[:2] = y[:2]
    found = compare(y, plain, [*some, almost, plain], groups, n_flips=1999, margin=0.05)
    for head in found.heads:
        low, high = head.interval
        assert low <= head.difference <= high
        assert (head.p_holm <= ALPHA) == (low > 0 or high < 0)
        assert head.p_holm >= head.p_value
        expected = {True: "better" if head.difference > 0 else "worse"}
        expected[False] = "nothing" if low >= -0.05 and high <= 0.05 else "cannot be told"
        assert head.verdict == expected[head.p_holm <= ALPHA]
    rejected = sum(head.p_holm <= ALPHA for head in found.heads)
    assert found.confidence == pytest.approx(1 - ALPHA / (7 - rejected))


def test_without_a_difference_few_families_have_a_false_one():
    """400 families of five heads that are as good as the plain one: at most 5 % may have one."""
    false = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(90), 1 + np.arange(90) % 3)
        y = groups % 3
        heads = [draw(rng, y, groups, 0.8) for _ in range(6)]
        found = compare(y, heads[0], heads[1:], groups, n_flips=999)
        false += any(head.verdict in ("better", "worse") for head in found.heads)
    # 0.05, and two standard errors of 400 families.
    assert false / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_an_interval_covers_the_true_difference():
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = np.arange(300)
        y = groups % 3
        (head,) = compare(
            y, draw(rng, y, groups, 0.8), [draw(rng, y, groups, 0.9)], groups, n_flips=999
        ).heads
        low, high = head.interval
        covered += low <= 0.1 <= high
    assert covered / 300 >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 300)


def test_the_same_predictions_are_nothing_only_where_there_are_many_groups():
    few, many = np.arange(60), np.arange(3000)
    found = [compare(n % 3, n % 3, [n % 3], n).heads[0] for n in (few, many)]
    assert [head.verdict for head in found] == ["cannot be told", "nothing"]
    # A class of 20 groups, none of which differs, may differ in 1 - 0.025 ** (1 / 20) of them.
    bound = (1 - 0.025 ** (1 / 20)) / 3
    assert found[0].interval == pytest.approx((-bound, bound))
    assert found[0].p_value == 1


def test_a_class_of_few_groups_gets_no_interval_and_no_verdict():
    y = np.repeat([0, 1, 2], (20, 20, 5))
    found = compare(y, y, [predict(y, np.zeros(45, bool))], np.arange(45))
    (head,) = found.heads
    assert found.reason == "each class needs 10 groups; 'notumor' has 5"
    assert found.confidence is None
    assert head.difference == pytest.approx(-1)
    assert (head.interval, head.p_value, head.p_holm) == (None, None, None)
    assert head.verdict == "cannot be told"


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    groups = np.arange(120)
    y = groups % 3
    plain, other = draw(rng, y, groups, 0.8), draw(rng, y, groups, 0.9)
    found = compare(y, plain, [other], groups, n_flips=999)
    assert compare(y, plain, [other], groups, n_flips=999) == found
    assert compare(y, plain, [other], groups, n_flips=999, random_state=1) != found


def test_what_is_out_of_range_is_refused():
    y = np.arange(30) % 3
    for margin in (0, 1, -0.1, "0.01"):
        with pytest.raises(ParameterError, match="margin must be above 0 and below 1"):
            compare(y, y, [y], y, margin=margin)
    with pytest.raises(ParameterError, match="n_flips must be at least 999, got 10"):
        compare(y, y, [y], y, n_flips=10)
