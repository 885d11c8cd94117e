"""A class that is altered after its first event: what arrives still equals what pickle brings."""

from __future__ import annotations

import abc
import copyreg
import pickle
import sys
from typing import Any, Callable

import pytest

import sample_events as events
from codec_pair import PICKLED, TYPED, Pair, by_pickle
from likeness import assert_alike


class Base(events.Event):
    """Some alterations are made here."""


def make_class(name: str = "Altered", meta: Any = type) -> Any:
    """A new class that pickle finds in this module."""
    base = meta("Base", (Base,), {"__module__": __name__})

    def init(self: Any, value: Any) -> None:
        self.value = value

    made = meta(name, (base,), {"__module__": __name__, "__init__": init})
    setattr(sys.modules[__name__], name, made)
    return made


class OtherMeta(abc.ABCMeta):
    """A metaclass to change to."""


def reduce_to_tick(self: Any, *protocol: Any) -> Any:
    """A reducer."""
    return (events.Tick, (self.__dict__["value"], "reduced"))


def set_state(self: Any, state: Any) -> None:
    """A `__setstate__`."""
    self.__dict__["restored"] = state


def refuse(self: Any, value: Any) -> None:
    """A setter that nobody may call."""
    raise AssertionError("a state is not set through descriptors")


def register(made: Any) -> None:
    """Registers a reducer as extension modules do."""
    copyreg.pickle(made, reduce_to_tick)


def rename(made: Any) -> None:
    """Gives a class another name under which it is found."""
    made.__qualname__ = "Renamed"
    setattr(sys.modules[__name__], "Renamed", made)  # noqa: B010


def move(made: Any) -> None:
    """Gives a class another module in which it is found."""
    made.__module__ = "sample_events"
    setattr(events, made.__name__, made)


def lose(made: Any) -> None:
    """Gives a class a name under which it is not found."""
    made.__qualname__ = "nowhere"


def change_base(made: Any) -> None:
    """Gives a class a base with a hook."""
    made.__bases__ = (events.SetsState,)


def change_metaclass(made: Any) -> None:
    """Changes the class of a class."""
    made.__class__ = OtherMeta


def register_metaclass(made: Any) -> None:
    """Changes the class of a class to one that is reduced in a way of its own."""
    made.__class__ = OtherMeta
    copyreg.pickle(OtherMeta, lambda cls: "Base")


def hide_attribute(made: Any) -> None:
    """A descriptor that would take values, were they set one by one."""
    made.value = property(lambda self: self.__dict__["value"], refuse)


def forbid_instances(made: Any) -> None:
    """No instance of an abstract class can be made."""
    made.__abstractmethods__ = frozenset({"method"})


def setting(name: str, value: Any, on_base: bool = False) -> Callable[[Any], None]:
    """An alteration that sets one attribute."""

    def alter(made: Any) -> None:
        setattr(made.__bases__[0] if on_base else made, name, value)

    return alter


HOOKS: dict[str, Any] = {
    "__reduce__": reduce_to_tick,
    "__reduce_ex__": reduce_to_tick,
    "__getstate__": lambda self: {"state": self.__dict__["value"]},
    "__setstate__": set_state,
    "__new__": lambda cls, *_: events.Tick(1, "by new"),
    "__getnewargs__": lambda self: (),
    "__getnewargs_ex__": lambda self: ((), {}),
    "__getattribute__": lambda self, name: object.__getattribute__(self, name),
    "__getattr__": lambda self, name: getattr(str, name),
    "__slotnames__": ["value"],
    "__setattr__": lambda self, name, value: 1 / 0,
    "__eq__": lambda self, other: True,
    "__del__": lambda self: None,
    "value": "a class attribute",
}

ALTERATIONS: dict[str, Callable[[Any], None]] = {
    **{name: setting(name, hook) for name, hook in HOOKS.items()},
    **{f"{name} on the base": setting(name, hook, True) for name, hook in HOOKS.items()},
    "copyreg": register,
    "another name": rename,
    "another module": move,
    "no name": lose,
    "another base": change_base,
    "another metaclass": change_metaclass,
    "a reduced metaclass": register_metaclass,
    "a property": hide_attribute,
    "abstract": forbid_instances,
}


