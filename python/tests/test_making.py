"""What happens while an event is made of bytes: a hook of its class or a signal handler runs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, Any, Callable

import pytest

from eventpy import EndReport, EventDispatchManager, ReentrantError
from pumping import Collector, pump_until, wait_until
from sources import Chatty, Counter, Hooked, HookedCounter, Number, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 20
MOST_ATTEMPTS = 10


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def handle(action: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: action())

    yield handle
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def while_making(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Does something while the event of a number is made, as often as told."""

    def set_action(n: int, action: Callable[[], object], times: int = 1) -> list[int]:
        made: list[int] = []

        def when_made(event: Hooked) -> None:
            if event.n == n and len(made) < times:
                made.append(n)
                action()

        monkeypatch.setattr(Hooked, "when_made", staticmethod(when_made))
        return made

    return set_action


def send_signal() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def interrupt() -> None:
    raise KeyboardInterrupt


def payload(kind: str) -> Any:
    if kind == "array":
        return pytest.importorskip("numpy").arange(1 << 18)
    return {"none": None, "bytes": b"x" * (1 << 20)}[kind]


@pytest.mark.parametrize("kind", ["none", "bytes", "array"])
@pytest.mark.parametrize("delivery", ["every", "drop_newest"])
def test_an_event_that_was_interrupted_comes_at_the_next_pump(
    kind: str, delivery: str, on_signal: Any, while_making: Any
) -> None:
    on_signal(interrupt)
    made = while_making(7, send_signal, times=3)
    collector = Collector(Number)
    sent = payload(kind)
    options = {"delivery": delivery, "large_bytes": 1 << 26, "buffer_bytes": 1 << 20}
    manager = EventDispatchManager(HookedCounter(COUNT, sent, **options), collector)
    manager.deploy_dispatchers()
    interrupts = 0
    while len(collector.events) < COUNT:
        try:
            manager.invoke_dispatch(timeout=1.0)
        except KeyboardInterrupt:
            interrupts += 1
            assert collector.numbers == [*range(7)]
    assert interrupts == len(made) == 3
    expected = b"" if sent is None else bytes(sent)
    for event in collector.events:
        assert (b"" if event.payload is None else bytes(event.payload)) == expected
    report = manager.end_dispatchers()
    assert collector.numbers == [*range(COUNT)]
    assert report.is_clean
    assert report["HookedCounter"].delivered == COUNT


def test_an_end_delivers_what_was_interrupted_before_and_in_it(
    on_signal: Any, while_making: Any
) -> None:
    on_signal(interrupt)
    while_making(COUNT - 1, send_signal, times=3)
    collector = Collector(Number)
    manager = EventDispatchManager(HookedCounter(COUNT), collector)
    manager.deploy_dispatchers()
    with pytest.raises(KeyboardInterrupt):
        pump_until(manager, lambda: False)
    assert collector.numbers == [*range(COUNT - 1)]
    with pytest.raises(KeyboardInterrupt):
        manager.end_dispatchers()
    assert collector.numbers == [*range(COUNT)]
    assert manager.stats()["HookedCounter"].state == "ended"


def test_run_returns_and_goes_on_where_it_was_interrupted(
    on_signal: Any, while_making: Any
) -> None:
    on_signal(interrupt)
    while_making(3, send_signal)
    collector = Collector(Number)
    with EventDispatchManager(HookedCounter(COUNT), collector) as manager:
        manager.run()
        assert collector.numbers == [0, 1, 2]
        manager.run(until=lambda: len(collector.events) == COUNT)
    assert collector.numbers == [*range(COUNT)]


def test_a_pump_of_others_leaves_what_was_interrupted(on_signal: Any, while_making: Any) -> None:
    on_signal(interrupt)
    while_making(3, send_signal)
    collector, texts = Collector(Number), Collector(Text)
    manager = EventDispatchManager(HookedCounter(COUNT), Chatty(), collector, texts)
    with manager:
        with pytest.raises(KeyboardInterrupt):
            pump_until(manager, lambda: False)
        texts.events.clear()
        while not texts.events:
            manager.invoke_dispatch(Text, timeout=1.0)
        assert collector.numbers == [*range(3)]
        pump_until(manager, lambda: len(collector.events) == COUNT)
    assert collector.numbers == [*range(COUNT)]


