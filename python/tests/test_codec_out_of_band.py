"""Large buffers travel outside the pickle, and are used where they arrive."""

from __future__ import annotations

import mmap
import pickle
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import sample_events as events
import strategies
from codec_pair import PICKLED, PICKLED_WITH_BUFFERS, Pair, by_pickle
from eventpy import EventError
from eventpy._eventpy import ALIGNMENT, leading_bytes
from likeness import assert_alike

numpy = pytest.importorskip("numpy")
arrays_of = pytest.importorskip("hypothesis.extra.numpy")

thorough = settings(
    max_examples=strategies.examples(400), deadline=None, suppress_health_check=list(HealthCheck)
)
dtypes = arrays_of.scalar_dtypes() | arrays_of.array_dtypes() | arrays_of.nested_dtypes()
arrays = arrays_of.arrays(dtypes, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=5))


class Frame(events.Event):
    def __init__(self, image: Any, **rest: Any) -> None:
        self.image = image
        self.__dict__.update(rest)


class Owner(bytearray):
    """Memory that tells when it is freed."""


def forms(array: Any) -> list[Any]:
    """The array in other layouts."""
    read_only = array.copy()
    read_only.flags.writeable = False
    return [array, array.T, numpy.asfortranarray(array), array[..., ::2], array[::-1], read_only]


@thorough
@given(arrays)
def test_arrays_of_any_kind(array: Any) -> None:
    for form in forms(array) if array.ndim else [array]:
        for threshold in (0, 1, 64, 1 << 16):
            event = Frame(form, twice=[form, form])
            assert_alike(by_pickle(event), Pair(threshold).send(event))


def test_arrays_of_objects() -> None:
    array = numpy.array([[1, "a"], [None, [2, 3]]], dtype=object)
    assert_alike(by_pickle(Frame(array)), Pair(0).send(Frame(array)))


@pytest.mark.parametrize("size", [65_535, 65_536])
def test_the_threshold(size: int) -> None:
    kind = PICKLED if size < 65_536 else PICKLED_WITH_BUFFERS
    pair = Pair()
    event = Frame(numpy.arange(size, dtype=numpy.uint8))
    assert pair.kind_of(event) == kind
    assert_alike(by_pickle(event), pair.send(event))


def test_large_arrays_are_mapped() -> None:
    pair = Pair()
    event = Frame(numpy.arange(100_000.0).reshape(100, 1000), mask=numpy.ones(70_000, bool))
    record = pair.record_of(event)
    memory = mmap.mmap(-1, len(record))
    memory.write(record)
    start = numpy.frombuffer(memory, numpy.uint8).ctypes.data
    head = record[: leading_bytes(record, len(record))]
    assert len(head) < 1000
    arrived = pair.decoder.decode(head, memory)
    for array, sent in [(arrived.image, event.image), (arrived.mask, event.mask)]:  # type: ignore[attr-defined]
        assert numpy.array_equal(array, sent)
        assert array.ctypes.data % ALIGNMENT == 0
        assert start <= array.ctypes.data < start + len(record)


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_mapped_is_as_writable_as_its_owner(writable: bool) -> None:
    pair = Pair(0)
    record = pair.record_of(Frame(numpy.zeros(10)))
    owner = bytearray(record) if writable else record
    assert pair.decoder.decode(record, owner).image.flags.writeable is writable


def test_a_copy_is_as_writable_as_pickle_makes_it() -> None:
    for form in forms(numpy.arange(10.0)):
        arrived = Pair(0).send(Frame(form)).image
        assert arrived.flags.writeable is by_pickle(Frame(form)).image.flags.writeable


def test_memory_goes_back_when_the_last_view_dies() -> None:
    pair = Pair(0)
    owner = Owner(pair.record_of(Frame(numpy.zeros(10), other=numpy.zeros(10))))
    alive = weakref.ref(owner)
    arrived = pair.decoder.decode(bytes(owner), owner)
    del owner
    view = arrived.other[2:3]
    del arrived
    assert alive() is not None
    del view
    assert alive() is None


def test_the_encoder_keeps_no_array() -> None:
    array = numpy.zeros(100_000)
    alive = weakref.ref(array)
    Pair().record_of(Frame(array))
    del array
    assert alive() is None


def test_nothing_of_the_memory_before_shows_through() -> None:
    pair = Pair(0)
    record = pair.record_of(Frame(numpy.zeros(1, numpy.uint8), more=numpy.zeros(1, numpy.uint8)))
    assert b"\xaa" not in record


def test_buffers_of_other_makers() -> None:
    class Holds(Frame):
        def __reduce_ex__(self, protocol: Any) -> Any:
            return (bytes, (pickle.PickleBuffer(self.image),))

    globals()["Holds"] = Holds
    for held in (b"b" * 100_000, bytearray(b"b" * 100_000), b"", memoryview(b"b" * 10)):
        assert Pair().send(Holds(held)) == bytes(held)


def test_a_buffer_that_is_not_contiguous_is_refused_by_pickle() -> None:
    class Scattered(Frame):
        def __reduce_ex__(self, protocol: Any) -> Any:
            return (bytes, (pickle.PickleBuffer(memoryview(self.image)[::2]),))

    Scattered.__qualname__ = "Scattered"
    globals()["Scattered"] = Scattered
    with pytest.raises(EventError, match="contiguous"):
        Pair(0).send(Scattered(b"b" * 100))


def test_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "number": range(20_000),
            "real": numpy.linspace(0, 1, 20_000),
            "text": ["a", "b"] * 10_000,
            "when": pandas.date_range("2024-01-01", periods=20_000, freq="min"),
            "kind": pandas.Categorical(["x", "y"] * 10_000),
        }
    )
    for threshold in (0, 1 << 16):
        pair = Pair(threshold)
        arrived = pair.send(Frame(frame, column=frame["real"], index=frame.index)).__dict__
        expected = by_pickle(Frame(frame, column=frame["real"], index=frame.index)).__dict__
        pandas.testing.assert_frame_equal(expected["image"], arrived["image"])
        pandas.testing.assert_series_equal(expected["column"], arrived["column"])
        pandas.testing.assert_index_equal(expected["index"], arrived["index"])
        assert pair.kind_of(Frame(frame)) == PICKLED_WITH_BUFFERS
