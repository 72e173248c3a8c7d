"""The assigners elsewhere as they are configured."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest

from gateway.config import parse_config
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from gateway.database.records import ClientKind
from gateway.fleet.telling import Telling
from gateway.north.elsewhere import Elsewhere
from gateway.north.means import Common
from gateway.north.wfx.build import wfx_tellers, wfx_upstreams
from gateway.simulators.wfx import WfxSimulator
from tests.builders.exchanges import listener
from tests.builders.fleet import Clock
from tests.builders.north_site import Ground, make_ground
from update.wire.line import FREE

PATIENCE_S = 60
CONFIG = """format_version = 1
[[repository]]
name = "plant"
root = "root.json"
upstreams = ["https://u.example/v"]
[[wfx]]
name = "plant"
url = "{url}"
repository = "plant"
token = "wfx.token"
client_header = "X-Client-Id"
client = "site-7.{{node}}"
poll_interval_s = 60
tags = ["line-1", "line-2"]
"""


def common(ground: Ground, database: Database, session: aiohttp.ClientSession) -> Common:
    """As much of it as a wfx needs."""
    return cast("Common", SimpleNamespace(database=database, session=session, line=FREE, vouched=lambda _: ground.vouched))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = await Database.open(sqlite_url(tmp_path / "gateway.db"))
    yield made
    await made.close()


def test_every_configured_assigner_is_told(tmp_path: Path) -> None:
    text = CONFIG.format(url="https://w.example")
    company = '[[hawkbit]]\nname = "company"\nurl = "https://h.example"\nrepository = "plant"\n'
    both = Elsewhere(parse_config(text + company, tmp_path / "gateway.toml"), Clock())
    assert sorted(both.telling.assigners) == ["hawkbit:company", "wfx:plant"]


async def test_a_wfx_is_asked_as_it_is_configured(tmp_path: Path, database: Database) -> None:
    (tmp_path / "wfx.token").write_text("of-the-site\n")
    async with WfxSimulator() as simulator, listener(simulator.south) as heard, aiohttp.ClientSession() as session:
        config, clock = parse_config(CONFIG.format(url=heard.url), tmp_path / "gateway.toml"), Clock()
        tellers = wfx_tellers(config.wfx, clock)
        ground = make_ground(tmp_path, database, clock, Telling(tellers))
        await ground.fleet.accounts.give_token("n1", ClientKind.SWUPDATE)
        async with database.writing() as transaction:
            await nodes.set_assigner(transaction, "n1", "wfx:plant")
        (upstream,) = wfx_upstreams(config, tellers, ground.fleet.takeover, common(ground, database, session), clock)
        async with asyncio.timeout(PATIENCE_S):
            while not heard.heard:  # first polls are spread over a moment
                await upstream.poll_all()
                await asyncio.sleep(0.01)
        assert (await upstream.state()).name == "wfx:plant"
    (asked,) = heard.heard
    assert asked.query == {"clientId": "site-7.n1", "group": "OPEN", "sort": "asc", "limit": "20", "tag": "line-1,line-2"}
    assert asked.headers["Authorization"] == "Bearer of-the-site"
    assert asked.headers["X-Client-Id"] == "site-7.n1"
