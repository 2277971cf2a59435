"""``brainfeat fit-head``: stage two."""

import time
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import ablation, blocks, generation, heads, learning_curve, options, protocol
from brainfeat.heads.conformal import COVERAGE
from brainfeat.report.generation import list_generated, list_skipped
from brainfeat.report.text import lay_out
from brainfeat.report.variation import list_not_evaluated, list_variation, name_folds
from brainfeat.report.wording import METRIC_NAMES, SUBSET_METRICS
from brainfeat.tables.rows import quote
from brainfeat.text import align, count, format_metric, name_some, wrap

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.heads.record import Candidate, FitRecord, SearchRecord

# Parts of the record of a fit that the JSON document has.
_RECORDED = (
    *("split", "val", "test", "test_without_copies"),
    *("calibration", "cv", "search", "repeats", "join", "generation"),
    *("group_by", "leakage"),
)

EXAMPLES = """\b
Examples:
  brainfeat fit-head mri.h5 -o head.h5
  brainfeat fit-head mri.h5 -o best.h5 --head all --search
  brainfeat fit-head mri.h5 -o patients.h5 --head svm --bag mean
  brainfeat fit-head mri.h5 -o vote.h5 --head vote:svm+dense+logistic
  brainfeat fit-head t1.h5 flair.h5 pet.h5 --join groups -o joined.h5
  brainfeat fit-head vgg.h5 mobilenet.h5 --join images -o both.h5
  brainfeat fit-head layers.h5 --layer block4_pool+block5_pool -o layers-head.h5
"""


