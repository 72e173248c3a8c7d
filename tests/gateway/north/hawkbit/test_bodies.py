"""Which artifact is the body of a delta is found by its bytes, for whichever target has it, and noticed when it is gone."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.north.hawkbit.bodies import AWAY_S, CHECK_S, MAX_BODIES, MAX_PLACES, START_S, HawkbitBodies
from gateway.north.hawkbit.meaning import Artifact
from tests.builders.relayed import body_of, index_of, make_zck, until
from update.bundle.deltas import Body
from update.chunks.ranges import Range
from update.digest import Digest, digest_of
from update.errors import NotFoundError, UnreachableError, WireError
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader
from update.wire import ddi
from update.wire.habits import Peer
from update.wire.ranged import Spare

ROOT = "http://hawkbit.example/DEFAULT/controller/v1"


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"), blocks=60)


class Server:
    """Artifacts by controller and name, as the client finds them; everything that is asked is noted."""

    url = "http://hawkbit.example"

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.fault: WireError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def offer(self, controller: str, **files: bytes) -> tuple[Artifact, ...]:
        self.files[controller] = {name.replace("_", "."): content for name, content in files.items()}
        return tuple(
            Artifact(name, digest_of(content), len(content), f"{ROOT}/{controller}/{name}")
            for name, content in self.files[controller].items()
        )

    async def deployment(self, controller: str, action: str) -> ddi.DeploymentBody:
        self.asked.append(f"{controller} {action}")
        self._check()
        artifacts = [
            {
                "filename": name,
                "hashes": {"sha1": "0" * 40, "md5": "0" * 32, "sha256": digest_of(content)},
                "size": len(content),
                "_links": {"download": {"href": f"{ROOT}/{controller}/{name}"}},
            }
            for name, content in self.files.get(controller, {}).items()
        ]
        chunk = {"part": "os", "version": "1", "name": "os", "artifacts": artifacts}
        return ddi.DeploymentBody.model_validate({"download": "forced", "update": "forced", "chunks": [chunk]})

    async def read_ranges(
        self, controller: str, href: str, ranges: Sequence[Range], *, peer: Peer | None = None, spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        name = href.rpartition("/")[2]
        self.asked.append(f"{controller} {name} {len(ranges)}")
        await self.gate.wait()
        self._check()
        content = self.files.get(controller, {}).get(name)
        if content is None:
            raise NotFoundError(href)
        for each in ranges:
            yield each.start, content[each.start : each.end]

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


class Shelf:
    """The places over one server, at a time that is set by hand."""

    def __init__(self, zck: Path, *, patience_s: float = 20.0, expecting: bool = False) -> None:
        self.server, self.now_s = Server(), 1000.0
        self.content, index = zck.read_bytes(), index_of(zck)
        self.body = Body(ZckHeader(index.sha256, len(index.header.raw)), len(self.content))
        self.info = TargetInfo("plant", "x.zck", len(self.content), index.sha256, TargetCustom(zck_header=self.body.header), "")
        self.bodies = HawkbitBodies(patience_s=patience_s, expecting=expecting, clock=lambda: self.now_s)

    def note(self, controller: str, action: str = "1", **files: bytes) -> None:
        self.bodies.note(self.server, controller, action, [self.body], self.server.offer(controller, **files))

    async def look(self) -> tuple[str, ...]:
        await self.bodies.look(self.info)
        return self.bodies.reachable(self.info)

    async def read(self, *ranges: Range) -> list[tuple[int, bytes]]:
        return [piece async for piece in self.bodies.sources_of(self.info)[0].read_ranges(ranges)]


async def test_the_artifact_with_the_header_is_found_whatever_its_name(zck: Path) -> None:
    shelf = Shelf(zck)
    other = bytes(len(shelf.content))
    shelf.note("n1", a_zck=other, b_bin=shelf.content, c_zck=shelf.content + b"x")
    assert shelf.bodies.reachable(shelf.info) == ()
    assert shelf.bodies.sources_of(shelf.info) == ()
    assert await shelf.look() == (f"{ROOT}/n1/b.bin",)
    assert shelf.server.asked == ["n1 a.zck 1", "n1 b.bin 1"], "what looks like it first, and nothing of another length"
    assert await shelf.look() == (f"{ROOT}/n1/b.bin",)
    assert len(shelf.server.asked) == 2


async def test_the_header_that_was_compared_is_not_asked_for_again(zck: Path) -> None:
    shelf = Shelf(zck)
    shelf.note("n1", b_bin=shelf.content)
    await shelf.look()
    front, body = Range(0, shelf.body.header.length), body_of(zck)
    assert await shelf.read(front) == [(0, shelf.content[: front.length])]
    assert len(shelf.server.asked) == 1
    assert await shelf.read(body) == [(body.start, shelf.content[body.start :])]
    assert await shelf.read(front) == [(0, shelf.content[: front.length])]
    assert len(shelf.server.asked) == 3


async def test_any_target_that_has_it_is_good_for_all(zck: Path) -> None:
    shelf = Shelf(zck)
    shelf.note("n1", b_bin=shelf.content)
    await shelf.look()
    shelf.note("n2", b_bin=shelf.content)
    assert set(shelf.bodies.reachable(shelf.info)) == {f"{ROOT}/n1/b.bin", f"{ROOT}/n2/b.bin"}
    assert len(shelf.server.asked) == 1, "the same content is compared once"
    del shelf.server.files["n2"]
    for source in shelf.bodies.sources_of(shelf.info):
        if "/n2/" in source.name:
            with pytest.raises(NotFoundError):
                _ = [piece async for piece in source.read_ranges([body_of(zck)])]
    assert shelf.bodies.reachable(shelf.info) == (f"{ROOT}/n1/b.bin",)


async def test_an_artifact_that_was_deleted_is_noticed_before_a_delta_is_offered(zck: Path) -> None:
    shelf = Shelf(zck)
    shelf.note("n1", "7", b_bin=shelf.content)
    assert await shelf.look()
    shelf.server.offer("n1")
    assert await shelf.look(), "it was looked at a moment ago"
    shelf.now_s += CHECK_S
    assert await shelf.look() == ()
    assert shelf.server.asked[-1] == "n1 7", "in the deployment: no further request for an artifact"
    shelf.server.offer("n1", b_bin=shelf.content)
    shelf.now_s += CHECK_S
    assert await shelf.look() == (f"{ROOT}/n1/b.bin",)


async def test_a_target_that_has_lost_its_action_leaves_it_to_others(zck: Path) -> None:
    shelf = Shelf(zck)
    shelf.note("n1", b_bin=shelf.content)
    await shelf.look()
    shelf.note("n2", b_bin=shelf.content)
    shelf.server.offer("n1")
    shelf.now_s += CHECK_S
    await shelf.look()
    assert shelf.bodies.sources_of(shelf.info)[0].name == f"{ROOT}/n2/b.bin"


async def test_a_server_that_is_away_is_asked_again_later(zck: Path) -> None:
    shelf = Shelf(zck)
    shelf.note("n1", b_bin=shelf.content)
    shelf.server.fault = UnreachableError("away")
    assert await shelf.look() == ()
    shelf.server.fault = None
    assert await shelf.look() == ()
    shelf.now_s += AWAY_S
    assert await shelf.look() == (f"{ROOT}/n1/b.bin",)
    shelf.bodies.sources_of(shelf.info)[0].failed()
    assert shelf.bodies.reachable(shelf.info) == ()
    assert len(shelf.bodies.sources_of(shelf.info)) == 1, "who has nobody else asks it all the same"


async def test_who_asks_waits_for_a_slow_server_only_so_long_and_it_goes_on(zck: Path) -> None:
    shelf = Shelf(zck, patience_s=0.01)
    shelf.note("n1", b_bin=shelf.content)
    shelf.server.gate.clear()
    assert await shelf.look() == ()
    assert await shelf.look() == ()
    assert len(shelf.server.asked) == 1
    shelf.server.gate.set()
    await until(lambda: bool(shelf.bodies.reachable(shelf.info)))
    await shelf.bodies.close()


async def test_what_is_kept_is_bounded(zck: Path) -> None:
    shelf = Shelf(zck)
    for number in range(MAX_PLACES + 5):
        shelf.note(f"n{number}", b_bin=shelf.content)
    await shelf.look()
    assert len(shelf.bodies._places[shelf.body.header]) == MAX_PLACES
    artifacts = shelf.server.offer("n1", b_bin=shelf.content)
    for number in range(MAX_BODIES):
        body = Body(ZckHeader(Digest(f"{number:064x}"), 10), len(shelf.content))
        shelf.bodies.note(shelf.server, "n1", "1", [body], artifacts)
    assert shelf.bodies.reachable(shelf.info) == ()
    assert len(shelf.bodies._places) == MAX_BODIES


async def test_after_a_start_who_asks_for_chunks_waits_until_a_deployment_tells_where_they_are(zck: Path) -> None:
    shelf, span = Shelf(zck, expecting=True), body_of(zck)
    reading = asyncio.ensure_future(shelf.read(span))
    await asyncio.sleep(0)
    assert not reading.done()
    assert shelf.bodies.reachable(shelf.info) == (), "nobody is offered a delta for it"
    shelf.note("n1", b_bin=shelf.content)
    await shelf.look()
    assert await reading == [(span.start, shelf.content[span.start :])]
    shelf.note("n2", b_bin=shelf.content)
    assert {each.name for each in shelf.bodies.sources_of(shelf.info)} == {f"{ROOT}/n1/b.bin", f"{ROOT}/n2/b.bin"}


async def test_it_waits_neither_for_ever_nor_for_what_a_repository_lists(zck: Path) -> None:
    shelf = Shelf(zck, expecting=True)
    assert shelf.bodies.sources_of(replace(shelf.info, role="targets")) == ()
    (source,) = shelf.bodies.sources_of(shelf.info)
    shelf.now_s += START_S
    with pytest.raises(UnreachableError):
        _ = [piece async for piece in source.read_ranges([body_of(zck)])]
    assert shelf.bodies.sources_of(shelf.info) == ()


async def test_what_pins_no_header_is_in_no_place(zck: Path) -> None:
    shelf = Shelf(zck)
    plain = TargetInfo("plant", "x.img", 5, Digest("0" * 64), TargetCustom(), "targets")
    await shelf.bodies.look(plain)
    assert (shelf.bodies.reachable(plain), shelf.bodies.sources_of(plain)) == ((), ())
