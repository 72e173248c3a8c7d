"""Which event loop the gateway runs on: uvloop where it is installed (extra `speed`), else asyncio's own.

With TLS and with many connections uvloop serves more requests per core; everything works on either.
"""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """For `asyncio.Runner`; None: asyncio's own choice."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - an optional library, loaded where it is there
    except ImportError:
        return None
    return new_event_loop
