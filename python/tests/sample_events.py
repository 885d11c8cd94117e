"""Events of every kind that Python programs are likely to send."""

from __future__ import annotations

import abc
import collections
import copyreg
import dataclasses
import enum
import sys
import threading
import weakref
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Event:
    """Stands for the base class of events."""

    __slots__ = ()


class Plain(Event):
    def __init__(self, /, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Tick(Event):
    def __init__(self, n: Any, name: Any) -> None:
        self.n = n
        self.name = name


class Empty(Event):
    pass


class Derived(Tick):
    more = 1

    def __init__(self, n: Any, name: Any, extra: Any) -> None:
        super().__init__(n, name)
        self.extra = extra


class Outer:
    class Inner(Event):
        def __init__(self, value: Any) -> None:
            self.value = value


class Abstract(abc.ABC):
    @abc.abstractmethod
    def act(self) -> None: ...


class Concrete(Abstract):
    def __init__(self, value: Any) -> None:
        self.value = value

    def act(self) -> None: ...


class Templated(Event, Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class CountsItself(Event):
    """A class that alters itself with every event."""

    made: ClassVar[int] = 0

    def __init__(self, value: Any) -> None:
        CountsItself.made += 1
        self.number = CountsItself.made
        self.value = value


class WithProperty(Event):
    """Its `__dict__` holds a name that a property hides."""

    def __init__(self, value: Any) -> None:
        self.__dict__["value"] = value
        self.set_calls = 0

    @property
    def value(self) -> Any:
        return self.__dict__["value"]

    @value.setter
    def value(self, value: Any) -> None:
        raise AssertionError("a state is not set through properties")


class RefusesSetting(Event):
    def __init__(self, value: Any) -> None:
        self.__dict__["value"] = value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AssertionError("a state is not set attribute by attribute")


@dataclasses.dataclass
class Record(Event):
    number: Any
    text: Any = "default"
    items: Any = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen(Event):
    number: Any
    text: Any = ""


PLAIN_CLASSES: list[Any] = [Record, Frozen, Tick]

if sys.version_info >= (3, 10):

    @dataclasses.dataclass(slots=True)
    class SlotsRecord(Event):
        number: Any
        text: Any = ""

    @dataclasses.dataclass(frozen=True, slots=True)
    class FrozenSlotsRecord(Event):
        number: Any
        text: Any = ""

    @dataclasses.dataclass(kw_only=True)
    class KeywordRecord(Event):
        number: Any
        text: Any = ""

    SLOTS_CLASSES: list[Any] = [SlotsRecord, FrozenSlotsRecord]
else:
    SLOTS_CLASSES = []


class DictInSlots(Event):
    """Its only slot is the dictionary."""

    __slots__ = ("__dict__",)

    def __init__(self, value: Any) -> None:
        self.value = value


class WithWeakReference(Event):
    """Something refers to it weakly."""

    def __init__(self, value: Any) -> None:
        self.value = value
        references.append(weakref.ref(self))


references: list[Any] = []


class Slots(Event):
    __slots__ = ("left", "right")

    def __init__(self, left: Any, right: Any) -> None:
        self.left = left
        self.right = right


class SlotsAndDict(Slots):
    def __init__(self, left: Any, right: Any, rest: Any) -> None:
        super().__init__(left, right)
        self.rest = rest


class Reduces(Event):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return (Reduces, ((self.value, "reduced"),))


class ReducesEx(Event):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (ReducesEx, ((self.value, protocol),))


class GetsState(Event):
    def __init__(self, value: Any) -> None:
        self.value = value
        self.lock = threading.Lock()

    def __getstate__(self) -> Any:
        return {"value": self.value}


class SetsState(Event):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __getstate__(self) -> Any:
        return [self.value]

    def __setstate__(self, state: Any) -> None:
        self.value = state[0]
        self.restored = True


class NewArguments(Event):
    def __new__(cls, value: Any) -> NewArguments:
        self = super().__new__(cls)
        self.from_new = value  # type: ignore[attr-defined]
        return self

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getnewargs__(self) -> Any:
        return (self.value,)


class NewKeywords(Event):
    def __new__(cls, *, value: Any) -> NewKeywords:
        self = super().__new__(cls)
        self.from_new = value  # type: ignore[attr-defined]
        return self

    def __getnewargs_ex__(self) -> Any:
        return ((), {"value": self.from_new})  # type: ignore[attr-defined]


class MakesItself(Event):
    """`__new__` leaves a mark that no state holds."""

    def __new__(cls, *arguments: Any) -> MakesItself:
        self = super().__new__(cls)
        self.made_by_new = True  # type: ignore[attr-defined]
        return self

    def __init__(self, value: Any) -> None:
        self.value = value


class Registered(Event):
    def __init__(self, value: Any) -> None:
        self.value = value


def rebuild_registered(value: Any) -> Registered:
    """How a registered reducer has it rebuilt."""
    return Registered((value, "by copyreg"))


def _reduce_registered(event: Registered) -> Any:
    return (rebuild_registered, (event.value,))


copyreg.pickle(Registered, _reduce_registered)


class ResolvesNames(Event):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Any:
        if name == "__getstate__":
            return lambda: {"value": (self.value, "by getattr")}
        raise AttributeError(name)


class WatchesNames(Event):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class Meta(type):
    """A metaclass of the program's own."""


class WithMeta(Event, metaclass=Meta):
    def __init__(self, value: Any) -> None:
        self.value = value


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: Any
    y: Any


OldPoint = collections.namedtuple("OldPoint", "x y")


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Items(list):  # type: ignore[type-arg]
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Pack(tuple):  # type: ignore[type-arg]
    pass


class Raw(bytes):
    pass


class Unique(set):  # type: ignore[type-arg]
    pass


class Fixed(frozenset):  # type: ignore[type-arg]
    pass


class EventError(Exception):
    def __init__(self, message: Any, code: Any) -> None:
        super().__init__(message, code)
        self.code = code


HOOKED_EVENTS: list[Any] = [
    Slots(1, "a"),
    SlotsAndDict(1, [2], "c"),
    Reduces(1),
    ReducesEx([1]),
    GetsState("v"),
    SetsState({"k": 1}),
    NewArguments(5),
    NewKeywords(value=6),
    MakesItself(7),
    Registered(8),
    ResolvesNames(9),
    WatchesNames(10),
    WithMeta(11),
    EventError("failed", 3),
    Point(1, "y"),
    OldPoint([1], 2),
    Color.RED,
    Mapping(a=1),
    *(made(1, "b") for made in SLOTS_CLASSES),
]
