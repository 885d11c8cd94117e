"""Watches this machine: three dispatchers, each in a process of its own, and one listener here.

`CpuWatch` samples the load of every core, `MemoryWatch` memory and pressure, `FolderWatch` reports
what happens to the files of a folder. `Machine` listens to all of them, and a table shows it. At
the end the manager reports on each dispatcher.

    python examples/python/machine_watch.py --seconds 10
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
import time

from eventpy import (
    DispatcherFailed,
    Event,
    EventDispatcher,
    EventDispatchManager,
    EventListener,
)

BAR = 12
CORES_PER_ROW = 3


class CpuLoad(Event):
    """How busy a core was since the sample before, from 0 to 1."""

    def __init__(self, core: int, busy: float) -> None:
        self.core = core
        self.busy = busy


class Memory(Event):
    """How much memory the machine has, and how much a program could still get."""

    def __init__(self, total_bytes: int, available_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.available_bytes = available_bytes


class Pressure(Event):
    """How much of the last ten seconds some program stood still for want of a resource."""

    def __init__(self, resource: str, stalled: float) -> None:
        self.resource = resource
        self.stalled = stalled


class FileChange(Event):
    """Something happened to a file."""

    def __init__(self, name: str, change: str) -> None:
        self.name = name
        self.change = change


class CpuWatch(EventDispatcher):
    """Samples `/proc/stat`."""

    def __init__(self, every: float) -> None:
        super().__init__(CpuLoad)
        self.every = every

    def init(self):
        return (), {"before": self.sample()}

    def update(self, before):
        self.wait(self.every)
        loads = []
        for core, (busy, total) in self.sample().items():
            busy_before, total_before = before.get(core, (busy, total))
            if total > total_before:
                loads.append(CpuLoad(core, (busy - busy_before) / (total - total_before)))
            before[core] = busy, total
        return loads

    def finish(self, before):
        pass

    def sample(self) -> dict[int, tuple[int, int]]:
        """Busy and total ticks per core; the line `cpu` sums all cores up."""
        ticks = {}
        with open("/proc/stat") as stat:
            for line in stat:
                name, *fields = line.split()
                if name.startswith("cpu") and name != "cpu":
                    # What follows `steal` is counted in `user` and `nice` already.
                    spent = [int(field) for field in fields[:8]]
                    idle = spent[3] + spent[4]
                    ticks[int(name[3:])] = (sum(spent) - idle, sum(spent))
        return ticks


class MemoryWatch(EventDispatcher):
    """Reads `/proc/meminfo` and `/proc/pressure`."""

    def __init__(self, every: float) -> None:
        super().__init__(Memory, Pressure)
        self.every = every

    def update(self):
        yield self.memory()
        for resource in ("cpu", "memory", "io"):
            try:
                yield Pressure(resource, self.stalled(resource))
            except OSError:
                # Not every kernel measures it, and some that do refuse to tell.
                continue
        self.wait(self.every)

    def finish(self):
        pass

    def memory(self) -> Memory:
        with open("/proc/meminfo") as meminfo:
            kibibytes = dict(line.split()[:2] for line in meminfo)
        return Memory(int(kibibytes["MemTotal:"]) * 1024, int(kibibytes["MemAvailable:"]) * 1024)

    def stalled(self, resource: str) -> float:
        """From the line `some avg10=4.50 avg60=0.91 avg300=0.00 total=681245`, in percent."""
        with open(f"/proc/pressure/{resource}") as pressure:
            return float(pressure.readline().split()[1].split("=")[1]) / 100


class FolderWatch(EventDispatcher):
    """Watches a folder, with `watchfiles` if that is installed, else by looking again and again."""

    def __init__(self, folder: str) -> None:
        super().__init__(FileChange)
        self.folder = folder

    def init(self):
        try:
            from watchfiles import watch
        except ImportError:
            return (), {"changes": self.poll()}
        found = watch(self.folder, rust_timeout=100, yield_on_timeout=True)
        words = {1: "created", 2: "changed", 3: "removed"}
        changes = (
            [FileChange(os.path.basename(path), words[change]) for change, path in changes]
            for changes in found
        )
        return (), {"changes": changes}

    def update(self, changes):
        return next(changes)

    def finish(self, changes):
        changes.close()

    def poll(self):
        """Yields what has changed since the time before."""
        before = self.files()
        while True:
            self.wait(0.02)
            now = self.files()
            changes = [FileChange(name, "created") for name in now.keys() - before.keys()]
            changes += [FileChange(name, "removed") for name in before.keys() - now.keys()]
            common = now.keys() & before.keys()
            changes += [FileChange(name, "changed") for name in common if now[name] != before[name]]
            before = now
            yield changes

    def files(self) -> dict[str, tuple[int, int]]:
        with os.scandir(self.folder) as entries:
            found = {}
            for entry in entries:
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue
                found[entry.name] = (stat.st_mtime_ns, stat.st_size)
            return found


class Machine(EventListener):
    """What is known of the machine."""

    def __init__(self) -> None:
        super().__init__(
            {
                CpuLoad: self.on_cpu_load,
                Memory: self.on_memory,
                Pressure: self.on_pressure,
                FileChange: self.on_file_change,
                DispatcherFailed: self.on_failure,
            }
        )
        self.cores: dict[int, float] = {}
        self.memory: Memory | None = None
        self.pressure: dict[str, float] = {}
        self.changes: collections.deque[str] = collections.deque(maxlen=6)
        self.change_count = 0
        self.failures: list[str] = []

    def on_cpu_load(self, load: CpuLoad) -> None:
        self.cores[load.core] = load.busy

    def on_memory(self, memory: Memory) -> None:
        self.memory = memory

    def on_pressure(self, pressure: Pressure) -> None:
        self.pressure[pressure.resource] = pressure.stalled

    def on_file_change(self, change: FileChange) -> None:
        self.changes.append(f"{change.name} {change.change}")
        self.change_count += 1

    def on_failure(self, failed: DispatcherFailed) -> None:
        self.failures.append(str(failed))


def bar(share: float) -> str:
    filled = round(min(share, 1.0) * BAR)
    return "█" * filled + "░" * (BAR - filled)


def table(machine: Machine, left: float) -> list[str]:
    """The machine in lines."""
    lines = [f"machine watch: {left:.0f} s left, Ctrl-C ends it", ""]
    lines += machine.failures
    cells = [
        f"cpu{core:>3} {bar(busy)} {busy:4.0%}" for core, busy in sorted(machine.cores.items())
    ]
    for first in range(0, len(cells), CORES_PER_ROW):
        lines.append("   ".join(cells[first : first + CORES_PER_ROW]))
    if machine.memory is not None:
        used = 1 - machine.memory.available_bytes / machine.memory.total_bytes
        gibibytes = machine.memory.total_bytes / (1 << 30)
        lines += ["", f"memory {bar(used)} {used:4.0%} of {gibibytes:.1f} GiB"]
    waits = "  ".join(f"{resource} {of:.1%}" for resource, of in machine.pressure.items())
    lines.append(f"waiting for {waits}" if waits else "this kernel does not tell of pressure")
    lines += ["", f"files: {machine.change_count} changes", *machine.changes]
    return lines


def show(machine: Machine, left: float) -> None:
    """A table on a terminal, one line a second anywhere else."""
    if sys.stdout.isatty():
        print("\033[H\033[J" + "\n".join(table(machine, left)), flush=True)
    else:
        busy = sum(machine.cores.values()) / max(len(machine.cores), 1)
        print(f"{len(machine.cores)} cores {busy:.0%} busy, {machine.change_count} file changes")


class Playground:
    """A temporary folder in which files come and go, for want of one to watch."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.step = 0
        self.next = time.monotonic()

    def play(self) -> None:
        """When the time has come: creates a file, writes to it, or removes it, in turns."""
        if time.monotonic() < self.next:
            return
        path = os.path.join(self.folder, f"note-{self.step // 3}.txt")
        if self.step % 3 == 2:
            os.remove(path)
        else:
            with open(path, "a") as file:
                file.write("a line\n" * (self.step % 3))
        self.step += 1
        self.next = time.monotonic() + 0.4


def watch(folder: str, playground: Playground | None, seconds: float) -> bool:
    machine = Machine()
    manager = EventDispatchManager(CpuWatch(0.5), MemoryWatch(1.0), FolderWatch(folder), machine)
    manager.deploy_dispatchers()
    try:
        end = time.monotonic() + seconds
        shown = 0.0
        while time.monotonic() < end:
            if playground is not None:
                playground.play()
            manager.invoke_dispatch(timeout=0.1)
            pause = 0.2 if sys.stdout.isatty() else 1.0
            if time.monotonic() - shown >= pause:
                show(machine, end - time.monotonic())
                shown = time.monotonic()
    except KeyboardInterrupt:
        print()
    report = manager.end_dispatchers()
    print(report)
    return report.is_clean


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows what this machine does.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to watch")
    parser.add_argument("--folder", help="the folder to watch; without it, a temporary one")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        clean = watch(arguments.folder, None, arguments.seconds)
    else:
        with tempfile.TemporaryDirectory(prefix="machine-watch-") as folder:
            clean = watch(folder, Playground(folder), arguments.seconds)
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()
