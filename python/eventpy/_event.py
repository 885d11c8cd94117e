"""`Event`, and the events that tell about dispatchers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eventpy._report import DispatcherReport


class Event:
    """The base of all events: derive a class from it and give it attributes.

    What arrives equals what pickle would bring. Plain classes and dataclasses of plain values are
    the fastest.

        class Tick(Event):
            def __init__(self, n):
                self.n = n
    """

    __slots__ = ()


class DispatcherFailed(Event):
    """A dispatcher's code raised, hung, or its process died.

    All that it sent before was delivered before this. If no listener is registered for it,
    `invoke_dispatch` raises a `DispatcherError` that carries it.

        class Watch(EventListener):
            def __init__(self):
                super().__init__({DispatcherFailed: self.on_failure})

            def on_failure(self, failed):
                print(failed.dispatcher, failed.reason)
    """

    #: The dispatcher's name.
    dispatcher: str
    #: Where in its life it failed: "start", "init", "update" or "finish".
    phase: str
    #: Why, in one sentence.
    reason: str
    #: How its process ended; a signal is a negative number, None is unknown.
    exit_code: int | None
    #: The remote traceback as text, or an empty one.
    traceback: str
    #: Whether it will be started anew.
    will_restart: bool

    def __init__(
        self,
        dispatcher: str,
        phase: str,
        reason: str,
        exit_code: int | None,
        traceback: str,
        will_restart: bool,
    ) -> None:
        self.dispatcher = dispatcher
        self.phase = phase
        self.reason = reason
        self.exit_code = exit_code
        self.traceback = traceback
        self.will_restart = will_restart

    def __str__(self) -> str:
        sentence = f"dispatcher `{self.dispatcher}` failed: {self.reason}"
        return f"{sentence}\n{self.traceback.rstrip()}" if self.traceback else sentence

    def __repr__(self) -> str:
        return f"<DispatcherFailed {self.dispatcher!r} in {self.phase}: {self.reason}>"


class DispatcherRestarted(Event):
    """A dispatcher's process was started anew.

    EventListener({DispatcherRestarted: lambda event: print(event.dispatcher, event.restarts)})
    """

    #: The dispatcher's name.
    dispatcher: str
    #: How often it was restarted, this time included.
    restarts: int
    #: How long it waited before.
    backoff_seconds: float

    def __init__(self, dispatcher: str, restarts: int, backoff_seconds: float) -> None:
        self.dispatcher = dispatcher
        self.restarts = restarts
        self.backoff_seconds = backoff_seconds

    def __repr__(self) -> str:
        return f"<DispatcherRestarted {self.dispatcher!r}, number {self.restarts}>"


class DispatcherEnded(Event):
    """A dispatcher has ended, by itself or because it was told to.

    EventListener({DispatcherEnded: lambda event: print(event.dispatcher, event.report.sent)})
    """

    #: The dispatcher's name.
    dispatcher: str
    #: How it ended.
    report: DispatcherReport

    def __init__(self, dispatcher: str, report: DispatcherReport) -> None:
        self.dispatcher = dispatcher
        self.report = report

    def __repr__(self) -> str:
        return f"<DispatcherEnded {self.dispatcher!r}>"
