"""Works, their contenders, and measuring these in interleaved rounds.

Round 1 runs each contender once, then round 2 does, and so on, so that whatever slows the machine
for a while slows all of them. A figure is the median over the rounds. A run beside which other
programs worked is repeated.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from typing import Callable

import machine
from load import Load

#: What one run of a contender found: a number for each column of its work.
Figures = list[float]
#: One run; the calling process is the consumer.
Measure = Callable[[Load], Figures]

#: No contender takes nearly as long for one run, in seconds, so it hangs.
LIMIT = 120.0
#: How long other programs get to finish before a disturbed run is repeated, in seconds.
RECOVERY = 2.0


@dataclass
class Contender:
    """One way to do a work."""

    #: The second part of its row's name.
    name: str
    measure: Measure
    #: What a full run moves.
    load: Load
    #: The module that it can't do without.
    needs: str | None = None
    #: Whether its two sides share a core, so that waking the consumer takes neither an interrupt to
    #: another core nor getting that core out of its idle state, which can cost many times as much
    #: as all the software does, most of all in a virtual machine.
    shares_core: bool = False


@dataclass
class Work:
    """A task, and all who contend in it."""

    #: The first part of its rows' names.
    name: str
    #: The headline of its table.
    title: str
    #: What each figure is, with its unit.
    columns: tuple[str, ...]
    #: The contender that the ratios are taken to, by the first column.
    reference: str | None
    #: In the order of the rounds.
    contenders: list[Contender]

    def row(self, contender: Contender) -> str:
        """The name of a contender's row, as `--only` and the targets use it."""
        return f"{self.name}/{contender.name}"


@dataclass
class Plan:
    """How much to measure."""

    #: How often each contender runs.
    rounds: int
    #: How often a contender runs in one round, at most, until nobody disturbs it.
    tries: int
    #: A full run moves this many times as many events.
    divisor: int
    #: Only rows that contain this.
    only: str


@dataclass
class Outcome:
    """All runs of one contender."""

    row: str
    name: str
    #: One a round.
    figures: list[Figures] = field(default_factory=list)
    #: What went wrong.
    error: str = ""
    #: How many of the figures other programs disturbed.
    disturbed: int = 0

    def median(self, column: int) -> float | None:
        """Over the rounds, if every round went well."""
        values = self.values(column)
        return median(values) if values else None

    def values(self, column: int) -> list[float]:
        """Of each round, sorted; none if a round failed."""
        return [] if self.error else sorted(figures[column] for figures in self.figures)


def missing(works: list[Work]) -> dict[str, str]:
    """The modules that contenders need and that can't be imported, and why not."""
    needed = {contender.needs for work in works for contender in work.contenders}
    reasons = {}
    for module in sorted(needed - {None}, key=str):
        try:
            import_module(str(module))
        except Exception as error:
            reasons[str(module)] = str(error)
    return reasons


def run(work: Work, plan: Plan, cores: tuple[int, int]) -> list[Outcome]:
    """Measures the contenders of a work that the plan includes."""
    included = [contender for contender in work.contenders if plan.only in work.row(contender)]
    outcomes = [Outcome(work.row(contender), contender.name) for contender in included]
    for number in range(1, plan.rounds + 1):
        for contender, outcome in zip(included, outcomes):
            if not outcome.error:
                print(f"round {number} of {plan.rounds}: {outcome.row}", file=sys.stderr)
                _take_part(contender, outcome, plan, cores)
    return outcomes


def _take_part(contender: Contender, outcome: Outcome, plan: Plan, cores: tuple[int, int]) -> None:
    """One round of one contender. One that has failed takes no further part."""
    producer, consumer = cores
    load = contender.load.scaled(
        plan.divisor, (producer, producer if contender.shares_core else consumer)
    )
    best: tuple[float, Figures] | None = None
    for attempt in range(plan.tries):
        if attempt > 0:
            time.sleep(RECOVERY)
        try:
            next_one = _measure_once(contender, load)
        except Exception as error:
            outcome.error = f"{type(error).__name__}: {error}"
            return
        best = next_one if best is None else min(best, next_one)
        if best[0] <= machine.DISTURBING:
            break
    assert best is not None, "there is at least one try"
    outcome.figures.append(best[1])
    outcome.disturbed += best[0] > machine.DISTURBING


def _measure_once(contender: Contender, load: Load) -> tuple[float, Figures]:
    """One run: the share of the machine's time that others used meanwhile, and the figures."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    try:
        machine.unpin()
        then = machine.ProcessorTime()
        figures = contender.measure(load)
        return machine.ProcessorTime().used_by_others_since(then), figures
    finally:
        faulthandler.cancel_dump_traceback_later()
