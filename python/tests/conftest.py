"""What every test gets: a watchdog, and a check that nothing is left behind."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pumping import children

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    before = children()
    yield
    assert children() == before, "a process is left"
