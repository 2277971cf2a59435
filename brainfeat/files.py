"""Outputs: what may be replaced, and atomic writes; an unreachable file counts as absent."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from brainfeat.errors import BrainfeatError


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Write a file atomically: it appears complete, or it does not change.

    The body writes to a temporary file. When the body ends without an exception, that file is
    brought to disk and renamed to `target`; otherwise it is removed.

    Parameters
    ----------
    target : Path
        The file; an existing one is replaced in one step.

    Yields
    ------
    Path
        The temporary file, which the body creates: hidden, in the folder of `target`, and with its
        suffix.

    Raises
    ------
    OSError
        The file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder, "notes.txt")
    ...     with atomic_write(target) as temporary:
    ...         characters = temporary.write_text("complete", encoding="utf-8")
    ...     target.read_text(encoding="utf-8")
    'complete'
    """
    with atomic_write_all([target]) as (temporary,):
        yield temporary


@contextmanager
def atomic_write_all(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Write several files: all appear complete, or none appears.

    They get their names when all of them are on disk. If one cannot get its name, those that are
    new disappear again; an old one that was replaced stays replaced.

    Parameters
    ----------
    targets : sequence of Path
        The files.

    Yields
    ------
    list of Path
        The temporary file of each, as by :func:`atomic_write`.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    temporaries = [_name_temporary(target) for target in targets]
    new: list[Path] = []
    try:
        yield temporaries
        for temporary in temporaries:
            _bring_to_disk(temporary)
        for temporary, target in zip(temporaries, targets, strict=True):
            is_new = not target.exists()
            temporary.replace(target)
            if is_new:
                new.append(target)
        new.clear()
    finally:
        for file in (*temporaries, *new):
            with suppress(OSError):
                file.unlink(missing_ok=True)


@contextmanager
def atomic_write_pair(target: Path, beside: Path) -> Iterator[Path]:
    """Write two files, of which `target` needs the other one: both appear complete, or neither.

    The body writes to two temporary files. When it ends without an exception, an old `target` is
    removed first, so that it is never beside a new `beside`, and `target` appears last.

    Parameters
    ----------
    target, beside : Path
        Two files in one folder that differ in their suffixes alone.

    Yields
    ------
    Path
        The temporary file of `target`, as by :func:`atomic_write`; the body also creates the other
        one, which differs from it in its suffix alone.

    Raises
    ------
    OSError
        The files cannot be written.
    """
    temporary = _name_temporary(target)
    other = temporary.with_suffix(beside.suffix)
    try:
        yield temporary
        for file in (other, temporary):
            _bring_to_disk(file)
        target.unlink(missing_ok=True)
        other.replace(beside)
        try:
            temporary.replace(target)
        except OSError:
            beside.unlink()
            raise
    finally:
        for file in (other, temporary):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _name_temporary(target: Path) -> Path:
    return target.parent / f".{secrets.token_hex(8)}{target.suffix}"


def _bring_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    kind: str,
    recognise: Callable[[Path], bool],
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    error: type[BrainfeatError] = BrainfeatError,
) -> Path:
    """Refuse an output that cannot be written or must not be replaced, before any work is done.

    An output never replaces an input of the run, nor a file of another kind, whatever `overwrite`
    says.

    Parameters
    ----------
    path : path-like
        The file to write.
    overwrite : bool
        Whether an existing file of the kind may be replaced.
    kind : str
        What is written, for the message, such as ``"a head"``.
    recognise : callable
        Returns whether an existing file is of the kind.
    inputs : iterable of path-like or None
        Files that the run reads; links to them count, and None is ignored.
    error : type
        What is raised.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BrainfeatError
        Of the type `error`; the message says what to do.
    """
    path = Path(path)
    if not is_so(path.parent.is_dir):
        raise error(f"{path}: there is no folder {path.parent} to write into")
    if not is_so(path.exists):
        if path.is_symlink():
            raise error(f"{path} is a link to nothing; remove it, or name another output")
        check_folder(path.parent, error=error)
        return path
    for given in inputs:
        if given is not None and is_same_file(path, given):
            raise error(f"{path} is an input of this run; name another output")
    if not is_so(path.is_file):
        raise error(f"{path} is not a regular file; name another output")
    if not overwrite:
        raise error(f"{path} exists; name another output or pass overwrite=True")
    try:
        is_own = recognise(path)
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}), and is not replaced") from reason
    if not is_own:
        raise error(f"{path} is not {kind} and is not replaced; name another output")
    check_folder(path.parent, error=error)
    return path


def check_folder(folder: Path, *, error: type[BrainfeatError] = BrainfeatError) -> None:
    """Refuse a folder in which no file can be made, by making one that has no name.

    Raises
    ------
    BrainfeatError
        Of the type `error`.
    """
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as reason:
        raise error(
            f"{folder}: no file can be written there ({reason.strerror}); name another folder"
        ) from reason


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Return whether two paths lead to one file, or to one place for a file that is to come."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return is_so(lambda: Path(first).samefile(second))


def is_so(test: Callable[[], bool]) -> bool:
    """Return the answer of a test on a file, or False if the file cannot be reached.

    Examples
    --------
    >>> is_so(Path("/a/folder/that/does/not/exist").is_dir)
    False
    """
    try:
        return test()
    except OSError:  # a link to itself, or one through a folder that may not be entered
        return False
