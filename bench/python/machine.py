"""The machine that is measured on: its cores, what else it does, and the memory of a process."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

#: The cores that this program was allowed before it pinned itself.
ALLOWED = frozenset(os.sched_getaffinity(0))
#: Beyond this share of the machine's time, other programs have disturbed a measurement.
DISTURBING = 0.03

_PR_SET_PDEATHSIG = 1


def cores() -> tuple[int, int]:
    """The first two cores that this program may use, for the producer and the consumer."""
    if len(ALLOWED) < 2:
        raise SystemExit("a measurement needs two processor cores")
    producer, consumer, *_ = sorted(ALLOWED)
    return producer, consumer


def unpin() -> None:
    """Takes back every `pin` of this thread."""
    os.sched_setaffinity(0, ALLOWED)


def die_with_parent() -> None:
    """Sees to it that this process does not outlive the one that started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def private_bytes(pid: int) -> int:
    """The memory that a process shares with no other."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = [line.split() for line in rollup.splitlines() if line.startswith("Private_")]
    return sum(int(kilobytes) for _, kilobytes, _ in lines) * 1024


def is_asleep(pid: int) -> bool:
    """Whether all of a process waits. One that has ended does not."""
    try:
        return "State:\tS" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


class ProcessorTime:
    """The machine's processor time up to now, in the kernel's ticks."""

    def __init__(self) -> None:
        line = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, idle, io_wait, irq, soft_irq, steal, *_ = map(int, line.split()[1:])
        self.busy = user + nice + system + irq + soft_irq + steal
        self.total = self.busy + idle + io_wait
        ticks = os.sysconf("SC_CLK_TCK")
        #: Of this process and of its children that have ended.
        self.own = sum(os.times()[:4]) * ticks

    def used_by_others_since(self, then: ProcessorTime) -> float:
        """The share of the machine's time, from 0 to 1, that others used between then and now."""
        others = (self.busy - then.busy) - (self.own - then.own)
        return max(others, 0.0) / max(self.total - then.total, 1)
