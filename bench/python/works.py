"""All works, and who contends in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import transport
from contenders import eventpy, interpreter, memcpy, pickle_alone
from load import Load
from measure import Contender, Work

if TYPE_CHECKING:
    from measure import Measure

#: Events that go into one message.
BATCH = 32
#: Far enough apart for a consumer to be asleep again, in seconds.
GAP = 200e-6
#: Dispatchers that are deployed side by side.
DEPLOYED = 32

#: The transport of each peer, and the module that it needs.
READINGS = {
    "Pipe": ("pipe:Pipe", None),
    "Queue": ("queue:Queue", None),
    "pyzmq": ("pyzmq:PushPull", "zmq"),
    "faster-fifo": ("faster_fifo:Fifo", "faster_fifo"),
    "iceoryx2": ("iceoryx2:Events", "iceoryx2"),
    "iceoryx2 polling": ("iceoryx2:Polling", "iceoryx2"),
}
#: The same for frames.
FRAMES = {
    "Pipe": ("pipe:PipeFrames", None),
    "Queue": ("queue:Queue", None),
    "pyzmq": ("pyzmq:PushPullFrames", "zmq"),
    "faster-fifo": ("faster_fifo:FifoFrames", "faster_fifo"),
    "iceoryx2": ("iceoryx2:FrameEvents", "iceoryx2"),
}

THROUGHPUT = ("k events/s", "ns per event")


def all_works() -> list[Work]:
    """In the order of the tables."""
    return [
        _events(),
        _batches(),
        _many(8),
        _many(32),
        _latency("sleeping", "both on one core", shares_core=True),
        _latency("idle-core", "on an idle core of its own", shares_core=False),
        _frames(),
        _import(),
        _deploy(),
        _memory(),
    ]


def _events() -> Work:
    events = {
        "Pipe": 200_000,
        "Queue": 100_000,
        "pyzmq": 400_000,
        "faster-fifo": 100_000,
        "iceoryx2": 100_000,
        "iceoryx2 polling": 200_000,
    }
    contenders = [
        Contender("pickle alone", pickle_alone.throughput, Load(500_000)),
        *_peers(transport.throughput, READINGS, events),
        Contender("eventpy", eventpy.throughput, Load(2_000_000)),
    ]
    title = "Events of two attributes to a callback, one an update"
    return Work("events", title, THROUGHPUT, "pickle alone", contenders)


def _batches() -> Work:
    events = dict.fromkeys(("Pipe", "Queue", "pyzmq", "faster-fifo"), 1_000_000)
    contenders = [
        *_peers(transport.batches, READINGS, events, batch=BATCH),
        Contender("eventpy", eventpy.batches, Load(3_000_000, batch=BATCH)),
    ]
    title = f"The same events, sent as lists of {BATCH}"
    return Work("batches", title, THROUGHPUT, "Pipe", contenders)


def _many(producers: int) -> Work:
    events = {
        "Pipe": 100_000,
        "Queue": 50_000,
        "pyzmq": 300_000,
        "faster-fifo": 50_000,
        "iceoryx2": 100_000,
    }
    contenders = [
        *_peers(transport.throughput, READINGS, events, producers=producers),
        Contender("eventpy", eventpy.throughput, Load(3_000_000, producers=producers)),
    ]
    title = f"{producers} producers of events to one consumer"
    return Work(f"{producers} producers", title, THROUGHPUT, "Pipe", contenders)


def _latency(name: str, placed: str, *, shares_core: bool) -> Work:
    events = dict.fromkeys(("Pipe", "Queue", "pyzmq", "faster-fifo", "iceoryx2"), 5_000)
    contenders = [
        *_peers(transport.latency, READINGS, events, gap=GAP),
        Contender("eventpy", eventpy.latency, Load(5_000, gap=GAP)),
    ]
    for contender in contenders:
        contender.shares_core = shares_core
    title = f"Latency one way, consumer sleeping, {placed}, an event every {GAP * 1e6:.0f} us"
    return Work(name, title, ("p50 us", "p99 us"), "Pipe", contenders)


def _frames() -> Work:
    events = {"Pipe": 400, "Queue": 200, "pyzmq": 800, "faster-fifo": 200, "iceoryx2": 800}
    contenders = [
        Contender("memcpy", memcpy.frames, Load(1_500), "numpy"),
        *_peers(transport.frames, FRAMES, events),
        Contender("eventpy", eventpy.frames, Load(1_500), "numpy"),
    ]
    title = "Frames of 4 MiB to a callback that reads each page"
    return Work("frames", title, ("frames/s", "GB/s"), "memcpy", contenders)


def _import() -> Work:
    contenders = [Contender("eventpy", interpreter.import_time, Load(20))]
    columns = ("ms over a bare interpreter", "ms", "ms of a bare interpreter")
    return Work("import", "`from eventpy import ..` of the four classes", columns, None, contenders)


def _deploy() -> Work:
    load = Load(0, producers=DEPLOYED)
    contenders = [
        Contender("bare interpreters", interpreter.start_many, load),
        Contender("eventpy", eventpy.deploy, load),
    ]
    title = f"Start of {DEPLOYED} processes side by side"
    return Work("deploy", title, ("ms",), "bare interpreters", contenders)


def _memory() -> Work:
    contenders = [Contender("eventpy", interpreter.memory, Load(0))]
    columns = ("MB over a bare child", "MB", "MB of a bare child")
    title = "Private memory of an idle dispatcher"
    return Work("memory", title, columns, None, contenders)


def _peers(
    by: Callable[[str], Measure],
    transports: dict[str, tuple[str, str | None]],
    events: dict[str, int],
    **load: Any,
) -> list[Contender]:
    """The peers that have a number of events, by a measurement over any transport."""
    return [
        Contender(name, by(of), Load(events[name], **load), needs)
        for name, (of, needs) in transports.items()
        if name in events
    ]
