"""What shows a signal to people, and all of them together.

`show` is called with what is to be seen now (`None`: nothing is there), again and again, in the event loop: it neither waits nor
blocks, and does nothing where it shows that already. At the end of the program it is called with `None`. One sink that fails
harms no other, and is tried again with the next signal.
"""

import logging
from collections.abc import Mapping
from typing import Protocol

from media.signals import Signal

_LOG = logging.getLogger(__name__)


class Sink(Protocol):
    """Shows what stands with the media."""

    def show(self, signal: Signal | None) -> None:
        """From now on. Errors: `OSError`, then it is unknown what people see, but never that a medium may be pulled out."""
        ...


class Sinks:
    """Several sinks as one, by their names for the log; itself it fails never."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)
        self._broken: set[str] = set()

    def show(self, signal: Signal | None) -> None:
        """On each of them. A failure is told once, and once that it is over."""
        for name, sink in self._sinks.items():
            try:
                sink.show(signal)
            except OSError as error:
                if name not in self._broken:
                    _LOG.warning("%s cannot show the state of the media: %s", name, error)
                self._broken.add(name)
            else:
                if name in self._broken:
                    _LOG.info("%s shows the state of the media again", name)
                self._broken.discard(name)
