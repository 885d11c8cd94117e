"""Event sources in processes of their own, their events at callbacks in yours.

Write an `EventDispatcher`, which makes events, and an `EventListener`, which gets them. Hand both
to an `EventDispatchManager`, deploy, and pump. A dispatcher that blocks, crashes or hangs does so
in its own process: yours goes on, and is told.

    from eventpy import Event, EventDispatcher, EventDispatchManager, EventListener

    class Tick(Event):
        def __init__(self, n):
            self.n = n

    class Clock(EventDispatcher):
        def __init__(self, period):
            super().__init__(Tick)
            self.period = period

        def init(self):
            return (), {"count": [0]}

        def update(self, count):
            self.wait(self.period)
            count[0] += 1
            return Tick(count[0])

        def finish(self, count):
            print("ticks:", count[0])

    class Printer(EventListener):
        def __init__(self):
            super().__init__({Tick: self.on_tick})

        def on_tick(self, event):
            print(event.n)

    if __name__ == "__main__":
        with EventDispatchManager(Clock(0.5), Printer()) as manager:
            manager.run(duration=5)
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eventpy._dispatcher import EventDispatcher
    from eventpy._errors import (
        ArgumentError,
        DeployError,
        DispatcherError,
        EventAPIException,
        EventError,
        EventTypeError,
        OptionError,
        ReentrantError,
        ResourceError,
        StateError,
    )
    from eventpy._event import DispatcherEnded, DispatcherFailed, DispatcherRestarted, Event
    from eventpy._listener import EventListener
    from eventpy._manager import EventDispatchManager
    from eventpy._options import Restart
    from eventpy._report import Counts, DispatcherReport, DispatcherStats, EndReport, Stats

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Counts",
    "DeployError",
    "DispatcherEnded",
    "DispatcherError",
    "DispatcherFailed",
    "DispatcherReport",
    "DispatcherRestarted",
    "DispatcherStats",
    "EndReport",
    "Event",
    "EventAPIException",
    "EventDispatchManager",
    "EventDispatcher",
    "EventError",
    "EventListener",
    "EventTypeError",
    "OptionError",
    "ReentrantError",
    "ResourceError",
    "Restart",
    "StateError",
    "Stats",
]

#: Where each name is defined. A module is imported when the first of its names is asked for: a
#: dispatcher's process needs few of them, and starts the faster.
_MODULES = {
    "_dispatcher": ("EventDispatcher",),
    "_errors": (
        "ArgumentError",
        "DeployError",
        "DispatcherError",
        "EventAPIException",
        "EventError",
        "EventTypeError",
        "OptionError",
        "ReentrantError",
        "ResourceError",
        "StateError",
    ),
    "_event": ("DispatcherEnded", "DispatcherFailed", "DispatcherRestarted", "Event"),
    "_listener": ("EventListener",),
    "_manager": ("EventDispatchManager",),
    "_options": ("Restart",),
    "_report": ("Counts", "DispatcherReport", "DispatcherStats", "EndReport", "Stats"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            found: object = getattr(__import__(f"eventpy.{module}", fromlist=[name]), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'eventpy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
