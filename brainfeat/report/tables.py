"""The cells of the tables that an evaluation is shown as, whatever shows them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainfeat.evaluation.results import ClassEvaluation, Evaluation, Interval, Subset
    from brainfeat.metrics import Metrics

UNDEFINED = "n/a"

# Of each class: what a score is called, and its name.
CLASS_FIGURES = (
    ("sensitivity", "recall"),
    ("specificity", "specificity"),
    ("PPV", "precision"),
    ("NPV", "npv"),
    ("F1", "f1"),
    ("ROC AUC", "roc_auc"),
    ("average precision", "average_precision"),
)
SUBSET_FIGURES = (
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("macro F1", "f1_macro"),
)
SUBSET_NAMES = {
    "all": "all",
    "without_exact_duplicates": "without twins",
    "without_near_duplicates": "without near duplicates",
}


def headline(evaluation: "Metrics") -> list[tuple[str, str, str]]:
    """List the figures of the whole: name, value as text, remark."""
    worst = 1 if len(evaluation.class_names) == 2 else 2
    return [
        ("images", f"{evaluation.n}", ""),
        ("accuracy", format_figure(evaluation.accuracy), ""),
        ("balanced accuracy", format_figure(evaluation.balanced_accuracy), ""),
        ("macro F1", format_figure(evaluation.macro.f1), ""),
        (
            "ROC AUC",
            format_figure(evaluation.roc_auc),
            "one class against the rest, mean over classes",
        ),
        ("log loss", format_figure(evaluation.log_loss), ""),
        ("Brier score", format_figure(evaluation.brier), f"0 best, {worst} worst"),
        ("Matthews corr.", format_figure(evaluation.mcc), ""),
    ]


def class_rows(evaluation: "Metrics") -> list[tuple[str, str, str, str, str]]:
    """List precision, recall, F1 and images as text: of each class, then of the two means."""
    rows = [
        (
            s.name,
            format_figure(s.precision),
            format_figure(s.recall),
            format_figure(s.f1),
            s.support,
        )
        for s in evaluation.per_class
    ]
    means = (("macro mean", evaluation.macro), ("weighted mean", evaluation.weighted))
    rows += [
        (
            name,
            format_figure(mean.precision),
            format_figure(mean.recall),
            format_figure(mean.f1),
            evaluation.n,
        )
        for name, mean in means
    ]
    return [(*row[:4], str(row[4])) for row in rows]


def format_figure(value: float | None) -> str:
    """Write a figure with four decimals; an undefined one as ``n/a``."""
    return UNDEFINED if value is None else f"{value:.4f}"


def subset_rows(evaluation: "Evaluation", *, separate: bool = False) -> list[tuple[str, ...]]:
    """List the figures of the subsets side by side, under a head; intervals in rows of their own.

    Parameters
    ----------
    evaluation : Evaluation
    separate : bool
        Whether an interval stands in a row below its figure, or beside it.
    """
    subsets = [getattr(evaluation.subsets, name) for name in SUBSET_NAMES]
    split = "" if evaluation.split == "all" else f"{evaluation.split} "
    rows = [
        (f"{split}images", *SUBSET_NAMES.values()),
        ("images", *(f"{subset.n:,}" if subset.n else UNDEFINED for subset in subsets)),
        ("groups", *(f"{subset.n_groups:,}" if subset.n else UNDEFINED for subset in subsets)),
    ]
    for title, name in SUBSET_FIGURES:
        figures = [format_figure(getattr(subset, name)) for subset in subsets]
        intervals = [format_interval(getattr(subset.intervals, name, None)) for subset in subsets]
        if separate:
            rows.append((title, *figures))
            if any(subset.intervals for subset in subsets):
                rows.append(("  95 % interval", *intervals))
        else:
            cells = zip(figures, intervals, strict=True)
            rows.append((title, *(join_interval(*cell) for cell in cells)))
    return rows


def describe_subsets(evaluation: "Evaluation") -> list[str]:
    """Say in sentences what the subsets are, and why figures are missing."""
    bootstrap = evaluation.bootstrap
    sentences = [
        (
            "Twins are identical files, and near duplicates images of similar features, that the "
            "head has seen in train or val."
        ),
    ]
    if any(subset.intervals for subset in vars(evaluation.subsets).values()):
        sentences.append(
            f"Intervals: percentiles of {bootstrap.n_resamples:,} resamples of groups."
        )
    missing: dict[str, list[str]] = {}
    for name, subset in vars(evaluation.subsets).items():
        if subset.reason is not None:
            what = "figures" if subset.accuracy is None else "intervals"
            missing.setdefault(f"{what}: {subset.reason}", []).append(SUBSET_NAMES[name])
    return sentences + [
        f"No {reason}." if len(names) == len(SUBSET_NAMES) else f"{', '.join(names)}: no {reason}."
        for reason, names in missing.items()
    ]


def interval_rows(evaluation: "Evaluation") -> list[tuple[str, ...]]:
    """List seven figures of each class with their intervals, under a head."""
    head = ("class", *(title for title, _ in CLASS_FIGURES))
    return [head, *((entry.name, *_cells(entry)) for entry in evaluation.per_class)]


def prevalence_rows(evaluation: "Evaluation") -> list[tuple[str, str, str, str]]:
    """List prevalence, PPV and NPV of the classes for which a prevalence was given."""
    return [
        (name, f"{entry.prevalence:g}", format_figure(entry.ppv), format_figure(entry.npv))
        for name, entry in evaluation.prevalence.items()
    ]


def describe_abstention(evaluation: "Evaluation") -> list[str]:
    """Say in sentences what `brainfeat predict` would answer of the images."""
    found = evaluation.abstention
    if found is None:
        return []
    accuracy = "" if found.accuracy is None else f", {found.accuracy:.3f} of them rightly"
    shares = [
        f"{name} {share:.3f}"
        for name, share in found.coverage_by_class.items()
        if share is not None
    ]
    return [
        (
            f"Abstention: {found.answered:.1%} of the images are answered{accuracy}; "
            f"{found.uncertain:.1%} are uncertain, {found.out_of_distribution:.1%} out of scope."
        ),
        f"The class is in the set (nominal {found.target_coverage:g}): {', '.join(shares)}.",
    ]


def by_rows(evaluation: "Evaluation") -> list[tuple[str, ...]]:
    """List the parts of the images by value of a column, under a head."""
    head = ("part", "images", "groups", "accuracy", "95 % interval")
    return [head, *(_part(value, subset) for value, subset in evaluation.by.items())]


def format_interval(interval: "Interval | None", *, decimals: int = 3) -> str:
    """Write an interval, such as 0.882–0.925; ``n/a`` where there is none."""
    if interval is None:
        return UNDEFINED
    low, high = interval
    return f"{low:.{decimals}f}–{high:.{decimals}f}"


def join_interval(figure: str, interval: str) -> str:
    """Write a figure with its interval in brackets, if it has one."""
    return figure if interval == UNDEFINED else f"{figure} ({interval})"


def _cells(entry: "ClassEvaluation") -> list[str]:
    return [
        join_interval(
            format_figure(getattr(entry, name)),
            format_interval(getattr(entry.intervals, name, None)),
        )
        for _, name in CLASS_FIGURES
    ]


def _part(value: str, subset: "Subset") -> tuple[str, ...]:
    interval = format_interval(getattr(subset.intervals, "accuracy", None))
    return (
        value or "(none)",
        f"{subset.n:,}",
        f"{subset.n_groups:,}",
        format_figure(subset.accuracy),
        "too few to judge" if subset.accuracy is None else interval,
    )
