"""The import path of version 1.

A script written for version 1 runs from here as it always did. Version 1 handed a callback only the
newest event of each type at a pump; so here, and only here, `delivery` defaults to `"latest"`.

    from eventpy.events import Event, EventDispatcher, EventDispatchManager, EventListener
"""

from __future__ import annotations

from eventpy import _dispatcher
from eventpy._errors import EventAPIException
from eventpy._event import Event
from eventpy._listener import EventListener
from eventpy._manager import EventDispatchManager
from eventpy._options import Restart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventpy._options import Delivery, RestartWhen

__all__ = [
    "Event",
    "EventAPIException",
    "EventDispatchManager",
    "EventDispatcher",
    "EventListener",
]


class EventDispatcher(_dispatcher.EventDispatcher):
    """An `eventpy.EventDispatcher` whose `delivery` defaults to `"latest"`.

    class Clock(EventDispatcher):
        def __init__(self):
            super().__init__(Tick, Tock)
    """

    def __init__(
        self,
        *event_types: type[Event],
        delivery: Delivery | Mapping[type[Event], Delivery] = "latest",
        restart: RestartWhen | Restart = "never",
        buffer_bytes: int = 1 << 20,
        update_timeout: float | None = None,
        end_timeout: float = 5.0,
        start_timeout: float = 30.0,
        large_bytes: int = 256 << 20,
        copy_large: bool = False,
        name: str | None = None,
    ) -> None:
        """Declares the event types; the options are those of `eventpy.EventDispatcher`.

        super().__init__(Tick, Tock)
        """
        super().__init__(
            *event_types,
            delivery=delivery,
            restart=restart,
            buffer_bytes=buffer_bytes,
            update_timeout=update_timeout,
            end_timeout=end_timeout,
            start_timeout=start_timeout,
            large_bytes=large_bytes,
            copy_large=copy_large,
            name=name,
        )
