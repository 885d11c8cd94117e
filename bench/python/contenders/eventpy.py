"""EventPy: a dispatcher, a listener, a manager, as a user would write them.

The manager sleeps in `invoke_dispatch` when nothing is there.
"""

from __future__ import annotations

from time import perf_counter, sleep
from typing import TYPE_CHECKING

from eventpy import EventDispatchManager, EventListener

import dispatchers
from events import Frame, Reading
from load import WARM_UP, Load, pin
from machine import is_asleep
from tally import FrameTally, Latencies, Tally, frames_reading, throughput_reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventpy import EventDispatcher

    from measure import Figures


def throughput(load: Load) -> Figures:
    """Readings, one an update."""
    tally = Tally()
    parts = [dispatchers.Flood(load) for _ in range(load.producers)]
    seconds, events = _time(load, parts, EventListener({Reading: tally.take}))
    tally.verify(load)
    return throughput_reading(events, seconds)


def batches(load: Load) -> Figures:
    """Lists of readings, one an update."""
    tally = Tally()
    listener = EventListener({Reading: tally.take})
    seconds, events = _time(load, [dispatchers.Batches(load)], listener)
    tally.verify(load)
    return throughput_reading(events, seconds)


def frames(load: Load) -> Figures:
    """Frames, one an update."""
    tally = FrameTally()
    listener = EventListener({Frame: tally.take})
    seconds, events = _time(load, [dispatchers.Camera(load)], listener)
    tally.verify(load)
    return frames_reading(events, seconds)


def latency(load: Load) -> Figures:
    """Stamped readings, one an update."""
    latencies = Latencies()
    listener = EventListener({Reading: latencies.take})
    with EventDispatchManager(dispatchers.Stamped(load), listener) as manager:
        pin(load.cores[1])
        count = 0
        while count < load.events:
            count += manager.invoke_dispatch(timeout=None)
    return latencies.percentiles(load)


def deploy(load: Load) -> Figures:
    """Milliseconds until so many dispatchers are loaded."""
    manager = EventDispatchManager(*(dispatchers.Idle() for _ in range(load.producers)))
    begin = perf_counter()
    manager.deploy_dispatchers()
    seconds = perf_counter() - begin
    manager.end_dispatchers()
    return [seconds * 1e3]


def pid_of_idle(manager: EventDispatchManager) -> int:
    """The process of the only dispatcher, when that sleeps."""
    while True:
        manager.invoke_dispatch()
        pid = manager.stats()["Idle"].pid
        if pid is not None and manager.stats()["Idle"].state == "running" and is_asleep(pid):
            return pid
        sleep(0.001)


def _time(
    load: Load, parts: Sequence[EventDispatcher], listener: EventListener
) -> tuple[float, int]:
    """How long all events took, without those of the warm-up, and how many that were."""
    with EventDispatchManager(*parts, listener) as manager:
        # Not before: processes that start pinned would keep all their threads on this core.
        pin(load.cores[1])
        total = load.events
        pump = manager.invoke_dispatch
        count = 0
        while count < total // WARM_UP:
            count += pump(timeout=None, max_events=total // WARM_UP - count)
        begin, first = perf_counter(), count
        while count < total:
            count += pump(timeout=None)
        return perf_counter() - begin, count - first
