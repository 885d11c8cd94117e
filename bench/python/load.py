"""What the two sides of a measurement are told, and the loops of the side that sends.

The processes of dispatchers and producers import this: it must stay light.
"""

from __future__ import annotations

import os
import time
from time import monotonic_ns

from events import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    #: Sends one message.
    Send = Callable[[Any], object]
    #: Makes a reading.
    New = Callable[[int, float], Any]

#: How many different frames are sent.
FRAMES = 4
#: Bytes of a frame.
FRAME_BYTES = 4 << 20
#: The first messages, one in so many, are not measured: both sides warm up, and the consumer reads
#: what was sent before it was there.
WARM_UP = 4
#: The value of a reading that carries no time.
VALUE = 0.5


class Load:
    """How many events to send, and how."""

    def __init__(
        self,
        events: int,
        *,
        producers: int = 1,
        batch: int = 1,
        gap: float = 0.0,
        cores: tuple[int, int] = (0, 0),
    ) -> None:
        #: Events of all producers.
        self.events = events
        self.producers = producers
        #: Events that go into one message.
        self.batch = batch
        #: Seconds between two events; 0 for as fast as possible.
        self.gap = gap
        #: The core of the producers, and that of the consumer.
        self.cores = cores

    @property
    def messages(self) -> int:
        """How many messages each producer sends."""
        return self.events // self.producers // self.batch

    def scaled(self, divisor: int, cores: tuple[int, int]) -> Load:
        """The same with fewer events, on these cores."""
        unit = self.producers * self.batch
        events = max(self.events // divisor // unit, 10) * unit
        return Load(events, producers=self.producers, batch=self.batch, gap=self.gap, cores=cores)

    def pause(self) -> None:
        """Waits for the gap between two events.

        It sleeps where the consumer needs the core; else it spins, since a core that is awake sends
        at once.
        """
        if self.cores[0] == self.cores[1]:
            time.sleep(self.gap)
            return
        end = monotonic_ns() + int(self.gap * 1e9)
        while monotonic_ns() < end:
            pass


def flood(send: Send, new: New, load: Load) -> None:
    """Sends readings as fast as it can."""
    for number in range(load.messages):
        send(new(number, VALUE))


def flood_batches(send: Send, new: New, load: Load) -> None:
    """Sends lists of readings as fast as it can."""
    batch = load.batch
    for first in range(0, load.messages * batch, batch):
        send([new(number, VALUE) for number in range(first, first + batch)])


def stamped(send: Send, new: New, load: Load) -> None:
    """Sends readings of the time, one every gap."""
    for number in range(load.messages):
        load.pause()
        send(new(number, float(monotonic_ns())))


def frames(send: Send, _new: New, load: Load) -> None:
    """Sends frames as fast as it can."""
    made = new_frames()
    for number in range(load.messages):
        send(made[number % FRAMES])


def new_frames() -> list[Frame]:
    """Frames to be sent again and again; one that may be under way is never changed."""
    import numpy

    return [Frame(numpy.full(FRAME_BYTES, place, numpy.uint8)) for place in range(FRAMES)]


def pin(core: int) -> None:
    """Keeps this thread, and those that it starts from now on, on a core."""
    os.sched_setaffinity(0, {core})