@pytest.fixture(autouse=True)
def _no_reducer_remains() -> Any:
    before = dict(copyreg.dispatch_table)
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


def outcome(make: Callable[[], Any]) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return make()
    except Exception as error:
        return type(error)


def same_outcome(expected: Callable[[], Any], found: Callable[[], Any]) -> None:
    """Compares what is returned; an error has to be an error."""
    left, right = outcome(expected), outcome(found)
    if isinstance(left, type):
        assert isinstance(right, type), f"pickle raises {left}, the codec brings {right!r}"
    else:
        assert_alike(left, right)


# The class of a class can be changed only if it is not `type` itself.
METACLASSES = [type, abc.ABCMeta]


@pytest.mark.parametrize("meta", METACLASSES)
@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_alteration_between_two_events(alter: Callable[[Any], None], meta: Any) -> None:
    if meta is type and alter in (change_metaclass, register_metaclass):
        pytest.skip("not possible")
    made, pair = make_class(meta=meta), Pair()
    for value in range(3):
        assert pair.send(made(value)).value == value
    event = made([1, "a"])
    alter(made)
    for _ in range(3):
        same_outcome(lambda: by_pickle(event), lambda: pair.send(event))


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
@pytest.mark.parametrize("warm", [True, False])
def test_an_alteration_at_the_receiver(alter: Callable[[Any], None], warm: bool) -> None:
    made, pair = make_class(meta=abc.ABCMeta), Pair()
    event = made({"k": [1]})
    pickled, record = pickle.dumps(event, 5), pair.record_of(event)
    if warm:
        pair.decoder.decode(record)
    alter(made)
    if alter not in (rename, lose, move):
        same_outcome(lambda: pickle.loads(pickled), lambda: pair.decoder.decode(record))


def test_a_receiver_looks_a_class_up_under_its_name() -> None:
    made, pair = make_class(), Pair()
    record = pair.record_of(made(1))
    other = make_class()
    assert type(pair.decoder.decode(record)) is other


def test_a_class_that_is_missing_at_the_receiver_is_an_error_per_event() -> None:
    made, pair = make_class("Missing"), Pair()
    record = pair.record_of(made(1))
    delattr(sys.modules[__name__], "Missing")
    for _ in range(2):
        with pytest.raises(AttributeError, match="Missing"):
            pair.decoder.decode(record)
    setattr(sys.modules[__name__], "Missing", made)  # noqa: B010
    assert type(pair.decoder.decode(record)) is made


def test_a_harmless_alteration_keeps_the_typed_path() -> None:
    made, pair = make_class(), Pair()
    for value in range(2000):
        made.counter = value
        event = made(value)
        assert pair.kind_of(event) == TYPED
        assert pair.send(event).value == value


def test_a_class_that_was_altered_once_is_pickled_from_then_on() -> None:
    made, pair = make_class(), Pair()
    assert pair.kind_of(made(1)) == TYPED
    made.__reduce__ = reduce_to_tick
    assert pair.kind_of(made(1)) == PICKLED
    del made.__reduce__
    assert pair.kind_of(made(1)) == PICKLED


def test_a_registered_reducer_counts_while_it_is_registered() -> None:
    made, pair = make_class(), Pair()
    assert pair.kind_of(made(1)) == TYPED
    register(made)
    assert pair.kind_of(made(1)) == PICKLED
    del copyreg.dispatch_table[made]
    assert pair.kind_of(made(1)) == TYPED


def test_a_class_whose_address_was_used_before() -> None:
    pair = Pair()
    for number in range(300):
        made = make_class()
        if number % 2:
            made.__reduce__ = reduce_to_tick
        event = made(number)
        assert_alike(by_pickle(event), pair.send(event))
