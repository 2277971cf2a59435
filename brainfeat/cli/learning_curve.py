"""``brainfeat fit-head --learning-curve``: the options, and what is shown."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from brainfeat.cli import options
from brainfeat.files import atomic_write, check_output, is_same_file

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.growth import LearningCurve
    from brainfeat.heads.bundle import HeadBundle

_REPEATS = 5
_PNG = b"\x89PNG\r\n\x1a\n"
# Options of fit-head that a curve shares.
_SHARED = (
    *("bag", "group_label", "generate", "val_fraction"),
    *("group_by", "n_jobs", "random_state"),
)

_OPTIONS = (
    click.option(
        "--learning-curve",
        is_flag=True,
        help="Also fit the head on 1, 2, 4, … groups of each class, up to all, and measure each on "
        "the test split: would more data help?",
    ),
    click.option(
        "--curve-repeats",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Orders in which the groups of a learning curve are drawn.  [default: {_REPEATS}]",
    ),
    click.option(
        "--curve-plot",
        type=click.Path(path_type=Path),
        metavar="PNG",
        help="Draw the learning curve into this file; needs the extra report.",
    ),
)


class CurveOptions(NamedTuple):
    """What was asked for."""

    repeats: int
    plot: Path | None


def curve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a learning curve to a command."""
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
) -> CurveOptions | None:
    """Take the options of a learning curve out of those of a command, and check them.

    Parameters
    ----------
    chosen : dict
        The options of the command by name, among them those of :func:`curve_options`.
    head : str
    output : Path
        The head that the command writes.
    overwrite : bool
    inputs : sequence of Path or None
        Files that the command reads.

    Returns
    -------
    CurveOptions or None
        None where no learning curve was asked for.
    """
    wanted, repeats, plot = (
        chosen.pop(name) for name in ("learning_curve", "curve_repeats", "curve_plot")
    )
    if not wanted:
        if repeats is not None or plot is not None:
            raise click.UsageError("--curve-repeats and --curve-plot need --learning-curve")
        return None
    if head == "all" or chosen["search"]:
        raise click.UsageError(
            "--learning-curve draws one head with one set of parameters; leave out --search and "
            "--head all"
        )
    if plot is not None:
        if is_same_file(plot, output):
            raise click.UsageError("--curve-plot and --output name the same file; name two")
        check_output(plot, overwrite=overwrite, kind="a PNG", recognise=is_png, inputs=inputs)
    return CurveOptions(repeats=repeats or _REPEATS, plot=plot)


def is_png(path: Path) -> bool:
    """Return whether a file begins as a PNG does."""
    with path.open("rb") as file:
        return file.read(len(_PNG)) == _PNG


def draw(
    wanted: CurveOptions | None, cache: "FeatureCache", bundle: "HeadBundle", **chosen: Any
) -> "LearningCurve | None":
    """Fit and measure the head on more and more groups, and draw the plot, where asked for."""
    if wanted is None:
        return None
    from brainfeat.training.learning_curve import learning_curve

    with options.ProgressLine("learning curve", "fits") as progress:
        curve = learning_curve(
            cache,
            head=bundle.head,
            params=bundle.params,
            repeats=wanted.repeats,
            progress=progress,
            **{name: chosen[name] for name in _SHARED},
        )
    if wanted.plot is not None:
        from brainfeat.report.learning_curve import draw_curve

        with atomic_write(wanted.plot) as temporary:
            draw_curve(curve, temporary)
    return curve


def show(curve: "LearningCurve | None", wanted: CurveOptions | None) -> None:
    """Print a learning curve, if there is one."""
    if curve is None or wanted is None:
        return
    from brainfeat.report.learning_curve import write_curve

    click.echo(f"\n{write_curve(curve)}\n")
    if wanted.plot is not None:
        options.say(f"{wanted.plot} written")
