"""``brainfeat fit-head``: stage two."""

import time
from pathlib import Path
from typing import Any

import click

from brainfeat.cli import options
from brainfeat.heads import HEAD_NAMES


@click.command("fit-head", short_help="Fit a classifier on cached features.")
@click.argument("features", type=click.Path(path_type=Path))
@options.output_option
@click.option(
    "--head",
    type=click.Choice(HEAD_NAMES),
    default="dense",
    show_default=True,
    help="The classifier.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Constructor parameter of the head, such as C=10; may be repeated.",
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
@click.option("--cv", type=click.IntRange(min=2), metavar="K", help="Cross-validate in K folds.")
@click.option(
    "--group-by",
    type=click.Choice(["auto", "column", "none"]),
    default="auto",
    show_default=True,
    help="What no part and no fold may cut: the table's groups, if any (auto) or always (column).",
)
@options.jobs_option
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
    overwrite: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Fit a classifier on the features of FEATURES, a file that extract wrote.

    The splits of the table are kept; a validation part is taken from train where there is none,
    and 70/15/15 parts are made where there are no splits.
    """
    from brainfeat.bundle import check_target
    from brainfeat.training import fit_head

    started = time.perf_counter()
    check_target(output, head, overwrite=overwrite)
    shortcuts = {"epochs": epochs, "class_weight": class_weight}
    given = dict(map(options.parse_param, params))
    given |= {name: value for name, value in shortcuts.items() if value is not None}
    bundle = fit_head(features, head=head, params=given, **chosen)
    bundle.save(output, overwrite=overwrite)
    training = bundle.training
    document = {
        "head": head,
        "classes": list(bundle.class_names),
        "split": training["split"],
        "val": training["val"],
        "test": training["test"],
        "cv": training["cv"],
        "seconds": time.perf_counter() - started,
        "output": str(output),
    }
    if as_json:
        options.print_json(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    sizes = ", ".join(f"{name} {size:,}" for name, size in document["split"].items())
    click.echo(f"{document['head']} head of {len(document['classes'])} classes on images: {sizes}")
    for part in ("val", "test"):
        figures = document[part]
        if figures is not None:
            click.echo(
                f"  {part:<5} accuracy {figures['accuracy']:.4f}   balanced "
                f"{figures['balanced_accuracy']:.4f}   macro F1 {figures['macro']['f1']:.4f}"
            )
    if document["cv"] is not None:
        accuracy = document["cv"]["accuracy"]
        click.echo(
            f"  {document['cv']['n_folds']}-fold cross-validation: accuracy "
            f"{accuracy['mean']:.4f} ± {accuracy['std']:.4f} (mean ± standard deviation of folds)"
        )
    click.echo(f"{document['output']} written in {options.format_seconds(document['seconds'])}")
