"""A dispatcher with a diary, for the ways in which one ends. Its processes import this module."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from eventpy import EventDispatcher
from sources import Number, Text

if TYPE_CHECKING:
    from pathlib import Path


class Worker(EventDispatcher):
    """Sends numbers, then does what it is told to; its `finish` sends how many they were."""

    def __init__(self, diary: Path, then: str, numbers: int = 100, **options: Any) -> None:
        super().__init__(Number, Text, **options)
        self.diary = diary
        self.then = then
        self.numbers = numbers

    def init(self) -> Any:
        self.write(f"process {os.getpid()}")
        if self.then == "raise in init":
            raise ValueError("no luck")
        self.write("init")
        return (), {"sent": [0]}

    def update(self, sent: list[int]) -> None:
        if sent[0] < self.numbers or self.then == "flood":
            sent[0] += 1
            self.emit(Number(sent[0] - 1))
        else:
            self.write("then")
            getattr(self, "then_" + self.then.replace(" ", "_"), self.then_wait)()

    def finish(self, sent: list[int]) -> None:
        self.write("finish")
        if self.then == "raise in finish":
            raise ValueError("no luck")
        if self.then == "kill in finish":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.then == "finish slowly":
            time.sleep(0.3)
        if self.then == "flood in finish":
            for _ in range(5000):
                sent[0] += 1
                self.emit(Number(sent[0] - 1))
        self.emit(Text(str(sent[0])))

    def write(self, line: str) -> None:
        with open(self.diary, "a") as file:
            file.write(line + "\n")

    def then_wait(self) -> None:
        while self.wait(3600):
            pass

    def then_end(self) -> None:
        self.end()

    def then_raise(self) -> None:
        raise ValueError("no luck")

    def then_interrupt(self) -> None:
        raise KeyboardInterrupt

    def then_sys_exit(self) -> None:
        sys.exit(3)

    def then_os_exit(self) -> None:
        os._exit(4)

    def then_abort(self) -> None:
        os.abort()

    def then_crash(self) -> None:
        ctypes.string_at(0)

    def then_kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def then_become_another_program(self) -> None:
        os.execv("/bin/sleep", ["sleep", "3600"])

    def then_work_in_C(self) -> None:
        sum(range(10**15))

    def then_search(self) -> None:
        re.match(r"(a+)+$", "a" * 100 + "b")

    def then_leave_a_thread(self) -> None:
        for work in (threading.Event().wait, self.work_for_ever):
            threading.Thread(target=work, daemon=False).start()
        self.end()

    def work_for_ever(self) -> None:
        number = 0
        while True:
            number += 1

    def then_handle_the_hang_up(self) -> None:
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.write("hung up"))
        self.write("handles")
        self.then_wait()

    def then_ignore_sigterm(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.write("ignores")
        while True:
            threading.Event().wait(0.1)
