"""Hypothesis strategies for the values of events, shared and cyclic ones too."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import os
import uuid
from typing import Any

from hypothesis import strategies as st

import sample_events as events

# Surrogates too, which UTF-8 proper can't hold.
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.text(st.characters(max_codepoint=127), max_size=300),
    st.sampled_from(["", "a", "é", "value", "n", "name", "\ud83d\ude00", "\ud800", "😀", "ÿ", "Ā"]),
)
ints = st.one_of(
    st.integers(),
    st.integers(-300, 300),
    st.sampled_from(
        [
            sign * (1 << bits) + off
            for sign in (1, -1)
            for bits in (7, 31, 32, 63, 64, 2048, 10_000)
            for off in (-1, 0, 1)
        ]
    ),
)
floats = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, float("nan"), -float("nan")]))
raw_bytes = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"x", b"\x00", b"y" * 300]))
plain_leaves = st.one_of(
    st.none(), st.booleans(), ints, floats, texts, raw_bytes, st.just(()), st.just(frozenset())
)


def _plain_hashables(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4))


# The place of a NaN in a set depends on its address, so that the order of two such sets differs.
_hashable_leaves = plain_leaves.filter(lambda value: type(value) is not float or value == value)
plain_hashables = st.recursive(_hashable_leaves, _plain_hashables, max_leaves=8)

other_hashables = st.one_of(
    st.sampled_from([events.Color.RED, events.Level.HIGH, events.Flags.A | events.Flags.B]),
    st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(),
    texts.map(events.Text),
    ints.map(events.Number),
    floats.map(events.Real),
    raw_bytes.map(events.Raw),
    st.builds(events.Point, plain_leaves, plain_leaves),
    st.builds(events.OldPoint, plain_leaves, plain_leaves),
    st.lists(plain_leaves, max_size=3).map(events.Pack),
    st.frozensets(plain_hashables, max_size=3).map(events.Fixed),
    st.sampled_from([events.Tick, len, Ellipsis, NotImplemented, int, decimal, fractions]).filter(
        lambda value: not isinstance(value, type(decimal))
    ),
)
other_values = st.one_of(
    other_hashables,
    raw_bytes.map(bytearray),
    st.lists(st.integers(0, 255), max_size=5).map(lambda numbers: array.array("i", numbers)),
    st.lists(plain_leaves, max_size=4).map(events.Items),
    st.dictionaries(plain_hashables, plain_leaves, max_size=4).map(events.Mapping),
    st.sets(plain_hashables, max_size=4).map(events.Unique),
    st.dictionaries(texts, ints, max_size=4).map(collections.OrderedDict),
    st.lists(plain_leaves, max_size=4).map(collections.deque),
    st.lists(texts, max_size=4).map(collections.Counter),
    st.builds(events.Tick, plain_leaves, plain_leaves),
    st.builds(events.Record, plain_leaves, plain_leaves),
    st.builds(events.Slots, plain_leaves, plain_leaves),
    st.builds(events.EventError, texts, ints),
    texts.map(ValueError),
    st.just(uuid.uuid5(uuid.NAMESPACE_DNS, "event")),
)


@st.composite
def graphs(draw: st.DrawFn, leaves: st.SearchStrategy[Any], cycles: bool = False) -> list[Any]:
    """Up to eight values that share parts; with cycles, containers that contain themselves."""
    made: list[Any] = []
    keys: list[Any] = []
    yes_or_no: st.SearchStrategy[Any] = st.booleans()

    def part() -> Any:
        if made and draw(st.integers(0, 3)) == 0:
            return draw(st.sampled_from(made))
        return draw(leaves)

    def key() -> Any:
        if keys and draw(yes_or_no):
            return draw(st.sampled_from(keys))
        keys.append(draw(plain_hashables))
        made.append(keys[-1])
        return keys[-1]

    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["value", "list", "tuple", "dict", "set", "frozenset"]))
        size = draw(st.integers(0, 4))
        if kind == "value":
            made.append(part())
        elif kind == "list":
            made.append([part() for _ in range(size)])
        elif kind == "tuple":
            made.append(tuple(part() for _ in range(size)))
        elif kind == "dict":
            made.append({key(): part() for _ in range(size)})
        elif kind == "set":
            made.append({key() for _ in range(size)})
        else:
            made.append(frozenset(key() for _ in range(size)))
    if cycles:
        for holder in [value for value in made if type(value) is list]:
            holder.append(draw(st.sampled_from(made)))
        for mapping in [value for value in made if type(value) is dict]:
            mapping["cycle"] = draw(st.sampled_from(made))
    return made


plain_graphs = graphs(plain_leaves)
cyclic_graphs = graphs(plain_leaves, cycles=True)
mixed_graphs = graphs(st.one_of(plain_leaves, other_values))

attribute_names = st.one_of(
    st.sampled_from(["n", "name", "value", "kind", "_private", "__mangled", "__odd__", "self"]),
    st.text(min_size=1, max_size=5),
)


@st.composite
def attributes(draw: st.DrawFn, values: st.SearchStrategy[list[Any]]) -> dict[str, Any]:
    """Attributes for an event, with the given values and names of any kind."""
    found = draw(values)
    names = draw(st.lists(attribute_names, min_size=len(found), max_size=len(found), unique=True))
    return dict(zip(names, found))


def examples(count: int) -> int:
    """How many examples a test tries: `EVENTPY_EXAMPLES_FACTOR` times as many as ordinarily."""
    return count * int(os.environ.get("EVENTPY_EXAMPLES_FACTOR", "1"))
