"""One patch at a time, once per pair; what fails is said and leaves nothing."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from gateway.south.pairs import workshop as module
from gateway.south.pairs.shelf import Pair
from gateway.south.pairs.workshop import MAX_WAITING, Bounds, Order, Workshop
from tests.builders.pair_site import BOUNDS, PairSite
from tests.builders.relayed import until
from update.chunks.pair import PatchForm
from update.digest import Digest
from update.errors import BusyError, LimitError, NoSpaceError, SlowError, StoreError, UnsupportedError


@asynccontextmanager
async def working(workshop: Workshop) -> AsyncIterator[None]:
    task = asyncio.create_task(workshop.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def script(text: str) -> tuple[str, ...]:
    """A maker of another kind."""
    return (sys.executable, "-c", text)


async def ended(workshop: Workshop, pair: Pair) -> None:
    await until(lambda: workshop.wait_s(pair) is None, within_s=120.0)


async def test_a_patch_is_made_once_for_all_who_ask(pair_site: PairSite) -> None:
    workshop, order = pair_site.workshop(), pair_site.order()
    async with working(workshop):
        for _ in range(5):
            workshop.order(order)
        assert workshop.wait_s(order.pair) == 10
        await ended(workshop, order.pair)
    assert len(pair_site.grown) == 1
    made = pair_site.shelf.find(order.pair)
    assert made is not None
    assert made.size < pair_site.grown[0]
    assert pair_site.on_shelf == [made.path.name]


async def test_several_pairs_are_made_one_after_the_other(pair_site: PairSite) -> None:
    workshop = pair_site.workshop()
    orders = [pair_site.order(pair_site.pair(form=form)) for form in PatchForm]
    for order in orders:
        workshop.order(order)
    assert [workshop.wait_s(order.pair) for order in orders] == [10, 20]
    async with working(workshop):
        for order in orders:
            await ended(workshop, order.pair)
            assert pair_site.shelf.find(order.pair) is not None


async def test_too_many_orders_are_refused(pair_site: PairSite) -> None:
    workshop = pair_site.workshop()
    for number in range(MAX_WAITING):
        workshop.order(pair_site.order(replace(pair_site.pair(), old=Digest(f"{number:064x}"))))
    with pytest.raises(BusyError):
        workshop.order(pair_site.order())
    workshop.order(pair_site.order(replace(pair_site.pair(), old=Digest("0" * 64))))


async def refused(
    site: PairSite, order: Order, *, bounds: Bounds = BOUNDS, command: tuple[str, ...] = module.COMMAND
) -> Exception:
    """Why there is no patch; nothing is left of it."""
    workshop = site.workshop(bounds=bounds, command=command)
    async with working(workshop):
        workshop.order(order)
        await ended(workshop, order.pair)
    failure = workshop.failure(order.pair)
    assert failure is not None
    assert site.on_shelf == []
    return failure


async def test_images_that_are_too_large_are_refused(pair_site: PairSite) -> None:
    failure = await refused(pair_site, pair_site.order(), bounds=replace(BOUNDS, max_image_bytes=1 << 20))
    assert isinstance(failure, LimitError)
    assert pair_site.grown == []


async def test_what_hardly_differs_is_not_worth_a_patch(pair_site: PairSite) -> None:
    order = pair_site.order()
    failure = await refused(pair_site, replace(order, new=order.old))
    assert isinstance(failure, LimitError)
    assert "not worth" in str(failure)


async def test_without_room_nothing_is_made(pair_site: PairSite) -> None:
    pair_site.full = True
    assert isinstance(await refused(pair_site, pair_site.order()), NoSpaceError)


async def test_an_image_that_has_gone_is_a_reason(pair_site: PairSite) -> None:
    order = replace(pair_site.order(), old=pair_site.images / "gone.zck")
    assert isinstance(await refused(pair_site, order), StoreError)


async def test_a_maker_that_refuses_is_heard(pair_site: PairSite) -> None:
    failure = await refused(pair_site, pair_site.order(replace(pair_site.pair(), old=Digest("1" * 64))))
    assert isinstance(failure, UnsupportedError)
    assert "another header" in str(failure)


async def test_a_maker_without_memory_is_a_reason(pair_site: PairSite) -> None:
    assert isinstance(
        await refused(pair_site, pair_site.order(), bounds=replace(BOUNDS, maker_memory_bytes=32 << 20)), UnsupportedError
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit('broken pipe')", "broken pipe"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "status -9"),
        ("print('{\"size\": 3}'); raise SystemExit(4)", ""),
        ("print('x' * 1000000)", "xxx"),
    ],
)
async def test_a_maker_that_dies_leaves_nothing(pair_site: PairSite, text: str, words: str) -> None:
    half = f"open({str(pair_site.shelf.part(pair_site.pair()))!r}, 'w').write('half'); "
    failure = await refused(pair_site, pair_site.order(), command=script(half + text))
    assert isinstance(failure, UnsupportedError)
    assert words in str(failure)


async def test_a_maker_that_takes_too_long_is_ended(pair_site: PairSite) -> None:
    pid = pair_site.images.parent / f"{os.getpid()}.pid"
    text = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    failure = await refused(pair_site, pair_site.order(), bounds=replace(BOUNDS, maker_time_s=3), command=script(text))
    assert isinstance(failure, SlowError)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_maker_that_cannot_be_started_is_a_reason(pair_site: PairSite) -> None:
    assert isinstance(await refused(pair_site, pair_site.order(), command=("/nowhere",)), BusyError)


async def test_the_gateways_end_is_the_makers_and_the_next_start_finds_nothing(pair_site: PairSite) -> None:
    part, pid = pair_site.shelf.part(pair_site.pair()), pair_site.store.layout.root / "pid"
    tell = f"open({str(pid)!r}, 'w').write(str(os.getpid()))"
    text = f"open({str(part)!r}, 'w').write('half'); import os, time; {tell}; time.sleep(600)"
    workshop = pair_site.workshop(command=script(text))
    async with working(workshop):
        workshop.order(pair_site.order())
        await until(lambda: pid.exists() and bool(pid.read_text()), within_s=60.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGTERM)
    assert pair_site.on_shelf == []


async def test_a_part_of_a_gateway_that_was_killed_is_swept_before_anything_is_made(pair_site: PairSite) -> None:
    other = pair_site.pair("new", "old")
    pair_site.shelf.part(other).write_bytes(b"half")
    async with working(pair_site.workshop()):
        await until(lambda: pair_site.on_shelf == [])


async def test_what_failed_is_tried_again_later(pair_site: PairSite, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop, order = pair_site.workshop(), pair_site.order()
    pair_site.full = True
    async with working(workshop):
        workshop.order(order)
        await ended(workshop, order.pair)
        assert workshop.failure(order.pair) is not None
        monkeypatch.setattr(module, "AGAIN_S", -1.0)
        assert workshop.failure(order.pair) is None
        pair_site.full = False
        workshop.order(order)
        await ended(workshop, order.pair)
    assert pair_site.shelf.find(order.pair) is not None
