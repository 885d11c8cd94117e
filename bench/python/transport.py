"""A way for events from producer processes to this one, and the measurements over any way.

Each peer that EventPy is compared with implements `Transport` and `Sender`, one file each under
`contenders`.
"""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any, Callable

import load as loads
from events import Reading
from load import WARM_UP, Load, pin
from machine import die_with_parent
from tally import FrameTally, Latencies, Tally, frames_reading, throughput_reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from load import New
    from measure import Figures, Measure

#: Producers are fresh interpreters, as dispatchers are.
SPAWN = multiprocessing.get_context("spawn")

#: How long producers may take to start, in seconds.
START_LIMIT = 60.0

#: Sends one message.
Send = Callable[[Any], object]
#: Takes one message.
Take = Callable[[Any], object]
#: What a producer does with the first two.
Loop = Callable[[Send, "New", Load], None]


class Sender(ABC):
    """What a producer process gets; it can be pickled while that process is started."""

    #: What readings are made of.
    reading: New = Reading

    @abstractmethod
    def connect(self) -> Send:
        """In the producer: the function that sends one message."""


class Transport(ABC):
    """The consumer's end."""

    @abstractmethod
    def __init__(self, load: Load) -> None:
        """Opens the consumer's end, for the producers of this load."""

    @abstractmethod
    def sender(self, place: int) -> Sender:
        """For the producer with this number."""

    @abstractmethod
    def receive(self, take: Take, count: int) -> int:
        """Hands over so many messages, or a few more, and tells how many; sleeps for them."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what would outlive this object."""


def throughput(name: str) -> Measure:
    """Readings, one a message, by the transport `name`."""
    return partial(_throughput, name)


def batches(name: str) -> Measure:
    """Lists of readings, by the transport `name`."""
    return partial(_batches, name)


def latency(name: str) -> Measure:
    """Stamped readings, by the transport `name`."""
    return partial(_latency, name)


def frames(name: str) -> Measure:
    """Frames, by the transport `name`."""
    return partial(_frames, name)


def _throughput(name: str, load: Load) -> Figures:
    tally = Tally()
    seconds, messages = _time(name, load, loads.flood, tally.take)
    tally.verify(load)
    return throughput_reading(messages, seconds)


def _batches(name: str, load: Load) -> Figures:
    tally = Tally()

    def take_all(readings: Any) -> None:
        take = tally.take
        for reading in readings:
            take(reading)

    seconds, messages = _time(name, load, loads.flood_batches, take_all)
    tally.verify(load)
    return throughput_reading(messages * load.batch, seconds)


def _latency(name: str, load: Load) -> Figures:
    latencies = Latencies()
    with _producers(name, load, loads.stamped) as transport:
        transport.receive(latencies.take, load.messages)
    return latencies.percentiles(load)


def _frames(name: str, load: Load) -> Figures:
    tally = FrameTally()
    seconds, messages = _time(name, load, loads.frames, tally.take)
    tally.verify(load)
    return frames_reading(messages, seconds)


def _time(name: str, load: Load, loop: Loop, take: Take) -> tuple[float, int]:
    """How long all messages took, without those of the warm-up, and how many that were."""
    total = load.messages * load.producers
    with _producers(name, load, loop) as transport:
        first = transport.receive(take, total // WARM_UP)
        begin = perf_counter()
        rest = transport.receive(take, total - first)
        return perf_counter() - begin, rest


@contextmanager
def _producers(name: str, load: Load, loop: Loop) -> Iterator[Transport]:
    """The consumer's end, with producers at the other."""
    pin(load.cores[1])
    module, _, of = name.partition(":")
    transport: Transport = getattr(import_module(f"contenders.{module}"), of)(load)
    signals = Signals()
    processes: list[SpawnProcess] = []
    try:
        for place in range(load.producers):
            arguments = (transport.sender(place), loop, load, signals.ends)
            processes.append(SPAWN.Process(target=_produce, args=arguments, daemon=True))
            processes[-1].start()
        signals.start(load.producers)
        yield transport
        signals.end()
        for process in processes:
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"a producer ended with {process.exitcode}")
    finally:
        for process in processes:
            process.kill()
            process.join()
        transport.close()


class Signals:
    """Lets all producers begin at the same time, and stay until all was read."""

    def __init__(self) -> None:
        self.ready, tell_ready = SPAWN.Pipe(duplex=False)
        begin, self.begin = SPAWN.Pipe(duplex=False)
        leave, self.leave = SPAWN.Pipe(duplex=False)
        #: What a producer gets: `begin` and `leave` can be read when their other ends are closed.
        self.ends = (tell_ready, begin, leave)

    def start(self, producers: int) -> None:
        """Waits for all producers, then lets them begin."""
        for _ in range(producers):
            if not self.ready.poll(START_LIMIT):
                raise RuntimeError("a producer does not start")
            self.ready.recv_bytes()
        self.begin.close()

    def end(self) -> None:
        """Lets the producers leave."""
        self.leave.close()


def _produce(sender: Sender, loop: Loop, load: Load, signals: tuple[Connection, ...]) -> None:
    """The life of a producer process."""
    die_with_parent()
    pin(load.cores[0])
    tell_ready, begin, leave = signals
    # Kept to the end, with what it sends through.
    send = sender.connect()
    tell_ready.send_bytes(b"ready")
    begin.poll(None)
    loop(send, sender.reading, load)
    leave.poll(None)
