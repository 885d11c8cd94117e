"""Pumping until a condition holds."""

from __future__ import annotations

import time
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
