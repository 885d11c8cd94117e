"""A dispatcher that fails is told, with its traceback, after all that it had sent."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from eventpy import (
    DispatcherEnded,
    DispatcherError,
    DispatcherFailed,
    DispatcherRestarted,
    EventDispatchManager,
    Restart,
)
from pumping import Collector, everything, pump_until
from sources import Dies, Hangs, HangsInC, Number, Raises, Text, Unpicklable, WrongInit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("where", "numbers"), [("init", []), ("update", [1, 2]), ("finish", [1, 2])]
)
def test_an_exception_is_a_failure_with_its_traceback(where: str, numbers: list[int]) -> None:
    collector = everything()
    manager = EventDispatchManager(Raises(where), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: collector.is_over)
    assert collector.numbers == numbers
    failed = collector.events[-1]
    assert isinstance(failed, DispatcherFailed)
    assert (failed.dispatcher, failed.phase, failed.will_restart) == ("Raises", where, False)
    assert failed.reason == f"{where} raised ValueError: no luck in {where}"
    assert 'raise ValueError(f"no luck in {where}")' in failed.traceback
    assert failed.exit_code == 1
    report = manager.end_dispatchers()["Raises"]
    assert report.finished == (where == "update")
    assert report.failure == failed.reason


def test_a_failure_that_nobody_listens_to_is_raised_after_all_events() -> None:
    collector = Collector(Number)
    manager = EventDispatchManager(Raises("update"), Raises("update"), collector)
    manager.deploy_dispatchers()
    failures: list[DispatcherFailed] = []
    while len(failures) < 2:
        with pytest.raises(DispatcherError, match="no luck in update") as raised:
            pump_until(manager, lambda: False)
        assert raised.value.failed is raised.value.failures[0]
        failures += raised.value.failures
    assert sorted(collector.numbers) == [1, 1, 2, 2]
    assert sorted(failed.dispatcher for failed in failures) == ["Raises", "Raises#2"]
    assert "Traceback" in str(raised.value)
    manager.end_dispatchers()


def test_a_failure_during_the_ending_is_in_the_report_and_not_raised() -> None:
    manager = EventDispatchManager(Raises("finish"))
    manager.deploy_dispatchers()
    report = manager.end_dispatchers()
    assert not report.is_clean
    assert report["Raises"].failure == "finish raised ValueError: no luck in finish"
    assert "no luck in finish" in str(report)


def test_a_killed_process_is_told_after_its_events() -> None:
    collector = everything()
    with EventDispatchManager(Dies(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert collector.numbers == [*range(100)]
    failed = collector.of(DispatcherFailed)[0]
    assert failed.exit_code == -signal.SIGKILL
    assert "SIGKILL" in failed.reason


def test_a_failed_dispatcher_starts_anew_until_the_limit() -> None:
    collector = everything()
    restart = Restart("on_failure", backoff=0.01, limit=2)
    with EventDispatchManager(Dies(restart=restart), collector) as manager:
        pump_until(manager, lambda: len(collector.of(DispatcherFailed)) == 3)
        assert collector.numbers == [*range(100)] * 3
        failures = collector.of(DispatcherFailed)
        assert [failed.will_restart for failed in failures] == [True, True, False]
        assert [event.restarts for event in collector.of(DispatcherRestarted)] == [1, 2]
        assert manager.stats()["Dies"].state == "failed"
    assert manager.stats()["Dies"].restarts == 2


def test_an_update_that_hangs_is_a_failure_with_its_place() -> None:
    collector = everything()
    with EventDispatchManager(Hangs(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    failed = collector.of(DispatcherFailed)[0]
    assert "hangs" in failed.reason
    assert "hang_here" in failed.traceback
    assert "time.sleep(0.01)" in failed.traceback
    assert collector.numbers == [1], "finish ran"


def test_a_hang_that_holds_the_interpreters_lock_is_told_without_its_place() -> None:
    collector = everything()
    with EventDispatchManager(HangsInC(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    failed = collector.of(DispatcherFailed)[0]
    assert "hangs" in failed.reason
    assert "where it hangs is not known" in failed.traceback


def test_the_place_of_a_hang_is_told_of_a_program_that_imports_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(BARE_PROGRAM))
    result = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "in hang_here" in result.stdout, result.stdout
    assert "in _locate" not in result.stdout


BARE_PROGRAM = """
    import eventpy

    class Hangs(eventpy.EventDispatcher):
        def __init__(self):
            super().__init__(eventpy.Event, update_timeout=0.2, end_timeout=0.5)

        def update(self):
            self.hang_here()

        def hang_here(self):
            while True:
                pass

        def finish(self): ...

    if __name__ == "__main__":
        with eventpy.EventDispatchManager(Hangs()) as manager:
            try:
                manager.run(duration=30)
            except eventpy.DispatcherError as error:
                print(error)
"""


def test_an_event_that_cannot_be_pickled_is_named() -> None:
    collector = everything()
    with EventDispatchManager(Unpicklable(catches=True), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert len(collector.texts) == 1
    for word in ("EventError", "`Text`", "attribute `lock`", "_thread.lock"):
        assert word in collector.texts[0]
    assert collector.of(DispatcherEnded)


def test_an_event_that_cannot_be_pickled_fails_the_dispatcher_as_its_rule_says() -> None:
    collector = everything()
    restart = Restart("on_failure", backoff=0.01, limit=1)
    dispatcher = Unpicklable(catches=False, restart=restart)
    with EventDispatchManager(dispatcher, collector) as manager:
        pump_until(manager, lambda: len(collector.of(DispatcherFailed)) == 2)
    failures = collector.of(DispatcherFailed)
    assert [failed.will_restart for failed in failures] == [True, False]
    assert all("attribute `lock`" in failed.reason for failed in failures)
    assert collector.of(Text) == []


@pytest.mark.parametrize(
    "returned", ["text", (1, 2), ((), {}, 3), ((), {1: 2}), 5, {"count": 0}, [(), {}]]
)
def test_init_that_returns_no_arguments_is_a_failure(returned: object) -> None:
    collector = everything()
    with EventDispatchManager(WrongInit(returned), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    failed = collector.of(DispatcherFailed)[0]
    assert failed.phase == "init"
    assert f"`WrongInit.init` returned {returned!r}" in failed.reason


@pytest.mark.parametrize(
    ("returned", "number"), [(None, 0), (((), {}), 0), (((1, 2), {"a": 3}), 3), (([1], {}), 1)]
)
def test_what_init_may_return(returned: object, number: int) -> None:
    collector = everything()
    with EventDispatchManager(WrongInit(returned), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    assert collector.numbers == [number]
