"""`finish` runs exactly once, however a dispatcher ends, and nothing is left."""

from __future__ import annotations

import gc
import gzip
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from eventpy import DispatcherEnded, EventDispatchManager, StateError
from pumping import Collector, everything, pump_until
from sources import Blocked, Counter, Finishes, LeavesOpen, Number, SlowFinish, Text

if TYPE_CHECKING:
    from pathlib import Path

TESTS = os.path.dirname(__file__)


def program(tmp_path: Path, text: str) -> Path:
    """A script that finds the modules of the tests."""
    script = tmp_path / "program.py"
    head = f"import sys; sys.path.append({TESTS!r})\n"
    script.write_text(head + textwrap.dedent(text))
    return script


def finishes(path: Path) -> int:
    return path.read_text().count("finish\n")


@pytest.mark.parametrize("where", ["sleep", "socket", "queue", "lock", "full ring", "generator"])
def test_a_blocked_update_is_interrupted_at_the_end_command(where: str) -> None:
    collector = everything()
    manager = EventDispatchManager(Blocked(where, buffer_bytes=4096), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: "blocking" in collector.texts)
    report = manager.end_dispatchers()
    assert report.is_clean, report
    assert collector.texts[-1] == "finished"
    assert report["Blocked"].exit_code == 0
    assert report["Blocked"].failure is None


def test_files_that_a_dispatcher_leaves_open_are_flushed(tmp_path: Path) -> None:
    collector = everything()
    with EventDispatchManager(LeavesOpen(str(tmp_path)), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert len(collector.of(DispatcherEnded)) == 1
    with gzip.open(tmp_path / "archive", "rt") as archive:
        assert archive.read() == "archive\n"
    (tmp_path / "archive").unlink()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "attribute": "attribute\nfrom __del__\n",
        "argument": "argument\n",
        "global": "global\n",
        "closure": "closure\nfrom atexit\n",
    }


def test_sigterm_from_outside_ends_a_dispatcher() -> None:
    collector = everything()
    manager = EventDispatchManager(Blocked("sleep"), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: "blocking" in collector.texts)
    pid = manager.stats()["Blocked"].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    pump_until(manager, lambda: collector.of(DispatcherEnded))
    assert collector.texts == ["blocking", "finished"]
    assert manager.end_dispatchers().is_clean


def test_sigterm_does_not_cut_finish_short() -> None:
    collector = Collector(Text)
    with EventDispatchManager(SlowFinish(), collector):
        pass
    assert collector.texts == ["finished"]


def test_many_dispatchers_end_side_by_side(tmp_path: Path) -> None:
    dispatchers = [Finishes(str(tmp_path / str(n))) for n in range(8)]
    numbers = Collector(Number)
    with EventDispatchManager(*dispatchers, numbers) as manager:
        pump_until(manager, lambda: len(numbers.events) == 8)
    assert all(finishes(tmp_path / str(n)) == 1 for n in range(8))


def test_ctrl_c_is_one_keyboard_interrupt_of_the_manager(tmp_path: Path) -> None:
    text = """
        import sys
        from pumping import Collector, pump_until
        from sources import Finishes, Number
        from eventpy import EventDispatchManager

        if __name__ == "__main__":
            numbers = Collector(Number)
            dispatchers = [Finishes(path) for path in sys.argv[1:]]
            manager = EventDispatchManager(*dispatchers, numbers)
            manager.deploy_dispatchers()
            pump_until(manager, lambda: len(numbers.events) >= len(dispatchers))
            try:
                print("pumping", flush=True)
                manager.invoke_dispatch(timeout=None)
            except KeyboardInterrupt:
                print("interrupted", manager.end_dispatchers().is_clean, flush=True)
    """
    witnesses = [tmp_path / str(n) for n in range(4)]
    result = _interrupted(program(tmp_path, text), witnesses)
    assert result == (0, "pumping\ninterrupted True\n", "")
    assert [finishes(witness) for witness in witnesses] == [1] * 4


def test_ctrl_c_during_the_deployment_leaves_nothing(tmp_path: Path) -> None:
    text = """
        import sys
        from sources import Finishes
        from eventpy import EventDispatchManager

        print("pumping", flush=True)
        if __name__ == "__main__":
            manager = EventDispatchManager(*[Finishes(path) for path in sys.argv[1:] * 8])
            manager.deploy_dispatchers()
            manager.run()
            print("over", flush=True)
    """
    code, out, err = _interrupted(program(tmp_path, text), [tmp_path / "witness"])
    assert (code, err.count("Traceback")) in [(0, 0), (-2, 1), (1, 1)], err
    if code:
        assert "KeyboardInterrupt" in err.splitlines()[-1]
    else:
        assert out.endswith("over\n")


def test_a_terminal_interrupt_ends_run(tmp_path: Path) -> None:
    text = """
        import sys
        from sources import Finishes
        from eventpy import EventDispatchManager

        if __name__ == "__main__":
            announced = []

            def announce():
                if not announced:
                    announced.append(print("pumping", flush=True))

            with EventDispatchManager(Finishes(sys.argv[1])) as manager:
                manager.run(until=announce)
            print("over")
    """
    witness = tmp_path / "witness"
    assert _interrupted(program(tmp_path, text), [witness]) == (0, "pumping\nover\n", "")
    assert finishes(witness) == 1


def _interrupted(script: Path, arguments: list[Path]) -> tuple[int, str, str]:
    """Runs a program in a process group of its own and sends the group SIGINT when it pumps."""
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, first + out, err


def test_a_forked_copy_of_the_manager_raises_and_harms_nobody(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    numbers = Collector(Number)
    manager = EventDispatchManager(Finishes(str(witness)), numbers)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: numbers.events)
    child = os.fork()
    if child == 0:
        os._exit(_use_in_a_fork(manager))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert manager.stats()["Finishes"].pid is not None
    assert manager.end_dispatchers().is_clean
    assert finishes(witness) == 1


def _use_in_a_fork(manager: Any) -> int:
    """How many things did not go as they should."""
    wrong = 0
    calls = [
        manager.invoke_dispatch,
        manager.end_dispatchers,
        manager.deploy_dispatchers,
        manager.fileno,
    ]
    for call in calls:
        try:
            call()
            wrong += 1
        except StateError as error:
            wrong += "forked" not in str(error)
    del manager, call, calls
    gc.collect()
    return wrong


def test_a_fork_that_exits_as_an_interpreter_does_harms_nobody(tmp_path: Path) -> None:
    text = """
        import os, sys, warnings
        from pumping import Collector, pump_until
        from sources import Finishes, Number
        from eventpy import EventDispatchManager

        if __name__ == "__main__":
            numbers = Collector(Number)
            manager = EventDispatchManager(Finishes(sys.argv[1]), numbers)
            manager.deploy_dispatchers()
            pump_until(manager, lambda: numbers.events)
            warnings.simplefilter("ignore")  # CPython 3.12 does not like forks beside threads
            child = os.fork()
            if child == 0:
                sys.exit(7)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            runs = manager.stats()["Finishes"].pid is not None
            print(code, runs, manager.end_dispatchers().is_clean)
    """
    witness = tmp_path / "witness"
    command = [sys.executable, str(program(tmp_path, text)), str(witness)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("7 True True\n", "")
    assert finishes(witness) == 1


def test_no_descriptor_is_left() -> None:
    def cycle() -> int:
        collector = Collector(Number)
        with EventDispatchManager(Counter(10), collector) as manager:
            pump_until(manager, lambda: len(collector.events) == 10)
        del manager
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    assert cycle() == cycle()
