"""The command line: measures all that was asked for, and prints it."""

from __future__ import annotations

import argparse

import machine
import measure
import table
from works import all_works


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Measures EventPy's Python package against its peers, on this machine."
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="how often to measure each contender"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of few events: shows that everything runs, not how fast",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="ROW",
        help="measure only the rows whose name contains this, like `events/` or `/pyzmq`",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="accepted, since the tables are Markdown anyway"
    )
    arguments = parser.parse_args()
    plan = measure.Plan(
        rounds=1 if arguments.quick else max(arguments.rounds, 1),
        tries=1 if arguments.quick else 4,
        divisor=20 if arguments.quick else 1,
        only=arguments.only,
    )
    return benchmark(plan)


def benchmark(plan: measure.Plan) -> int:
    """Measures and prints; 1 if a contender failed."""
    cores = machine.cores()
    works = all_works()
    absent = measure.missing(works)
    for module, reason in absent.items():
        print(f"what needs `{module}` is left out: {reason}")
    outcomes = []
    for work in works:
        work.contenders = [each for each in work.contenders if each.needs not in absent]
        measured = measure.run(work, plan, cores)
        if measured:
            table.print_work(work, measured)
        outcomes += measured
    if outcomes:
        table.print_targets(outcomes)
    return int(any(outcome.error for outcome in outcomes))
