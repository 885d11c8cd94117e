"""Installs the package as users do, and checks it: tests, types, stubs, style.

    python3 python/check.py                       # with this interpreter
    python3 python/check.py --all-interpreters    # and the tests on every other one
    python3 python/check.py --demo 10             # installs it, and watches this machine for 10 s

Everything stays in `target`: virtual environments, builds, caches. What follows `--` goes to
pytest. Prints which interpreters ran, and exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
STUBTEST = ("--mypy-config-file", "pyproject.toml", "eventpy._eventpy")
PROBE = "import sys; print(sys.implementation.name, '.'.join(map(str, sys.version_info[:2])))"


def interpreters() -> dict[str, str]:
    """A CPython for each version that is supported and installed."""
    named = (shutil.which(f"python{version}") for version in VERSIONS)
    installed = sorted(Path.home().glob(".pyenv/versions/*/bin/python3"))
    found: dict[str, str] = {}
    for path in [sys.executable, *filter(None, named), *map(str, installed)]:
        probed = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, check=False)
        name, _, version = probed.stdout.strip().partition(" ")
        if name == "cpython" and version in VERSIONS:
            found.setdefault(version, path)
    return found


def run(what: str, *command: str, **environment: str) -> bool:
    """Runs one step; True if it went well."""
    print(f"\n== {what}", flush=True)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False)
    return done.returncode == 0


def install(version: str, interpreter: str) -> str | None:
    """Installs the package with all that its tests need; the interpreter of its environment."""
    this = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = ROOT / "target" / ("venv" if version == this else f"venv-{version}")
    python = str(folder / "bin" / "python")
    target = str(ROOT / "target" / "python" / version)
    made = Path(python).exists() or run(f"venv {version}", interpreter, "-m", "venv", str(folder))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if made and run(f"install {version}", *pip, ".[test,examples]", CARGO_TARGET_DIR=target):
        return python
    return None


def check(version: str, interpreter: str, thorough: bool, arguments: list[str]) -> list[str]:
    """The steps that failed."""
    python = install(version, interpreter)
    if python is None:
        return [f"install {version}"]
    steps = [(f"tests {version}", (python, "-m", "pytest", *arguments))]
    if thorough:
        steps += [
            ("types", (python, "-m", "mypy")),
            ("stubs", (python, "-m", "mypy.stubtest", *STUBTEST)),
            ("style", (python, "-m", "ruff", "check", ".")),
            ("format", (python, "-m", "ruff", "format", "--check", ".")),
        ]
    return [what for what, command in steps if not run(what, *command)]


def demo(version: str, interpreter: str, seconds: str) -> NoReturn:
    """Becomes the demo, so that Ctrl-C is its own."""
    python = install(version, interpreter)
    if python is None:
        sys.exit("the package could not be installed")
    program = str(ROOT / "examples" / "python" / "machine_watch.py")
    os.execv(python, [python, program, "--seconds", seconds])


def main() -> None:
    """Checks what the command line asks for."""
    parser = argparse.ArgumentParser(description="Installs the Python package and checks it.")
    parser.add_argument("--all-interpreters", action="store_true")
    parser.add_argument("--demo", metavar="SECONDS", help="install and run the demo instead")
    parser.add_argument("pytest", nargs="*", help="what pytest is given, after --")
    options = parser.parse_args()
    found = interpreters()
    this = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if this not in found:
        sys.exit(f"CPython {this} is not supported; use one of {', '.join(VERSIONS)}")
    if options.demo is not None:
        demo(this, found[this], options.demo)
    chosen = list(found) if options.all_interpreters else [this]
    failed: list[str] = []
    for version in chosen:
        failed += check(version, found[version], version == this, options.pytest)
    missing = [version for version in VERSIONS if version not in chosen]
    print(f"\nran on CPython {', '.join(sorted(chosen, key=VERSIONS.index))}", end="")
    print(f"; not on {', '.join(missing)}" if missing else "")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
