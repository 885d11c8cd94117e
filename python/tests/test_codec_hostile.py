"""Bytes that no encoder wrote bring about an exception, and nothing else."""

from __future__ import annotations

import contextlib
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sample_events as events
import strategies
from codec_pair import PICKLED_WITH_BUFFERS, TYPED, TYPED_SHARED, Pair
from eventpy import EventError
from eventpy._eventpy import ALIGNMENT, HEAD_BYTES, Decoder, leading_bytes

SHARED = "shared text"
RICH = events.Tick(
    [None, True, False, 1, -1, 1 << 40, -(1 << 80), 1.5, SHARED, "é\ud800", b"raw", (), ((1,),)],
    {SHARED: {1, 2}, 2: frozenset({"a"}), (3,): {"deep": [[[SHARED]]]}},
)
TICK = pickle.dumps(events.Tick, 5)
often = settings(max_examples=strategies.examples(1500), deadline=None)


def decoder() -> Any:
    """A decoder that knows the shape of `Tick` as number 0."""
    pair = Pair()
    pair.record_of(RICH)
    return pair.decoder


def decode_or_refuse(pair_decoder: Any, record: bytes) -> None:
    """Whatever comes of it, it is no crash and no panic (which is no `Exception`)."""
    with contextlib.suppress(EventError, TypeError):
        pair_decoder.decode(record)


def definition(
    shape: int = 0,
    pickled: bytes = TICK,
    names: Any = (b"n", b"name"),
    kind: int = 5,
    rest: bytes = b"",
) -> bytes:
    """A definition, as an encoder writes it or almost."""
    written = b"".join(bytes([len(name)]) + name for name in names)
    head = struct.pack("<BBHI", kind, 0, shape, len(pickled))
    return head + pickled + bytes([len(names)]) + written + rest


@often
@given(st.binary(max_size=200), st.sampled_from([TYPED, TYPED_SHARED, 0, 5, 6, 255]))
def test_random_bytes(noise: bytes, kind: int) -> None:
    decode_or_refuse(decoder(), bytes([kind]) + noise)
    decode_or_refuse(decoder(), bytes([kind, 0, 0]) + noise)


@often
@given(st.data())
def test_altered_records(data: st.DataObject) -> None:
    pair = Pair()
    record = bytearray(pair.record_of(RICH))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(1, len(record) - 1))
        stop = data.draw(st.integers(start, min(len(record), start + 8)))
        record[start:stop] = data.draw(st.binary(max_size=8))
        if len(record) < 2:
            break
    decode_or_refuse(pair.decoder, bytes(record))
    assert pair.send(events.Tick(1, "still works")).name == "still works"


def test_no_beginning_of_a_record_is_a_record() -> None:
    pair = Pair()
    record = pair.record_of(RICH)
    for length in range(len(record)):
        with pytest.raises(EventError):
            pair.decoder.decode(record[:length])


def test_nothing_may_follow_the_last_value() -> None:
    pair = Pair()
    with pytest.raises(EventError, match="2 bytes follow"):
        pair.decoder.decode(pair.record_of(RICH) + b"\0\0")


@pytest.mark.parametrize("tag", range(5, 15))
@pytest.mark.parametrize("length", [2, 1000, 0x0FFFFFFF, 0xFFFFFFFF])
def test_lengths_that_lie(tag: int, length: int) -> None:
    written = bytearray()
    while length >= 0x80:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    written.append(length)
    # None is a value of one byte, so that a short list is plausible for a while.
    for rest in (b"", b"\0", b"\0" * 100):
        with pytest.raises((EventError, TypeError)):
            decoder().decode(bytes([TYPED, 0, 0, tag]) + written + rest)


def test_containers_deeper_than_an_encoder_writes() -> None:
    for tag in (9, 10, 11, 12, 13):
        with pytest.raises(EventError, match="nested too deep"):
            decoder().decode(bytes([TYPED, 0, 0]) + bytes([tag, 1]) * 1_000_000)


def test_references_to_nothing() -> None:
    for record in (
        bytes([TYPED_SHARED, 0, 0, 14, 0, 0]),
        bytes([TYPED_SHARED, 0, 0, 10, 1, 14, 0, 0]),
        bytes([TYPED, 0, 0, 7, 2, 97, 98, 14, 0]),
        bytes([TYPED_SHARED, 0, 0, 7, 2, 97, 98, 14, 1]),
    ):
        with pytest.raises(EventError, match="before it was written"):
            decoder().decode(record)


def test_a_part_may_lose_its_container() -> None:
    # A dictionary keeps the first of two equal keys; the second is referred to afterwards.
    twins = bytes([13, 2, 7, 2, 97, 98, 0, 7, 2, 97, 98, 0])
    event = decoder().decode(bytes([TYPED_SHARED, 0, 0]) + twins + bytes([14, 1]))
    assert (event.n, event.name) == ({"ab": None}, "ab")


def test_unhashable_members() -> None:
    for record in ([11, 1, 10, 0], [12, 1, 13, 0], [13, 1, 11, 0, 0]):
        with pytest.raises(TypeError, match="unhashable"):
            decoder().decode(bytes([TYPED, 0, 0, *record, 0]))


def test_text_that_is_not_utf8() -> None:
    for text in (b"\xff\xff", b"a\xc3", b"\xed\xa0"):
        with pytest.raises(EventError, match="UTF-8"):
            decoder().decode(bytes([TYPED, 0, 0, 7, len(text)]) + text + b"\0")


