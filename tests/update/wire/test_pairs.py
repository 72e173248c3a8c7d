"""Asking for a patch: what is offered, how long is waited, and what counts as none."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from update.chunks.pair import PatchForm, PatchOffer
from update.digest import Digest
from update.errors import UnreachableError
from update.wire.pairs import find_patch, patch_url

WINDOWS = {"Content-Type": PatchForm.WINDOWS.media_type, "Content-Length": "1234"}
WAIT = {"Retry-After": "7"}


class Gateway:
    """Answers in turn; the last one again and again."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.slept: list[float] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=headers)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(session: aiohttp.ClientSession, gateway: Gateway, wait_s: float = 20.0) -> PatchOffer | None:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", gateway.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/repositories/plant"
        url = patch_url(base, "targets/os/x.zck", base=Digest("ab" * 32), memory_bytes=5)
        return await find_patch(session, url, wait_s=wait_s, sleep=gateway.sleep)
    finally:
        await runner.cleanup()


async def test_an_offer_is_form_and_size(session: aiohttp.ClientSession) -> None:
    gateway = Gateway((200, WINDOWS))
    assert await ask(session, gateway) == PatchOffer(PatchForm.WINDOWS, 1234)
    assert gateway.asked == [f"HEAD /repositories/plant/patches/targets/os/x.zck?from={'ab' * 32}&memory=5"]


@pytest.mark.parametrize(
    "headers", [{**WINDOWS, "Content-Type": "application/octet-stream"}, {**WINDOWS, "Content-Length": "0"}, {}]
)
async def test_a_form_that_is_not_known_or_no_size_is_no_offer(session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    assert await ask(session, Gateway((200, headers))) is None


async def test_a_patch_that_is_being_made_is_waited_for(session: aiohttp.ClientSession) -> None:
    gateway = Gateway((202, WAIT), (202, WAIT), (200, WINDOWS))
    assert await ask(session, gateway) == PatchOffer(PatchForm.WINDOWS, 1234)
    assert gateway.slept == [7.0, 7.0]


async def test_it_is_not_waited_for_longer_than_allowed(session: aiohttp.ClientSession) -> None:
    gateway = Gateway((202, WAIT))
    assert await ask(session, gateway, wait_s=20.0) is None
    assert gateway.slept == [7.0, 7.0, 6.0]
    impatient = Gateway((202, WAIT))
    assert await ask(session, impatient, wait_s=0.0) is None
    assert (len(impatient.asked), impatient.slept) == (1, [])


@pytest.mark.parametrize(
    ("said", "pause_s"), [("0", 1.0), ("999", 60.0), ("99999", 60.0), ("soon", 60.0), ("", 60.0), ("-1", 60.0)]
)
async def test_what_a_gateway_says_of_the_time_is_bounded(session: aiohttp.ClientSession, said: str, pause_s: float) -> None:
    gateway = Gateway((202, {"Retry-After": said}), (200, WINDOWS))
    await ask(session, gateway, wait_s=1000.0)
    assert gateway.slept == [pause_s]


async def test_none_is_none_and_trouble_is_named(session: aiohttp.ClientSession) -> None:
    assert await ask(session, Gateway((404, {}))) is None
    with pytest.raises(UnreachableError):
        await ask(session, Gateway((503, {})))
