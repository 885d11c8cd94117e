"""What `end_dispatchers` and `stats` return."""

from __future__ import annotations

# `collections.abc` would bring all of `collections` along.
from _collections_abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Union

    from eventpy._dispatcher import EventDispatcher

    Key = Union[str, EventDispatcher]


class Counts:
    """Event counts; always `sent == delivered + dropped + lost` once a dispatcher has ended.

    counts = manager.stats()["Clock"].event_types["Tick"]
    print(counts.sent - counts.delivered, "still to come")
    """

    #: Events whose `emit` returned.
    sent: int
    #: Events handed to the callbacks.
    delivered: int
    #: Events dropped by the delivery of their type.
    dropped: int
    #: Events that can't be delivered because their memory was destroyed.
    lost: int

    def __init__(self, sent: int, delivered: int, dropped: int, lost: int) -> None:
        self.sent = sent
        self.delivered = delivered
        self.dropped = dropped
        self.lost = lost

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class DispatcherReport(Counts):
    """How one dispatcher ended, and its event counts over all its processes.

    report = manager.end_dispatchers()["Clock"]
    assert report.finished and report.lost == 0
    """

    #: The dispatcher's name.
    dispatcher: str
    #: Whether `finish` ran to its end, in the last process.
    finished: bool
    #: How long `finish` took.
    finish_seconds: float | None
    #: How the last process ended; a signal is a negative number, None is unknown.
    exit_code: int | None
    #: Why the dispatcher failed, if it did.
    failure: str | None
    #: How often it was restarted.
    restarts: int

    def __init__(
        self,
        dispatcher: str,
        finished: bool,
        finish_seconds: float | None,
        exit_code: int | None,
        failure: str | None,
        restarts: int,
        counts: tuple[int, int, int, int],
    ) -> None:
        super().__init__(*counts)
        self.dispatcher = dispatcher
        self.finished = finished
        self.finish_seconds = finish_seconds
        self.exit_code = exit_code
        self.failure = failure
        self.restarts = restarts


class DispatcherStats(Counts):
    """What one dispatcher is doing and has done so far.

    `sent` and `dropped` are as the dispatcher last reported them.

        stats = manager.stats()["Clock"]
        print(stats.state, stats.pid, stats.queued_bytes)
    """

    #: The dispatcher's name.
    dispatcher: str
    #: "idle", "starting", "running", "ending", "waiting" (for its restart), "ended" or "failed".
    state: str
    #: Its process, while there is one.
    pid: int | None
    #: How often it was restarted.
    restarts: int
    #: Bytes that wait in its ring.
    queued_bytes: int
    #: The counts of each event type, by its name.
    event_types: dict[str, Counts]

    def __init__(
        self,
        dispatcher: str,
        state: str,
        pid: int | None,
        restarts: int,
        counts: tuple[int, int, int, int],
        queued_bytes: int,
        event_types: list[tuple[str, tuple[int, int, int, int]]],
    ) -> None:
        super().__init__(*counts)
        self.dispatcher = dispatcher
        self.state = state
        self.pid = pid
        self.restarts = restarts
        self.queued_bytes = queued_bytes
        self.event_types = {name: Counts(*of) for name, of in event_types}


def _name_of(key: Key) -> str:
    """Reports are found by name, or by the dispatcher itself."""
    return key if isinstance(key, str) else getattr(key, "_eventpy_registered_name", "")


class EndReport(Mapping["Key", DispatcherReport]):
    """How the dispatchers ended: a mapping from their names, which prints as a table.

    report = manager.end_dispatchers()
    print(report)
    print(report["Clock"].sent)
    """

    def __init__(self, reports: list[DispatcherReport], text: str) -> None:
        self._reports = {report.dispatcher: report for report in reports}
        self._text = text

    @property
    def is_clean(self) -> bool:
        """Whether every `finish` ran and nothing was lost.

        sys.exit(0 if manager.end_dispatchers().is_clean else 1)
        """
        return all(report.finished and report.lost == 0 for report in self.values())

    def _become(self, final: EndReport) -> None:
        """Takes over what is known when an end that was postponed is over."""
        self._reports, self._text = final._reports, final._text

    def __getitem__(self, dispatcher: Key) -> DispatcherReport:
        return self._reports[_name_of(dispatcher)]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"EndReport({list(self._reports.values())!r})"


class Stats(Mapping["Key", DispatcherStats]):
    """What the dispatchers are doing: a mapping from their names.

    for name, stats in manager.stats().items():
        print(name, stats.state, stats.delivered)
    """

    def __init__(self, stats: list[DispatcherStats]) -> None:
        self._stats = {of.dispatcher: of for of in stats}

    def __getitem__(self, dispatcher: Key) -> DispatcherStats:
        return self._stats[_name_of(dispatcher)]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._stats)

    def __len__(self) -> int:
        return len(self._stats)

    def __repr__(self) -> str:
        return f"Stats({list(self._stats.values())!r})"
