"""``brainfeat predict`` with a bag head: what is said of patients and of their images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainfeat.cli import options
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.answers import Prediction, SliceSummary, WeightedSlice

# Most weighted images that are named in text.
_SHOWN = 3


def explain(bundle: "HeadBundle", found: "Sequence[Prediction]", *, by_folder: bool) -> None:
    """Say in a line each on stderr whose images a bag head took together, and where few were."""
    if by_folder and bundle.bag is not None:
        options.say(
            "images in one folder were taken as those of one patient; --group-level N names "
            "another folder",
            err=True,
        )
    sizes = bundle.training.bag_sizes
    few = [
        answer
        for answer in found
        if sizes is not None and answer.slices is not None and answer.slices.n < sizes.least
    ]
    if sizes is not None and few:
        options.say(
            f"warning: {count(len(few), 'patient')} with fewer images than any that the head was "
            f"fitted on (first: {few[0].path}, with {count(_count_images(few[0]), 'image')}); "
            f"those had {sizes.least:,} to {sizes.most:,}, median {sizes.median:g}",
            err=True,
        )


def describe(slices: "SliceSummary") -> str:
    """Describe how the images of a patient were taken together, and which count most."""
    parts = [f"{count(slices.n, 'image')}, taken together by {slices.pooling}"]
    if slices.most_weighted:
        shown = map(_name_weight, slices.most_weighted[:_SHOWN])
        parts.append(f"most weighted: {' | '.join(shown)}")
    if slices.seen:
        parts.append(f"{slices.seen:,} that the head was fitted or validated on, or on a copy")
    return "; ".join(parts)


def _count_images(answer: "Prediction") -> int:
    return 0 if answer.slices is None else answer.slices.n


def _name_weight(found: "WeightedSlice") -> str:
    name = found.path if found.frame is None else f"{found.path}, no. {found.frame}"
    return f"{name} ({found.weight:.2f})"
