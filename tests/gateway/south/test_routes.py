"""Who gets in, over real TLS on loopback."""

import errno
import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.config import GatewayConfig, StateFolder
from gateway.south.identity import IDENTITY, fingerprint_of, renew_certificate, site_authority
from gateway.south.routes import content_application, listen, make_runner, south_application
from update.digest import digest_of
from update.durable import Disk
from update.errors import ConfigurationError, HardwareError
from update.wire.authority import SiteAuthority, make_csr, write_certificate
from update.wire.tls import GATEWAY_IDENTITY, client_context, server_context

NOW = datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Resources:
    """A part with given resources."""

    found: list[web.RouteDef]

    def routes(self) -> list[web.RouteDef]:
        return self.found


async def whoami(request: web.Request) -> web.Response:
    return web.json_response({"node": request[IDENTITY].node, "fingerprint": request[IDENTITY].fingerprint})


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def refuse(_request: web.Request) -> web.Response:
    raise HardwareError("not for this board")


async def fail(_request: web.Request) -> web.Response:
    raise ZeroDivisionError("a secret of this machine")


async def echo(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(request.headers['Range'])} {len(await request.read())}")


@dataclass(frozen=True, slots=True)
class Lan:
    """A gateway of a site, and the site."""

    folder: StateFolder
    authority: SiteAuthority
    url: str
    work: Path

    def node(self, name: str, authority: SiteAuthority | None = None) -> ssl.SSLContext:
        """The TLS side of a node with a certificate of the site's (or another) CA."""
        key, certificate = self.work / f"{name}.key", self.work / f"{name}.pem"
        issued = (authority or self.authority).issue_node(make_csr(Disk(), key, name), node=name, now=NOW)
        write_certificate(Disk(), certificate, issued)
        return client_context(self.folder.authority[0], certificate=certificate, key=key)

    async def get(self, path: str, context: ssl.SSLContext, **headers: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.url + path, ssl=context, server_hostname=GATEWAY_IDENTITY, headers=headers) as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def lan(tmp_path: Path) -> AsyncIterator[Lan]:
    folder = StateFolder(tmp_path / "state")
    Disk().make_folder(folder.keys)
    authority = site_authority(Disk(), folder, "gw", NOW)
    renew_certificate(Disk(), folder, authority, GatewayConfig(format_version=1), NOW)
    closed = Resources([web.get("/whoami", whoami), web.get("/refuse", refuse), web.get("/fail", fail), web.get("/echo", echo)])
    runner = make_runner(south_application([closed], open_to_all=[Resources([web.get("/open/{name}", hello)])]))
    await runner.setup()
    port = await listen(runner, ["127.0.0.1"], 0, server_context(*folder.server, folder.authority[0]), key="south")
    yield Lan(folder, authority, f"https://127.0.0.1:{port}", tmp_path)
    await runner.cleanup()


async def test_a_node_is_the_name_in_its_certificate(lan: Lan) -> None:
    context = lan.node("n1")
    der = x509.load_pem_x509_certificate((lan.work / "n1.pem").read_bytes()).public_bytes(Encoding.DER)
    status, text = await lan.get("/whoami", context, **{"X-Controller-Id": "n2"})
    assert (status, text) == (200, f'{{"node": "n1", "fingerprint": "{digest_of(der)}"}}')


async def test_without_a_certificate_only_what_is_open_to_all_answers(lan: Lan) -> None:
    stranger = client_context(lan.folder.authority[0])
    assert await lan.get("/open/door", stranger) == (200, "hello")
    for path in ("/whoami", "/nothing", "/open", "/open/a/b", "/whoami/../open/door/"):
        status, text = await lan.get(path, stranger)
        assert (status, "wire.unauthorized" in text) == (401, True), path


async def test_a_certificate_of_another_site_ends_the_handshake(lan: Lan, tmp_path: Path) -> None:
    other = SiteAuthority.create(Disk(), tmp_path / "other.pem", tmp_path / "other.key", site="other", now=NOW)
    with pytest.raises(aiohttp.ClientError):
        await lan.get("/whoami", lan.node("n1", other))


