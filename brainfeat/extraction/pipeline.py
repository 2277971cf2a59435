"""Concurrency of stage one: images are decoded ahead and batches computed, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import CacheError

Images = NDArray[np.uint8]
Features = NDArray[np.float32]
Compute = Callable[[Images], Features]
Item = TypeVar("Item")
Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Batches that wait for each copy of the base while it computes another one.
_QUEUED = 1


def map_ahead(
    function: Callable[[Argument], Result], items: Iterable[Argument], *, n_jobs: int, ahead: int
) -> Generator[Result, None, None]:
    """Call a function of each item in threads and yield its results in order.

    Parameters
    ----------
    function : callable
        From an item to a result.
    items : iterable
        Iterated in the caller's thread.
    n_jobs : int
        Threads.
    ahead : int
        Largest number of results that are computed before they are needed; it bounds the memory.

    Yields
    ------
    object
        The results, in the order of the items. The threads end when the generator is closed.

    Examples
    --------
    >>> list(map_ahead(lambda index: index**2, range(4), n_jobs=2, ahead=2))
    [0, 1, 4, 9]
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_jobs, thread_name_prefix="brainfeat-load") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


@dataclass
class _Batch(Generic[Item]):
    """Images of one shape; those after the first `len(items)` are padding."""

    images: Images
    items: list[Item] = field(default_factory=list)


class BatchComputer(Generic[Item]):
    """Collects images into batches of one shape, computes them, and returns features in order.

    Each copy of a base computes in a thread of its own, so that the caller's thread can fill the
    next batch and store finished features. A free copy takes the batch that has waited longest.

    Parameters
    ----------
    copies : sequence of callable
        Copies of the base, each from uint8 images (batch_size, h, w, 3) to features
        (batch_size, d).
    batch_size : int
        Images in a batch; a short last batch is padded.
    image_shape : tuple of int
        (h, w, 3).
    n_features : int
        d.
    receive : callable
        Called in the caller's thread, in the order of the images, with the items of a batch and
        their features (len(items), d), float32.
    queued : int, default=0
        Images that may wait, if more than a batch for each copy: where the caller's thread is at
        times busy with other things, while the copies go on.

    Raises
    ------
    CacheError
        If a copy returns features of another shape.
    """

    def __init__(
        self,
        copies: Sequence[Compute],
        *,
        batch_size: int,
        image_shape: tuple[int, ...],
        n_features: int,
        receive: Callable[[list[Item], Features], None],
        queued: int = 0,
    ) -> None:
        self._batch_size = batch_size
        self._shape = (batch_size, *image_shape)
        self._expected = (batch_size, n_features)
        self._receive = receive
        self._capacity = max(len(copies) * (1 + _QUEUED), queued // batch_size)
        self._copies: SimpleQueue[Compute] = SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self._threads = ThreadPoolExecutor(len(copies), thread_name_prefix="brainfeat-compute")
        self._computing: deque[tuple[Future[Features], _Batch[Item]]] = deque()
        self._spare: list[Images] = []
        self._intact = True
        self._filling: _Batch[Item] = self._make_batch()

    def add(self, item: Item, image: Images) -> None:
        """Add an 8-bit image with its item; this may wait until a batch is computed."""
        batch = self._filling
        np.copyto(batch.images[len(batch.items)], image, casting="no")
        batch.items.append(item)
        if len(batch.items) == self._batch_size:
            self._submit()

    @property
    def oldest(self) -> Item | None:
        """The item that has waited longest for its features, or None."""
        batches = [batch for _, batch in self._computing] + [self._filling]
        return next((batch.items[0] for batch in batches if batch.items), None)

    def finish(self) -> None:
        """Compute the waiting images and return all features."""
        if self._filling.items:
            self._submit()
        while self._computing:
            self._collect()

    def close(self) -> None:
        """Drop batches that have not begun; return the features before the first that failed."""
        for future, _ in self._computing:
            future.cancel()
        wait([future for future, _ in self._computing])
        try:
            while self._computing and self._intact and _has_result(self._computing[0][0]):
                self._collect()
        finally:
            self._computing.clear()
            self._threads.shutdown()

    def _submit(self) -> None:
        batch = self._filling
        self._computing.append((self._threads.submit(self._compute, batch.images), batch))
        while self._computing and (
            len(self._computing) > self._capacity or self._computing[0][0].done()
        ):
            self._collect()
        self._filling = self._make_batch()

    def _compute(self, images: Images) -> Any:
        copy = self._copies.get()
        try:
            # Copied, because a function may return a view of its input, or one buffer each time.
            return np.array(copy(images), np.float32)
        finally:
            self._copies.put(copy)

    def _collect(self) -> None:
        future, batch = self._computing[0]
        features = future.result()  # the batch must still be queued if this is interrupted
        self._computing.popleft()
        self._intact = False
        if features.shape != self._expected:
            raise CacheError(
                f"the backbone gave features of shape {features.shape}; expected {self._expected}"
            )
        self._receive(batch.items, features[: len(batch.items)])
        self._spare.append(batch.images)
        self._intact = True

    def _make_batch(self) -> _Batch[Item]:
        images = self._spare.pop() if self._spare else np.zeros(self._shape, np.uint8)
        return _Batch(images)


def _has_result(future: Future[Any]) -> bool:
    return not future.cancelled() and future.exception() is None
