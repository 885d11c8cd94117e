"""Log records on their way from a dispatcher to the manager's loggers."""

from __future__ import annotations

import logging
import os
from pickle import dumps, loads

from eventpy import _eventpy
from eventpy._errors import EventAPIException, Interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = (str, int, float, bool, type(None))
_pending: list[bytes] = []


class ShippingHandler(logging.Handler):
    """Sends what reaches the root logger of a dispatcher process."""

    def __init__(self, dispatcher: str) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _pending.append(dumps(self._fields_of(record), 5))
            send_pending()
        except Exception:
            self.handleError(record)

    def _fields_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record with its message and traceback as text; nothing else than plain values."""
        fields = {name: value for name, value in vars(record).items() if type(value) in _PLAIN}
        fields.update(msg=record.getMessage(), args=None, exc_info=None)
        fields["processName"] = self.dispatcher
        if record.exc_info and not record.exc_text:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        return fields


def install(dispatcher: str, level: int | None) -> None:
    """Sends all records of this process to the manager, from its root logger's level on."""
    root = logging.getLogger()
    handler = ShippingHandler(dispatcher)
    root.addHandler(handler)
    os.register_at_fork(after_in_child=lambda: _ship_no_more(handler))
    if level is not None:
        root.setLevel(level)


def _ship_no_more(handler: logging.Handler) -> None:
    """A process that the dispatcher's code forked off logs as one without a configuration."""
    logging.getLogger().removeHandler(handler)
    _pending.clear()


def send_pending() -> None:
    """Sends what waits; what can't be sent now goes on waiting."""
    while _pending:
        record = _pending.pop(0)
        try:
            _eventpy.send_log(record)
        except (EventAPIException, Interruption):
            _pending.insert(0, record)
            return


def handle(record: bytes) -> None:
    """Hands a record of a dispatcher to the logger of its name here."""
    made = logging.makeLogRecord(loads(record))
    logger = logging.getLogger(made.name)
    if logger.isEnabledFor(made.levelno):
        logger.handle(made)
