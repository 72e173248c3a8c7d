"""A line between a client and a server of this machine that is cut after so many bytes, as often as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PIECE_BYTES = 65536


class CuttingLine:
    """Forwards to `port` of 127.0.0.1; `cuts` are how many bytes go upwards, one after the other, before each cut."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._target = port
        self._left = list(cuts)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.done = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["CuttingLine"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError):
                upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    await self._carry(reader, writer, upstream_reader, upstream_writer)
                finally:
                    upstream_writer.transport.abort()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream_writer: asyncio.StreamWriter,
    ) -> None:
        down = asyncio.create_task(_copy(upstream_reader, writer))
        try:
            while piece := await reader.read(_PIECE_BYTES):
                if self._left and self._left[0] <= len(piece):
                    upstream_writer.write(piece[: self._left.pop(0)])
                    self.done += 1
                    return
                if self._left:
                    self._left[0] -= len(piece)
                upstream_writer.write(piece)
                await upstream_writer.drain()
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
