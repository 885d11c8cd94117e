"""A copy of each frame into one of some buffers in turn, as a ring of frames would do it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy

from load import FRAME_BYTES, FRAMES, Load, new_frames, pin
from tally import frames_reading

if TYPE_CHECKING:
    from measure import Figures

#: Buffers that are written in turn.
BUFFERS = 4


def frames(load: Load) -> Figures:
    """Frames, copied in this process."""
    pin(load.cores[1])
    sources = [frame.image for frame in new_frames()]
    buffers = [numpy.ones(FRAME_BYTES, numpy.uint8) for _ in range(BUFFERS)]
    begin = perf_counter()
    for number in range(load.events):
        numpy.copyto(buffers[number % BUFFERS], sources[number % FRAMES])
    return frames_reading(load.events, perf_counter() - begin)