def test_unknown_kinds_and_shapes() -> None:
    for record, message in [
        (b"", "ends within"),
        (b"\1", "ends within"),
        (b"\1\7\0", "shape 7 was never defined"),
        (b"\0\0\0", "kind 0"),
        (b"\5\0\0", "kind 5"),
        (bytes([TYPED, 0, 0, 15]), "tag 0x0f"),
        (bytes([TYPED, 0, 0, 0x7F]), "tag 0x7f"),
    ]:
        with pytest.raises(EventError, match=message):
            decoder().decode(record)


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (definition(kind=1), "kind 1"),
        (definition(shape=1), "shape 1 was defined where shape 0 was due"),
        (definition(rest=b"\0"), "1 bytes follow"),
        (definition(names=[b"__class__"]), "reserved name"),
        (definition(names=[b"__dict__"]), "reserved name"),
        (definition(names=[b"\xff"]), "UTF-8"),
        (definition()[:-1], "ends within"),
        (b"\5\0\0\0\xff\xff\xff\xff", "ends within"),
        (definition(names=[]) [:-1] + b"\xff\xff\xff\xff\x0f", "ends within"),
    ],
)  # fmt: skip
def test_broken_definitions(bytes_: bytes, message: str) -> None:
    with pytest.raises(EventError, match=message):
        Decoder().define(bytes_)


@often
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_random_definitions(start: bytes, end: bytes) -> None:
    for noise in (start, definition()[:8] + TICK + end, definition() + end, b"\5\0\0\0" + start):
        with contextlib.suppress(EventError):
            Decoder().define(noise)


def test_a_definition_of_something_else() -> None:
    found = Decoder()
    found.define(definition(pickled=pickle.dumps("no class")))
    with pytest.raises(EventError, match="not the shape of a class"):
        found.decode(bytes([TYPED, 0, 0, 0, 0]))


def test_a_definition_of_a_class_that_is_not_plain() -> None:
    # No encoder writes one; unpickling would do the same with it.
    for made, names in [(int, [b"n"]), (events.Slots, [b"left"]), (type(None), [b"n"])]:
        found = Decoder()
        found.define(definition(pickled=pickle.dumps(made), names=names))
        with pytest.raises((AttributeError, TypeError)):
            found.decode(bytes([TYPED, 0, 0, 0]))


def with_buffers(stream: bytes, *places: Any, count: Any = None, length: Any = None) -> bytes:
    """The beginning of a record with out-of-band buffers."""
    count = len(places) if count is None else count
    length = len(stream) if length is None else length
    head = struct.pack("<BxxxIQ", PICKLED_WITH_BUFFERS, count, length)
    return head + b"".join(struct.pack("<QQ", *place) for place in places) + stream


NEEDS_A_BUFFER = pickle.dumps(pickle.PickleBuffer(b"b" * 64), 5, buffer_callback=lambda _: None)


def test_a_buffer_where_it_should_be() -> None:
    record = with_buffers(NEEDS_A_BUFFER, (ALIGNMENT, 64)).ljust(ALIGNMENT, b"\0") + b"b" * 64
    for owner in (None, record):
        assert bytes(Decoder().decode(record, owner)) == b"b" * 64
        assert bytes(Decoder().decode(record[: leading_bytes(record, len(record))], record)) == (
            b"b" * 64
        )


@pytest.mark.parametrize(
    "place",
    [
        (0, 64),
        (63, 1),
        (65, 1),
        (ALIGNMENT, 65),
        (128, 1),
        (1 << 63, 1),
        ((1 << 64) - 64, 64),
        (64, (1 << 64) - 1),
    ],
)
def test_buffers_elsewhere(place: Any) -> None:
    record = with_buffers(NEEDS_A_BUFFER, place).ljust(ALIGNMENT, b"\0") + b"b" * 64
    for owner in (None, record):
        with pytest.raises(EventError, match="buffer 0 lies outside"):
            Decoder().decode(record, owner)


@pytest.mark.parametrize(
    "head",
    [
        {"count": 0xFFFFFFFF},
        {"length": (1 << 64) - 1},
        {"length": (1 << 63) - 1},
        {"count": 0xFFFFFFFF, "length": (1 << 64) - 1},
        {"length": 1000},
    ],
)
def test_heads_that_lie(head: Any) -> None:
    record = with_buffers(NEEDS_A_BUFFER, (ALIGNMENT, 64), **head)
    with pytest.raises(EventError):
        Decoder().decode(record)
    with pytest.raises(EventError):
        leading_bytes(record, len(record))


def test_an_owner_that_is_smaller_than_the_record() -> None:
    record = with_buffers(NEEDS_A_BUFFER, (ALIGNMENT, 64)).ljust(ALIGNMENT, b"\0") + b"b" * 64
    with pytest.raises(EventError):
        Decoder().decode(record, record[:100])


def test_leading_bytes() -> None:
    assert leading_bytes(b"\1\0\0", 300) == 300
    assert leading_bytes(b"", 0) == 0
    record = with_buffers(NEEDS_A_BUFFER, (ALIGNMENT, 64))
    assert leading_bytes(record[:HEAD_BYTES], 4096) == len(record)
    with pytest.raises(EventError):
        leading_bytes(record[: HEAD_BYTES - 1], 4096)
    with pytest.raises(EventError):
        leading_bytes(record[:HEAD_BYTES], len(record) - 1)


@often
@given(st.binary(max_size=64))
def test_random_heads(noise: bytes) -> None:
    record = bytes([PICKLED_WITH_BUFFERS]) + noise
    try:
        leading_bytes(record, len(record))
    except EventError:
        return
    if len(noise) < HEAD_BYTES:
        with pytest.raises(Exception):  # noqa: B017, PT011
            Decoder().decode(record)
