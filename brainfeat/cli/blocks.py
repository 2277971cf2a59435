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
    from brainfeat.heads.bundle import HeadBundle

_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<path>.+)", re.DOTALL)

_JOIN = click.option(
    "--join",
    type=click.Choice(["groups", "images"]),
    help="Join several FEATURES: modalities of the same groups of the tables, such as patients, of "
    "which the head takes one vector of each; or bases of the same images, whose features it takes "
    "together. They are named by their files, or as NAME=FEATURES.",
)
_LAYER = click.option(
    "--layer",
    metavar="NAME[+NAME...]",
    help="Layer of FEATURES that have several; or several layers of one, whose features the head "
    "takes together.  [default: the deepest]",
)
_ABLATE = click.option(
    "--ablate-blocks",
    is_flag=True,
    help="Also cross-validate the head on each of the joined FEATURES alone, and on all but each, "
    "in the same folds, to show what each is worth.",
)


def join_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a join to a command."""
    return _JOIN(_LAYER(_ABLATE(command)))


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


def _read_weights(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> str | dict[str, str]:
    """Return the weights of one base, or those of several by name."""
    named = [split_name(value) for value in values]
    if len(named) == 1 and named[0][0] is None:
        return values[0]
    if any(name is None for name, _ in named):
        raise click.BadParameter(
            "weights of several bases each have the name of a modality or a block, as NAME=FILE"
        )
    found = {str(name): str(path) for name, path in named}
    if len(found) < len(named):
        raise click.BadParameter("a name is given twice; give the weights of each base once")
    return found


weights_option = click.option(
    "--weights",
    multiple=True,
    default=("imagenet",),
    show_default="imagenet",
    callback=_read_weights,
    metavar="imagenet|random|[NAME=]FILE",
    help="Weights of the base; they must be those of the features that the head was fitted on. Of "
    "a head of several bases, once for each, with the name of its modality or block.",
)


@contextmanager
def open_join(
    features: Sequence[Path],
    *,
    join: str | None,
    layer: str | None = None,
    table: Path | None,
    verify: Verify,
) -> Iterator["FeatureCache"]:
    """Open one cache, or join several, or several layers of one.

    Parameters
    ----------
    features : sequence of Path
        As of :func:`split_names`.
    join : {"groups", "images"} or None
    layer : str or None
        As of :func:`brainfeat.fit_head`.
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
            "patients, such as several modalities, or --join images where they are of the same "
            "images by several bases"
            if len(paths) > 1
            else "FEATURES have a name where several are joined; pass --join and more"
        )
    with ExitStack() as stack:
        caches = [
            stack.enter_context(options.open_cache(path, table=table, verify=verify))
            for path in paths
        ]
        from brainfeat.training.joined_fit import join_features

        yield join_features(caches, join=join, names=names, layer=layer)


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


@contextmanager
def open_compared(
    heads: "Sequence[HeadBundle]", features: Sequence[Path], *, table: Path | None, verify: Verify
) -> Iterator["FeatureCache"]:
    """Open the caches that heads are compared on, and join several: modalities, or on images.

    Parameters
    ----------
    heads : sequence of HeadBundle
    features, table, verify
        As of :func:`open_join`.

    Yields
    ------
    FeatureCache
    """
    of_groups = [head.blocks for head in heads if head.blocks and head.takes_modalities]
    if of_groups:
        with open_blocks(of_groups[0], features, table=table, verify=verify) as joined:
            yield joined
        return
    join = "images" if len(features) > 1 else None
    with open_join(features, join=join, table=table, verify=verify) as cache:
        yield cache
