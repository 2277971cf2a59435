"""An ablation as text, as Markdown and as a picture."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainfeat.evaluation.ablation import OtherImages
from brainfeat.evaluation.class_mapping import describe_mapping
from brainfeat.evaluation.paired import ALPHA, BETTER, NOTHING, UNTOLD, WORSE
from brainfeat.report.blocks import Block, Section, Table
from brainfeat.report.learning_curve import name_groups
from brainfeat.report.markdown import write_sections
from brainfeat.report.pictures import INK, make_figure, save_figure
from brainfeat.report.text import write_section
from brainfeat.text import (
    UNDEFINED,
    count,
    format_interval,
    format_metric,
    make_printable,
    name_some,
    shorten,
)

if TYPE_CHECKING:
    from brainfeat.evaluation.ablation import AblatedHead, Ablation, AblationImages
    from brainfeat.evaluation.paired import PairedDifference

# Sets of images, by the attribute of an ablation, and what they are called.
_SETS = {"folds": "Out of fold", "elsewhere": "Another data set", "test": "Test without copies"}
# Those that are drawn: a test split is small, and the folds are of the same data.
_DRAWN = ("folds", "elsewhere")
# Two hues that differ in lightness, and greys: readable without colour vision and in print.
_COLOURS = {BETTER: "#08519c", WORSE: "#d9822b", NOTHING: "#1a1a1a"}
_GREY = "#8a8a8a"
_NAME_WIDTH = 30
_METRIC = "balanced accuracy"

PLAIN = "plain"
NOT_FITTED, NOT_MEASURED = "not fitted", "not measured"


def write_ablation(ablation: "Ablation") -> str:
    """Write an ablation for a terminal of 80 columns.

    Parameters
    ----------
    ablation : Ablation
        The result of :func:`brainfeat.ablate`.

    Returns
    -------
    str
        A table for each set of images, in which each variant has its verdict in words.
    """
    return write_section(_make_section(ablation))


def write_ablation_markdown(ablation: "Ablation") -> str:
    """Write an ablation as Markdown, as :func:`write_ablation` does for a terminal.

    Parameters
    ----------
    ablation : Ablation
        The result of :func:`brainfeat.ablate`.

    Returns
    -------
    str
        Below a heading of the second level.
    """
    return "\n\n".join(write_sections([_make_section(ablation)]))


def describe_verdict(found: "PairedDifference") -> str:
    """Say in words how a variant compares with the plain head.

    Parameters
    ----------
    found : PairedDifference

    Returns
    -------
    str

    Examples
    --------
    >>> from brainfeat.evaluation.paired import PairedDifference
    >>> found = PairedDifference(
    ...     balanced_accuracy=0.95,
    ...     difference=0.02,
    ...     interval=(0.012, 0.028),
    ...     p_value=0.001,
    ...     p_holm=0.003,
    ...     verdict="better",
    ...     within_margin=False,
    ... )
    >>> describe_verdict(found)
    'better by 0.020 (0.012 to 0.028)'
    """
    if found.interval is None:
        return f"{found.verdict} ({format_metric(found.difference, signed=True)})"
    low, high = found.interval
    if found.verdict in (BETTER, WORSE):
        size = abs(found.difference)
        ends = (low, high) if found.verdict == BETTER else (-high, -low)
        text = f"{found.verdict} by {format_metric(size)} ({' to '.join(map(format_metric, ends))})"
        return f"{text}, within the margin" if found.within_margin else text
    return f"{found.verdict} ({format_interval(found.interval, signed=True)})"


def draw_ablation(ablation: "Ablation", path: str | os.PathLike[str]) -> None:
    """Draw the differences of all variants, ranked, with the plain head as the zero line.

    Parameters
    ----------
    ablation : Ablation
        The result of :func:`brainfeat.ablate`.
    path : path-like
        The PNG file; an existing one is replaced.

    Raises
    ------
    MissingDependencyError
        Matplotlib is not installed.
    """
    sets = [name for name in _DRAWN if getattr(ablation, name) is not None]
    rows = len(ablation.variants)
    figure = make_figure(4.9 * len(sets) + 1.4, 0.27 * rows + 1.3, layout="constrained")
    grid = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, name in zip(grid, sets, strict=True):
        _draw_set(axes, ablation, name)
    names = [shorten(make_printable(v.name), _NAME_WIDTH) for v in ablation.variants]
    grid[0].set_yticks(range(rows), names)
    for label in grid[0].get_yticklabels():
        label.set_parse_math(False)
    grid[0].tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    title = f"Variants of the plain {ablation.head} head, ± {ablation.margin:g} shaded"
    figure.suptitle(title, fontsize=10, color=INK)
    save_figure(figure, path)


def _draw_set(axes: Any, ablation: "Ablation", name: str) -> None:
    verdicts = []
    axes.axvspan(-ablation.margin, ablation.margin, color="#e9e9e9", linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, variant in enumerate(ablation.variants):
        found: PairedDifference | None = getattr(variant, name)
        verdicts.append(_name_verdict(variant, found))
        if found is None:
            continue
        colour = _COLOURS.get(found.verdict, _GREY)
        if found.interval is not None:
            axes.plot(found.interval, (place, place), color=colour, linewidth=1.6)
        axes.plot(found.difference, place, color=colour, marker="o", markersize=4.5)
    bottom = len(ablation.variants) - 0.4
    axes.set_ylim(bottom, -0.6)
    axes.set_yticks([])
    metric = _name_metric(getattr(ablation, name))
    axes.set_xlabel(f"{_SETS[name].lower()}: difference of {metric}", fontsize=9, color=INK)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    right = axes.twinx()
    right.set_ylim(bottom, -0.6)
    right.set_yticks(range(len(verdicts)), verdicts)
    right.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
    right.spines[:].set_visible(False)


def _name_verdict(variant: "AblatedHead", found: "PairedDifference | None") -> str:
    if found is not None:
        return describe_verdict(found)
    return NOT_FITTED if variant.error is not None else NOT_MEASURED


def _make_section(ablation: "Ablation") -> Section:
    blocks: list[Block] = [
        _make_table(ablation, name, images)
        for name in _SETS
        if (images := getattr(ablation, name)) is not None
    ]
    blocks += [_explain(ablation), describe_ablation(ablation)]
    return Section(name="ablation", title="Ablation", blocks=blocks)


def _make_table(ablation: "Ablation", name: str, images: "AblationImages") -> Table:
    rows = [(PLAIN, format_metric(images.balanced_accuracy), "", "")]
    reasons = []
    for variant in ablation.variants:
        found: PairedDifference | None = getattr(variant, name)
        reason = variant.error or variant.elsewhere_error
        verdict = _name_verdict(variant, found)
        if found is None:
            rows.append((variant.name, UNDEFINED, UNDEFINED, verdict))
            if name == "folds" or variant.error is None:
                reasons.append(f"{variant.name} is {verdict}: {str(reason).rstrip('.')}.")
            continue
        p_value = UNDEFINED if found.p_holm is None else f"{found.p_holm:.2g}"
        rows.append((variant.name, format_metric(found.balanced_accuracy), p_value, verdict))
        if name == "folds":
            reasons += [f"{variant.name}: {text.rstrip('.')}." for text in variant.warnings]
    return Table(
        title=f"{_SETS[name]} ({count(images.n, 'image')} in {count(images.n_groups, 'group')})",
        head=("variant", "metric", "p", "verdict"),
        rows=rows,
        note=" ".join([*_describe_images(images), *reasons]),
    )


def _describe_images(images: "AblationImages") -> list[str]:
    """Say in sentences what is measured, on which images, and how wide the intervals are."""
    said = [f"The metric is {_name_metric(images)}."]
    if len(images.class_names) == 1:
        said.append("No other class has enough images: a head that predicts it more often wins.")
    if isinstance(images, OtherImages) and images.classes is not None:
        said.append(f"There, {describe_mapping(images.classes)}.")
    if images.left_out:
        said.append(f"Without {count(images.left_out, 'image')} of which train or val has a copy.")
    few = images.few if isinstance(images, OtherImages) else {}
    for name, number in few.items():
        said.append(f"Without the class {name}, which has {count(number, 'image')} left.")
    if images.confidence is not None:
        said.append(f"Intervals of {100 * images.confidence:.4g} %.")
    if images.reason is not None:
        said.append(f"No intervals and no tests: {images.reason}.")
    return said


def _name_metric(images: "AblationImages") -> str:
    """Name what is measured: of one class alone, the balanced accuracy is its sensitivity."""
    if len(images.class_names) > 1:
        return _METRIC
    return f"sensitivity to {shorten(make_printable(images.class_names[0]), _NAME_WIDTH)}"


def _explain(ablation: "Ablation") -> str:
    return (
        f"The plain head is {ablation.head}. Every variant was fitted on the same "
        f"{ablation.n_folds} folds of {name_groups(ablation.group_by)}, and once on all of train "
        "and val, for the other images. The p-values are of paired tests over groups, with Holm's "
        f"correction over the variants of a table: better and worse have a p of at most {ALPHA:g}, "
        "and nothing has its whole interval within "
        f"±{format_metric(ablation.margin)}."
    )


def describe_ablation(ablation: "Ablation") -> str:
    """Say in sentences which variants are worth having.

    Parameters
    ----------
    ablation : Ablation

    Returns
    -------
    str
        What is better out of fold, and what became of that on another data set.
    """
    better = [v for v in ablation.variants if v.folds is not None and v.folds.verdict == BETTER]
    if not better:
        return "No variant was found to be better than the plain head out of fold."
    said = f"Better than the plain head out of fold: {_name(better)}."
    if ablation.elsewhere is None:
        return f"{said} Whether this holds on other data was not measured."
    parts = []
    for verdict in (BETTER, WORSE, NOTHING, UNTOLD, None):
        found = [v for v in better if (v.elsewhere and v.elsewhere.verdict) == verdict]
        if found:
            parts.append(f"{verdict or NOT_MEASURED}: {_name(found)}")
    return f"{said} Of these, on another data set: {'; '.join(parts)}."


def _name(variants: "Sequence[AblatedHead]") -> str:
    return name_some([variant.name for variant in variants])
