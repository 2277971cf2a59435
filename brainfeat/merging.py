"""Output: the rows that an output has, finished or not, and their merge into one cache."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.augmentation import Augmentation
from brainfeat.cache import (
    CACHE_SCHEMA,
    SHARD_SCHEMA,
    FeatureCache,
    RowIndex,
    Source,
    list_shards,
    make_folder,
    parts_folder,
    remove_parts,
    remove_shards,
    row_keys,
    write_cache,
)
from brainfeat.errors import CacheError
from brainfeat.spec import FeatureSpec, Precision
from brainfeat.storage import as_text


class Overtaken(Exception):  # noqa: N818
    """Another run wrote the output, or took shards away, while this one was at work."""


class Output:
    """An output as a run finds it: a cache or none, and the shards of runs that did not finish.

    Parameters
    ----------
    path : Path
        The cache.
    stack : ExitStack
        What closes the files that are opened.
    overwrite : bool
        Whether a cache that is damaged, of another spec, or with other images may be replaced.

    Attributes
    ----------
    cache : FeatureCache or None
        None also where the cache may be replaced and cannot be used.
    shards : list of Shard
        Damaged ones are set aside.

    Raises
    ------
    CacheError
        The cache cannot be used.
    """

    def __init__(self, path: Path, stack: ExitStack, *, overwrite: bool) -> None:
        self.path = path
        self._stack = stack
        self._overwrite = overwrite
        self._found = identify(path)
        self.cache = self._open()
        self.shards = list_shards(parts_folder(path))

    def _open(self) -> FeatureCache | None:
        if not self.path.exists():
            return None
        try:
            return self._stack.enter_context(FeatureCache.open(self.path))
        except CacheError:
            if self._overwrite and self.path.is_file():
                return None
            raise

    @property
    def precision(self) -> Precision | None:
        """What an earlier run computed in."""
        specs = [shard.spec for shard in self.shards]
        if self.cache is not None:
            specs = [self.cache.spec]
        return specs[0].precision if specs else None

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features of another spec, or pass over them where they may be replaced.

        Raises
        ------
        SpecMismatchError
            The message names each field that differs.
        """
        if not self._overwrite:
            if self.cache is not None:
                here = f"{self.path} (--overwrite replaces it)"
                self.cache.spec.require(spec, here=here, there="this run")
            here = f"the unfinished {parts_folder(self.path)} (--overwrite discards it)"
            for shard in self.shards:
                shard.spec.require(spec, here=here, there="this run")
        if self.cache is not None and self.cache.spec != spec:
            self.cache = None

    def index(self, spec: FeatureSpec, augmentation: Augmentation | None) -> RowIndex:
        """Index the rows of a spec that exist now, and are of use with these views.

        Raises
        ------
        Overtaken
            Another run took shards away.
        """
        sources = self._sources(spec, augmentation)
        with self._unless_overtaken(sources):
            index = RowIndex(sources)
        self._stack.callback(index.close)
        return index

    def _sources(self, spec: FeatureSpec, augmentation: Augmentation | None) -> list[Source]:
        ranges = augmentation.to_dict() if augmentation else None
        sources = [
            Source(path=shard.path, schema=SHARD_SCHEMA, views=shard.augmentation == ranges)
            for shard in list_shards(parts_folder(self.path))
            if shard.spec == spec
        ]
        if self.cache is not None:
            views = self.cache.augmentation == ranges
            sources.append(Source(path=self.cache.path, schema=CACHE_SCHEMA, views=views))
        return sources

    @contextmanager
    def _unless_overtaken(self, sources: list[Source]) -> Iterator[None]:
        """Tell rows and files that another run took away from those that are not as they should."""
        try:
            yield
        except KeyError as error:
            raise Overtaken from error
        except CacheError as error:
            needed = [parts_folder(self.path), *(source.path for source in sources)]
            if all(path.exists() for path in needed):
                raise
            raise Overtaken from error

    def check_dropped(self, keys: NDArray[np.bytes_]) -> None:
        """Refuse to lose rows of images that the table has not."""
        if self.cache is None or self._overwrite:
            return
        lost = np.isin(row_keys(self.cache.sha256, self.cache.view), keys, invert=True)
        if lost.any():
            raise CacheError(
                f"{self.path} holds {lost.sum():,} rows that this run would drop (first: "
                f"{self.cache.paths[lost][0]}, view {self.cache.view[lost][0]}); pass --overwrite "
                "to drop them and keep the others, or name another output"
            )

    def merge(
        self,
        keys: NDArray[np.bytes_],
        *,
        spec: FeatureSpec,
        augmentation: Augmentation | None,
        columns: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
        provenance: Mapping[str, Any],
        alone: bool,
    ) -> None:
        """Write rows that exist into the cache, unless it says all of it already.

        Parameters
        ----------
        keys : ndarray of shape (n,), S34
            Identity of each row, in the order of the cache.
        spec, augmentation
            What the features mean, and what made the views above 0.
        columns, attributes : mapping
            As in :func:`brainfeat.cache.write_cache`, but for what is known here.
        provenance : mapping
            Versions, hardware and options.
        alone : bool
            Whether no other run can be at work on this output: its leftovers are removed then.

        Raises
        ------
        Overtaken
            Another run wrote the output, or took shards away; what is there is left as it is.
        """
        attributes = {
            **attributes,
            "augmentation": augmentation.to_dict() if augmentation else None,
        }
        if not self._says_the_same(keys, columns, attributes):
            attributes["provenance"] = provenance
            attributes["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            # Where it cannot be made, no other run is the reason.
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
                )
        if alone:
            remove_parts(parts_folder(self.path))
        else:
            remove_shards(parts_folder(self.path), keys)

    def _says_the_same(
        self,
        keys: NDArray[np.bytes_],
        columns: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
    ) -> bool:
        cache = self.cache
        if cache is None:
            return False
        stored = {
            "label": cache.y,
            "path": as_text(cache.paths),
            "split": as_text(cache.splits),
            "group": as_text(cache.groups),
            "source": as_text(cache.sources),
        }
        return (
            attributes["class_names"] == list(cache.class_names)
            and attributes["rejected"] == [asdict(rejected) for rejected in cache.rejected]
            and attributes["augmentation"] == cache.augmentation
            and np.array_equal(keys, row_keys(cache.sha256, cache.view))
            and all(np.array_equal(columns[name], stored[name]) for name in stored)
        )


def identify(output: Path) -> tuple[int, int] | None:
    """Tell one file at a path from another that replaced it; None is no file.

    Raises
    ------
    CacheError
        The folder is not there, or cannot be reached.
    """
    try:
        if not output.parent.is_dir():
            raise CacheError(f"{output}: there is no folder {output.parent} to write into")
        status = output.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"{output}: cannot be reached ({error.strerror})") from error
    return status.st_ino, status.st_mtime_ns
