"""Wrong arguments are refused at once, in words that name them."""

from __future__ import annotations

from typing import Any

import pytest

from eventpy import (
    ArgumentError,
    EventAPIException,
    EventDispatcher,
    EventDispatchManager,
    EventListener,
    OptionError,
    Restart,
    StateError,
)
from sources import Counter, Number, Text


def test_update_and_finish_must_be_written() -> None:
    class OnlyUpdates(EventDispatcher):
        def update(self) -> None: ...

    with pytest.raises(TypeError, match="finish"):
        OnlyUpdates(Number)  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"delivery": "newest"}, OptionError, "delivery is 'newest'.*every, latest"),
        ({"delivery": 5}, ArgumentError, "delivery is 5"),
        ({"delivery": {Text: "latest"}}, OptionError, "Text, which .* not declare"),
        ({"delivery": {Number: "never"}}, OptionError, "delivery is 'never'"),
        ({"restart": "sometimes"}, OptionError, "restart is 'sometimes'.*on_failure"),
        ({"restart": True}, ArgumentError, "restart is True"),
        ({"buffer_bytes": 1000}, OptionError, "buffer_bytes is 1000.*power of two"),
        ({"buffer_bytes": -1}, OptionError, "buffer_bytes is -1"),
        ({"buffer_bytes": 4096.0}, ArgumentError, "buffer_bytes is 4096.0"),
        ({"large_bytes": "1 GB"}, ArgumentError, "large_bytes is '1 GB'"),
        ({"update_timeout": 0}, OptionError, "update_timeout is zero"),
        ({"update_timeout": -1}, OptionError, "update_timeout is -1"),
        ({"end_timeout": float("nan")}, OptionError, "end_timeout is nan"),
        ({"start_timeout": "soon"}, ArgumentError, "start_timeout is 'soon'"),
        ({"name": 7}, ArgumentError, "name is 7"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as raised:
        Counter(0, **options)
    assert isinstance(raised.value, EventAPIException)
    assert isinstance(raised.value, TypeError if kind is ArgumentError else ValueError)


def test_times_may_be_endless() -> None:
    Counter(0, end_timeout=float("inf"), update_timeout=1e300, restart=Restart("always"))


@pytest.mark.parametrize("event_type", [int, "Number", Number(1), None])
def test_what_is_no_event_type(event_type: Any) -> None:
    class Source(EventDispatcher):
        def update(self) -> None: ...

        def finish(self) -> None: ...

    with pytest.raises(ArgumentError, match="is no event type"):
        Source(event_type)
    with pytest.raises(ArgumentError, match="is no event type"):
        EventListener({event_type: print})
    with pytest.raises(ArgumentError, match="declared twice"):
        Source(Number, Number)
    with pytest.raises(OptionError, match="declares no event type"):
        Source()


def test_what_is_no_callback() -> None:
    with pytest.raises(ArgumentError, match=r"callback for Number is 5, which can't be called"):
        EventListener({Number: 5})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="give a dict"):
        EventListener(Number)  # type: ignore[arg-type]


def test_what_is_neither_dispatcher_nor_listener() -> None:
    with pytest.raises(ArgumentError, match="neither"):
        EventDispatchManager(Number)  # type: ignore[arg-type]
    manager = EventDispatchManager()
    with pytest.raises(ArgumentError, match="no EventDispatcher"):
        manager.register_dispatcher(EventListener({}))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no EventListener"):
        manager.register_listener(Counter(0))  # type: ignore[arg-type]


def test_a_forgotten_call_of_the_base() -> None:
    class Forgetful(Counter):
        def __init__(self) -> None: ...

    class ForgetfulListener(EventListener):
        def __init__(self) -> None: ...

    for part in (Forgetful(), ForgetfulListener()):
        with pytest.raises(ArgumentError, match=r"has not called super\(\).__init__"):
            EventDispatchManager(part)


def test_the_same_dispatcher_twice() -> None:
    dispatcher = Counter(0)
    with pytest.raises(ArgumentError, match="registered already"):
        EventDispatchManager(dispatcher, dispatcher)


def test_wrong_arguments_of_the_manager() -> None:
    with EventDispatchManager(Counter(0)) as manager:
        for timeout in (-1, "1", True):
            with pytest.raises(EventAPIException, match="timeout"):
                manager.invoke_dispatch(timeout=timeout)  # type: ignore[arg-type]
        with pytest.raises(EventAPIException, match="max_events"):
            manager.invoke_dispatch(max_events=-1)
        with pytest.raises(ArgumentError, match="no event type"):
            manager.invoke_dispatch(int)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="until"):
            manager.run(until=5)  # type: ignore[arg-type]


def test_what_works_only_in_the_dispatchers_process() -> None:
    dispatcher = Counter(0)
    calls: list[Any] = [
        lambda: dispatcher.emit(Number(1)),
        lambda: dispatcher.wait(1.0),
        lambda: dispatcher.ending,
        dispatcher.end,
    ]
    for call in calls:
        with pytest.raises(StateError, match="only in the dispatcher's own process"):
            call()
