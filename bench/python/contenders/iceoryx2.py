"""iceoryx2: structures of C types in shared memory, written and read in place, without pickle.

With its event service, as in its example of event-based communication: the producer notifies after
each sample; the consumer takes all that is there, and sleeps in its listener when nothing is.
Without it, the consumer polls and the producer notifies nobody. A full buffer makes the producer
wait, but not before the consumer has connected, which `send` tells by no recipients: then the
producer sends anew.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Any

import iceoryx2 as iox2

from load import FRAME_BYTES
from transport import Send, Sender, Take, Transport

if TYPE_CHECKING:
    from load import Load

#: Readings under way, for each producer.
BUFFER = 1024
#: Frames under way.
FRAMES = 8


class Sample(ctypes.Structure):
    """A reading where both processes see it."""

    _fields_ = (("number", ctypes.c_int64), ("value", ctypes.c_double))


class Events(Transport):
    """The consumer sleeps in a listener."""

    payload: Any = Sample
    buffer = BUFFER

    def __init__(self, load: Load) -> None:
        self.link = f"eventpy-bench/{os.getpid()}-{time.monotonic_ns()}"
        # The node is kept as long as what was made from it.
        self.node = new_node()
        service = samples(self.node, self.link, self.payload, self.buffer)
        self.subscriber = service.subscriber_builder().create()
        self.listener = wakes(self.node, self.link).listener_builder().create()

    def sender(self, place: int) -> Sender:
        return Notifying(self.link)

    def receive(self, take: Take, count: int) -> int:
        received = 0
        while received < count:
            taken = self.take_ready(take, count - received)
            if taken == 0:
                self.wait()
            received += taken
        return received

    def take_ready(self, take: Take, limit: int) -> int:
        """Hands over what is there, and tells how much."""
        receive, at = self.subscriber.receive, Sample.from_address
        taken = 0
        while taken < limit and (sample := receive()) is not None:
            take(at(sample.payload_ptr))
            taken += 1
        return taken

    def close(self) -> None:
        # Frees the names, which outlive this object else.
        self.subscriber.delete()
        self.listener.delete()

    def wait(self) -> None:
        """Until there may be something again."""
        self.listener.blocking_wait()


class Polling(Events):
    """The consumer never sleeps."""

    def sender(self, place: int) -> Sender:
        return Silent(self.link)

    def wait(self) -> None:
        pass


class Silent(Sender):
    """A publisher that notifies nobody."""

    reading = Sample

    def __init__(self, link: str) -> None:
        self.link = link

    def connect(self) -> Send:
        loan = publisher(self.link, Sample, BUFFER).create().loan_uninit
        move, byref, size = ctypes.memmove, ctypes.byref, ctypes.sizeof(Sample)

        def send(reading: Any) -> None:
            is_received = 0
            while not is_received:
                sample = loan()
                move(sample.payload_ptr, byref(reading), size)
                is_received = sample.assume_init().send()

        return send


class Notifying(Silent):
    """A publisher that notifies after each sample."""

    def connect(self) -> Send:
        return self.notifying(super().connect())

    def notifying(self, send_silently: Send) -> Send:
        """The function that also notifies."""
        notify = wakes(new_node(), self.link).notifier_builder().create().notify

        def send(message: Any) -> None:
            send_silently(message)
            notify()

        return send


class FrameEvents(Events):
    """Frames, which the consumer maps."""

    payload = iox2.Slice[ctypes.c_uint8]
    buffer = FRAMES

    def sender(self, place: int) -> Sender:
        return NotifyingFrames(self.link)

    def take_ready(self, take: Take, limit: int) -> int:
        import numpy

        from events import Frame

        taken = 0
        while taken < limit and (sample := self.subscriber.receive()) is not None:
            take(Frame(numpy.frombuffer(sample.payload().as_memory_view(), numpy.uint8)))
            taken += 1
        return taken


class NotifyingFrames(Notifying):
    """A publisher of frames that notifies after each."""

    def connect(self) -> Send:
        builder = publisher(self.link, FrameEvents.payload, FRAMES)
        loan = builder.initial_max_slice_len(FRAME_BYTES).create().loan_slice_uninit

        def send(frame: Any) -> None:
            is_received = 0
            while not is_received:
                sample = loan(FRAME_BYTES)
                ctypes.memmove(sample.payload_ptr, frame.image.ctypes.data, FRAME_BYTES)
                is_received = sample.assume_init().send()

        return self.notifying(send)


def new_node() -> Any:
    """What services are made from."""
    iox2.set_log_level(iox2.LogLevel.Error)
    builder = iox2.NodeBuilder.new().signal_handling_mode(iox2.SignalHandlingMode.Disabled)
    return builder.create(iox2.ServiceType.Ipc)


def samples(node: Any, link: str, payload: Any, buffer: int) -> Any:
    """The service that carries samples; a full buffer makes the producer wait."""
    builder = node.service_builder(iox2.ServiceName.new(link)).publish_subscribe(payload)
    return (
        builder.max_publishers(32)
        .max_nodes(40)
        .max_subscribers(1)
        .history_size(0)
        .subscriber_max_buffer_size(buffer)
        .subscriber_max_borrowed_samples(2)
        .enable_safe_overflow(False)
        .open_or_create()
    )


def publisher(link: str, payload: Any, buffer: int) -> Any:
    """The builder of a publisher that waits for room."""
    builder = samples(new_node(), link, payload, buffer).publisher_builder()
    return builder.backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)


def wakes(node: Any, link: str) -> Any:
    """The service that carries notifications."""
    builder = node.service_builder(iox2.ServiceName.new(link)).event()
    return builder.max_notifiers(32).max_nodes(40).max_listeners(1).open_or_create()
