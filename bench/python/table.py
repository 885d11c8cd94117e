"""What was measured, as tables that are also Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from targets import TARGETS, Target

if TYPE_CHECKING:
    from measure import Outcome, Work


def print_work(work: Work, outcomes: list[Outcome]) -> None:
    """Prints the table of one work: medians with their range, and ratios to the reference."""
    reference = next((each.median(0) for each in outcomes if each.name == work.reference), None)
    header = ["contender", *work.columns, *([f"x {work.reference}"] if work.reference else [])]
    rows = []
    for outcome in outcomes:
        row = [outcome.name, *(_cell(outcome, column) for column in range(len(work.columns)))]
        if work.reference:
            own = outcome.median(0)
            row.append(_number(own / reference) if own and reference else "-")
        rows.append(row)
    _print_titled(work.title, [header, *rows])
    for outcome in outcomes:
        if outcome.error:
            print(f"`{outcome.row}` failed: {outcome.error}\n")
        elif outcome.disturbed:
            share = f"{outcome.disturbed} of {len(outcome.figures)}"
            print(f"`{outcome.row}`: other programs disturbed {share} rounds")


def print_targets(outcomes: list[Outcome]) -> None:
    """Prints each promised figure, what was reached, and whether that is enough."""
    header = ["row", "against", "promised", "reached", "verdict"]
    _print_titled("Figures to reach", [header, *(_target(each, outcomes) for each in TARGETS)])


def _target(target: Target, outcomes: list[Outcome]) -> list[str]:
    figure = target.figure(outcomes)
    promised = f"{'>=' if target.at_least else '<='} {target.bound} {target.unit}"
    if figure is None:
        reached, verdict = "-", "not measured"
    else:
        reached = f"{_number(figure)} {target.unit}"
        verdict = "met" if target.is_met(figure) else "short"
    return [target.row, target.against or "-", promised, reached, verdict]


def _cell(outcome: Outcome, column: int) -> str:
    middle, values = outcome.median(column), outcome.values(column)
    if middle is None:
        return "failed"
    return f"{_number(middle)} ({_number(values[0])} .. {_number(values[-1])})"


def _print_titled(title: str, rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    print(f"\n### {title}\n")
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            print(f"| {' | '.join(rules)} |")
    print()


def _number(value: float) -> str:
    """Three digits that count."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"
