import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.south import announce as module
from gateway.south.announce import keep_announcing
from update.errors import ConfigurationError
from update.wire.service import Candidate, browse

# Whatever announces itself on loopback meanwhile would be tried, too.
pytestmark = pytest.mark.xdist_group("mdns")


async def test_nodes_find_the_gateway_and_its_port() -> None:
    name = f"gw-{uuid.uuid4().hex[:8]}"
    async with browse(interfaces=["127.0.0.1"], wait_s=60) as candidates:
        task = asyncio.create_task(keep_announcing(name, 9443, ["127.0.0.1"], fingerprint="ab" * 32))
        found: Candidate = await anext(candidate async for candidate in candidates if candidate.gateway == name)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (found.host, found.port, found.fingerprint) == ("127.0.0.1", 9443, "ab" * 8)


async def test_an_interface_that_comes_up_later_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []
    announced = asyncio.Event()

    @asynccontextmanager
    async def announce(name: str, _port: int, **_: object) -> AsyncIterator[str]:
        tries.append(name)
        if len(tries) < 3:
            raise ConfigurationError("no interface is called eth9")
        announced.set()
        yield name

    monkeypatch.setattr(module, "announce", announce)
    task = asyncio.create_task(keep_announcing("gw", 1, ["eth9"], retry_s=0))
    await announced.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(tries) == 3
    assert "no interface is called eth9 (usage.configuration)" in caplog.text
