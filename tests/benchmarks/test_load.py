import asyncio
import os
import time

import pytest

from tests.benchmarks.load import Load, Plan, run

BODY = bytes(5000)


async def measured(answer: bytes, *, connections: int = 3) -> Load:
    """A load of 0.2 s on a server that sends `answer` to every request, in two pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer[:20])
                await asyncio.sleep(0)
                writer.write(answer[20:])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        plan = Plan(port, ("GET /a HTTP/1.1\r\n\r\n", "GET /b HTTP/1.1\r\n\r\n"), connections, 0.05, 0.2, (os.getpid(),))
        return await asyncio.to_thread(run, plan)


async def test_answers_and_their_bytes_are_counted() -> None:
    used = time.process_time()
    load = await measured(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5000\r\n\r\n" + BODY)
    assert load.answers > 0
    assert load.answered_bytes == 5000 * load.answers
    assert load.requests == pytest.approx(load.answers, abs=3), "answers under way count in part"
    assert 0 < load.cpu_s <= time.process_time() - used


async def test_a_refusal_ends_the_measurement() -> None:
    with pytest.raises(ConnectionError, match="refused"):
        await measured(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")
