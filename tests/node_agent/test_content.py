"""Bundles through the node's own trust: what an order may mean, and what the gateway's bytes may be."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from node_agent.config import PatchesSection
from node_agent.content import Content, GatewayChunks, Pinned, Place
from node_agent.record import Release
from node_agent.source import Offer
from tests.builders.bundles import DEMO, cms_policy, describe, script, signed
from tests.builders.keys import NOW, make_pki
from tests.builders.repository import RepositoryBuilder
from update.chunks.pair import PatchForm, PatchOffer
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import (
    CertificateError,
    ExpiredError,
    FieldrelayError,
    HardwareError,
    HashMismatchError,
    LengthOrHashError,
    NotStoredError,
    ProvenanceError,
    RollbackError,
    StateError,
    StoreError,
    ThresholdError,
    UnknownTargetError,
    UnreachableError,
    UnsupportedError,
)
from update.identity import Hardware
from update.store.staging import Staged
from update.trust.client import Fetcher
from update.trust.floor import Floor
from update.trust.verified import Provenance, TargetCustom

NAME = "plant"
TEXT = b"#!/bin/sh\nexit 0\n"


def quiet(_done: int, _total: int) -> None:
    pass


@dataclass
class Wire:
    """`Transport` from memory. `away`: the gateway is gone. `alter`: what it makes of a bundle's bytes."""

    builder: RepositoryBuilder
    away: bool = False
    alter: Callable[[bytes], bytes] = bytes
    break_after: int | None = None
    sent: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def fetcher(self, repository: str) -> Fetcher:
        assert repository == NAME
        return self

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        if self.away:
            raise UnreachableError("the gateway is away")
        return await self.builder.fetcher().fetch(path, max_bytes=max_bytes)

    async def download(self, repository: str, path: str, staged: Staged, progress: Callable[[int, int], None]) -> None:
        if self.away:
            raise UnreachableError("the gateway is away")
        data = self.alter(self.builder.files[path])
        for offset in range(staged.size(), len(data), 100):
            if self.break_after is not None and self.sent >= self.break_after:
                raise UnreachableError("the line broke")
            staged.write_at(offset, data[offset : offset + 100])
            staged.sync()
            self.sent += 100
            progress(offset, len(data))

    async def read_ranges(
        self, repository: str, path: str, ranges: Sequence[tuple[int, int]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        self.asked.append((repository, path))
        for start, length in ranges:
            yield start, bytes(length)

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        self.asked.append((repository, path))
        return PatchOffer(PatchForm.WINDOWS, limits.memory_bytes + len(base))

    async def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        yield f"{repository} {path} {base} {offer.size} {limits.memory_bytes}".encode()


@dataclass
class Bench:
    """One node's content over one repository with one bundle."""

    folder: Path
    builder: RepositoryBuilder
    bundle: bytes
    wire: Wire
    now: datetime = NOW
    hardware: Hardware = DEMO
    minimum: Provenance = Provenance.TUF
    threshold: int = 1

    def content(self) -> Content:
        pinned = Pinned(NAME, self.builder.root_bytes, cms_policy(threshold=self.threshold), self.minimum)
        place = Place(self.folder, self.hardware, lambda: self.now)
        return Content([pinned], self.wire, place, disk=Disk(), floor=self.floor)

    @property
    def floor(self) -> Floor:
        return Floor(Disk(), (self.folder / "1/floor", self.folder / "2/floor"))

    @property
    def offer(self) -> Offer:
        return Offer("7", 1, NAME, "os.swu", digest_of(self.bundle), len(self.bundle))

    @property
    def staged(self) -> list[str]:
        folder = self.folder / "staging"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    description = describe(scripts=[script("a.sh", TEXT)], version="1.2")
    return signed(tmp_path_factory.mktemp("bundle"), description, {"a.sh": TEXT}).read_bytes()


@pytest.fixture
def bench(tmp_path: Path, bundle: bytes) -> Bench:
    builder = RepositoryBuilder(now=NOW)
    builder.add_target("os.swu", bundle, TargetCustom((str(DEMO),), "1.2", 12, 3).as_json())
    builder.publish()
    made = Bench(tmp_path, builder, bundle, Wire(builder))
    made.floor.create()
    return made


async def take(bench: Bench, offer: Offer | None = None, reason: str = "") -> Release:
    """Resolve, judge and obtain, as the agent does."""
    content = bench.content()
    release = await content.resolve(offer or bench.offer)
    await content.judge(release, reason)
    await content.obtain(release, quiet)
    return release


async def test_an_order_is_resolved_judged_downloaded_and_verified(bench: Bench) -> None:
    content, seen = bench.content(), []
    release = await content.resolve(bench.offer)
    await content.judge(release, "")
    verified = await content.obtain(release, lambda done, total: seen.append((done, total)))
    assert (release.version, release.release_counter, release.security_counter) == ("1.2", 12, 3)
    assert verified.provenance is Provenance.TUF
    assert verified.file.read_bytes() == bench.bundle
    assert seen
    content.forget()
    assert bench.staged == []


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"repository": "other"}, UnknownTargetError),
        ({"repository": ""}, UnknownTargetError),
        ({"target": ""}, UnknownTargetError),
        ({"target": "absent.swu"}, UnknownTargetError),
        ({"sha256": None}, UnknownTargetError),
        ({"sha256": digest_of(b"other")}, LengthOrHashError),
        ({"length": 1}, LengthOrHashError),
    ],
)
async def test_an_order_that_is_not_in_the_nodes_own_metadata_is_refused(
    bench: Bench, change: dict[str, object], refusal: type[FieldrelayError]
) -> None:
    with pytest.raises(refusal):
        await take(bench, replace(bench.offer, **change))  # type: ignore[arg-type]  # values fit their keys
    assert bench.wire.sent == 0


