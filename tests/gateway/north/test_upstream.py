"""The mirror takes over what is verified and wanted, byte for byte, and keeps what it has when upstream fails or lies."""

import random
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.north.sources import Current, FolderUpstream, HttpUpstream, Upstream
from gateway.north.upstream import Inspect, Mirror
from gateway.simulators.upstream import UpstreamServer
from tests.builders.repository import START, RepositoryBuilder
from update.chunks.ranges import Range
from update.durable import Disk
from update.errors import BundleError, ContainerError, EndlessDataError, ProtocolError, TrustError, UnreachableError, WireError
from update.identity import Hardware
from update.store.staging import Staged
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import TargetInfo
from update.wire.ranged import Spare
from update.wire.session import wan_session

NAME = "plant"


def write(builder: RepositoryBuilder, folder: Path) -> Path:
    builder.write_to(folder)
    return folder


def accept(_path: Path, _info: TargetInfo) -> None:
    """Every bundle is good here: signatures are judged elsewhere."""


class Site:
    """One gateway's mirror over folders."""

    def __init__(
        self,
        state: Path,
        root: bytes,
        *folders: Path,
        upstreams: Sequence[Upstream] = (),
        hardware: str = "",
        inspect: Inspect = accept,
    ) -> None:
        disk = Disk()
        self.store = Store(disk, state / "store")
        floor = Floor(disk, (state / "floor-1", state / "floor-2"))
        if not floor.exists():
            floor.create()
        ways = [*(FolderUpstream(path) for path in folders), *upstreams]
        current = Current(ways[0])
        repository = Repository(
            NAME,
            trusted=self.store.layout.trusted(NAME),
            root=root,
            fetcher=current,
            disk=disk,
            floor=floor,
            now=lambda: START,
        )
        hardware_list = [Hardware.parse(hardware)] if hardware else []
        self.mirror = Mirror(
            repository, current, ways, self.store, hardware=hardware_list, inspect=inspect, now=lambda: datetime.now(UTC)
        )


@pytest.fixture
def builder() -> RepositoryBuilder:
    builder = RepositoryBuilder()
    builder.add_target("controller/one.swu", b"bundle one", {"hwIds": ["imx8:1"], "version": "1.0"})
    builder.add_target("motor/two.swu", b"bundle two", {"hwIds": ["motor:1"], "version": "1.0"})
    builder.add_target("any.txt", b"for everybody")
    builder.publish()
    return builder


async def test_a_site_gets_what_is_for_its_hardware_and_metadata_byte_for_byte(
    tmp_path: Path, builder: RepositoryBuilder
) -> None:
    upstream = write(builder, tmp_path / "upstream")
    site = Site(tmp_path, builder.root_bytes, upstream, hardware="imx8:1")
    state = await site.mirror.refresh()
    assert (state.problem, state.targets) == ("", 2)
    assert [info.path for info in site.mirror.targets()] == ["any.txt", "controller/one.swu"]
    repository = site.store.layout.repository(NAME)
    mirrored = {str(path.relative_to(repository)): path.read_bytes() for path in (repository / "metadata").iterdir()}
    assert mirrored == {name: data for name, data in builder.files.items() if name.startswith("metadata/") and name in mirrored}
    assert "metadata/timestamp.json" in mirrored
    info = site.mirror.targets()[1]
    assert (repository / info.wire_path).read_bytes() == b"bundle one"
    assert not list((repository / "targets").rglob("*two.swu"))


async def test_a_mirror_is_a_repository_for_the_next_one(tmp_path: Path, builder: RepositoryBuilder) -> None:
    site = Site(tmp_path / "a", builder.root_bytes, write(builder, tmp_path / "upstream"))
    await site.mirror.refresh()
    follower = Site(tmp_path / "b", builder.root_bytes, site.store.layout.repository(NAME))
    assert (await follower.mirror.refresh()).targets == 3


async def test_when_the_first_upstream_fails_the_second_is_asked(tmp_path: Path, builder: RepositoryBuilder) -> None:
    site = Site(tmp_path, builder.root_bytes, tmp_path / "gone", write(builder, tmp_path / "upstream"))
    assert (await site.mirror.refresh()).targets == 3
    assert site.mirror.reachable() == (str(tmp_path / "upstream"),)


async def test_without_any_upstream_the_last_verified_state_is_shown_also_after_a_restart(
    tmp_path: Path, builder: RepositoryBuilder
) -> None:
    upstream = write(builder, tmp_path / "upstream")
    site = Site(tmp_path, builder.root_bytes, upstream)
    await site.mirror.refresh()
    upstream.rename(tmp_path / "away")
    state = await site.mirror.refresh()
    assert state.targets == 3
    assert state.code
    assert site.mirror.reachable() == ()
    (tmp_path / "away").rename(upstream)
    await site.mirror.refresh()
    assert site.mirror.reachable() == (str(upstream),)
    upstream.rename(tmp_path / "away")
    again = Site(tmp_path, builder.root_bytes, upstream)
    await again.mirror.restore()
    assert len(again.mirror.targets()) == 3
    assert again.mirror.metadata("timestamp.json") == builder.files["metadata/timestamp.json"]


