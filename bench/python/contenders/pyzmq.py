"""pyzmq: PUSH to PULL over ipc, without a limit on what is under way.

Small messages are copied, which is faster than sharing them; frames are shared.
"""

from __future__ import annotations

import os
from pickle import PickleBuffer, dumps, loads
from typing import TYPE_CHECKING, Any

import zmq

from transport import Send, Sender, Take, Transport

if TYPE_CHECKING:
    from load import Load


class PushPull(Transport):
    """Pickled messages through a socket."""

    def __init__(self, load: Load) -> None:
        # A name that no file system knows.
        self.link = f"ipc://@eventpy-bench-{os.getpid()}-{id(self)}"
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PULL)
        self.socket.set_hwm(0)
        self.socket.bind(self.link)

    def sender(self, place: int) -> Sender:
        return Push(self.link)

    def receive(self, take: Take, count: int) -> int:
        receive = self.socket.recv
        for _ in range(count):
            take(loads(receive()))
        return count

    def close(self) -> None:
        self.context.destroy(linger=0)


class Push(Sender):
    """The other end of the socket."""

    def __init__(self, link: str) -> None:
        self.link = link

    def connect(self) -> Send:
        send = self.open(0).send
        return lambda message: send(dumps(message, 5))

    def open(self, high_water_mark: int) -> Any:
        """The socket."""
        socket = zmq.Context.instance().socket(zmq.PUSH)
        socket.set_hwm(high_water_mark)
        socket.connect(self.link)
        return socket


#: Frames that are under way.
FRAMES = 8


class PushPullFrames(PushPull):
    """The array of a frame is a part of its own, which neither side copies."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.socket.set_hwm(FRAMES)

    def sender(self, place: int) -> Sender:
        return PushFrames(self.link)

    def receive(self, take: Take, count: int) -> int:
        for _ in range(count):
            pickled, array = self.socket.recv_multipart(copy=False)
            take(loads(pickled.buffer, buffers=[array.buffer]))
        return count


class PushFrames(Push):
    """The other end of the socket for frames."""

    def connect(self) -> Send:
        socket = self.open(FRAMES)

        def send(frame: Any) -> None:
            arrays: list[PickleBuffer] = []
            pickled = dumps(frame, 5, buffer_callback=arrays.append)
            socket.send_multipart([pickled, arrays[0].raw()], copy=False)

        return send
