"""Options of what images are kept together, left out and divided anew, and of what is measured."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from brainfeat.errors import ParameterError

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.tables.rows import Row


class Grouping(click.ParamType[str]):
    """What images are grouped by."""

    name = "grouping"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Convert the value."""
        from brainfeat.training.grouping import check_grouping

        try:
            return check_grouping(value)
        except ParameterError as error:
            self.fail(str(error).removeprefix("group_by "), param, ctx)


class Folds(click.ParamType[int | str]):
    """A number of folds, or a fold for each source."""

    name = "folds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Convert the value."""
        from brainfeat.training.selection import LEAVE_ONE_SOURCE_OUT

        if value == LEAVE_ONE_SOURCE_OUT:
            return LEAVE_ONE_SOURCE_OUT
        return click.IntRange(min=2).convert(value, param, ctx)


class LeftOut(click.ParamType[str]):
    """A source to leave out, as ``source=VALUE``; VALUE may be missing."""

    name = "source"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the source; an empty one where none is named."""
        column, _, source = str(value).partition("=")
        if column.strip() != "source":
            self.fail(f"{value!r} is not source=VALUE, such as source=north", param, ctx)
        return source.strip()


group_by_option = click.option(
    "--group-by",
    type=Grouping(),
    metavar="auto|column|copies|near-duplicates|numbers:K|none",
    default="auto",
    show_default=True,
    help="Groups that no split and no fold divides: copies, with the table's groups where it has "
    "any, else with near duplicates (auto); the table's groups alone (column); copies, or near "
    "duplicates and copies, with the table's groups (copies, near-duplicates); blocks of K "
    "consecutive numbers in file names, a guess at patients, with copies and the table's groups "
    "(numbers:K); or none.",
)
leave_out_option = click.option(
    "--leave-out",
    type=LeftOut(),
    metavar="source=VALUE",
    help="Take the images of this source as the test split; those of other sources are train and "
    "val, but for copies of test images. Without =VALUE, list the sources.",
)
cv_option = click.option(
    "--cv",
    type=Folds(),
    metavar="K|leave-one-source-out",
    help="Cross-validate in K folds, or with each source of the table left out in turn.  "
    "[default: 5 with --search or --head all, else none]",
)
repeats_option = click.option(
    "--repeats",
    type=click.IntRange(min=2),
    metavar="N",
    help="Also fit N heads with other seeds, on images that are divided anew (a test split of the "
    "table stays), and show how much the metrics vary. The head that is saved stays the same.",
)

unit_option = click.option(
    "--unit",
    type=click.Choice(["image", "group"]),
    help="What is measured: each image, or each group of the table, such as a patient. For a "
    "group, a head of images answers by the mean of the probabilities of its images, as predict "
    "does for a volume.  [default: image; group for a bag head]",
)
fold_unit_option = click.option(
    "--unit",
    type=click.Choice(["image", "group"]),
    help="What --cv is measured on: group adds the metrics per group of the table, such as per "
    "patient, by the mean of the out-of-fold probabilities of its images.  [default: image; group "
    "for a bag head]",
)
group_label_option = click.option(
    "--group-label",
    metavar="same|any:CLASS",
    help="How a group gets its class: all of its images have the same one, or one image of CLASS "
    "decides.  [default: same; in evaluations, that of a bag head]",
)


bag_option = click.option(
    "--bag",
    type=click.Choice(["mean", "max", "median", "attention"]),
    help="Fit on the table's groups, such as patients: each is one example, of the mean, maximum "
    "or median of its images' features, or of their mean with weights that the dense head learns.",
)


def describe_bags(bundle: "HeadBundle") -> dict[str, Any] | None:
    """Describe how images become one example, and how many do; None for a head of images."""
    if bundle.bag is None:
        return None
    sizes = bundle.training.bag_sizes
    return {
        "pooling": bundle.bag.pooling,
        "label": bundle.bag.label,
        **dict.fromkeys(("images", "least", "median", "most")),
        **({} if sizes is None else asdict(sizes)),
    }


def list_generated(cache: "FeatureCache") -> "list[Row]":
    """List the generated images of a cache as rows of a table."""
    import numpy as np

    from brainfeat.tables.rows import GENERATED, Row

    made = np.flatnonzero(cache.is_generated & (cache.view == 0))
    labels = np.array([*cache.class_names, ""])[cache.y[made]]
    columns = (cache.paths[made], labels, cache.splits[made], cache.sources[made])
    return [
        Row(path=path, label=label, split=split, source=source, origin=GENERATED)
        for path, label, split, source in zip(*map(np.ndarray.tolist, columns), strict=True)
    ]


def explain_numbers(grouping: str) -> str:
    """Say that groups by numbers are a guess.

    Examples
    --------
    >>> explain_numbers("numbers:40")
    'groups are blocks of 40 numbers in file names, which is a guess at patients'
    """
    size = grouping.partition(":")[2]
    return f"groups are blocks of {size} numbers in file names, which is a guess at patients"
