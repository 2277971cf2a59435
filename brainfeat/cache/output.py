"""An output of stage one: an earlier cache or none, and shards of unfinished runs."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.formats import has_format
from brainfeat.cache.lost_rows import check_keys, check_sizes, iterate_keys
from brainfeat.cache.merging import Keys, write_cache
from brainfeat.cache.row_index import RowIndex, Source
from brainfeat.cache.schema import (
    CACHE_SCHEMA,
    SHARD_SCHEMA,
    TEXTS,
)
from brainfeat.cache.shards import (
    list_shards,
    make_folder,
    parts_folder,
    remove_parts,
    remove_shards,
)
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import CacheError

_logger = logging.getLogger(__name__)

_REMEDY = "name another output, or choose the same options as before"


class Overtaken(Exception):  # noqa: N818
    """Another run has written the output, or removed shards, while this run was at work."""


class Output:
    """The state of an output when a run starts: a cache or none, and shards of unfinished runs.

    Parameters
    ----------
    path : Path
        The cache.
    stack : ExitStack
        Closes the files that are opened.
    overwrite : bool
        Whether to replace a cache that is damaged, has another spec, or has other images.

    Attributes
    ----------
    cache : FeatureCache or None
        None if there is no cache, or if it cannot be used and may be replaced.
    shards : list of Shard
        Without damaged ones, which are set aside.

    Raises
    ------
    CacheError
        The cache cannot be used, and must not be replaced.
    """

    def __init__(self, path: Path, stack: ExitStack, *, overwrite: bool) -> None:
        self.path = path
        self._stack = stack
        self._overwrite = overwrite
        self._found = identify(path)
        self.cache = self._open()
        self.shards = list_shards(parts_folder(path))
        self._indexed: list[Source] = []

    def _open(self) -> FeatureCache | None:
        if not self.path.exists():
            return None
        try:
            return self._stack.enter_context(FeatureCache.open(self.path))
        except CacheError:
            if self._overwrite and self._is_replaceable():
                return None
            raise

    def _is_replaceable(self) -> bool:
        """Return whether the file is a cache, damaged or not; one that cannot be read is kept."""
        try:
            return self.path.is_file() and has_format(self.path, CACHE_SCHEMA.format)
        except OSError:
            return False

    @property
    def spec(self) -> FeatureSpec | None:
        """The spec of an earlier run, or None if there was none."""
        specs = [shard.spec for shard in self.shards]
        if self.cache is not None:
            specs = [self.cache.stored_spec]
        return specs[0] if specs else None

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features of another spec, or ignore them if they may be replaced.

        Raises
        ------
        SpecMismatchError
            The specs differ; the message names each field that does.
        """
        if not self._overwrite:
            if self.cache is not None:
                here = f"{self.path} (overwrite=True replaces it)"
                self.cache.stored_spec.require(spec, here=here, there="this run", remedy=_REMEDY)
            here = f"the unfinished {parts_folder(self.path)} (overwrite=True discards it)"
            for shard in self.shards:
                shard.spec.require(spec, here=here, there="this run", remedy=_REMEDY)
        if self.cache is not None and self.cache.stored_spec != spec:
            self.cache = None

    def check_signature(self, spec: FeatureSpec, *, signature: bool) -> None:
        """Refuse to drop signatures, and tell where they are missing.

        Raises
        ------
        CacheError
            The cache has signatures that are not wanted, and must not be replaced.
        """
        cache, parts = self.cache, parts_folder(self.path)
        if signature:
            shards = [shard for shard in self.shards if shard.spec == spec]
            lacking = {parts for shard in shards if not shard.has_signatures}
            if cache is not None and cache.signature is None:
                lacking.add(self.path)
            for path in sorted(lacking):
                _logger.warning(
                    "%s has no signatures; its images are decoded again to compute them "
                    "(signature=False leaves them out)",
                    path,
                )
        elif cache is not None and cache.signature is not None and not self._overwrite:
            raise CacheError(
                f"{self.path} holds signatures that this run would drop; pass "
                "overwrite=True to drop them and keep the features, or leave out signature=False"
            )

    def index(self, spec: FeatureSpec, augmentation: Mapping[str, Any] | None) -> RowIndex:
        """Index the existing rows of a spec; augmented views count only if they were drawn alike.

        Raises
        ------
        Overtaken
            Another run has removed shards.
        """
        self._indexed = self._sources(spec, augmentation)
        with self._unless_overtaken(self._indexed):
            index = RowIndex(self._indexed)
        self._stack.callback(index.close)
        return index

    def read_rows(
        self, index: RowIndex, keys: Keys, *, names: Iterable[str]
    ) -> dict[str, NDArray[Any]]:
        """Read some datasets of rows that are in the index, such as their features.

        Raises
        ------
        Overtaken
            Another run has written the output, or removed shards.
        """
        with self._unless_overtaken(self._indexed):
            rows = index.read(names, index.locate(keys))
        if identify(self.path) != self._found:
            raise Overtaken
        return rows

    def _sources(self, spec: FeatureSpec, augmentation: Mapping[str, Any] | None) -> list[Source]:
        """List shards, then the cache; those with signatures first, because the first counts."""
        shards = [shard for shard in list_shards(parts_folder(self.path)) if shard.spec == spec]
        sources = [
            Source(path=shard.path, schema=SHARD_SCHEMA, views=shard.augmentation == augmentation)
            for shard in shards
        ]
        signed = [shard.has_signatures for shard in shards]
        if self.cache is not None:
            views = self.cache.augmentation == augmentation
            sources.append(Source(path=self.cache.path, schema=CACHE_SCHEMA, views=views))
            signed.append(self.cache.signature is not None)
        order = sorted(range(len(sources)), key=lambda number: not signed[number])
        return [sources[number] for number in order]

    @contextmanager
    def _unless_overtaken(self, sources: list[Source]) -> Iterator[None]:
        """Distinguish rows and files that another run has removed from damaged ones."""
        try:
            yield
        except KeyError as error:
            raise Overtaken from error
        except CacheError as error:
            needed = [parts_folder(self.path), *(source.path for source in sources)]
            if all(path.exists() for path in needed):
                raise
            raise Overtaken from error

    def check_sizes(
        self, sizes: Iterable[tuple[int | None, int]], *, paths: Collection[str]
    ) -> None:
        """Refuse before any work to lose rows: :func:`brainfeat.cache.lost_rows.check_sizes`."""
        if self.cache is not None and not self._overwrite:
            check_sizes(self.cache, sizes, paths=paths)

    def check_dropped(self, keys: Keys) -> None:
        """Refuse to lose rows: :func:`brainfeat.cache.lost_rows.check_keys`."""
        if self.cache is not None and not self._overwrite:
            check_keys(self.cache, keys)

    def merge(
        self,
        keys: Keys,
        *,
        spec: FeatureSpec,
        augmentation: Mapping[str, Any] | None,
        columns: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
        provenance: Mapping[str, Any],
        signature: bool,
        alone: bool,
    ) -> None:
        """Write existing rows into the cache, unless it already holds exactly these.

        Parameters
        ----------
        keys : ndarray of shape (n,), S34
            Identity of each row, in the order that the cache gets.
        spec : FeatureSpec
            What the features mean.
        augmentation : mapping of str to JSON value, or None
            The ranges that the views above 0 were drawn from, or None if there are no such views.
        columns : mapping
            As for :func:`write_cache`.
        attributes : mapping
            ``class_names`` and ``rejected``, as for :func:`write_cache`.
        provenance : mapping
            Versions, hardware and options.
        signature : bool
            Whether the cache has the signatures of its images.
        alone : bool
            Whether no other run can be at work on this output; its leftovers are then removed.

        Raises
        ------
        CacheError
            The cache cannot be written.
        Overtaken
            Another run has written the output, or removed shards; nothing was changed.
        """
        attributes = {**attributes, "augmentation": augmentation}
        if not self._is_current(keys, columns, attributes, signature=signature):
            attributes["provenance"] = provenance
            attributes["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            # An error here does not mean that another run is at work.
            make_folder(parts_folder(self.path))
            sources = self._sources(spec, augmentation)
            if identify(self.path) != self._found:
                raise Overtaken
            with self._unless_overtaken(sources), closing(RowIndex(sources)) as index:
                write_cache(
                    self.path,
                    index=index,
                    keys=keys,
                    spec=spec,
                    columns=columns,
                    attributes=attributes,
                    signature=signature,
                )
        if alone:
            remove_parts(parts_folder(self.path))
        else:
            remove_shards(parts_folder(self.path), keys)

    def _is_current(
        self,
        keys: Keys,
        columns: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
        *,
        signature: bool,
    ) -> bool:
        """Whether the cache already holds these rows and values."""
        cache = self.cache
        if cache is None:
            return False
        return (
            attributes["class_names"] == list(cache.class_names)
            and attributes["rejected"] == [asdict(rejected) for rejected in cache.rejected]
            and attributes["augmentation"] == cache.augmentation
            and signature == (cache.signature is not None)
            and len(keys) == len(cache)
            and all(starmap(np.array_equal, _pair(keys, iterate_keys(cache))))
            and np.array_equal(columns["label"], cache.column("label"))
            and np.array_equal(columns.get("origin", np.zeros(len(cache))), cache.origin)
            and all(np.array_equal(columns[name], cache.column(name)) for name in TEXTS)
        )


def _pair(
    values: NDArray[Any], blocks: Iterator[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pair each block with the values at its position."""
    start = 0
    for block in blocks:
        yield values[start : start + len(block)], block
        start += len(block)


def identify(output: Path) -> tuple[int, int] | None:
    """Return what distinguishes the file at a path from one that replaces it later.

    Returns
    -------
    tuple of int, or None
        Inode and modification time in nanoseconds; None if there is no file.

    Raises
    ------
    CacheError
        The folder does not exist or cannot be reached.
    """
    try:
        if not output.parent.is_dir():
            raise CacheError(f"{output}: there is no folder {output.parent} to write into")
        if output.is_symlink() and not output.exists():
            raise CacheError(f"{output} is a link to nothing; remove it, or name another output")
        status = output.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"{output}: cannot be reached ({error.strerror})") from error
    return status.st_ino, status.st_mtime_ns
