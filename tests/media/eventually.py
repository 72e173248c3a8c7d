"""Lines of a pipe, one after the other, without keeping the event loop from its work."""

import asyncio
from collections.abc import AsyncIterator
from typing import TextIO


async def lines(stream: TextIO) -> AsyncIterator[str]:
    """Until the end."""
    while line := await asyncio.to_thread(stream.readline):
        yield line.strip()
