"""How a dispatcher is run: the checked keywords of `EventDispatcher`."""

from __future__ import annotations

from eventpy._errors import ArgumentError, OptionError
from eventpy._event import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    Delivery = Literal["every", "latest", "drop_newest", "drop_oldest"]
    RestartWhen = Literal["never", "on_failure", "always"]

DELIVERIES = ("every", "latest", "drop_newest", "drop_oldest")
RESTARTS = ("never", "on_failure", "always")


class Restart:
    """When a dispatcher's process is started anew, and how patiently.

    The pause before a restart doubles from `backoff` up to `backoff_max` seconds, with up to a
    quarter more by chance. More than `limit` restarts within `window` seconds, and the dispatcher
    stays failed.

        super().__init__(Frame, restart=Restart("on_failure", backoff=1.0, limit=3, window=60.0))
    """

    def __init__(
        self,
        when: RestartWhen,
        *,
        backoff: float = 0.1,
        backoff_max: float = 30.0,
        limit: int = 5,
        window: float = 60.0,
    ) -> None:
        self.when = choice("restart", when, RESTARTS)
        self.backoff = seconds("backoff", backoff)
        self.backoff_max = seconds("backoff_max", backoff_max)
        self.limit = min(count("limit", limit), 0xFFFF_FFFF)
        self.window = seconds("window", window)


class DispatcherOptions:
    """The options of one dispatcher, checked."""

    def __init__(
        self,
        event_types: tuple[type[Event], ...],
        *,
        delivery: Delivery | Mapping[type[Event], Delivery],
        restart: RestartWhen | Restart,
        buffer_bytes: int,
        large_bytes: int,
        update_timeout: float | None,
        start_timeout: float,
        end_timeout: float,
        copy_large: bool,
    ) -> None:
        self.type_names = names_of(event_types)
        self.delivery, self.delivery_of = self._deliveries(event_types, delivery)
        self.restart = restart if isinstance(restart, Restart) else Restart(restart)
        self.buffer_bytes = count("buffer_bytes", buffer_bytes)
        self.large_bytes = count("large_bytes", large_bytes)
        if update_timeout is not None:
            update_timeout = seconds("update_timeout", update_timeout)
        self.update_timeout = update_timeout
        self.start_timeout = seconds("start_timeout", start_timeout)
        self.end_timeout = seconds("end_timeout", end_timeout)
        self.copy_large = bool(copy_large)
        self.may_drop = {self.delivery, *(of for _, of in self.delivery_of)} != {"every"}

    def _deliveries(
        self,
        event_types: tuple[type[Event], ...],
        delivery: Delivery | Mapping[type[Event], Delivery],
    ) -> tuple[str, list[tuple[str, str]]]:
        """The delivery of most types, and of those that have their own."""
        if isinstance(delivery, str):
            return choice("delivery", delivery, DELIVERIES), []
        if not hasattr(delivery, "items"):
            raise ArgumentError(
                f"delivery is {delivery!r}, but must be one of {', '.join(DELIVERIES)}, "
                "or a dict of event types and these"
            )
        names = dict(zip(event_types, self.type_names))
        own = []
        for event_type, of in delivery.items():
            if event_type not in names:
                declared = ", ".join(self.type_names)
                raise OptionError(
                    f"a delivery is set for event type {type_name(event_type)}, which the "
                    f"dispatcher does not declare (it declares {declared})"
                )
            own.append((names[event_type], choice("delivery", of, DELIVERIES)))
        return "every", own


def check_event_types(owner: str, event_types: tuple[object, ...]) -> None:
    """Raises unless these are classes of events, each given once."""
    for event_type in event_types:
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            raise ArgumentError(
                f"{owner}: {event_type!r} is no event type; give classes that are derived from "
                "eventpy.Event"
            )
    if len(set(event_types)) < len(event_types):
        raise ArgumentError(f"{owner}: an event type is declared twice")


def names_of(event_types: tuple[type[Event], ...]) -> list[str]:
    """A name for each type: its own, and with the module where two have the same."""
    names = [event_type.__qualname__ for event_type in event_types]
    return [
        name if names.count(name) == 1 else f"{event_type.__module__}.{name}"
        for name, event_type in zip(names, event_types)
    ]


def type_name(value: object) -> str:
    """How a type is called in a message."""
    return value.__qualname__ if isinstance(value, type) else repr(value)


def choice(option: str, value: object, possible: tuple[str, ...]) -> str:
    """The value, if it is one of those that are possible."""
    if not isinstance(value, str):
        raise ArgumentError(f"{option} is {value!r}, but must be one of {', '.join(possible)}")
    if value not in possible:
        raise OptionError(f"{option} is {value!r}, but must be one of {', '.join(possible)}")
    return value


def count(option: str, value: object) -> int:
    """The value, if it is a number of things."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(f"{option} is {value!r}, but must be an int")
    if not 0 <= value < 1 << 63:
        raise OptionError(f"{option} is {value}, but must not be negative nor astronomical")
    return value


def seconds(option: str, value: object) -> float:
    """The value, if it is a time."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ArgumentError(f"{option} is {value!r}, but must be a number of seconds")
    as_float = float(value)
    if not as_float >= 0.0:
        raise OptionError(f"{option} is {value!r}, but must be 0 or more seconds")
    return as_float
