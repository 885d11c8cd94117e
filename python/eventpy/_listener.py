"""`EventListener`: where events go."""

from __future__ import annotations

from eventpy._errors import ArgumentError
from eventpy._options import check_event_types, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from eventpy._event import Event


class EventListener:
    """Gets events: a callback for each event type.

    A callback also gets the events of classes that are derived from its type. It runs in the thread
    that pumps.

        class Printer(EventListener):
            def __init__(self):
                super().__init__({Tick: self.on_tick})

            def on_tick(self, event):
                print(event.n)
    """

    def __init__(self, callbacks: Mapping[type[Event], Callable[[Any], object]]) -> None:
        """Takes a dict of event types and callbacks.

        EventListener({Tick: lambda event: print(event.n)})
        """
        owner = f"listener `{type(self).__name__}`"
        if not hasattr(callbacks, "items"):
            raise ArgumentError(
                f"{owner}: it was given {callbacks!r}; give a dict of event types and callbacks"
            )
        check_event_types(owner, tuple(callbacks))
        for event_type, callback in callbacks.items():
            if not callable(callback):
                raise ArgumentError(
                    f"{owner}: the callback for {type_name(event_type)} is {callback!r}, "
                    "which can't be called"
                )
        self._eventpy_callbacks = dict(callbacks)
