"""What checklists say of size, robustness and failures is recorded, or said to be missing."""

import dataclasses

import pytest
from support.studies import draw_study

from brainfeat.heads.variation import MetricSpread, RepeatedSubset, Repeats
from brainfeat.report.robustness import describe_failures, describe_robustness, describe_size


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("robustness")
    found = draw_study(lambda *args, **rest: write_vectors(folder, *args, **rest))
    yield found
    found.cache.close()


def test_the_sample_size_is_in_images_and_groups(study):
    found, subsets = describe_size(study_with(study)), study.evaluation.subsets
    assert f"{subsets.all.n_groups} groups" in found
    assert f"{subsets.without_copies.n} images in {subsets.without_copies.n_groups} groups" in found
    assert "fit-head --learning-curve" in found
    assert "The authors must state the intended size" in found


def test_what_was_not_done_names_the_command_that_would(study):
    found = describe_robustness(study_with(study))
    for command in ("fit-head --repeats", "fit-head --cv leave-one-source-out", "stress"):
        assert command in found.partition("Not here: ")[2]


def test_repeats_are_given_with_their_range_and_never_the_best_alone(study):
    spread = MetricSpread(mean=0.91, std=0.02, low=0.88, high=0.95)
    repeats = Repeats(
        n=5,
        resampled="all",
        random_states=(0, 1, 2, 3, 4),
        heads=("svm",) * 5,
        test=RepeatedSubset(n_low=90, n_high=99, metrics={"accuracy": spread}),
        test_without_copies=None,
    )
    training = dataclasses.replace(study.bundle.training, repeats=repeats)
    changed = study_with(study, training=training)
    found = describe_robustness(changed)
    assert "5 fits with other seeds and partitions, accuracy 0.910 ± 0.020" in found
    assert "from 0.880 to 0.950" in found
    assert "--repeats" not in found


def study_with(study, **changes):
    from brainfeat.report.study import make_study

    return make_study(
        study.evaluation,
        bundle=dataclasses.replace(study.bundle, **changes),
        cache=study.cache,
        audit=study.audit,
        command=None,
    )


def test_failures_have_the_number_of_confident_errors(study):
    errors, found = study.evaluation.confident_errors, describe_failures(study_with(study))
    assert (errors.describe() or "no wrong prediction has a probability above") in found
    assert "of the most confident 80 % of the images" in found
