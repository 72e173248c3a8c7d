"""The listeners as they are configured: where they listen, with what certificate, and what is wrong with that."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from gateway.config import GatewayConfig, parse_config
from gateway.database.engine import Database
from gateway.fleet.telling import Telling
from gateway.north.elsewhere import Elsewhere
from gateway.north.push.build import PushUpstream, push_tellers, push_upstream
from tests.builders.fleet import Clock
from tests.builders.keys import make_pki
from tests.builders.north_site import make_ground
from tests.builders.push_site import ASSIGNER, opened
from update.errors import ConfigurationError

CONFIG = """
format_version = 1
[[repository]]
name = "plant"
root = "root.json"
upstreams = ["/nowhere"]
[[swuforward]]
name = "line"
repository = "plant"
allowed = ["127.0.0.1"]
addresses = ["127.0.0.1"]
"""


def configured(folder: Path, more: str = "") -> GatewayConfig:
    return parse_config(CONFIG + more, folder / "gateway.toml")


async def made(folder: Path, database: Database, config: GatewayConfig) -> PushUpstream:
    """The listener, not yet open, on any port."""
    ground = make_ground(folder, database, Clock(), Telling(push_tellers(config.swuforward)))
    section = config.swuforward[0]
    upstream = push_upstream(section, ground.fleet.takeover, ground.vouched, database=database, now=Clock())
    upstream.door.port = 0
    return upstream


def test_nodes_can_be_handed_to_a_listener(tmp_path: Path) -> None:
    elsewhere = Elsewhere(configured(tmp_path), Clock())
    assert ASSIGNER in elsewhere.telling.assigners


async def test_masters_that_can_do_tls_find_the_certificate_that_is_configured(tmp_path: Path, database: Database) -> None:
    identity = make_pki().rsa
    (tmp_path / "c.pem").write_bytes(identity.certificate_pem)
    (tmp_path / "c.key").write_bytes(identity.key_pem)
    upstream = await made(tmp_path, database, configured(tmp_path, 'certificate = "c.pem"\nkey = "c.key"\n'))
    running = asyncio.create_task(upstream.run())
    try:
        await opened(upstream)
        anyone = ssl.create_default_context()
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{upstream.door.port}/"
            async with session.ws_connect(url, ssl=anyone, protocols=("swupdate-status-protocol",)) as socket:
                assert socket.protocol == "swupdate-status-protocol"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_certificate_that_is_none_is_named(tmp_path: Path, database: Database) -> None:
    (tmp_path / "c.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="swuforward line: cannot read certificate"):
        await made(tmp_path, database, configured(tmp_path, 'certificate = "c.pem"\nkey = "c.pem"\n'))


async def test_a_port_that_is_taken_is_named(tmp_path: Path, database: Database) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    async with taken:
        upstream = await made(tmp_path, database, configured(tmp_path))
        upstream.door.port = taken.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"swuforward:line.*cannot listen on 127\.0\.0\.1"):
            await upstream.run()
