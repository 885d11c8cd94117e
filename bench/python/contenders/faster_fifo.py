"""faster-fifo: one queue for all producers, from which `get_many` takes all that is there.

Its own pickling makes a new pickler for each object, so it's given the plain functions.
"""

from __future__ import annotations

from pickle import dumps, loads
from typing import TYPE_CHECKING, Any

import faster_fifo
import faster_fifo_reduction  # noqa: F401 - lets a queue be pickled

from load import FRAME_BYTES
from transport import Send, Sender, Take, Transport

if TYPE_CHECKING:
    from load import Load

#: Longer than any measurement, in seconds.
FOREVER = 3600.0
#: Bytes of a queue: enough for some thousand readings.
SMALL = 1 << 20
#: Bytes of a queue of frames.
LARGE = 8 * FRAME_BYTES


def dumps_5(message: Any) -> bytes:
    """Pickles with the fastest protocol."""
    return dumps(message, 5)


class Fifo(Transport):
    """Messages through a queue."""

    capacity_bytes = SMALL

    def __init__(self, load: Load) -> None:
        self.queue = faster_fifo.Queue(self.capacity_bytes, loads=loads, dumps=dumps_5)

    def sender(self, place: int) -> Sender:
        return FifoSender(self.queue)

    def receive(self, take: Take, count: int) -> int:
        get_many = self.queue.get_many
        received = 0
        while received < count:
            messages = get_many(timeout=FOREVER, max_messages_to_get=count - received)
            for message in messages:
                take(message)
            received += len(messages)
        return received

    def close(self) -> None:
        self.queue.close()


class FifoSender(Sender):
    """The other end of the queue."""

    def __init__(self, queue: faster_fifo.Queue) -> None:
        self.queue = queue

    def connect(self) -> Send:
        put = self.queue.put
        return lambda message: put(message, timeout=FOREVER)


class FifoFrames(Fifo):
    """Frames through a queue."""

    capacity_bytes = LARGE
