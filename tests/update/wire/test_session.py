"""The options of [wan]: proxy, extra CA, source address and interface."""

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from tests.update.wire.scripted import Asked, Scripted, reply, serve
from update.errors import ConfigurationError, PeerIdentityError, UnauthorizedError, UnreachableError
from update.wire.http import HttpFetcher, Manner
from update.wire.session import showing, wan_context, wan_session


async def found(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    reply(writer, 200, b"found", {"Set-Cookie": "tracker=1"})


async def test_an_extra_ca_is_trusted_and_without_it_the_server_is_not(tls_server: ssl.SSLContext, tls_ca: Path) -> None:
    async with serve(found, tls_server) as server:
        async with wan_session(extra_ca=tls_ca) as client:
            assert await HttpFetcher(client, server.url).fetch("x", max_bytes=9) == b"found"
        async with wan_session() as client:
            with pytest.raises(PeerIdentityError):
                await HttpFetcher(client, server.url).fetch("x", max_bytes=9)


async def test_a_certificate_is_shown_where_it_is_asked_for(tls_server: ssl.SSLContext, tls_ca: Path, tmp_path: Path) -> None:
    tls_server.verify_mode = ssl.CERT_REQUIRED
    tls_server.load_verify_locations(tls_ca)
    certified = showing(wan_context(tls_ca), tls_ca, tls_ca.with_name("server.key"))
    async with serve(found, tls_server) as server, wan_session(extra_ca=tls_ca) as client:
        assert await HttpFetcher(client, server.url, Manner(tls=certified)).fetch("x", max_bytes=9) == b"found"
        with pytest.raises((UnauthorizedError, UnreachableError)):
            await HttpFetcher(client, server.url).fetch("x", max_bytes=9)
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        showing(wan_context(None), tmp_path / "none.pem", tmp_path / "none.key")


async def test_a_proxy_is_asked_with_its_credentials_which_the_server_never_sees() -> None:
    word = "p:w/@ %"
    async with serve(found) as proxy, wan_session(proxy=proxy.url, proxy_user="user@site", proxy_password=word) as client:
        assert await HttpFetcher(client, "http://upstream.example/repo").fetch("x", max_bytes=9) == b"found"
    asked = proxy.asked[0]
    assert asked.target == "http://upstream.example/repo/x"
    scheme, _, token = asked.headers["proxy-authorization"].partition(" ")
    assert (scheme, base64.b64decode(token).decode()) == ("Basic", f"user@site:{word}")
    assert "authorization" not in asked.headers


async def test_a_proxy_that_refuses_the_password_is_named() -> None:
    async def refuse(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 407)

    async with serve(refuse) as proxy, wan_session(proxy=proxy.url) as client:
        for url in ("http://upstream.example", "https://upstream.example"):
            with pytest.raises(UnauthorizedError) as caught:
                await HttpFetcher(client, url).fetch("x", max_bytes=9)
            assert caught.value.code == "wire.unauthorized"
    assert [asked.method for asked in proxy.asked] == ["GET", "CONNECT"]


async def test_the_environment_does_not_choose_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serve(found) as server, wan_session() as client:
        assert await HttpFetcher(client, server.url).fetch("x", max_bytes=9) == b"found"


async def two_requests(server: Scripted, **options: str) -> None:
    async with wan_session(**options) as client:  # type: ignore[arg-type]  # only options that are texts
        for _ in range(2):
            await HttpFetcher(client, server.url).fetch("x", max_bytes=9)


async def test_the_source_address_is_used_and_cookies_are_not_kept() -> None:
    async with serve(found) as server:
        await two_requests(server, source_address="127.0.0.2")
    assert [asked.peer for asked in server.asked] == ["127.0.0.2", "127.0.0.2"]
    assert "cookie" not in server.asked[1].headers


async def test_the_source_interface_is_bound() -> None:
    async with serve(found) as server:
        await two_requests(server, source_interface="lo")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"source_address": "127.0.0.1", "source_interface": "lo"}, "source_address"),
        ({"source_address": "gateway"}, "source_address"),
        ({"source_interface": "no-such-interface"}, "source_interface"),
        ({"proxy": "http://user:secret@proxy.example:3128"}, "proxy"),
        ({"proxy": "socks5://proxy.example"}, "proxy"),
        ({"proxy": "http://proxy.example", "proxy_user": "a:b"}, "proxy_user"),
        ({"proxy": "http://proxy.example", "proxy_user": "\u00e4"}, "proxy_user"),
        ({"extra_ca": Path("/nonexistent")}, "extra_ca"),
    ],
)
async def test_an_option_that_cannot_be_meant_is_named(options: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key) as caught:
        wan_session(**options)  # type: ignore[arg-type]  # each case is one wrong option
    assert "secret" not in str(caught.value)


async def test_a_password_is_never_part_of_a_message() -> None:
    async with serve(found) as proxy:
        gone = proxy.url
    async with wan_session(proxy=gone, proxy_user="user", proxy_password="secret") as client:  # noqa: S106 - a fake
        with pytest.raises(UnreachableError) as caught:
            await HttpFetcher(client, "http://upstream.example").fetch("x", max_bytes=9)
    assert "secret" not in str(caught.value)
