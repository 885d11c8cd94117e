"""Log records of dispatchers arrive at the manager's loggers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eventpy import EventDispatchManager
from pumping import everything, pump_until
from sources import Logs

if TYPE_CHECKING:
    import pytest


def test_log_records_arrive(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    collector = everything()
    manager = EventDispatchManager(Logs(), collector)
    manager.deploy_dispatchers()
    pid = manager.stats()["Logs"].pid
    pump_until(manager, lambda: collector.is_over)
    report = manager.end_dispatchers()
    records = [record for record in caplog.records if record.name.startswith("a.")]
    assert [(record.name, record.levelname, record.getMessage()) for record in records] == [
        ("a.b", "INFO", "in init"),
        ("a.b", "WARNING", "in a thread"),
        ("a.b", "ERROR", "it failed"),
        ("a.c", "CRITICAL", "in finish"),
    ]
    assert all(record.process == pid for record in records)
    assert all(record.processName == "Logs" for record in records)
    assert records[2].exc_info is None, "exceptions never travel as objects"
    assert "ValueError: no luck" in (records[2].exc_text or "")
    assert vars(records[2])["answer"] == 42
    assert report["Logs"].sent == 0, "log records are no events"
    printed = capfd.readouterr()
    assert "a printed line" in printed.out
    assert "UserWarning: a warning" in printed.err


def test_levels_of_the_managers_loggers_hold(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.ERROR, logger="a.b")
    collector = everything()
    with EventDispatchManager(Logs(), collector) as manager:
        pump_until(manager, lambda: collector.is_over)
    names = [record.name for record in caplog.records if record.name.startswith("a.")]
    assert names == ["a.b", "a.c"]
