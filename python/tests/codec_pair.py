"""An encoder and its decoder, as a dispatcher's process and the manager's would hold them."""

from __future__ import annotations

import pickle
from typing import Any

from eventpy._eventpy import Decoder, Encoder

TYPED, TYPED_SHARED, PICKLED, PICKLED_WITH_BUFFERS = 1, 2, 3, 4


class Pair:
    """Sends events from one end to the other."""

    def __init__(self, out_of_band_bytes: int = 1 << 16) -> None:
        self.encoder = Encoder(out_of_band_bytes)
        self.decoder = Decoder()

    def record_of(self, event: object) -> bytes:
        """The record of an event; the decoder has its definitions."""
        definitions, record = self.encoder.encode(event)
        for definition in definitions:
            self.decoder.define(definition)
        return record

    def send(self, event: object) -> Any:
        """What arrives when an event is sent."""
        return self.decoder.decode(self.record_of(event))

    def kind_of(self, event: object) -> int:
        """The first byte of an event's record."""
        return self.record_of(event)[0]


def by_pickle(event: object) -> Any:
    """What pickle brings."""
    return pickle.loads(pickle.dumps(event, 5))
