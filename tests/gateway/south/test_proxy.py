"""The plain listener as origin and as forward proxy: signed URLs and a repository's own are answered, nothing else is."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.builders.relayed import make_zck
from tests.builders.stock_listener import FOREIGN, LIKE_OURS, Listener, Reply
from update.chunks.ranges import Range, format_range


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture
async def listener(tmp_path: Path, zck: Path) -> AsyncIterator[Listener]:
    made = Listener(tmp_path, zck)
    runner = await made.start()
    yield made
    await runner.cleanup()
    await made.site.relays.close()
    made.files.close()


def part(span: Range) -> str:
    return f"Range: {format_range([span])}"


async def test_a_proxy_answers_a_signed_url_of_any_host(listener: Listener) -> None:
    """As libcurl asks with http_proxy; the Host field is not what counts (RFC 9112, section 3.2.2)."""
    span = Range(200_000, 3000)
    reply = Reply(b"")
    for host in ("cdn.vendor.example:8081", "anything.example", "plant"):
        reply = await listener.ask(FOREIGN, part(span), "Proxy-Connection: Keep-Alive", host=host)
        assert (reply.status, reply.body) == (206, listener.image[span.start : span.end])
    assert f'etag: "{listener.info.sha256}"' in reply.head
    head = await listener.ask(FOREIGN, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert f"content-length: {len(listener.image)}" in head.head


async def test_an_origin_answers_the_same_url_by_its_host(listener: Listener) -> None:
    """As a node asks whose name resolution leads here."""
    span = Range(300_000, 3000)
    reply = await listener.ask("/os/image.zck?v=2", part(span), host="CDN.vendor.example:8081")
    assert (reply.status, reply.body) == (206, listener.image[span.start : span.end])
    for host in ("cdn.vendor.example", "plant", "127.0.0.1", "cdn.vendor.example:80"):
        assert (await listener.ask("/os/image.zck?v=2", host=host)).status == 404, host
    assert (await listener.ask("/os/image.zck", host="cdn.vendor.example:8081")).status == 404


async def test_a_repositorys_own_name_is_answered_as_before(listener: Listener) -> None:
    span = Range(0, 10)
    for target, host in ((f"/{listener.info.wire_path}", "plant"), (f"http://plant/{listener.info.wire_path}", "x")):
        assert (await listener.ask(target, part(span), host=host)).body == listener.image[:10]


@pytest.mark.parametrize("peers", [False, True])
async def test_a_signed_url_is_answered_whatever_its_path_looks_like(tmp_path: Path, zck: Path, peers: bool) -> None:
    listener = Listener(tmp_path, zck)
    runner = await listener.start(peers=peers)
    try:
        assert (await listener.ask(LIKE_OURS, "Range: bytes=0-9")).body == listener.image[:10]
        path = LIKE_OURS.removeprefix("http://mirror.vendor.example")
        assert (await listener.ask(path, "Range: bytes=0-9", host="mirror.vendor.example")).body == listener.image[:10]
        assert (await listener.ask(path, host="other.example")).status == 404
        assert (await listener.ask(LIKE_OURS.replace("mirror", "other"))).not_proxied
    finally:
        await runner.cleanup()
        await listener.site.relays.close()
        listener.files.close()


SAME = [
    "HTTP://CDN.Vendor.Example:8081/os/image.zck?v=2",
    "http://cdn.vendor.example.:8081/os/image.zck?v=2",
    "http://cdn.vendor.example:08081/%6fs/./image%2Ezck?v=2",
    "http://[2001:DB8:0:0::1]:80/image.zck",
]


@pytest.mark.parametrize("target", SAME)
async def test_the_same_url_in_another_form_is_answered(listener: Listener, target: str) -> None:
    assert (await listener.ask(target, "Range: bytes=0-9")).body == listener.image[:10]


REFUSED = [
    "http://cdn.vendor.example:8081/os/image.zck",
    "http://cdn.vendor.example:8081/os/image.zck?v=2&x",
    "http://cdn.vendor.example/os/image.zck?v=2",
    "https://cdn.vendor.example:8081/os/image.zck?v=2",
    "http://cdn.vendor.example:8081@evil.example/os/image.zck?v=2",
    "http://user@cdn.vendor.example:8081/os/image.zck?v=2",
    "http://evil.example/http://cdn.vendor.example:8081/os/image.zck?v=2",
    "http://cdn.vendor.example:8081.evil.example/os/image.zck?v=2",
    "http://cdn.vendor.example%2e:8081/os/image.zck?v=2",
    "http://cdn.vendor.example..:8081/os/image.zck?v=2",
    "http://cdn.vendor.example:8081/os%2fimage.zck?v=2",
    "http://cdn.vendor.example:8081/OS/image.zck?v=2",
    "http://[2001:db8::1%25lo]/image.zck",
    "http://[2001:db8::2]/image.zck",
    "http://2001:db8::1/image.zck",
    "http://127.0.0.1:22/",
    "http://127.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://localhost/etc/passwd",
    "http://plant/format_version",
    "http://plant/targets/nothing.zck",
    "http://plant@evil.example/targets/x",
    "ftp://plant/targets/x",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("target", REFUSED)
async def test_no_url_that_nobody_signed_is_answered_and_nothing_is_connected(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    connected: list[object] = []
    reply = Reply(b"")
    with monkeypatch.context() as patched:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        patched.setattr(socket.socket, "connect", lambda _self, address: connected.append(address))
        patched.setattr(socket, "getaddrinfo", lambda *address, **_more: connected.append(address))
        writer.write(f"GET {target} HTTP/1.1\r\nHost: cdn.vendor.example:8081\r\nConnection: close\r\n\r\n".encode())
        reply = Reply(await reader.read())
    writer.close()
    await writer.wait_closed()
    assert reply.not_proxied or reply.status == 400, reply.raw
    assert connected == []
    assert listener.upstream.requests == []


async def test_before_anything_is_verified_a_url_may_be_signed_and_is_asked_for_again(listener: Listener) -> None:
    listener.listed.lacking = ["vendor"]
    for target, host in (("http://elsewhere.example/os/image.zck", "x"), ("/os/image.zck", "elsewhere.example")):
        reply = await listener.ask(target, host=host)
        assert (reply.status, b"wire.not-ready" in reply.body) == (503, True)
        assert "\r\nretry-after: 10" in reply.head
    assert (await listener.ask(FOREIGN, "Range: bytes=0-9")).status == 206
    listener.listed.lacking = []
    assert (await listener.ask("http://elsewhere.example/os/image.zck")).not_proxied


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND"])
async def test_only_get_and_head_are_proxied(listener: Listener, method: str) -> None:
    assert (await listener.ask(FOREIGN, "Content-Length: 0", method=method)).not_proxied
    refused = await listener.ask("/os/image.zck?v=2", "Content-Length: 0", host="cdn.vendor.example:8081", method=method)
    assert refused.status == 405


@pytest.mark.parametrize("target", ["cdn.vendor.example:8081", "127.0.0.1:22", "[::1]:22", "plant:443", "/", FOREIGN])
async def test_nobody_gets_a_tunnel(listener: Listener, target: str) -> None:
    reply = await listener.raw(f"CONNECT {target} HTTP/1.1\r\nHost: plant\r\n\r\nSSH-2.0-x\r\n".encode())
    assert reply.not_proxied or reply.status == 400, reply.raw
    assert b"HTTP/1.1 2" not in reply.raw


HOSTS = [
    ["Host: plant", "Host: cdn.vendor.example:8081"],
    ["Host: cdn.vendor.example:8081", "Host: cdn.vendor.example:8081"],
    ["Host: cdn.vendor.example:8081/os"],
    ["Host: plant, cdn.vendor.example:8081"],
    ["Host: user@cdn.vendor.example:8081"],
    ["Host: cdn.vendor.example:8081?"],
    ["Host: cdn.vendor.example:8081#"],
    ["Host : cdn.vendor.example:8081"],
    ["Host: cdn.vendor.example:8081", " continued"],
    [],
]


@pytest.mark.parametrize("fields", HOSTS, ids=range(len(HOSTS)))
async def test_a_host_that_is_none_or_two_is_refused(listener: Listener, fields: list[str]) -> None:
    for target in ("/os/image.zck?v=2", "/image.zck?v=2"):
        reply = await listener.ask(target, *fields, host=None)
        assert reply.status == 400, reply.raw
    assert listener.upstream.requests == []


SMUGGLED = b"GET http://plant/hidden HTTP/1.1\r\nHost: plant\r\nConnection: close\r\n\r\n"
SMUGGLING = [
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%b",
    b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n%b",
    b"Content-Length: +%d\r\n\r\n%b",
    b"Content-Length: 0x%x\r\n\r\n%b",
    b"Transfer-Encoding: xchunked\r\nX: %d\r\n\r\n%b",
    b"Transfer-Encoding: chunked, identity\r\nX: %d\r\n\r\n0\r\n\r\n%b",
    b"Transfer-Encoding : chunked\r\nX: %d\r\n\r\n0\r\n\r\n%b",
    b"Content-Length: %d\nTransfer-Encoding: chunked\n\n0\n\n%b",
    b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%b",
]


@pytest.mark.parametrize("form", SMUGGLING, ids=range(len(SMUGGLING)))
async def test_no_second_request_hides_in_a_doubtful_first(
    listener: Listener, form: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever stands before the gateway may see one request: then the gateway answers one, or none."""
    with caplog.at_level(logging.INFO):
        reply = await listener.raw(b"GET %b HTTP/1.1\r\nHost: x\r\n" % FOREIGN.encode() + form % (len(SMUGGLED), SMUGGLED))
    assert "refused GET" not in caplog.text
    assert (reply.status, len(re.findall(rb"HTTP/1\.\d \d{3} ", reply.raw))) == (400, 1)


