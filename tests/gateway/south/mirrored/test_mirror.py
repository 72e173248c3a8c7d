import asyncio
import hashlib
from pathlib import Path

import pytest

from gateway.sections.routes import RouteKind
from tests.builders.mirrored_site import FileUpstream, route, site, upstream


async def test_lasting_content_is_fetched_once_and_stays_while_upstream_is_away(tmp_path: Path) -> None:
    async with upstream(FileUpstream({"a/x.bin": b"content"})) as origin:
        section = route(RouteKind.IMMUTABLE, origin.url)
        async with site(tmp_path, section) as gateway:
            assert await gateway.get("/mirror/a/x.bin") == (200, b"content")
    async with site(tmp_path, section) as gateway:  # upstream gone, gateway restarted
        gateway.pass_time(10**9)
        assert await gateway.get("/mirror/a/x.bin") == (200, b"content")
        assert await gateway.get("/mirror/a/x.bin", headers={"Range": "bytes=1-2"}) == (206, b"on")
        assert (await gateway.get("/mirror/a/other"))[0] == 502
    assert origin.asked == [("a/x.bin", "")]


async def test_many_clients_cost_one_request(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"x": b"content"})) as origin,
        site(tmp_path, route(RouteKind.IMMUTABLE, origin.url)) as gateway,
    ):
        answers = await asyncio.gather(*(gateway.get("/mirror/x") for _ in range(20)))
    assert (set(answers), len(origin.asked)) == ({(200, b"content")}, 1)


async def test_a_changing_name_is_asked_for_again_when_it_is_due(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"refs/heads/m": b"one"})) as origin,
        site(tmp_path, route(RouteKind.OSTREE, origin.url, revalidate_s=60)) as gateway,
    ):
        assert await gateway.get("/mirror/refs/heads/m") == (200, b"one")
        gateway.pass_time(59)
        assert await gateway.get("/mirror/refs/heads/m") == (200, b"one")
        assert len(origin.asked) == 1
        gateway.pass_time(2)
        assert await gateway.get("/mirror/refs/heads/m") == (200, b"one")
        assert origin.asked[1][1] != "", "the second question is conditional"
        gateway.pass_time(59)
        await gateway.get("/mirror/refs/heads/m")
        assert len(origin.asked) == 2, "304 has confirmed it"
        origin.files["refs/heads/m"] = b"two"
        gateway.pass_time(2)
        assert await gateway.get("/mirror/refs/heads/m") == (200, b"two")
        del origin.files["refs/heads/m"]
        gateway.pass_time(61)
        assert (await gateway.get("/mirror/refs/heads/m"))[0] == 404
        assert gateway.objects.used_bytes == 0
        assert [file.suffix for file in (tmp_path / "objects").glob("??/*")] == [".json"], "the content has gone"


@pytest.mark.parametrize("status", [503, 500, 429])
async def test_a_stale_answer_is_given_within_its_limit_and_refused_after_it(tmp_path: Path, status: int) -> None:
    async with upstream(FileUpstream({"summary": b"one"})) as origin:
        section = route(RouteKind.OSTREE, origin.url, revalidate_s=60, stale_if_error_s=1000)
        async with site(tmp_path, section) as gateway:
            await gateway.get("/mirror/summary")
            assert (await gateway.get("/mirror/summary.sig"))[0] == 404
            origin.status = status
            gateway.pass_time(1000)
            assert await gateway.get("/mirror/summary") == (200, b"one")
            assert (await gateway.get("/mirror/summary.sig"))[0] == 404, "what was not there is still not there"
            state = gateway.mirror.state()
            assert (state.stale_answers, state.objects, str(status) in state.trouble) == (2, 1, True)
            gateway.pass_time(1)
            status_now, body = await gateway.get("/mirror/summary")
            assert (status_now, b"stale_if_error_s" in body, b"wire.unreachable" in body) == (502, True, True)
            origin.status = 0
            assert await gateway.get("/mirror/summary") == (200, b"one")
            assert gateway.mirror.state().trouble == ""


async def test_a_clock_that_went_back_asks_upstream_and_answers_while_it_is_away(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"summary": b"one"})) as origin,
        site(tmp_path, route(RouteKind.OSTREE, origin.url, stale_if_error_s=10)) as gateway,
    ):
        await gateway.get("/mirror/summary")
        gateway.pass_time(-(10**8))
        assert await gateway.get("/mirror/summary") == (200, b"one")
        assert len(origin.asked) == 2
        gateway.pass_time(-100)
        origin.status = 503
        assert await gateway.get("/mirror/summary") == (200, b"one")