@click.command("fit-head", short_help="Fit a classifier on cached features.", epilog=EXAMPLES)
@click.argument("features", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.output_option
@heads.head_option
@heads.how_option
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Constructor parameter of the head, such as C=10, or svm.C=10 of a member of an ensemble; "
    "may be repeated. Every candidate of a search has it.",
)
@click.option(
    "--search",
    is_flag=True,
    help="Cross-validate parameters from the head's grid on the same folds, and save the best.",
)
@click.option(
    "--n-iter",
    type=click.IntRange(min=1),
    metavar="N",
    help="Candidates of a search, for each head; a number as large as the grid tries all of it.  "
    "[default: 10]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Maximum number of epochs of the dense head; same as --param epochs=N.",
)
@click.option(
    "--class-weight",
    type=click.Choice(["balanced"]),
    help="Weigh each class by the inverse of its frequency; same as --param class_weight=balanced.",
)
@click.option(
    "--val-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Fraction of the training images for validation, where the table has no validation split.",
)
@generation.generation_options
@protocol.bag_option
@protocol.group_label_option
@protocol.cv_option
@protocol.fold_unit_option
@protocol.repeats_option
@protocol.group_by_option
@click.option(
    "--ood-examples",
    cls=options.RenamedOption,
    old="--strangers",  # codespell:ignore
    type=click.Path(path_type=Path),
    metavar="FEATURES",
    multiple=True,
    help="Features of out-of-distribution examples, such as rotated slices; predict then flags "
    "images like them. With --join images, once for each of the joined FEATURES.",
)
@click.option(
    "--signature/--no-signature",
    default=True,
    show_default=True,
    help="Keep the signatures of the images of train and val, by which evaluate and predict "
    "recognise copies of them. A signature is as personal as a small picture of the image.",
)
@blocks.join_options
@learning_curve.curve_options
@ablation.ablation_options
@options.table_option
@options.jobs_option
@options.verify_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    features: tuple[Path, ...],
    output: Path,
    *,
    head: str,
    join: str | None,
    layer: str | None,
    params: tuple[str, ...],
    epochs: int | None,
    class_weight: str | None,
    mixup: float | None,
    ood_examples: tuple[Path, ...],
    table: Path | None,
    verify: Verify,
    overwrite: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Fit a classifier on the cached features in FEATURES, a file that extract wrote.

    Several FEATURES are joined with --join: modalities of the same patients, each of which may be
    missing for some; or bases of the same images. --layer joins layers of one.

    The splits of the table are kept. A validation split is taken from train where there is none,
    and 70/15/15 splits are made where the table has no splits.

    With --search or --head all, candidates are ranked by their mean balanced accuracy over the same
    folds of train and validation. The test images are not used to choose.
    """
    from brainfeat.heads.bundle_file import check_target
    from brainfeat.training.fitting import fit_head

    started = time.perf_counter()
    inputs = (*blocks.split_names(features)[1], table, *ood_examples)
    chosen["ood_examples"] = list(ood_examples) or None
    check_target(output, overwrite=overwrite, inputs=inputs)
    curve_options = learning_curve.take_options(
        chosen, head=head, output=output, overwrite=overwrite, inputs=inputs
    )
    ablation_options = ablation.take_options(
        chosen, head=head, output=output, overwrite=overwrite, inputs=inputs
    )
    if curve_options is not None and join == "groups":
        raise click.UsageError("--learning-curve draws a head of images; leave out --join groups")
    shortcuts = {"epochs": epochs, "class_weight": class_weight, "mixup": mixup}
    given = dict(map(options.parse_param, params))
    given |= {name: value for name, value in shortcuts.items() if value is not None}
    heads.announce_cost(head, given)
    with blocks.open_join(features, join=join, layer=layer, table=table, verify=verify) as cache:
        with options.ProgressLine("fitting", "fits") as progress:
            bundle = fit_head(cache, head=head, params=given, progress=progress, **chosen)
        options.warn_of_missing_signatures(cache)
        bundle.save(output, overwrite=overwrite)
        curve = learning_curve.draw(curve_options, cache, bundle, **chosen)
        ablated = ablation.draw(ablation_options, cache, bundle, verify=verify, **chosen)
    if bundle.training.leakage is not None:
        # The images of one cache, of those that are joined on images.
        shown = features[:1] if join == "images" else features
        options.warn_of_leakage(bundle.training.leakage.findings, *shown)
    _warn_of_small_classes(bundle)
    _warn_of_guesses(bundle.training)
    seconds = time.perf_counter() - started
    if as_json:
        drawn = {} if curve is None else {"learning_curve": curve.to_dict()}
        drawn |= {} if ablated is None else {"ablation": ablated.to_dict()}
        options.print_json(_describe(bundle, seconds=seconds, output=output) | drawn)
    else:
        _show(bundle)
        learning_curve.show(curve, curve_options)
        ablation.show(ablated, ablation_options)
        options.say(f"{output} written in {options.format_seconds(seconds)}")


def _describe(bundle: "HeadBundle", *, seconds: float, output: Path) -> dict[str, Any]:
    record = bundle.training.to_dict()
    return {
        "head": bundle.head,
        "params": bundle.params,
        "classes": list(bundle.class_names),
        "bag": protocol.describe_bags(bundle),
        "generated": record.get("generated"),
        **{name: record.get(name) for name in _RECORDED},
        "seconds": seconds,
        "output": str(output),
    }


def _warn_of_small_classes(bundle: "HeadBundle") -> None:
    """Warn in one line on stderr if predictions can never rule out some class."""
    if bundle.conformal is None:
        return
    limits = bundle.conformal.quantiles(len(bundle.class_names))
    small = [
        f"{quote(name)} ({(bundle.conformal.labels == label).sum():,})"
        for label, name in enumerate(bundle.class_names)
        if isinf(limits[label])
    ]
    if small:
        options.say(
            f"warning: too few {_name_unit(bundle)} to calibrate predictions on of "
            f"{name_some(small)}; predict"
            f" does not rule them out at the default coverage of {COVERAGE:g}",
            err=True,
        )


def _warn_of_guesses(record: "FitRecord") -> None:
    """Warn on stderr of groups that are a guess, and of classes not evaluated or not generated."""
    if str(record.group_by).startswith("numbers:"):
        options.say(f"warning: {protocol.explain_numbers(str(record.group_by))}", err=True)
    for text in (*list_not_evaluated(record), *list_skipped(record)):
        options.say(f"warning: {text}", err=True)


def _show(bundle: "HeadBundle") -> None:
    record = bundle.training
    if record.search is not None:
        _show_candidates(record.search)
    sizes = ", ".join(f"{name} {size:,}" for name, size in vars(record.split).items())
    classes = f"{bundle.head} head of {len(bundle.class_names)} classes"
    options.say(f"{classes} on {_name_unit(bundle)}: {sizes}")
    if bundle.bag is not None and record.bag_sizes is not None:
        bags = record.bag_sizes
        options.say(
            f"patients of {bags.least:,} to {bags.most:,} images (median {bags.median:g}), pooled "
            f"by {bundle.bag.pooling}; {count(sum(vars(bags.images).values()), 'image')} in all"
        )
    for text in list_generated(record):
        options.say(text)
    _show_metrics(record)


def _name_unit(bundle: "HeadBundle") -> str:
    return "images" if bundle.bag is None else "patients"


def _show_metrics(record: "FitRecord") -> None:
    rows = [("split", *(METRIC_NAMES[name] for name in SUBSET_METRICS))]
    for split, metrics in (
        ("test without copies", record.test_without_copies),
        ("test", record.test),
        ("val", record.val),
    ):
        if metrics is not None:
            values = (metrics.accuracy, metrics.balanced_accuracy, metrics.macro.f1)
            rows.append((split, *map(format_metric, values)))
    for line in align(rows):
        options.say(line)
    if record.cv is not None:
        accuracy = record.cv.accuracy
        options.say(
            f"{name_folds(record.cv)}: accuracy {format_metric(accuracy.mean)} ± "
            f"{format_metric(accuracy.std)} (mean ± standard deviation over folds)"
        )
        if (groups := record.cv.groups) is not None:
            options.say(
                f"out of fold per patient ({count(groups.n, 'patient')}): accuracy "
                f"{format_metric(groups.accuracy)}, balanced accuracy "
                f"{format_metric(groups.balanced_accuracy)}; per image "
                f"{format_metric(record.cv.out_of_fold.accuracy)} and "
                f"{format_metric(record.cv.out_of_fold.balanced_accuracy)}"
            )
    for table in list_variation(record):
        for line in ("", table.title, *lay_out(table), *wrap(table.note)):
            options.say(line)


def _show_candidates(search: "SearchRecord") -> None:
    rows = search.candidates
    head = ("rank", "head", METRIC_NAMES[search.metric], "log loss", "seconds", "parameters")
    # Names and parameters are aligned to the left.
    for line in align([head, *map(_describe_candidate, rows)], left=(1, 5)):
        options.say(line)
    for row in rows:
        for message in row.warnings if row.error is None else ():
            options.say(f"warning: rank {row.rank}, {row.head}: {message}", err=True)
    options.say(
        f"mean ± standard deviation over the same {search.n_folds} folds; no test image is in them"
    )
    if len(rows) > 1:
        options.say(
            "the best cross-validated score is optimistically biased: report the test metrics, "
            "not these"
        )


def _describe_candidate(row: "Candidate") -> tuple[str, ...]:
    params = ", ".join(f"{name}={value}" for name, value in row.params.items()) or "defaults"
    if row.error is not None:
        return ("–", row.head, "–", "–", "–", f"failed: {row.error} ({params})")
    return (
        str(row.rank),
        row.head,
        f"{format_metric(row.mean)} ± {format_metric(row.std)}",
        format_metric(row.log_loss),
        f"{row.seconds:.1f}",
        params,
    )
