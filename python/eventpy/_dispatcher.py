"""`EventDispatcher`: where events come from, in a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

from eventpy import _eventpy
from eventpy._errors import ArgumentError
from eventpy._options import DispatcherOptions, Restart, check_event_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from eventpy._event import Event
    from eventpy._options import Delivery, RestartWhen


class EventDispatcher(ABC):
    """Makes events, in a process of its own.

    `init` runs once; then `update` again and again; `finish` exactly once, however the loop ends.
    The object is pickled and taken to its process at `deploy_dispatchers`: give it settings in
    `__init__`, and open what can't be pickled (files, sockets, devices) in `init`.

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
    """

    def __init__(
        self,
        *event_types: type[Event],
        delivery: Delivery | Mapping[type[Event], Delivery] = "every",
        restart: RestartWhen | Restart = "never",
        buffer_bytes: int = 1 << 20,
        update_timeout: float | None = None,
        end_timeout: float = 5.0,
        start_timeout: float = 30.0,
        large_bytes: int = 256 << 20,
        copy_large: bool = False,
        name: str | None = None,
    ) -> None:
        """Declares the event types, and how the dispatcher is run.

        `delivery`: what happens to events that are not pumped in time, for all types or as a dict
        per type. `"every"` makes the dispatcher wait; `"latest"` delivers the newest at each pump;
        `"drop_newest"` and `"drop_oldest"` drop when the buffer is full. Every drop is counted.

        `restart`: `"never"`, `"on_failure"`, `"always"`, or a `Restart`.

        `buffer_bytes`: size of the ring, a power of two. `large_bytes`: what events too large for
        it (64 KiB, or an eighth of it) may take beside it at one time. Their buffers, as of numpy
        arrays, arrive read-only, in memory shared with the dispatcher; with `copy_large` they
        arrive as writable copies.

        `update_timeout`: the longest that an `update` may take, without the time it waits, in
        seconds. The failure tells where it hangs, unless code in C holds the interpreter's lock.
        `start_timeout`: the longest until the process has loaded the dispatcher, in seconds.
        `end_timeout`: how long the dispatcher may take after the end command until SIGTERM is
        sent, and again until SIGKILL.

        `name`: what errors and reports call it; the name of its class if left out.

            super().__init__(Frame, Still, delivery={Frame: "latest"}, restart="on_failure")
        """
        owner = f"dispatcher `{name or type(self).__name__}`"
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"{owner}: its name is {name!r}, but must be a str")
        check_event_types(owner, event_types)
        self._eventpy_name = name or type(self).__name__
        # The manager makes it unique.
        self._eventpy_registered_name = self._eventpy_name
        self._eventpy_types = event_types
        self._eventpy_options = DispatcherOptions(
            event_types,
            delivery=delivery,
            restart=restart,
            buffer_bytes=buffer_bytes,
            large_bytes=large_bytes,
            update_timeout=update_timeout,
            start_timeout=start_timeout,
            end_timeout=end_timeout,
            copy_large=copy_large,
        )
        _eventpy.Manager.check(
            self._eventpy_name, self._eventpy_options.type_names, self._eventpy_options
        )

    def init(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Runs once in the dispatcher's process, before the first `update`.

        What it returns, positional and keyword arguments, goes to each `update` and to `finish`.
        If it raises, nothing else is called.

            def init(self):
                return (), {"camera": cv2.VideoCapture(self.device)}
        """
        return (), {}

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> Event | Iterable[Event] | None:
        """Runs again and again; returns an event, a tuple, list or iterator of events, or None.

        The events of a tuple or list are sent together; those of an iterator each as it comes.

            def update(self, camera):
                ok, image = camera.read()
                return Frame(image) if ok else None
        """

    @abstractmethod
    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Runs exactly once after the last `update`, whatever ended it. It may `emit`.

        The process ends after it: functions of `atexit` run, the dispatcher is deleted, and files
        that are still open are flushed. No module is torn down, so close here what wants more than
        to be flushed, such as an archive. Threads that still run end with the process, also those
        that are not daemons: join here those that have something to complete.

            def finish(self, camera):
                camera.release()
        """

    if TYPE_CHECKING:

        @staticmethod
        def emit(event: Event) -> None: ...
        @staticmethod
        def wait(seconds: float) -> bool: ...
        @staticmethod
        def end() -> None: ...
    else:
        # Nothing stands between a dispatcher and the native functions: they are called often.
        emit = staticmethod(_eventpy.emit)
        wait = staticmethod(_eventpy.wait)
        end = staticmethod(_eventpy.end)

    @property
    def ending(self) -> bool:
        """Whether the dispatcher is to end after this `update`.

        while not self.ending:
            self.emit(self.next_line())
        """
        return _eventpy.is_ending()
