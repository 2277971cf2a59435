"""Files that ``brainfeat evaluate`` writes beside its results: an HTML report and a model card."""

import hashlib
import io
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cli import options
from brainfeat.errors import BrainfeatError
from brainfeat.evaluation.class_mapping import write_classes
from brainfeat.files import check_output, is_same_file

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit

_FILE = click.Path(path_type=Path)
# The title of a report is in its first bytes.
_TITLE_BYTES = 4096
_OPTIONS = (
    click.option("--report", type=_FILE, help="Write an HTML report; needs the extra report."),
    click.option(
        "--card",
        type=_FILE,
        help="Write a model card in Markdown, or as a CHAI Applied Model Card if it ends in .xml.",
    ),
    click.option(
        "--checklist",
        type=click.Choice(["claim2024", "tripod-ai"]),
        help="Add the items of a reporting guideline, and answer those that software can answer.",
    ),
    click.option(
        "--include-images",
        is_flag=True,
        help="Show the most confident errors and some copies in the HTML report, which "
        "otherwise contains no image and no path.",
    ),
    click.option(
        "--images",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Folder of the images: the one that was extracted, or that of its CSV.",
    ),
    options.overwrite_option,
)


def report_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the reports to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_options(chosen: dict[str, Any], *, inputs: Sequence[Path | None]) -> bool:
    """Refuse options that exclude each other, and files that must not be written.

    Parameters
    ----------
    chosen : dict
        The options of :func:`report_options` by name.
    inputs : sequence of Path or None
        Files that the command reads.

    Returns
    -------
    bool
        Whether a report or a card was asked for.
    """
    wanted = [chosen[name] for name in ("report", "card") if chosen[name] is not None]
    if chosen["checklist"] and not [path for path in wanted if not _is_xml(path)]:
        raise click.UsageError(
            "--checklist needs --report or --card, with a card in Markdown; name one of them"
        )
    if chosen["include_images"] and (chosen["report"] is None or chosen["images"] is None):
        raise click.UsageError(
            "--include-images needs --report, and --images with the folder that was extracted"
        )
    if chosen["images"] is not None and not chosen["include_images"]:
        raise click.UsageError("--images needs --include-images")
    if len(wanted) == 2 and is_same_file(*wanted):
        raise click.UsageError("--report and --card name the same file; name two")
    if chosen["images"] is not None and not chosen["images"].is_dir():
        raise BrainfeatError(f"{chosen['images']} is not a folder; name the one that was extracted")
    for path in wanted:
        check_output(
            path,
            overwrite=chosen["overwrite"],
            kind="a report or a card that brainfeat wrote",
            recognise=_is_report,
            inputs=inputs,
        )
    return bool(wanted)


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _is_report(path: Path) -> bool:
    """Return whether a file has the title of a report near its start."""
    from brainfeat.report.outline import TITLE

    with path.open("rb") as file:
        return TITLE.encode() in file.read(_TITLE_BYTES)


def audit_cache(cache: "FeatureCache", *, threshold: float | None, random_state: int) -> "Audit":
    """Audit a cache; search one with very many images only for exact duplicates."""
    from brainfeat.leakage.auditing import audit, audit_duplicates
    from brainfeat.leakage.duplicates import NEAR_SEARCH_LIMIT, NEAR_THRESHOLD

    if threshold is None and int(cache.is_image.sum()) > NEAR_SEARCH_LIMIT:
        return audit_duplicates(cache)
    return audit(cache, threshold=threshold or NEAR_THRESHOLD, random_state=random_state)


def write_reports(
    chosen: dict[str, Any],
    evaluation: "Evaluation",
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit",
    sets: "SetsEvaluation | None" = None,
) -> None:
    """Write the HTML report and the model card, if they were asked for."""
    from brainfeat.report import to_card, to_chai_card, to_html

    given: dict[str, Any] = {
        "bundle": bundle,
        "cache": cache,
        "audit": audit,
        "command": describe_command(click.get_current_context()),
        "checklist": chosen["checklist"],
        "sets": sets,
    }
    images = _make_reader(chosen["images"], cache) if chosen["include_images"] else None
    if chosen["report"] is not None:
        with options.ProgressLine("drawing the report"):
            page = to_html(evaluation, **given, images=images)
        options.write_text(chosen["report"], page)
        options.say(f"{chosen['report']} written", err=True)
    if chosen["card"] is not None:
        if _is_xml(chosen["card"]):
            del given["checklist"]
            card = to_chai_card(evaluation, **given)
        else:
            card = to_card(evaluation, **given)
        options.write_text(chosen["card"], card)
        options.say(f"{chosen['card']} written", err=True)


def describe_command(context: click.Context) -> str:
    """Rebuild the command line with paths reduced to names, because folders may contain names."""
    words = ["brainfeat", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option):
            for text in _list_values(value):
                words += [parameter.opts[0]] if parameter.is_flag else [parameter.opts[0], text]
        else:
            words += _list_values(value)
    return shlex.join(words)


def _list_values(value: Any) -> list[str]:
    """Write a value as it was given, once for each time that it was."""
    if isinstance(value, dict):
        return [f"{key}={entry:g}" for key, entry in value.items()]
    return [_name(entry) for entry in value] if isinstance(value, tuple) else [_name(value)]


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return write_classes(value)
    return value.name if isinstance(value, Path) else str(value)


def _make_reader(folder: Path, cache: "FeatureCache") -> Callable[[str], Any]:
    from brainfeat.readers import read_bytes, read_image
    from brainfeat.tables.rows import path_trouble

    def read(path: str) -> Any:
        # A cache may come from anyone, and the files that it names are copied into the report.
        if trouble := path_trouble(path):
            raise BrainfeatError(f"the path {path!r} of the cache {trouble}")
        content = read_bytes(folder / path, name=str(folder / path))
        row = (cache.paths == path).argmax()
        if hashlib.sha256(content).digest() != cache.sha256[row].tobytes():
            raise BrainfeatError(f"{folder / path} is not the file that was extracted")
        return read_image(io.BytesIO(content), name=path, value_range=cache.spec.value_range)

    return read
