"""A process that a dispatcher's code forks off is an ordinary one, and harms no dispatcher."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

import pytest

from eventpy import DispatcherEnded, Event, EventDispatcher, EventDispatchManager, StateError
from pumping import everything, pump_until, wait_until
from sources import Number, Text

FORK = multiprocessing.get_context("fork")
#: A watcher that hears something hears it within this time, in seconds.
HEARING = 0.1


class Flooding(Event):
    def __init__(self, number: int) -> None:
        self.number = number


class Forks(EventDispatcher):
    """Forks in its first update and sends what became of the copies; then three numbers."""

    def __init__(self, how: str) -> None:
        super().__init__(Number, Text, Flooding, buffer_bytes=4096)
        self.how = how
        self.sent = 0

    def init(self) -> Any:
        warnings.simplefilter("ignore")  # CPython 3.12 does not like forks beside threads
        return (), {"updates": [0]}

    def update(self, updates: list[int]) -> None:
        updates[0] += 1
        if updates[0] == 1:
            outcome = getattr(self, self.how.replace(" ", "_"))()
            if outcome is None:
                return  # in a copy
            self.wait(HEARING)
            self.emit(Text(str(outcome)))
        else:
            self.emit(Number(updates[0]))
        if updates[0] == 4:
            self.end()

    def finish(self, updates: list[int]) -> None:
        self.emit(Text("finished"))

    def pool(self) -> object:
        with FORK.Pool(2) as pool:
            pool.apply_async(time.sleep, (3600,))
            return pool.map(abs, [-1, 2])

    def process_that_is_terminated(self) -> object:
        process = FORK.Process(target=time.sleep, args=(3600,))
        process.start()
        process.terminate()
        process.join()
        return process.exitcode

    def process_with_a_handler(self) -> object:
        process = FORK.Process(target=self.handle_sigterm)
        process.start()
        process.join()
        return process.exitcode

    def handle_sigterm(self) -> None:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        assert before == signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)

    def interrupted(self) -> int | None:
        return self.fork_and(lambda: os.kill(os.getpid(), signal.SIGINT))

    def hung_up(self) -> int | None:
        return self.fork_and(lambda: os.kill(os.getpid(), signal.SIGHUP))

    def that_ends(self) -> int | None:
        return self.fork_and(self.end)

    def that_exits(self) -> int | None:
        return self.fork_and(lambda: sys.exit(7))

    def that_returns(self) -> int | None:
        return self.fork_and(lambda: None)

    def that_raises(self) -> int | None:
        return self.fork_and(lambda: 1 // 0)

    def that_sends(self) -> int | None:
        return self.fork_and(self.expect_refusals)

    def that_sends_while_a_thread_waits_for_room(self) -> int | None:
        flood = threading.Thread(target=self.flood)
        flood.start()
        while self.sent < 4096 // 32:
            time.sleep(0.001)
        outcome = self.fork_and(self.expect_refusals)
        if outcome is not None:
            flood.join()
        return outcome

    def flood(self) -> None:
        for number in range(1000):
            self.emit(Flooding(number))
            self.sent = number

    def expect_refusals(self) -> None:
        with pytest.raises(StateError, match="forked from the dispatcher's"):
            self.emit(Number(-1))
        logging.getLogger("of a copy").warning("not sent")

    def fork_and(self, act: Any) -> int | None:
        """How a copy exited that acted; None in that copy itself."""
        copy = os.fork()
        if copy == 0:
            act()
            return None
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("pool", "[1, 2]"),
        ("process that is terminated", "-15"),
        ("process with a handler", "5"),
        ("interrupted", "-2"),
        ("hung up", "-1"),
        ("that exits", "7"),
        ("that raises", "1"),
    ],
)
def test_a_copy_does_what_any_process_does(how: str, outcome: str) -> None:
    _check(how, outcome)


@pytest.mark.parametrize("how", ["that ends", "that returns", "that sends"])
def test_a_copy_is_no_dispatcher(how: str) -> None:
    _check(how, "0")


def test_a_copy_is_refused_also_when_another_thread_was_sending() -> None:
    collector = everything()
    manager = EventDispatchManager(Forks("that sends while a thread waits for room"), collector)
    manager.deploy_dispatchers()
    wait_until(lambda: manager.stats()["Forks"].queued_bytes > 4096 - 64)
    time.sleep(HEARING)
    pump_until(manager, lambda: collector.is_over)
    assert [event.number for event in collector.of(Flooding)] == [*range(1000)]
    assert collector.texts == ["0", "finished"]
    assert manager.end_dispatchers().is_clean


def _check(how: str, outcome: str) -> None:
    collector = everything()
    manager = EventDispatchManager(Forks(how), collector)
    manager.deploy_dispatchers()
    pump_until(manager, lambda: collector.is_over)
    assert collector.texts == [outcome, "finished"]
    assert collector.numbers == [2, 3, 4]
    assert len(collector.of(DispatcherEnded)) == 1
    report = manager.end_dispatchers()["Forks"]
    assert (report.sent, report.delivered, report.lost, report.failure) == (5, 5, 0, None)
