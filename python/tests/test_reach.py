"""Nobody else can reach what dispatchers and their manager share."""

from __future__ import annotations

import os
import subprocess

from eventpy import EventDispatchManager
from pumping import Collector, is_asleep, pump_until, wait_until
from sources import Counter, Number, Sized, Text


def inherited() -> dict[str, str]:
    """The descriptors of a program that this one starts without closing any for it."""
    null = subprocess.DEVNULL
    command = ["sleep", "3600"]
    sleeper = subprocess.Popen(command, close_fds=False, stdin=null, stdout=null, stderr=null)
    try:
        # What it opens itself at its start, it has closed before it sleeps.
        wait_until(lambda: is_asleep(sleeper.pid))
        folder = f"/proc/{sleeper.pid}/fd"
        return {number: os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_program_that_is_started_beside_dispatchers_inherits_nothing() -> None:
    before = inherited()
    collector = Collector(Number, Text)
    manager = EventDispatchManager(Counter(10), Counter(10), Sized(500_000), collector)
    for _ in range(2):
        collector.events.clear()
        manager.deploy_dispatchers()
        manager.fileno()
        # Large events come in memory of their own.
        pump_until(manager, lambda: len(collector.numbers) == 20 and len(collector.texts) > 2)
        assert inherited() == before
        manager.end_dispatchers()
