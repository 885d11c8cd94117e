"""Every error of eventpy, and how several become one."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eventpy._event import DispatcherFailed


class EventAPIException(Exception):  # noqa: N818
    """The base of all errors of eventpy.

    try:
        manager.deploy_dispatchers()
    except EventAPIException as error:
        print("no events today:", error)
    """


class ArgumentError(EventAPIException, TypeError):
    """An argument is of a wrong type: a callback that is not callable, a listener that is none."""


class OptionError(EventAPIException, ValueError):
    """An option of a dispatcher has a value that can't be met."""


class StateError(EventAPIException, RuntimeError):
    """A call does not fit the state: deployed already, not deployed, not in this process."""


class ReentrantError(StateError):
    """`invoke_dispatch` was called while it is under way, in a callback or another thread."""


class ResourceError(EventAPIException):
    """The operating system refused memory, a descriptor or a process."""


class DeployError(EventAPIException):
    """A dispatcher can't be taken to its process, or did not start there."""


class EventError(EventAPIException):
    """An event can't be pickled or unpickled, or is too large."""


class EventTypeError(EventError, TypeError):
    """A dispatcher sent what is no event, or an event of a type that it did not declare."""


class DispatcherError(EventAPIException):
    """A dispatcher failed, and no listener is registered for `DispatcherFailed`.

    try:
        manager.invoke_dispatch()
    except DispatcherError as error:
        print(error.failed.dispatcher, error.failed.traceback)
    """

    #: The failure; of several, the first.
    failed: DispatcherFailed
    #: All failures of that pump.
    failures: tuple[DispatcherFailed, ...]

    def __init__(self, *failures: DispatcherFailed) -> None:
        super().__init__("\n".join(map(str, failures)))
        self.failed = failures[0]
        self.failures = failures

    def __reduce__(self) -> tuple[type[DispatcherError], tuple[DispatcherFailed, ...]]:
        return DispatcherError, self.failures


class Interruption(BaseException):
    """Takes a blocked `update` to its end. No program ever sees it outside of that."""


def combined(errors: list[BaseException], failures: list[DispatcherFailed]) -> BaseException:
    """One exception for all that went wrong in one pump.

    A single error is raised as itself. Of several, one that no `except Exception` would catch comes
    first; otherwise they become an ExceptionGroup, or before Python 3.11, the first with the others
    as its context.
    """
    everything = [*errors, DispatcherError(*failures)] if failures else errors
    urgent = [error for error in everything if not isinstance(error, Exception)]
    if len(everything) == 1:
        return everything[0]
    if sys.version_info >= (3, 11) and not urgent:
        ordinary = [error for error in everything if isinstance(error, Exception)]
        return ExceptionGroup("several callbacks or dispatchers failed", ordinary)  # noqa: F821
    first = (urgent or everything)[0]
    _chain(first, [error for error in everything if error is not first])
    return first


def _chain(error: BaseException, others: list[BaseException]) -> None:
    """Hangs the others behind the end of the error's own chain."""
    for other in others:
        while error.__context__ is not None:
            error = error.__context__
        if error is not other:
            error.__context__ = other
