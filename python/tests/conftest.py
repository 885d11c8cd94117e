"""What every test gets: a watchdog, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pumping import children, held

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The kernel removes some things late, in seconds.
PATIENCE = 10.0

#: No test comes near it on a sound system, in seconds.
WATCHDOG = 120


# A shell that starts this in the background ignores Ctrl-C for it, and programs inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Late(BaseException):
    """A test takes longer than any sound one."""


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    def bark(number: int, frame: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(WATCHDOG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _nothing_is_left(_watchdog: None) -> Iterator[None]:
    processes, threads, before = children(), set(threading.enumerate()), held()
    yield
    assert children() == processes, "a process is left"
    deadline = time.monotonic() + PATIENCE
    while left := [*(held() - before).elements(), *(set(threading.enumerate()) - threads)]:
        assert time.monotonic() < deadline, f"something is left: {left}"
        # A manager that the test left in a cycle of references counts for nothing.
        gc.collect()
        time.sleep(0.01)
