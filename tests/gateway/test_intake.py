"""A stick is read by one program and judged by another, the whole gateway: what comes of it, and what is refused by name."""

import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.control.media_messages import StaleRequest
from media.records import Course, Stage, Verdict
from tests.builders.hall import BOARD, Hall, make_hall, whole
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import now, offered
from update.errors import ForbiddenError, NotFoundError, UsageError

DAY_S = 86400


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def hall(short: Path) -> Hall:
    return await make_hall(short)


async def test_a_stick_brings_a_release_and_the_node_is_told_to_install_it(hall: Hall, short: Path) -> None:
    zck = make_zck(short, blocks=60)
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.builder.add_target("os/image.zck", zck.read_bytes(), custom_of(zck).as_json())
    hall.write_stick()
    site = hall.with_media()
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(site.running())
        node = await site.node(listening, stack)

        state = await hall.plug_in()

        assert (state.stage, state.code) == (Stage.SAFE, "")
        assert {(each.name, each.verdict) for each in state.contents} == {
            ("", Verdict.ACCEPTED),
            ("os/whole-2.swu", Verdict.ACCEPTED),
            ("os/image.zck", Verdict.ACCEPTED),
        }
        assert hall.kept() == {"whole-2.swu", "image.zck"}
        assert await offered(node) == "whole-2.swu"
        answer = await hall.answer(lambda said: said.course is Course.UPDATING)
        assert [(each.node, each.wanted, each.runs) for each in answer.nodes] == [("n1", "2", "1")]
        again = await hall.plug_in(left_in=True)
        assert again.stage is Stage.SAFE, "nothing is copied again, and the node is still at it"
        assert {each.verdict for each in again.contents} == {Verdict.KNOWN}


async def test_the_same_stick_again_says_nothing_new(hall: Hall, short: Path) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    async with hall.with_media(install=False).running():
        assert (await hall.plug_in()).stage is Stage.SAFE
        assert (await hall.plug_in()).stage is Stage.NOTHING_NEW


async def test_what_was_cut_off_goes_on_at_the_next_visit(hall: Hall, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.builder.add_target("os/whole-3.swu", whole(short, "3").read_bytes(), BOARD)
    hall.write_stick()
    target = next((short / "stick" / "targets" / "os").glob("*whole-3.swu"))
    content = target.read_bytes()
    target.unlink()
    async with hall.with_media(install=False).running():
        assert (await hall.plug_in()).stage is Stage.SAFE
        assert hall.kept() == {"whole-2.swu"}
        target.write_bytes(content)
        state = await hall.plug_in()
        assert state.stage is Stage.SAFE
        assert hall.kept() == {"whole-2.swu", "whole-3.swu"}


async def test_a_flipped_byte_is_refused_by_name_and_the_rest_is_taken(hall: Hall, short: Path) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.builder.add_target("os/whole-3.swu", whole(short, "3").read_bytes(), BOARD)
    hall.write_stick()
    target = next((short / "stick" / "targets" / "os").glob("*whole-3.swu"))
    content = bytearray(target.read_bytes())
    content[700] ^= 1
    target.write_bytes(content)
    async with hall.with_media(install=False).running():
        state = await hall.plug_in()
        refused = {each.name: each.code for each in state.contents if each.verdict is Verdict.REFUSED}
        assert refused == {"os/whole-3.swu": "trust.length-or-hash"}
        assert (state.stage, hall.kept()) == (Stage.SAFE, {"whole-2.swu"})


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("foreign", "trust.signature"),
        ("older", "trust.rollback"),
        ("expired", "trust.expired"),
        ("truncated", "trust.metadata"),
    ],
)
async def test_a_stick_that_is_not_to_be_trusted_is_refused_by_name(hall: Hall, short: Path, spoil: str, code: str) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    async with hall.with_media(install=False).running():
        match spoil:
            case "foreign":
                hall = replace(hall, builder=RepositoryBuilder(now=now()))
                hall.write_stick()
            case "older":
                hall.write_stick()
                (short / "stick").rename(short / "old")
                hall.builder.add_target("os/whole-3.swu", whole(short, "3").read_bytes(), BOARD)
                hall.write_stick()
                assert (await hall.plug_in()).stage is Stage.SAFE
                (short / "stick").rename(short / "new")
                (short / "old").rename(short / "stick")
            case "expired":
                hall.builder.timestamp.expires = now() - timedelta(days=1)
                hall.write_stick()
            case _:
                hall.write_stick()
                (short / "stick" / "metadata" / "timestamp.json").write_bytes(b'{"signed":')
        before = hall.kept()

        state = await hall.plug_in()

        assert (state.stage, state.code) == (Stage.FAILED, code), state.message
        assert hall.kept() == before


