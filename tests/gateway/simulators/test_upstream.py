"""The simulated upstream answers as a server does, counts what a client receives, and misbehaves exactly as told."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.simulators.characters import (
    announcing_too_little,
    announcing_too_much,
    cdn_like,
    covering,
    cutting,
    dripping,
    first_only,
    gone,
    hesitant,
    minio_like,
    resetting,
    s3_like,
    squid_like,
    ten_ranges,
    varnish_like,
)
from gateway.simulators.upstream import Faults, Traffic, UpstreamServer
from tests.builders.relayed import until
from update.chunks.ranges import MultipartParser, Range, parse_boundary

CONTENT = random.Random(4).randbytes(300_000)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[UpstreamServer]:
    (tmp_path / "root" / "targets").mkdir(parents=True)
    (tmp_path / "root" / "targets" / "x.zck").write_bytes(CONTENT)
    (tmp_path / "secret").write_bytes(b"secret")
    async with UpstreamServer(tmp_path / "root") as running:
        yield running


class Client:
    """A raw HTTP/1.1 client that counts every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.received_bytes = 0

    @classmethod
    async def to(cls, server: UpstreamServer) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]), limit=1 << 20))

    async def ask(self, *headers: str, path: str = "/targets/x.zck", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        self._writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.received_bytes += len(head)
        first, *lines = head.decode().rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b"" if method == "HEAD" else await self._body(fields)
        self.received_bytes += len(body)
        return int(first.split()[1]), fields, body

    async def _body(self, fields: dict[str, str]) -> bytes:
        if "content-length" not in fields:
            return await self._reader.readexactly(2 * len(CONTENT))  # endless: enough is enough
        try:
            return await self._reader.readexactly(int(fields["content-length"]))
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def at_end(self) -> bool:
        return await self._reader.read(1) == b""

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@pytest.fixture
async def client(server: UpstreamServer) -> AsyncIterator[Client]:
    connected = await Client.to(server)
    yield connected
    await connected.close()


def parts_of(fields: dict[str, str], body: bytes) -> list[tuple[int, bytes]]:
    boundary = parse_boundary(fields["content-type"])
    assert boundary is not None
    parser = MultipartParser(boundary)
    events = parser.feed(body)
    assert parser.complete
    return events


async def test_whole_single_and_several_ranges_are_answered_on_one_connection(server: UpstreamServer, client: Client) -> None:
    status, fields, body = await client.ask()
    assert (status, body, fields["accept-ranges"]) == (200, CONTENT, "bytes")
    status, fields, body = await client.ask("Range: bytes=5-99")
    assert (status, body, fields["content-range"]) == (206, CONTENT[5:100], f"bytes 5-99/{len(CONTENT)}")
    status, fields, body = await client.ask("Range: bytes=7-9,200000-,20-20")
    assert status == 206
    assert parts_of(fields, body) == [(7, CONTENT[7:10]), (200_000, CONTENT[200_000:]), (20, CONTENT[20:21])]
    status, fields, body = await client.ask("Range: bytes=5-99", method="HEAD")
    assert (fields["content-length"], body) == ("95", b"")
    assert (await client.ask(f"Range: bytes={len(CONTENT)}-"))[:2][0] == 416
    assert (await client.ask("Content-Length: 0", method="POST"))[0] == 405


@pytest.mark.parametrize(
    "path", ["/none", "/targets", "/", "/../secret", "/targets/../../secret", "/%2e%2e/secret", "//etc/passwd", "/targets/%00"]
)
async def test_only_files_below_the_root_are_there(client: Client, path: str) -> None:
    status, _, body = await client.ask(path=path)
    assert (status, b"secret" in body) == (404, False)


async def test_what_is_counted_is_what_clients_received(server: UpstreamServer) -> None:
    clients = [await Client.to(server) for _ in range(4)]
    dice = random.Random(8)

    async def work(client: Client, seed: int) -> None:
        for _ in range(15):
            starts = sorted(dice.sample(range(0, len(CONTENT) - 1000, 1000), dice.choice([1, 1, 7])))
            await client.ask("Range: bytes=" + ",".join(f"{start}-{start + 500 + seed}" for start in starts))
        await client.ask(method="HEAD")
        await client.ask(path="/none")

    await asyncio.gather(*(work(client, seed) for seed, client in enumerate(clients)))
    traffic = server.traffic
    assert traffic.sent_bytes == sum(client.received_bytes for client in clients)
    assert sum(traffic.per_path_bytes.values()) == traffic.sent_bytes
    assert traffic.requests == 4 * 17
    for client in clients:
        await client.close()


def test_repeated_bytes_are_what_was_sent_beyond_the_union() -> None:
    parts = [Range(0, 10), Range(5, 10), Range(100, 5), Range(102, 1), Range(15, 5)]
    traffic = Traffic(bodies={"/a.zck": parts, "/b.json": [Range(0, 9), Range(0, 9)]})
    assert (traffic.repeated_bytes(".zck"), traffic.repeated_bytes()) == (6, 15)
    assert Traffic().repeated_bytes() == 0


async def test_bytes_asked_twice_are_named_as_repeated(server: UpstreamServer, client: Client) -> None:
    await client.ask("Range: bytes=0-99999")
    await client.ask("Range: bytes=50000-149999")
    await client.ask("Range: bytes=149990-199999,0-9")
    assert server.traffic.repeated_bytes(".zck") == 50_000 + 10 + 10


async def test_a_response_is_cut_where_it_is_told(server: UpstreamServer, client: Client) -> None:
    server.faults.cut_after_bytes = 70_000
    status, _, body = await client.ask("Range: bytes=10-99999")
    assert (status, body) == (206, CONTENT[10:70_010])
    assert await client.at_end()
    assert server.traffic.bodies["/targets/x.zck"] == [Range(10, 70_000)]


async def test_a_cut_counts_over_all_parts_of_a_response(server: UpstreamServer, client: Client) -> None:
    server.faults.cut_after_bytes = 150
    _, _, body = await client.ask("Range: bytes=0-99,200-299,400-499")
    assert CONTENT[200:250] in body
    assert CONTENT[200:251] not in body
    assert await client.at_end()


@pytest.mark.parametrize(
    ("faults", "status", "starts"),
    [(Faults(ignore_ranges=True), 200, None), (Faults(first_range_only=True), 206, "bytes 5-9/300000")],
)
async def test_ranges_are_ignored_or_only_the_first_is_answered(
    server: UpstreamServer, client: Client, faults: Faults, status: int, starts: str | None
) -> None:
    server.faults = faults
    found, fields, body = await client.ask("Range: bytes=5-9,20-29")
    assert (found, fields.get("content-range")) == (status, starts)
    assert body == (CONTENT if starts is None else CONTENT[5:10])


async def test_lies_are_told_as_configured(server: UpstreamServer, client: Client) -> None:
    server.faults = Faults(flip_byte=True)
    body = (await client.ask("Range: bytes=5-9"))[2]
    assert [at for at, (sent, true) in enumerate(zip(body, CONTENT[5:10], strict=True)) if sent != true] == [0]
    server.faults = Faults(place_off_by=3, size_off_by=-1)
    _, fields, body = await client.ask("Range: bytes=5-9")
    assert (fields["content-range"], body) == ("bytes 8-12/299999", CONTENT[5:10])
    _, fields, body = await client.ask("Range: bytes=5-9,20-29")
    assert parts_of(fields, body) == [(8, CONTENT[5:10]), (23, CONTENT[20:30])]
    server.faults = Faults(endless=True)
    _, fields, body = await client.ask("Range: bytes=5-9")
    assert body == CONTENT[5:10] + bytes(2 * len(CONTENT) - 5)


TWO = "Range: bytes=5-9,20-29"
ONE = "Range: bytes=5-9"


@pytest.mark.parametrize(
    ("faults", "status", "place", "sent"),
    [
        (s3_like(), 200, None, Range(0, len(CONTENT))),
        (minio_like(), 501, None, None),
        (varnish_like(), 416, "bytes */300000", None),
        (covering(), 206, "bytes 5-29/300000", Range(5, 25)),
        (first_only(), 206, "bytes 5-9/300000", Range(5, 5)),
    ],
)
async def test_several_ranges_are_answered_as_the_character_has_it_and_one_range_with_that_range(
    tmp_path: Path, faults: Faults, status: int, place: str | None, sent: Range | None
) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    async with UpstreamServer(tmp_path, faults=faults) as server:
        client = await Client.to(server)
        found, fields, body = await client.ask(TWO, path="/x")
        assert (found, fields.get("content-range")) == (status, place)
        assert body == (CONTENT[sent.start : sent.end] if sent else b"")
        found, fields, body = await client.ask(ONE, path="/x")
        assert (found, fields["content-range"], body) == (206, "bytes 5-9/300000", CONTENT[5:10])
        await client.close()


async def test_a_cache_is_cold_once_for_each_path(server: UpstreamServer, client: Client, tmp_path: Path) -> None:
    (tmp_path / "root" / "y").write_bytes(CONTENT)
    server.faults = cdn_like()
    for path in ("/targets/x.zck", "/y"):
        assert [(await client.ask(TWO, path=path))[0] for _ in range(3)] == [200, 206, 206]


async def test_a_limit_of_ranges_is_one(server: UpstreamServer, client: Client) -> None:
    server.faults = ten_ranges()
    for count, status in ((10, 206), (11, 200)):
        ranges = ",".join(f"{at}-{at}" for at in range(0, 2 * count, 2))
        assert (await client.ask(f"Range: bytes={ranges}"))[0] == status


async def test_a_boundary_is_quoted(server: UpstreamServer, client: Client) -> None:
    server.faults = squid_like()
    _, fields, body = await client.ask(TWO)
    assert fields["content-type"].endswith('"')
    assert parts_of(fields, body) == [(5, CONTENT[5:10]), (20, CONTENT[20:30])]


async def test_who_resets_does_so_before_its_answer_or_in_the_middle(server: UpstreamServer, client: Client) -> None:
    async def ask_twice() -> None:
        for _ in range(2):
            await client.ask()

    server.faults = cutting(1000)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await ask_twice()
    assert sum(part.length for part in server.traffic.bodies["/targets/x.zck"]) == 1000
    server.faults = resetting()
    other = await Client.to(server)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await other.ask(ONE)
    await other.close()
    server.faults = Faults()
    third = await Client.to(server)
    assert (await third.ask(ONE))[0] == 206
    await third.close()


async def test_a_length_that_is_not_so_ends_the_connection(server: UpstreamServer, client: Client) -> None:
    server.faults = announcing_too_much()
    _, fields, body = await client.ask(ONE)
    assert (fields["content-length"], body) == ("1005", CONTENT[5:10])
    assert await client.at_end()
    other = await Client.to(server)
    server.faults = announcing_too_little()
    _, fields, body = await other.ask(ONE)
    assert (fields["content-length"], body) == ("4", CONTENT[5:9])
    await other.close()


async def test_a_status_is_for_everything(server: UpstreamServer, client: Client) -> None:
    server.faults = gone()
    assert [(await client.ask(path=path))[0] for path in ("/targets/x.zck", "/none")] == [410, 410]


async def test_slow_characters_are_silent_or_drip(
    server: UpstreamServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("gateway.simulators.upstream.asyncio.sleep", sleep)
    server.faults = hesitant(25.0)
    await client.ask(ONE)
    assert slept == [25.0]
    server.faults = dripping(200)
    await client.ask("Range: bytes=0-99")
    body = server.traffic.bodies["/targets/x.zck"][-1]  # five drips of 20 bytes, and head and frame before them
    assert (body, len([seconds for seconds in slept if seconds > 0])) == (Range(0, 100), 8)


async def test_the_rate_is_of_all_connections_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(CONTENT[:100_000])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with UpstreamServer(tmp_path, faults=Faults(bytes_per_s=1_000_000)) as server:
        clients = [await Client.to(server) for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr("gateway.simulators.upstream.asyncio.sleep", sleep)
            await asyncio.gather(*(client.ask(path="/x") for client in clients))
        for client in clients:
            await client.close()
    assert max(slept) == pytest.approx(server.traffic.sent_bytes / 1_000_000, rel=0.1)


async def test_stopping_cuts_also_a_client_that_does_not_read_and_starting_again_keeps_the_port(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(20 << 20))
    server = UpstreamServer(tmp_path)
    await server.start()
    url, silent = server.url, await Client.to(server)
    silent._writer.write(b"GET /x HTTP/1.1\r\n\r\n")
    await until(lambda: bool(server.traffic.bodies))
    async with asyncio.timeout(5):
        await server.stop()
        await server.stop()
    await silent.close()
    with pytest.raises(ConnectionError):
        await Client.to(server)
    await server.start()
    assert server.url == url
    client = await Client.to(server)
    assert (await client.ask("Range: bytes=0-4", path="/x"))[2] == bytes(5)
    await client.close()
    await server.stop()


@pytest.mark.parametrize(
    "noise", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x" * 70_000, b"\xff" * 10 + b"\r\n\r\n"]
)
async def test_noise_ends_its_connection_and_nothing_else(server: UpstreamServer, client: Client, noise: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(noise)
    writer.write_eof()
    with suppress(ConnectionError):
        await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    assert (await client.ask("Range: bytes=0-4"))[2] == CONTENT[:5]
