"""Managers that only the garbage collector can reach: they leave as tidily as others."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from eventpy import DispatcherFailed, Event, EventDispatchManager, EventListener
from pumping import Collector, children, descriptors, lines_of, pump_until, wait_until
from sources import Counter, Finishes, Hooked, HookedCounter, Number

if TYPE_CHECKING:
    from pathlib import Path


def through_a_closure(manager: EventDispatchManager) -> None:
    manager.register_listener(EventListener({Number: lambda event: manager.stats()}))


def through_a_method(manager: EventDispatchManager) -> None:
    class Owner(EventListener):
        def __init__(self) -> None:
            super().__init__({Number: self.on_number})
            self.manager = manager

        def on_number(self, event: Number) -> None:
            pass

    manager.register_listener(Owner())


def through_a_method_of_the_manager(manager: EventDispatchManager) -> None:
    manager._native.subscribe(DispatcherFailed, manager._native.stats)  # type: ignore[arg-type]


def through_a_class_that_is_listened_to(manager: EventDispatchManager) -> None:
    class Local(Event):
        owner = manager

    manager._native.subscribe(Local, print)


CYCLES = [
    through_a_closure,
    through_a_method,
    through_a_method_of_the_manager,
    through_a_class_that_is_listened_to,
]


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("pumps", [True, False])
def test_a_manager_in_a_cycle_ends_its_dispatchers(cycle: Any, pumps: bool, tmp_path: Path) -> None:
    diary = tmp_path / "diary"

    def use() -> weakref.ref[Any]:
        manager = EventDispatchManager(Finishes(str(diary)))
        cycle(manager)
        manager.deploy_dispatchers()
        wait_until(lambda: len(lines_of(diary)) == 1)
        if pumps:
            wait_until(manager.invoke_dispatch)
        return weakref.ref(manager)

    gc.collect()
    before = descriptors()
    manager = use()
    gc.collect()
    assert manager() is None
    assert lines_of(diary)[1:] == ["finish"]
    assert children() == []
    wait_until(lambda: descriptors() == before)


def test_a_class_of_a_dispatcher_does_not_keep_its_manager() -> None:
    def use() -> weakref.ref[Any]:
        manager = EventDispatchManager()

        class Local(Event):
            owner = manager

        options = Counter(0)._eventpy_options
        manager._native.add("Counter", [Local], ["Local"], b"", ["true"], options)
        return weakref.ref(manager)

    manager = use()
    gc.collect()
    assert manager() is None


SCRIPT = """
    import sys
    from eventpy import EventDispatchManager, EventListener
    from sources import Counter, Number

    class Writer(EventListener):
        def __init__(self, path):
            super().__init__({Number: self.on_number})
            self.file = open(path, "w")

        def on_number(self, event):
            self.file.write(f"{event.n}\\n")

    if __name__ == "__main__":
        manager = EventDispatchManager(Counter(100), Writer(sys.argv[1]))
        manager.deploy_dispatchers()
        while manager.stats()["Counter"].delivered < 100:
            manager.invoke_dispatch(timeout=0.5)
        manager.end_dispatchers()
"""


def test_what_a_listener_wrote_is_in_its_file_when_the_program_has_ended(tmp_path: Path) -> None:
    script, lines = tmp_path / "program.py", tmp_path / "lines"
    head = f"import sys; sys.path.append({os.path.dirname(__file__)!r})\n"
    script.write_text(head + textwrap.dedent(SCRIPT))
    subprocess.run([sys.executable, str(script), str(lines)], check=True, timeout=60)
    assert lines.read_text().split() == [str(n) for n in [*range(100), -1]]


def test_a_collection_at_any_time_takes_nothing_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def collect(event: Number) -> None:
        gc.collect()

    monkeypatch.setattr(Hooked, "when_made", staticmethod(collect))
    collector = Collector(Number)
    manager = EventDispatchManager(HookedCounter(10), collector, EventListener({Number: collect}))
    manager.deploy_dispatchers()
    is_over = threading.Event()

    def keep_collecting() -> None:
        while not is_over.is_set():
            gc.collect()

    thread = threading.Thread(target=keep_collecting)
    thread.start()
    pump_until(manager, lambda: len(collector.events) == 10)
    is_over.set()
    thread.join()
    assert manager.end_dispatchers().is_clean
    assert collector.numbers == [*range(10)]
