"""An event that can't be pickled is refused with words that name what is to blame."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import sample_events as events
from codec_pair import Pair
from eventpy import EventError
from sample_events import Plain


def refusal(event: object) -> str:
    """What the refusal says."""
    with pytest.raises(EventError) as raised:
        Pair().record_of(event)
    assert raised.value.__cause__ is not None
    return str(raised.value)


class HoldsFile(events.Event):
    """Its `__reduce__` says in vain what it holds."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (HoldsFile, (self.file,))


class DropsLock(events.Event):
    """Its state leaves out what can't be pickled, but not all of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.task = (number for number in range(3))

    def __getstate__(self) -> Any:
        return {"task": self.task}


class Fails(events.Event):
    """Its hook raises."""

    def __reduce__(self) -> Any:
        raise ValueError("out of order")


class Interrupts(events.Event):
    """Its hook ends the program."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Pretends(events.Event):
    """It says that it is of another class, which pickle does not put up with."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return events.Tick


def test_a_class_that_pretends_to_be_another() -> None:
    assert "pickle says: args[0] from __newobj__ args has the wrong class" in refusal(Pretends())


def test_the_attribute_is_named() -> None:
    with open(__file__) as file:
        assert refusal(Plain(number=1, handle=file)) == (
            "cannot send event `Plain`: attribute `handle` (a `_io.TextIOWrapper`) can't be"
            " pickled; send its contents instead"
        )


def test_the_attribute_that_holds_the_culprit_is_named() -> None:
    assert refusal(Plain(fine=[1], items=[{"lock": threading.Lock()}])) == (
        "cannot send event `Plain`: attribute `items` (a `list`) can't be pickled; send its"
        " contents instead"
    )


def test_a_slot_is_named() -> None:
    message = refusal(events.SlotsAndDict(1, threading.Lock(), {}))
    assert "event `SlotsAndDict`: attribute `right` (a `_thread.lock`)" in message


def test_an_attribute_that_the_state_leaves_out_is_not_blamed() -> None:
    assert "attribute `task` (a `generator`)" in refusal(DropsLock())


def test_without_a_state_pickle_has_the_word() -> None:
    with open(__file__) as file:
        message = refusal(HoldsFile(file))
    assert message.startswith("cannot send event `HoldsFile`: pickle says: ")
    assert "TextIOWrapper" in message
    assert refusal(Fails()) == "cannot send event `Fails`: pickle says: out of order"


def test_a_class_that_can_not_be_imported() -> None:
    class Local(events.Event):
        pass

    message = refusal(Local())
    assert "its class can't be imported as" in message
    assert "test_codec_unsendable.test_a_class_that_can_not_be_imported.<locals>.Local" in message
    assert message.endswith("define it at the top level of a module")


def test_values_nested_beyond_the_recursion_limit() -> None:
    deep: Any = []
    for _ in range(200_000):
        deep = [deep]
    assert "attribute `deep` (a `list`)" in refusal(Plain(deep=deep))
    while deep:
        deep = deep.pop()


def test_the_end_of_the_program_is_no_refusal() -> None:
    with pytest.raises(KeyboardInterrupt):
        Pair().record_of(Interrupts())


def test_the_encoder_goes_on() -> None:
    pair = Pair()
    for number in range(3):
        with pytest.raises(EventError):
            pair.record_of(Plain(number=number, lock=threading.Lock()))
        assert pair.send(Plain(number=number, lock=None)).number == number
