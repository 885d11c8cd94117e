"""What happens to events that are not pumped in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eventpy import DispatcherEnded, DispatcherFailed, EventDispatchManager
from pumping import Collector, pump_until, wait_until
from sources import Counter, Number, ThreadedNumber, Threads

if TYPE_CHECKING:
    from eventpy import DispatcherReport


def collected(delivery: str, count: int) -> tuple[list[int], DispatcherReport]:
    """The numbers that arrive when nobody pumps until all were sent."""
    collector = Collector(Number)
    dispatcher = Counter(count, delivery=delivery, buffer_bytes=4096)
    manager = EventDispatchManager(dispatcher, collector)
    manager.deploy_dispatchers()
    wait_until(lambda: manager.stats()["Counter"].sent >= count)
    manager.invoke_dispatch()
    before_the_end = list(collector.numbers)
    report = manager.end_dispatchers()["Counter"]
    assert report.sent == report.delivered + report.dropped + report.lost == count + 1
    assert report.lost == 0
    assert collector.numbers[-1] == -1
    return before_the_end, report


def test_latest_delivers_the_newest() -> None:
    numbers, report = collected("latest", 5000)
    assert numbers == [4999]
    assert report.dropped == 4999


def test_drop_newest_keeps_the_first() -> None:
    numbers, report = collected("drop_newest", 5000)
    assert numbers == [*range(len(numbers))]
    assert report.dropped == 5000 - len(numbers)


def test_drop_oldest_keeps_the_last() -> None:
    numbers, report = collected("drop_oldest", 5000)
    assert numbers == [*range(5000 - len(numbers), 5000)]
    assert report.dropped == 5000 - len(numbers)


def test_every_waits() -> None:
    collector = Collector(Number)
    with EventDispatchManager(Counter(5000, buffer_bytes=4096), collector) as manager:
        wait_until(lambda: manager.stats()["Counter"].queued_bytes > 3000)
        pump_until(manager, lambda: len(collector.events) == 5000)
    assert collector.numbers == [*range(5000), -1]


@pytest.mark.parametrize("delivery", ["latest", "every"])
def test_a_delivery_may_be_set_per_type(delivery: str) -> None:
    collector = Collector(Number)
    dispatcher = Counter(100, delivery={Number: delivery})
    with EventDispatchManager(dispatcher, collector) as manager:
        wait_until(lambda: manager.stats()["Counter"].sent >= 100)
        assert manager.invoke_dispatch() == (1 if delivery == "latest" else 100)


def test_threads_of_a_dispatcher_may_send_at_once() -> None:
    collector = Collector(ThreadedNumber, DispatcherEnded, DispatcherFailed)
    with EventDispatchManager(Threads(4, 3000), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
        report = manager.end_dispatchers()["Threads"]
    events = collector.of(ThreadedNumber)
    assert not collector.of(DispatcherFailed)
    assert report.delivered == len(events) == 4 * 3000
    for thread in range(4):
        assert [event.n for event in events if event.thread == thread] == [*range(3000)]
