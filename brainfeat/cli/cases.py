"""What is given of each modality of patients, on the command line or in a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cli import options
from brainfeat.cli.wording import translate

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.cases import CasePart
    from brainfeat.prediction.joined import JoinedPredictor


class NamedPath(click.ParamType[tuple[str, Path]]):
    """A path with the name of a modality, ``NAME=PATH``."""

    name = "name=path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Convert the value."""
        if isinstance(value, tuple):
            return value
        name, _, path = value.partition("=")
        if not name or not path:
            self.fail(f"{value!r} is not NAME=PATH, such as t1=scans/t1", param, ctx)
        return name, Path(path)


_INPUT = click.option(
    "--input",
    "inputs",
    type=NamedPath(),
    metavar="NAME=PATH",
    multiple=True,
    help="Images or volumes of one modality of a head that was fitted on several: of one patient, "
    "or a folder with a folder for each patient, named alike in all modalities.",
)
_TABLE = click.option(
    "--input-table",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="The same in a table with the columns path, modality and group.",
)


def input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what is given of each modality to a command."""
    return _INPUT(_TABLE(command))


def list_paths(
    inputs: Sequence[tuple[str, Path]], input_table: Path | None, *others: Path | None
) -> Iterator[Path]:
    """Yield the paths that a command reads."""
    yield from (path for _, path in inputs)
    yield from (path for path in (input_table, *others) if path is not None)


def are_given(
    inputs: Sequence[tuple[str, Path]],
    input_table: Path | None,
    *,
    images: Sequence[Path],
    outputs: Mapping[str, Path | None],
) -> bool:
    """Return whether modalities are given; refuse more than one way to give images, or none.

    `outputs` are the options whose files show images or volumes, which patients are not.
    """
    ways = [bool(images), bool(inputs), input_table is not None]
    if sum(ways) != 1:
        raise click.UsageError(
            "give images or folders; or, for a head of several modalities, either --input for each "
            "modality or --input-table"
        )
    names = [name for name, _ in inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.UsageError(f"--input has {twice[0]} twice; give one path of each modality")
    if images:
        return False
    for name, path in outputs.items():
        if path is not None:
            raise click.UsageError(
                f"{name} shows images or volumes, and a head of several modalities takes patients; "
                f"leave {name} out"
            )
    return True


def require_one_modality(bundle: "HeadBundle") -> "HeadBundle":
    """Return a head, but refuse one of several modalities: images are given without theirs."""
    if bundle.blocks is not None and bundle.takes_modalities:
        raise click.UsageError(
            "the head takes several modalities; give --input NAME=PATH for each of "
            f"{', '.join(bundle.blocks.names)}, or --input-table"
        )
    return bundle


def find(
    predictor: "JoinedPredictor",
    inputs: Sequence[tuple[str, Path]],
    input_table: Path | None,
    *,
    keep_masks: bool,
) -> "list[CasePart]":
    """Find what is given of each patient, and warn in one line of masks that are left out."""
    from brainfeat.prediction.cases import find_parts, read_parts
    from brainfeat.tables.masks import BY_NAME, BY_VALUES, describe_masks

    names = predictor.blocks.names
    if input_table is not None:
        parts = read_parts(input_table, names, keep_masks=keep_masks)
    else:
        parts = find_parts(dict(inputs), names, keep_masks=keep_masks)
    if masks := sum(part.masks for part in parts):
        warning = describe_masks(masks, "file", f"{BY_NAME}, or {BY_VALUES}")
        options.say(f"warning: {translate(warning)}", err=True)
    return parts
