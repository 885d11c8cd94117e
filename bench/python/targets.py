"""The figures that EventPy promises to reach, held against what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from measure import Outcome


@dataclass
class Target:
    """A promised figure, by the first column."""

    #: The row that must reach it.
    row: str
    #: Whether it is to be as large as the bound or larger, instead of as small or smaller.
    at_least: bool
    bound: float
    #: The row that it is a ratio to; without one, it counts in the unit.
    against: str = ""
    unit: str = "x"

    def figure(self, outcomes: list[Outcome]) -> float | None:
        """What was reached, if the rows were measured."""
        medians = {outcome.row: outcome.median(0) for outcome in outcomes}
        own = medians.get(self.row)
        if own is None or not self.against:
            return own
        other = medians.get(self.against)
        return own / other if other else None

    def is_met(self, figure: float) -> bool:
        """Whether that is enough."""
        return figure >= self.bound if self.at_least else figure <= self.bound


TARGETS = [
    Target("events/eventpy", True, 12, "events/Pipe"),
    Target("events/eventpy", True, 15, "events/Queue"),
    Target("events/eventpy", True, 10, "events/pyzmq"),
    Target("events/eventpy", True, 10, "events/iceoryx2"),
    Target("events/eventpy", True, 1, "events/pickle alone"),
    Target("sleeping/eventpy", False, 0.5, "sleeping/Pipe"),
    Target("frames/eventpy", True, 4, "frames/faster-fifo"),
    Target("frames/eventpy", True, 0.6, "frames/memcpy"),
    Target("import/eventpy", False, 15, unit="ms"),
    Target("deploy/eventpy", False, 1.3, "deploy/bare interpreters"),
    Target("memory/eventpy", False, 3, unit="MB"),
]
