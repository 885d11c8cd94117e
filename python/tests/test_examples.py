"""The examples and the documents run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import eventpy

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"
LINE = re.compile(r"(greeting|farewell) (\d+) (hello|goodbye)")


def run(*arguments: object, **options: Any) -> str:
    """What a program prints, if all is well."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, **options)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_a_script_of_version_1_prints_what_it_always_printed() -> None:
    lines = run(EXAMPLES / "version_1.py").splitlines()
    assert lines.count("the speaker has finished") == 1
    assert lines[-1] == "the manager has finished"
    said = [match for match in map(LINE.fullmatch, lines) if match]
    assert len(said) == len(lines) - 2
    assert 10 <= len(said) <= 22, "two lines a pump, and two for the last events"
    for kind in ("greeting", "farewell"):
        ids = [int(match[2]) for match in said if match[1] == kind]
        assert ids == sorted(set(ids)), "each event once and in order"
    assert int(said[-1][2]) > 1000


def test_the_same_script_gets_every_event_with_the_import_of_today(tmp_path: Path) -> None:
    text = (EXAMPLES / "version_1.py").read_text()
    today = text.replace("from eventpy.events import", "from eventpy import")
    assert today != text
    script = tmp_path / "script.py"
    # What the dispatcher prints could come in the middle of a line of the manager.
    quiet = today.replace('print("the speaker has finished")', "pass")
    script.write_text(quiet.replace("time.sleep(0.5)", "time.sleep(0.05)"))
    said = [match for match in map(LINE.fullmatch, run(script).splitlines()) if match]
    assert [int(match[2]) for match in said] == [*range(1, len(said) + 1)]
    assert len(said) > 1000


def test_machine_watch_shows_the_machine() -> None:
    printed = run(EXAMPLES / "machine_watch.py", "--seconds", 2)
    assert re.search(r"[1-9]\d* cores \d+% busy, [1-9]\d* file changes", printed)
    for dispatcher in ("CpuWatch", "MemoryWatch", "FolderWatch"):
        assert re.search(rf"{dispatcher} +ran, ", printed)


def test_the_example_of_the_package_runs(tmp_path: Path) -> None:
    assert eventpy.__doc__ is not None
    example = eventpy.__doc__[eventpy.__doc__.index("    from eventpy import") :]
    script = tmp_path / "example.py"
    two_ticks = 'until=lambda: manager.stats()["Clock"].delivered >= 2'
    assert "duration=5" in example
    script.write_text(textwrap.dedent(example).replace("duration=5", two_ticks))
    printed = run(script)
    assert printed.splitlines()[:2] == ["1", "2"]
    # What the dispatcher prints may come in the middle of a line of the manager.
    assert "ticks:" in printed


def documents() -> list[Any]:
    """The Python programs in the documents, by document and line."""
    found = []
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = document.read_text()
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if "__main__" in match[1]:
                line = text.count("\n", 0, match.start()) + 1
                where = f"{document.relative_to(ROOT)}:{line}"
                found.append(pytest.param(match[1], id=where))
    return found


@pytest.mark.parametrize("program", documents())
def test_the_programs_of_the_documents_run(program: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    assert run(script)