async def test_bodies_of_requests_are_passed_over(listener: Listener) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\n" % FOREIGN.encode()
    body = b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)
    reply = await listener.raw(request + body + request + b"Connection: close\r\n\r\n")
    assert reply.raw.count(b"HTTP/1.1 206") == 2
    assert b"not-proxied" not in reply.raw


async def test_a_url_is_refused_as_soon_as_its_bundle_has_left(listener: Listener) -> None:
    assert (await listener.ask(FOREIGN, "Range: bytes=0-9")).status == 206
    listener.registry.shown("plant", [listener.info])
    assert (await listener.ask(FOREIGN, "Range: bytes=0-9")).not_proxied
    assert (await listener.ask("/os/image.zck?v=2", host="cdn.vendor.example:8081")).status == 404


async def test_a_url_longer_than_any_is_refused(listener: Listener) -> None:
    assert (await listener.ask("http://plant/" + "x" * 5000)).not_proxied
    assert (await listener.ask("http://plant/" + "x" * 200_000)).status in {0, 400}


async def test_a_refusal_repeats_little_of_what_was_asked(listener: Listener) -> None:
    reply = await listener.ask("http://evil.example/<script>" + "y" * 3000)
    assert reply.not_proxied or reply.status == 400
    assert len(reply.body) < 600
    assert "application/json" in reply.head