@pytest.mark.parametrize(
    ("role", "late_days", "grace_s", "code"),
    [
        ("timestamp", 1, 2 * DAY_S, ""),
        ("snapshot", 1, 2 * DAY_S, ""),
        ("timestamp", 3, 2 * DAY_S, "trust.expired"),
        ("targets", 1, 2 * DAY_S, "trust.expired"),
        ("root", 1, 2 * DAY_S, "trust.expired"),
    ],
)
async def test_an_operator_has_a_stick_accepted_past_its_expiry_once(
    hall: Hall, role: str, late_days: int, grace_s: int, code: str
) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(hall.folder).read_bytes(), BOARD)
    getattr(hall.builder, role).expires = now() - timedelta(days=late_days)
    if role == "root":
        hall.builder.root.version += 1
        hall.builder.publish_root()
    hall.write_stick()
    async with hall.with_media(install=False, stale_grace_s=grace_s).running():
        assert (await hall.plug_in()).code == "trust.expired"
        reply = await hall.site.operator.accept_stale("update-1", StaleRequest(reason="the line is down"))
        assert reply.medium == "update-1"
        state = await hall.plug_in()
        assert state.code == code, state.message
        answer = await hall.answer(lambda said: bool(said.reported))
        assert answer.stale.endswith(": the line is down")
        assert bool(hall.kept()) is (not code)
        assert (await hall.plug_in()).code == "trust.expired", "it was for one visit"


async def test_nobody_accepts_what_is_stale_where_the_site_forbids_it(hall: Hall) -> None:
    async with hall.with_media().running():
        with pytest.raises(ForbiddenError, match="stale_grace_s"):
            await hall.site.operator.accept_stale("update-1", StaleRequest(reason="x"))
    async with hall.with_media(stale_grace_s=60).running():
        with pytest.raises(NotFoundError, match="no medium"):
            await hall.site.operator.accept_stale("update-1", StaleRequest(reason="x"))
        (hall.folder / "intake" / "update-1").mkdir()
        with pytest.raises(UsageError, match="reason"):
            await hall.site.operator.accept_stale("update-1", StaleRequest(reason=" "))


async def test_single_bundles_are_taken_only_where_the_site_says_so(hall: Hall, short: Path) -> None:
    hall.builder.add_target("os/other.txt", b"x", {})
    (short / "stick").mkdir()
    (short / "stick" / "any name.bin").write_bytes(whole(short).read_bytes())
    async with hall.with_media().running():
        state = await hall.plug_in()
        assert (state.stage, state.code) == (Stage.FAILED, "trust.provenance")
    async with hall.with_media(singles=("plant",)).running():
        state = await hall.plug_in()
        assert state.stage is Stage.SAFE, state.message
        assert hall.kept() == {"stick.swu"}
        assert (await hall.plug_in()).stage is Stage.NOTHING_NEW


async def test_a_single_bundle_that_nobody_here_signed_leaves_nothing(hall: Hall, short: Path) -> None:
    (short / "stick").mkdir()
    content = bytearray(whole(short).read_bytes())
    content[len(content) // 2] ^= 1
    (short / "stick" / "a.swu").write_bytes(content)
    async with hall.with_media(singles=("plant",)).running():
        state = await hall.plug_in()
        assert (state.stage, state.code) == (Stage.FAILED, "bundle.hash")
        assert hall.kept() == set()
        assert list((hall.store / "staging").iterdir()) == []
