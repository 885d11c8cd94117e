"""What pickle alone could reach: one core makes and dumps, one loads and calls, nothing between.

Both work at the same time, and the slower of the two sides counts.
"""

from __future__ import annotations

from pickle import dumps, loads
from time import perf_counter
from typing import TYPE_CHECKING

from events import Reading
from load import VALUE, Load, pin
from tally import Tally, throughput_reading
from transport import SPAWN

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from measure import Figures


def throughput(load: Load) -> Figures:
    """Readings, pickled one by one."""
    pin(load.cores[1])
    ours, theirs = SPAWN.Pipe()
    producer = SPAWN.Process(target=_dump, args=(load, theirs), daemon=True)
    producer.start()
    ours.recv()
    ours.send("go")
    consuming = _load(load)
    producing = ours.recv()
    producer.join()
    return throughput_reading(load.events, max(producing, consuming))


def _dump(load: Load, theirs: Connection) -> None:
    """The producer: tells how long it took."""
    pin(load.cores[0])
    theirs.send("ready")
    theirs.recv()
    begin = perf_counter()
    for number in range(load.events):
        dumps(Reading(number, VALUE), 5)
    theirs.send(perf_counter() - begin)


def _load(load: Load) -> float:
    pickled = dumps(Reading(load.events, VALUE), 5)
    take = Tally().take
    begin = perf_counter()
    for _ in range(load.events):
        take(loads(pickled))
    return perf_counter() - begin
