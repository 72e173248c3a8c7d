"""TLS on loopback: who is let in, who is turned away."""

import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.builders.keys import Identity, issue, make_pki
from tests.builders.site import Site
from update.durable import Disk
from update.errors import CertificateError, ConfigurationError
from update.trust.signers import load_private_key
from update.wire.authority import GATEWAY_IDENTITY, write_certificate
from update.wire.tls import client_context, node_of, server_context


async def who(request: web.Request) -> web.Response:
    try:
        found = node_of(request.get_extra_info("ssl_object"))
    except CertificateError as refusal:
        found = f"refused: {refusal}"
    version = request.get_extra_info("ssl_object").version()
    return web.json_response({"node": found, "version": version})


def app() -> web.Application:
    application = web.Application()
    application.router.add_get("/who", who)
    return application


async def ask(port: int, context: ssl.SSLContext, identity: str = GATEWAY_IDENTITY) -> dict[str, str | None]:
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{port}/who"
        async with session.get(url, ssl=context, server_hostname=identity) as response:
            answer: dict[str, str | None] = await response.json()
            return answer


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


async def test_an_enrolled_node_is_known_by_its_certificate_over_tls_1_3(site: Site) -> None:
    async with site.serve(app()) as port:
        assert await ask(port, site.client_context("node-1")) == {"node": "node-1", "version": "TLSv1.3"}


async def test_a_node_without_a_certificate_is_nobody(site: Site) -> None:
    async with site.serve(app()) as port:
        assert (await ask(port, site.client_context()))["node"] is None


async def test_older_tls_is_refused(site: Site) -> None:
    context = site.client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with site.serve(app()) as port:
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(port, context)


async def test_a_gateway_of_another_site_is_refused(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", name="plant")
    async with other.serve(app()) as port:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(port, site.client_context())


async def test_a_node_never_passes_as_a_gateway(site: Site) -> None:
    certificate, key = site.enroll("node-1")
    async with site.serve(app(), server_context(certificate, key, site.ca)) as port:
        for identity in (GATEWAY_IDENTITY, "node-1"):
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await ask(port, site.client_context(), identity)


async def test_a_node_does_not_pass_as_a_gateway_even_where_names_are_not_looked_at(site: Site) -> None:
    certificate, key = site.enroll("node-1")
    context = site.client_context()
    context.check_hostname = False
    async with site.serve(app(), server_context(certificate, key, site.ca)) as port:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="purpose"):
            await ask(port, context)


async def test_the_identity_is_checked_whatever_the_address(site: Site) -> None:
    async with site.serve(app()) as port:
        await ask(port, site.client_context(), f"gw-1.{GATEWAY_IDENTITY}")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(port, site.client_context(), f"gw-2.{GATEWAY_IDENTITY}")


async def refused(port: int, context: ssl.SSLContext) -> None:
    """Under TLS 1.3 the client learns of the refusal with its first read, as a lost connection."""
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await ask(port, context)


async def test_bad_client_certificates_fail_the_handshake(site: Site, tmp_path: Path) -> None:
    expired = site.enroll("node-2", now=site.now - timedelta(days=1000))
    other = Site(tmp_path / "other", name="plant").enroll("node-1")
    foreign_purpose = make_pki().write(tmp_path / "pki")
    signer = foreign_purpose.certificate("signer0"), foreign_purpose.key("signer0")
    gateway = site.certificate, site.key
    async with site.serve(app()) as port:
        for certificate, key in (expired, other, signer, gateway):
            await refused(port, client_context(site.ca, certificate=certificate, key=key))
        assert (await ask(port, site.client_context("node-1")))["node"] == "node-1"


async def test_a_node_without_a_clock_still_checks_everything_else(site: Site, tmp_path: Path) -> None:
    public = load_private_key(site.key).public_key()
    old = site.authority.issue_gateway(public, gateway="gw-1", hosts=[], now=site.now - timedelta(days=3000))
    write_certificate(Disk(), tmp_path / "old.pem", old)
    clockless = client_context(site.ca, trusted_clock=False)
    async with site.serve(app(), server_context(tmp_path / "old.pem", site.key, site.ca)) as port:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(port, site.client_context())
        await ask(port, clockless)
    async with Site(tmp_path / "other").serve(app()) as port:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(port, clockless)


def test_unreadable_files_are_a_configuration_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "garbage.pem").write_bytes(b"garbage")
    for ca, certificate in (
        (tmp_path / "absent.pem", None),
        (tmp_path / "garbage.pem", None),
        (site.ca, tmp_path / "garbage.pem"),
    ):
        with pytest.raises(ConfigurationError):
            client_context(ca, certificate=certificate)


async def test_a_certificate_for_both_ends_is_no_nodes(site: Site, tmp_path: Path) -> None:
    authority = Identity("ca", site.authority.certificate, load_private_key(site.folder / "ca.key"))
    both = issue("both", authority, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    (tmp_path / "both.pem").write_bytes(both.certificate_pem)
    (tmp_path / "both.key").write_bytes(both.key_pem)
    context = client_context(site.ca, certificate=tmp_path / "both.pem", key=tmp_path / "both.key")
    async with site.serve(app()) as port:
        assert (await ask(port, context))["node"] == "refused: the client certificate is not a node's"


def test_no_tls_is_nobody() -> None:
    assert node_of(None) is None


def connect(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, str | None]:
    """One connection in memory: the client's end once it has its ticket, and whom the server takes it for."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=GATEWAY_IDENTITY, session=session)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (near, far) * 2:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    far.write(b"?")
    assert near.read(1) == b"?"
    return near, node_of(far)


@pytest.mark.parametrize("node", ["node-1", None])
def test_who_comes_back_resumes_its_session_and_is_the_same(site: Site, node: str | None) -> None:
    server, client = site.server_context(), site.client_context(node)
    session, resumed = None, []
    for _ in range(3):
        connection, known = connect(server, client, session)
        assert known == node
        resumed.append(connection.session_reused)
        session = connection.session
    assert resumed == [False, True, True]


def test_a_handshake_pays_for_one_ticket(site: Site) -> None:
    assert site.server_context().num_tickets == 1
