"""Dispatchers and events for the tests. Their processes import this module."""

from __future__ import annotations

import atexit
import gzip
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from eventpy import Event, EventDispatcher

if TYPE_CHECKING:
    from collections.abc import Callable


class Number(Event):
    def __init__(self, n: int) -> None:
        self.n = n


class Text(Event):
    def __init__(self, text: str) -> None:
        self.text = text


class Special(Number):
    pass


class Hooked(Number):
    """Whoever wants to do something while it is made of bytes sets `when_made`."""

    when_made: Callable[[Hooked], object] = staticmethod(lambda event: None)

    def __init__(self, n: int, payload: Any = None) -> None:
        super().__init__(n)
        self.payload = payload

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        type(self).when_made(self)


class Undeclared(Event):
    pass


class ThreadedNumber(Event):
    def __init__(self, thread: int, n: int) -> None:
        self.thread = thread
        self.n = n


class Threads(EventDispatcher):
    """Sends numbers from several threads at once, through a ring with room for few."""

    def __init__(self, threads: int, numbers: int) -> None:
        super().__init__(ThreadedNumber, buffer_bytes=4096)
        self.threads = threads
        self.numbers = numbers

    def send(self, thread: int) -> None:
        for number in range(self.numbers):
            self.emit(ThreadedNumber(thread, number))

    def update(self) -> None:
        threads = [threading.Thread(target=self.send, args=(n,)) for n in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.end()

    def finish(self) -> None:
        pass


class Counter(EventDispatcher):
    """Sends numbers from 0, and -1 from `finish`; then waits."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(Number, **options)
        self.count = count

    def init(self) -> Any:
        return (), {"sent": [0]}

    def update(self, sent: list[int]) -> Any:
        if sent[0] == self.count:
            self.wait(60)
            return None
        sent[0] += 1
        return Number(sent[0] - 1)

    def finish(self, sent: list[int]) -> None:
        self.emit(Number(-1))


class HookedCounter(EventDispatcher):
    """Sends hooked numbers from 0, each with a payload; then waits."""

    def __init__(self, count: int, payload: Any = None, **options: Any) -> None:
        super().__init__(Hooked, **options)
        self.count = count
        self.payload = payload

    def init(self) -> Any:
        return (), {"sent": [0]}

    def update(self, sent: list[int]) -> Any:
        if sent[0] == self.count:
            self.wait(60)
            return None
        sent[0] += 1
        return Hooked(sent[0] - 1, self.payload)

    def finish(self, sent: list[int]) -> None: ...


class Returns(EventDispatcher):
    """Each update returns what the next of these makes; then it ends."""

    def __init__(self, *kinds: str) -> None:
        super().__init__(Number)
        self.kinds = list(kinds)

    def update(self) -> Any:
        kind = self.kinds.pop(0)
        if not self.kinds:
            self.end()
        return {
            "none": lambda: None,
            "tuple": lambda: (Number(1), Number(2)),
            "empty tuple": lambda: (),
            "list": lambda: [Number(3), Special(4)],
            "empty list": list,
            "generator": lambda: (Number(n) for n in (5, 6)),
            "iterator": lambda: iter([Number(7)]),
            "single": lambda: Number(8),
            "derived": lambda: Special(9),
            "text": lambda: "text",
            "list of texts": lambda: ["text"],
            "undeclared": lambda: Undeclared(),
        }[kind]()

    def finish(self) -> None:
        pass


class Emits(EventDispatcher):
    """Emits from init, update, another thread and finish."""

    def __init__(self) -> None:
        super().__init__(Number)

    def init(self) -> None:
        self.emit(Number(1))

    def update(self) -> None:
        self.emit(Number(2))
        thread = threading.Thread(target=self.emit, args=(Number(3),))
        thread.start()
        thread.join()
        self.end()

    def finish(self) -> None:
        self.emit(Number(4))


class Blocked(EventDispatcher):
    """Blocks in `update` as only a signal can end."""

    def __init__(self, where: str, **options: Any) -> None:
        super().__init__(Text, end_timeout=1.0, **options)
        self.where = where

    def update(self) -> None:
        self.emit(Text("blocking"))
        if self.where == "sleep":
            time.sleep(600)
        elif self.where == "socket":
            pair = socket.socketpair()
            pair[0].recv(1)
        elif self.where == "queue":
            queue.Queue[int]().get()
        elif self.where == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        elif self.where == "full ring":
            while True:
                self.emit(Text("x" * 1000))
        elif self.where == "generator":
            self._sleep_in_generator()

    def _sleep_in_generator(self) -> None:
        for _ in (time.sleep(600) for _ in range(3)):
            pass

    def finish(self) -> None:
        self.emit(Text("finished"))


class Finishes(EventDispatcher):
    """Writes a line to a file when it is initialised, and one each time it finishes."""

    def __init__(self, path: str, busy: bool = False) -> None:
        super().__init__(Number)
        self.path = path
        self.busy = busy

    def init(self) -> None:
        self._write(f"init {os.getpid()}\n")
        self.emit(Number(os.getpid()))

    def update(self) -> Any:
        if self.busy:
            return Number(0)
        self.wait(60)
        return None

    def finish(self) -> None:
        self._write("finish\n")

    def _write(self, line: str) -> None:
        with open(self.path, "a") as file:
            file.write(line)


class LeavesOpen(EventDispatcher):
    """Writes to files that it leaves open."""

    def __init__(self, folder: str) -> None:
        super().__init__(Number)
        self.folder = folder

    def init(self) -> Any:
        self.attribute = self._open("attribute")
        globals()["LEFT_OPEN"] = self._open("global")
        closure = self._open("closure")
        atexit.register(lambda: closure.write("from atexit\n"))
        # A cycle, which only the collector can delete.
        self.deleted = (self, self._note_deletion)
        return (self._open("argument"),), {"archive": gzip.open(f"{self.folder}/archive", "wt")}

    def _open(self, name: str) -> Any:
        file = open(f"{self.folder}/{name}", "w")  # noqa: SIM115
        file.write(f"{name}\n")
        return file

    def _note_deletion(self) -> None: ...

    def __del__(self) -> None:
        # Unpickling and the manager make others.
        if hasattr(self, "deleted"):
            self.attribute.write("from __del__\n")

    def update(self, argument: Any, archive: Any) -> None:
        archive.write("archive\n")
        self.end()

    def finish(self, argument: Any, archive: Any) -> None:
        print("printed")


class SlowFinish(EventDispatcher):
    """Its `finish` takes some time, in which SIGTERM must not cut it short."""

    def __init__(self) -> None:
        super().__init__(Text)

    def update(self) -> None:
        self.wait(60)

    def finish(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        self.emit(Text("finished"))


class Raises(EventDispatcher):
    """Raises where it is told to."""

    def __init__(self, where: str, **options: Any) -> None:
        super().__init__(Number, **options)
        self.where = where

    def _raise_in(self, where: str) -> None:
        if self.where == where:
            raise ValueError(f"no luck in {where}")

    def init(self) -> None:
        self._raise_in("init")

    def update(self) -> None:
        self.emit(Number(1))
        self._raise_in("update")
        self.end()

    def finish(self) -> None:
        self.emit(Number(2))
        self._raise_in("finish")


class Dies(EventDispatcher):
    """Kills its own process after some events."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Number, **options)

    def update(self) -> None:
        for n in range(100):
            self.emit(Number(n))
        os.kill(os.getpid(), signal.SIGKILL)

    def finish(self) -> None:
        pass


class Hangs(EventDispatcher):
    """An update that takes longer than allowed."""

    def __init__(self) -> None:
        super().__init__(Number, update_timeout=0.2, end_timeout=0.5)

    def update(self) -> None:
        self.hang_here()

    def hang_here(self) -> None:
        while True:
            time.sleep(0.01)

    def finish(self) -> None:
        self.emit(Number(1))


class HangsInC(EventDispatcher):
    """An update that takes longer than allowed and keeps the interpreter's lock."""

    def __init__(self) -> None:
        super().__init__(Number, update_timeout=0.2, end_timeout=0.5)

    def update(self) -> None:
        sum(range(10**15))

    def finish(self) -> None: ...


class Unpicklable(EventDispatcher):
    """Sends an event that can't be pickled, and in between tries again with one that can."""

    def __init__(self, catches: bool, **options: Any) -> None:
        super().__init__(Text, **options)
        self.catches = catches

    def update(self) -> Any:
        event = Text("lock")
        event.lock = threading.Lock()  # type: ignore[attr-defined]
        if not self.catches:
            return event
        try:
            self.emit(event)
        except Exception as error:
            self.emit(Text(f"{type(error).__name__}: {error}"))
        self.end()
        return None

    def finish(self) -> None:
        pass


class Holds(EventDispatcher):
    """Holds what can't be pickled."""

    def __init__(self) -> None:
        super().__init__(Number)
        self.device = threading.Lock()

    def update(self) -> None: ...

    def finish(self) -> None: ...


class NeverLoads(EventDispatcher):
    """Takes for ever to be loaded, and leaves a file when that has begun."""

    def __init__(self, path: str) -> None:
        super().__init__(Number)
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        open(state["path"], "w").close()
        time.sleep(600)

    def update(self) -> None: ...

    def finish(self) -> None: ...


class RefusesToLoad(EventDispatcher):
    """Can be pickled, and not unpickled."""

    def __init__(self) -> None:
        super().__init__(Number)

    def __setstate__(self, state: object) -> None:
        raise LookupError("nothing is found here")

    def update(self) -> None: ...

    def finish(self) -> None: ...


class WrongInit(EventDispatcher):
    """Its `init` returns what can't be arguments."""

    def __init__(self, returned: Any) -> None:
        super().__init__(Number)
        self.returned = returned

    def init(self) -> Any:
        return self.returned

    def update(self, *args: Any, **kwargs: Any) -> Any:
        self.end()
        return Number(len(args) + len(kwargs))

    def finish(self, *args: Any, **kwargs: Any) -> None: ...


class Logs(EventDispatcher):
    """Logs, warns and prints, also from another thread and from `finish`."""

    def __init__(self) -> None:
        super().__init__(Number)

    def init(self) -> None:
        logging.getLogger("a.b").info("in %s", "init")

    def update(self) -> None:
        logger = logging.getLogger("a.b")
        thread = threading.Thread(target=logger.warning, args=("in a thread",), daemon=True)
        thread.start()
        thread.join()
        logger.debug("not asked for")
        try:
            raise ValueError("no luck")
        except ValueError:
            logger.exception("it failed", extra={"answer": 42})
        print("a printed line")
        warnings.warn("a warning", stacklevel=1)
        self.end()

    def finish(self) -> None:
        logging.getLogger("a.c").critical("in finish")


class Environment(EventDispatcher):
    """Tells about its process."""

    def __init__(self) -> None:
        super().__init__(Text)

    def update(self) -> None:
        self.end()
        self.emit(Text(repr((sys.argv, os.getcwd(), sys.path, sys.flags.dev_mode))))
        heavy = {"multiprocessing", "dataclasses", "asyncio", "inspect"} & set(sys.modules)
        self.emit(Text(repr(sorted(heavy))))
        mask = subprocess.run(
            ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], stdout=subprocess.PIPE, check=True
        )
        self.emit(Text(mask.stdout.decode()))

    def finish(self) -> None: ...


class Frame(Event):
    def __init__(self, n: int, image: Any) -> None:
        self.n = n
        self.image = image


class Camera(EventDispatcher):
    """Sends numpy arrays."""

    def __init__(self, count: int, bytes_each: int, **options: Any) -> None:
        super().__init__(Frame, **options)
        self.count = count
        self.bytes_each = bytes_each

    def init(self) -> Any:
        import numpy

        return (), {"image": numpy.arange(self.bytes_each, dtype="u1"), "sent": [0]}

    def update(self, image: Any, sent: list[int]) -> Any:
        if sent[0] == self.count:
            self.end()
            return None
        sent[0] += 1
        image[0] = sent[0] % 256
        return Frame(sent[0], image)

    def finish(self, image: Any, sent: list[int]) -> None: ...


class Sized(EventDispatcher):
    """Sends an event of so many bytes, made in its process."""

    def __init__(self, size: int) -> None:
        super().__init__(Text, large_bytes=1 << 30)
        self.size = size

    def update(self) -> Text:
        return Text("x" * self.size)

    def finish(self) -> None: ...


class Chatty(EventDispatcher):
    """Sends a text every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(Text)

    def update(self) -> Text:
        self.wait(0.03)
        return Text("chat")

    def finish(self) -> None: ...