async def test_a_target_with_wrong_bytes_is_named_and_not_listed_and_the_next_refresh_repairs_it(
    tmp_path: Path, builder: RepositoryBuilder
) -> None:
    upstream = write(builder, tmp_path / "upstream")
    (victim,) = upstream.rglob("*one.swu")
    good = victim.read_bytes()
    victim.write_bytes(b"bundle 0ne")
    site = Site(tmp_path, builder.root_bytes, upstream)
    state = await site.mirror.refresh()
    assert (state.code, state.targets) == ("trust.length-or-hash", 2)
    assert not list(site.store.layout.repository(NAME).rglob("*one.swu"))
    victim.write_bytes(good)
    assert ((await site.mirror.refresh()).code, len(site.mirror.targets())) == ("", 3)


async def test_a_bundle_whose_own_signature_is_refused_never_reaches_the_store(
    tmp_path: Path, builder: RepositoryBuilder
) -> None:
    def refuse(_path: Path, info: TargetInfo) -> None:
        if info.path.endswith(".swu"):
            raise ContainerError("not a bundle")

    site = Site(tmp_path, builder.root_bytes, write(builder, tmp_path / "upstream"), inspect=refuse)
    state = await site.mirror.refresh()
    assert (state.code, state.targets) == (ContainerError.code, 1)
    assert issubclass(ContainerError, BundleError)
    assert not list(site.store.layout.repository(NAME).rglob("*.swu"))


async def test_a_replayed_older_repository_changes_nothing(tmp_path: Path, builder: RepositoryBuilder) -> None:
    upstream = write(builder, tmp_path / "upstream")
    old = dict(builder.files)
    builder.add_target("new.swu", b"new", {"hwIds": [], "version": "2.0"})
    builder.publish()
    write(builder, upstream)
    site = Site(tmp_path, builder.root_bytes, upstream)
    assert (await site.mirror.refresh()).targets == 4
    builder.files = old
    write(builder, upstream)
    state = await site.mirror.refresh()
    assert (state.code, state.targets) == ("trust.rollback", 4)


class Liar:
    """Has the metadata of a folder; of targets it sends `content`, and breaks after `cut_after` bytes."""

    def __init__(
        self, folder: Path, content: bytes, *, cut_after: int | None = None, error: WireError | TrustError | None = None
    ) -> None:
        self.name, self._content, self._cut_after, self._error = "liar", content, cut_after, error
        self._honest = FolderUpstream(folder)
        self.ranged = True
        self.downloads = 0

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        return await self._honest.fetch(path, max_bytes=max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        self.downloads += 1
        if self._error is not None:
            raise self._error
        end = length if self._cut_after is None else self._cut_after
        staged.write_at(staged.size(), self._content[staged.size() : end])
        staged.sync()
        if end < length:
            raise UnreachableError("cut")

    async def read_ranges(
        self, path: str, ranges: Sequence[Range], spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        for span in ranges:
            yield span.start, self._content[span.start : span.end]


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"cut_after": 5},
        {"error": UnreachableError("gone")},
        {"error": EndlessDataError("more than announced")},
        {"error": ProtocolError("odd")},
    ],
)
async def test_a_lying_upstream_does_not_keep_a_target_from_the_site(
    tmp_path: Path, builder: RepositoryBuilder, trouble: dict[str, Any]
) -> None:
    good = write(builder, tmp_path / "upstream")
    liar = Liar(good, b"bundle 0ne and zeros"[: len(b"bundle one")], **trouble)
    site = Site(tmp_path, builder.root_bytes, upstreams=[liar, FolderUpstream(good)], hardware="imx8:1")
    state = await site.mirror.refresh()
    assert (state.problem, state.targets) == ("", 2)
    assert liar.downloads > 0
    info = site.mirror.targets()[1]
    assert site.store.layout.target(info).read_bytes() == b"bundle one"


async def test_a_lying_upstream_alone_is_asked_once_in_a_refresh(tmp_path: Path, builder: RepositoryBuilder) -> None:
    builder.targets.targets = {path: file for path, file in builder.targets.targets.items() if path.endswith("one.swu")}
    builder.publish()
    liar = Liar(write(builder, tmp_path / "upstream"), b"bundle 0ne")
    site = Site(tmp_path, builder.root_bytes, upstreams=[liar])
    assert (await site.mirror.refresh()).code == "trust.length-or-hash"
    assert liar.downloads == 1
    assert list(site.store.layout.staging.iterdir()) == []


async def test_a_server_is_mirrored_and_its_ranges_are_read(tmp_path: Path, builder: RepositoryBuilder) -> None:
    content = random.Random(2).randbytes(300_000)
    builder.add_target("x.bin", content)
    builder.publish()
    async with UpstreamServer(write(builder, tmp_path / "upstream")) as server, wan_session() as session:
        upstream = HttpUpstream(session, server.url)
        site = Site(tmp_path, builder.root_bytes, upstreams=[upstream])
        assert (await site.mirror.refresh()).problem == ""
        info = next(info for info in site.mirror.targets() if info.path == "x.bin")
        assert (site.store.layout.target(info)).read_bytes() == content
        server.faults.cut_after_bytes = 40_000
        wanted = (Range(5, 100_000), Range(200_000, 70_000))
        got = bytearray(len(content))
        (source,) = site.mirror.sources_of(info)
        async for offset, piece in source.read_ranges(wanted):
            got[offset : offset + len(piece)] = piece
        assert all(got[span.start : span.end] == content[span.start : span.end] for span in wanted)
    assert sum(server.traffic.per_path_bytes.values()) == server.traffic.sent_bytes