async def test_an_order_without_a_length_is_as_good(bench: Bench) -> None:
    assert (await take(bench, replace(bench.offer, length=None))).length == len(bench.bundle)


async def test_another_hardware_is_refused_before_anything_is_downloaded(bench: Bench) -> None:
    bench.hardware = Hardware("other", "1.0")
    with pytest.raises(HardwareError):
        await take(bench)
    assert bench.wire.sent == 0


async def test_what_is_below_the_floor_is_refused_and_an_older_release_needs_a_reason(bench: Bench) -> None:
    bench.floor.confirm(release_counter=13, security_counter=3)
    with pytest.raises(RollbackError, match="release counter"):
        await take(bench)
    await take(bench, reason="line 3 needs it")
    bench.floor.confirm(release_counter=13, security_counter=4)
    with pytest.raises(RollbackError, match="security counter"):
        await take(bench, reason="line 3 needs it")


async def test_expired_metadata_installs_nothing_new_but_finishes_what_was_verified(bench: Bench) -> None:
    bench.builder.timestamp.expires = NOW + timedelta(days=7)
    bench.builder.publish_timestamp()
    release = await take(bench)
    bench.now += timedelta(days=30)
    with pytest.raises(ExpiredError):
        await take(bench)
    bench.wire.away = True
    assert (await bench.content().obtain(release, quiet)).target is not None


async def test_a_download_goes_on_where_it_stopped_also_in_a_new_process(bench: Bench) -> None:
    bench.wire.break_after = 300
    with pytest.raises(UnreachableError):
        await take(bench)
    sent, bench.wire.break_after = bench.wire.sent, None
    await take(bench)
    assert bench.wire.sent < len(bench.bundle) + 100
    assert sent == 300


async def test_a_complete_bundle_needs_no_gateway_after_a_restart(bench: Bench) -> None:
    release = await take(bench)
    bench.wire.away = True
    assert (await bench.content().obtain(release, quiet)).target is not None


async def test_a_release_whose_target_was_replaced_meanwhile_is_refused(bench: Bench) -> None:
    release = await take(bench)
    bench.builder.add_target("os.swu", b"another", TargetCustom((str(DEMO),), "1.3", 13, 3).as_json())
    bench.builder.publish()
    content = bench.content()
    await content._strict[NAME].refresh()
    with pytest.raises(LengthOrHashError, match="was replaced"):
        await content.obtain(release, quiet)


@pytest.mark.parametrize("alter", [lambda data: data[:-1] + b"x", lambda data: bytes(len(data))])
async def test_bytes_that_are_not_the_signed_ones_are_refused_and_not_kept(bench: Bench, alter: Callable[[bytes], bytes]) -> None:
    bench.wire.alter = alter
    with pytest.raises(LengthOrHashError):
        await take(bench)
    assert bench.staged == []
    bench.wire.alter = bytes
    await take(bench)


async def test_a_listed_bundle_with_too_few_signers_is_refused_as_well(bench: Bench) -> None:
    bench.threshold = 2
    with pytest.raises(ThresholdError):
        await take(bench)
    assert bench.staged == []


