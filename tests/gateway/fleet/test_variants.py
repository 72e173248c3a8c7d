"""A delta is offered only while what the node asks for can be had; what it asks for is what the real client asks for."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.database.records import Action, ActionState, ClientKind, Commit, Node, Release, Running
from gateway.fleet.unlisted import MAX_RELEASES, Unlisted, unlisted_info
from gateway.fleet.variants import (
    ABSENT,
    WHOLE,
    Outlook,
    Variants,
    asked_by_stock,
    fits,
    outlook,
    pick,
    running_bundles,
    together,
)
from tests.builders.fleet import Clock, Shelf, bundle
from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import digest_of
from update.durable import Disk
from update.identity import Hardware
from update.publish.images import write_zchunk, zck_header
from update.trust.verified import Provenance, TargetInfo


def index_of(folder: Path, name: str, content: bytes) -> HeaderIndex:
    (folder / name).write_bytes(content)
    write_zchunk(folder / name, folder / f"{name}.zck", Disk())
    return parse_header(zck_header(folder / f"{name}.zck"))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[HeaderIndex, HeaderIndex]:
    """Old and new: the same but for three places."""
    folder, dice = tmp_path_factory.mktemp("versions"), random.Random(4)
    content = bytearray(dice.randbytes(700_000) + bytes(200_000))
    old = index_of(folder, "old", bytes(content))
    for place in (50_000, 300_000, 600_000):
        content[place : place + 500] = dice.randbytes(500)
    return old, index_of(folder, "new", bytes(content))


def nothing(_number: int) -> bool:
    return False


def everything(_number: int) -> bool:
    return True


def test_a_node_whose_version_is_unknown_asks_for_everything(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    _, new = versions
    found = outlook(new, None, nothing, [])
    assert found.asked_bytes == found.missing_bytes == new.total_length - new.header_size
    assert not found.complete


def test_a_node_that_runs_the_same_asks_for_the_last_chunk_only(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    """Swupdate 2022.12 never finds the last chunk of its source; where it occurs earlier, it does."""
    for index in versions:
        last = len(index) - 1
        once = (index.digest_of(last), index.size_of(last)) not in {
            (index.digest_of(number), index.size_of(number)) for number in range(last)
        }
        assert asked_by_stock(index, index) == ((last,) if once else ())


def test_a_stock_client_asks_for_no_less_than_a_plan_has(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = outlook(new, old, nothing, [])
    planned = plan_delta(new, Source.of_index(old))
    assert planned.fetch_bytes <= asked.asked_bytes < new.total_length / 2


def test_a_delta_can_be_completed_from_what_is_held_without_any_upstream(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = frozenset(asked_by_stock(new, old))
    assert outlook(new, old, asked.__contains__, []).complete
    assert outlook(new, old, everything, []).missing_bytes == 0
    for lost in asked:
        short = outlook(new, old, (asked - {lost}).__contains__, [])
        assert (short.complete, short.missing_chunks, short.missing_bytes) == (False, 1, new[lost].length)
        assert outlook(new, old, (asked - {lost}).__contains__, ["wan"]).complete


def test_what_is_held_and_not_asked_for_helps_nobody(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = frozenset(asked_by_stock(new, old))
    assert not outlook(new, old, lambda number: number not in asked, []).complete


@settings(max_examples=50)
@given(held=st.sets(st.integers(0, 60)), more=st.sets(st.integers(0, 60)))
def test_holding_more_never_makes_it_worse(versions: tuple[HeaderIndex, HeaderIndex], held: set[int], more: set[int]) -> None:
    old, new = versions
    less, greater = outlook(new, old, held.__contains__, []), outlook(new, old, (held | more).__contains__, [])
    assert greater.missing_bytes <= less.missing_bytes <= less.asked_bytes == greater.asked_bytes
    assert greater.complete >= less.complete
    assert (less.missing_chunks == 0) == (less.missing_bytes == 0)


BOARD = "board:1"
FULL = bundle("2", BOARD, path="os/full-2.swu")
OLD = bundle("1", BOARD, path="os/full-1.swu")


def delta_to(whole: TargetInfo, path: str) -> TargetInfo:
    made = bundle(whole.custom.version, *whole.custom.hw_ids, path=path)
    return replace(made, custom=replace(made.custom, delta_of=whole.path))


DELTA, OTHER = delta_to(FULL, "os/delta-2.swu"), delta_to(FULL, "os/another-2.swu")
GOOD, WAITING, BROKEN = Outlook(9, 0, 0, ()), Outlook(7, 7, 1, ("wan",)), Outlook(5, 5, 1, ())


@pytest.mark.parametrize(
    ("outlooks", "chosen"),
    [
        ({FULL: WHOLE, DELTA: GOOD}, DELTA),
        ({FULL: WHOLE, DELTA: WAITING}, DELTA),
        ({FULL: WHOLE, DELTA: BROKEN}, FULL),
        ({FULL: WHOLE, DELTA: GOOD, OTHER: WAITING}, OTHER),
        ({FULL: WHOLE, DELTA: GOOD, OTHER: BROKEN}, DELTA),
        ({FULL: ABSENT, DELTA: GOOD}, DELTA),
        ({FULL: ABSENT, DELTA: BROKEN}, None),
        ({DELTA: BROKEN}, None),
        ({DELTA: ABSENT}, None),
        ({FULL: WHOLE}, FULL),
    ],
)
def test_the_cheapest_delta_that_can_be_completed_is_offered_else_the_whole(
    outlooks: dict[TargetInfo, Outlook], chosen: TargetInfo | None
) -> None:
    assert pick(outlooks) == chosen


def test_a_bundle_is_complete_if_each_of_its_images_is() -> None:
    assert together([GOOD, WAITING]) == Outlook(16, 7, 1, ("wan",))
    assert not together([GOOD, WAITING, BROKEN]).complete
    assert together([GOOD, GOOD]).complete


def test_what_a_node_runs_is_known_by_its_digest_else_by_its_version() -> None:
    old_delta, foreign = delta_to(OLD, "os/delta-1.swu"), bundle("1", "other:1", path="os/foreign.swu")
    body = bundle("1", BOARD, path="os/image.zck")
    listed = [FULL, DELTA, OLD, old_delta, foreign, body]
    both = (old_delta, OLD)
    assert running_bundles(Running("1"), FULL, listed) == both
    assert running_bundles(Running("7", OLD.sha256), FULL, listed) == both
    assert running_bundles(Running("1", digest_of(b"of another place")), FULL, listed) == both
    assert running_bundles(Running("7"), FULL, listed) == ()
    assert running_bundles(Running(), FULL, [*listed, bundle("", BOARD)]) == ()


@dataclass
class Told:
    """Prospects as the test says; `asked` are (bundle, what is installed)."""

    outlooks: dict[TargetInfo, Outlook]
    asked: list[tuple[TargetInfo, tuple[TargetInfo, ...]]] = field(default_factory=list)

    async def outlook(self, bundle: TargetInfo, installed: Sequence[TargetInfo]) -> Outlook:
        self.asked.append((bundle, tuple(installed)))
        return self.outlooks[bundle]


def node(kind: ClientKind, running: Running) -> Node:
    now = Clock()()
    return Node("n1", kind, "site", digest_of(b""), Hardware.parse(BOARD), {}, False, running, 1, now, now)


def action(target: TargetInfo) -> Action:
    release = Release(target.repository, target.path, target.sha256, target.length, target.custom.version)
    return Action(1, "n1", release, 1, Commit.COMMIT, ActionState.OPEN, "site", "", "", Clock()(), None, None, None)


@pytest.mark.parametrize("ordered", [FULL, DELTA])
async def test_a_stock_node_is_offered_what_it_can_complete(ordered: TargetInfo) -> None:
    told = Told({FULL: WHOLE, DELTA: BROKEN})
    variants = Variants(Shelf({"plant": [OLD, FULL, DELTA]}), told)
    stock = node(ClientKind.SWUPDATE, Running("1"))
    offered = await variants.offered(stock, action(ordered))
    assert offered == action(FULL).release
    assert told.asked == [(DELTA, (OLD,)), (FULL, (OLD,))]
    told.outlooks[DELTA] = GOOD
    assert await variants.offered(stock, action(ordered)) == action(DELTA).release
    told.outlooks = {FULL: ABSENT, DELTA: BROKEN}
    assert await variants.offered(stock, action(ordered)) is None


@pytest.mark.parametrize("kind", [kind for kind in ClientKind if kind is not ClientKind.SWUPDATE])
async def test_who_chooses_for_itself_is_offered_what_was_ordered(kind: ClientKind) -> None:
    told = Told({})
    variants = Variants(Shelf({"plant": [FULL, DELTA]}), told)
    assert await variants.offered(node(kind, Running("1")), action(DELTA)) == action(DELTA).release
    assert told.asked == []


async def test_what_is_no_longer_listed_is_offered_as_it_was_ordered() -> None:
    variants = Variants(Shelf({"plant": [FULL]}), Told({}))
    assert await variants.offered(node(ClientKind.SWUPDATE, Running()), action(DELTA)) == action(DELTA).release


def unlisted(name: str) -> Release:
    """A bundle that only its own signature proves."""
    return Release("plant", name, digest_of(name.encode()), 1000, "2", Provenance.CMS)


WHOLE_CMS, DELTA_CMS = unlisted("two.swu"), unlisted("one.swu")


def wanted(release: Release) -> Action:
    return replace(action(FULL), release=release)


async def test_of_an_unlisted_release_in_two_forms_the_delta_is_offered_while_it_can_be_completed() -> None:
    forms, delta, whole = Unlisted(), unlisted_info(DELTA_CMS), unlisted_info(WHOLE_CMS)
    forms.note(WHOLE_CMS.sha256, is_delta=False)
    forms.join(WHOLE_CMS, DELTA_CMS)
    told = Told({whole: WHOLE, delta: GOOD})
    variants = Variants(Shelf({"plant": [OLD]}), told, forms)
    stock = node(ClientKind.SWUPDATE, Running("1"))
    assert await variants.offered(stock, wanted(WHOLE_CMS)) == DELTA_CMS
    told.outlooks[delta] = BROKEN
    assert await variants.offered(stock, wanted(WHOLE_CMS)) == WHOLE_CMS
    told.outlooks[whole] = ABSENT
    assert await variants.offered(stock, wanted(WHOLE_CMS)) is None
    assert await variants.offered(node(ClientKind.RAUC, Running("1")), wanted(WHOLE_CMS)) == WHOLE_CMS


async def test_an_unlisted_delta_without_a_whole_bundle_is_offered_only_while_it_can_be_completed() -> None:
    forms, delta = Unlisted(), unlisted_info(DELTA_CMS)
    told = Told({delta: BROKEN})
    variants = Variants(Shelf({"plant": []}), told, forms)
    stock = node(ClientKind.SWUPDATE, Running())
    assert await variants.offered(stock, wanted(DELTA_CMS)) is None
    told.outlooks[delta] = GOOD
    assert await variants.offered(stock, wanted(DELTA_CMS)) == DELTA_CMS


async def test_an_unlisted_bundle_that_is_known_to_be_whole_needs_no_look() -> None:
    forms, told = Unlisted(), Told({})
    forms.note(WHOLE_CMS.sha256, is_delta=False)
    variants = Variants(Shelf({"plant": []}), told, forms)
    assert await variants.offered(node(ClientKind.SWUPDATE, Running()), wanted(WHOLE_CMS)) == WHOLE_CMS
    assert told.asked == []


async def test_what_a_node_runs_is_known_in_both_forms_of_an_unlisted_release() -> None:
    before, old_delta = unlisted("before.swu"), unlisted("before-delta.swu")
    forms, delta = Unlisted(), unlisted_info(DELTA_CMS)
    forms.join(before, old_delta)
    told = Told({delta: GOOD})
    variants = Variants(Shelf({"plant": []}), told, forms)
    await variants.offered(node(ClientKind.SWUPDATE, Running("1", before.sha256)), wanted(DELTA_CMS))
    assert told.asked == [(delta, (unlisted_info(before), unlisted_info(old_delta)))]


def test_what_is_known_of_unlisted_releases_is_bounded() -> None:
    forms = Unlisted()
    for number in range(MAX_RELEASES + 3):
        forms.note(unlisted(f"{number}").sha256, is_delta=False)
        forms.join(unlisted(f"{number}"), unlisted(f"{number} delta"))
    assert not forms.is_whole(unlisted("0"))
    assert forms.forms(unlisted("0")) == (unlisted("0"),)
    assert (len(forms._is_delta), len(forms._joined)) == (MAX_RELEASES, MAX_RELEASES)


def rdiff_from(base: TargetInfo, path: str = "os/rdiff-2.swu") -> TargetInfo:
    made = delta_to(FULL, path)
    return replace(made, length=900, custom=replace(made.custom, delta_from=base.sha256))


RDIFF = rdiff_from(OLD)


def test_what_leads_from_another_bundle_fits_only_who_is_known_by_its_digest_to_run_that_release() -> None:
    old_delta, older = delta_to(OLD, "os/delta-1.swu"), bundle("0", BOARD, path="os/full-0.swu")
    listed = [FULL, DELTA, RDIFF, OLD, old_delta, older]
    for running in (Running("1", OLD.sha256), Running("9", OLD.sha256), Running("1", old_delta.sha256)):
        assert fits(RDIFF, running, listed)
    for running in (
        Running("1"),
        Running(),
        Running("1", older.sha256),
        Running("1", FULL.sha256),
        Running("1", digest_of(b"?")),
    ):
        assert not fits(RDIFF, running, listed)
        assert fits(DELTA, running, listed)
    assert fits(RDIFF, Running("1", OLD.sha256), [FULL, RDIFF])  # the base is listed no more


def test_of_several_deltas_the_one_that_takes_least_is_picked_whatever_kind_it_is() -> None:
    assert pick({FULL: WHOLE, RDIFF: WHOLE, DELTA: Outlook(901, 0, 0, ())}) == RDIFF
    assert pick({FULL: WHOLE, RDIFF: WHOLE, DELTA: Outlook(899, 0, 0, ())}) == DELTA
    assert pick({FULL: WHOLE, RDIFF: ABSENT}) == FULL


async def test_a_stock_node_gets_the_rdiff_of_its_own_base_and_no_other() -> None:
    older = bundle("0", BOARD, path="os/full-0.swu")
    other = rdiff_from(older, "os/rdiff-from-0.swu")
    told = Told({FULL: WHOLE, RDIFF: WHOLE, other: WHOLE})
    variants = Variants(Shelf({"plant": [OLD, older, FULL, RDIFF, other]}), told)
    for running, expected in ((OLD.sha256, RDIFF), (older.sha256, other), ("", FULL)):
        stock = node(ClientKind.SWUPDATE, Running("1", running))
        assert await variants.offered(stock, action(FULL)) == action(expected).release
    stock = node(ClientKind.SWUPDATE, Running("1", OLD.sha256))
    assert await variants.offered(stock, action(other)) == action(RDIFF).release
