"""A build server pushes to the whole gateway: what arrives, what is refused and by which name, and who hears of it."""

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from gateway.app import Listening
from gateway.cli.main import main
from gateway.config import StateFolder
from gateway.north.webhook.messages import headers_of
from gateway.sections.calls import CallSection
from gateway.sections.pushers import PusherSection, PushSection
from tests.builders.bundles import describe, image, signed
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import Site, now, offered, set_up_site
from update.errors import (
    ForbiddenError,
    NotFoundError,
    StateError,
    TooLargeError,
    UnauthorizedError,
)
from update.publish.pushes import files_of, label_of
from update.wire.http import Manner
from update.wire.push_messages import Begin, Session, Taken, Verdict
from update.wire.pushing import PushClient
from update.wire.tls import GATEWAY_IDENTITY, client_context

BOARD = {"hwIds": ["board:1"], "version": "2", "releaseCounter": 2}
SECRET = b"s" * 32


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def whole(folder: Path, version: str = "2") -> Path:
    content = f"the whole image {version}".encode() * 1000
    description = describe(images=[image("a.img", content, type="raw")]).replace(
        b'version = "1"', f'version = "{version}"'.encode()
    )
    return signed(folder, description, {"a.img": content}, name=f"whole-{version}.swu")


@dataclass
class Works:
    """A gateway without any line, and a build server with a repository in `built`."""

    site: Site
    builder: RepositoryBuilder
    folder: Path

    def pusher(self, name: str, **more: object) -> PusherSection:
        (self.folder / f"{name}.token").write_text(f"token-of-{name}\n")
        (self.folder / f"{name}.secret").write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
        values = {"token": self.folder / f"{name}.token", "repositories": ("plant",), **more}
        return PusherSection(name=name, **values)  # type: ignore[arg-type]  # keys by name

    def with_push(self, *pushers: PusherSection, **more: int) -> Site:
        push = PushSection(enabled=True, pusher=pushers or (self.pusher("ci"),), **more)
        return replace(self.site, config=replace(self.site.config, push=push))

    def build(self) -> Path:
        self.builder.publish()
        self.builder.write_to(self.folder / "built")
        return self.folder / "built"

    @property
    def store(self) -> Path:
        return self.folder / "state" / "store"

    @property
    def site_ca(self) -> Path:
        return StateFolder(self.site.config.gateway.state).authority[0]

    def kept(self) -> set[str]:
        return {file.name.partition(".")[2] for file in self.store.rglob("targets/**/*") if file.is_file()}

    def pushes(self) -> list[str]:
        """What lies on disk of pushes that are not finished, records of finished ones aside."""
        return [file.name for file in (self.folder / "state" / "pushes").iterdir() if file.name.count(".") > 1]

    @asynccontextmanager
    async def client(self, listening: Listening, name: str = "ci") -> AsyncIterator[PushClient]:
        manner = Manner(
            headers={"Authorization": f"Bearer token-of-{name}"},
            server_hostname=GATEWAY_IDENTITY,
            tls=client_context(self.site_ca),
        )
        async with aiohttp.ClientSession() as session:
            yield PushClient(session, f"https://127.0.0.1:{listening.port}", manner)


async def begin(client: PushClient, source: Path) -> Session:
    """Everything of it is sent, nothing judged."""
    files = files_of(source)
    session = await client.begin(Begin(label=label_of(files)))
    for each in files:
        await client.send(session, each.path, each.file, lambda _done: None)
    return session


async def push(client: PushClient, source: Path) -> Verdict:
    return await client.finish((await begin(client, source)).session)


def said(verdict: Verdict) -> dict[str, tuple[Taken, str]]:
    return {each.path.rpartition("/")[2].partition(".")[2]: (each.verdict, each.code) for each in verdict.files}


@pytest.fixture
async def works(short: Path) -> Works:
    builder = RepositoryBuilder(now=now())
    site = await set_up_site(short, builder)
    (short / "upstream").rename(short / "nowhere")
    return Works(site, builder, short)


