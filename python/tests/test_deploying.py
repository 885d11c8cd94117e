"""Dispatchers on their way to their processes, and what can't get there."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from eventpy import DeployError, Event, EventDispatcher, EventDispatchManager, StateError
from pumping import Collector, children, everything, lines_of, pump_until, wait_until
from sources import Counter, Environment, Finishes, Holds, NeverLoads, Number, RefusesToLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLOCK = """
    import sys
    from eventpy import Event, EventDispatcher, EventDispatchManager, EventListener

    class Tick(Event):
        def __init__(self, n):
            self.n = n

    LAST = 3

    class Clock(EventDispatcher):
        def __init__(self):
            super().__init__(Tick)
            self.n = 0

        def update(self):
            self.n += 1
            if self.n == LAST:
                self.end()
            return Tick(self.n)

        def finish(self):
            pass

    class Printer(EventListener):
        def __init__(self):
            super().__init__({Tick: self.on_tick})

        def on_tick(self, event):
            print(type(event) is Tick, event.n)
"""
GUARD = 'if __name__ == "__main__":\n'
RUN = "EventDispatchManager(Clock(), Printer()).run()\n"
TICKS = "True 1\nTrue 2\nTrue 3\n"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def script(*parts: str) -> str:
    return textwrap.dedent(parts[0]) + "".join(parts[1:])


def test_a_program_runs_as_a_script(tmp_path: Path) -> None:
    path = tmp_path / "clock.py"
    path.write_text(script(CLOCK, GUARD, "    ", RUN))
    result = run(str(path))
    assert (result.stdout, result.stderr) == (TICKS, "")


def test_a_program_runs_as_a_module(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "clock.py").write_text(script(CLOCK, GUARD, "    ", RUN))
    result = run("-m", "package.clock", cwd=tmp_path)
    assert (result.stdout, result.stderr) == (TICKS, "")


def test_a_program_runs_as_a_package(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(script(CLOCK, GUARD, "    ", RUN))
    result = run("-m", "package", cwd=tmp_path)
    assert (result.stdout, result.stderr) == (TICKS, "")


def test_a_program_without_a_file_ships_its_classes_by_value() -> None:
    pytest.importorskip("cloudpickle")
    result = run("-c", script(CLOCK, RUN))
    assert (result.stdout, result.stderr) == (TICKS, "")


def test_a_program_without_a_file_is_told_of_cloudpickle() -> None:
    result = run("-c", "import sys; sys.modules['cloudpickle'] = None\n" + script(CLOCK, RUN))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    for word in ("DeployError", "`Clock`", "Clock and Tick", "install cloudpickle"):
        assert word in last


def test_a_program_from_standard_input_ships_its_classes_by_value() -> None:
    pytest.importorskip("cloudpickle")
    result = run("-", input=script(CLOCK, RUN))
    assert (result.stdout, result.stderr) == (TICKS, "")


def test_a_program_without_a_guard_is_told_so_and_starts_no_storm(tmp_path: Path) -> None:
    path = tmp_path / "clock.py"
    path.write_text(script(CLOCK, 'print("begun")\n', RUN))
    result = run(str(path))
    assert result.returncode == 1
    assert result.stdout.count("begun") == 2, "the program and one dispatcher process"
    assert "DeployError" in result.stderr
    assert 'if __name__ == "__main__":' in result.stderr


def test_an_attribute_that_cannot_be_pickled_is_named() -> None:
    manager = EventDispatchManager(Holds())
    with pytest.raises(DeployError) as raised:
        manager.deploy_dispatchers()
    for word in ("`Holds`", "attribute `device`", "`_thread.lock`", "open it in `init`"):
        assert word in str(raised.value)
    with pytest.raises(StateError, match="no dispatcher is deployed"):
        manager.invoke_dispatch()


def test_classes_that_cannot_be_imported_are_named() -> None:
    class Local(Event):
        pass

    class LocalDispatcher(EventDispatcher):
        def update(self) -> None: ...

        def finish(self) -> None: ...

    with pytest.raises(DeployError, match=r"event type can't be .*Local`; define it at the top"):
        EventDispatchManager(Counter(0), _with_types(Counter(0), Local)).deploy_dispatchers()
    with pytest.raises(DeployError, match=r"its class can't be imported as .*LocalDispatcher`"):
        EventDispatchManager(LocalDispatcher(Number)).deploy_dispatchers()


def _with_types(dispatcher: Counter, *event_types: type[Event]) -> Counter:
    EventDispatcher.__init__(dispatcher, *event_types)
    return dispatcher


def test_a_dispatcher_that_does_not_load_is_an_error_of_the_deployment() -> None:
    manager = EventDispatchManager(Counter(1), RefusesToLoad())
    with pytest.raises(DeployError) as raised:
        manager.deploy_dispatchers()
    for word in ("`RefusesToLoad`", "LookupError: nothing is found here", "__setstate__"):
        assert word in str(raised.value)


@contextmanager
def interrupted_once(condition: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C, once it is so, ends the body."""

    def interrupt() -> None:
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()


