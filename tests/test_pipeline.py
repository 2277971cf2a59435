"""What stage one does at once: order, memory, and what a failure leaves."""

import threading
import time

import numpy as np
import pytest

from brainfeat.errors import CacheError
from brainfeat.extraction.pipeline import BatchComputer, map_ahead

SHAPE = (2, 2, 3)


def sums(images):
    """Return one feature: the sum of an image."""
    return images.sum(axis=(1, 2, 3), dtype=np.float32)[:, None]


class Received(list):
    """The items that came back, with their features, in order."""

    def __call__(self, items, features):
        assert len(items) == len(features)
        self.extend(zip(items, features[:, 0].tolist(), strict=True))


def make_computer(*copies, batch_size=2, receive):
    return BatchComputer(
        copies or (sums,),
        batch_size=batch_size,
        image_shape=SHAPE,
        n_features=1,
        receive=receive,
    )


def fill(computer, numbers):
    for number in numbers:
        computer.add(number, np.full(SHAPE, number, np.uint8))


class TestMapAhead:
    def test_results_are_in_order_whatever_the_threads_do(self):
        def slow_when_even(index):
            time.sleep(0.002 * (index % 2 == 0))
            return index

        assert list(map_ahead(slow_when_even, range(40), n_jobs=4, ahead=8)) == list(range(40))

    def test_no_more_results_exist_than_were_allowed(self):
        begun = []
        results = map_ahead(begun.append, range(100), n_jobs=4, ahead=5)
        for taken in range(1, 20):
            next(results)
            assert len(begun) <= taken + 5
        results.close()

    def test_work_that_nobody_waits_for_is_not_begun(self):
        begun = []

        def work(index):
            begun.append(index)
            time.sleep(0.001)

        results = map_ahead(work, range(1000), n_jobs=1, ahead=50)
        next(results)
        results.close()
        number = len(begun)
        assert number < 60
        time.sleep(0.01)
        assert len(begun) == number

    def test_an_error_comes_where_its_result_would(self):
        def fail_at_two(index):
            if index == 2:
                raise OSError("the third")
            return index

        results = map_ahead(fail_at_two, range(5), n_jobs=2, ahead=3)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OSError, match="third"):
            next(results)


class TestBatchComputer:
    @pytest.mark.parametrize("number", [1, 2, 3, 7, 8])
    def test_features_come_back_in_order_with_their_items(self, number):
        received = Received()
        computer = make_computer(receive=received)
        fill(computer, range(number))
        computer.finish()
        computer.close()
        assert received == [(n, n * 12.0) for n in range(number)]

    def test_each_batch_has_the_one_shape(self):
        shapes = []

        def watched(images):
            shapes.append(images.shape)
            return sums(images)

        computer = make_computer(watched, batch_size=4, receive=Received())
        fill(computer, range(6))
        computer.finish()
        computer.close()
        assert shapes == [(4, *SHAPE)] * 2

    def test_every_copy_computes_and_the_order_stays(self):
        """The first copy is slow: the second takes what it cannot."""
        batches = {"slow": 0, "fast": 0}

        def make_copy(name, seconds):
            def copy(images):
                batches[name] += 1
                time.sleep(seconds)
                return sums(images)

            return copy

        received = Received()
        computer = make_computer(
            make_copy("slow", 0.05), make_copy("fast", 0.001), receive=received
        )
        fill(computer, range(40))
        computer.finish()
        computer.close()
        assert [item for item, _ in received] == list(range(40))
        assert batches["fast"] > batches["slow"] > 0
        assert sum(batches.values()) == 20

    def test_a_copy_is_asked_for_one_batch_at_a_time(self):
        busy = threading.Lock()

        def copy(images):
            assert busy.acquire(blocking=False)
            time.sleep(0.001)
            busy.release()
            return sums(images)

        received = Received()
        computer = make_computer(copy, receive=received)
        fill(computer, range(20))
        computer.finish()
        computer.close()
        assert len(received) == 20

    def test_images_may_be_added_while_a_batch_is_computed(self):
        began, go_on = threading.Event(), threading.Event()

        def held(images):
            began.set()
            assert go_on.wait(10)
            return sums(images)

        received = Received()
        computer = make_computer(held, receive=received)
        fill(computer, range(3))
        assert began.wait(10)
        assert (computer.oldest, received) == (0, [])
        go_on.set()
        computer.finish()
        assert computer.oldest is None
        computer.close()
        assert [item for item, _ in received] == [0, 1, 2]

    def test_no_more_batches_wait_than_the_copies_need(self):
        go_on = threading.Event()

        def held(images):
            assert go_on.wait(10)
            return sums(images)

        computer = make_computer(held, batch_size=1, receive=Received())
        added = []

        def add():
            for number in range(10):
                computer.add(number, np.zeros(SHAPE, np.uint8))
                added.append(number)

        adding = threading.Thread(target=add)
        adding.start()
        time.sleep(0.1)
        assert len(added) <= 3
        go_on.set()
        adding.join()
        computer.finish()
        computer.close()
        assert len(added) == 10

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_what_came_before_a_failure_is_given_back(self, error):
        calls = []

        def fail_at_third(images):
            calls.append(images)
            if len(calls) == 3:
                raise error("the plug was pulled")
            return sums(images)

        received = Received()
        computer = make_computer(fail_at_third, receive=received)
        with pytest.raises(error, match="plug"):
            fill(computer, range(20))
        computer.close()
        assert [item for item, _ in received] == [0, 1, 2, 3]

    def test_a_receiver_that_failed_is_not_called_again(self):
        calls = []

        def fail(items, features):
            calls.append(items)
            raise OSError("disk full")

        computer = make_computer(receive=fail)
        with pytest.raises(OSError, match="disk full"):
            fill(computer, range(20))
        computer.close()
        assert calls == [[0, 1]]

    def test_pixels_that_are_not_8_bit_are_refused(self):
        """They would be cut to whole numbers, so that an image in [0, 1] became black."""
        computer = make_computer(receive=Received())
        with pytest.raises(TypeError, match="cast"):
            computer.add(0, np.ones(SHAPE, np.float32))
        computer.close()

    def test_a_wrong_shape_is_named(self):
        computer = make_computer(lambda images: np.zeros((2, 3)), receive=Received())
        with pytest.raises(CacheError, match=r"gave features of shape \(2, 3\); expected \(2, 1\)"):
            fill(computer, range(20))
        computer.close()
