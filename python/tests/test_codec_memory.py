"""References are counted right, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings

import sample_events as events
import strategies
from codec_pair import Pair, by_pickle
from eventpy import EventError
from likeness import assert_alike

ROUNDS = 20_000


def resident_bytes() -> int:
    """Memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rich_event() -> Any:
    """An event with a value of each kind, some of them shared."""
    shared = ["".join(["sha", "red"]), b"raw bytes", (1.5, 1 << 70)]
    return events.Tick(
        {"list": shared, "again": shared, "set": {1, "two"}, 3: frozenset({4})},
        [shared, None, True, -5, 1 << 40, "é\ud800", {"deep": [[["x" * 300]]]}],
    )


@pytest.fixture
def pair() -> Pair:
    return Pair()


def refuse(error: Any, call: Callable[[], Any]) -> None:
    """Calls what has to raise."""
    try:
        call()
    except error:
        return
    raise AssertionError("nothing was raised")


def works(pair: Pair) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that a codec does, as calls to repeat."""
    rich, small, hooked = rich_event(), events.Tick(1, "a"), events.GetsState([1, "a"])
    records = {event: pair.record_of(event) for event in (rich, small, hooked)}
    cut, bent = records[rich][:-3], records[rich][:20] + b"\x7f" * 9
    locked = events.Plain(lock=threading.Lock())
    decode = pair.decoder.decode
    yield "encode", lambda: pair.record_of(rich)
    yield "encode new", lambda: pair.record_of(events.Tick("".join(["a", "b"]), [2.5]))
    yield "encode altering", lambda: pair.record_of(events.CountsItself(3))
    yield "decode", lambda: decode(records[rich])
    yield "decode small", lambda: decode(records[small])
    yield "pickle", lambda: decode(pair.record_of(hooked))
    yield "broken", lambda: refuse(EventError, lambda: decode(cut))
    yield "bent", lambda: refuse(EventError, lambda: decode(bent))
    yield "unsendable", lambda: refuse(EventError, lambda: pair.record_of(locked))
    yield "new pair", lambda: Pair().send(small)


@pytest.mark.parametrize("work", [name for name, _ in works(Pair())])
def test_memory_stays_flat(pair: Pair, work: str) -> None:
    call = dict(works(pair))[work]
    rounds = ROUNDS if "unsendable" not in work and "pair" not in work else ROUNDS // 10
    for _ in range(rounds // 4):
        call()
    gc.collect()
    before, blocks = resident_bytes(), sys.getallocatedblocks()
    for _ in range(rounds):
        call()
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200
    assert resident_bytes() - before < 1 << 20


def test_buffers_are_freed() -> None:
    numpy = pytest.importorskip("numpy")
    pair, event = Pair(), events.Plain(image=numpy.zeros(1 << 20, numpy.uint8))
    pair.send(event)
    gc.collect()
    before, blocks = resident_bytes(), sys.getallocatedblocks()
    for _ in range(500):
        record = pair.record_of(event)
        pair.decoder.decode(record, record)
        pair.decoder.decode(record)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200
    assert resident_bytes() - before < 8 << 20


def test_reference_counts(pair: Pair) -> None:
    values = ["".join(["te", "xt"]), b"raw bytes", [1.5], (2.5, []), {"k": 1}, {3.5}, 1 << 70, 4.5]
    watched = [*values, events.Tick, events.Plain, "n", "name", None]
    pair.send(events.Tick(values, values))

    def counts() -> list[int]:
        return [sys.getrefcount(value) for value in watched]

    before = counts()
    for _ in range(1000):
        pair.send(events.Tick(values, values[3]))
    gc.collect()
    assert all(abs(after - count) < 5 for after, count in zip(counts(), before))


def test_what_arrives_is_held_by_its_event_alone(pair: Pair) -> None:
    def counts(arrived: Any) -> list[int]:
        parts = [arrived, arrived.n, *arrived.n.values(), arrived.name, *arrived.name[4:]]
        return [sys.getrefcount(part) for part in parts]

    assert counts(pair.send(rich_event())) == counts(by_pickle(rich_event()))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="every instance has a dictionary there")
def test_neither_side_makes_a_dictionary_for_an_instance(pair: Pair) -> None:
    pair.record_of(events.Tick(1, "a"))
    event = events.Tick(2, "b")
    arrived = pair.send(event)
    for instance in (event, arrived):
        assert not any(isinstance(part, dict) for part in gc.get_referents(instance))
    assert arrived.__dict__ == {"n": 2, "name": "b"}


class Noisy:
    """Garbage whose end runs Python code that looks at every object there is."""

    ended = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Noisy.ended += 1
        for found in gc.get_objects():
            if type(found) in (list, tuple, dict, set):
                len(found)


@settings(
    max_examples=strategies.examples(60), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(strategies.attributes(strategies.mixed_graphs))
def test_the_garbage_collector_may_run_at_any_time(attributes: dict[str, Any]) -> None:
    pair = Pair()
    usual, ended = gc.get_threshold(), Noisy.ended
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(3):
            event = events.Plain(**attributes)
            Noisy()
            assert_alike(by_pickle(event), pair.send(event))
    finally:
        gc.set_threshold(*usual)
    assert Noisy.ended > ended


def test_threads_take_turns() -> None:
    wrong: list[Any] = []

    def send(number: int) -> None:
        pair = Pair()
        for count in range(3000):
            arrived = pair.send(events.Tick(number, [count, str(count)]))
            if (arrived.n, arrived.name) != (number, [count, str(count)]):
                wrong.append(arrived)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
