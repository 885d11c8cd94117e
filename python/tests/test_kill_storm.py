"""Dispatchers are killed at random instants: what they sent arrives once and in order.

`EVENTPY_STORM_KILLS` is the number of kills.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from conftest import WATCHDOG
from eventpy import (
    DeployError,
    DispatcherFailed,
    Event,
    EventDispatcher,
    EventDispatchManager,
    EventListener,
    Restart,
)
from pumping import children, wait_until

#: The most that a sender puts into one batch.
BATCH = 12
#: Bytes of the largest parcel, which travels beside the ring.
LARGEST = 200_000
#: The content of a parcel is a piece of this.
CONTENT = random.Random(1).randbytes(2 * LARGEST)


class Parcel(Event):
    """Has a number, and a content that follows from it."""

    def __init__(self, sender: str, incarnation: int, number: int, content: bytes) -> None:
        self.sender = sender
        self.incarnation = incarnation
        self.number = number
        self.content = content


def piece(incarnation: int, number: int, size: int) -> bytes:
    start = (incarnation ^ number * 7919) % LARGEST
    return CONTENT[start : start + size]


class Sender(EventDispatcher):
    """Sends parcels, and notes in a file how many it has sent for sure."""

    def __init__(self, notes: Path, **options: Any) -> None:
        super().__init__(Parcel, end_timeout=60.0, **options)
        self.notes = notes

    def init(self) -> None:
        self.incarnation = random.getrandbits(62)
        self.number = 0
        name = f"{type(self).__name__}-{self.incarnation}"
        self.file = os.open(self.notes / name, os.O_CREAT | os.O_WRONLY)

    def update(self) -> Any:
        # What the last update returned was sent before this one began.
        self.note()
        self.wait(random.choice((0.0, 0.0, 0.001)))
        parcels = [self.next() for _ in range(random.randint(1, BATCH))]
        if random.random() < 0.5:
            return parcels
        for number, parcel in enumerate(parcels, self.number - len(parcels) + 1):
            self.emit(parcel)
            self.note(number)
        return None

    def next(self) -> Parcel:
        self.number += 1
        usual = random.choice((10, 300, 5000))
        size = random.randint(10_000, LARGEST) if random.random() < 0.03 else usual
        content = piece(self.incarnation, self.number - 1, size)
        return Parcel(type(self).__name__, self.incarnation, self.number - 1, content)

    def note(self, number: int | None = None) -> None:
        """A write into a file outlives the process."""
        sent = self.number if number is None else number
        os.pwrite(self.file, sent.to_bytes(8, "little"), 0)

    def finish(self) -> None:
        self.note()


class Restarted(Sender):
    pass


class Cramped(Sender):
    pass


class Redeployed(Sender):
    """Is not restarted but deployed anew."""


class Receiver(EventListener):
    """Checks each parcel."""

    def __init__(self) -> None:
        super().__init__({Parcel: self.on_parcel, DispatcherFailed: self.on_failed})
        #: Per process, in the order in which they came, the number after its last one.
        self.next: dict[tuple[str, int], int] = {}
        #: The process of each sender from which a parcel came last.
        self.last: dict[str, int] = {}
        #: Parcels of each deployment.
        self.delivered: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()

    def on_parcel(self, parcel: Parcel) -> None:
        who = parcel.sender, parcel.incarnation
        if self.last.get(parcel.sender) != parcel.incarnation:
            assert who not in self.next, "it comes from a process before the last one"
            self.last[parcel.sender] = parcel.incarnation
        assert parcel.number == self.next.get(who, 0)
        size = len(parcel.content)
        assert parcel.content == piece(parcel.incarnation, parcel.number, size), "it is damaged"
        self.next[who] = parcel.number + 1
        self.delivered[parcel.sender] += 1

    def on_failed(self, failed: DispatcherFailed) -> None:
        assert failed.exit_code == -signal.SIGKILL, failed
        self.deaths[failed.dispatcher] += 1

    def compare_with_notes(self, notes: Path) -> None:
        """All that was sent for sure has come, and no more than was under way."""
        noted = {}
        for note in notes.iterdir():
            sender, incarnation = note.name.split("-")
            # Empty if the process was killed before its first note.
            noted[sender, int(incarnation)] = int.from_bytes(note.read_bytes(), "little")
        assert self.next.keys() <= noted.keys()
        for who, sent in noted.items():
            delivered = self.next.get(who, 0)
            assert sent <= delivered <= sent + BATCH, f"{who}: {sent} sent, {delivered} delivered"


class Killer(threading.Thread):
    """Kills one process after the other, mostly those that have sent something."""

    def __init__(self) -> None:
        super().__init__()
        #: The processes, and whether a parcel of theirs has come.
        self.targets: dict[int, bool] = {}
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(random.uniform(0.0, 0.05)):
            targets = list(self.targets.items())
            if targets:
                pid, has_sent = random.choice(targets)
                if has_sent or random.random() < 0.05:
                    kill_child(pid)


def kill_child(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after the open: a number that has passed on to another process is noticed.
        if pid in children():
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)


def storm(kills: int, notes: Path) -> Receiver:
    notes.mkdir()
    again = Restart("always", backoff=0.0, limit=1_000_000)
    receiver = Receiver()
    manager = EventDispatchManager(
        Restarted(notes, restart=again),
        Cramped(notes, restart=again, buffer_bytes=16384),
        Redeployed(notes),
        receiver,
    )
    manager.deploy_dispatchers()
    killer = Killer()
    killer.start()
    #: Per sender, its process, and whose parcel came last before that was there.
    seen: dict[str, tuple[int | None, int | None]] = {}
    try:
        while sum(receiver.deaths.values()) < kills:
            manager.invoke_dispatch(timeout=0.01)
            stats = manager.stats()
            if stats["Redeployed"].pid is None:
                redeploy(manager, receiver)
            targets = {}
            for name in stats:
                pid, last = stats[name].pid, receiver.last.get(name)
                if name not in seen or seen[name][0] != pid:
                    seen[name] = pid, last
                if pid is not None:
                    targets[pid] = last != seen[name][1]
            killer.targets = targets
    finally:
        killer.is_over.set()
        killer.join()
    for name, of in manager.end_dispatchers().items():
        check(of, receiver.delivered[name])
        assert of.finished != (of.exit_code == -signal.SIGKILL), of
    receiver.compare_with_notes(notes)
    return receiver


def redeploy(manager: EventDispatchManager, receiver: Receiver) -> None:
    check(manager.stats()["Redeployed"], receiver.delivered.pop("Redeployed", 0))
    try:
        manager.deploy_dispatchers()
    except DeployError as error:
        # Killed before it was loaded.
        if "SIGKILL" not in str(error):
            raise


def check(of: Any, delivered: int) -> None:
    assert (of.delivered, of.sent, of.lost) == (delivered, of.delivered + of.dropped, 0), of


def held() -> tuple[list[str], int, list[int], int]:
    with open("/proc/self/maps") as maps:
        shared = sum("memfd:eventpy-" in line for line in maps)
    return sorted(os.listdir("/proc/self/fd")), threading.active_count(), children(), shared


def test_nothing_that_was_sent_is_lost_however_often_its_sender_is_killed(tmp_path: Path) -> None:
    kills = int(os.environ.get("EVENTPY_STORM_KILLS", "150"))
    signal.alarm(WATCHDOG + kills)
    # The first leaves what interpreter and allocator keep for good.
    storm(5, tmp_path / "first")
    before = held()
    begin = time.monotonic()
    receiver = storm(kills, tmp_path / "second")
    parcels = sum(receiver.next.values())
    print(f"{kills} kills and {parcels} parcels in {time.monotonic() - begin:.1f} s")
    wait_until(lambda: held() == before)
