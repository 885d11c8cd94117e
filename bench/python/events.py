"""What is sent in the measurements.

The processes of dispatchers and producers import this: it must stay light.
"""

from __future__ import annotations

from eventpy import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    import numpy


class Reading(Event):
    """An event of two attributes."""

    def __init__(self, number: int, value: float) -> None:
        self.number = number
        self.value = value


class Frame(Event):
    """An event that is nearly all array."""

    def __init__(self, image: numpy.ndarray[tuple[int], numpy.dtype[numpy.uint8]]) -> None:
        self.image = image
