"""Order, bounds and overlap of the pull pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from transforms.streaming import Bounds, StageTimes, ordered_map


class Gauge:
    """Counts how many items exist between their making and their end."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.lock = threading.Lock()

    def enter(self, weight: int) -> None:
        with self.lock:
            self.now += weight
            self.peak = max(self.peak, self.now)

    def leave(self, weight: int) -> None:
        with self.lock:
            self.now -= weight


def test_results_keep_the_order_of_the_items() -> None:
    def slow_for_some(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number * 2

    with ThreadPoolExecutor(4) as pool:
        found = list(ordered_map(slow_for_some, range(50), pool, Bounds(items=8), weigh=lambda _: 1))
    assert found == [number * 2 for number in range(50)]


@pytest.mark.parametrize(("weight", "limit"), [(10, 40), (100, 100)])
def test_no_more_is_held_than_the_bound(weight: int, limit: int) -> None:
    """Items of 10 under a bound of 40: four at most. Items heavier than the bound: one at a time."""
    gauge = Gauge()

    def make(number: int) -> int:
        gauge.enter(weight)
        return number

    with ThreadPoolExecutor(8) as pool:
        for _ in ordered_map(make, range(40), pool, Bounds(items=100, bytes=40), weigh=lambda _: weight):
            time.sleep(0.001)
            gauge.leave(weight)
    # the consumer holds one result while the stage fills up behind it
    assert gauge.peak <= limit + (weight if weight <= 40 else 0)


def test_a_heavy_item_does_not_pull_the_next_one() -> None:
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for number in range(3):
            pulled.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(int, source(), pool, Bounds(bytes=10), weigh=lambda _: 11)
        assert next(results) == 0
        assert pulled == [0]


def test_an_error_surfaces_in_its_place() -> None:
    def fail_on_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(fail_on_three, range(9), pool, Bounds(), weigh=lambda _: 1)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(results)


def test_threads_overlap() -> None:
    """With two threads, two items meet at a barrier that needs both."""
    barrier = threading.Barrier(2, timeout=10)
    with ThreadPoolExecutor(2) as pool:
        list(ordered_map(lambda _: barrier.wait(), range(4), pool, Bounds(), weigh=lambda _: 1))


def test_stage_times_add_up() -> None:
    times = StageTimes()
    with times.measure("a"):
        time.sleep(0.01)
    assert list(times.timed("b", iter([1, 2]))) == [1, 2]
    assert times.seconds["a"] >= 0.01
    assert "b" in times.seconds