async def test_refusals_are_told_by_code_and_defects_without_their_story(lan: Lan, caplog: pytest.LogCaptureFixture) -> None:
    context = lan.node("n1")
    assert await lan.get("/refuse", context) == (409, '{"code":"trust.hardware","message":"not for this board"}')
    status, text = await lan.get("/fail", context)
    assert (status, "secret" in text, '"code":"error"' in text) == (500, False, True)
    assert "a secret of this machine" in caplog.text
    status, text = await lan.get("/nothing", context)
    assert (status, "wire.not-found" in text) == (404, True)


async def test_a_header_of_hundreds_of_ranges_is_read(lan: Lan) -> None:
    ranges = "bytes=" + ",".join(f"{start}-{start + 9}" for start in range(100_000, 160_000, 20))
    assert 32_000 < len(ranges) < 65_000
    assert await lan.get("/echo", lan.node("n1"), Range=ranges) == (200, f"{len(ranges)} 0")


async def test_bodies_are_taken_as_they_are_and_never_unpacked() -> None:
    async def measure(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    runner = make_runner(content_application([web.post("/measure", measure)]))
    await runner.setup()
    port = await listen(runner, ["127.0.0.1"], 0, None, key="south.content")
    packed = gzip.compress(b"0" * 1_000_000)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/measure", data=packed, headers={"Content-Encoding": "gzip"}) as response,
    ):
        assert await response.text() == str(len(packed))
    await runner.cleanup()


async def test_a_header_without_end_is_refused(lan: Lan) -> None:
    status, _ = await lan.get("/echo", lan.node("n1"), Range="bytes=" + "1" * 70_000)
    assert status == 400


async def test_older_tls_is_refused(lan: Lan) -> None:
    context = ssl.create_default_context(cafile=str(lan.folder.authority[0]))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientConnectorError):
        await lan.get("/open/door", context)


async def test_a_certificate_that_was_renewed_is_shown_to_new_connections(lan: Lan) -> None:
    later = NOW + timedelta(days=300)
    before = lan.folder.server[0].read_bytes()
    assert not renew_certificate(Disk(), lan.folder, lan.authority, GatewayConfig(format_version=1), NOW)
    assert renew_certificate(Disk(), lan.folder, lan.authority, GatewayConfig(format_version=1), later)
    assert lan.folder.server[0].read_bytes() != before
    again = site_authority(Disk(), lan.folder, "gw", later)
    assert fingerprint_of(again) == fingerprint_of(lan.authority)


async def test_content_for_stock_clients_needs_no_certificate_and_names_its_refusals() -> None:
    runner = make_runner(content_application([web.get("/targets/x", hello), web.get("/refuse", refuse)]))
    await runner.setup()
    port = await listen(runner, ["127.0.0.1"], 0, None, key="south.content")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/targets/x") as response:
            assert await response.text() == "hello"
        async with session.get("/refuse") as response:
            assert response.status == 409
        async with session.get("/DEFAULT/controller/v1/n1") as response:
            assert response.status == 404
    await runner.cleanup()


async def test_a_taken_port_is_named_with_its_key() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        runner = make_runner(content_application([]))
        await runner.setup()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"\[south\] cannot listen on 127\.0\.0\.1 port {port}"):
            await listen(runner, ["127.0.0.1"], port, None, key="south")
        await runner.cleanup()


async def test_an_address_that_the_machine_lacks_is_left_out_if_there_is_another(caplog: pytest.LogCaptureFixture) -> None:
    runner = make_runner(content_application([]))
    await runner.setup()
    with caplog.at_level(logging.WARNING):
        assert await listen(runner, ["192.0.2.1", "127.0.0.1"], 0, None, key="south") > 0
    assert "192.0.2.1" in caplog.text
    await runner.cleanup()


async def test_no_address_at_all_is_refused() -> None:
    runner = make_runner(content_application([]))
    await runner.setup()
    with pytest.raises(ConfigurationError, match="none of the addresses"):
        await listen(runner, ["192.0.2.1"], 0, None, key="south")
    await runner.cleanup()


def test_what_is_taken_for_a_missing_address_is_what_linux_says() -> None:
    with socket.socket() as probe, pytest.raises(OSError, match="assign") as caught:
        probe.bind(("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL
