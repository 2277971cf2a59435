"""The option ``--classes``: what the classes of a set are called by a head."""

from pathlib import Path
from typing import Any

import click

from brainfeat.errors import ParameterError, TableError
from brainfeat.evaluation.class_mapping import Classes, parse_classes
from brainfeat.files import is_so

_HEADER = ["class", "head_class"]


class ClassMapping(click.ParamType[dict[str, tuple[str, ...]]]):
    """A mapping as a text, or the path of a CSV file that has it."""

    name = "FILE|SET=HEAD+HEAD,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Classes:
        """Convert the value."""
        if not isinstance(value, str):
            return dict(value)
        # A mapping may be longer than a path can be.
        if value and ("=" not in value or is_so(Path(value).is_file)):
            return read_classes(Path(value))
        try:
            return parse_classes(value)
        except ParameterError as error:
            self.fail(str(error), param, ctx)


def read_classes(path: Path) -> Classes:
    """Read a mapping from a CSV file with the columns ``class`` and ``head_class``.

    Parameters
    ----------
    path : Path
        A row for each class of the head.

    Returns
    -------
    dict of str to tuple of str
        Classes of the head by class of the set.

    Raises
    ------
    TableError
        The file cannot be read, or has other columns.
    """
    from brainfeat.tables.csv_records import read_records

    records = list(read_records(path))
    if not records or records[0][0] != _HEADER:
        raise TableError(
            f"{path} has no mapping of classes; expected a CSV file with the columns "
            "class,head_class, or SET=HEAD+HEAD in place of a file"
        )
    found: dict[str, list[str]] = {}
    for cells, line in records[1:]:
        if len(cells) != len(_HEADER) or not all(cells):
            raise TableError(f"{path}, line {line}: expected a class and a class of the head")
        found.setdefault(cells[0], []).append(cells[1])
    return {name: tuple(members) for name, members in found.items()}


classes_option = click.option(
    "--classes",
    type=ClassMapping(),
    multiple=True,
    help="Classes of the head by class of FEATURES, where these have other names: "
    "yes=glioma+meningioma,no=notumor, or a CSV file with the columns class and head_class. "
    "Several are added up. May be given once for each kind of FEATURES.",
)
