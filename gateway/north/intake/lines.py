"""The newest lines of this gateway's log, kept in memory for a report that is asked for them."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from typing import Final

KEPT: Final = 2000
_FORM = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class NewestLines:
    """A queue for `QueueHandler` that forgets the oldest lines instead of growing."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Keep one entry; line breaks in it are escaped, so that nobody can forge a second one."""
        self._lines.append(_FORM.format(record).encode("unicode_escape").decode())

    def get(self) -> logging.LogRecord:
        """Nothing is ever taken out; a `QueueListener` would ask."""
        raise NotImplementedError

    def get_nowait(self) -> logging.LogRecord:
        """As `get`."""
        raise NotImplementedError

    def __call__(self) -> tuple[str, ...]:
        """The lines, the oldest first."""
        return tuple(self._lines)

    @contextmanager
    def kept(self, logger: logging.Logger) -> Iterator[None]:
        """Listen to `logger` while the block lasts."""
        handler = QueueHandler(self)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