async def test_a_release_is_pushed_kept_and_wanted_of_the_node(works: Works, short: Path) -> None:
    zck = make_zck(short, blocks=60)
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    works.builder.add_target("os/image.zck", zck.read_bytes(), custom_of(zck).as_json())
    built = works.build()
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(works.with_push(works.pusher("ci", install=True)).running())
        node = await works.site.node(listening, stack)
        client = await stack.enter_async_context(works.client(listening))

        verdict = await push(client, built)

        assert (verdict.repository, verdict.nodes, verdict.refused) == ("plant", 1, ())
        assert said(verdict)["whole-2.swu"] == (Taken.ACCEPTED, "")
        assert said(verdict)["image.zck"] == (Taken.ACCEPTED, "")
        assert works.kept() == {"whole-2.swu", "image.zck"}
        assert await offered(node) == "whole-2.swu"
        assert works.pushes() == []
        again = await push(client, built)
        assert ({each.verdict for each in again.files}, again.nodes) == ({Taken.KNOWN}, 1)


async def test_the_verdict_is_told_again_to_who_did_not_hear_it(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    async with works.with_push().running() as listening, works.client(listening) as client:
        session = await begin(client, works.build())
        first, second = await asyncio.gather(client.finish(session.session), client.finish(session.session))
        assert first == second == await client.finish(session.session)
        assert (await client.show(session.session)).verdict == first


async def test_two_pushers_at_once_are_both_right(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    built = works.build()
    site = works.with_push(works.pusher("ci"), works.pusher("nightly"))
    async with site.running() as listening, works.client(listening) as one, works.client(listening, "nightly") as two:
        verdicts = await asyncio.gather(push(one, built), push(two, built))
        assert [verdict.refused for verdict in verdicts] == [(), ()]
        assert {said(verdict)["whole-2.swu"][0] for verdict in verdicts} == {Taken.ACCEPTED, Taken.KNOWN}
        assert works.kept() == {"whole-2.swu"}


async def test_the_same_pusher_twice_at_once_shares_the_session(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    built = works.build()
    async with works.with_push().running() as listening, works.client(listening) as one, works.client(listening) as two:
        first, second = await asyncio.gather(one.begin(Begin(label="x")), two.begin(Begin(label="x")))
        assert first.session == second.session
        for each in files_of(built):
            await one.send(first, each.path, each.file, lambda _done: None)
        with pytest.raises(StateError, match="another session"):
            await two.send(first, "metadata/timestamp.json", short / "anchors.pem", lambda _done: None)
        assert (await one.finish(first.session)).refused == ()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [("foreign", "trust.signature"), ("older", "trust.rollback"), ("expired", "trust.expired"), ("truncated", "trust.metadata")],
)
async def test_what_is_not_to_be_trusted_leaves_nothing_and_says_why(
    works: Works, short: Path, spoil: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    async with works.with_push().running() as listening, works.client(listening) as client:
        match spoil:
            case "foreign":
                works = replace(works, builder=RepositoryBuilder(now=now()))
                works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
                built = works.build()
            case "older":
                works.build().rename(short / "old")
                works.builder.add_target("os/whole-3.swu", whole(short, "3").read_bytes(), BOARD)
                assert (await push(client, works.build())).refused == ()
                built = short / "old"
            case "expired":
                works.builder.timestamp.expires = now() - timedelta(days=1)
                built = works.build()
            case _:
                built = works.build()
                (built / "metadata" / "1.root.json").write_bytes(works.builder.root_bytes)
        before = works.kept()
        session = await client.begin(Begin())
        for each in files_of(built):
            file = each.file
            if spoil == "truncated" and each.path == "metadata/timestamp.json":
                file = short / "timestamp.json"
                file.write_bytes(b'{"signed":')
            await client.send(session, each.path, file, lambda _done: None)

        verdict = await client.finish(session.session)

        assert verdict.repository == ""
        assert {each.code for each in verdict.refused} == {code}
        assert len(verdict.refused) == len(verdict.files)
        assert (works.kept(), works.pushes()) == (before, [])
        assert f"({code})" in caplog.text


async def test_a_flipped_byte_is_refused_by_name_and_the_rest_is_taken(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    works.builder.add_target("os/whole-3.swu", whole(short, "3").read_bytes(), BOARD)
    built = works.build()
    target = next((built / "targets" / "os").glob("*whole-3.swu"))
    content = bytearray(target.read_bytes())
    content[700] ^= 1
    target.write_bytes(content)
    async with works.with_push().running() as listening, works.client(listening) as client:
        verdict = await push(client, built)
        assert said(verdict)["whole-3.swu"] == (Taken.REFUSED, "trust.length-or-hash")
        assert said(verdict)["whole-2.swu"] == (Taken.ACCEPTED, "")
        assert works.kept() == {"whole-2.swu"}


async def test_half_a_release_is_told_as_what_is_missing(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    built = works.build()
    async with works.with_push().running() as listening, works.client(listening) as client:
        session = await client.begin(Begin("plant"))
        for each in files_of(built):
            if each.sha256 is None:
                await client.send(session, each.path, each.file, lambda _done: None)
        verdict = await client.finish(session.session)
        assert [(each.path.rpartition(".")[2], each.code) for each in verdict.refused] == [("swu", "wire.not-found")]


async def test_single_bundles_are_taken_only_of_who_may_bring_them(works: Works, short: Path) -> None:
    bundle = whole(short)
    site = works.with_push(works.pusher("ci"), works.pusher("line", singles=True))
    async with site.running() as listening, works.client(listening) as ci, works.client(listening, "line") as line:
        assert [each.code for each in (await push(ci, bundle)).refused] == ["trust.provenance"]
        assert works.kept() == set()
        assert [each.verdict for each in (await push(line, bundle)).files] == [Taken.ACCEPTED]
        assert works.kept() == {"pushed.swu"}
        assert [each.verdict for each in (await push(line, bundle)).files] == [Taken.KNOWN]
        content = bytearray(bundle.read_bytes())
        content[len(content) // 2] ^= 1
        (short / "bad.swu").write_bytes(content)
        assert [each.code for each in (await push(line, short / "bad.swu")).refused] == ["bundle.hash"]
        (short / "empty.swu").touch()
        assert [each.code for each in (await push(line, short / "empty.swu")).refused] == ["bundle.container"]
        assert list((works.store / "staging").iterdir()) == []


async def test_nobody_else_opens_anything_and_a_pusher_nothing_of_the_nodes(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    works.build()
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(works.with_push().running())
        node = await works.site.node(listening, stack)
        for method, path in (("POST", "sessions"), ("POST", "look"), ("GET", "events"), ("HEAD", f"content/{'0' * 64}")):
            async with node.request(method, f"/push/v1/{path}", server_hostname=GATEWAY_IDENTITY) as response:
                assert response.status == 401, "a node's certificate is no pusher's token"
        stranger = await stack.enter_async_context(works.client(listening, "nobody"))
        with pytest.raises(UnauthorizedError):
            await stranger.begin(Begin())
        tls = client_context(works.site_ca)
        session = await stack.enter_async_context(aiohttp.ClientSession(f"https://127.0.0.1:{listening.port}"))
        shown = {"Authorization": "Bearer token-of-ci"}
        async with session.get("/DEFAULT/controller/v1/n1", ssl=tls, server_hostname=GATEWAY_IDENTITY, headers=shown) as response:
            assert response.status == 401
        client = await stack.enter_async_context(works.client(listening))
        with pytest.raises(ForbiddenError):
            await client.begin(Begin("vendor"))
        with pytest.raises(NotFoundError):
            await client.show("0" * 32)


async def test_a_push_is_off_unless_it_is_switched_on(works: Works) -> None:
    works.pusher("ci")
    async with works.site.running() as listening, works.client(listening) as client:
        with pytest.raises(UnauthorizedError):
            await client.begin(Begin())


async def test_a_quota_that_is_full_is_named_before_anything_is_sent(works: Works, short: Path) -> None:
    site = works.with_push(works.pusher("ci", quota_bytes=100))
    async with site.running() as listening, works.client(listening) as client:
        session = await client.begin(Begin())
        with pytest.raises(TooLargeError, match="quota_bytes"):
            await client.send(session, "a.swu", whole(short), lambda _done: None)
        assert (await client.show(session.session)).files == ()


async def test_the_command_pushes_what_lacks_and_its_status_is_the_verdicts(
    works: Works, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    built = works.build()
    async with works.with_push().running() as listening:
        command = [
            *("repo", "push", f"https://127.0.0.1:{listening.port}", "--repo", str(built), "--json"),
            *("--token-file", str(short / "ci.token"), "--site-ca", str(works.site_ca)),
        ]
        assert await asyncio.to_thread(main, [*command, "--dry-run"]) == 0
        lacking = [each["path"] for each in json.loads(capsys.readouterr().out)["lacking"]]
        assert [path.rpartition(".")[2] for path in lacking].count("swu") == 1
        assert await asyncio.to_thread(main, command) == 0
        assert {each["verdict"] for each in json.loads(capsys.readouterr().out)["verdict"]["files"]} == {"accepted"}
        assert await asyncio.to_thread(main, [*command, "--dry-run"]) == 0
        lacking = [each["path"] for each in json.loads(capsys.readouterr().out)["lacking"]]
        assert [path.rpartition(".")[2] for path in lacking].count("swu") == 0
        works.builder.timestamp.expires = now() - timedelta(days=1)
        works.build()
        assert await asyncio.to_thread(main, command) == 23
        assert await asyncio.to_thread(main, [*command[:-4], "--no-progress", *command[-4:]]) == 23


async def test_a_signed_word_has_the_upstream_looked_at_now(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    site = works.with_push(works.pusher("ci", secret=short / "ci.secret"), look_every_s=1)
    async with site.running() as listening, aiohttp.ClientSession(f"https://127.0.0.1:{listening.port}") as session:
        works.builder.publish()
        works.builder.write_to(short / "upstream")
        body = b'{"type": "artifact.published"}'
        tls = client_context(works.site_ca)

        async def say(headers: dict[str, str]) -> int:
            where = "/push/v1/look"
            async with session.post(where, data=body, headers=headers, ssl=tls, server_hostname=GATEWAY_IDENTITY) as response:
                return response.status

        headers = headers_of(SECRET, "m1", now(), body)
        assert await say({**headers, "webhook-signature": "v1,AAAA"}) == 401
        assert await say(headers) == 202
        assert await say(headers) == 401, "a recorded message is good once"
        async with asyncio.timeout(60):
            while works.kept() != {"whole-2.swu"}:  # noqa: ASYNC110 - by another task
                await asyncio.sleep(0.02)


async def test_a_gateway_that_calls_another_one_has_what_is_pushed_there(works: Works, short: Path) -> None:
    works.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    with tempfile.TemporaryDirectory() as other:
        behind = await set_up_site(Path(other), works.builder)
        async with works.with_push().running() as listening, works.client(listening) as client:
            call = CallSection(
                name="head",
                url=f"https://127.0.0.1:{listening.port}/push/v1/events",
                token=short / "ci.token",
                site_ca=works.site_ca,
            )
            site = replace(behind, config=replace(behind.config, call=(call,)))
            upstream = str(works.store / "repositories" / "plant")
            async with site.running(upstreams=(upstream,)):
                assert (await push(client, works.build())).refused == ()
                async with asyncio.timeout(60):
                    while not list((Path(other) / "state" / "store").rglob("targets/**/*whole-2.swu")):  # noqa: ASYNC110 - by another task
                        await asyncio.sleep(0.02)
