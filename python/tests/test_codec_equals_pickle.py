"""What arrives equals what pickle brings: type, value, and identity of shared parts."""

from __future__ import annotations

import collections
import dataclasses
import pickle
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sample_events as events
import strategies
from codec_pair import PICKLED, TYPED, TYPED_SHARED, Pair, by_pickle
from likeness import assert_alike

thorough = settings(
    max_examples=strategies.examples(400), deadline=None, suppress_health_check=list(HealthCheck)
)


def check(event: Any, pair: Pair | None = None) -> None:
    """Sends an event and compares."""
    assert_alike(by_pickle(event), (pair or Pair()).send(event))


def check_thrice(make: Any) -> None:
    """Sends an event, another of the same shape, and one that nobody else refers into."""
    pair = Pair()
    check(make(), pair)
    check(make(), pair)
    check(by_pickle(make()), pair)


@thorough
@given(strategies.attributes(strategies.plain_graphs))
def test_plain_values(attributes: dict[str, Any]) -> None:
    check_thrice(lambda: events.Plain(**attributes))


@thorough
@given(strategies.attributes(strategies.cyclic_graphs))
def test_cyclic_values(attributes: dict[str, Any]) -> None:
    check_thrice(lambda: events.Plain(**attributes))


@thorough
@given(strategies.attributes(strategies.mixed_graphs))
def test_any_values(attributes: dict[str, Any]) -> None:
    check_thrice(lambda: events.Plain(**attributes))


@thorough
@given(
    st.lists(strategies.attributes(strategies.plain_graphs), max_size=6),
    st.lists(st.sampled_from([events.Plain, events.Empty, events.CountsItself, object()])),
)
def test_one_pair_sends_many_shapes(many: list[dict[str, Any]], kinds: list[Any]) -> None:
    pair = Pair()
    for attributes, kind in zip(many, kinds + [events.Plain] * len(many)):
        event = events.Plain(**attributes)
        if kind is events.CountsItself:
            event = events.CountsItself(1)  # type: ignore[assignment]
            event.__dict__.update(attributes)
        check(event, pair)


@thorough
@given(strategies.mixed_graphs, st.sampled_from(events.PLAIN_CLASSES + events.SLOTS_CLASSES))
def test_dataclasses(values: list[Any], made: Any) -> None:
    first, second = [*values, 1, 2][:2]
    check_thrice(lambda: made(first, second))


MAKERS: list[Any] = [
    events.Reduces,
    events.ReducesEx,
    events.GetsState,
    events.SetsState,
    events.NewArguments,
    events.MakesItself,
    events.Registered,
    events.ResolvesNames,
    events.WatchesNames,
    events.WithMeta,
    events.Concrete,
    events.Templated,
    events.WithProperty,
    events.RefusesSetting,
    events.Outer.Inner,
    events.DictInSlots,
    events.WithWeakReference,
    lambda value: events.NewKeywords(value=value),
    lambda value: events.Slots(value, [value]),
    lambda value: events.SlotsAndDict(value, [value], value),
    lambda value: events.EventError(value, [value]),
]


@thorough
@given(strategies.mixed_graphs)
def test_classes_of_every_kind(values: list[Any]) -> None:
    value = values[-1] if values else None
    for made in MAKERS:
        check_thrice(lambda made=made: made(value))


@pytest.mark.parametrize("event", events.HOOKED_EVENTS, ids=lambda event: type(event).__name__)
def test_hooks_are_honoured(event: Any) -> None:
    pair = Pair()
    check(event, pair)
    assert pair.kind_of(event) == PICKLED


@pytest.mark.parametrize(
    "event",
    [
        events.Tick(1, "a"),
        events.Derived(1, "a", (2.5, None)),
        events.Empty(),
        events.Outer.Inner(b"inner"),
        events.Concrete({"a": {1, 2}}),
        events.Templated([1, [2, [3]]]),
        events.CountsItself(frozenset({1})),
        events.WithProperty(1),
        events.RefusesSetting(1),
        events.Record(1 << 100, "\ud800", [True]),
        events.Frozen(-0.0),
        events.DictInSlots({"a": 1}),
        events.WithWeakReference([1]),
    ],
    ids=lambda event: type(event).__name__,
)
def test_plain_classes_take_the_typed_path(event: Any) -> None:
    pair = Pair()
    check(event, pair)
    assert pair.kind_of(event) in (TYPED, TYPED_SHARED)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="dataclasses have no kw_only there")
def test_keyword_only_dataclasses_take_the_typed_path() -> None:
    pair = Pair()
    check(events.KeywordRecord(number=1, text="a"), pair)
    assert pair.kind_of(events.KeywordRecord(number=1)) == TYPED


def test_the_same_text_twice_is_one_text_on_arrival() -> None:
    text = "".join(["te", "xt"])
    arrived = Pair().send(events.Tick(text, [text, {text: text}]))
    assert arrived.n is arrived.name[0] is arrived.name[1][text]
    assert next(iter(arrived.name[1])) is arrived.n


def test_equal_texts_stay_two_texts() -> None:
    arrived = Pair().send(events.Tick("".join(["te", "xt"]), "".join(["te", "xt"])))
    assert arrived.n == arrived.name
    assert arrived.n is not arrived.name


