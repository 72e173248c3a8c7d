"""The shipped nginx configuration with a real nginx before a real gateway: who answers, and that it is the same answer."""

import asyncio
import getpass
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.simulators.upstream import UpstreamServer
from tests.builders.appliance import Appliance, free_port
from tests.builders.relayed import index_of, make_zck
from tests.builders.repository import RepositoryBuilder
from tests.peers import need_tool
from update.chunks.ranges import MultipartParser
from update.digest import digest_of

pytestmark = pytest.mark.interop

SNIPPET = Path(__file__).resolve().parents[2] / "configs" / "nginx" / "fieldrelay.conf"
CONTENT = bytes(range(256)) * 3000
SECRET = b"listed once, and no longer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and whether nginx made it."""

    status: int
    head: str
    body: bytes

    @property
    def fields(self) -> set[str]:
        """Header lines apart from those that name the server, the time and the connection."""
        lines = self.head.split("\r\n")[1:]
        return {line for line in lines if line.partition(":")[0].lower() not in {"server", "date", "connection"}}


@dataclass(frozen=True, slots=True)
class Front:
    """nginx, the gateway behind it, and the folder that nginx serves from."""

    port: int
    behind: int
    store: Path
    image_path: str
    image: bytes

    async def ask(self, target: str, *fields: str, method: str = "GET", host: str = "plant", port: int | None = None) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        async with asyncio.timeout(60):
            raw = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = raw.partition(b"\r\n\r\n")
        return Answer(int(head.split()[1]), head.decode("latin-1"), body)

    async def both(self, target: str, *fields: str, method: str = "GET", host: str = "plant") -> tuple[Answer, Answer]:
        """Through nginx, and from the gateway itself."""
        through = await self.ask(target, *fields, method=method, host=host)
        return through, await self.ask(target, *fields, method=method, host=host, port=self.behind)

    async def listed(self) -> None:
        """Wait until the gateway has mirrored the small targets."""
        for _ in range(1200):
            if {(await self.ask(path, method="HEAD", port=self.behind)).status for path in (WHOLE, GONE)} == {200}:
                return
            await asyncio.sleep(0.05)
        pytest.fail("the gateway does not list its targets")

    def mark(self, target: str) -> None:
        """Change the stored bytes in place: whoever sends the changed ones has read the file, past the gateway's open one."""
        path = self.store / "plant" / target.lstrip("/")
        stamp = path.stat()
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(b"!" + content[1:])
        path.chmod(0o644)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@contextmanager
def nginx(folder: Path, port: int, behind: int, store: Path) -> Iterator[None]:
    """The shipped file with its marked lines adapted."""
    text = SNIPPET.read_text()
    for before, after in {
        "server 127.0.0.1:8081;": f"server 127.0.0.1:{behind};",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "    listen [::]:8080;\n": "",
        "/var/cache/nginx/fieldrelay": f"{folder}/cache",
        "/var/lib/fieldrelay/store/repositories": str(store),
    }.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; user {getpass.getuser()}; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}} http {{ tcp_nopush on; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n"
        f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n{text}\n}}\n"
    )
    command = [need_tool("nginx"), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]
    with socket.create_server(("127.0.0.1", port)) as listener:  # inherited while it listens: nobody waits for nginx
        environment = os.environ | {"NGINX": f"{listener.fileno()};"}
        process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@asynccontextmanager
async def serving(tmp_path: Path, *, rotten: bool = False) -> AsyncIterator[Front]:
    zck = make_zck(tmp_path)
    builder = RepositoryBuilder(now=datetime.now(UTC))
    builder.add_target("os/whole.bin", CONTENT)
    builder.add_target("gone.bin", SECRET)
    index = index_of(zck)
    builder.add_target("image.zck", zck.read_bytes(), {"zckHeader": {"sha256": index.sha256, "length": index.header.header_size}})
    builder.publish()
    builder.write_to(tmp_path / "upstream")
    with tempfile.TemporaryDirectory() as short:
        folder, port = Path(short), free_port()
        (folder / "root.json").write_bytes(builder.root_bytes)
        async with UpstreamServer(tmp_path / "upstream") as upstream:
            appliance = Appliance(folder)
            await appliance.set_up(upstream.url)
            store = folder / "state" / "store" / "repositories"
            image = f"/targets/{digest_of(zck.read_bytes())}.image.zck"
            front = Front(port, appliance.port, store, image, zck.read_bytes())
            if rotten:
                async with appliance.running():
                    await front.listed()
                front.mark(GONE)
            async with appliance.running():
                await front.listed()
                with nginx(tmp_path, port, appliance.port, store):
                    yield front


WHOLE = f"/targets/os/{digest_of(CONTENT)}.whole.bin"
GONE = f"/targets/{digest_of(SECRET)}.gone.bin"


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    need_tool("nginx")
    async with serving(tmp_path) as made:
        yield made