def test_the_descriptor_is_readable_for_what_was_interrupted(
    on_signal: Any, while_making: Any
) -> None:
    on_signal(interrupt)
    while_making(COUNT - 1, send_signal)
    collector = Collector(Number)
    with EventDispatchManager(HookedCounter(COUNT), collector) as manager:
        manager.fileno()
        with pytest.raises(KeyboardInterrupt):
            pump_until(manager, lambda: False)
        assert select.select([manager], [], [], 30)[0]
        assert manager.invoke_dispatch() == 1
        # What a process says readies it too; after that it is silent.
        while select.select([manager], [], [], 0.05)[0]:
            manager.invoke_dispatch()


def test_an_event_that_is_interrupted_each_time_is_given_up(while_making: Any) -> None:
    made = while_making(3, lambda: exit(3), times=100)
    collector = Collector(Number)
    manager = EventDispatchManager(HookedCounter(COUNT), collector)
    manager.deploy_dispatchers()
    exits = 0
    while len(collector.events) < COUNT - 1:
        try:
            manager.invoke_dispatch(timeout=1.0)
        except SystemExit:
            exits += 1
            assert collector.numbers == [*range(3)]
    assert exits == len(made) == MOST_ATTEMPTS
    manager.end_dispatchers()
    assert collector.numbers == [0, 1, 2, *range(4, COUNT)]


@pytest.mark.parametrize("pump", ["invoke_dispatch", "run", "end_dispatchers"])
@pytest.mark.parametrize("then", ["", "interrupt", "exit"])
def test_an_end_from_a_signal_handler_is_carried_out(
    pump: str, then: str, on_signal: Any, while_making: Any
) -> None:
    reports: list[EndReport] = []

    def end() -> None:
        reports.append(manager.end_dispatchers())
        if then == "interrupt":
            interrupt()
        if then == "exit":
            exit()

    on_signal(end)
    made = while_making(7, send_signal)
    collector = Collector(Number)
    manager = EventDispatchManager(HookedCounter(COUNT), Counter(3), collector)
    manager.deploy_dispatchers()
    wait_until(lambda: sum(stats.sent for stats in manager.stats().values()) == COUNT + 3)
    pumps = {
        "invoke_dispatch": lambda: manager.invoke_dispatch(timeout=60.0),
        "run": manager.run,
        "end_dispatchers": manager.end_dispatchers,
    }
    raised = {"interrupt": KeyboardInterrupt, "exit": SystemExit}.get(then)
    is_raised = raised and not (pump == "run" and then == "interrupt")
    with pytest.raises(raised) if is_raised else contextlib.nullcontext():
        while not made:
            pumps[pump]()
    hooked = [event.n for event in collector.events if isinstance(event, Hooked)]
    others = [event.n for event in collector.events if not isinstance(event, Hooked)]
    assert (hooked, others) == ([*range(COUNT)], [0, 1, 2, -1])
    (report,) = reports
    assert report.is_clean
    assert report["HookedCounter"].delivered == COUNT
    assert report["Counter"].exit_code == 0
    assert "Counter" in str(report)
    assert manager._native.is_deployed() is False


def test_an_end_of_another_manager_works_at_once(while_making: Any) -> None:
    numbers, others = Collector(Number), Collector(Number)
    other = EventDispatchManager(Counter(3), others)
    other.deploy_dispatchers()
    wait_until(lambda: other.stats()["Counter"].sent == 3)
    reports: list[EndReport] = []

    def end() -> None:
        reports.append(other.end_dispatchers())
        assert reports[0].is_clean
        assert others.numbers == [0, 1, 2, -1]

    while_making(7, end)
    with EventDispatchManager(HookedCounter(COUNT), numbers) as manager:
        pump_until(manager, lambda: len(numbers.events) == COUNT)
    assert len(reports) == 1


def test_what_a_hook_may_not_do(while_making: Any) -> None:
    refused: list[str] = []

    def try_all() -> None:
        for call in (manager.invoke_dispatch, manager.deploy_dispatchers, manager.run):
            with pytest.raises(ReentrantError, match="while an event was being made") as raised:
                call()
            refused.append(str(raised.value))

    while_making(7, try_all)
    collector = Collector(Number)
    manager = EventDispatchManager(HookedCounter(COUNT), collector)
    with manager:
        manager.register_dispatcher(Counter(1))
        pump_until(manager, lambda: len(collector.events) == COUNT)
        assert manager.stats()["HookedCounter"].delivered == COUNT
    assert len(refused) == 3
