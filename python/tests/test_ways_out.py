"""Every way out of a dispatcher, in tables: `finish` ran once or could not, the report says how."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import pytest

from eventpy import DispatcherEnded, DispatcherFailed, EventDispatchManager
from pumping import Collector, everything, is_asleep, is_gone, lines_of, pump_until, wait_until
from worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from eventpy import EndReport

TESTS = os.path.dirname(__file__)


@dataclass
class Scene:
    """A manager with one worker, and what is to be seen of it."""

    manager: EventDispatchManager
    collector: Collector
    diary: Path

    @property
    def pid(self) -> int:
        pid = self.manager.stats()["Worker"].pid
        assert pid is not None
        return pid

    def lines(self, line: str) -> int:
        return lines_of(self.diary).count(line)

    def numbers_come(self) -> None:
        pump_until(self.manager, lambda: self.collector.numbers)

    def it_does_so(self) -> None:
        """Pumps until the worker is through its numbers."""
        pump_until(self.manager, lambda: self.lines("then"))

    def it_ends_by_itself(self) -> None:
        pump_until(self.manager, lambda: self.collector.is_over)

    def ring_is_full(self) -> None:
        wait_until(lambda: self.manager.stats()["Worker"].queued_bytes > 4096 - 64)
        wait_until(lambda: is_asleep(self.pid))

    def is_sent(self, number: int) -> None:
        os.kill(self.pid, number)

    def is_stopped(self) -> bool:
        with open(f"/proc/{self.pid}/stat") as stat:
            # The name, in parentheses, may hold anything.
            return stat.read().rpartition(") ")[2].startswith("T")


def sent(number: int, *, ends: bool) -> Callable[[Scene], None]:
    """It gets a signal once it is at its work, and ends by it, or goes on until it is told to."""

    def happens(scene: Scene) -> None:
        scene.it_does_so()
        scene.is_sent(number)
        if ends:
            scene.it_ends_by_itself()
        else:
            # A second signal: the first was delivered by then.
            scene.is_sent(number)

    return happens


def stopped(scene: Scene) -> None:
    scene.it_does_so()
    scene.is_sent(signal.SIGSTOP)
    wait_until(scene.is_stopped)


def sent_while_its_ring_is_full(scene: Scene) -> None:
    scene.ring_is_full()
    scene.is_sent(signal.SIGTERM)
    scene.it_ends_by_itself()


def sent_what_it_handles(scene: Scene) -> None:
    pump_until(scene.manager, lambda: scene.lines("handles"))
    scene.is_sent(signal.SIGHUP)
    wait_until(lambda: scene.lines("hung up"))


@dataclass
class Way:
    """What the worker does after its numbers, what happens to it, and how that is to end."""

    then: str
    happens: Callable[[Scene], None]
    finishes: int = 1
    exit_code: int | None = 0
    failure: str = ""
    options: dict[str, Any] = field(default_factory=dict)


#: Ends by force soon.
BRIEF = {"end_timeout": 0.3}
BY_FORCE = "of the end command nor of SIGTERM, so it was killed"
WAYS = {
    "the end command": Way("wait", Scene.numbers_come),
    "the end command at once": Way("wait", lambda scene: None),
    "the end command with events in the ring": Way(
        "wait", lambda scene: wait_until(lambda: scene.lines("then")), options={"numbers": 20}
    ),
    "the end command with a full ring": Way("flood", Scene.ring_is_full),
    "more events in finish than the ring holds": Way("flood in finish", Scene.it_does_so),
    "its own end": Way("end", Scene.it_ends_by_itself),
    "update raises": Way("raise", Scene.it_ends_by_itself, 1, 1, "update raised ValueError"),
    "update raises KeyboardInterrupt": Way(
        "interrupt", Scene.it_ends_by_itself, 1, 1, "update raised KeyboardInterrupt"
    ),
    "update calls sys.exit": Way(
        "sys exit", Scene.it_ends_by_itself, 1, 1, "update raised SystemExit: 3"
    ),
    "init raises": Way("raise in init", Scene.it_ends_by_itself, 0, 1, "init raised ValueError"),
    "finish raises": Way("raise in finish", Scene.it_does_so, 1, 1, "finish raised ValueError"),
    "SIGTERM": Way("wait", sent(signal.SIGTERM, ends=True)),
    "SIGTERM with a full ring": Way("flood", sent_while_its_ring_is_full),
    "SIGTERM in a search": Way("search", sent(signal.SIGTERM, ends=True)),
    "not SIGINT": Way("wait", sent(signal.SIGINT, ends=False)),
    "not SIGHUP": Way("wait", sent(signal.SIGHUP, ends=False)),
    "not SIGHUP that it handles": Way("handle the hang up", sent_what_it_handles),
    "threads that go on": Way("leave a thread", Scene.it_ends_by_itself),
    "SIGKILL": Way("kill", Scene.it_ends_by_itself, 0, -9, "without its `finish` (SIGKILL)"),
    "os._exit": Way("os exit", Scene.it_ends_by_itself, 0, 4, "without its `finish`"),
    "os.abort": Way("abort", Scene.it_ends_by_itself, 0, -6, "without its `finish`"),
    "a crash": Way("crash", Scene.it_ends_by_itself, 0, -11, "without its `finish`"),
    "another program in its process": Way(
        "become another program",
        Scene.it_ends_by_itself,
        0,
        -15,
        "closed its command socket",
        BRIEF,
    ),
    "the deadline, in work that nothing interrupts": Way(
        "work in C", Scene.it_does_so, 0, -9, BY_FORCE, BRIEF
    ),
    "the deadline, ignoring SIGTERM": Way(
        "ignore sigterm",
        lambda scene: pump_until(scene.manager, lambda: scene.lines("ignores")),
        0,
        -9,
        BY_FORCE,
        BRIEF,
    ),
    "the deadline, stopped": Way("wait", stopped, options={"end_timeout": 2.0}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_dispatcher_ends_by(way: Way, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    collector = everything()
    options = {"buffer_bytes": 4096, "end_timeout": 60.0, **way.options}
    manager = EventDispatchManager(Worker(diary, way.then, **options), collector)
    scene = Scene(manager, collector, diary)
    manager.deploy_dispatchers()
    pid = scene.pid
    way.happens(scene)
    report = manager.end_dispatchers()
    assert is_gone(pid)
    _check(report, way, scene)


def _check(reports: EndReport, way: Way, scene: Scene) -> None:
    report, collector = reports["Worker"], scene.collector
    assert scene.lines("finish") == way.finishes, lines_of(scene.diary)
    assert report.exit_code == way.exit_code, report
    # A `finish` that ran to its end has sent how many numbers were sent before it.
    farewells = collector.texts
    finished = len(farewells) == 1
    assert report.finished is finished, report
    assert finished == (way.finishes == 1 and way.then != "raise in finish")
    assert (report.finish_seconds is not None) == finished
    if way.failure:
        assert report.failure is not None
        assert way.failure in report.failure
        assert [failed.reason for failed in collector.of(DispatcherFailed)] == [report.failure]
        assert collector.of(DispatcherEnded) == []
    else:
        assert report.failure is None
        assert collector.of(DispatcherFailed) == []
        assert [ended.report.finished for ended in collector.of(DispatcherEnded)] == [True]
    assert reports.is_clean is finished
    numbers = collector.numbers
    assert numbers == [*range(len(numbers))]
    # SIGTERM may interrupt the last `emit`, before or after it has sent its event.
    unsent = int(way.happens is sent_while_its_ring_is_full)
    for farewell in farewells:
        assert int(farewell) - unsent <= len(numbers) <= int(farewell)
    assert report.sent == report.delivered == len(numbers) + len(farewells)
    assert (report.dropped, report.lost, report.restarts) == (0, 0, 0)


#: How a program goes on after its worker has begun, and its exit code.
FATES: dict[str, tuple[str, int]] = {
    "the end of the program": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('no luck')", 1),
    "os._exit": ("os._exit(4)", 4),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP)", -1),
    "SIGINT to the group": ("interrupt(); report()", 0),
    "SIGTERM to the group": ("os.killpg(0, signal.SIGTERM)", -15),
    "SIGHUP to the group": ("os.killpg(0, signal.SIGHUP)", -1),
    "SIGHUP to the group, which the manager handles": (
        "signal.signal(signal.SIGHUP, lambda *_: None); os.killpg(0, signal.SIGHUP); report()",
        0,
    ),
    "SIGHUP to the group, which the manager ignores": (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.killpg(0, signal.SIGHUP); report()",
        0,
    ),
    "a closed terminal": ("os.open(sys.argv[3], os.O_RDWR); print(flush=True); wait()", -1),
    "another program": (
        "os.execv('/bin/sh', ['sh', '-c', f'until grep -q finish {path}; do sleep 0.01; done'])",
        0,
    ),
    "deletion": ("del manager; assert count() == 1", 0),
    "the end of the with block": ("manager.__exit__(None, None, None); assert count() == 1", 0),
}

PROGRAM = """
    import os, signal, sys, threading
    from pathlib import Path
    from pumping import Collector, lines_of, pump_until
    from sources import Number
    from worker import Worker
    from eventpy import EventDispatchManager

    if __name__ == "__main__":
        path, then = Path(sys.argv[1]), sys.argv[2]
        numbers = Collector(Number)
        manager = EventDispatchManager(Worker(path, then), numbers)

        def count():
            return lines_of(path).count("finish")

        def report():
            (of,) = manager.end_dispatchers().values()
            assert of.finished and of.exit_code == 0 and of.failure is None, of

        def interrupt():
            try:
                os.killpg(0, signal.SIGINT)
                wait()
            except KeyboardInterrupt:
                pass

        def wait():
            threading.Event().wait()

        manager.deploy_dispatchers()
        pump_until(manager, lambda: numbers.events)
        {then}
