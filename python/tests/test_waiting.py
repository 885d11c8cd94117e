"""While the manager waits, everybody else goes on."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

import pytest

from eventpy import EndReport, EventDispatchManager, EventListener
from pumping import Collector, everything, pump_until, wait_until
from sources import Chatty, Counter, Number, Returns, Text
from worker import Worker

if TYPE_CHECKING:
    from pathlib import Path


def test_other_threads_make_progress_while_it_waits() -> None:
    with EventDispatchManager(Counter(0)) as manager:
        counted = 0
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            manager.invoke_dispatch(timeout=0.3)

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        while thread.is_alive():
            counted += 1
            assert manager.stats()["Counter"].delivered == 0
        assert counted > 100


def test_a_signal_is_handled_at_once_and_the_wait_goes_on() -> None:
    handled: list[float] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.append(time.monotonic()))
    try:
        with EventDispatchManager(Counter(0)) as manager:
            start = time.monotonic()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            manager.invoke_dispatch(timeout=2.0)
            took = time.monotonic() - start
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(handled) == 1
    assert took >= 2.0
    assert handled[0] - start < 1.5, "not only when the wait was over"


def test_an_exception_of_a_signal_handler_ends_the_wait() -> None:
    class Stop(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with EventDispatchManager(Counter(0)) as manager:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(Stop):
                manager.invoke_dispatch(timeout=None)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_callbacks_run_in_the_calling_thread() -> None:
    threads: set[int] = set()
    listener = EventListener({Number: lambda event: threads.add(threading.get_ident())})
    with EventDispatchManager(Counter(5), listener) as manager:
        pump_until(manager, lambda: threads)
        assert threads == {threading.get_ident()}


def test_an_idle_wait_takes_its_time_and_no_cpu() -> None:
    with EventDispatchManager(Counter(0)) as manager:
        wait_until(lambda: manager.invoke_dispatch() == 0)
        start, cpu = time.monotonic(), time.process_time()
        assert manager.invoke_dispatch(timeout=0.3) == 0
        assert time.monotonic() - start >= 0.3
        assert time.process_time() - cpu < 0.1


def test_a_wait_without_limit_is_over_when_all_have_ended() -> None:
    collector = everything()
    with EventDispatchManager(Returns("single"), collector) as manager:
        while manager.invoke_dispatch(timeout=None):
            pass
        assert collector.is_over


def test_another_thread_may_end_what_one_waits_for() -> None:
    collector = Collector(Number)
    manager = EventDispatchManager(Counter(1), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: collector.events)
    thread = threading.Thread(target=manager.end_dispatchers)
    thread.start()
    while manager._native.is_deployed():
        try:
            manager.invoke_dispatch(timeout=None)
        except Exception as error:
            assert "ended" in str(error)  # noqa: PT017
    thread.join()
    assert collector.numbers == [0, -1]


WAITS: dict[str, Callable[[EventDispatchManager], object]] = {
    "run": lambda manager: manager.run(),
    "invoke_dispatch": lambda manager: manager.invoke_dispatch(timeout=60.0),
    "invoke_dispatch without limit": lambda manager: manager.invoke_dispatch(timeout=None),
    "end_dispatchers": lambda manager: manager.end_dispatchers(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_signal_handler_may_end_what_is_waited_for(
    wait: Callable[[EventDispatchManager], object], tmp_path: Path
) -> None:
    reports: list[EndReport] = []

    def end(number: int, frame: object) -> None:
        if manager._native.is_deployed():
            reports.append(manager.end_dispatchers())

    before = signal.signal(signal.SIGUSR1, end)
    try:
        manager = EventDispatchManager(Worker(tmp_path / "diary", "finish slowly", 0))
        manager.deploy_dispatchers()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        start = time.monotonic()
        wait(manager)
        assert time.monotonic() - start < 30.0
        wait_until(lambda: reports)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert reports[0].is_clean


@pytest.mark.parametrize("after", ["has_ended", "is_deployed"])
@pytest.mark.parametrize("way", ["run", "with"])
def test_an_end_at_any_moment_is_no_error_of_a_run(after: str, way: str) -> None:
    collector = Collector(Number)
    manager = EventDispatchManager(Counter(3), collector)

    def end(frame: object, event: str, function: Any) -> None:
        # As a signal handler does that runs when this call returns.
        if event == "c_return" and function.__name__ == after and len(collector.events) == 3:
            sys.setprofile(None)
            if manager._native.is_deployed():
                manager.end_dispatchers()

    sys.setprofile(end)
    try:
        if way == "run":
            manager.run(until=lambda: after == "is_deployed" and len(collector.events) == 3)
        else:
            with manager:
                manager.run(until=lambda: after == "is_deployed" and len(collector.events) == 3)
    finally:
        sys.setprofile(None)
    assert collector.numbers == [0, 1, 2, -1]


def test_threads_that_wait_for_different_types_wake_each_for_its_own() -> None:
    texts, numbers = Collector(Text), Collector(Number)
    manager = EventDispatchManager(Chatty(), Counter(0), texts, numbers)
    manager.deploy_dispatchers()
    is_over = threading.Event()

    def wait_for_numbers() -> None:
        while not is_over.is_set():
            manager.invoke_dispatch(Number, timeout=0.005)

    thread = threading.Thread(target=wait_for_numbers)
    thread.start()
    for _ in range(20):
        start = time.monotonic()
        assert manager.invoke_dispatch(Text, timeout=60.0) > 0
        assert time.monotonic() - start < 30.0, "it did not notice its event before its time-out"
    is_over.set()
    thread.join()
    assert manager.end_dispatchers().is_clean


def test_the_descriptor_is_readable_when_there_is_something() -> None:
    collector = Collector(Number)
    with EventDispatchManager(Counter(100), collector) as manager:
        while len(collector.events) < 100:
            readable, _, _ = select.select([manager], [], [], 30)
            assert readable
            manager.invoke_dispatch()
        # What a process says readies it too; after that it is silent.
        while select.select([manager], [], [], 0.05)[0]:
            manager.invoke_dispatch()


def test_asyncio_can_wait_for_it() -> None:
    collector = Collector(Number)

    async def wait(manager: EventDispatchManager) -> None:
        loop = asyncio.get_running_loop()
        complete = loop.create_future()

        def pump() -> None:
            manager.invoke_dispatch()
            if len(collector.events) == 100 and not complete.done():
                complete.set_result(None)

        loop.add_reader(manager, pump)
        await asyncio.wait_for(complete, 30)
        loop.remove_reader(manager)

    with EventDispatchManager(Counter(100), collector) as manager:
        asyncio.run(wait(manager))
    assert collector.numbers == [*range(100), -1]