def test_shared_containers_take_the_typed_path() -> None:
    pair, shared = Pair(), [1, "a"]
    event = events.Tick(shared, {"left": shared, "right": (shared, shared)})
    check(event, pair)
    assert pair.kind_of(event) == TYPED_SHARED


def test_nan_in_sets_and_keys() -> None:
    nan = float("nan")
    arrived = Pair().send(events.Tick({nan, 1}, {nan: 1, (nan,): nan}))
    assert {repr(item) for item in arrived.n} == {"nan", "1"}
    check(events.Tick({nan}, {nan: 1, (nan,): nan}))


def test_an_event_may_contain_its_own_dictionary() -> None:
    event = events.Plain(a=1)
    event.itself = event.__dict__  # type: ignore[attr-defined]
    check(event)


def test_an_event_may_contain_itself() -> None:
    event = events.Plain(a=1)
    event.itself = [event]  # type: ignore[attr-defined]
    check(event)


def test_a_container_may_contain_itself() -> None:
    inner: list[Any] = []
    pair = (inner, {"inner": inner})
    inner.append(pair)
    check(events.Tick(inner, pair))


def test_attributes_are_in_the_order_of_their_setting() -> None:
    pair = Pair()
    for order in ("abc", "cab", "bca", "ab", "b", ""):
        check(events.Plain(**dict.fromkeys(order, 1)), pair)


def test_a_deleted_attribute_stays_deleted() -> None:
    pair = Pair()
    for name in ("n", "name"):
        event = events.Tick(1, 2)
        delattr(event, name)
        check(event, pair)
        event.late = 3  # type: ignore[attr-defined]
        check(event, pair)


def test_attribute_names_are_interned_on_arrival() -> None:
    arrived = Pair().send(events.Tick(1, 2))
    assert all(name is sys.intern(name) for name in arrived.__dict__)


def test_attributes_that_are_not_text_are_pickled() -> None:
    event = events.Plain()
    event.__dict__[1] = "one"  # type: ignore[index]
    event.__dict__[events.Text("two")] = 2
    check(event)


def test_a_dictionary_of_a_derived_class_is_pickled() -> None:
    event = events.Plain()
    event.__dict__ = collections.OrderedDict(a=1, b=2)
    check(event)
    # Its order is not that of the dictionary within it.
    event.__dict__.move_to_end("a")
    check(event)


def test_hooks_on_the_instance_are_honoured() -> None:
    # Pickle looks these up on the instance, not on its class.
    for name, hook in [
        ("__reduce_ex__", lambda protocol: (events.Tick, (protocol, "by instance"))),
        ("__getstate__", lambda: {"state": "by instance"}),
    ]:
        event = events.Plain(a=1)
        event.__dict__[name] = hook
        check(event)


def test_many_attributes() -> None:
    pair = Pair()
    for count in (29, 30, 31, 200):
        check(events.Plain(**{f"attribute_{index}": index for index in range(count)}), pair)


def test_more_shapes_than_have_numbers() -> None:
    pair = Pair()
    for index in range(200):
        check(events.Plain(**{f"attribute_{index}": index}), pair)


def test_deep_values() -> None:
    pair = Pair()
    for depth in (100, 199, 200, 201, 300):
        value: Any = "end"
        for _ in range(depth):
            value = [value]
        check(events.Tick(value, 0), pair)


def test_large_values() -> None:
    event = events.Tick(b"\x01" * 1_000_000, "é" * 300_000)
    check(event)
    check(events.Tick([float(number) for number in range(100_000)], "x" * 100_000))


def test_single_bytes_are_objects_of_their_own() -> None:
    # A single byte is one object for all, unless pickle made it.
    check(events.Tick(b"a", by_pickle(b"a")))
    check(events.Tick(by_pickle(b"a"), by_pickle(b"a")))


def test_single_characters_are_the_interpreters_own() -> None:
    for character in map(chr, [0, 97, 127, 128, 233, 255, 256, 0xD800]):
        event = events.Tick(character, 0)
        assert (Pair().send(event).n is character) is (by_pickle(event).n is character)


def test_one_encoder_many_classes() -> None:
    pair = Pair()
    for number in range(100):
        made = type(f"Made{number}", (events.Event,), {"__module__": __name__})
        globals()[made.__name__] = made
        event = made()
        event.number = number
        check(event, pair)
        check(event, pair)


def test_an_instance_that_changed_its_class() -> None:
    pair = Pair()
    check(events.Tick(1, 2), pair)
    check(events.Record(1, 2), pair)
    event = events.Tick(1, 2)
    event.__class__ = events.Record  # type: ignore[assignment]
    check(event, pair)
    check(events.Record(3, 4), pair)


def test_a_dataclass_is_not_initialised_again() -> None:
    @dataclasses.dataclass
    class Local:
        number: int

        def __post_init__(self) -> None:
            raise AssertionError

    with pytest.raises(AssertionError):
        Local(1)
    assert Pair().send(events.Record(5)).number == 5


def test_what_arrives_can_be_sent_on() -> None:
    pair = Pair()
    event = pair.send(events.Tick([1], {"a": "b"}))
    assert_alike(by_pickle(event), pair.send(event))
    assert pickle.dumps(event, 5)