"""
#: After these, the dispatcher finds out by itself.
SUDDEN = ("os._exit", "SIGKILL", "SIGTERM", "SIGHUP", "a closed terminal")


@pytest.mark.parametrize("then", ["wait", "flood"])
@pytest.mark.parametrize("fate", FATES)
def test_finish_runs_when_the_manager_meets(fate: str, then: str, tmp_path: Path) -> None:
    text, code = FATES[fate]
    script = tmp_path / "program.py"
    head = f"import sys; sys.path.append({TESTS!r})\n"
    script.write_text(head + textwrap.dedent(PROGRAM.format(then=text)))
    diary = tmp_path / "diary"
    terminal, name = -1, ""
    if fate == "a closed terminal":
        terminal, ours = pty.openpty()
        name = os.ttyname(ours)
        os.close(ours)
    process = subprocess.Popen(
        [sys.executable, str(script), str(diary), then, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if terminal >= 0:
            assert process.stdout is not None
            process.stdout.readline()
            os.close(terminal)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    if code >= 0 and fate not in SUDDEN:
        assert lines_of(diary).count("finish") == 1, "before the manager's process was gone"
    wait_until(lambda: lines_of(diary).count("finish") == 1)
    pid = int(lines_of(diary)[0].split()[1])
    wait_until(lambda: is_gone(pid))
    assert lines_of(diary).count("finish") == 1
    assert errors.count("Traceback") == (1 if fate == "an exception" else 0), errors
