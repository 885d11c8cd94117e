"""Restarts, with their patience and limits; deployments one after another."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy

from eventpy import (
    DispatcherEnded,
    DispatcherFailed,
    DispatcherRestarted,
    Event,
    EventDispatcher,
    EventDispatchManager,
    Restart,
)
from pumping import Collector, everything, lines_of, pump_until
from worker import Worker

if TYPE_CHECKING:
    from pathlib import Path


def pid_of(manager: EventDispatchManager, name: str) -> int:
    pid = manager.stats()[name].pid
    assert pid is not None
    return pid


def pump_until_told(
    manager: EventDispatchManager, collector: Collector, event_type: type[Event], times: int
) -> None:
    pump_until(manager, lambda: len(collector.of(event_type)) == times)


def test_one_that_fails_in_init_again_and_again_gets_longer_and_longer_pauses(
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"
    collector = everything()
    restart = Restart("on_failure", backoff=0.01, backoff_max=0.035, limit=4)
    manager = EventDispatchManager(Worker(diary, "raise in init", restart=restart), collector)
    manager.deploy_dispatchers()
    for failures in range(1, 5):
        pump_until_told(manager, collector, DispatcherFailed, failures)
        stats = manager.stats()["Worker"]
        assert (stats.state, stats.pid, stats.restarts) == ("waiting", None, failures - 1)
        pump_until_told(manager, collector, DispatcherRestarted, failures)
        assert manager.stats()["Worker"].restarts == failures
    pump_until_told(manager, collector, DispatcherFailed, 5)
    assert manager.stats()["Worker"].state == "failed"

    pauses = [event.backoff_seconds for event in collector.of(DispatcherRestarted)]
    for pause, least in zip(pauses, [0.01, 0.02, 0.035, 0.035]):
        assert least <= pause <= 1.25 * least + 1e-6
    last = collector.of(DispatcherFailed)[-1]
    assert not last.will_restart
    assert "not restarted: 4 restarts within" in last.reason
    report = manager.end_dispatchers()["Worker"]
    assert (report.finished, report.restarts, report.exit_code) == (False, 4, 1)
    assert lines_of(diary).count("finish") == 0


def test_each_process_has_its_own_finish(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = everything()
    restart = Restart("always", backoff=0.0, limit=3)
    with EventDispatchManager(Worker(diary, "end", 10, restart=restart), collector) as manager:
        pump_until_told(manager, collector, DispatcherEnded, 4)
    assert (lines_of(diary).count("init"), lines_of(diary).count("finish")) == (4, 4)
    assert collector.numbers == [*range(10)] * 4
    assert collector.texts == ["10"] * 4


def test_one_that_dies_while_the_manager_ends_it_is_not_started_anew(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = everything()
    worker = Worker(diary, "kill in finish", 10, restart=Restart("always", backoff=0.0))
    manager = EventDispatchManager(worker, collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.numbers) == 10)
    report = manager.end_dispatchers()["Worker"]
    assert (report.finished, report.exit_code, report.restarts) == (False, -signal.SIGKILL, 0)
    assert "SIGKILL" in (report.failure or "")
    assert report.sent == report.delivered == 10
    assert (lines_of(diary).count("init"), lines_of(diary).count("finish")) == (1, 1)


class Frame(Event):
    def __init__(self, n: int, image: Any) -> None:
        self.n = n
        self.image = image


class Camera(EventDispatcher):
    """Sends frames without end, each filled with its number."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Frame, **options)

    def init(self) -> Any:
        return (), {"sent": [0]}

    def update(self, sent: list[int]) -> Frame:
        sent[0] += 1
        return Frame(sent[0], numpy.full(4 << 20, sent[0] % 251, "u1"))

    def finish(self, sent: list[int]) -> None: ...


def test_one_that_is_killed_with_large_events_on_their_way_starts_anew() -> None:
    numbers: list[int] = []

    class Frames(Collector):
        def on_event(self, event: Any) -> None:
            if isinstance(event, Frame):
                assert (event.image == event.n % 251).all()
                numbers.append(event.n)
            else:
                super().on_event(event)

    told = Frames(Frame, DispatcherFailed, DispatcherRestarted)
    camera = Camera(restart=Restart("on_failure", backoff=0.0, limit=100))
    with EventDispatchManager(camera, told) as manager:
        for kills in range(1, 6):
            pump_until(manager, lambda: numbers and numbers[-1] > 1)
            time.sleep(random.uniform(0.0, 0.005))
            os.kill(pid_of(manager, "Camera"), signal.SIGKILL)
            pump_until_told(manager, told, DispatcherRestarted, kills)
            pump_until(manager, lambda: numbers.count(1) > len(told.of(DispatcherRestarted)))
        report = manager.end_dispatchers()["Camera"]
    assert report.finished
    assert report.sent == report.delivered == len(numbers)
    assert (report.restarts, report.lost) == (5, 0)
    for before, after in zip(numbers, numbers[1:]):
        assert after in (before + 1, 1), "in order, and each process from the start"


def test_each_deployment_counts_from_the_start(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = everything()
    for then, failure in (("wait", None), ("raise", "update raised ValueError: no luck")):
        manager = EventDispatchManager(Worker(diary, then, 10, buffer_bytes=4096), collector)
        for _ in range(3):
            collector.events.clear()
            manager.deploy_dispatchers()
            if failure:
                pump_until(manager, lambda: collector.is_over)
                assert manager.stats()["Worker"].state == "failed"
            else:
                pump_until(manager, lambda: len(collector.numbers) == 10)
            assert collector.numbers == [*range(10)]
            report = manager.end_dispatchers()["Worker"]
            assert collector.texts == ["10"]
            assert (report.sent, report.delivered, report.failure) == (11, 11, failure)


def test_one_that_failed_is_deployed_again_without_an_end(tmp_path: Path) -> None:
    collector = everything()
    manager = EventDispatchManager(Worker(tmp_path / "diary", "raise", 10), collector)
    for _ in range(3):
        collector.events.clear()
        manager.deploy_dispatchers()
        pump_until(manager, lambda: collector.is_over)
        assert collector.numbers == [*range(10)]
        stats = manager.stats()["Worker"]
        assert (stats.state, stats.delivered, stats.queued_bytes) == ("failed", 11, 0)
    manager.end_dispatchers()
