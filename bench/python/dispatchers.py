"""The dispatchers of the measurements, which play the producer.

Their processes import this: it must stay light.
"""

from __future__ import annotations

from time import monotonic_ns

from eventpy import EventDispatcher

from events import Frame, Reading
from load import FRAMES, VALUE, Load, new_frames, pin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Longer than any measurement, in seconds.
FOREVER = 3600.0


class Flood(EventDispatcher):
    """Sends readings as fast as it can, one an update."""

    def __init__(self, load: Load) -> None:
        super().__init__(Reading)
        self.load = load
        self.count = load.messages
        self.next = 0

    def init(self) -> None:
        pin(self.load.cores[0])

    def update(self) -> Reading | None:
        number = self.next
        if number == self.count:
            self.wait(FOREVER)
            return None
        self.next = number + 1
        return Reading(number, VALUE)

    def finish(self) -> None:
        pass


class Batches(Flood):
    """Sends readings as fast as it can, a list of them an update."""

    def update(self) -> Any:
        first = self.next
        if first == self.count * self.load.batch:
            self.wait(FOREVER)
            return None
        self.next = first + self.load.batch
        return [Reading(number, VALUE) for number in range(first, self.next)]


class Stamped(Flood):
    """Sends readings of the time, one every gap."""

    def update(self) -> Reading | None:
        number = self.next
        if number == self.count:
            self.wait(FOREVER)
            return None
        self.next = number + 1
        self.load.pause()
        return Reading(number, float(monotonic_ns()))


class Camera(EventDispatcher):
    """Sends frames as fast as it can."""

    def __init__(self, load: Load) -> None:
        super().__init__(Frame)
        self.load = load
        self.count = load.messages
        self.next = 0

    def init(self) -> Any:
        pin(self.load.cores[0])
        return (new_frames(),), {}

    def update(self, frames: list[Frame]) -> Frame | None:
        number = self.next
        if number == self.count:
            self.wait(FOREVER)
            return None
        self.next = number + 1
        return frames[number % FRAMES]

    def finish(self, frames: list[Frame]) -> None:
        pass


class Idle(EventDispatcher):
    """Has nothing to tell."""

    def __init__(self) -> None:
        super().__init__(Reading)

    def update(self) -> None:
        self.wait(FOREVER)

    def finish(self) -> None:
        pass
