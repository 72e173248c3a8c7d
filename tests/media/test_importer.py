"""What one medium brings to whoever asks for it through the folder of intake."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import pytest

from media.folder import FolderMedium
from media.importer import Importer, Visit
from media.intake import Intake, media_in, medium_id
from media.medium import Medium
from media.records import WANT_BYTES, Answer, Course, Kind, MediumState, Offer, Stage, Want, Wants
from update.durable import Disk
from update.errors import StateError

SWU = b"070702" + bytes(range(256)) * 40


_T = TypeVar("_T")


async def eventually(look: Callable[[], _T | None]) -> _T:
    async with asyncio.timeout(60):
        while (found := look()) is None:  # noqa: ASYNC110 - the other side is meant to be another process
            await asyncio.sleep(0.01)
    return found


class Gateway:
    """Asks and answers as the gateway does."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake

    async def offer(self) -> Offer:
        return await eventually(self.intake.offer)

    async def ask(self, offer: Offer, *wants: Want) -> list[bytes | str]:
        """What each brings, or the code of its refusal."""
        self.intake.write_wants(Wants(visit=offer.visit, wants=wants))
        return [await eventually(partial(self.brought, want.id)) for want in wants]

    def brought(self, want: int) -> bytes | str | None:
        if (refusal := self.intake.refusal(want)) is not None:
            return refusal.code
        content = self.intake.content(want)
        return content.read_bytes() if content.exists() else None

    def answer(self, offer: Offer, course: Course, *, taken: int = 5, wanted: int = 5, code: str = "") -> None:
        said = Answer(course=course, medium=offer.medium, visit=offer.visit, since=1, taken_bytes=taken, wanted_bytes=wanted)
        self.intake.write_answer(replace(said, code=code))


@dataclass
class Site:
    """A stick, the folder of intake, and what was told of the stick."""

    stick: Path
    gateway: Gateway
    told: list[MediumState]

    def begin(self, medium: Medium | None = None) -> asyncio.Task[MediumState]:
        visit = Visit(medium or FolderMedium.at(self.stick), "UPDATE", writable=False, now=time.time, clock=time.monotonic)
        return asyncio.create_task(Importer(visit, self.gateway.intake, self.told.append).run())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for folder in ("stick", "intake"):
        (tmp_path / folder).mkdir()
    return Site(tmp_path / "stick", Gateway(Intake(Disk(), tmp_path / "intake", "update-1")), [])


async def test_what_is_wanted_is_brought_and_the_stick_is_safe_when_the_gateway_has_it(site: Site) -> None:
    (site.stick / "metadata").mkdir()
    (site.stick / "metadata" / "timestamp.json").write_bytes(b"{}")
    (site.stick / "targets").mkdir()
    (site.stick / "targets" / "1.a.zck").write_bytes(bytes(range(200)))
    (site.stick / "one.swu").write_bytes(SWU)
    running = site.begin()
    offer = await site.gateway.offer()
    assert [(each.kind, each.name, each.size_bytes) for each in offer.found] == [
        (Kind.REPOSITORY, "", 0),
        (Kind.BUNDLE, "one.swu", len(SWU)),
    ]

    brought = await site.gateway.ask(
        offer,
        Want(id=1, number=0, path=("metadata", "timestamp.json"), length=100),
        Want(id=2, number=0, path=("targets", "1.a.zck"), ranges=((10, 3), (100, 2))),
        Want(id=3, number=1, ranges=((0, len(SWU)),)),
    )
    site.gateway.answer(offer, Course.ADOPTING)
    await eventually(lambda: site.told[-1].stage is Stage.COPYING or None)
    site.gateway.answer(offer, Course.UPDATING)

    assert brought == [b"{}", bytes((10, 11, 12, 100, 101)), SWU]
    assert (await running).stage is Stage.SAFE
    assert [state.stage for state in site.told] == [Stage.FOUND, Stage.CHECKING, Stage.COPYING, Stage.SAFE]
    assert site.gateway.intake.state() == site.told[-1]


