"""First contact, both sides: a one-time token becomes a certificate, once, and nothing else does."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.south.enroll import MAX_BODY_BYTES, Enrollment
from tests.builders.site import Site
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import (
    ConfigurationError,
    FieldrelayError,
    PeerIdentityError,
    ProtocolError,
    StoreError,
    UnauthorizedError,
    UnreachableError,
)
from update.trust.chain import common_name
from update.wire.authority import GATEWAY_IDENTITY, make_csr, write_certificate
from update.wire.est import CACERTS_PATH, ENROLL_PATH, decode_certificates, encode_certificates, enroll, fetch_authority
from update.wire.tls import client_context, node_of


@dataclass
class Tokens:
    """The store's contract in memory."""

    valid: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False

    async def redeem(self, node: str, token: str) -> bool:
        self.asked.append(node)
        if self.broken:
            raise StoreError("the database is read-only")
        fits = hmac.compare_digest(self.valid.get(node, "").encode(), token.encode()) and bool(token)
        if fits:
            del self.valid[node]
        await asyncio.sleep(0)
        return fits


@dataclass
class Running:
    site: Site
    tokens: Tokens
    port: int
    session: aiohttp.ClientSession
    folder: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def csr(self, node: str) -> bytes:
        return make_csr(Disk(), self.folder / f"{node}.csr.key", node)

    def body(self, node: str) -> bytes:
        return base64.b64encode(x509.load_pem_x509_csr(self.csr(node)).public_bytes(serialization.Encoding.DER))

    async def enroll(self, node: str, token: str, csr: bytes | None = None) -> list[x509.Certificate]:
        return await enroll(self.session, self.url, node, token, csr or self.csr(node))

    async def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], dict[str, str]]:
        url = self.url + ENROLL_PATH
        async with self.session.post(url, data=body, headers=headers, server_hostname=GATEWAY_IDENTITY) as response:
            return response.status, dict(response.headers), json.loads(await response.read())


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    site, tokens, app = Site(tmp_path / "site"), Tokens({"node-1": "one-time", "node-2": "other"}), web.Application()
    app.add_routes(Enrollment(tokens, site.authority, lambda: datetime.now(UTC)).routes())
    app.router.add_get("/who", who)
    connector = aiohttp.TCPConnector(ssl=site.client_context())
    async with site.serve(app) as port, aiohttp.ClientSession(connector=connector) as session:
        yield Running(site, tokens, port, session, tmp_path)


async def who(request: web.Request) -> web.Response:
    return web.Response(text=str(node_of(request.get_extra_info("ssl_object"))))


def basic(node: str, token: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(node, token), "Content-Type": "application/pkcs10"}


async def test_a_token_becomes_a_certificate_that_the_gateway_knows(running: Running, tmp_path: Path) -> None:
    own, authority = await running.enroll("node-1", "one-time")
    assert common_name(own) == "node-1"
    assert authority == running.site.authority.certificate
    write_certificate(Disk(), tmp_path / "node.pem", own)
    context = client_context(running.site.ca, certificate=tmp_path / "node.pem", key=tmp_path / "node-1.csr.key")
    async with running.session.get(f"{running.url}/who", ssl=context, server_hostname=GATEWAY_IDENTITY) as response:
        assert await response.text() == "node-1"


async def test_a_token_works_once(running: Running) -> None:
    await running.enroll("node-1", "one-time")
    with pytest.raises(UnauthorizedError, match=r"wire\.unauthorized"):
        await running.enroll("node-1", "one-time")


