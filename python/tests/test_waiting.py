"""While the manager waits, everybody else goes on."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time

import pytest

from eventpy import EventDispatchManager, EventListener
from pumping import Collector, everything, pump_until, wait_until
from sources import Chatty, Counter, Number, Returns, Text


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
