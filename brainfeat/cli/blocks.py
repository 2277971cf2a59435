"""Several feature caches on a command line, each with a name: ``t1=t1.h5 flair=flair.h5``."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.blocks import Blocks

_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<path>.+)", re.DOTALL)

_JOIN = click.option(
    "--join",
    type=click.Choice(["groups"]),
    help="Join several FEATURES, such as modalities: the head takes one vector of each for each "
    "group of the tables, such as a patient. They are named by their files, or as NAME=FEATURES.",
)
_ABLATE = click.option(
    "--ablate-blocks",
    is_flag=True,
    help="Also cross-validate the head on each of the joined FEATURES alone, and on all but each, "
    "in the same folds, to show what each is worth.",
)


def join_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a join to a command."""
    return _JOIN(_ABLATE(command))


def split_name(text: str | Path) -> tuple[str | None, Path]:
    """Divide ``NAME=PATH`` into name and path; a file of that very name has none.

    Examples
    --------
    >>> split_name("t1=scans/t1.h5"), split_name("scans/a=b.h5")
    (('t1', PosixPath('scans/t1.h5')), (None, PosixPath('scans/a=b.h5')))
    """
    found = _NAMED.fullmatch(str(text))
    if found is None or Path(text).exists():
        return None, Path(text)
    return found["name"], Path(found["path"])


def split_names(arguments: Sequence[Path]) -> tuple[list[str] | None, list[Path]]:
    """Divide the names from the paths of caches; None where none has a name.

    Parameters
    ----------
    arguments : sequence of Path
        ``NAME=PATH``, or paths alone.

    Returns
    -------
    tuple of (list of str or None, list of Path)
        A cache without a name among others has that of its file.
    """
    pairs = [split_name(argument) for argument in arguments]
    if all(name is None for name, _ in pairs):
        return None, [path for _, path in pairs]
    return [name or path.stem for name, path in pairs], [path for _, path in pairs]


@contextmanager
def open_join(
    features: Sequence[Path], *, join: str | None, table: Path | None, verify: Verify
) -> Iterator["FeatureCache"]:
    """Open one cache, or join several on their groups.

    Parameters
    ----------
    features : sequence of Path
        As of :func:`split_names`.
    join : {"groups"} or None
    table : Path or None
        A table with splits and groups of the images of all caches.
    verify : {"full", "off"}

    Yields
    ------
    FeatureCache
    """
    names, paths = split_names(features)
    if join is None and (len(paths) > 1 or names is not None):
        raise click.UsageError(
            f"{len(paths)} FEATURES without --join; pass --join groups where they are of the same "
            "patients, such as several modalities"
            if len(paths) > 1
            else "FEATURES have a name where several are joined; pass --join groups and more"
        )
    with ExitStack() as stack:
        caches = [
            stack.enter_context(options.open_cache(path, table=table, verify=verify))
            for path in paths
        ]
        if join is None:
            yield caches[0]
            return
        from brainfeat.cache.joining import join_caches

        yield join_caches(caches, on="group", names=names)


@contextmanager
def open_blocks(
    head_blocks: "Blocks", features: Sequence[Path], *, table: Path | None, verify: Verify
) -> Iterator["FeatureCache"]:
    """Open and join the caches that a head of several blocks takes.

    Parameters
    ----------
    head_blocks : Blocks
    features, table, verify
        As of :func:`open_join`.

    Yields
    ------
    FeatureCache
    """
    from brainfeat.evaluation.block_caches import join_blocks

    names, paths = split_names(features)
    with ExitStack() as stack:
        caches = [
            stack.enter_context(options.open_cache(path, table=table, verify=verify))
            for path in paths
        ]
        yield join_blocks(head_blocks, caches, names=names)
