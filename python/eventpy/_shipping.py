"""How a dispatcher gets to its process: what is sent, and the command that starts it.

As with the standard library's spawn method, the process is a fresh interpreter that imports the
main module under another name and unpickles the dispatcher.
"""

from __future__ import annotations

import os.path
import sys

from eventpy._errors import DeployError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from eventpy._dispatcher import EventDispatcher

_AT_THE_TOP = "define it at the top level of a module"


def command() -> list[str]:
    """The command that starts a dispatcher process: this interpreter with its flags and path."""
    if not sys.executable:
        raise DeployError("the path of the interpreter is unknown: sys.executable is empty")
    program = f"import sys; sys.path[:] = {sys.path!r}; from eventpy._process import main; main()"
    return [sys.executable, *_interpreter_flags(), "-c", program]


#: Options of the command line by their names in `sys.flags`.
_FLAGS = {
    "optimize": "O",
    "debug": "d",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
}
_ISOLATING_FLAGS = {"ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}
_X_OPTIONS = (
    "dev",
    "faulthandler",
    "frozen_modules",
    "gil",
    "importtime",
    "int_max_str_digits",
    "tracemalloc",
    "utf8",
)


def _interpreter_flags() -> list[str]:
    """The options that this interpreter was started with, as the standard library passes them on.

    `subprocess` has such a function, too, but takes longer to import than a dispatcher to start.
    """
    names = _FLAGS if sys.flags.isolated else {**_FLAGS, **_ISOLATING_FLAGS}
    flags = ["-I"] if sys.flags.isolated else []
    for name, letter in names.items():
        times = int(getattr(sys.flags, name, 0))
        flags += ["-" + letter * times] if times else []
    # Filters that other options bring along.
    implied = ["default"] if sys.flags.dev_mode else []
    implied += ["error::BytesWarning", "default::BytesWarning"] if sys.flags.bytes_warning else []
    flags += [f"-W{option}" for option in sys.warnoptions if option not in implied]
    for name in _X_OPTIONS:
        value = sys._xoptions.get(name)
        if value is not None:
            flags += ["-X", name if value is True else f"{name}={value}"]
    return flags


def payload_of(dispatcher: EventDispatcher) -> bytes:
    """The dispatcher, and what its process needs before it can be unpickled."""
    from pickle import dumps

    in_main = [
        of.__qualname__
        for of in (type(dispatcher), *dispatcher._eventpy_types)
        if of.__module__ == "__main__"
    ]
    main = _main_module(bool(in_main))
    # The classes of the main module come back under the name that it has there.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    logging = sys.modules.get("logging")
    assignment = {
        "name": dispatcher._eventpy_registered_name,
        "may_drop": dispatcher._eventpy_options.may_drop,
        "argv": getattr(sys, "argv", None),
        "main": main,
        "log_level": logging.root.level if logging else None,
        "dispatcher": _pickled(dispatcher, in_main if main is None else []),
    }
    return dumps(assignment, 5)


def _main_module(needed: bool) -> tuple[str, str] | None:
    """How another process can make the main module: its name or its file."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # The `__main__` of a package seldom has a guard; it is run only for the classes in it.
        return ("name", name) if needed or not name.endswith("__main__") else None
    path = getattr(main, "__file__", None)
    if path is not None and os.path.isfile(path):
        return ("path", path)
    return None


def _pickled(dispatcher: EventDispatcher, by_value: list[str]) -> bytes:
    import pickle

    shipped = (dispatcher, dispatcher._eventpy_types)
    dumps: Callable[[object, int], bytes] = pickle.dumps
    if by_value:
        dumps = _cloudpickle(dispatcher, by_value)
    try:
        return dumps(shipped, 5)
    except Exception as error:
        raise DeployError(
            f"cannot ship dispatcher `{dispatcher._eventpy_registered_name}` to its process: "
            f"{_culprit(dispatcher, dumps) or error}"
        ) from error


def _cloudpickle(
    dispatcher: EventDispatcher, by_value: list[str]
) -> Callable[[object, int], bytes]:
    """The way to ship classes that only this process knows."""
    try:
        from cloudpickle import dumps
    except ImportError:
        raise DeployError(
            f"cannot ship dispatcher `{dispatcher._eventpy_registered_name}` to its process: "
            f"{' and '.join(by_value)} can't be imported there, because `__main__` has no file; "
            "install cloudpickle, or put it in a module"
        ) from None
    return dumps  # type: ignore[no-any-return]


def _culprit(dispatcher: EventDispatcher, dumps: Callable[[object, int], bytes]) -> str | None:
    """Which part of the dispatcher can't be pickled, and what to do about it."""
    for of, what in (
        (type(dispatcher), "its class"),
        *((of, "event type") for of in dispatcher._eventpy_types),
    ):
        if not _can(dumps, of):
            name = f"{of.__module__}.{of.__qualname__}"
            return f"{what} can't be imported as `{name}`; {_AT_THE_TOP}"
    for attribute, value in vars(dispatcher).items():
        if not _can(dumps, value):
            of = type(value)
            module = "" if of.__module__ == "builtins" else f"{of.__module__}."
            return (
                f"attribute `{attribute}` (a `{module}{of.__qualname__}`) can't be pickled; "
                "open it in `init` instead"
            )
    return None


def _can(dumps: Callable[[object, int], bytes], value: object) -> bool:
    try:
        dumps(value, 5)
    except Exception:
        return False
    return True