def test_an_interrupt_ends_only_what_its_deployment_has_started(tmp_path: Path) -> None:
    loading, diary = tmp_path / "loading", tmp_path / "diary"
    collector = Collector(Number)
    manager = EventDispatchManager(Counter(100), collector)
    manager.deploy_dispatchers()
    wait_until(lambda: manager.stats()["Counter"].sent == 100)
    manager.register_dispatcher(Finishes(str(diary)))
    manager.register_dispatcher(NeverLoads(str(loading)))

    with interrupted_once(lambda: loading.exists() and len(lines_of(diary)) == 1):
        manager.deploy_dispatchers()
    assert lines_of(diary)[1:] == ["finish"]
    assert len(children()) == 1
    pump_until(manager, lambda: len(collector.events) == 100)
    report = manager.end_dispatchers()["Counter"]
    assert report.finished
    assert report.sent == report.delivered == len(collector.events) == 101


def test_an_interrupt_of_the_first_deployment_leaves_nothing(tmp_path: Path) -> None:
    loading = tmp_path / "loading"
    manager = EventDispatchManager(Counter(1), NeverLoads(str(loading)))
    with interrupted_once(loading.exists):
        manager.deploy_dispatchers()
    assert children() == []
    with pytest.raises(StateError, match="no dispatcher is deployed"):
        manager.end_dispatchers()


def test_deploying_twice_is_an_error() -> None:
    with EventDispatchManager(Counter(1)) as manager:
        with pytest.raises(StateError, match="deployed already"):
            manager.deploy_dispatchers()
    with pytest.raises(StateError, match="no dispatcher to deploy"):
        EventDispatchManager().deploy_dispatchers()


def test_the_process_is_like_the_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--option"])
    collector = everything()
    with EventDispatchManager(Environment(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    environment, heavy, signals = collector.texts
    argv, directory, path, dev_mode = ast.literal_eval(environment)
    assert argv == ["program", "--option"]
    assert directory == os.getcwd()
    assert path == sys.path
    assert dev_mode == sys.flags.dev_mode
    assert heavy == "[]", "modules that make a start slow"
    masks = dict(line.split(":\t") for line in signals.splitlines())
    assert int(masks["SigBlk"], 16) == 0, "programs of a dispatcher begin with all signals"
    assert int(masks["SigIgn"], 16) & 0b10 == 0, "and can be interrupted"


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_programs_of_a_dispatcher_ignore_a_hang_up_if_the_manager_does(
    handler: signal.Handlers,
) -> None:
    collector = everything()
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with EventDispatchManager(Environment(), collector) as manager:
            pump_until(manager, lambda: collector.is_over)
    finally:
        signal.signal(signal.SIGHUP, before)
    masks = dict(line.split(":\t") for line in collector.texts[2].splitlines())
    assert int(masks["SigIgn"], 16) & 1 == (handler is signal.SIG_IGN)


def test_flags_of_the_interpreter_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "flags.py"
    path.write_text(script(CLOCK, "print(sys.flags.optimize, sys.dont_write_bytecode)\n"))
    with path.open("a") as file:
        file.write(f"{GUARD}    {RUN}")
    result = run("-O", "-B", str(path))
    assert result.stdout.count("1 True\n") == 2, "in the program and in its dispatcher"


@pytest.mark.parametrize(
    "flags",
    [[], ["-O", "-B"], ["-E", "-s"], ["-I"], ["-X", "dev"], ["-bb"], ["-W", "error"]],
    ids=" ".join,
)
def test_flags_are_passed_on_as_the_standard_library_does(flags: list[str]) -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import subprocess\n"
        "from eventpy import _shipping\n"
        "ours = _shipping._interpreter_flags()\n"
        "theirs = subprocess._args_from_interpreter_flags()\n"
        "print(sorted(ours) == sorted(theirs) or (ours, theirs))"
    )
    assert run(*flags, "-c", program).stdout == "True\n"