async def test_wrong_content_is_refused_and_not_kept(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    path = f"app/blobs/sha256:{digest}"
    async with upstream(FileUpstream({path: b"wrong"})) as origin, site(tmp_path, route(RouteKind.OCI, origin.url)) as gateway:
        status, body = await gateway.get(f"/v2/{path}")
        assert (status, b"trust.length-or-hash" in body) == (422, True)
        assert (gateway.objects.used_bytes, list((tmp_path / "staging").iterdir())) == (0, [])
        origin.files[path] = b"right"
        assert await gateway.get(f"/v2/{path}") == (200, b"right")


async def test_a_registry_answers_with_type_and_digest(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    origin = FileUpstream({"app/manifests/latest": b"{}"}, headers={"Content-Type": f"{kind}; charset=utf-8"})
    async with upstream(origin), site(tmp_path, route(RouteKind.OCI, origin.url)) as gateway:
        for method in ("HEAD", "GET"):
            async with gateway.session.request(method, f"{gateway.url}/v2/app/manifests/latest") as response:
                assert (response.status, response.content_type, response.content_length) == (200, kind, 2)
                assert response.headers["Docker-Content-Digest"] == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
        assert await gateway.get("/v2/") == (200, b"{}")
        assert (await gateway.get("/v2/_catalog"))[0] == 404


async def test_what_is_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"x": bytes(101)})) as origin,
        site(tmp_path, route(RouteKind.IMMUTABLE, origin.url, max_object_bytes=100)) as gateway,
    ):
        assert (await gateway.get("/mirror/x"))[0] == 413
        assert gateway.objects.used_bytes == 0


@pytest.mark.parametrize("path", ["/mirror/a/%2e%2e/b", "/mirror/%2e%2e%2fx", "/mirror/a//b", "/mirror/a%5cb"])
async def test_a_path_that_would_leave_the_route_asks_nobody(tmp_path: Path, path: str) -> None:
    async with upstream(FileUpstream({"x": b"x"})) as origin, site(tmp_path, route(RouteKind.IMMUTABLE, origin.url)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.split(b" ")[1] in {b"400", b"404"}
    assert origin.asked == []


async def test_a_route_is_no_proxy(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"x": b"x"})) as origin,
        upstream(FileUpstream({"x": b"y"})) as other,
        site(tmp_path, route(RouteKind.IMMUTABLE, origin.url)) as gateway,
    ):
        for path in ("x", "mirror/x"):
            async with gateway.session.get(f"{other.url}/{path}", proxy=gateway.url) as response:
                assert response.status == 404
        assert (await gateway.get("/elsewhere/x"))[0] == 404
    assert other.asked == origin.asked == []


async def test_a_host_chooses_its_own_route(tmp_path: Path) -> None:
    async with (
        upstream(FileUpstream({"x": b"x"})) as origin,
        site(tmp_path, route(RouteKind.IMMUTABLE, origin.url, host="mirror.plant")) as gateway,
    ):
        assert await gateway.get("/mirror/x", headers={"Host": "mirror.plant:8080"}) == (200, b"x")
        assert (await gateway.get("/mirror/x"))[0] == 404
        async with gateway.session.get("http://mirror.plant/mirror/x", proxy=gateway.url) as response:
            assert (response.status, await response.read()) == (200, b"x")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ("", 400, b"wire.protocol"),
        ("Content-Length: 100\r\n", 502, b"wire.unreachable"),
        ("Transfer-Encoding: chunked\r\n\r\n64", 502, b"wire.unreachable"),
        ("Content-Length: 4\r\nContent-Encoding: gzip\r\n", 400, b"wire.protocol"),
    ],
)
async def test_what_comes_incomplete_or_as_something_else_is_not_kept(
    tmp_path: Path, head: str, status: int, code: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n".encode() + b"part")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with site(tmp_path, route(RouteKind.IMMUTABLE, f"http://127.0.0.1:{port}")) as gateway:
            found, body = await gateway.get("/mirror/x")
            assert (found, code in body) == (status, True), body
            assert (gateway.objects.find("x"), list((tmp_path / "staging").iterdir())) == (None, [])
