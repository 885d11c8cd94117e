"""`EventDispatchManager`: deploys dispatchers, pumps their events, ends them."""

from __future__ import annotations

from time import monotonic

from eventpy import _eventpy
from eventpy._dispatcher import EventDispatcher
from eventpy._errors import ArgumentError, StateError
from eventpy._listener import EventListener
from eventpy._options import check_event_types, count, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from eventpy._event import Event
    from eventpy._report import EndReport, Stats

#: So often `run` looks at its condition when no events come, in seconds.
CONDITION_EVERY = 0.1


class EventDispatchManager:
    """Brings the events of dispatchers to the callbacks of listeners.

    manager = EventDispatchManager(Clock(0.5), Printer())
    manager.deploy_dispatchers()
    for _ in range(10):
        manager.invoke_dispatch(timeout=0.5)
    print(manager.end_dispatchers())

    As a context manager it deploys and ends:

    with EventDispatchManager(Clock(0.5), Printer()) as manager:
        manager.run(duration=5)

    Callbacks run in the thread that pumps. Dispatchers that still run when the manager is gone or
    the interpreter ends are ended, with their `finish`. A forked copy of the process can't use
    the manager, and does no harm to it.
    """

    def __init__(self, *parts: EventDispatcher | EventListener) -> None:
        """Takes dispatchers and listeners, in any order.

        EventDispatchManager(Clock(0.5), Thermometer(), Printer())
        """
        self._native = _eventpy.Manager()
        self._dispatchers: list[EventDispatcher] = []
        self._listeners: list[EventListener] = []
        # So many of the dispatchers are known to the engine.
        self._added = 0
        for part in parts:
            if isinstance(part, EventDispatcher):
                self.register_dispatcher(part)
            elif isinstance(part, EventListener):
                self.register_listener(part)
            else:
                raise ArgumentError(f"{part!r} is neither an EventDispatcher nor an EventListener")

    def register_dispatcher(self, dispatcher: EventDispatcher) -> None:
        """Adds a dispatcher. It starts at the next `deploy_dispatchers`.

        manager.register_dispatcher(Clock(0.5))
        """
        if not isinstance(dispatcher, EventDispatcher):
            raise ArgumentError(f"{dispatcher!r} is no EventDispatcher")
        if not hasattr(dispatcher, "_eventpy_options"):
            raise ArgumentError(
                f"dispatcher `{type(dispatcher).__name__}` has not called "
                "super().__init__(...) with its event types"
            )
        if dispatcher in self._dispatchers:
            raise ArgumentError(f"dispatcher `{dispatcher._eventpy_name}` is registered already")
        name = dispatcher._eventpy_name
        namesakes = sum(other._eventpy_name == name for other in self._dispatchers)
        registered = f"{name}#{namesakes + 1}" if namesakes else name
        dispatcher._eventpy_registered_name = registered
        self._dispatchers.append(dispatcher)

    def register_listener(self, listener: EventListener) -> None:
        """Adds a listener, at any time, also within a callback.

        manager.register_listener(Printer())
        """
        if not isinstance(listener, EventListener):
            raise ArgumentError(f"{listener!r} is no EventListener")
        if not hasattr(listener, "_eventpy_callbacks"):
            raise ArgumentError(
                f"listener `{type(listener).__name__}` has not called super().__init__(...) with "
                "a dict of event types and callbacks"
            )
        for event_type, callback in listener._eventpy_callbacks.items():
            self._native.subscribe(event_type, callback)
        self._listeners.append(listener)

    def deploy_dispatchers(self, event_type: type[Event] | None = None) -> None:
        """Starts the dispatchers that do not run, and returns when each is loaded.

        With an event type, only the dispatchers of that type. After an error, also Ctrl-C, none
        that it started is left, and those that ran before run on.

            manager.deploy_dispatchers()
        """
        from eventpy import _shipping

        if self._native.begin_deployment():
            self._added = 0
        for dispatcher in self._dispatchers[self._added :]:
            options = dispatcher._eventpy_options
            self._native.add(
                dispatcher._eventpy_registered_name,
                dispatcher._eventpy_types,
                options.type_names,
                _shipping.payload_of(dispatcher),
                _shipping.command(),
                options,
            )
            self._added += 1
        self._native.deploy(self._which(event_type))

    def invoke_dispatch(
        self,
        event_type: type[Event] | None = None,
        *,
        timeout: float | None = 0.0,
        max_events: int | None = None,
    ) -> int:
        """Pumps: delivers the events that are there, and returns their number.

        It waits at most `timeout` seconds for the first of them; None waits as long as any
        dispatcher runs. The wait is over when a signal handler or another thread has ended them.
        `max_events` stops the pump earlier; what is left stays queued. With an event type, only the
        dispatchers of that type are pumped.

        If a callback raises, the other callbacks for that event still run; then the pump stops and
        raises that exception. Several become an ExceptionGroup (before Python 3.11, the first with
        the others as its context). A failed dispatcher is a `DispatcherFailed` event; if nobody
        listens to that, it is raised as a `DispatcherError` after all else was delivered.

        What interrupts the making of an event, as Ctrl-C does in a `__setstate__`, stops the pump
        too, and the event comes at the next one: so does any exception that is no `Exception`,
        until the tenth for the same event.

            while running:
                manager.invoke_dispatch(timeout=0.5)
        """
        if timeout is not None and type(timeout) is not float:
            timeout = seconds("timeout", timeout)
        if max_events is not None:
            count("max_events", max_events)
        which = None if event_type is None else self._which(event_type)
        return self._native.pump(which, timeout, max_events)

    def end_dispatchers(
        self, event_type: type[Event] | None = None, *, timeout: float | None = None
    ) -> EndReport:
        """Ends the dispatchers, delivers all that they have sent, and reports.

        Each dispatcher gets the end command and runs its `finish`. One that is still there after
        its `end_timeout`, or `timeout` if given, gets SIGTERM, which interrupts a blocked `update`;
        after the same time again, SIGKILL. Failures are in the report and are not raised;
        exceptions of callbacks are raised when all dispatchers have ended. With an event type, only
        the dispatchers of that type are ended.

        In a callback it works as anywhere else. While an event is being made for this manager, in a
        hook of its class or a signal handler that runs just then, it gives the end command and
        returns at once. The rest is done by the pump that makes the event, before that returns; it
        also completes the report.

            report = manager.end_dispatchers()
            print(report)
            assert report["Clock"].finished
        """
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        return self._native.end(self._which(event_type), timeout)

    def run(
        self, *, duration: float | None = None, until: Callable[[], object] | None = None
    ) -> int:
        """Pumps until Ctrl-C, for `duration` seconds, or until a condition is true.

        Returns the number of events that were delivered. It also returns when every dispatcher has
        ended. If nothing was deployed, it deploys before and ends after.

            manager.run(until=lambda: printer.lines >= 100)
        """
        if duration is not None:
            duration = seconds("duration", duration)
        if until is not None and not callable(until):
            raise ArgumentError(f"until is {until!r}, which can't be called")
        deploys = not self._native.is_deployed()
        if deploys:
            self.deploy_dispatchers()
        try:
            return self._pump(duration, until)
        finally:
            if deploys:
                self._native.end_if_deployed()

    def stats(self) -> Stats:
        """What the dispatchers are doing and have done so far.

        print(manager.stats()["Clock"].delivered)
        """
        return self._native.stats()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to pump, for event loops.

        asyncio.get_running_loop().add_reader(manager, manager.invoke_dispatch)
        """
        return self._native.fileno()

    def __enter__(self) -> EventDispatchManager:
        self.deploy_dispatchers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._native.end_if_deployed()

    def _pump(self, duration: float | None, until: Callable[[], object] | None) -> int:
        end = None if duration is None else monotonic() + duration
        delivered = 0
        try:
            while not ((until is not None and until()) or self._native.has_ended()):
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0.0:
                    break
                if until is not None:
                    left = min(left or CONDITION_EVERY, CONDITION_EVERY)
                delivered += self._native.pump_if_deployed(left)
        except KeyboardInterrupt:
            pass
        return delivered

    def _which(self, event_type: type[Event] | None) -> list[int] | None:
        """The places of the dispatchers of a type, among those that the engine knows."""
        if event_type is None:
            return None
        check_event_types("event_type", (event_type,))
        places = [
            place
            for place, dispatcher in enumerate(self._dispatchers)
            if any(issubclass(declared, event_type) for declared in dispatcher._eventpy_types)
        ]
        if not places:
            raise StateError(f"no dispatcher dispatches {event_type.__qualname__}")
        return [place for place in places if place < self._added]


_ends_with_interpreter = False


def end_with_interpreter() -> None:
    """Sees to it that all dispatchers have ended when the interpreter does."""
    global _ends_with_interpreter
    if not _ends_with_interpreter:
        import atexit

        atexit.register(_eventpy.end_all)
        _ends_with_interpreter = True
