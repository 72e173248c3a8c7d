"""Content for agents that run in the gateway: whole files and pieces, from what the store or the relay lends."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fleet.attached import transport as transporting
from gateway.fleet.attached.crossing import Crossing
from gateway.fleet.attached.transport import NO_PATCHES, ShelfTransport
from tests.builders.fleet import bundle
from update.chunks.pair import PatchForm, PatchOffer
from update.chunks.ranges import Range
from update.digest import digest_of
from update.durable import Disk
from update.errors import NotFoundError, ProtocolError, UnreachableError
from update.store.staging import Staged
from update.trust.verified import TargetInfo

INFO = bundle("1.2", "board:1")
DATA = bytes(range(256)) * 20


@dataclass(frozen=True, slots=True)
class Lease:
    descriptor: int
    release: Callable[[], None]


@dataclass(slots=True)
class Shelf:
    """Lends one file, and refuses after `breaks_after` loans."""

    file: Path
    breaks_after: int = 1000
    lent: list[Range] = field(default_factory=list)
    out: int = 0

    def find(self, repository: str, path: str) -> TargetInfo | None:
        return INFO if (repository, path) == ("plant", INFO.wire_path) else None

    async def lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease:
        if len(self.lent) >= self.breaks_after:
            raise UnreachableError("upstream is away")
        self.lent += ranges
        self.out += 1
        descriptor = os.open(self.file, os.O_RDONLY)
        return Lease(descriptor, lambda: self.give_back(descriptor))

    def give_back(self, descriptor: int) -> None:
        self.out -= 1
        os.close(descriptor)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transporting, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(transporting, "_STEP_BLOCKS", 2)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    (tmp_path / "content").write_bytes(DATA)
    made = Shelf(tmp_path / "content")
    yield made
    assert made.out == 0, "everything was given back"


def transport(shelf: Shelf) -> ShelfTransport:
    return ShelfTransport(Crossing(), shelf, lambda name: shelf.file.parent / name)


def staged(folder: Path) -> Staged:
    return Staged(Disk(), folder / "part", folder / "part.json", length=len(DATA))


async def test_a_file_that_breaks_off_is_continued(shelf: Shelf, tmp_path: Path) -> None:
    shelf.breaks_after, told = 3, list[int]()
    with staged(tmp_path) as part, pytest.raises(UnreachableError):
        await transport(shelf).download("plant", INFO.wire_path, part, lambda done, _total: told.append(done))
    with staged(tmp_path) as part:
        assert part.size() == 3000
        shelf.breaks_after = 1000
        await transport(shelf).download("plant", INFO.wire_path, part, lambda done, _total: told.append(done))
    assert (tmp_path / "part").read_bytes() == DATA
    assert told == [1000, 2000, 3000, 4000, 5000, len(DATA)]
    assert [span.start for span in shelf.lent] == [0, 1000, 2000, 3000, 4000, 5000]


@given(
    spans=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, len(DATA))), max_size=4),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pieces_are_what_was_asked_for(shelf: Shelf, spans: list[tuple[int, int]]) -> None:
    wanted = [(start, min(length, len(DATA) - start)) for start, length in spans]
    found = b"".join([data async for _, data in transport(shelf).read_ranges("plant", INFO.wire_path, wanted)])
    assert found == b"".join(DATA[start : start + length] for start, length in wanted)


async def test_what_is_not_listed_or_shorter_than_signed_is_refused_by_name(shelf: Shelf) -> None:
    with pytest.raises(NotFoundError, match="lists no"):
        _ = [piece async for piece in transport(shelf).read_ranges("plant", "targets/else", [(0, 1)])]
    with pytest.raises(UnreachableError, match="ends before"):
        _ = [piece async for piece in transport(shelf).read_ranges("plant", INFO.wire_path, [(len(DATA) - 1, 2)])]


async def test_metadata_is_read_where_the_store_has_it(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "plant" / "metadata").mkdir(parents=True)
    (tmp_path / "plant" / "metadata" / "timestamp.json").write_bytes(b"{}")
    assert await transport(shelf).fetcher("plant").fetch("metadata/timestamp.json", max_bytes=10) == b"{}"


async def test_no_patch_is_offered(shelf: Shelf) -> None:
    base = digest_of(b"")
    assert await transport(shelf).find_patch("plant", INFO.wire_path, base, NO_PATCHES) is None
    with pytest.raises(ProtocolError):
        transport(shelf).read_patch("plant", INFO.wire_path, base, PatchOffer(PatchForm.WINDOWS, 1), NO_PATCHES)
