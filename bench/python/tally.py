"""The callbacks of the measurements, and what they found."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from load import FRAME_BYTES, FRAMES, VALUE, WARM_UP

if TYPE_CHECKING:
    from load import Load

#: Between two bytes of a frame that are read: each page of it must be there.
PAGE = 4096


class Tally:
    """Sums up readings, which shows that each came once."""

    def __init__(self) -> None:
        self.numbers = 0
        self.values = 0.0

    def take(self, reading: Any) -> None:
        """The callback."""
        self.numbers += reading.number
        self.values += reading.value

    def verify(self, load: Load) -> None:
        """Raises unless exactly the readings of this load came."""
        each = load.messages * load.batch
        expected = (sum(range(each)) * load.producers, VALUE * each * load.producers)
        if (self.numbers, self.values) != expected:
            raise RuntimeError("readings were lost or came twice")


class FrameTally:
    """Reads a byte of each page of a frame."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, frame: Any) -> None:
        """The callback."""
        self.bytes += int(frame.image[::PAGE].sum())

    def verify(self, load: Load) -> None:
        """Raises unless exactly the frames of this load came."""
        each = FRAME_BYTES // PAGE
        if self.bytes != sum(number % FRAMES * each for number in range(load.messages)):
            raise RuntimeError("frames were lost, damaged, or came twice")


class Latencies:
    """How long each reading was on its way."""

    def __init__(self) -> None:
        self.nanoseconds: list[float] = []

    def take(self, reading: Any) -> None:
        """The callback."""
        self.nanoseconds.append(monotonic_ns() - reading.value)

    def percentiles(self, load: Load) -> list[float]:
        """Median and p99 in microseconds, without those of the warm-up."""
        if len(self.nanoseconds) != load.messages:
            raise RuntimeError("readings were lost or came twice")
        steady = sorted(self.nanoseconds[load.messages // WARM_UP :])
        return [steady[(len(steady) - 1) * percent // 100] / 1e3 for percent in (50, 99)]


def throughput_reading(events: int, seconds: float) -> list[float]:
    """Thousands a second, and nanoseconds for one."""
    return [events / seconds / 1e3, seconds / events * 1e9]


def frames_reading(frames: int, seconds: float) -> list[float]:
    """Frames a second, and gigabytes a second."""
    return [frames / seconds, frames * FRAME_BYTES / seconds / 1e9]