async def test_complete_content_comes_from_nginx_in_the_gateways_words(front: Front) -> None:
    for fields in (
        (),
        ("Range: bytes=0-0",),
        ("Range: bytes=5-70000",),
        ("Range: bytes=700000-",),
        ("Range: bytes=9-4000000000",),
    ):
        through, itself = await front.both(WHOLE, *fields)
        assert (through.status, through.body) == (itself.status, itself.body)
        assert through.fields - {"Accept-Ranges: bytes"} == itself.fields - {"Accept-Ranges: bytes"}
        assert "\r\nServer: nginx" in through.head
    front.mark(WHOLE)
    assert (await front.ask(WHOLE, "Range: bytes=0-9")).body == b"!" + CONTENT[1:10], "nginx reads the file itself"


CONDITIONS = (
    ("Range: bytes=0-9,20-29",),
    ("Range: bytes=-9",),
    ("Range: lines=1-2",),
    ("Range: bytes=0-9", f'If-Range: "{digest_of(CONTENT)}"'),
    ("Range: bytes=0-9", 'If-Range: "other"'),
    ('If-Match: "other"',),
    (f'If-None-Match: "{digest_of(CONTENT)}"',),
    ("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",),
)


async def test_what_nginx_answers_in_another_way_is_the_gateways(front: Front) -> None:
    boundary = re.compile(r"boundary=[0-9a-f]{20}")
    for fields in CONDITIONS:
        through, itself = await front.both(WHOLE, *fields)
        assert (through.status, len(through.body)) == (itself.status, len(itself.body)), fields
        ours, more = ({boundary.sub("", line) for line in each.fields} for each in (itself, through))
        assert ours == more, fields
    beyond, itself = await front.both(WHOLE, "Range: bytes=9000000-")
    assert beyond.status == itself.status == 416
    assert f"Content-Range: bytes */{len(CONTENT)}" in beyond.fields & itself.fields
    malformed = await front.ask(WHOLE, "Range: bytes=9-3")  # may be ignored or refused (RFC 9110, section 14.2)
    assert malformed.status == 416


async def test_several_ranges_come_as_stock_clients_need_them(front: Front) -> None:
    spans = [(start, start + 99) for start in range(0, 600_000, 3000)]
    reply = await front.ask(WHOLE, "Range: bytes=" + ",".join(f"{start:08}-{last:08}" for start, last in reversed(spans)))
    found = re.search(r"\r\nContent-Type: multipart/byteranges; boundary=([a-z0-9]+)\r\n", reply.head)
    assert reply.status == 206
    assert found is not None
    parts = MultipartParser(found[1]).feed(reply.body)
    assert parts == [(start, CONTENT[start : last + 1]) for start, last in reversed(spans)]


async def test_a_head_is_answered_200_whatever_ranges_it_names(front: Front) -> None:
    through, itself = await front.both(WHOLE, "Range: bytes=0-9", method="HEAD")
    assert (through.status, through.body, through.fields) == (200, b"", itself.fields)


async def test_incomplete_content_comes_through_the_gateway(front: Front) -> None:
    reply = await front.ask(front.image_path, "Range: bytes=70000-80000")
    assert (reply.status, reply.body) == (206, front.image[70000:80001])
    assert not list(front.store.rglob("*.image.zck"))


async def test_what_is_stored_but_not_listed_is_refused(front: Front) -> None:
    stray = front.store / "plant" / "targets" / f"{digest_of(b'stray')}.stray.bin"
    stray.write_bytes(b"stray")
    stray.chmod(0o644)
    reply, itself = await front.both(f"/targets/{stray.name}")
    assert (reply.status, reply.body) == (404, itself.body)
    assert b"wire.not-found" in reply.body
    assert (await front.ask(GONE)).body == SECRET
    assert (await front.ask(GONE, host="elsewhere")).status == 404


ELSEWHERE = (
    "/targets/",
    "/targets",
    "/",
    "/targets/os/",
    "/.fieldrelay-listed",
    "/../trusted/root.json",
    "/targets/../metadata/timestamp.json",
    "/targets/%2e%2e/metadata/timestamp.json",
    "/targets/..%2fmetadata%2ftimestamp.json",
    f"/targets/os/../{GONE.rpartition('/')[2]}%00",
    f"/targets/.hidden/{GONE.rpartition('/')[2]}",
)


async def test_no_listing_and_no_way_out(front: Front) -> None:
    for target in ELSEWHERE:
        reply = await front.ask(target)
        assert reply.status in {400, 404}, target
        assert b"<a href" not in reply.body
        assert b"signatures" not in reply.body
    for host in ("..", "plant/../plant", ".", "plant..", "PLANT%2f", "-", "plant/targets"):
        assert (await front.ask(GONE, host=host)).status in {400, 404}, host


async def test_nginx_is_no_proxy(front: Front) -> None:
    for target in (f"http://plant{WHOLE}", "http://elsewhere.example/", f"http://plant{GONE}"):
        reply = await front.ask(target)
        assert reply.status == 403
        assert SECRET not in reply.body
    assert (await front.ask("elsewhere.example:443", method="CONNECT")).status >= 400


async def test_what_rotted_on_the_disk_is_fetched_again_and_not_sent(tmp_path: Path) -> None:
    """The first question of nginx makes the gateway read the file; what does not match goes to quarantine."""
    need_tool("nginx")
    async with serving(tmp_path, rotten=True) as front:
        reply = await front.ask(GONE)
        assert (reply.status, reply.body) == (200, SECRET) or reply.status in {404, 502}
