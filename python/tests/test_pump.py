"""Events from dispatchers to callbacks."""

from __future__ import annotations

import sys

import pytest

from eventpy import (
    DispatcherEnded,
    DispatcherError,
    EventDispatchManager,
    EventListener,
    ReentrantError,
    StateError,
)
from pumping import Collector, everything, pump_until
from sources import Counter, Emits, Number, Returns, Special, Text


def test_every_event_arrives_once_and_in_order() -> None:
    collector = Collector(Number)
    manager = EventDispatchManager(Counter(50_000, buffer_bytes=1 << 14), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.events) >= 50_000)
    report = manager.end_dispatchers()
    assert collector.numbers == [*range(50_000), -1]
    assert report.is_clean
    counts = report["Counter"]
    assert (counts.sent, counts.delivered, counts.dropped, counts.lost) == (50_001, 50_001, 0, 0)
    assert counts.exit_code == 0
    assert counts.finish_seconds is not None


def test_the_number_of_delivered_events_is_returned() -> None:
    collector = Collector(Number)
    with EventDispatchManager(Counter(100), collector) as manager:
        pump_until(manager, lambda: manager.stats()["Counter"].sent >= 100)
        before = len(collector.events)
        assert manager.invoke_dispatch(max_events=7) <= 7
        delivered = manager.invoke_dispatch()
        assert len(collector.events) - before <= 7 + delivered
        assert manager.invoke_dispatch() == 0


def test_max_events_leaves_the_rest_queued() -> None:
    collector = Collector(Number)
    with EventDispatchManager(Counter(10), collector) as manager:
        while len(collector.events) < 10:
            assert manager.invoke_dispatch(timeout=10, max_events=1) <= 1
        assert collector.numbers == [*range(10)]


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("none", []),
        ("tuple", [1, 2]),
        ("empty tuple", []),
        ("list", [3, 4]),
        ("empty list", []),
        ("generator", [5, 6]),
        ("iterator", [7]),
        ("single", [8]),
        ("derived", [9]),
    ],
)
def test_what_update_may_return(kind: str, numbers: list[int]) -> None:
    collector = everything()
    with EventDispatchManager(Returns("none", kind), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert collector.numbers == numbers


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", ["update returned 'text'", "`str`", "return an event"]),
        ("list of texts", ["'text'", "`str`", "eventpy.Event"]),
        ("undeclared", ["sources.Undeclared", "did not declare", "super().__init__"]),
    ],
)
def test_what_update_may_not_return(kind: str, words: list[str]) -> None:
    manager = EventDispatchManager(Returns(kind))
    manager.deploy_dispatchers()
    with pytest.raises(DispatcherError) as raised:
        pump_until(manager, lambda: False)
    for word in words:
        assert word in str(raised.value)
    assert manager.end_dispatchers()["Returns"].finished