async def test_of_two_requests_with_one_token_one_is_served(running: Running) -> None:
    csr = running.csr("node-1")
    results = await asyncio.gather(*(running.enroll("node-1", "one-time", csr) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 1
    assert sum(isinstance(result, UnauthorizedError) for result in results) == 4


@pytest.mark.parametrize(("node", "token"), [("node-1", "wrong"), ("node-1", "other"), ("node-3", "one-time")])
async def test_a_wrong_token_or_node_is_refused_in_the_same_words(running: Running, node: str, token: str) -> None:
    with pytest.raises(UnauthorizedError, match="the node or its token is unknown"):
        await running.enroll(node, token)
    assert running.tokens.valid == {"node-1": "one-time", "node-2": "other"}


async def test_a_request_for_another_node_costs_no_token(running: Running) -> None:
    with pytest.raises(ProtocolError, match=r"trust\.certificate"):
        await running.enroll("node-1", "one-time", running.csr("node-2"))
    assert running.tokens.asked == []
    await running.enroll("node-1", "one-time")


async def test_nobody_enrolls_as_a_gateway(running: Running) -> None:
    running.tokens.valid[GATEWAY_IDENTITY] = "t"
    csr = _csr_named(GATEWAY_IDENTITY)
    with pytest.raises(ProtocolError, match="are gateways"):
        await running.enroll(GATEWAY_IDENTITY, "t", csr)


def _csr_named(name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer one-time",
        "Basic",
        "Basic !!!",
        "Basic /////w==",
        "Basic bm9kZS0x",
        "Basic bm9kZS0xOg==",
        "Basic " + "QUFB" * 1000,
    ],
    ids=["none", "bearer", "empty", "no base64", "no utf-8", "no colon", "no token", "huge"],
)
async def test_a_missing_or_malformed_credential_is_refused(running: Running, authorization: str) -> None:
    status, headers, answer = await running.post(b"", {"Authorization": authorization, "Content-Type": "application/pkcs10"})
    assert (status, answer["code"]) == (401, "wire.unauthorized")
    assert headers["WWW-Authenticate"].startswith("Basic")
    assert running.tokens.asked == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "trust.certificate"),
        (b"not base64!", 400, "wire.protocol"),
        (base64.b64encode(b"not a request"), 400, "trust.certificate"),
        (b"A" * (MAX_BODY_BYTES + 4), 413, "bundle.limit"),
        (base64.b64encode(b"A" * (MAX_BODY_BYTES * 3 // 4 - 3)), 413, "bundle.limit"),
    ],
    ids=["empty", "no base64", "no request", "huge body", "huge request"],
)
async def test_a_bad_body_is_refused_by_name_and_costs_no_token(running: Running, body: bytes, status: int, code: str) -> None:
    found, _, answer = await running.post(body, basic("node-1", "one-time"))
    assert (found, answer["code"]) == (status, code)
    assert running.tokens.asked == []


async def test_another_content_type_is_refused(running: Running) -> None:
    status, _, answer = await running.post(running.body("node-1"), {**basic("node-1", "one-time"), "Content-Type": "text/plain"})
    assert (status, answer["code"]) == (400, "wire.protocol")
    assert running.tokens.asked == []


async def test_a_body_above_its_limit_is_refused_even_if_little_is_in_it(running: Running) -> None:
    body = b"\n" * MAX_BODY_BYTES + running.body("node-1")
    status, _, answer = await running.post(body, basic("node-1", "one-time"))
    assert (status, answer["code"]) == (413, "bundle.limit")


async def test_a_failing_store_is_named_and_issues_nothing(running: Running) -> None:
    running.tokens.broken = True
    status, _, answer = await running.post(running.body("node-1"), basic("node-1", "one-time"))
    assert (status, answer["code"]) == (500, "store")


async def test_a_token_in_the_clear_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    site, tokens, app = Site(tmp_path), Tokens({"node-1": "one-time"}), web.Application()
    app.add_routes(Enrollment(tokens, site.authority, lambda: site.now).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            async with session.post(url + ENROLL_PATH, headers=basic("node-1", "one-time")) as response:
                assert (response.status, tokens.asked) == (401, [])
            with pytest.raises(ConfigurationError, match="https"):
                await enroll(session, url, "node-1", "one-time", make_csr(Disk(), tmp_path / "n.key", "node-1"))
    finally:
        await runner.cleanup()


async def test_the_ca_is_given_to_anybody_and_pinned_by_its_fingerprint(running: Running) -> None:
    expected = running.site.authority.certificate
    fingerprint = digest_of(expected.public_bytes(serialization.Encoding.DER))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as stranger:
        assert await fetch_authority(stranger, running.url + "/", fingerprint) == expected
        with pytest.raises(PeerIdentityError):
            await fetch_authority(stranger, running.url, Digest("0" * 64))


async def test_a_node_gives_its_token_to_no_gateway_of_another_site(running: Running, tmp_path: Path) -> None:
    other, seen, app = Site(tmp_path / "other"), list[str](), web.Application()

    async def steal(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response()

    app.router.add_post(ENROLL_PATH, steal)
    async with other.serve(app) as port:
        with pytest.raises(PeerIdentityError):
            await enroll(running.session, f"https://127.0.0.1:{port}", "node-1", "one-time", running.csr("node-1"))
    assert seen == []


async def test_a_gateway_that_is_away_is_unreachable(running: Running) -> None:
    with pytest.raises(UnreachableError):
        await enroll(running.session, "https://127.0.0.1:1", "node-1", "one-time", running.csr("node-1"))


async def test_odd_answers_are_refused(running: Running, tmp_path: Path) -> None:
    authority = running.site.authority
    strange = encode_certificates([authority.certificate])
    other_key = encode_certificates([authority.issue_node(_csr_named("node-1"), node="node-1", now=running.site.now)])
    renamed = make_csr(Disk(), running.folder / "node-1.csr.key", "node-7")
    other_name = encode_certificates([authority.issue_node(renamed, node="node-7", now=running.site.now)])
    for body, expected in (
        (b"", "no list"),
        (b"!", "base64"),
        (strange, "not for our key"),
        (other_key, "not for our key"),
        (other_name, "not for our key"),
        (b"A" * 70_000, "more than"),
    ):
        with pytest.raises(ProtocolError, match=expected):
            await _answered(running, body)
    with pytest.raises(ProtocolError, match="status 302"):
        await _answered(running, b"", status=302)


async def _answered(running: Running, body: bytes, status: int = 200) -> None:
    app = web.Application(client_max_size=1 << 20)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={"Location": "https://127.0.0.1:1/"})

    app.router.add_post(ENROLL_PATH, answer)
    async with running.site.serve(app) as port:
        await enroll(running.session, f"https://127.0.0.1:{port}", "node-1", "one-time", running.csr("node-1"))


async def test_the_answer_is_certs_only_pkcs7_in_base64(running: Running) -> None:
    async with running.session.get(running.url + CACERTS_PATH, server_hostname=GATEWAY_IDENTITY) as response:
        assert response.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
        assert response.headers["Content-Transfer-Encoding"] == "base64"
        der = base64.b64decode(await response.read())
    assert pkcs7.load_der_pkcs7_certificates(der) == [running.site.authority.certificate]


@given(st.binary(max_size=200))
def test_hostile_certificate_lists_raise_only_named_errors(data: bytes) -> None:
    for body in (data, base64.b64encode(data)):
        with pytest.raises(FieldrelayError):
            decode_certificates(body)
