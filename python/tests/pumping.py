"""Pumping until a condition holds."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventpy import DispatcherEnded, DispatcherFailed, Event, EventListener

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventpy import EventDispatchManager

#: A watchdog: no condition takes so long on a sound system.
PATIENCE = 60.0


class Collector(EventListener):
    """Keeps what arrives."""

    def __init__(self, *event_types: type[Event]) -> None:
        super().__init__(dict.fromkeys(event_types, self.on_event))
        self.events: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def of(self, event_type: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, event_type)]

    @property
    def numbers(self) -> list[int]:
        return [event.n for event in self.events if hasattr(event, "n")]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if hasattr(event, "text")]

    @property
    def is_over(self) -> bool:
        return bool(self.of(DispatcherFailed) or self.of(DispatcherEnded))


def everything(*more: type[Event]) -> Collector:
    """A collector of the events of dispatchers and what befalls them."""
    return Collector(Event, *more)


def pump_until(manager: EventDispatchManager, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition is still not met"
        manager.invoke_dispatch(timeout=1.0)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition is still not met"
        time.sleep(0.005)


def lines_of(diary: Path) -> list[str]:
    """What dispatchers have written so far."""
    return diary.read_text().splitlines() if diary.exists() else []


def is_gone(pid: int) -> bool:
    """Whether a process is no more, or was only not reaped."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def is_asleep(pid: int) -> bool:
    """Whether every thread of a process sleeps."""
    tasks = f"/proc/{pid}/task"
    stats = [Path(tasks, task, "stat").read_text() for task in os.listdir(tasks)]
    return all(stat.rsplit(")", 1)[1].split()[0] == "S" for stat in stats)


def children() -> list[int]:
    """The processes that this one has started and not reaped."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


def descriptors() -> list[str]:
    """What this process has open."""
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        # The one that the list was read through is no more.
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(targets)


def held() -> Counter[str]:
    """What this process holds of the kernel: descriptors, mappings and threads of ours."""
    with open("/proc/self/maps") as maps:
        mappings = [line.split(maxsplit=5)[5] for line in maps if "memfd:eventpy" in line]
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            names.append(Path("/proc/self/task", task, "comm").read_text().strip())
    threads = [name for name in names if name.startswith("eventpy")]
    return Counter([*descriptors(), *mappings, *threads])
