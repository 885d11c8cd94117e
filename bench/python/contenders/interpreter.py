"""The bare interpreter: how long it takes to start, and what memory it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from statistics import median
from time import perf_counter, sleep
from typing import TYPE_CHECKING

from eventpy import EventDispatchManager

from contenders.eventpy import pid_of_idle
from dispatchers import Idle
from machine import is_asleep, private_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from load import Load
    from measure import Figures

#: What programs import; the bare `import eventpy` loads next to nothing.
IMPORT = "from eventpy import Event, EventDispatcher, EventDispatchManager, EventListener"

#: Says that it runs, then waits for its end.
BARE = "import os; os.write(1, b'.'); os.read(0, 1)"


def start_many(load: Load) -> Figures:
    """Milliseconds until so many interpreters run that were started side by side."""
    with ExitStack() as stack:
        begin = perf_counter()
        children = [stack.enter_context(_bare()) for _ in range(load.producers)]
        for child in children:
            assert child.stdout is not None, "it is a pipe"
            os.read(child.stdout.fileno(), 1)
        return [(perf_counter() - begin) * 1e3]


def import_time(load: Load) -> Figures:
    """Milliseconds of an import: over a bare interpreter, with it, and without."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(load.events, 1)):
        for of, program in zip(times, (IMPORT, "pass")):
            begin = perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            of.append((perf_counter() - begin) * 1e3)
    imported, bare = map(median, times)
    return [imported - bare, imported, bare]


def memory(_load: Load) -> Figures:
    """Megabytes of an idle dispatcher: over a bare child interpreter, in all, and of that child."""
    with _bare() as bare, EventDispatchManager(Idle()) as manager:
        dispatcher = pid_of_idle(manager)
        while not is_asleep(bare.pid):
            sleep(0.001)
        used, base = private_bytes(dispatcher) / 1e6, private_bytes(bare.pid) / 1e6
    return [used - base, used, base]


@contextmanager
def _bare() -> Iterator[subprocess.Popen[bytes]]:
    """A child interpreter that has imported nothing."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BARE], stdin=pipe, stdout=pipe) as child:
        try:
            yield child
        finally:
            child.kill()
