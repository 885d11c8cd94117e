"""`end_dispatchers` from anywhere: callbacks, threads, signal handlers, in the midst of a start."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from eventpy import (
    EndReport,
    EventAPIException,
    EventDispatchManager,
    EventListener,
    StateError,
)
from pumping import Collector, children, lines_of, pump_until, wait_until
from sources import Number
from worker import Worker

if TYPE_CHECKING:
    from pathlib import Path


def test_from_a_callback_with_a_full_ring(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    numbers: list[int] = []
    reports: list[EndReport] = []

    def on_number(event: Number) -> None:
        numbers.append(event.n)
        if event.n == 50:
            reports.append(manager.end_dispatchers())

    worker = Worker(diary, "flood", buffer_bytes=4096)
    manager = EventDispatchManager(worker, EventListener({Number: on_number}))
    manager.deploy_dispatchers()
    pump_until(manager, lambda: numbers)
    while not reports:
        manager.invoke_dispatch(timeout=1.0)
    report = reports[0]["Worker"]
    assert report.finished
    assert report.sent == report.delivered == len(numbers) + 1
    assert numbers == [*range(len(numbers))]
    assert lines_of(diary).count("finish") == 1


def test_from_a_thread_while_the_main_thread_pumps_a_flood(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = Collector(Number)
    manager = EventDispatchManager(Worker(diary, "flood", buffer_bytes=4096), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.events) > 100)
    reports: list[EndReport] = []
    thread = threading.Thread(target=lambda: reports.append(manager.end_dispatchers()))
    thread.start()
    while manager._native.is_deployed():
        # Refused while the end is in the midst of a callback, and when all have ended.
        with contextlib.suppress(StateError):
            manager.invoke_dispatch(timeout=1.0)
    thread.join()
    report = reports[0]["Worker"]
    assert report.finished
    assert report.sent == report.delivered == len(collector.events) + 1
    assert sorted(collector.numbers) == [*range(len(collector.events))]
    assert lines_of(diary).count("finish") == 1


@pytest.mark.parametrize("then", ["wait", "flood", "finish slowly"])
@pytest.mark.parametrize("attempt", range(10))
def test_from_several_threads_at_once(attempt: int, then: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = Collector(Number)
    manager = EventDispatchManager(Worker(diary, then, buffer_bytes=4096), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: collector.events)
    results: list[Any] = []
    start = threading.Barrier(4)

    def end() -> None:
        start.wait()
        try:
            results.append(manager.end_dispatchers())
        except StateError as error:
            results.append(error)

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that comes when all is over is told so.
    late = [result for result in results if isinstance(result, StateError)]
    assert all("the dispatchers have ended" in str(error) for error in late)
    assert len(results) == 4
    reports = [result for result in results if isinstance(result, EndReport)]
    assert reports
    for report in reports:
        assert report.is_clean, report
        assert report["Worker"].delivered == len(collector.events) + 1
    assert sorted(collector.numbers) == [*range(len(collector.events))]
    assert lines_of(diary).count("finish") == 1


@pytest.mark.parametrize("attempt", range(10))
def test_from_a_thread_during_the_deployment(attempt: int, tmp_path: Path) -> None:
    diaries = [tmp_path / str(n) for n in range(4)]
    manager = EventDispatchManager(*[Worker(diary, "wait") for diary in diaries])
    raised: list[EventAPIException] = []

    def deploy() -> None:
        try:
            manager.deploy_dispatchers()
        except EventAPIException as error:
            raised.append(error)

    thread = threading.Thread(target=deploy)
    thread.start()
    wait_until(manager._native.is_deployed)
    time.sleep(attempt * 0.004)
    assert manager.end_dispatchers().is_clean
    thread.join()
    assert raised == []
    for diary in diaries:
        assert lines_of(diary).count("finish") == lines_of(diary).count("init") == 1
    assert manager._native.is_deployed() is False
    # It is as good as new.
    manager.deploy_dispatchers()
    assert manager.end_dispatchers().is_clean


@pytest.mark.parametrize("attempt", range(10))
def test_from_a_signal_handler_during_the_deployment(attempt: int, tmp_path: Path) -> None:
    diaries = [tmp_path / str(n) for n in range(4)]
    manager = EventDispatchManager(*[Worker(diary, "wait") for diary in diaries])
    reports: list[EndReport] = []

    def handle(number: int, frame: object) -> None:
        if not reports and manager._native.is_deployed():
            reports.append(manager.end_dispatchers())

    before = signal.signal(signal.SIGUSR1, handle)
    is_over = threading.Event()

    def keep_sending() -> None:
        while not is_over.wait(0.002):
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=keep_sending)
    thread.start()
    try:
        manager.deploy_dispatchers()
        wait_until(lambda: reports)
    finally:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert reports[0].is_clean, reports
    for diary in diaries:
        assert lines_of(diary).count("finish") == lines_of(diary).count("init")
    assert children() == []


def test_sixty_four_dispatchers_finish_side_by_side(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    workers = [Worker(diary, "finish slowly", 1) for _ in range(64)]
    manager = EventDispatchManager(*workers)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: lines_of(diary).count("then") == 64)
    start = time.monotonic()
    reports = manager.end_dispatchers()
    took = time.monotonic() - start
    assert reports.is_clean
    one_by_one = sum(report.finish_seconds or 0.0 for report in reports.values())
    assert one_by_one >= 64 * 0.3
    assert took < 64 * 0.3 / 3
    assert lines_of(diary).count("finish") == 64