def test_events_are_emitted_from_init_to_finish_and_from_any_thread() -> None:
    collector = everything()
    with EventDispatchManager(Emits(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert collector.numbers == [1, 2, 3, 4]


def test_listeners_of_a_base_class_get_derived_events() -> None:
    numbers, specials, over = Collector(Number), Collector(Special), everything()
    with EventDispatchManager(Returns("list"), numbers, specials, over) as manager:
        pump_until(manager, lambda: over.is_over)
    assert numbers.numbers == [3, 4]
    assert specials.numbers == [4]
    assert type(specials.events[0]) is Special


def test_two_dispatchers_of_one_class_have_their_own_names_and_order() -> None:
    collector = Collector(Number)
    first, second = Counter(100), Counter(50)
    manager = EventDispatchManager(first, second, collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.events) == 150)
    report = manager.end_dispatchers()
    assert list(report) == ["Counter", "Counter#2"]
    assert report[first].sent == 101
    assert report[second].sent == 51
    assert "Counter#2" in str(report)


def test_a_selection_is_pumped_and_ended() -> None:
    numbers, texts = Collector(Number), Collector(Text)
    manager = EventDispatchManager(Counter(5), Returns("none"), numbers, texts)
    manager.deploy_dispatchers(Number)
    with pytest.raises(StateError, match="no dispatcher dispatches Text"):
        manager.invoke_dispatch(Text)
    pump_until(manager, lambda: len(numbers.events) == 5)
    report = manager.end_dispatchers(Number)
    assert report["Counter"].finished


def test_all_callbacks_run_when_one_fails_and_the_rest_stays_queued() -> None:
    seen: list[int] = []

    def fail(event: Number) -> None:
        raise KeyError(event.n)

    manager = EventDispatchManager(
        Counter(3),
        EventListener({Number: fail}),
        EventListener({Number: lambda event: seen.append(event.n)}),
    )
    manager.deploy_dispatchers()
    for n in range(3):
        with pytest.raises(KeyError, match=str(n)):
            pump_until(manager, lambda: False)
        assert seen == [*range(n + 1)]
    with pytest.raises(KeyError, match="-1"):
        manager.end_dispatchers()
    with pytest.raises(StateError, match="the dispatchers have ended"):
        manager.end_dispatchers()


def test_several_callbacks_that_fail_are_one_error() -> None:
    def first(event: Number) -> None:
        raise KeyError("first")

    def second(event: Number) -> None:
        raise ValueError("second")

    listeners = [EventListener({Number: first}), EventListener({Number: second})]
    manager = EventDispatchManager(Counter(1), *listeners)
    manager.deploy_dispatchers()
    with pytest.raises(Exception) as raised:  # noqa: PT011
        pump_until(manager, lambda: False)
    if sys.version_info >= (3, 11):
        assert [type(error) for error in raised.value.exceptions] == [KeyError, ValueError]
    else:
        assert type(raised.value) is KeyError
        assert type(raised.value.__context__) is ValueError
    with pytest.raises(Exception):  # noqa: B017, PT011
        manager.end_dispatchers()


def test_an_interrupt_in_a_callback_comes_before_other_errors() -> None:
    def fail(event: Number) -> None:
        raise KeyError(event.n)

    def interrupt(event: Number) -> None:
        raise KeyboardInterrupt

    listeners = [EventListener({Number: fail}), EventListener({Number: interrupt})]
    manager = EventDispatchManager(Counter(1), *listeners)
    manager.deploy_dispatchers()
    with pytest.raises(KeyboardInterrupt):
        pump_until(manager, lambda: False)
    with pytest.raises(KeyboardInterrupt):
        manager.end_dispatchers()


def test_what_may_be_called_within_a_callback() -> None:
    late = Collector(Number)

    def on_number(event: Number) -> None:
        if event.n == 0:
            with pytest.raises(ReentrantError, match="within a callback"):
                manager.invoke_dispatch()
            manager.register_listener(late)
            assert manager.stats()["Counter"].state == "running"
        if event.n == 5:
            manager.end_dispatchers()

    manager = EventDispatchManager(Counter(10), EventListener({Number: on_number}))
    manager.deploy_dispatchers()
    while manager._native.is_deployed():
        manager.invoke_dispatch(timeout=1.0)
    # Ending delivers the rest before the callback of number 5 returns to the second listener.
    assert late.numbers[-1] == 5
    assert sorted(late.numbers) == [-1, *range(1, len(late.numbers))]


def test_a_listener_of_what_nobody_dispatches_is_no_error() -> None:
    collector = Collector(Text)
    with EventDispatchManager(Counter(1), collector) as manager:
        manager.invoke_dispatch(timeout=1.0)
    assert collector.events == []


def test_a_manager_deploys_again_with_the_dispatcher_as_it_is_then() -> None:
    collector = Collector(Number)
    dispatcher = Counter(1)
    manager = EventDispatchManager(dispatcher, collector)
    with manager:
        pump_until(manager, lambda: collector.numbers == [0])
    dispatcher.count = 2
    with manager:
        pump_until(manager, lambda: collector.numbers == [0, -1, 0, 1])
        assert manager.stats()["Counter"].delivered == 2
    assert collector.numbers == [0, -1, 0, 1, -1]


def test_a_dispatcher_that_is_registered_late_starts_at_the_next_deployment() -> None:
    collector = Collector(Number)
    manager = EventDispatchManager(Counter(1), collector)
    manager.deploy_dispatchers()
    manager.register_dispatcher(Counter(2, name="Late"))
    pump_until(manager, lambda: len(collector.events) == 1)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.events) == 3)
    assert manager.end_dispatchers()["Late"].sent == 3


def test_run_pumps_for_a_time_until_a_condition_or_all_have_ended() -> None:
    collector = everything()
    manager = EventDispatchManager(Counter(3), collector)
    assert manager.run(until=lambda: len(collector.numbers) == 3) == 3
    assert collector.numbers == [0, 1, 2, -1]
    with manager:
        assert manager.run(duration=0.05) <= 3
    ended = everything()
    assert EventDispatchManager(Returns("single"), ended).run() == 2
    assert [type(event) for event in ended.events[1:]] == [DispatcherEnded]
    assert ended.events[1].report.sent == 1


def test_stats_tell_what_goes_on() -> None:
    collector = Collector(Number)
    with EventDispatchManager(Counter(3), collector) as manager:
        pump_until(manager, lambda: len(collector.events) == 3)
        stats = manager.stats()["Counter"]
        assert (stats.state, stats.restarts, stats.queued_bytes) == ("running", 0, 0)
        assert stats.pid is not None
        assert stats.event_types["Number"].delivered == 3
    assert manager.stats()["Counter"].state == "ended"
