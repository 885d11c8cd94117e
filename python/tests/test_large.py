"""Large arrays arrive mapped, and their memory goes back."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import pytest

from eventpy import EventDispatchManager, EventListener
from pumping import Collector, everything, pump_until
from sources import Camera, Frame

numpy = pytest.importorskip("numpy")

MEBIBYTE = 1 << 20


def mapped_memory() -> int:
    with open("/proc/self/status") as status:
        kibibytes = {
            line.split(":")[0]: int(line.split()[1]) for line in status if line.endswith("kB\n")
        }
    return (kibibytes["RssAnon"] + kibibytes["RssShmem"]) * 1024


def is_shared(array: Any) -> bool:
    """Whether an array's memory is mapped from another process."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
            if first <= address < last:
                return "memfd:" in line
    return False


@pytest.mark.parametrize("size", [64 << 10, 100_000, 4 * MEBIBYTE])
def test_large_arrays_arrive_mapped_and_read_only(size: int) -> None:
    collector = everything()
    with EventDispatchManager(Camera(3, size), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    frames = collector.of(Frame)
    assert [frame.n for frame in frames] == [1, 2, 3]
    for frame in frames:
        expected = numpy.arange(size, dtype="u1")
        expected[0] = frame.n
        assert numpy.array_equal(frame.image, expected)
        assert not frame.image.flags.writeable
        assert is_shared(frame.image)
        assert frame.image.__array_interface__["data"][0] % 64 == 0


def test_small_arrays_are_the_readers_own() -> None:
    collector = everything()
    with EventDispatchManager(Camera(1, 1000), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    image = collector.of(Frame)[0].image
    assert image.flags.writeable
    assert not is_shared(image)


def test_copies_are_writable() -> None:
    collector = everything()
    with EventDispatchManager(Camera(1, MEBIBYTE, copy_large=True), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    image = collector.of(Frame)[0].image
    assert image.flags.writeable
    assert not is_shared(image)


def test_what_is_kept_stays_valid_when_the_dispatcher_is_gone() -> None:
    collector = everything()
    manager = EventDispatchManager(Camera(2, MEBIBYTE), collector)
    with manager:
        pump_until(manager, lambda: collector.is_over)
    view = collector.of(Frame)[1].image[10:20]
    collector.events.clear()
    del manager
    gc.collect()
    assert view.tolist() == [*range(10, 20)]
    assert pickle.loads(pickle.dumps(view)).tolist() == view.tolist()


def test_the_memory_of_kept_arrays_is_bounded_and_goes_back() -> None:
    kept: list[Any] = []
    manager = EventDispatchManager(
        Camera(100, MEBIBYTE, large_bytes=8 * MEBIBYTE),
        EventListener({Frame: lambda event: kept.append(event.image)}),
    )
    with manager:
        pump_until(manager, lambda: len(kept) >= 5)
        assert manager.invoke_dispatch(timeout=0.2) <= 1, "the dispatcher waits for memory"
        received = len(kept)
        kept.clear()
        pump_until(manager, lambda: len(kept) >= 5)
        while received + len(kept) < 100:
            received += len(kept)
            kept.clear()
            manager.invoke_dispatch(timeout=1.0)


def test_many_frames_leave_memory_flat() -> None:
    count = int(os.environ.get("EVENTPY_TEST_FRAMES", "10000"))
    seen = [0, 0, 0]

    def on_frame(event: Frame) -> None:
        seen[0] += 1
        seen[1] += int(event.image[0]) == event.n % 256
        seen[2] = max(seen[2], mapped_memory() if event.n % 100 == 0 else 0)

    collector = Collector()
    with EventDispatchManager(
        Camera(count, 4 * MEBIBYTE), EventListener({Frame: on_frame}), collector
    ) as manager:
        pump_until(manager, lambda: seen[0] >= min(100, count))
        early = mapped_memory()
        pump_until(manager, lambda: seen[0] == count)
    assert seen[1] == count
    # All segments of the budget may be mapped, and no more than these.
    assert seen[2] - early < (256 + 16) * MEBIBYTE
