"""A simulated microcontroller on a line, for tests that are not asynchronous where they make it: its server has a thread.

with served(mcu) as place: ...        # Datagrams(host, port)
with served(mcu, pty=True) as place:  # Serial(path)
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from gateway.simulators.mcu import Mcu
from gateway.simulators.mcu_server import serve_pty, serve_udp
from node_agent.drivers.mcuboot import McubootConfig

START_S = 30.0


@contextmanager
def served(mcu: Mcu, *, pty: bool = False) -> Iterator[dict[str, object]]:
    """The keys of the driver's configuration that lead to it."""
    loop, ready, done = asyncio.new_event_loop(), Future[dict[str, object]](), asyncio.Event()

    async def serve() -> None:
        if pty:
            async with serve_pty(mcu) as path:
                ready.set_result({"port": path})
                await done.wait()
        else:
            async with serve_udp(mcu) as port:
                ready.set_result({"host": "127.0.0.1", "udp_port": port})
                await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield ready.result(START_S)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(START_S)
        loop.close()


def quick(place: dict[str, object], **keys: object) -> McubootConfig:
    """A configuration that waits no longer than a simulator needs."""
    waits = {"settle_s": 0.0, "answer_timeout_s": 0.3, "erase_timeout_s": 0.3, "tries": 3, "start_timeout_s": 20.0}
    return McubootConfig(**{**waits, **place, **keys})  # type: ignore[arg-type] # the keys are checked by pydantic
