"""The page as a part of the whole gateway."""

import asyncio
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.config import StateFolder
from gateway.sections.web import WebSection
from gateway.south.identity import renew_certificate, site_authority
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import Site, free_port, now, set_up_site
from update.durable import Disk
from update.errors import ConfigurationError


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def site_with(short: Path, **web: object) -> Site:
    builder = RepositoryBuilder(now=now())
    builder.add_target("os/other.txt", b"x", {})
    site = await set_up_site(short, builder)
    section = WebSection(enabled=True, addresses=("127.0.0.1",), port=free_port(), **web)  # type: ignore[arg-type]  # keys by name
    return replace(site, config=replace(site.config, web=section))


async def test_the_page_is_served_by_the_gateways_own_certificate_and_asks_nobody_for_one(short: Path) -> None:
    site = await site_with(short)
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(site.running())
        await site.node(listening, stack)
        context = ssl.create_default_context(cafile=StateFolder(site.config.gateway.state).authority[0])
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"https://127.0.0.1:{site.config.web.port}"
        async with session.get(url, ssl=context, server_hostname="gateway.fieldrelay.internal") as response:
            assert response.status == 200
            page = await response.text()
        assert "<h3>n1</h3>" in page
        async with session.get(f"{url}/api/status", ssl=context, server_hostname="gateway.fieldrelay.internal") as response:
            (node,) = (await response.json())["nodes"]
        assert (node["id"], node["runs"], node["slot"], node["condition"]) == ("n1", "1", "a", "current")


async def test_plain_http_where_it_is_wanted_and_nothing_by_default(short: Path) -> None:
    site = await site_with(short, tls=False)
    url = f"http://127.0.0.1:{site.config.web.port}/api/status"
    async with aiohttp.ClientSession() as session:
        async with site.running(), session.get(url) as response:
            assert (await response.json())["gateway"] == "gw"
        off = replace(site, config=replace(site.config, web=replace(site.config.web, enabled=False)))
        async with off.running():
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(url)


async def test_a_port_that_is_taken_is_refused_by_name(short: Path) -> None:
    site = await site_with(short, tls=False)
    taken = replace(site.config.web, port=site.config.south.port)
    site = replace(site, config=replace(site.config, web=taken))
    with pytest.raises(ConfigurationError, match=r"\[web\]"):
        async with site.running():
            pass


async def test_a_renewed_certificate_is_shown_without_a_restart(
    short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.web.build._RENEWED_EVERY_S", 0.05)
    site = await site_with(short)
    certificate, _ = StateFolder(site.config.gateway.state).server
    async with site.running():
        before = await shown_certificate(site)
        assert before == certificate.read_text().partition("-----END")[0]
        whole = certificate.read_text()
        certificate.write_text("broken")
        async with asyncio.timeout(60):
            while "cannot read the gateway's certificate" not in caplog.text:  # noqa: ASYNC110 - by the gateway
                await asyncio.sleep(0.02)
        assert await shown_certificate(site) == before, "what cannot be read changes nothing"
        authority = site_authority(Disk(), StateFolder(site.config.gateway.state), "gw", now())
        certificate.unlink()
        folder = StateFolder(site.config.gateway.state)
        assert renew_certificate(Disk(), folder, authority, site.config, now())
        assert certificate.read_text() != whole
        async with asyncio.timeout(60):
            while await shown_certificate(site) == before:  # noqa: ASYNC110 - by the gateway
                await asyncio.sleep(0.05)


async def shown_certificate(site: Site) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", site.config.web.port, ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        await writer.wait_closed()
    return ssl.DER_cert_to_PEM_cert(der).partition("-----END")[0]
