"""`multiprocessing.Queue`: one for all producers, without a bound, which would cost a semaphore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transport import SPAWN, Send, Sender, Take, Transport

if TYPE_CHECKING:
    import multiprocessing.queues
    from typing import Any

    from load import Load


class Queue(Transport):
    """Messages through a queue."""

    def __init__(self, load: Load) -> None:
        self.queue: multiprocessing.queues.Queue[Any] = SPAWN.Queue()

    def sender(self, place: int) -> Sender:
        return QueueSender(self.queue)

    def receive(self, take: Take, count: int) -> int:
        get = self.queue.get
        for _ in range(count):
            take(get())
        return count

    def close(self) -> None:
        self.queue.close()


class QueueSender(Sender):
    """The other end of a queue."""

    def __init__(self, queue: multiprocessing.queues.Queue[Any]) -> None:
        self.queue = queue

    def connect(self) -> Send:
        return self.queue.put
