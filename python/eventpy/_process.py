"""The dispatcher's process, before and after the native loop.

A light version of what `multiprocessing.spawn` does: importing that would take longer than all the
rest of the start. For the same reason some imports stand in functions, and `_signal` and `_pickle`
are imported instead of the modules around them.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGINT, SIGTERM, getsignal, siginterrupt, signal
from _thread import get_ident

from eventpy import _eventpy
from eventpy._errors import Interruption, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from typing import Any

    from eventpy._dispatcher import EventDispatcher
    from eventpy._event import Event


def _import_pickle() -> Any:
    """Imports `_pickle`, which wants nothing of `functools` but `partial`.

    All of `functools` takes longer to import than everything else that a dispatcher needs.
    """
    if "functools" in sys.modules:
        import _pickle

        return _pickle
    import _functools

    sys.modules["functools"] = _functools
    try:
        import _pickle
    finally:
        del sys.modules["functools"]
    return _pickle


loads = _import_pickle().loads


def main() -> None:
    """Becomes the dispatcher that the manager wants, and exits."""
    # The engine puts handlers of its own over these two. Its handler of SIGTERM calls this one too;
    # that of SIGINT does nothing, because only the manager decides.
    signal(SIGTERM, _on_sigterm)
    signal(SIGINT, SIG_DFL)
    os.register_at_fork(after_in_child=_leave_signals_alone)
    dispatchers_thread = get_ident()
    _eventpy.run_dispatcher(_load, lambda: _locate(dispatchers_thread))
    sys.exit("eventpy: this process was not started by a manager")


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    if _eventpy.interrupt():
        raise Interruption


def _leave_signals_alone() -> None:
    """In a process that the dispatcher's code forked off, SIGTERM ends that process."""
    if getsignal(SIGTERM) is _on_sigterm:
        signal(SIGTERM, SIG_DFL)


def _load(payload: bytes) -> tuple[EventDispatcher, list[type[Event]], bool]:
    """Makes the dispatcher and its event types; also tells whether events may be dropped."""
    # The engine's handler lets a blocked system call go on; ours is to cut it short.
    siginterrupt(SIGTERM, True)
    assignment = loads(payload)
    if assignment["argv"] is not None:
        sys.argv = assignment["argv"]
    _ship_logs(assignment["name"], assignment["log_level"])
    if assignment["main"] is not None:
        _restore_main(*assignment["main"])
    dispatcher, event_types = loads(assignment["dispatcher"])
    if assignment["main"] is None:
        _adopt(dispatcher, event_types)
    _settle(dispatcher)
    return dispatcher, list(event_types), assignment["may_drop"]


def _settle(dispatcher: EventDispatcher) -> None:
    """Makes the attributes of an unpickled object as quick to reach as those of any other.

    Unpickling fills the dictionary that instances share the keys of. The interpreter (CPython 3.11
    and later) has no short way to attributes in such a one, which makes an `update` that reads and
    writes a few a third slower. A class that brings its own way of being unpickled may have meant
    its dictionary to be the one that it is.
    """
    kind = type(dispatcher)
    is_plain = (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and not hasattr(kind, "__setstate__")
    )
    namespace = dispatcher.__dict__
    if is_plain and type(namespace) is dict:
        # Not by `__setattr__`, which a class may have of its own.
        object.__setattr__(dispatcher, "__dict__", {**namespace})


def _restore_main(kind: str, where: str) -> None:
    """Runs the main module under another name, so that its guard keeps the program out."""
    if kind == "path":
        module = _new_main()
        module.__file__ = where
        with open(where, "rb") as file:
            code = compile(file.read(), where, "exec", dont_inherit=True)
        exec(code, module.__dict__)
        return
    import runpy

    module = _new_main()
    module.__dict__.update(runpy.run_module(where, run_name="__mp_main__", alter_sys=True))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _new_main() -> ModuleType:
    module = type(sys)("__mp_main__")
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _adopt(dispatcher: EventDispatcher, event_types: tuple[type[Event], ...]) -> None:
    """Makes classes that were shipped by value known as those of the main module."""
    main = sys.modules["__main__"]
    for shipped in (type(dispatcher), *event_types):
        if shipped.__module__ != "__main__":
            continue
        for function in vars(shipped).values():
            for name, value in getattr(function, "__globals__", {}).items():
                main.__dict__.setdefault(name, value)
        setattr(main, shipped.__qualname__, shipped)


def arguments_from(
    dispatcher: EventDispatcher, returned: object
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `update` and `finish`, from what `init` returned."""
    if returned is None:
        return (), {}
    if isinstance(returned, tuple) and len(returned) == 2:
        arguments, keywords = returned
        if (
            isinstance(arguments, (tuple, list))
            and isinstance(keywords, dict)
            and all(isinstance(name, str) for name in keywords)
        ):
            return tuple(arguments), keywords
    raise OptionError(
        f"`{type(dispatcher).__name__}.init` returned {returned!r}; return positional and keyword "
        "arguments for update and finish, like `(), {'count': [0]}`, or None"
    )


def describe(error: BaseException) -> tuple[str, str]:
    """An exception in a sentence, and its traceback."""
    import traceback

    kind = type(error)
    sentence = traceback.format_exception_only(kind, error)[0].strip()
    return sentence, "".join(traceback.format_exception(kind, error, error.__traceback__))


def _locate(thread: int) -> str:
    """Where a thread is. Called in another one, which `threading` may take for the main thread."""
    import traceback

    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame))


def run_exit_functions() -> None:
    """The first that the interpreter would do at its end."""
    import atexit

    atexit._run_exitfuncs()


def flush_files() -> None:
    """The last that the interpreter would do at its end, for files that nobody has closed."""
    import gc
    from _io import _IOBase

    # Found first, so that the collector keeps them: of those in a cycle, it may close a file before
    # the wrapper that has text for it.
    files = [each for each in gc.get_objects() if issubclass(type(each), _IOBase)]
    gc.collect()
    for file in (*files, sys.stdout, sys.stderr):
        try:
            file.flush()
        except Exception:
            continue  # it is closed, or nobody reads it any more


def send_pending_logs() -> None:
    """Sends the log records that could not be sent when they were made."""
    logging = sys.modules.get("eventpy._logging")
    if logging is not None:
        logging.send_pending()


def _ship_logs(name: str, level: int | None) -> None:
    """Sends log records to the manager, from the moment on when `logging` is imported."""
    if "logging" in sys.modules:
        _install_handler(name, level)
    else:
        sys.meta_path.insert(0, _LoggingFinder(name, level))


def _install_handler(name: str, level: int | None) -> None:
    from eventpy._logging import install

    install(name, level)


class _LoggingFinder:
    """Notices that `logging` is imported, once."""

    def __init__(self, dispatcher: str, level: int | None) -> None:
        self.dispatcher = dispatcher
        self.level = level

    def find_spec(
        self, name: str, _path: object = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "logging":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _install_handler(self.dispatcher, self.level)

        loader.exec_module = exec_module
