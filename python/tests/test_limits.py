"""What the machine refuses is one error that says what to do, and nothing is left of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventpy import EventDispatchManager
from pumping import Collector, pump_until, wait_until
from sources import Counter, Number

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = os.path.dirname(__file__)

PROGRAM = """
    import ctypes, os, resource, struct, sys
    sys.path.append({tests!r})
    from eventpy import DispatcherFailed, EventDispatchManager, ResourceError
    from pumping import Collector, children, everything, pump_until, wait_until
    from sources import Counter, Number, Sized

    def run(dispatcher):
        collector = Collector(Number)
        with EventDispatchManager(dispatcher, collector) as manager:
            pump_until(manager, lambda: len(collector.events) == 100)
        assert collector.numbers == [*range(100), -1]

    def refused(*dispatchers):
        try:
            EventDispatchManager(*dispatchers).deploy_dispatchers()
        except ResourceError as error:
            print(error)
            return True
        return False

    def limited(kind, limit):
        usual = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit, usual[1]))
        return usual

    def mapped():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()

    def held():
        return len(os.listdir("/proc/self/fd")), children()

    if __name__ == "__main__":
        run(Counter(100))
        before = held()
{then}
        wait_until(lambda: held() == before)
"""


def run(tmp_path: Path, then: str, *command: str) -> str:
    """Runs a program that is limited somehow, and returns what it prints."""
    script = tmp_path / "program.py"
    body = textwrap.indent(textwrap.dedent(then).strip("\n"), " " * 8)
    script.write_text(textwrap.dedent(PROGRAM.format(tests=TESTS, then=body)))
    # A memory allocator with an arena per thread would take as much again.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(
        [*command, sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_limit_of_descriptors_is_named_wherever_it_is_reached(tmp_path: Path) -> None:
    then = """
        lowest = os.open("/dev/null", os.O_RDONLY)
        os.close(lowest)
        for limit in range(lowest, lowest + 100):
            usual = limited(resource.RLIMIT_NOFILE, limit)
            was_refused = refused(Counter(100))
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
            if not was_refused:
                break
            assert held() == before
        run(Counter(100))
    """
    errors = run(tmp_path, then).splitlines()
    assert len(errors) > 10
    assert all("`ulimit -n`" in error for error in errors)


def test_the_limit_of_memory_is_named(tmp_path: Path) -> None:
    then = """
        usual = limited(resource.RLIMIT_AS, mapped() + (1 << 28))
        assert refused(Counter(100, buffer_bytes=1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, usual)
        assert held() == before
        run(Counter(100))
    """
    (error,) = run(tmp_path, then).splitlines()
    assert "`Counter`" in error
    assert "`ulimit -v`" in error


def test_an_event_beyond_the_limit_of_memory_is_a_failure(tmp_path: Path) -> None:
    then = """
        # The dispatcher's process has the limit that the manager has at its start.
        usual = limited(resource.RLIMIT_AS, mapped() + (1 << 28))
        collector = everything()
        manager = EventDispatchManager(Sized(1 << 29), collector)
        manager.deploy_dispatchers()
        resource.setrlimit(resource.RLIMIT_AS, usual)
        pump_until(manager, lambda: collector.is_over)
        (failed,) = collector.of(DispatcherFailed)
        print(failed.reason)
        assert manager.end_dispatchers()["Sized"].finished
        run(Counter(100))
    """
    assert run(tmp_path, then) == "update raised MemoryError\n"


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group that may take 64 MiB, with nothing in it."""
    version_1 = Path("/sys/fs/cgroup/memory")
    root = version_1 if version_1.exists() else Path("/sys/fs/cgroup")
    limit = "memory.limit_in_bytes" if version_1.exists() else "memory.max"
    group = root / f"eventpy-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / limit).write_text(str(64 << 20))
    except OSError as error:
        group.rmdir()
        pytest.skip(f"no control group can be limited here: {error}")
    yield group
    # Its processes were waited for, but the kernel may still be busy with them.
    wait_until(lambda: removed(group))


def removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_the_limit_of_a_control_group_is_named(tmp_path: Path, control_group: Path) -> None:
    then = f"""
        with open("{control_group}/cgroup.procs", "w") as processes:
            processes.write(str(os.getpid()))
        assert refused(Counter(100, buffer_bytes=1 << 26))
        assert held() == before
        run(Counter(100))
    """
    (error,) = run(tmp_path, then).splitlines()
    assert "`Counter`" in error
    assert f"the control group {control_group} has left" in error


@pytest.fixture
def as_somebody() -> list[str]:
    """What makes a command that of a user for whom a limit of processes holds."""
    if os.geteuid() != 0:
        return []
    # He has no rights, but can read what is in root's folders: the interpreter may be there.
    capability = "+dac_read_search"
    rights = [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
    command = ["setpriv", "--reuid=65534", "--clear-groups", *rights]
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root has no limit, and can't become another user: {error}")
    return command


def test_the_limit_of_processes_is_named(tmp_path: Path, as_somebody: list[str]) -> None:
    then = """
        usual = limited(resource.RLIMIT_NPROC, 1)
        assert refused(Counter(100))
        resource.setrlimit(resource.RLIMIT_NPROC, usual)
        assert held() == before
        run(Counter(100))
    """
    (error,) = run(tmp_path, then, *as_somebody).splitlines()
    assert "`ulimit -u`" in error


MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


def test_a_sandbox_that_forbids_shared_memory_is_named(tmp_path: Path) -> None:
    number = MEMFD_CREATE.get(platform.machine())
    if number is None:
        pytest.skip("the number of memfd_create is not known for this machine")
    then = f"""
        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]

        # Load the call's number; if it is that of memfd_create, answer EPERM; allow all else.
        steps = [
            (0x20, 0, 0, 0),
            (0x15, 0, 1, {number}),
            (0x06, 0, 0, 0x00050001),
            (0x06, 0, 0, 0x7FFF0000),
        ]
        code = b"".join(struct.pack("HBBI", *step) for step in steps)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), code)), 0, 0) == 0
        assert refused(Counter(100))
    """
    (error,) = run(tmp_path, then).splitlines()
    assert "`Counter`" in error
    assert "shared memory (memfd_create)" in error
    assert "seccomp filter" in error


def test_nothing_needs_shared_memory_that_has_a_name(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    hide = "mount -t tmpfs -o ro none /dev/shm"
    command = [unshare or "unshare", "-m", "sh", "-c"]
    if unshare is None or subprocess.run([*command, hide], capture_output=True).returncode != 0:
        pytest.skip("mounts can't be changed here")
    then = """
        try:
            open("/dev/shm/eventpy", "w")
        except OSError:
            run(Counter(100))
            print("it runs")
    """
    assert run(tmp_path, then, *command, f'{hide} && exec "$0" "$@"') == "it runs\n"


def test_two_hundred_dispatchers_run_side_by_side() -> None:
    collector = Collector(Number)
    # All interpreters start at once, on however few cores.
    counters = [Counter(10, start_timeout=100.0) for _ in range(200)]
    manager = EventDispatchManager(*counters, collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: len(collector.events) == 200 * 10)
    report = manager.end_dispatchers()
    assert report.is_clean
    assert all(of.delivered == 11 for of in report.values())
