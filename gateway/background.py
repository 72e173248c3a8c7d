"""Work that lasts as long as the gateway: one piece that ends by itself is a defect, and ends the gateway with its error."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager

from update.errors import StateError


@asynccontextmanager
async def background_work() -> AsyncGenerator[Callable[[Coroutine[object, object, object], str], None]]:
    """Tasks that last as long as the block; one that ends by itself ends the block with its error."""
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:

            def begin(work: Coroutine[object, object, object], name: str) -> None:
                tasks.append(group.create_task(_endless(work, name), name=name))

            try:
                yield begin
            finally:
                for task in tasks:
                    if not task.cancelling():  # a second time would interrupt what it does to end well
                        task.cancel()
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from error


async def _endless(work: Coroutine[object, object, object], name: str) -> None:
    await work
    raise StateError(f"the gateway's {name} work ended by itself")