@pytest.mark.parametrize(
    ("want", "code"),
    [
        (Want(id=1, number=7, length=5), "bundle.limit"),
        (Want(id=1, number=0, path=("missing",), length=5), "wire.protocol"),
        (Want(id=1, number=0, path=("..", "secret"), length=5), "wire.protocol"),
        (Want(id=1, number=0, length=5), "bundle.limit"),
        (Want(id=1, number=0, ranges=((len(SWU) - 1, 2),)), "medium.unreadable"),
        (Want(id=1, number=0, ranges=((0, WANT_BYTES), (0, 1))), "bundle.limit"),
    ],
)
async def test_what_cannot_be_brought_is_refused_by_name_and_the_next_is_served(site: Site, want: Want, code: str) -> None:
    (site.stick / "one.swu").write_bytes(SWU)
    running = site.begin()
    offer = await site.gateway.offer()

    assert await site.gateway.ask(offer, want, Want(id=2, number=0, ranges=((0, 6),))) == [code, b"070702"]
    site.gateway.answer(offer, Course.FAILED, code="trust.expired")
    ended = await running
    assert (ended.stage, ended.code) == (Stage.FAILED, "trust.expired")


async def test_an_empty_stick_says_that_nothing_is_meant_for_here(site: Site) -> None:
    (site.stick / "holiday.jpg").write_bytes(b"x" * 100)

    ended = await site.begin()

    assert (ended.stage, site.gateway.intake.offer()) == (Stage.NOTHING_NEW, None)


async def test_a_stick_that_brought_nothing_says_so(site: Site) -> None:
    (site.stick / "one.swu").write_bytes(SWU)
    running = site.begin()
    site.gateway.answer(await site.gateway.offer(), Course.DONE, taken=0, wanted=0)

    assert (await running).stage is Stage.NOTHING_NEW


async def test_wants_and_answers_of_an_earlier_visit_are_void(site: Site) -> None:
    (site.stick / "one.swu").write_bytes(SWU)
    first = site.begin()
    offer = await site.gateway.offer()
    await site.gateway.ask(offer, Want(id=1, number=0, ranges=((0, 6),)))
    site.gateway.answer(offer, Course.DONE)
    await first

    second = site.begin()
    fresh = await eventually(lambda: (now := site.gateway.intake.offer()) and (now if now.visit != offer.visit else None))
    assert await site.gateway.ask(fresh, Want(id=1, number=0, ranges=((6, 2),))) == [SWU[6:8]]
    assert not second.done()
    site.gateway.answer(fresh, Course.DONE)
    assert (await second).stage is Stage.SAFE


async def test_a_stick_that_is_pulled_out_ends_the_visit(site: Site) -> None:
    (site.stick / "one.swu").write_bytes(SWU)
    here = True
    medium = FolderMedium(os.open(site.stick, os.O_RDONLY | os.O_DIRECTORY), lambda: here)
    running = site.begin(medium)
    offer = await site.gateway.offer()
    here = False
    (site.stick / "one.swu").unlink()
    site.gateway.intake.write_wants(Wants(visit=offer.visit, wants=(Want(id=1, number=0, ranges=((0, 6),)),)))

    ended = await running

    assert (ended.stage, ended.code) == (Stage.GONE, "medium.gone")
    assert site.gateway.brought(1) is None


async def test_a_bad_sector_refuses_what_lies_on_it(site: Site) -> None:
    class Bad(FolderMedium):
        def open(self, parts: Sequence[str]) -> BinaryIO:
            if len(site.told) > 1 and site.gateway.intake.offer():
                raise self.trouble(OSError(errno.EIO, "Input/output error"), parts)
            return super().open(parts)

    (site.stick / "one.swu").write_bytes(SWU)
    running = site.begin(Bad.at(site.stick))
    offer = await site.gateway.offer()

    assert await site.gateway.ask(offer, Want(id=1, number=0, ranges=((0, 6),))) == ["medium.unreadable"]
    site.gateway.answer(offer, Course.FAILED, code="medium.unreadable")
    await running


def test_a_name_of_a_medium_leads_nowhere_else(tmp_path: Path) -> None:
    assert medium_id("0781:5583", "4C53 0001/..", "AAAA-BBBB") == "0781-5583-4c53-0001-aaaa-bbbb"
    assert medium_id("///") == "medium"
    assert len(medium_id("x" * 200)) == 63
    for name in ("..", "a/b", "", "A", "x" * 64):
        with pytest.raises(StateError):
            Intake(Disk(), tmp_path, name)


def test_media_are_listed_and_a_torn_record_counts_as_none(tmp_path: Path) -> None:
    intake = Intake(Disk(), tmp_path, "stick-1")
    intake.begin()
    intake.write_state(MediumState(medium="stick-1", label="A", stage=Stage.SAFE, since=1))
    (intake.folder / "state.json").write_bytes(b"{")

    assert [each.medium for each in media_in(Disk(), tmp_path)] == ["stick-1"]
    assert intake.state() is None
    assert list(media_in(Disk(), tmp_path / "missing")) == []
