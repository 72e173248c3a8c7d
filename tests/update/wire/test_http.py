"""The fetcher of metadata against servers that lie, stall, and break off."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.wire.scripted import IMPATIENT, Answer, Asked, Scripted, reply, serve, session
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    NotFoundError,
    PeerIdentityError,
    ProtocolError,
    SlowError,
    UnauthorizedError,
    UnreachableError,
    WireError,
)
from update.wire.http import HttpFetcher, Manner, exchange, parse_url
from update.wire.session import wan_session

LIMIT = 1000


async def fetch(answer: Answer, manner: Manner | None = None) -> tuple[bytes, Scripted]:
    async with serve(answer) as server, session() as client:
        fetcher = HttpFetcher(client, f"{server.url}/repo", manner or Manner())
        return await fetcher.fetch("metadata/1.root.json", max_bytes=LIMIT), server


def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None, announce: int | None = -1) -> Answer:
    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, status, body, headers, announce=announce)
        await writer.drain()

    return answer


@pytest.mark.parametrize("once", [True, False])
async def test_what_may_have_been_done_is_not_asked_for_again_by_itself(once: bool) -> None:
    bodies: list[bytes] = []

    async def break_off(asked: Asked, writer: asyncio.StreamWriter) -> None:
        bodies.append(asked.body)
        writer.transport.abort()

    async with serve(break_off) as server, session() as client:
        with pytest.raises(UnreachableError):
            async with exchange(client, "PUT", f"{server.url}/x", body=b"state", once=once):
                pass
    assert bodies == [b"state"] * (1 if once else 2)


async def test_a_file_is_fetched_as_it_is() -> None:
    body, server = await fetch(answering(200, b" {bytes}\n"))
    assert body == b" {bytes}\n"
    assert (server.asked[0].method, server.asked[0].target) == ("GET", "/repo/metadata/1.root.json")
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_a_body_of_exactly_the_limit_is_accepted_with_and_without_its_length() -> None:
    assert len((await fetch(answering(200, bytes(LIMIT))))[0]) == LIMIT
    assert len((await fetch(answering(200, bytes(LIMIT), announce=None)))[0]) == LIMIT


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, NotFoundError),
        (404, NotFoundError),
        (410, NotFoundError),
        (401, UnauthorizedError),
        (407, UnauthorizedError),
        (429, UnreachableError),
        (500, UnreachableError),
        (503, UnreachableError),
        (204, ProtocolError),
        (206, ProtocolError),
        (304, ProtocolError),
        (400, ProtocolError),
        (418, ProtocolError),
    ],
)
async def test_every_status_has_its_name(status: int, error: type[FieldrelayError]) -> None:
    with pytest.raises(error):
        await fetch(answering(status, b"" if status in {204, 304} else b"x", announce=None if status in {204, 304} else -1))


async def test_a_length_above_the_limit_is_refused_before_reading() -> None:
    with pytest.raises(EndlessDataError, match="announces") as caught:
        await fetch(answering(200, b"", announce=LIMIT + 1))
    assert caught.value.code == "trust.endless-data"


async def test_an_endless_body_is_cut_at_the_limit() -> None:
    async def endless(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, announce=None)
        for _ in range(100_000):
            writer.write(bytes(1000))
            await writer.drain()

    with pytest.raises(EndlessDataError, match="sends more"):
        await fetch(endless)


async def test_a_body_shorter_than_announced_is_a_broken_connection() -> None:
    with pytest.raises(UnreachableError) as caught:
        await fetch(answering(200, b"half", announce=8))
    assert caught.value.code == "wire.unreachable"


@pytest.mark.parametrize("stall", ["before the head", "after the head", "trickle"])
async def test_a_server_that_stalls_is_slow(stall: str) -> None:
    async def slow(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        if stall != "before the head":
            reply(writer, 200, b"x", announce=500)
        while stall == "trickle":
            writer.write(b"x")
            await asyncio.sleep(0.03)
        await asyncio.Event().wait()

    with pytest.raises(SlowError) as caught:
        await fetch(slow, Manner(IMPATIENT))
    assert caught.value.code == "wire.slow"


async def test_a_compressed_answer_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(ProtocolError, match="gzip"):
        await fetch(answering(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}))


async def test_a_redirect_is_followed_and_a_loop_is_not() -> None:
    async def once(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == "/elsewhere":
            reply(writer, 200, b"found")
        else:
            reply(writer, 302, headers={"Location": "/elsewhere"})

    assert (await fetch(once))[0] == b"found"
    with pytest.raises(ProtocolError):
        await fetch(answering(302, headers={"Location": "/repo/metadata/1.root.json"}))
    with pytest.raises(ProtocolError):
        await fetch(answering(302, headers={"Location": "file:///etc/passwd"}))


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with serve(answering(200)) as server:
        pass
    async with session() as client:
        with pytest.raises(UnreachableError):
            await HttpFetcher(client, server.url).fetch("x", max_bytes=1)


@pytest.mark.parametrize(
    "path", ["", "/x", "../x", "a/../b", "a//b", "a/./b", "a?b", "a#b", "a b", "a\\b", "a\r\nb", "\u00e4", "x/"]
)
async def test_a_path_that_could_leave_the_repository_is_refused(path: str) -> None:
    async with session() as client:
        with pytest.raises(ProtocolError):
            await HttpFetcher(client, "http://127.0.0.1:1").fetch(path, max_bytes=1)


async def test_a_quoted_role_name_stays_quoted() -> None:
    async with serve(answering(200, b"x")) as server, session() as client:
        await HttpFetcher(client, server.url + "/").fetch("metadata/1.a%2Fb%20c.json", max_bytes=1)
    assert server.asked[0].target == "/metadata/1.a%2Fb%20c.json"


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://h/", "file:///etc", "http://", "http://h:99999/", "http://h/ x", "http://h/#f", "http://[::1"]
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ProtocolError):
        parse_url(url)


async def test_a_server_whose_certificate_is_not_trusted_is_not_talked_to(tls_server: ssl.SSLContext) -> None:
    async with serve(answering(200, b"x"), tls_server) as server, session() as client:
        with pytest.raises(PeerIdentityError) as caught:
            await HttpFetcher(client, server.url).fetch("x", max_bytes=1)
    assert caught.value.code == "wire.identity"
    assert server.asked == []


async def test_a_redirect_from_https_to_http_is_refused(tls_server: ssl.SSLContext, tls_ca: Path) -> None:
    async def elsewhere(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 302, headers={"Location": f"{plain.url}/x"})

    async with (
        serve(answering(200, b"x")) as plain,
        serve(elsewhere, tls_server) as server,
        wan_session(extra_ca=tls_ca) as client,
    ):
        with pytest.raises(ProtocolError, match="not protected"):
            await HttpFetcher(client, server.url).fetch("x", max_bytes=1)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail, st.binary(max_size=300)),
        st.builds(
            lambda name, value, body: b"HTTP/1.1 200 OK\r\n" + name + b": " + value + b"\r\n\r\n" + body,
            st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Location", b"Connection"]),
            st.sampled_from(
                [b"-1", b"99999999999999999999", b"0x10", b"chunked", b"gzip, chunked", b"5, 6", b"\xff", b"", b"close"]
            ),
            st.binary(max_size=100),
        ),
    )
)
def test_whatever_a_server_says_only_named_errors_come_of_it(answer: bytes) -> None:
    async def hostile(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    with suppress(WireError, EndlessDataError):
        asyncio.run(fetch(hostile, Manner(IMPATIENT)))
