"""``brainfeat fit-head --ablate``: the options, and what is shown."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from brainfeat.cli import options
from brainfeat.cli.classes import ClassMapping
from brainfeat.cli.learning_curve import is_png
from brainfeat.files import atomic_write, check_output, is_same_file

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.storage import Verify
    from brainfeat.evaluation.ablation import Ablation
    from brainfeat.evaluation.class_mapping import Classes

_MARGIN = 0.01
# Options of fit-head that an ablation shares.
_SHARED = (
    *("bag", "group_label", "how", "generate", "val_fraction"),
    *("group_by", "n_jobs", "random_state"),
)

_OPTIONS = (
    click.option(
        "--ablate",
        "variants",
        type=click.Path(path_type=Path),
        metavar="TOML",
        help="Also compare variants of the head with it, on the same folds: a file with a table of "
        "changed options for each.",
    ),
    click.option(
        "--ablate-on",
        "on",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FEATURES",
        help="Also compare them on these features of another data set. May be given once for each "
        "kind of features that variants take.",
    ),
    click.option(
        "--classes",
        type=ClassMapping(),
        multiple=True,
        help="Classes of the head by class of that set, where these have other names: "
        "yes=glioma+meningioma,no=notumor, or a CSV file with the columns class and head_class.",
    ),
    click.option(
        "--margin",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Difference of the balanced accuracy that would not matter in an ablation.  "
        f"[default: {_MARGIN}]",
    ),
    click.option(
        "--ablation-plot",
        type=click.Path(path_type=Path),
        metavar="PNG",
        help="Draw the ablation into this file; needs the extra report.",
    ),
)


class AblationOptions(NamedTuple):
    """What was asked for."""

    variants: dict[str, dict[str, Any]]
    on: tuple[Path, ...]
    classes: tuple["Classes", ...]
    margin: float
    plot: Path | None


def ablation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an ablation to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_options(
    chosen: dict[str, Any],
    *,
    head: str,
    output: Path,
    overwrite: bool,
    inputs: Sequence[Path | None],
) -> AblationOptions | None:
    """Take the options of an ablation out of those of a command, and check them.

    Parameters
    ----------
    chosen : dict
        The options of the command by name, among them those of :func:`ablation_options`.
    head : str
    output : Path
        The head that the command writes.
    overwrite : bool
    inputs : sequence of Path or None
        Files that the command reads.

    Returns
    -------
    AblationOptions or None
        None where no ablation was asked for.
    """
    names = ("variants", "on", "classes", "margin", "ablation_plot")
    variants, on, classes, margin, plot = (chosen.pop(name) for name in names)
    if variants is None:
        if on or classes or margin is not None or plot is not None:
            raise click.UsageError(
                "--ablate-on, --classes, --margin and --ablation-plot need --ablate"
            )
        return None
    if head == "all" or chosen["search"]:
        raise click.UsageError(
            "--ablate compares variants with one head with one set of parameters; leave out "
            "--search and --head all"
        )
    if classes and not on:
        raise click.UsageError("--classes are those of another data set; pass --ablate-on as well")
    if plot is not None:
        if is_same_file(plot, output):
            raise click.UsageError("--ablation-plot and --output name the same file; name two")
        read = (*inputs, variants, *on)
        check_output(plot, overwrite=overwrite, kind="a PNG", recognise=is_png, inputs=read)
    from brainfeat.training.variants import read_variants

    return AblationOptions(
        variants=read_variants(variants),
        on=on,
        classes=classes,
        margin=_MARGIN if margin is None else margin,
        plot=plot,
    )


def draw(
    wanted: AblationOptions | None,
    cache: "FeatureCache",
    *,
    head: str,
    params: Mapping[str, Any],
    verify: "Verify",
    cv: object,
    **chosen: Any,
) -> "Ablation | None":
    """Fit and compare the variants, and draw the plot, where asked for."""
    if wanted is None:
        return None
    from brainfeat.training.ablation_table import N_FOLDS, ablate

    with ExitStack() as stack:
        on = [stack.enter_context(options.open_cache(path, verify=verify)) for path in wanted.on]
        progress = stack.enter_context(options.ProgressLine("ablation", "fits"))
        found = ablate(
            cache,
            wanted.variants,
            head=head,
            params=params,
            on=on,
            classes=wanted.classes or None,
            margin=wanted.margin,
            cv=cv if isinstance(cv, int) else N_FOLDS,
            progress=progress,
            **{name: chosen[name] for name in _SHARED},
        )
    if wanted.plot is not None:
        from brainfeat.report.ablation import draw_ablation

        with atomic_write(wanted.plot) as temporary:
            draw_ablation(found, temporary)
    return found


def show(found: "Ablation | None", wanted: AblationOptions | None) -> None:
    """Print an ablation, if there is one."""
    if found is None or wanted is None:
        return
    from brainfeat.report.ablation import write_ablation

    click.echo(f"\n{write_ablation(found)}\n")
    if wanted.plot is not None:
        options.say(f"{wanted.plot} written")
