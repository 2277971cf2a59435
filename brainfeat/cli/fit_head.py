"""``brainfeat fit-head``: stage two."""

import time
from pathlib import Path
from typing import Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options
from brainfeat.heads.kinds import HEAD_NAMES


@click.command("fit-head", short_help="Fit a classifier on cached features.")
@click.argument("features", type=click.Path(path_type=Path))
@options.output_option
@click.option(
    "--head",
    type=click.Choice([*HEAD_NAMES, "all"]),
    default="dense",
    show_default=True,
    help="The classifier; all compares every one by cross-validation and saves the best.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Constructor parameter of the head, such as C=10; may be repeated. A search leaves it as "
    "it is.",
)
@click.option(
    "--search",
    is_flag=True,
    help="Try parameters from the head's grid, cross-validated on the same folds; save the best.",
)
@click.option(
    "--n-iter",
    type=click.IntRange(min=1),
    metavar="N",
    help="Candidates of a search, for each head; the size of the grid or more is the whole grid.  "
    "[default: 10]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Most epochs of the dense head: the same as --param epochs=N.",
)
@click.option(
    "--class-weight",
    type=click.Choice(["balanced"]),
    help="Weigh classes against their frequency: the same as --param class_weight=balanced.",
)
@click.option(
    "--val-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of the training images held out for validation where the table has no such part.",
)
@click.option(
    "--cv",
    type=click.IntRange(min=2),
    metavar="K",
    help="Cross-validate in K folds.  [default: 5 with --search or --head all; else none]",
)
@options.group_by_option
@click.option(
    "--strangers",
    "ood_examples",
    type=click.Path(path_type=Path),
    metavar="FEATURES",
    help="Features of out-of-distribution examples, such as rotated slices, which predict then "
    "flags.",
)
@options.table_option
@options.jobs_option
@options.verify_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    features: Path,
    output: Path,
    *,
    head: str,
    params: tuple[str, ...],
    epochs: int | None,
    class_weight: str | None,
    table: Path | None,
    verify: Verify,
    overwrite: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Fit a classifier on the features of FEATURES, a file that extract wrote.

    The splits of the table are kept; a validation part is taken from train where there is none,
    and 70/15/15 parts are made where there are no splits.

    With --search or --head all, candidates are ranked by their mean balanced accuracy over the same
    folds of train and validation. The test images take no part in it.
    """
    from brainfeat.heads.bundle import check_target
    from brainfeat.training.fitting import fit_head

    started = time.perf_counter()
    check_target(output, overwrite=overwrite)
    shortcuts = {"epochs": epochs, "class_weight": class_weight}
    given = dict(map(options.parse_param, params))
    given |= {name: value for name, value in shortcuts.items() if value is not None}
    with (
        options.open_cache(features, table=table, verify=verify) as cache,
        options.ProgressLine("cross-validating", "fits") as progress,
    ):
        bundle = fit_head(cache, head=head, params=given, progress=progress, **chosen)
    bundle.save(output, overwrite=overwrite)
    training = bundle.training
    options.warn_of_leakage(training["leakage"]["findings"], features)
    document = {
        "head": bundle.head,
        "params": bundle.params,
        "classes": list(bundle.class_names),
        "split": training["split"],
        "val": training["val"],
        "test": training["test"],
        "calibration": training["calibration"],
        "cv": training["cv"],
        "search": training["search"],
        "group_by": training["group_by"],
        "leakage": training["leakage"],
        "seconds": time.perf_counter() - started,
        "output": str(output),
    }
    if as_json:
        options.print_json(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    if document["search"] is not None:
        _show_candidates(document["search"])
    sizes = ", ".join(f"{name} {size:,}" for name, size in document["split"].items())
    options.say(f"{document['head']} head of {len(document['classes'])} classes on images: {sizes}")
    for part in ("val", "test"):
        figures = document[part]
        if figures is not None:
            options.say(
                f"  {part:<5} accuracy {figures['accuracy']:.4f}   balanced "
                f"{figures['balanced_accuracy']:.4f}   macro F1 {figures['macro']['f1']:.4f}"
            )
    if document["cv"] is not None:
        accuracy = document["cv"]["accuracy"]
        options.say(
            f"  {document['cv']['n_folds']}-fold cross-validation: accuracy "
            f"{accuracy['mean']:.4f} ± {accuracy['std']:.4f} (mean ± standard deviation of folds)"
        )
    options.say(f"{document['output']} written in {options.format_seconds(document['seconds'])}")


def _show_candidates(search: dict[str, Any]) -> None:
    rows = search["candidates"]
    width = max(len(row["head"]) for row in rows)
    options.say(f"rank  {'head':<{width}}  balanced accuracy  log loss  seconds  parameters")
    for row in rows:
        params = ", ".join(f"{name}={value}" for name, value in row["params"].items())
        if row["error"] is not None:
            options.say(
                f"   –  {row['head']:<{width}}  failed: {row['error']} ({params or 'defaults'})"
            )
            continue
        options.say(
            f"{row['rank']:>4}  {row['head']:<{width}}  {row['mean']:>8.4f} ± {row['std']:.4f} "
            f"{row['log_loss']:>9.4f} {row['seconds']:>8.1f}  {params or 'defaults'}"
        )
        for message in row["warnings"]:
            options.say(f"warning: rank {row['rank']}, {row['head']}: {message}", err=True)
    options.say(
        f"mean ± standard deviation of the same {search['n_folds']} folds; no test image is in any"
    )
    if len(rows) > 1:
        options.say("the best of many is in part the luckiest: report its test figures, not these")
