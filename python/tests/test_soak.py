"""A program that runs for long: deployments, restarts and kills, again and again.

Each process states in its last event how many came before, and those that are killed keep a note.
`EVENTPY_SOAK_SECONDS` is how long it runs.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventpy import (
    DispatcherFailed,
    Event,
    EventDispatcher,
    EventDispatchManager,
    EventListener,
    Restart,
)

numpy = pytest.importorskip("numpy")

#: Memory that an allocator may take more at the end than at the beginning, in bytes.
ALLOCATOR_BYTES = 8e6
#: Mappings that an allocator makes and removes on its own account.
ALLOCATOR_MAPPINGS = 8
#: How long one deployment lasts, in seconds.
ROUND = 3.0
AGAIN_AND_AGAIN = Restart("always", backoff=0.001, backoff_max=0.02, limit=1_000_000)


class Load(Event):
    def __init__(self, sender: str, incarnation: int, number: int, content: Any) -> None:
        self.sender = sender
        self.incarnation = incarnation
        self.number = number
        self.content = content


class Farewell(Event):
    """The last event of a process: how many loads it has sent."""

    def __init__(self, sender: str, incarnation: int, loads: int) -> None:
        self.sender = sender
        self.incarnation = incarnation
        self.loads = loads


class Sender(EventDispatcher):
    """Sends numbered events every `pause` seconds."""

    def __init__(self, pause: float, **options: Any) -> None:
        # No update is cut short, after which it had stated more than it could send.
        super().__init__(Load, Farewell, end_timeout=60.0, **options)
        self.pause = pause

    def init(self) -> None:
        self.incarnation = random.getrandbits(62)
        self.number = 0

    def next(self, content: Any) -> Load:
        self.number += 1
        return Load(type(self).__name__, self.incarnation, self.number - 1, content)

    def update(self) -> Any:
        self.wait(self.pause)
        return self.next(("text", self.number, [1.5, None]))

    def finish(self) -> None:
        self.emit(Farewell(type(self).__name__, self.incarnation, self.number))


class Steady(Sender):
    pass


class Killed(Sender):
    """Notes in a file how many it has sent for sure: it may not come to its farewell."""

    def __init__(self, notes: Path, pause: float, **options: Any) -> None:
        super().__init__(pause, **options)
        self.notes = notes

    def init(self) -> None:
        super().init()
        self.note = os.open(self.notes / str(self.incarnation), os.O_CREAT | os.O_WRONLY)

    def update(self) -> None:
        self.emit(super().update())
        # A write into a file outlives the process.
        os.pwrite(self.note, self.number.to_bytes(8, "little"), 0)


class Batches(Sender):
    def update(self) -> Any:
        self.wait(self.pause)
        return [self.next(number) for number in range(random.randrange(40))]


class Frames(Sender):
    def update(self) -> Any:
        self.wait(self.pause)
        return self.next(numpy.full(1 << random.randrange(10, 23), self.number % 256, "u1"))


class Failing(Sender):
    def update(self) -> Any:
        if self.number > 200:
            raise ValueError("it is time to fail")
        return super().update()


class Dropping(Sender):
    def update(self) -> Any:
        return self.next("old ones make way")


class Receiver(EventListener):
    """Checks each event."""

    def __init__(self) -> None:
        super().__init__(
            {
                Load: self.on_load,
                Farewell: self.on_farewell,
                DispatcherFailed: self.on_failed,
            }
        )
        self.next: dict[tuple[str, int], int] = {}
        self.gone: set[tuple[str, int]] = set()
        self.delivered: Counter[str] = Counter()
        #: Events that the processes have sent, by their own account.
        self.stated: Counter[str] = Counter()
        self.failures = 0

    def on_load(self, load: Load) -> None:
        who = load.sender, load.incarnation
        expected = self.next.get(who, 0)
        if load.sender == "Dropping":
            assert load.number >= expected
        else:
            assert load.number == expected
        if load.sender == "Frames":
            assert (load.content[::512] == load.number % 256).all()
        assert who not in self.gone
        self.next[who] = load.number + 1
        self.delivered[load.sender] += 1

    def on_farewell(self, farewell: Farewell) -> None:
        who = farewell.sender, farewell.incarnation
        if farewell.sender != "Dropping":
            assert farewell.loads == self.next.setdefault(who, 0)
        assert who not in self.gone
        self.gone.add(who)
        self.stated[farewell.sender] += farewell.loads + 1
        self.delivered[farewell.sender] += 1

    def assert_all_came(self, notes: Path) -> None:
        """Every process has said farewell, or what it has sent for sure has come."""
        for sender, incarnation in self.next.keys() - self.gone:
            assert sender == "Killed", f"{sender} {incarnation} has not said farewell"
        processes = {int(note.name): note.read_bytes() for note in notes.iterdir()}
        assert all(who[1] in processes for who in self.next if who[0] == "Killed")
        for incarnation, note in processes.items():
            # Empty if the process was killed before its first note.
            noted = int.from_bytes(note, "little")
            assert self.next.get(("Killed", incarnation), 0) in (noted, noted + 1)

    def on_failed(self, failed: DispatcherFailed) -> None:
        self.failures += 1


class Sample(NamedTuple):
    """What this process takes at a moment at which no dispatcher is there."""

    time: float
    memory: float
    descriptors: int
    mappings: int


def sample() -> Sample:
    gc.collect()
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/maps") as maps:
        mappings = len(maps.readlines())
    return Sample(time.monotonic(), memory, len(os.listdir("/proc/self/fd")), mappings)


def rise(values: list[float]) -> float:
    """How much more the median of the last quarter is than that of the first."""
    quarter = -(-len(values) // 4)
    first, last = sorted(values[:quarter]), sorted(values[-quarter:])
    return last[len(last) // 2] - first[len(first) // 2]


def slope(samples: list[Sample], values: list[float]) -> float:
    """The slope of the line that fits best, per hour."""
    hours = [(sample.time - samples[0].time) / 3600 for sample in samples]
    middle, level = sum(hours) / len(hours), sum(values) / len(values)
    below = sum((hour - middle) ** 2 for hour in hours)
    above = sum((hour - middle) * (value - level) for hour, value in zip(hours, values))
    return above / below if below else 0.0


def kill_one(manager: EventDispatchManager) -> int:
    pid = manager.stats()["Killed"].pid
    if pid is None:
        return 0
    try:
        # A child of ours that nobody else reaps: the number is still its own.
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def run_round(seconds: float, totals: Counter[str]) -> None:
    with tempfile.TemporaryDirectory() as notes:
        run_with_notes(Path(notes), seconds, totals)


def run_with_notes(notes: Path, seconds: float, totals: Counter[str]) -> None:
    """Deploys, pumps for a time, ends, and compares what came with what is reported and stated."""
    receiver = Receiver()
    manager = EventDispatchManager(
        Steady(0.001),
        Batches(0.002),
        Frames(0.005),
        Failing(0.0, restart=AGAIN_AND_AGAIN),
        Killed(notes, 0.001, restart=AGAIN_AND_AGAIN),
        Dropping(0.0, delivery={Load: "drop_oldest"}, buffer_bytes=16384),
        receiver,
    )
    manager.deploy_dispatchers()
    end = time.monotonic() + seconds
    next_kill = 0.0
    while time.monotonic() < end:
        manager.invoke_dispatch(timeout=0.01)
        if time.monotonic() >= next_kill:
            next_kill = time.monotonic() + random.uniform(0.1, 0.5)
            totals["kills"] += kill_one(manager)
    report = manager.end_dispatchers()
    for name, of in report.items():
        assert of.sent == of.delivered + of.dropped + of.lost, of
        assert of.lost == 0, of
        assert of.delivered == receiver.delivered[name], of
        if name != "Killed":
            assert of.sent == receiver.stated[name], of
        totals["events"] += of.delivered
        totals["dropped"] += of.dropped
        totals["restarts"] += of.restarts
    receiver.assert_all_came(notes)
    totals["failures"] += receiver.failures
    totals["deployments"] += 1


def test_a_program_that_runs_for_long_does_not_grow() -> None:
    seconds = float(os.environ.get("EVENTPY_SOAK_SECONDS", "6"))
    signal.alarm(int(seconds) + 120)
    length = min(ROUND, seconds / 4)
    # What a first deployment leaves in interpreter and allocator stays for good.
    run_round(length, Counter())
    totals: Counter[str] = Counter()
    samples = [sample()]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run_round(length, totals)
        samples.append(sample())
    print(dict(totals))
    print(f"{len(samples)} samples: eight of them, slope per hour")
    for of in ("memory", "descriptors", "mappings"):
        values = [float(getattr(sample, of)) for sample in samples]
        course = [values[part * (len(values) - 1) // 7] for part in range(8)]
        course_text = " ".join(f"{value:.0f}" for value in course)
        print(f"  {of:12} {course_text} {slope(samples, values):+.1f}")
        limit = {"memory": ALLOCATOR_BYTES, "mappings": ALLOCATOR_MAPPINGS}.get(of, 1)
        assert rise(values) < limit, f"{of} grow: {values}"