async def test_a_file_that_the_repository_lists_counts_as_its_target(bench: Bench, tmp_path: Path) -> None:
    await take(bench)
    bench.wire.away = True
    file = tmp_path / "from-a-stick.swu"
    file.write_bytes(bench.bundle)
    release = await take(bench, Offer("file-1", file=file))
    assert (release.provenance, release.path, release.version) == ("tuf", "os.swu", "1.2")


async def test_a_foreign_file_needs_a_repository_that_accepts_signatures_alone(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "brought.swu"
    file.write_bytes(bench.bundle)
    with pytest.raises(ProvenanceError, match="minimum_provenance"):
        await take(bench, Offer("file-1", file=file))
    assert bench.staged == []
    bench.minimum = Provenance.CMS
    release = await take(bench, Offer("file-1", file=file))
    assert (release.provenance, release.repository, release.version) == ("cms", NAME, "1.2")
    assert release.bundle is None


async def test_a_file_by_a_stranger_or_tampered_with_is_refused_and_not_kept(bench: Bench, tmp_path: Path) -> None:
    bench.minimum = Provenance.CMS
    strange = signed(tmp_path, describe(scripts=[script("a.sh", TEXT)]), {"a.sh": TEXT}, make_pki().stranger, name="strange.swu")
    with pytest.raises(CertificateError):
        await take(bench, Offer("file-1", file=strange))
    assert bench.staged == []
    altered = tmp_path / "altered.swu"
    altered.write_bytes(bench.bundle.replace(b"exit 0", b"exit 1"))
    with pytest.raises(HashMismatchError):
        await take(bench, Offer("file-2", file=altered))


async def test_a_file_that_is_gone_after_a_restart_must_be_handed_in_again(bench: Bench, tmp_path: Path) -> None:
    bench.minimum = Provenance.CMS
    file = tmp_path / "brought.swu"
    file.write_bytes(bench.bundle)
    release = await take(bench, Offer("file-1", file=file))
    await bench.content().obtain(release, quiet)
    bench.content().forget()
    with pytest.raises(NotStoredError, match="hand the file in again"):
        await bench.content().obtain(release, quiet)


async def test_a_file_that_cannot_be_read_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"):
        await take(bench, Offer("file-1", file=tmp_path / "absent.swu"))


async def test_nothing_can_be_finished_that_was_never_resolved(bench: Bench) -> None:
    release = Release(NAME, "os.swu", digest_of(bench.bundle), len(bench.bundle), "1.2", "tuf")
    with pytest.raises((NotStoredError, StateError)):
        await bench.content().obtain(release, quiet)


async def test_chunks_are_read_only_from_targets_of_pinned_repositories(bench: Bench) -> None:
    chunks = GatewayChunks(bench.wire, {"plant": "Plant"}, PatchesSection())
    assert [piece async for piece in chunks.read_ranges("http://PLANT/targets/a/b.zck", [(3, 2)])] == [(3, b"\0\0")]
    assert bench.wire.asked == [("Plant", "targets/a/b.zck")]
    for url in ("http://other/targets/a", "http://plant/metadata/root.json", "/targets/a", "file:///targets/a", ""):
        with pytest.raises(UnsupportedError):
            assert [piece async for piece in chunks.read_ranges(url, [(0, 1)])]


async def test_a_patch_is_asked_for_like_the_chunks_that_it_spares(bench: Bench) -> None:
    chunks, base = GatewayChunks(bench.wire, {"plant": "Plant"}, PatchesSection(memory_bytes=1 << 20)), Digest("ab" * 32)
    offer = await chunks.find_patch("http://PLANT/targets/a/b.zck", base)
    assert offer == PatchOffer(PatchForm.WINDOWS, (1 << 20) + 64)
    assert bench.wire.asked == [("Plant", "targets/a/b.zck")]
    read = [piece async for piece in chunks.read_patch("http://plant/targets/a/b.zck", base, offer)]
    assert read == [f"Plant targets/a/b.zck {base} {offer.size} {1 << 20}".encode()]
    assert chunks.patch_memory_bytes == 1 << 20
    with pytest.raises(UnsupportedError):
        await chunks.find_patch("http://other/targets/a", base)


async def test_a_node_that_wants_no_patches_asks_for_none(bench: Bench) -> None:
    chunks = GatewayChunks(bench.wire, {"plant": "Plant"}, PatchesSection(enabled=False))
    assert await chunks.find_patch("http://plant/targets/a/b.zck", Digest("ab" * 32)) is None
    assert bench.wire.asked == []
