"""What stage one does at once: images are decoded ahead and batches computed, in their order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import CacheError

Images = NDArray[np.float32]
Features = NDArray[np.float32]
Compute = Callable[[Images], Features]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Batches that wait for each copy of the base beside the one that it computes.
_QUEUED = 1


def map_ahead(
    function: Callable[[int], Result], number: int, *, n_jobs: int, ahead: int
) -> Iterator[Result]:
    """Call a function of 0, 1, … `number` − 1 in threads and yield its results in order.

    Parameters
    ----------
    function : callable
        From an index to a result.
    number : int
        How many indices there are.
    n_jobs : int
        Threads.
    ahead : int
        Most results that exist and have not been asked for: what bounds the memory.

    Yields
    ------
    object
        The results, in the order of the indices.

    Examples
    --------
    >>> list(map_ahead(lambda index: index**2, 4, n_jobs=2, ahead=2))
    [0, 1, 4, 9]
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_jobs, thread_name_prefix="brainfeat-load") as threads:
        try:
            for index in range(number):
                waiting.append(threads.submit(function, index))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


@dataclass
class _Batch(Generic[Item]):
    """Images of one shape, of which the first `len(items)` count and the rest is padding."""

    images: Images
    items: list[Item] = field(default_factory=list)


class BatchComputer(Generic[Item]):
    """Collect images into batches of one shape, compute them, and give features back in order.

    Each copy of a base has a thread that computes, so that the caller's thread can fill the next
    batch and write what is done. A copy that is free takes the batch that has waited longest.

    Parameters
    ----------
    copies : sequence of callable
        The copies of the base, each from images (batch_size, h, w, 3) to features (batch_size, d).
    batch_size : int
        Images of a batch; what a short last batch leaves is padding.
    image_shape : tuple of int
        (h, w, 3).
    n_features : int
        d.
    receive : callable
        Called in the caller's thread, in the order of the images, with the items of a batch and
        their features (len(items), d).
    """

    def __init__(
        self,
        copies: Sequence[Compute],
        *,
        batch_size: int,
        image_shape: tuple[int, ...],
        n_features: int,
        receive: Callable[[list[Item], Features], None],
    ) -> None:
        self._batch_size = batch_size
        self._shape = (batch_size, *image_shape)
        self._expected = (batch_size, n_features)
        self._receive = receive
        self._most = len(copies) * (1 + _QUEUED)
        self._copies: SimpleQueue[Compute] = SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self._threads = ThreadPoolExecutor(len(copies), thread_name_prefix="brainfeat-compute")
        self._computing: deque[tuple[Future[Features], _Batch[Item]]] = deque()
        self._spare: list[Images] = []
        self._intact = True
        self._filling: _Batch[Item] = self._make_batch()

    def add(self, item: Item, image: Images) -> None:
        """Add an image; this may wait for a batch to be computed."""
        batch = self._filling
        batch.images[len(batch.items)] = image
        batch.items.append(item)
        if len(batch.items) == self._batch_size:
            self._submit()

    @property
    def oldest(self) -> Item | None:
        """The item that has waited longest for its features."""
        batches = [batch for _, batch in self._computing] + [self._filling]
        return next((batch.items[0] for batch in batches if batch.items), None)

    def finish(self) -> None:
        """Compute the images that wait, and give all features back."""
        if self._filling.items:
            self._submit()
        while self._computing:
            self._collect()

    def close(self) -> None:
        """Drop what no copy has begun; give back what comes before the first that failed."""
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
            len(self._computing) > self._most or self._computing[0][0].done()
        ):
            self._collect()
        self._filling = self._make_batch()

    def _compute(self, images: Images) -> Any:
        copy = self._copies.get()
        try:
            # A copy: what computes may give a view of its input, or the same buffer each time.
            return np.array(copy(images), np.float32)
        finally:
            self._copies.put(copy)

    def _collect(self) -> None:
        future, batch = self._computing[0]
        features = future.result()  # where this is interrupted, the batch is still there
        self._computing.popleft()
        self._intact = False
        if features.shape != self._expected:
            raise CacheError(
                f"the backbone gave features {features.shape}, expected {self._expected}"
            )
        self._receive(batch.items, features[: len(batch.items)])
        self._spare.append(batch.images)
        self._intact = True

    def _make_batch(self) -> _Batch[Item]:
        images = self._spare.pop() if self._spare else np.zeros(self._shape, np.float32)
        return _Batch(images)


def _has_result(future: Future[Any]) -> bool:
    return not future.cancelled() and future.exception() is None
