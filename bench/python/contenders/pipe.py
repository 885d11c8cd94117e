"""`multiprocessing.Pipe`: one for each producer.

Pickling to bytes and sending these is faster than `Connection.send`, which takes a pickler that is
made anew for each object. For many producers a selector tells which pipe has something.
"""

from __future__ import annotations

from pickle import PickleBuffer, dumps, loads
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Any

from transport import SPAWN, Send, Sender, Take, Transport

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from load import Load


class Pipe(Transport):
    """Pickled messages through pipes."""

    def __init__(self, load: Load) -> None:
        pipes = [SPAWN.Pipe(duplex=False) for _ in range(load.producers)]
        self.readers = [reader for reader, _ in pipes]
        self.writers = [writer for _, writer in pipes]
        self.selector = DefaultSelector()
        for reader in self.readers:
            self.selector.register(reader, EVENT_READ, reader.recv_bytes)

    def sender(self, place: int) -> Sender:
        return PipeSender(self.writers[place])

    def receive(self, take: Take, count: int) -> int:
        if len(self.readers) == 1:
            receive = self.readers[0].recv_bytes
            for _ in range(count):
                take(loads(receive()))
            return count
        received = 0
        while received < count:
            ready = self.selector.select()
            for key, _ in ready:
                take(loads(key.data()))
            received += len(ready)
        return received

    def close(self) -> None:
        self.selector.close()
        for end in self.readers + self.writers:
            end.close()


class PipeSender(Sender):
    """The other end of a pipe."""

    def __init__(self, writer: Connection) -> None:
        self.writer = writer

    def connect(self) -> Send:
        send_bytes = self.writer.send_bytes
        return lambda message: send_bytes(dumps(message, 5))


class PipeFrames(Pipe):
    """The array of a frame follows its pickle, read into memory that is there already."""

    def sender(self, place: int) -> Sender:
        return PipeFramesSender(self.writers[place])

    def receive(self, take: Take, count: int) -> int:
        reader = self.readers[0]
        array = bytearray()
        for _ in range(count):
            size, pickled = loads(reader.recv_bytes())
            if len(array) != size:
                array = bytearray(size)
            reader.recv_bytes_into(array)
            take(loads(pickled, buffers=[array]))
        return count


class PipeFramesSender(PipeSender):
    """The other end of a pipe for frames."""

    def connect(self) -> Send:
        def send(frame: Any) -> None:
            arrays: list[PickleBuffer] = []
            pickled = dumps(frame, 5, buffer_callback=arrays.append)
            with arrays[0].raw() as array:
                self.writer.send_bytes(dumps((array.nbytes, pickled), 5))
                self.writer.send_bytes(array)

        return send
